"""A gradient that somebody keeps stays as it is, whatever the optimizer's arena is used for next."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
import netcl.functional as F
from netcl import nn
from netcl.amp import GradScaler
from netcl.optim import SGD, AdamW, clip_grad_norm, clip_grad_norm_device, clip_grad_value


def variable(values, backend):
    return netcl.asarray(np.asarray(values, "float32"), device=backend.device, requires_grad=True)


def backward(w, factor):
    """``w.grad`` += factor · (1, 2, 3, …)."""
    ramp = netcl.asarray(np.arange(1, w.size + 1, dtype="float32").reshape(w.shape) * factor, device=w.device)
    with ag.Tape() as tape:
        loss = netcl.sum(w * ramp)
    tape.backward(loss)


def backward_of_a_product(w, factor):
    """The same through a derivative that writes into the arena itself."""
    ramp = netcl.asarray(np.arange(1, w.size + 1, dtype="float32").reshape(w.shape) * factor, device=w.device)
    with ag.Tape() as tape:
        y = F.linear(netcl.ones((1, w.shape[1]), device=w.device), w)
    tape.backward(y, seed=ramp[:, :1].reshape(1, w.shape[0]))


def of_another(gradient):
    other = netcl.zeros(gradient.shape, device=gradient.device, requires_grad=True)
    other.grad = gradient
    return other.grad


def recorded(gradient):
    """Kept by nothing but the record of an operation, whose derivative is what can be read."""
    x = netcl.zeros(gradient.shape, device=gradient.device, requires_grad=True)
    with ag.Tape(retain=True) as tape:
        loss = netcl.sum(x * gradient)

    def read():
        x.grad = None
        tape.backward(loss)
        return x.grad.numpy()

    return read


KEPT = {
    "itself": lambda g: g,
    "detach": lambda g: g.detach(),
    "a row": lambda g: g[1],
    "reversed": lambda g: g[::-1],
    "reshape": lambda g: g.reshape(-1),
    "transposed": lambda g: g.T,
    "a view of a view": lambda g: g.detach()[1:].reshape(-1),
    "in a list": lambda g: [g][0],
    "as another's gradient": of_another,
    "as a parameter": lambda g: SGD([g.detach()], lr=1.0).param_groups[0]["params"][0],
    "on a tape": recorded,
}
LET_GO = {
    "zero_grad": lambda w, optimizer: optimizer.zero_grad(),
    "grad = None": lambda w, optimizer: setattr(w, "grad", None),
    "module": lambda w, optimizer: zero_module(w),
    "another": lambda w, optimizer: setattr(w, "grad", netcl.full(w.shape, 9.0, device=w.device)),
}


def zero_module(w):
    module = nn.Module()
    module.w = w
    module.zero_grad()


def rest(w, optimizer):
    optimizer.step(max_norm=0.5)


def accumulate(w, optimizer):
    backward(w, 5.0)
    backward(w, 5.0)


def average(w, optimizer):
    """What data-parallel training does after a backward, and a reader of the mean."""
    backward(w, 5.0)
    optimizer.partitions[0].average(2)
    w.grad.numpy()


def unscale(w, optimizer):
    scaler = GradScaler(init_scale=8.0)
    scaler.scale(netcl.ones(1, device=w.device))
    scaler.unscale_(optimizer)


def clip_and_read(w, optimizer):
    others = optimizer.param_groups[0]["params"]
    clip_grad_norm_device(others, 0.01)
    others[0].grad.numpy()


WRITTEN = {
    "backward": lambda w, optimizer: backward(w, 5.0),
    "product": lambda w, optimizer: backward_of_a_product(w, 5.0),
    "accumulated": accumulate,
    "step": rest,
    "zeros": lambda w, optimizer: optimizer.zero_grad(set_to_none=False),
    "unscale": unscale,
    "clip": clip_and_read,
    "host clip": lambda w, optimizer: clip_grad_norm(optimizer.param_groups[0]["params"], 0.01),
    "value": lambda w, optimizer: clip_grad_value(optimizer.param_groups[0]["params"], 0.01),
    "mean": average,
    "added group": lambda w, optimizer: (
        optimizer.add_param_group({"params": [variable([1.0], optimizer.partitions[0].backend)]}),
        backward(w, 5.0),
    ),
}


def in_turn(row):
    """Every pair of two of the three things, or nearly."""
    return (list(KEPT).index(row["kept"]) + list(LET_GO).index(row["let_go"]) + list(WRITTEN).index(row["written"])) % 3


@pytest.mark.compiled(rows=lambda row: in_turn(row) == 0)
@pytest.mark.short(rows=lambda row: list(KEPT).index(row["kept"]) % 2 == 0)
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("let_go", LET_GO)
@pytest.mark.parametrize("kept", KEPT)
def test_what_is_kept_keeps_its_values(kept, let_go, written, backend):
    first, w = variable([1.0, 2.0], backend), variable([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], backend)
    optimizer = SGD([first, w], lr=0.1)
    backward(w, 3.0)
    held = KEPT[kept](w.grad)
    read = held if callable(held) else held.numpy
    before = read()
    LET_GO[let_go](w, optimizer)
    backward(first, 1.0)  # so that there is something to step, clip and unscale
    WRITTEN[written](w, optimizer)
    np.testing.assert_array_equal(read(), before)


@pytest.mark.parametrize("let_go", ["zero_grad", "grad = None"])
def test_what_was_clipped_is_kept_clipped(let_go, backend):
    """A factor that waits for the step belongs to a gradient that is let go before it."""
    w, v = variable([0.0, 0.0], backend), variable([0.0], backend)
    optimizer = SGD([w, v], lr=1.0)
    for factor in (3.0, 5.0):
        backward(w, factor)
        backward(v, 2.0 * factor)
        clip_grad_norm_device([w, v], 0.5)
        kept = [w.grad, v.grad.detach()]
        if let_go == "zero_grad":
            optimizer.zero_grad()
        else:
            w.grad = v.grad = None
        backward(w, 7.0)
        assert w.grad.tolist() == [7.0, 14.0]
        np.testing.assert_allclose(np.concatenate([g.numpy() for g in kept]), np.array([1, 2, 2]) / 6, rtol=1e-6)
        optimizer.zero_grad()


def test_a_list_of_gradients_and_their_cosine(backend):
    """Two losses one after the other, as gradient surgery takes them."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(backend.device)
    twin = copy.deepcopy(model)
    optimizer = AdamW(model.parameters())
    x = netcl.ones((5, 3), device=backend.device)
    kept = {model: [], twin: []}
    for scale in (1.0, -3.0):
        for side, gradients in kept.items():
            with ag.Tape() as tape:
                loss = netcl.sum(side(x) * side(x)) * scale
            tape.backward(loss)
            gradients.append([p.grad for p in side.parameters()])
            optimizer.zero_grad() if side is model else side.zero_grad()
    for pair in zip(*kept.values(), strict=True):
        for ours, theirs in zip(*pair, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_a_gradient_stays_the_same_object_through_an_added_group(backend):
    w = variable([1.0, 2.0], backend)
    optimizer = SGD([w], lr=1.0)
    backward(w, 3.0)
    kept, view = w.grad, w.grad[1:]
    optimizer.add_param_group({"params": [variable([1.0], backend)]})
    assert w.grad is kept
    backward(w, 1.0)
    assert (kept.tolist(), view.tolist()) == ([4.0, 8.0], [8.0])
    optimizer.step()
    assert w.tolist() == [-3.0, -6.0]


def test_exchanged_gradients(backend):
    a, b = variable([0.0, 0.0], backend), variable([0.0, 0.0], backend)
    optimizer = SGD([a, b], lr=1.0)
    backward(a, 1.0)
    backward(b, 10.0)
    a.grad, b.grad = b.grad, a.grad
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([-10.0, -20.0], [-1.0, -2.0])


def test_a_model_that_went_elsewhere_and_came_back(backend):
    model = nn.Linear(2, 1, bias=False).to(backend.device)
    optimizer = SGD(model.parameters(), lr=1.0)
    backward(model.weight, 1.0)
    elsewhere = netcl.get_backend("numpy") if backend.device.backend != "numpy" else type(backend)(name="elsewhere")
    model.to(elsewhere)
    model.weight.grad *= 2.0
    model.to(backend)
    before = model.weight.numpy()
    optimizer.step()
    np.testing.assert_allclose(model.weight.numpy(), before - [[2.0, 4.0]], rtol=1e-6)
    optimizer.zero_grad()
    backward(model.weight, 1.0)
    assert model.weight.grad is model.weight.grad_buffer.array


def test_the_seed_may_be_a_gradient_that_is_added_to(backend):
    w, v = variable([1.0, 2.0], backend), variable([3.0, 4.0], backend)
    SGD([w, v], lr=1.0)
    for x in (w, v):
        backward(x, 1.0)
    with ag.Tape() as tape:
        y = w + v
    tape.backward(y, seed=w.grad)
    assert (w.grad.tolist(), v.grad.tolist()) == ([2.0, 4.0], [2.0, 4.0])


def test_a_broadcast_gradient_is_added_to_element_by_element(backend):
    w = variable([1.0, 2.0, 3.0], backend)
    w.grad = netcl.broadcast_to(netcl.ones(1, device=backend.device), (3,))
    backward(w, 1.0)
    assert w.grad.tolist() == [2.0, 3.0, 4.0]


def test_only_what_is_kept_takes_memory(backend, monkeypatch):
    tensors = [variable(np.ones(n), backend) for n in (3, 1500, 4)]
    optimizer = SGD(tensors, lr=0.1)
    asked = []
    alloc = backend.alloc

    def step():
        for tensor in tensors:
            backward(tensor, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    monkeypatch.setattr(backend, "alloc", lambda n, dtype: asked.append(n) or alloc(n, dtype))
    step()
    usual = list(asked)
    for held in (0, 1):
        asked.clear()
        backward(tensors[held], 1.0)
        kept = tensors[held].grad
        optimizer.zero_grad()
        asked.clear()
        step()
        assert sorted(asked) == sorted([*usual, tensors[held].size])
        assert kept.numpy()[-1] == tensors[held].size
        del kept
    gc.collect()
    asked.clear()
    step()
    assert asked == usual


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("backward"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("hold"), st.integers(0, 2), st.sampled_from(["itself", "detach", "reversed"])),
        st.tuples(st.just("forget"), st.integers(0, 2), st.none()),
        st.tuples(st.just("assign"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("share"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("zero_grad"), st.booleans(), st.none()),
        st.tuples(st.just("clip"), st.sampled_from([0.5, 100.0]), st.none()),
        st.tuples(st.just("step"), st.sampled_from([None, 0.5]), st.none()),
        st.tuples(st.just("read"), st.integers(0, 2), st.none()),
        st.tuples(st.just("add group"), st.none(), st.none()),
    ),
    max_size=14,
)


class Twin:
    """Parameters whose gradients are NumPy arrays: what is kept is kept by reference, as in torch."""

    def __init__(self, sizes):
        self.grads = [None] * len(sizes)
        self.sizes = sizes
        self.own = [None] * len(sizes)  # the array that the optimizer made of a gradient given from elsewhere

    def collect(self):
        for i, g in enumerate(self.grads):
            if g is not None and g is not self.own[i]:
                self.grads[i] = self.own[i] = g.copy()

    def backward(self, i, factor):
        ramp = np.arange(1, self.sizes[i] + 1) * float(factor)
        if self.grads[i] is None:
            self.grads[i] = self.own[i] = ramp
        else:
            self.grads[i] += ramp

    def clip(self, limit):
        self.collect()
        live = [g for g in self.grads if g is not None]
        norm = np.sqrt(sum(np.sum(g * g) for g in live))
        for g in live:
            g *= min(1.0, limit / norm)

    def zero_grad(self, set_to_none):
        for i, g in enumerate(self.grads):
            if set_to_none or g is None:
                self.grads[i] = None
            elif g is self.own[i]:
                g[:] = 0.0
            else:
                self.grads[i] = self.own[i] = np.zeros_like(g)


@settings(max_examples=60)
@given(operations=OPERATIONS)
def test_any_order_of_everything(operations, backend):
    sizes = [3, 3, 3]
    tensors = [variable(np.zeros(n), backend) for n in sizes]
    optimizer, twin = SGD(tensors[:2], lr=0.0), Twin(sizes)
    added = False
    held = []
    for name, a, b in operations:
        if name == "backward":
            backward(tensors[a], b)
            twin.backward(a, b)
        elif name == "hold" and tensors[a].grad is not None:
            held.append((KEPT[b](tensors[a].grad), b == "reversed", twin.grads[a]))
        elif name == "forget":
            tensors[a].grad = twin.grads[a] = None
        elif name == "assign":
            tensors[a].grad = variable([b] * 3, backend)
            twin.grads[a] = np.full(3, float(b))
        elif name == "share" and a != b and added:
            tensors[a].grad, twin.grads[a] = tensors[b].grad, twin.grads[b]
            optimizer_collects(optimizer, twin)
        elif name == "zero_grad" and added:
            optimizer.zero_grad(set_to_none=a)
            twin.zero_grad(a)
        elif name == "clip" and added and any(g is not None for g in twin.grads):
            clip_grad_norm_device(tensors, a)
            twin.clip(a)
        elif name == "step" and added and any(g is not None for g in twin.grads):
            optimizer.step(max_norm=a)
            twin.collect()
        elif name == "read" and tensors[a].grad is not None:
            tensors[a].grad.numpy()
        elif name == "add group" and not added:
            optimizer.add_param_group({"params": [tensors[2]]})
            twin.collect()
            added = True
        for tensor, expected in zip(tensors, twin.grads, strict=True):
            assert (tensor.grad is None) == (expected is None)
    for tensor, expected in zip(tensors, twin.grads, strict=True):
        if expected is not None:
            np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-5)
    for kept, is_reversed, expected in held:
        np.testing.assert_allclose(kept.numpy(), expected[::-1] if is_reversed else expected, rtol=1e-5)


def optimizer_collects(optimizer, twin):
    for partition in optimizer.partitions:
        partition.gather_gradients()
    twin.collect()
