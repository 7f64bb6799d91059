"""Every derivative against central finite differences in float64, and the tape that puts them together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
import netcl.functional as F
from netcl.arena import GradientArena
from netcl.errors import DeviceMismatchError, DTypeError, ShapeError, TapeError
from tests.operations import ELEMENTWISE, LOW_HIGH, OPERATIONS


@pytest.fixture(autouse=True)
def _on_numpy():
    with netcl.use_backend("numpy"):
        yield


def draw(rng, shape, domain):
    return rng.uniform(*LOW_HIGH[domain], shape)


def check_gradients(function, values, rng, step=1e-6):
    """The gradient of a random combination of outputs, in every element of every operand."""
    operands = [netcl.asarray(value, requires_grad=True) for value in values]
    with ag.Tape() as tape:
        out = function(*operands)
    weights = rng.normal(size=out.shape)
    tape.backward(out, seed=netcl.asarray(weights))

    def combined(position, moved):
        changed = [netcl.asarray(moved if i == position else value) for i, value in enumerate(values)]
        return float(np.sum(function(*changed).numpy() * weights))

    for position, (operand, value) in enumerate(zip(operands, values, strict=True)):
        numeric = np.zeros(value.shape)
        for place in np.ndindex(*value.shape):
            ahead, behind = value.copy(), value.copy()
            ahead[place] += step
            behind[place] -= step
            numeric[place] = (combined(position, ahead) - combined(position, behind)) / (2 * step)
        assert operand.grad.dtype is netcl.float64
        assert operand.grad.shape == operand.shape
        np.testing.assert_allclose(operand.grad.numpy(), numeric, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradient_is_the_finite_difference(name):
    operation = OPERATIONS[name]
    rng = np.random.default_rng(7)
    check_gradients(operation.function, [draw(rng, shape, domain) for shape, domain in operation.operands], rng)


small = st.integers(1, 3)
shapes = st.lists(small, max_size=3).map(tuple)


@st.composite
def broadcast_pairs(draw_from):
    full = draw_from(shapes)
    keep = st.booleans()
    sides = [tuple(extent if draw_from(keep) else 1 for extent in full) for _ in range(2)]
    return [side[draw_from(st.integers(0, len(side))) :] if all(e == 1 for e in side) else side for side in sides]


@given(name=st.sampled_from(sorted(ELEMENTWISE)), shape=shapes, pair=broadcast_pairs(), seed=st.integers(0, 999))
def test_elementwise_gradient_of_any_shape(name, shape, pair, seed):
    rng = np.random.default_rng(seed)
    operation = ELEMENTWISE[name]
    domains = [domain for _, domain in operation.operands]
    chosen = [shape] if len(domains) == 1 else pair
    values = [draw(rng, each, domain) for each, domain in zip(chosen, domains, strict=True)]
    if name in ("where", "where scalar"):  # a step across the condition has no derivative
        values = [np.where(np.abs(value - 0.1) < 1e-3, 0.5, value) for value in values]
    check_gradients(operation.function, values, rng)


@given(
    batch=st.lists(small, max_size=2).map(tuple),
    m=small,
    k=small,
    n=small,
    fold=st.sampled_from(["left", "right", "no"]),
)
def test_matmul_gradient_of_any_batch(batch, m, k, n, fold):
    rng = np.random.default_rng(math.prod((*batch, m, k, n)))
    left = (m, k) if fold == "left" else (*batch, m, k)
    right = (k, n) if fold == "right" else (*batch, k, n)
    check_gradients(netcl.matmul, [rng.normal(size=left), rng.normal(size=right)], rng)


@given(shape=st.lists(small, min_size=1, max_size=3).map(tuple), data=st.data())
def test_reduction_gradient_of_any_axes(shape, data):
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    keepdims = data.draw(st.booleans())
    name = data.draw(st.sampled_from(["sum", "mean", "prod", "max", "min", "var", "logsumexp"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    value = rng.permutation(np.arange(1.0, 1.0 + math.prod(shape))).reshape(shape) / 3
    check_gradients(lambda x: getattr(netcl, name)(x, axis=axes, keepdims=keepdims), [value], rng)


@given(shape=st.lists(small, min_size=1, max_size=3).map(tuple), data=st.data())
def test_index_gradient_of_any_key(shape, data):
    part = st.one_of(st.slices(3), st.integers(-1, 0), st.none())
    key = tuple(data.draw(st.lists(part, max_size=4)))
    if sum(p is not None for p in key) > len(shape):
        key = key[:1]
    rng = np.random.default_rng(0)
    check_gradients(lambda x: x[key] * 2, [rng.normal(size=shape)], rng)


@given(
    height=st.integers(2, 4), width=st.integers(2, 4), window=st.integers(1, 2), stride=st.integers(1, 2),
    padding=st.integers(0, 1), dilation=st.integers(1, 2),
)  # fmt: skip
def test_convolution_gradient_of_any_windows(height, width, window, stride, padding, dilation):
    if dilation * (window - 1) + 1 > min(height, width) + 2 * padding:
        dilation = 1
    rng = np.random.default_rng(height * 10 + width)
    values = [rng.normal(size=(2, 1, height, width)), rng.normal(size=(2, 1, window, window)), rng.normal(size=2)]
    check_gradients(lambda x, w, b: F.conv2d(x, w, b, stride=stride, padding=padding, dilation=dilation), values, rng)


def test_equal_elements_share_the_gradient():
    x = netcl.asarray([2.0, 2.0, 1.0], requires_grad=True)
    y = netcl.asarray([2.0, 3.0, 0.0], requires_grad=True)
    with ag.Tape() as tape:
        loss = netcl.max(x) + netcl.sum(netcl.maximum(x, y))
    tape.backward(loss)
    assert x.grad.tolist() == [1.0, 0.5, 1.0]
    assert y.grad.tolist() == [0.5, 1.0, 0.0]


def test_prod_gradient_with_zeros():
    for values, expected in (([0.0, 2.0, 3.0], [6.0, 0.0, 0.0]), ([0.0, 0.0, 3.0], [0.0, 0.0, 0.0])):
        x = netcl.asarray(values, requires_grad=True)
        with ag.Tape() as tape:
            y = netcl.prod(x)
        tape.backward(y)
        assert x.grad.tolist() == expected


def test_max_pool_gives_equals_to_the_first():
    x = netcl.ones((1, 1, 2, 2), requires_grad=True)
    with ag.Tape() as tape:
        y = F.max_pool2d(x, 2)
    tape.backward(y)
    assert x.grad.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


@pytest.mark.compiled(rows=lambda row: row["dtype"] == "float32" or row["shape"] == (2, 3, 6, 8))
@pytest.mark.short(rows=lambda row: row["shape"] in ((2, 3, 6, 8), (1, 2, 6, 6)) and row["dtype"] != "float16")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [
        ((2, 3, 6, 8), (2, 2), (2, 2), 0),
        ((2, 2, 7, 5), (2, 2), (2, 2), 0),  # the last row and column lie in no window
        ((1, 2, 8, 9), (1, 2), (2, 3), 0),  # nor do what lies between windows
        ((2, 1, 5, 4), (4, 1), (4, 1), 0),
        ((1, 2, 6, 6), (3, 3), (3, 3), 0),
        ((1, 2, 6, 7), (3, 2), (1, 2), 0),
        ((2, 1, 5, 5), (2, 2), (2, 2), 1),
        ((0, 1, 4, 4), (2, 2), (2, 2), 0),
    ],
)
def test_max_pool_gradient_goes_to_the_first_largest(shape, size, stride, padding, dtype, backend):
    """Few values, so that most windows hold equals, and some hold NaN, which counts as the largest."""
    random = np.random.default_rng(0)
    values = random.choice([-1.0, 0.5, 2.0, np.nan], size=shape, p=[0.35, 0.35, 0.2, 0.1])
    x = netcl.asarray(values, dtype=dtype, device=backend.device, requires_grad=True)
    with ag.Tape() as tape:
        y = F.max_pool2d(x, size, stride=stride, padding=padding)
    seed = random.integers(1, 5, y.shape).astype(np.float64)
    tape.backward(y, seed=netcl.asarray(seed, dtype=dtype, device=backend.device))

    expected = np.zeros(shape)
    for batch, channel, i, j in np.ndindex(*y.shape):
        inside = [
            (i * stride[0] + u - padding, j * stride[1] + v - padding) for u in range(size[0]) for v in range(size[1])
        ]
        inside = [place for place in inside if 0 <= place[0] < shape[2] and 0 <= place[1] < shape[3]]
        window = [values[batch, channel, *place] for place in inside]
        expected[batch, channel, *inside[int(np.argmax(window))]] += seed[batch, channel, i, j]
    np.testing.assert_array_equal(netcl.astype(x.grad, netcl.float32).numpy(), expected)


def test_dropout_gradient_is_its_mask():
    netcl.random.manual_seed(3)
    x = netcl.ones(1000, requires_grad=True)
    with ag.Tape() as tape:
        y = F.dropout(x, 0.25)
    tape.backward(y, seed=netcl.ones(1000))
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert 0.2 < np.mean(y.numpy() == 0) < 0.3
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(4 / 3)}


def test_gradient_keeps_the_dtype_of_its_leaf():
    half = netcl.asarray([1.0, 2.0], dtype="float16", requires_grad=True)
    single = netcl.asarray([[3.0], [4.0]], requires_grad=True)
    with ag.Tape() as tape:
        loss = netcl.sum(half * single)
    tape.backward(loss)
    assert half.grad.dtype is netcl.float16
    assert half.grad.tolist() == [7.0, 7.0]
    assert single.grad.dtype is netcl.float32
    assert single.grad.tolist() == [[3.0], [3.0]]


# The tape


def test_backward_adds_until_the_gradient_is_dropped():
    x = netcl.asarray([1.0, 2.0], requires_grad=True)
    for times in (1.0, 2.0, 3.0):
        with ag.Tape() as tape:
            loss = netcl.sum(x * 2)
        tape.backward(loss)
        assert x.grad.tolist() == [2.0 * times] * 2
    x.grad = None
    with ag.Tape() as tape:
        loss = netcl.sum(x)
    tape.backward(loss)
    assert x.grad.tolist() == [1.0, 1.0]


def test_an_array_used_often_gets_the_sum():
    x = netcl.asarray([2.0], requires_grad=True)
    with ag.Tape() as tape:
        y = x * x
        loss = netcl.sum(y * y + x + y)
    tape.backward(loss)
    assert x.grad.tolist() == [4 * 8 + 1 + 4]


def test_gradients_of_two_leaves_do_not_share_memory():
    x, y = netcl.ones(3, requires_grad=True), netcl.ones(3, requires_grad=True)
    seed = netcl.ones(3)
    with ag.Tape() as tape:
        z = x + y
    tape.backward(z, seed=seed)
    x.grad += 1
    assert (x.grad.tolist(), y.grad.tolist(), seed.tolist()) == ([2.0] * 3, [1.0] * 3, [1.0] * 3)


def test_gradient_of_an_array_in_between():
    x = netcl.asarray([3.0], requires_grad=True)
    with ag.Tape() as tape:
        y = x * 2
        y.requires_grad = True
        z = y * y
    tape.backward(z)
    assert (y.grad.tolist(), x.grad.tolist()) == ([12.0], [24.0])


def test_nothing_is_recorded_outside_a_tape_or_under_no_grad():
    x = netcl.ones(2, requires_grad=True)
    assert (x * 2).node is None
    with ag.Tape():
        assert ag.is_recording()
        with ag.no_grad():
            assert not ag.is_recording()
            assert (x * 2).node is None
        assert (x * 2).node is not None
        assert (netcl.ones(2) * 2).node is None
        assert x.detach().node is None
        assert (x > 0).node is None


def test_backward_of_a_non_scalar_needs_a_seed():
    x = netcl.ones((2, 2), requires_grad=True)
    with ag.Tape() as tape:
        y = x * 2
    with pytest.raises(ShapeError, match=r"shape \(2, 2\) needs a seed"):
        tape.backward(y)
    with pytest.raises(ShapeError, match=r"output's shape \(2, 2\), got a Tensor of shape \(2,\)"):
        tape.backward(y, seed=netcl.ones(2))
    assert x.grad is None
    tape.backward(y, seed=netcl.ones((2, 2)))
    assert x.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_backward_twice_is_refused_unless_retained():
    x = netcl.ones(1, requires_grad=True)
    with ag.Tape() as tape:
        y = x * 2
        z = y * 3
    tape.backward(y)
    for output in (y, z):  # z leads through what was freed
        with pytest.raises(TapeError, match="freed by an earlier backward"):
            tape.backward(output)
    assert x.grad.tolist() == [2.0]
    with ag.Tape(retain=True) as tape:
        y = x * 2
    tape.backward(y)
    tape.backward(y)
    assert x.grad.tolist() == [6.0]


def test_backward_of_what_was_not_recorded():
    x = netcl.ones(1, requires_grad=True)
    outside = x * 2
    with ag.Tape() as tape:
        constant = netcl.ones(1) * 2
    for output in (outside, constant, x):
        with pytest.raises(TapeError, match="not recorded on this tape"):
            tape.backward(output)
    with pytest.raises(TapeError, match="takes a Tensor, got"):
        tape.backward(1.0)


def test_tapes_are_apart():
    x = netcl.ones(1, requires_grad=True)
    with ag.Tape() as outer:
        a = x * 2
        with ag.Tape() as inner:
            b = x * 3 + a
        c = x * 5 + b
    inner.backward(b)
    assert x.grad.tolist() == [3.0]
    outer.backward(c)
    assert x.grad.tolist() == [8.0]


def test_writing_in_place_is_refused_where_the_tape_would_not_know():
    w = netcl.ones(2, requires_grad=True)
    x = netcl.ones(2)
    with ag.Tape() as tape:
        with pytest.raises(TapeError, match="requires a gradient and a tape is recording"):
            w += 1
        y = w * x
        with pytest.raises(TapeError, match="recorded by a tape"):
            y[0] = 3.0
        with ag.no_grad():
            w_view = w.detach()
        loss = netcl.sum(y)
    x += 1  # read by the product: its derivative needs the old values
    with pytest.raises(TapeError, match="multiply read or made was changed in place"):
        tape.backward(loss)
    assert w.grad is None
    w_view += 1
    assert w.tolist() == [2.0, 2.0]


def test_in_place_on_a_leaf_between_steps_is_allowed():
    w = netcl.ones(2, requires_grad=True)
    with ag.Tape() as tape:
        loss = netcl.sum(w * 3)
    tape.backward(loss)
    w -= w.grad * 0.5
    assert w.tolist() == [-0.5, -0.5]
    assert w.requires_grad


def test_a_loss_may_be_scaled_after_the_block():
    w = netcl.ones(2, requires_grad=True)
    with ag.Tape() as tape:
        loss = netcl.sum(w * 3)
    scaled = loss * 8.0
    assert scaled.node is None
    loss.node.tape.add(scaled, [(loss, lambda g: g * 8.0)], "scale")
    tape.backward(scaled)
    assert w.grad.tolist() == [24.0, 24.0]


def test_gradient_goes_where_its_home_is():
    w = netcl.ones(3, requires_grad=True)
    arena = netcl.zeros(8)
    w.grad_buffer = gradient_buffer_in(arena, (3,), 4)
    with ag.Tape() as tape:
        loss = netcl.sum(w * 2)
    tape.backward(loss)
    assert arena.tolist() == [0.0] * 4 + [2.0] * 3 + [0.0]
    assert w.grad is w.grad_buffer.array


def test_requires_grad_is_for_floating_dtypes():
    with pytest.raises(DTypeError, match="only floating Tensors can require a gradient, got int64"):
        netcl.asarray([1, 2], requires_grad=True)
    with pytest.raises(DTypeError, match="got int32"):
        netcl.zeros(2, dtype="int32", requires_grad=True)
    x = netcl.arange(3)
    with pytest.raises(DTypeError, match="got int64"):
        x.requires_grad = True
    assert x.requires_grad is False


def test_seed_of_another_device():
    from netcl.backends.reference import ReferenceBackend

    x = netcl.ones(2, requires_grad=True)
    with ag.Tape() as tape:
        y = x * 2
    seed = netcl.tensor.host.from_host(
        netcl.Tensor, np.ones(2, "float32"), ReferenceBackend(name="other"), netcl.float32
    )
    with pytest.raises(DeviceMismatchError, match="move it with to"):
        tape.backward(y, seed=seed)


def gradient_buffer_in(memory, shape, offset=0):
    """A gradient buffer in the memory of an array."""
    arena = GradientArena(memory.backend, memory.span(), [(netcl.Tensor, shape, offset)])
    return arena.buffer_of(0)


class Hook:
    def __init__(self):
        self.seen = []

    def gradient_ready(self, leaf):
        self.seen.append((leaf, leaf.grad.tolist()))

    def backward_done(self):
        self.seen.append("done")


def test_a_gradient_hook_is_told_of_each_gradient_as_soon_as_nothing_adds_to_it_any_more():
    first, twice, never = (netcl.ones(2, requires_grad=True) for _ in range(3))
    hook = Hook()
    for leaf in (first, twice, never):
        leaf.grad_hook = hook
    with ag.Tape() as tape:
        h = first * 2.0
        loss = netcl.sum(h * twice + twice * 5.0)
    tape.backward(loss)
    assert hook.seen == [(twice, [7.0, 7.0]), (first, [2.0, 2.0]), "done"]


def test_a_gradient_is_written_to_its_buffer_at_once():
    w, x = netcl.ones((4, 3), requires_grad=True), netcl.ones((5, 3))
    w.grad_buffer = gradient_buffer_in(netcl.zeros((4, 3)), (4, 3))
    calls = []
    w.grad_hook = hook = Hook()
    matmul, map_ = w.backend.batched_matmul, w.backend.map
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(w.backend, "batched_matmul", lambda a, b, out: (calls.append(out.buffer), matmul(a, b, out)))
        patch.setattr(w.backend, "map", lambda *args: (calls.append(args[2][0].buffer), map_(*args)))
        with ag.Tape() as tape:
            y = F.linear(x, w)
        tape.backward(y, seed=netcl.ones((5, 4)))
    assert w.grad is w.grad_buffer.array
    assert calls[-1] is w.grad.storage.buffer
    assert len(calls) == 2
    assert hook.seen[0][1] == [[5.0] * 3] * 4


def test_a_gradient_that_the_backward_pass_still_reads_is_not_written():
    w = netcl.asarray([2.0, 3.0], requires_grad=True)
    v = netcl.asarray([1.0, 1.0], requires_grad=True)
    w.grad_buffer = gradient_buffer_in(netcl.asarray([5.0, 7.0]), (2,))
    penalty = w.grad_buffer.array
    with ag.Tape() as tape:
        a = v * penalty  # its derivative reads the memory that the gradient of w is going to lie in
        b = w * w
        loss = netcl.sum(a + b)
    tape.backward(loss)
    assert v.grad.tolist() == [5.0, 7.0]
    assert penalty.tolist() == [5.0, 7.0]
    assert w.grad.tolist() == [4.0, 6.0]
