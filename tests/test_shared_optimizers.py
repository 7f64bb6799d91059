"""What is refused as a gradient when it is assigned, and an optimizer that several threads use."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.array import Storage
from netcl.backends.reference import ReferenceBackend
from netcl.errors import ArgumentError, DeviceMismatchError, DTypeError, NetclError, ShapeError
from netcl.functional.host import from_host
from netcl.optim import SGD, Adam, clip_grad_norm_device

NO_GRADIENTS = {
    "int32": (DTypeError, lambda: netcl.ones(3, dtype="int32")),
    "uint8": (DTypeError, lambda: netcl.ones(3, dtype="uint8")),
    "bool": (DTypeError, lambda: netcl.ones(3, dtype="bool")),
    "complex64": (
        DTypeError,
        lambda: netcl.Tensor(Storage.empty(netcl.get_backend(), 3, netcl.complex64), (3,)),
    ),
    "another shape": (ShapeError, lambda: netcl.ones(4)),
    "a scalar": (ShapeError, lambda: netcl.ones(())),
    "a shape that broadcasts": (ShapeError, lambda: netcl.ones((1, 3))),
    "an array of NumPy": (ArgumentError, lambda: np.ones(3, "float32")),
    "a float": (ArgumentError, lambda: 1.0),
    "False": (ArgumentError, lambda: False),
    "a list": (ArgumentError, lambda: [1.0, 2.0, 3.0]),
    "another device": (
        DeviceMismatchError,
        lambda: from_host(netcl.Tensor, np.ones(3, "float32"), ReferenceBackend(name="other"), netcl.float32),
    ),
}


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("name", NO_GRADIENTS)
def test_what_is_no_gradient_is_refused_at_once(name, owned, backend):
    error, make = NO_GRADIENTS[name]
    with netcl.use_backend(backend):
        w = netcl.ones(3, requires_grad=True)
        optimizer = SGD([w], lr=1.0) if owned else None
        w.grad = kept = netcl.full((3,), 0.5)
        with pytest.raises(error, match="grad"):
            w.grad = make()
        assert w.grad is kept
        with pytest.raises(ArgumentError, match="its own gradient"):
            w.grad = w
        with ag.Tape() as tape:
            loss = netcl.sum(w * 0.5)
        tape.backward(loss)
        assert w.grad.tolist() == [1.0] * 3
        w.grad = None
        del optimizer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_gradient_may_be_of_another_floating_dtype(dtype, backend):
    w = netcl.ones(3, device=backend.device, requires_grad=True)
    optimizer = SGD([w], lr=1.0)
    w.grad = netcl.full((3,), 0.5, dtype=dtype, device=backend.device)
    optimizer.step()
    assert w.tolist() == [0.5] * 3


def in_threads(*functions):
    """Run them at once, and return what they raised."""
    errors = []
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait()
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("clip", [False, True])
def test_steps_of_several_threads_come_one_after_the_other(clip, backend):
    tensors = [netcl.ones(2000, device=backend.device, requires_grad=True) for _ in range(3)]
    twins = [netcl.ones(2000, device=backend.device, requires_grad=True) for _ in range(3)]
    for t in (*tensors, *twins):
        t.grad = netcl.full((2000,), 0.5, device=backend.device)
    optimizer, twin = Adam(tensors, lr=0.1), Adam(twins, lr=0.1)

    def steps():
        for i in range(10):
            if clip:
                clip_grad_norm_device(tensors, 100.0)
            optimizer.step(max_norm=1e3 if i % 3 == 0 else None)

    assert in_threads(steps, steps, steps, steps) == []
    for _ in range(40):
        twin.step()
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [40] * 3
    for ours, theirs in zip(tensors, twins, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_groups_that_several_threads_add(backend):
    first = netcl.ones(5, device=backend.device, requires_grad=True)
    first.grad = netcl.ones(5, device=backend.device)
    added = [netcl.ones(5, device=backend.device, requires_grad=True) for _ in range(24)]
    optimizer = SGD([first], lr=0.0)

    def add(tensors):
        for t in tensors:
            optimizer.add_param_group({"params": [t], "momentum": 0.5})
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)

    assert in_threads(*(lambda part=added[i::3]: add(part) for i in range(3))) == []
    assert len(optimizer.param_groups) == 25
    assert {id(t) for g in optimizer.param_groups for t in g["params"]} == {id(t) for t in (first, *added)}
    assert optimizer.state_dict()["state"][0]["step"] == 24


def test_a_gradient_that_one_thread_clears_while_another_steps(backend):
    """Some steps find no gradient and say so; nothing else happens."""
    w = netcl.ones(2000, device=backend.device, requires_grad=True)
    optimizer = Adam([w], lr=1e-3)
    taken, refusals = [], []

    def step():
        for _ in range(20):
            try:
                optimizer.step()
                taken.append(1)
            except NetclError as error:
                refusals.append(str(error))

    def clear():
        for _ in range(20):
            optimizer.zero_grad()
            w.grad = netcl.ones(2000, device=backend.device)

    assert in_threads(step, clear) == []
    assert all("found no gradient" in refusal for refusal in refusals)
    assert optimizer.state_dict()["state"][0]["step"] == len(taken)
