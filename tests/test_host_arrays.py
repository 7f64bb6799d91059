"""Optimizers over arrays of other libraries, updated in their own memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.errors import DTypeError, HyperParameterError, NetclError, ShapeError
from netcl.optim import SGD, AdamW
from tests.optimizers import EVERY, SHORT

pytestmark = pytest.mark.every_runtime


def arrays(seed=0, shapes=((3,), (), (40, 30), (0,), (1030,))):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_host_arrays_get_the_bits_of_tensors(case, backend):
    plain = arrays()
    tensors = [netcl.asarray(x, device=backend.device, copy=True, requires_grad=True) for x in plain]
    ours = case.optimizer(plain, **case.options, backend=backend)
    theirs = case.optimizer(tensors, **case.options)
    where = [x.ctypes.data for x in plain]
    for step in range(4):
        grads = arrays(step + 1)
        if step == 2:
            grads[2] = None
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = None if grad is None else netcl.asarray(grad, device=backend.device)
        max_norm = 0.5 if step == 1 else None
        ours.step(grads=grads, max_norm=max_norm)
        theirs.step(max_norm=max_norm)
        for x, tensor in zip(plain, tensors, strict=True):
            if step < 1:
                assert np.array_equal(x, tensor.numpy())
            else:  # the norm is summed in pieces that differ
                np.testing.assert_allclose(x, tensor.numpy(), rtol=1e-5, atol=1e-7)
    assert where == [x.ctypes.data for x in plain]


def test_nothing_is_copied_where_memory_is_shared(backend, monkeypatch):
    if not backend.device.shares_host_memory:
        pytest.skip(f"{backend.device} does not share the host's memory")
    (w,), (g,) = arrays(0, [(5000,)]), arrays(1, [(5000,)])
    optimizer = AdamW([w], backend=backend)
    optimizer.step(grads=[g])
    sizes = []
    for name in ("alloc", "upload", "download", "map"):
        original = getattr(backend, name)

        def counted(*args, original=original, name=name, **options):
            sizes.append((name, max((getattr(a, "size", 0) for a in args), default=0)))
            return original(*args, **options)

        monkeypatch.setattr(backend, name, counted)
    before = w.copy()
    optimizer.step(grads=[g])
    assert not np.array_equal(w, before)
    if backend.device.backend != "numpy":  # the reference backend reads its step block through download
        assert [size for _, size in sizes if size >= 1000] == []


def test_the_host_may_write_between_steps(backend):
    w = np.ones(3, np.float32)
    g = np.ones(3, np.float32)
    optimizer = SGD([w], lr=0.5, backend=backend)
    optimizer.step(grads=[g])
    w[0] = 10.0
    g[1] = 4.0
    optimizer.step(grads=[g])
    assert w.tolist() == [9.5, -1.5, 0.0]


def test_one_launch_for_each_array_and_one_wait_at_the_end():
    pytest.importorskip("pyopencl")
    backend = netcl.get_backend("opencl")
    plain, grads = arrays(), arrays(1)
    optimizer = AdamW(plain, backend=backend)
    for _ in range(2):
        optimizer.step(grads=grads)
    before = backend.launches
    optimizer.step(grads=grads)
    assert backend.launches == before + sum(x.size > 0 for x in plain)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_tensors_are_updated_in_place(dtype, backend):
    torch = pytest.importorskip("torch")
    w = torch.ones(2000, dtype=getattr(torch, dtype), requires_grad=True)
    optimizer = SGD([("w", w)], lr=0.25, backend=backend)
    (w * torch.arange(2000).to(w.dtype)).sum().backward()
    optimizer.step(grads=[w.grad])
    expected = (1.0 - 0.25 * torch.arange(2000).to(w.dtype).double()).to(w.dtype)
    assert torch.equal(w.detach(), expected)
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["w"]


def test_gradients_of_any_layout(backend):
    w = np.zeros((3, 4), np.float32)
    g = np.arange(12, dtype=np.float32).reshape(4, 3).T
    frozen = np.ascontiguousarray(g)
    frozen.flags.writeable = False
    optimizer = SGD([w], lr=1.0, backend=backend)
    for gradient in (g, frozen, frozen):
        optimizer.step(grads=[gradient])
    assert np.array_equal(w, -3.0 * g)


def test_a_gradient_may_be_the_parameter_itself(backend):
    w = np.full(5, 8.0, np.float32)
    optimizer = SGD([w], lr=0.5, backend=backend)
    optimizer.step(grads=[w])
    optimizer.step(grads=[w])
    assert w.tolist() == [2.0] * 5


def test_resuming_is_bit_exact(backend):
    first, second = arrays(), arrays()
    one = AdamW(first, backend=backend)
    one.step(grads=arrays(1))
    two = AdamW(second, backend=backend)
    for x, y in zip(second, first, strict=True):
        x[...] = y
    two.load_state_dict(one.state_dict())
    for optimizer in (one, two):
        optimizer.step(grads=arrays(2))
    assert all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))


def test_added_groups_take_part(backend):
    a, b = np.ones(3, np.float32), np.ones(2, np.float32)
    optimizer = SGD([a], lr=0.5, backend=backend)
    optimizer.step(grads=[np.ones_like(a)])
    with pytest.raises(ShapeError, match="shares memory with parameter 0"):
        optimizer.add_param_group({"params": [b, a[1:]]})
    optimizer.step(grads=[np.ones_like(a)])
    optimizer.add_param_group({"params": [b], "lr": 0.25})
    optimizer.step(grads=[np.ones_like(a), np.ones_like(b)])
    assert (a.tolist(), b.tolist()) == ([-0.5] * 3, [0.75] * 2)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.integers(0, 3))
def test_pieces_of_one_array(sizes, gap):
    """Neighbours in one array are parameters of their own, and nothing between them is touched."""
    whole = np.ones(sum(sizes) + gap * len(sizes), np.float32)
    starts = np.cumsum([0, *(size + gap for size in sizes)])[:-1]
    pieces = [whole[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    SGD(pieces, lr=1.0, backend="numpy").step(grads=[np.full(size, 3.0, np.float32) for size in sizes])
    touched = np.zeros(whole.size, bool)
    for start, size in zip(starts, sizes, strict=True):
        touched[start : start + size] = True
    assert np.array_equal(whole, np.where(touched, -2.0, 1.0))


def frozen_array():
    x = np.ones(3, np.float32)
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (lambda: np.ones(3, np.float32), HyperParameterError, r"single ndarray; write \[tensor\]"),
        (lambda: [np.ones((3, 4), np.float32).T], ShapeError, "not one run of memory"),
        (lambda: [frozen_array()], DTypeError, "read-only"),
        (lambda: [np.ones(3, np.int32)], DTypeError, "only floating-point parameters"),
        (lambda: [np.ones(3, np.longdouble)], DTypeError, r"convert it with astype\(\)"),
        (lambda: [[1.0, 2.0]], DTypeError, "is a list; pass a Tensor, or an array"),
        (lambda: [np.ones(3, np.float32), netcl.ones(3, backend="numpy")], DTypeError, "one kind"),
        (lambda: [netcl.ones(3, backend="numpy")], HyperParameterError, "is for host arrays"),
    ],
)
def test_bad_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        SGD(params(), backend="numpy")


def test_tensors_then_an_array_is_refused():
    with pytest.raises(DTypeError, match="among Tensors; give an optimizer one kind"):
        SGD([netcl.ones(3), np.ones(3, np.float32)])


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ([np.ones(3, np.float32)], HyperParameterError, r"got 1 gradient\(s\) for 2 parameter\(s\)"),
        ([np.ones(3, np.float32), np.ones(3, np.float32)], ShapeError, r"gradient 1 has shape \(3,\)"),
        ([np.ones(3, np.float64), np.ones(2, np.float32)], DTypeError, "gradient 0 has dtype float64"),
        ([None, None], NetclError, "found no gradient"),
        (None, NetclError, r"pass them as step\(grads"),
    ],
)
def test_bad_gradients_change_nothing(grads, error, message, backend):
    plain = [np.ones(3, np.float32), np.ones(2, np.float32)]
    optimizer = AdamW(plain, backend=backend)
    with pytest.raises(error, match=message):
        optimizer.step(grads=grads)
    assert all((x == 1.0).all() for x in plain)
    assert optimizer.state_dict()["state"][0]["step"] == 0
    optimizer.step(grads=[np.ones(3, np.float32), np.ones(2, np.float32)])
    assert all((x < 1.0).all() for x in plain)


def test_grads_are_for_host_arrays():
    w = netcl.ones(3, backend="numpy", requires_grad=True)
    with pytest.raises(NetclError, match="is for an optimizer built from host arrays"):
        SGD([w]).step(grads=[np.ones(3, np.float32)])
