"""Habits from other libraries: hooks, readable state, arrays as numbers, optimizers in one, clipping of parts."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.amp import GradScaler
from netcl.errors import ArgumentError, HyperParameterError, NetclError
from netcl.optim import (
    SGD,
    AdamW,
    MultiSteps,
    PerLabel,
    RMSProp,
    average_gradients,
    clip_grad_adaptive,
    clip_grad_norm_,
    clip_grad_norm_each,
    clip_grad_value_,
    clip_grads_with_norm_,
    decay_groups,
    get_total_norm,
    zero_nans,
)  # fmt: skip


def leaf(values, backend="numpy"):
    device = backend if isinstance(backend, str) else backend.device
    return netcl.asarray(np.asarray(values, "float32"), device=device, requires_grad=True)


def with_gradient(values, gradient, backend="numpy"):
    p = leaf(values, backend)
    p.grad = leaf(gradient, backend).detach()
    return p


def test_hooks_run_in_their_order_until_they_are_removed():
    p = with_gradient([1.0], [1.0])
    optimizer, seen = SGD([p], lr=0.5), []
    handles = [
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: seen.append(("pre", args == (opt,), dict(kwargs)))),
        optimizer.register_step_pre_hook(lambda opt, args, kwargs: (args, {"max_norm": 0.5})),
        optimizer.register_step_post_hook(lambda opt, args, kwargs: seen.append(("post", kwargs, p.item()))),
    ]
    optimizer.step(max_norm=9.0)
    assert seen == [("pre", True, {"max_norm": 9.0}), ("post", {"max_norm": 0.5}, 0.75)]
    scaler = GradScaler(4.0)
    scaler.scale(p.detach())
    scaler.step(optimizer)
    assert len(seen) == 4
    for handle in handles:
        handle.remove()
        handle.remove()
    optimizer.step()
    assert len(seen) == 4
    with optimizer.register_step_pre_hook(lambda *_: 5), pytest.raises(ArgumentError, match="args, kwargs"):
        optimizer.step()
    optimizer.register_step_post_hook(seen.append)
    copy.deepcopy((p, optimizer))[1].step()  # which has no hooks


def test_hooks_of_the_state():
    optimizer, seen = SGD([leaf([1.0])], lr=0.5), []
    optimizer.register_state_dict_pre_hook(lambda opt: seen.append("second"))
    optimizer.register_state_dict_pre_hook(lambda opt: seen.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda opt, state: {**state, "more": 1})
    state = optimizer.state_dict()
    assert seen == ["first", "second"]
    assert state.pop("more") == 1
    optimizer.register_load_state_dict_pre_hook(lambda opt, state: {k: v for k, v in state.items() if k != "more"})
    optimizer.register_load_state_dict_post_hook(lambda opt: seen.append("loaded"))
    given = {**state, "more": 2}
    optimizer.load_state_dict(given)
    assert seen[-1] == "loaded"
    assert "more" in given


def test_state_is_read_without_waiting(backend):
    p, q = with_gradient([1.0, 2.0], [0.5, 0.5], backend), leaf([3.0], backend)
    optimizer = RMSProp([p, q], momentum=0.9, centered=True)
    optimizer.step()
    blocking = getattr(backend, "blocking", 0)
    state, missing = optimizer.state[p], leaf([1.0])
    assert getattr(backend, "blocking", 0) == blocking
    packed = optimizer.state_dict()["state"]
    for key, parameter in enumerate((p, q)):
        found = {name: x.numpy() for name, x in optimizer.state[parameter].items()}
        assert found.keys() == packed[key].keys()
        for name, value in packed[key].items():
            np.testing.assert_array_equal(found[name], value)
    before = state["square_avg"].numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(state["square_avg"].numpy(), before)
    assert len(optimizer.state) == 2
    assert [x is y for x, y in zip(optimizer.state, (p, q), strict=True)] == [True, True]
    assert q in optimizer.state
    assert missing not in optimizer.state
    with pytest.raises(KeyError):
        optimizer.state[missing]


def test_hyper_parameters_may_be_arrays_of_one_element(backend):
    torch = pytest.importorskip("torch")
    on_device = netcl.asarray(np.float32(0.25), device=backend.device)
    for lr in (on_device, netcl.reshape(on_device, (1,)), np.float64(0.25), np.array([0.25]), torch.tensor(0.25)):
        optimizer = AdamW([leaf([1.0])], lr=lr, betas=(np.array(0.5), torch.tensor([0.75])), weight_decay=lr)
        assert optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["weight_decay"] == 0.25
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)
        optimizer.param_groups[0]["lr"] = lr
        assert type(optimizer.lr) is float
    for bad in (np.array([0.1, 0.2]), torch.tensor(True), np.array(["x"]), np.array(math.nan)):
        with pytest.raises(HyperParameterError):
            AdamW([leaf([1.0])], lr=bad)


def test_how_torch_runs_a_step_is_without_effect_and_said_once():
    program = (
        "import warnings, netcl\nfrom netcl.optim import SGD, AdamW\n"
        "p = netcl.ones(1, requires_grad=True)\n"
        "with warnings.catch_warnings(record=True) as said:\n    warnings.simplefilter('always')\n"
        "    AdamW([p], foreach=None, fused=False, capturable=False)\n    assert not said\n"
        "    AdamW([p], fused=True)\n    SGD([{'params': [p], 'foreach': True}])\n"
        "assert len(said) == 1 and 'fused=True has no effect' in str(said[0].message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for bad in ({"differentiable": True}, {"foreach": "yes"}):
        with pytest.raises(HyperParameterError, match=next(iter(bad))):
            SGD([leaf([1.0])], **bad)


def test_groups_with_and_without_decay():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 1, bias=False))
    decayed, others = decay_groups(model, 0.1)
    assert [name for name, _ in decayed["params"]] == ["1.weight", "3.weight"]
    assert [name for name, _ in others["params"]] == ["0.weight", "1.bias", "2.weight", "2.bias"]
    (only,) = decay_groups(model, 0.1, no_decay="*")
    assert (only["name"], only["weight_decay"]) == ("no_decay", 0.0)
    assert AdamW(decay_groups(model, 0.1)).param_groups[0]["weight_decay"] == 0.1


def gradients_of(model, optimizer, inputs, step):
    for x in inputs:
        optimizer.zero_grad()
        with ag.Tape() as tape:
            loss = netcl.mean(model(x) ** 2)
        tape.backward(loss)
        step()


def test_several_backward_passes_are_one_step_of_their_mean(backend):
    rng = np.random.default_rng(1)
    inputs = [netcl.asarray(rng.standard_normal((4, 3)).astype("float32"), device=backend.device) for _ in range(6)]
    weights = rng.standard_normal((2, 3)).astype("float32")
    models = [nn.Linear(3, 2, bias=False) for _ in range(3)]
    for model in models:
        model.weight = leaf(weights, backend)
    optimizers = [AdamW(model.parameters(), lr=0.1) for model in models]
    steps = MultiSteps(optimizers[0], 3)
    gradients_of(models[0], steps, inputs, lambda: steps.step(max_norm=0.5))
    assert steps.calls == 0
    for i in range(0, 6, 3):  # by hand
        for x in inputs[i : i + 3]:
            with ag.Tape() as tape:
                loss = netcl.mean(models[1](x) ** 2)
            tape.backward(loss)
        average_gradients(optimizers[1], 3)
        optimizers[1].step(max_norm=0.5)
        optimizers[1].zero_grad()
        with ag.Tape() as tape:  # and as one loss
            loss = netcl.mean(netcl.stack([netcl.mean(models[2](x) ** 2) for x in inputs[i : i + 3]]))
        tape.backward(loss)
        optimizers[2].step(max_norm=0.5)
        optimizers[2].zero_grad()
    np.testing.assert_array_equal(models[0].weight.numpy(), models[1].weight.numpy())
    np.testing.assert_allclose(models[0].weight.numpy(), models[2].weight.numpy(), rtol=1e-4, atol=1e-5)
    assert optimizers[0].state_dict()["state"][0]["step"] == 2


def test_a_scaler_waits_with_the_gradients():
    p = leaf([1.0])
    steps, scaler = MultiSteps(SGD([p], lr=0.5), 2), GradScaler(8.0)
    for x in (1.0, 3.0):
        with ag.Tape() as tape:
            loss = netcl.sum(p * x)
        tape.backward(scaler.scale(loss))
        scaler.step(steps)
        scaler.update()
        if x == 1.0:
            with pytest.raises(NetclError, match="would lose"):
                steps.state_dict()
    assert p.item() == 0.0
    steps.load_state_dict(steps.state_dict())


@pytest.mark.parametrize("scaled", [False, True])
def test_each_label_has_its_optimizer(scaled, backend):
    named = [("a.weight", [1.0, 2.0]), ("a.bias", [3.0]), ("b.weight", [4.0])]
    tensors = {name: with_gradient(values, np.ones(len(values)), backend) for name, values in named}
    makers = {"w": partial(SGD, lr=0.5), "b": partial(SGD, lr=0.25), "unused": AdamW}
    optimizer = PerLabel(tensors.items(), makers, {"*.bias": "b", "*": "w"})
    if scaled:
        scaler = GradScaler(1.0)
        scaler.scale(tensors["a.bias"].detach())
        scaler.step(optimizer, max_norm=1.0)
        scaler.update()
    else:
        optimizer.step(max_norm=1.0)
    assert list(optimizer.optimizers) == ["w", "b"]
    expected = {"a.weight": [0.75, 1.75], "a.bias": [2.875], "b.weight": [3.75]}
    for name, p in tensors.items():
        np.testing.assert_allclose(p.numpy(), expected[name], rtol=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())
    if scaled:  # one that is not finite stops all of them
        tensors["a.bias"].grad = netcl.asarray([math.inf], device=tensors["a.bias"].device)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.steps_skipped == 1
        np.testing.assert_allclose(tensors["a.weight"].numpy(), expected["a.weight"], rtol=1e-6)
    optimizer.zero_grad()
    with pytest.raises(NetclError, match="no gradient"):
        optimizer.step()
    with pytest.raises(HyperParameterError, match="no optimizer"):
        PerLabel(tensors.items(), makers, lambda name, tensor: "none")
    with pytest.raises(HyperParameterError, match="fits none"):
        PerLabel(tensors.items(), makers, {"*.bias": "b"})


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_units_are_clipped_by_the_size_of_their_weights(dtype, backend):
    """A. Brock et al., 2021, equation 3."""
    rng = np.random.default_rng(2)
    for shape in ((3, 4), (2, 3, 2, 2), (5,), ()):
        p = netcl.asarray(rng.standard_normal(shape), dtype=dtype, device=backend.device, requires_grad=True)
        p.grad = netcl.asarray(rng.standard_normal(shape) * 3, dtype=dtype, device=backend.device)
        axes = tuple(range(1, len(shape))) if len(shape) > 1 else None
        weights, gradient = p.numpy().astype(float), p.grad.numpy().astype(float)
        size = np.maximum(np.sqrt((weights**2).sum(axis=axes, keepdims=True)), 1e-3)
        norm = np.sqrt((gradient**2).sum(axis=axes, keepdims=True))
        expected = np.where(norm > 0.5 * size, gradient * (0.5 * size / norm), gradient).reshape(shape)
        clip_grad_adaptive([p], 0.5)
        np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-3 if dtype == "float16" else 1e-5)


def test_nans_count_as_zero(backend):
    p = with_gradient([1.0, 1.0, 1.0], [math.nan, 1.0, -math.inf], backend)
    zero_nans(SGD([p], lr=0.5)).step()
    np.testing.assert_array_equal(p.numpy(), [1.0, 0.5, math.inf])


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_clipping_is_as_torchs(norm_type, backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    gradients = [rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (7,))]
    theirs = [torch.zeros(g.shape) for g in gradients]
    ours = [with_gradient(np.zeros(g.shape), g, backend) for g in gradients]
    for p, g in zip(theirs, gradients, strict=True):
        p.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm_type)
    norm = get_total_norm([p.grad for p in ours], norm_type)
    np.testing.assert_allclose(float(norm), float(expected), rtol=1e-5)
    others = [with_gradient(np.zeros(g.shape), g, backend) for g in gradients]
    clip_grads_with_norm_(ours, 0.5, norm)
    clip_grad_norm_(others, 0.5, norm_type)
    for p, q, t in zip(ours, others, theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-4)
        np.testing.assert_allclose(q.grad.numpy(), t.grad.numpy(), rtol=1e-4)
    clip_grads_with_norm_(ours, 0.25, 0.5)
    np.testing.assert_allclose(ours[0].grad.numpy(), theirs[0].grad.numpy() / 2, rtol=1e-4)
    clip_grad_value_(others, 0.01)
    assert abs(others[0].grad.numpy()).max() <= np.float32(0.01)
    assert float(clip_grad_norm_([leaf([1.0])], 1.0)) == float(get_total_norm([])) == 0.0


def test_each_part_has_a_norm_of_its_own(backend):
    p, q = with_gradient([0.0, 0.0], [3.0, 4.0], backend), with_gradient([0.0], [0.5], backend)
    norms = clip_grad_norm_each([p, q, leaf([1.0], backend)], 1.0)
    assert [float(norm) for norm in norms] == [5.0, 0.5]
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-6)
    optimizer = SGD([{"params": [p]}, {"params": [q]}])
    clip_grad_norm_each(optimizer.param_groups, [2.0, 0.25])
    np.testing.assert_allclose((*p.grad.numpy(), *q.grad.numpy()), [0.6, 0.8, 0.25], rtol=1e-6)
    with pytest.raises(HyperParameterError, match="2 part"):
        clip_grad_norm_each([p, q], [1.0])


def test_a_scaler_has_torchs_getters_and_setters():
    scaler = GradScaler(64.0, device="numpy")
    assert (scaler.get_scale(), scaler.is_enabled()) == (64.0, True)
    for name, before, after in (
        ("growth_factor", 2.0, 4.0),
        ("backoff_factor", 0.5, 0.25),
        ("growth_interval", 2000, 7),
    ):
        assert getattr(scaler, f"get_{name}")() == before
        getattr(scaler, f"set_{name}")(after)
        assert getattr(scaler, f"get_{name}")() == scaler.state_dict()[name] == after
    with pytest.raises(HyperParameterError, match="growth_factor"):
        scaler.set_growth_factor(1.0)
    with pytest.raises(HyperParameterError, match="device="):
        GradScaler("numpy")
    losses = scaler.scale([netcl.ones(1, device="numpy"), netcl.ones(1, device="numpy")])
    assert [loss.item() for loss in losses] == [64.0, 64.0]
