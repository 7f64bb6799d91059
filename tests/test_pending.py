"""Factors that wait for the step: what is folded, what is applied when somebody looks, and what is forgotten."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.amp import GradScaler
from netcl.errors import TapeError
from netcl.optim import SGD, AdamW, clip_grad_norm_device

ROUTES = ["untouched", "read", "read twice", "betas changed", "one forgotten"]


def parameters(backend, sizes=(3, 1500, 40)):
    rng = np.random.default_rng(5)
    tensors = [
        netcl.asarray(rng.standard_normal(n).astype("float32"), device=backend.device, requires_grad=True)
        for n in sizes
    ]
    give_gradients(tensors, rng)
    return tensors, rng


def give_gradients(tensors, rng):
    for tensor in tensors:
        gradient = rng.standard_normal(tensor.shape).astype("float32")
        tensor.grad = netcl.asarray(gradient, device=tensor.device)


def interfere(route, tensors, optimizer):
    if route.startswith("read"):
        for _ in range(1 + ("twice" in route)):
            tensors[0].grad.numpy()
    elif route == "betas changed":
        optimizer.param_groups[0]["betas"] = (0.5, 0.7)
    elif route == "one forgotten":
        tensors[1].grad = None


@pytest.mark.parametrize("route", ROUTES)
def test_a_clipped_step_is_the_step_of_clipped_gradients(route, backend):
    """Whatever comes between the clipping and the step, and in the steps after it."""
    tensors, rng = parameters(backend)
    twins = [netcl.asarray(tensor.numpy(), device=backend.device, requires_grad=True) for tensor in tensors]
    optimizer, twin = AdamW(tensors, lr=0.1), AdamW(twins, lr=0.1)
    for step in range(6):
        give_gradients(tensors, rng)
        for ours, theirs in zip(tensors, twins, strict=True):
            theirs.grad = netcl.asarray(ours.grad.numpy(), device=backend.device)
        if step % 3 != 2:
            norm = clip_grad_norm_device(tensors, max_norm=0.5)
            squares = sum(float(np.sum(t.grad.numpy().astype("float64") ** 2)) for t in twins)
            factor = min(1.0, 0.5 / squares**0.5)
            for theirs in twins:
                theirs.grad *= factor
            if step % 2:
                interfere(route, tensors, optimizer)
                interfere(route, twins, twin)
            else:
                del norm
        optimizer.step()
        twin.step()
        for ours, theirs in zip(tensors, twins, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-6, atol=1e-7)
            if ours.grad is not None:
                np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-6)


def test_the_norm_stays_what_it_was(backend):
    tensors, _ = parameters(backend)
    optimizer = SGD(tensors, lr=0.1)
    expected = float(np.sqrt(sum(np.sum(t.grad.numpy().astype("float64") ** 2) for t in tensors)))
    first = clip_grad_norm_device(tensors, max_norm=0.25)
    second = clip_grad_norm_device(tensors, max_norm=10.0)
    optimizer.step()
    optimizer.step(max_norm=1.0)
    assert (float(first), float(second)) == (pytest.approx(expected, rel=1e-6), pytest.approx(0.25, rel=1e-6))


def test_clearing_gradients_forgets_the_factor(backend):
    tensors, _ = parameters(backend)
    optimizer = SGD(tensors, lr=1.0)
    clip_grad_norm_device(tensors, max_norm=1e-3)
    optimizer.zero_grad()
    before = tensors[0].numpy()
    with ag.Tape() as tape:
        loss = netcl.sum(tensors[0] * 2.0)
    tape.backward(loss)
    assert tensors[0].grad.tolist() == [2.0] * 3
    optimizer.step()
    np.testing.assert_allclose(tensors[0].numpy(), before - 2.0, rtol=1e-6)


def test_a_backward_adds_to_clipped_gradients(backend):
    tensors, _ = parameters(backend, (4,))
    optimizer = SGD(tensors, lr=1.0)
    clip_grad_norm_device(tensors, max_norm=0.5)
    with ag.Tape() as tape:
        loss = netcl.sum(tensors[0] * 2.0)
    before, gradient = tensors[0].numpy(), None
    tape.backward(loss)
    gradient = tensors[0].grad.numpy()
    assert np.linalg.norm(gradient - 2.0) == pytest.approx(0.5, rel=1e-5)
    optimizer.step()
    np.testing.assert_allclose(tensors[0].numpy(), before - gradient, rtol=1e-6)


def test_some_of_an_optimizers_parameters_are_clipped_in_place(backend):
    tensors, _ = parameters(backend)
    SGD(tensors, lr=1.0)
    other = tensors[1].grad.numpy()
    clip_grad_norm_device(tensors[:1], max_norm=0.5)
    assert np.linalg.norm(tensors[0].grad.numpy()) == pytest.approx(0.5, rel=1e-5)
    assert np.array_equal(tensors[1].grad.numpy(), other)


def test_parameters_do_not_keep_a_dropped_optimizer(backend):
    tensors, _ = parameters(backend)
    optimizer = AdamW(tensors)
    clip_grad_norm_device(tensors, max_norm=0.5)
    assert tensors[0].grad_buffer.owner is optimizer.partitions[0]
    del optimizer
    gc.collect()
    assert tensors[0].grad_buffer.owner is None
    norm = sum(np.sum(t.grad.numpy().astype("float64") ** 2) for t in tensors) ** 0.5
    assert norm == pytest.approx(0.5, rel=1e-5)
    assert float(clip_grad_norm_device(tensors, max_norm=0.25)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("clip", [None, "step", "device"])
@pytest.mark.parametrize("look", [False, True], ids=["folded", "read"])
def test_sums_over_workers_are_stepped_and_read_as_means(look, clip, backend):
    tensors, rng = parameters(backend)
    twins = [netcl.asarray(tensor.numpy(), device=backend.device, requires_grad=True) for tensor in tensors]
    optimizer, twin = AdamW(tensors, lr=0.1), AdamW(twins, lr=0.1)
    for _ in range(3):
        give_gradients(tensors, rng)
        optimizer.partitions[0].gather_gradients()
        for ours, theirs in zip(tensors, twins, strict=True):
            theirs.grad = netcl.asarray(ours.grad.numpy() / np.float32(4.0), device=backend.device)
        optimizer.partitions[0].average(4)
        if look:
            np.testing.assert_allclose(tensors[1].grad.numpy(), twins[1].grad.numpy(), rtol=1e-6)
        for sides, each in ((tensors, optimizer), (twins, twin)):
            if clip == "device":
                clip_grad_norm_device(sides, max_norm=0.5)
            each.step(max_norm=0.5 if clip == "step" else None)
        for ours, theirs in zip(tensors, twins, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-6, atol=1e-7)
            np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=2e-6)
        for each in (optimizer, twin):
            each.zero_grad()


def test_a_tape_notices_a_step_between_two_walks(backend):
    tensors, _ = parameters(backend)
    optimizer = SGD(tensors, lr=0.1)
    with ag.Tape(retain=True) as tape:
        loss = netcl.sum(tensors[0] * tensors[0])
    tape.backward(loss)
    optimizer.step()
    with pytest.raises(TapeError, match="changed in place after it was recorded"):
        tape.backward(loss)


def test_a_tape_notices_either_of_two_optimizers(backend):
    tensors, _ = parameters(backend)
    first, second = SGD(tensors, lr=0.1), SGD(tensors[:1], lr=0.1)
    for optimizer in (first, second):
        with ag.Tape(retain=True) as tape:
            loss = netcl.sum(tensors[0] * tensors[0])
        tape.backward(loss)
        optimizer.step()
        with pytest.raises(TapeError, match="changed in place after it was recorded"):
            tape.backward(loss)


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_one_norm_over_several_dtypes(scaled, backend):
    rng = np.random.default_rng(4)
    sizes = {"float32": 1500, "bfloat16": 7, "float16": 300}
    tensors = [netcl.zeros(n, dtype=t, device=backend.device, requires_grad=True) for t, n in sizes.items()]
    optimizer, scaler = SGD(tensors, lr=1.0), GradScaler(init_scale=4.0, enabled=scaled)
    scaler.scale(netcl.ones(1, device=backend.device))
    assert len(optimizer.partitions) == 3
    before = [np.zeros(n) for n in sizes.values()]
    for bad in (None, 1, None):
        for position, tensor in enumerate(tensors):
            values = rng.integers(-8, 9, tensor.size) * (4.0 if scaled else 1.0)
            values[0] = np.inf if scaled and bad == position else values[0]
            tensor.grad = netcl.astype(netcl.asarray(values.astype("float32"), device=backend.device), tensor.dtype)
        scale = scaler.get_scale()
        gradients = [netcl.astype(t.grad, "float32").numpy().astype("float64") / scale for t in tensors]
        scaler.step(optimizer, max_norm=0.5)
        scaler.update()
        after = [netcl.astype(t, "float32").numpy() for t in tensors]
        if scaled and bad is not None:
            assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
        else:
            norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
            for dtype, x, y, g in zip(sizes, before, after, gradients, strict=True):
                rounding = 1e-7 if dtype == "float32" else 2.5e-4
                np.testing.assert_allclose(y, x - g * 0.5 / norm, rtol=1e-5, atol=rounding)
        before = after
