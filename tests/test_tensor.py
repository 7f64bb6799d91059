"""Tensor: creation, reading, views, operators, and its place among other libraries."""

from __future__ import annotations

import copy
import operator
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.errors import ArgumentError, BackendError, DTypeError, ShapeError


@pytest.fixture(autouse=True)
def _on_numpy():
    with netcl.use_backend("numpy"):
        yield


ARITHMETIC = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
)  # fmt: skip
COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


# Creation


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (True, "bool"),
        (3, "int64"),
        (2.5, "float32"),
        (1j, "complex64"),
        ([[1, 2], [3, 4]], "int64"),
        ([1, 2.5], "float32"),
        ([], "float32"),
        (range(3), "int64"),
        (np.float64(2.0), "float64"),
        ([np.float64(2.0)], "float64"),
        (np.ones(2, "float16"), "float16"),
        (np.ones(2, ">i4"), "int32"),
        (np.ones((2, 3))[:, ::-2], "float64"),
        (memoryview(b"ab"), "uint8"),
    ],
)
def test_asarray_keeps_values_and_picks_the_dtype(value, dtype):
    x = netcl.asarray(value)
    assert x.dtype.name == dtype
    np.testing.assert_array_equal(x.numpy(), np.asarray(value))
    assert x.shape == np.shape(value)


def test_asarray_of_a_tensor():
    x = netcl.asarray([1.0, 2.0])
    assert netcl.asarray(x) is x
    assert netcl.asarray(x, dtype="float32", device="numpy") is x
    assert netcl.asarray(x, copy=True).storage is not x.storage
    assert netcl.asarray(x, dtype="int32").tolist() == [1, 2]
    trained = netcl.asarray(x, requires_grad=True)
    assert (trained.requires_grad, x.requires_grad) == (True, False)
    with pytest.raises(ValueError, match="without a copy"):
        netcl.asarray(x, dtype="int32", copy=False)
    with pytest.raises(ValueError, match="a list cannot become a Tensor without a copy"):
        netcl.asarray([1], copy=False)
    assert netcl.asarray([[x[0], x[1]], [3.0, 4.0]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_asarray_copies_what_the_caller_may_change(backend):
    values = np.arange(1000.0)
    x = netcl.asarray(values, device=backend.device, dtype="float32")
    y = netcl.asarray(values.astype("float32"), device=backend.device)
    values[:] = 0
    assert x.numpy().sum() == y.numpy().sum() == 499500.0


def test_asarray_of_torch_tensors():
    torch = pytest.importorskip("torch")
    weight = torch.tensor([[1.5, -2.0]], requires_grad=True)
    assert netcl.asarray(weight).tolist() == [[1.5, -2.0]]
    half = netcl.asarray(torch.tensor([1.5], dtype=torch.bfloat16))
    assert (half.dtype, half.tolist()) == (netcl.bfloat16, [1.5])
    assert netcl.asarray(torch.arange(3)).dtype is netcl.int64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: netcl.asarray("text"), DTypeError, "a str holds no numbers"),
        (lambda: netcl.asarray({"a": 1}), DTypeError, "a dict holds no numbers"),
        (lambda: netcl.asarray(["a"]), DTypeError, "more than numbers"),
        (lambda: netcl.asarray([[1, 2], [3]]), ShapeError, "rows need the same length"),
        (lambda: netcl.asarray(np.array(["a"])), DTypeError, "no counterpart"),
        (lambda: netcl.asarray([1], dtype="int7"), DTypeError, "unknown dtype 'int7'"),
        (lambda: netcl.zeros((2, -1)), ShapeError, "must be an integer of at least 0"),
        (lambda: netcl.full(2, 300, dtype="uint8"), DTypeError, "300 is out of range for uint8"),
        (lambda: netcl.arange(0, 1, 0), ValueError, "must not be 0"),
        (lambda: netcl.zeros(1, device="numpy", backend="opencl"), BackendError, "different backends"),
        (lambda: netcl.zeros(1, backend="abacus"), BackendError, "abacus"),
        (lambda: netcl.meshgrid(netcl.arange(2), indexing="yx"), ValueError, "one of 'xy', 'ij'"),
    ],
)
def test_refused_creation(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_creation_functions_are_numpys():
    pairs = [
        (netcl.zeros((2, 3)), np.zeros((2, 3), "float32")),
        (netcl.ones(3, dtype=netcl.int16), np.ones(3, "int16")),
        (netcl.full((), 2.5), np.full((), 2.5, "float32")),
        (netcl.full(2, True), np.full(2, True)),
        (netcl.arange(5), np.arange(5)),
        (netcl.arange(2, 9, 3), np.arange(2, 9, 3)),
        (netcl.arange(5, 0, -2), np.arange(5, 0, -2)),
        (netcl.arange(0.0, 1.0, 0.25), np.arange(0, 1, 0.25, "float32")),
        (netcl.arange(3, 1), np.arange(3, 1)),
        (netcl.arange(3, dtype="float16"), np.arange(3, dtype="float16")),
        (netcl.linspace(0, 1, 5, endpoint=False), np.linspace(0, 1, 5, endpoint=False, dtype="float32")),
        (netcl.eye(3, 4, k=1), np.eye(3, 4, 1, "float32")),
        (netcl.zeros_like(netcl.ones((2, 1), dtype="int8")), np.zeros((2, 1), "int8")),
        (netcl.ones_like(netcl.ones(2), dtype="uint8"), np.ones(2, "uint8")),
        (netcl.full_like(netcl.ones(2), 7), np.full(2, 7, "float32")),
    ]
    for got, want in pairs:
        np.testing.assert_array_equal(got.numpy(), want, strict=True)
    assert netcl.empty((2, 0)).shape == (2, 0)
    assert netcl.empty_like(netcl.ones(3)).shape == (3,)


# Reading


def test_reading_values(backend):
    with netcl.use_backend(backend):
        x = netcl.asarray([[1.5, 2.0], [3.0, 4.0]])
        assert x.tolist() == [[1.5, 2.0], [3.0, 4.0]]
        assert x.T.numpy().tolist() == [[1.5, 3.0], [2.0, 4.0]]
        assert (x[0, 0].item(), float(x[0, 1]), int(x[1, 0]), bool(x[:1, :1])) == (1.5, 2.0, 3, True)
        assert [row.tolist() for row in x] == [[1.5, 2.0], [3.0, 4.0]]
        assert len(x) == 2
        assert [10, 20, 30][netcl.asarray(1)] == 20
        assert complex(netcl.asarray(2.0)) == 2
        assert x[0, 0] in [1.5]


def test_reading_is_refused_where_it_is_ambiguous():
    x = netcl.ones((2, 2))
    with pytest.raises(ShapeError, match=r"item\(\) takes one element, got shape \(2, 2\)"):
        x.item()
    with pytest.raises(ShapeError, match="ambiguous"):
        bool(x)
    for bad in (netcl.ones(()), netcl.arange(1)):
        with pytest.raises(DTypeError, match="0-dimensional integer Tensor is an index"):
            operator.index(bad)
    with pytest.raises(TypeError, match="no length"):
        len(netcl.asarray(1.0))
    with pytest.raises(TypeError, match="iterated"):
        iter(netcl.asarray(1.0))


def test_half_precision_reads_as_it_is(backend):
    values = np.array([1.0, -2.5, 65504.0, 6e-8, np.inf], "float16")
    x = netcl.asarray(values, device=backend.device)
    np.testing.assert_array_equal(x.numpy(), values, strict=True)
    # Seven stored bits: 1 + 2**-8 is a tie, rounded to even; the last rounds up to the next power of two.
    y = netcl.asarray([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 2 - 2**-9, -np.inf], dtype="bfloat16", device=backend.device)
    assert y.numpy().dtype == np.float32
    assert y.tolist() == [1.0, 1.0, 1 + 2**-6, 2.0, -np.inf]


def test_repr_says_what_it_is():
    assert repr(netcl.asarray([1, 2])) == "Tensor([1, 2], dtype=int64, device='numpy')"
    assert repr(netcl.ones(1, requires_grad=True)) == "Tensor([1.], dtype=float32, device='numpy', requires_grad=True)"
    assert repr(netcl.zeros((2, 0))) == "Tensor([], shape=(2, 0), dtype=float32, device='numpy')"
    assert len(repr(netcl.zeros((1000, 1000)))) < 1000


# Views and subscripts

KEYS = [
    0, -1, slice(None), slice(1, None), slice(None, None, -1), slice(5, 0, -2), slice(-1, -9, -3), slice(2, 2), ...,
    None, (0, 1), (..., 0), (0, ...), (slice(None), None, 1), (None, ..., None), (1, slice(None, None, 2)),
    (slice(None, None, -1),) * 3, (0, 1, 2), (), (np.int64(1), slice(0, 9)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_basic_subscripts_are_numpys_views(key):
    value = np.arange(24.0).reshape(2, 3, 4)
    x = netcl.asarray(value)
    assert x[key].storage is x.storage
    np.testing.assert_array_equal(x[key].numpy(), value[key], strict=True)
    view = netcl.permute_dims(x, (2, 0, 1))[::-1]
    if key != (0, 1, 2):
        np.testing.assert_array_equal(view[key].numpy(), value.transpose(2, 0, 1)[::-1][key], strict=True)
    x[key] = -1.0
    value[key] = -1.0
    np.testing.assert_array_equal(x.numpy(), value)


@given(data=st.data())
def test_any_chain_of_slices_is_numpys(data):
    value = np.arange(60).reshape(5, 4, 3)
    x = netcl.asarray(value)
    for _ in range(3):
        key = tuple(data.draw(st.slices(extent)) for extent in value.shape)
        value, x = value[key], x[key]
    np.testing.assert_array_equal(x.numpy(), value, strict=True)


def test_views_follow_a_write(backend):
    with netcl.use_backend(backend):
        x = netcl.zeros((3, 4))
        row, column = x[1], x[:, -1]
        x[1, 1:] = netcl.asarray([1, 2, 3])
        assert row.tolist() == [0.0, 1.0, 2.0, 3.0]
        assert column.tolist() == [0.0, 3.0, 0.0]
        column += 10
        assert x.tolist() == [[0.0, 0.0, 0.0, 10.0], [0.0, 1.0, 2.0, 13.0], [0.0, 0.0, 0.0, 10.0]]
        x[1:] = x[:-1]  # overlaps
        assert x[2].tolist() == [0.0, 1.0, 2.0, 13.0]
        flat = netcl.arange(4)
        flat += flat[::-1]
        assert flat.tolist() == [3, 3, 3, 3]
        x[...] = 2
        assert x.tolist() == [[2.0] * 4] * 3
        x[x > 1] = netcl.asarray(0.5)
        assert x.tolist() == [[0.5] * 4] * 3
        x[netcl.asarray([True, False, True])] = -1
        assert x[:, 0].tolist() == [-1.0, 0.5, -1.0]


def test_array_subscripts_are_numpys(backend):
    value = np.arange(24.0, dtype="float32").reshape(2, 3, 4)
    i, j = np.array([[1, 0], [-1, 1]]), np.array([2, 0])
    mask = value > 7
    with netcl.use_backend(backend):
        x, a, b, m = map(netcl.asarray, (value, i, j, mask))
        pairs = [
            (x[a], value[i]),
            (x[:, b], value[:, j]),
            (x[..., b], value[..., j]),
            (x[a, b], value[i, j]),
            (x[a, b, a], value[i, j, i]),
            (x[:, a, b], value[:, i, j]),
            (x[0, b], value[0, j]),
            (x[b - 1, 1, ::-1], value[j - 1, 1, ::-1]),
            (x[(b // 2).astype("uint8")], value[j // 2]),
            (x[netcl.asarray(1)], value[1]),
            (x[m], value[mask]),
            (x[m[0, 0, 1:3]], value[mask[0, 0, 1:3]]),
            (x[:, m[:, 0, 0].astype("int8")], value[:, mask[:, 0, 0].astype("int8")]),
            (x[m & False], value[mask & False]),
        ]
        for got, want in pairs:
            np.testing.assert_array_equal(got.numpy(), want, strict=True)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (2, "index 2 is out of range for axis 0 with 2 elements"),
        ((0, 0, 0), "3 positions for an array of shape"),
        ((..., ...), "one ellipsis"),
        ((0, True), "must be the only part"),
        ("a", "a str is not a position"),
        (1.0, "a float is not a position"),
        ([0.5], "holds no positions"),
        ([[0], [1, 2]], "not a list of positions"),
        ([2**70], "holds no positions"),
        (np.array([2**64 - 1], np.uint64), "holds a position out of range"),
        (netcl.asarray([0.0]), "a Tensor of float32 is not a position"),
    ],
)
def test_refused_subscripts(key, message):
    x = netcl.ones((2, 3))
    for call in (lambda: x[key], lambda: x.__setitem__(key, 0.0)):
        with pytest.raises(IndexError, match=message):
            call()
    assert x.numpy().sum() == 6


def test_refused_array_subscripts():
    x = netcl.ones((2, 3, 2))
    i, mask = netcl.asarray([0, 1]), netcl.asarray([True, False])
    for call, error, message in (
        (lambda: x[i, [0, 1, 2]], IndexError, "must broadcast"),
        (lambda: x[i.astype("float32")], IndexError, "a Tensor of float32 is not a position"),
        (lambda: x[:, mask], IndexError, "does not fit axes"),
        (lambda: x.__setitem__(mask, netcl.ones(3)), ShapeError, "does not broadcast to the selection"),
        (lambda: x.__setitem__(i, netcl.ones(3)), ShapeError, "does not broadcast to the selection"),
        (lambda: x.__setitem__(i, 1j), DTypeError, "real part"),
        (lambda: x.__setitem__(0, netcl.ones(3)), ShapeError, r"does not broadcast to the selection of shape \(3, 2\)"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert x.numpy().sum() == 12


# Operators


def test_operators_are_numpys():
    a, b = np.array([[7.0, -3.0], [2.0, 5.0]], "float32"), np.array([2.0, -4.0], "float32")
    x, y = netcl.asarray(a), netcl.asarray(b)
    real = ["add", "sub", "mul", "truediv", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne", "matmul"]
    for name in real:
        function = getattr(operator, name)
        np.testing.assert_allclose(function(x, y).numpy(), function(a, b), rtol=1e-6, err_msg=name)
        if name != "matmul":
            np.testing.assert_allclose(function(x, 2.0).numpy(), function(a, 2.0), rtol=1e-6, err_msg=name)
            np.testing.assert_allclose(function(3.0, y).numpy(), function(3.0, b), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose((x**3).numpy(), a**3, rtol=1e-6)
    np.testing.assert_allclose((2.0**y).numpy(), 2.0**b, rtol=1e-6)
    i, j = np.array([12, 5]), np.array([3, 1])
    p, q = netcl.asarray(i), netcl.asarray(j)
    for name in ("and_", "or_", "xor", "lshift", "rshift"):
        function = getattr(operator, name)
        np.testing.assert_array_equal(function(p, q).numpy(), function(i, j), err_msg=name)
        np.testing.assert_array_equal(function(9, q).numpy(), function(9, j), err_msg=name)
    np.testing.assert_array_equal((~p).numpy(), ~i)
    assert ((-x).tolist(), (+x).tolist(), abs(x).tolist()) == ((-a).tolist(), a.tolist(), abs(a).tolist())
    assert (x * np.float32(2)).dtype is netcl.float32
    assert (np.float32(2) * x).tolist() == (2 * a).tolist()


def test_operators_in_place_keep_memory_and_dtype():
    value = np.array([7.0, -3.0], "float32")
    x = netcl.asarray(value)
    view, storage = x[:1], x.storage
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"):
        function = getattr(operator, name)
        x, value = function(x, 2), function(value, 2)
        assert x.storage is storage
        np.testing.assert_allclose(x.numpy(), value, err_msg=name)
    assert view.tolist() == value[:1].tolist()
    bits = netcl.asarray([6, 3])
    bits &= 3
    bits |= 4
    bits ^= 1
    bits <<= 2
    bits >>= 1
    assert bits.tolist() == [14, 12]
    matrix = netcl.eye(2)
    matrix @= netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert matrix.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(DTypeError, match="in place on int64 would need float32"):
        bits *= 0.5
    with pytest.raises(ShapeError, match=r"in place on shape \(2,\) would have the shape \(2, 2\)"):
        bits += netcl.ones((2, 2), dtype="int64")
    assert bits.tolist() == [14, 12]


def test_what_does_not_mix():
    x = netcl.ones(2)
    for function in (*ARITHMETIC, *COMPARISONS, operator.matmul, operator.iadd, operator.imul):
        with pytest.raises(DTypeError, match="Tensors and NumPy arrays do not mix"):
            function(x, np.ones(2))
    with pytest.raises(TypeError, match="unsupported operand"):
        x + "1"
    assert (x == "1") is False
    assert len({x, x[:1]}) == 2


@pytest.mark.parametrize("function", [*ARITHMETIC, *COMPARISONS], ids=lambda function: function.__name__)
@pytest.mark.parametrize("scalar", [np.float64, np.float32, np.float16, np.int32, np.uint8])
def test_operators_of_numpys_scalars_give_tensors(function, scalar):
    x = netcl.asarray([1.0, 2.0, -3.0])
    mine, plain = function(scalar(2), x), function(scalar(2).item(), x)
    assert isinstance(mine, netcl.Tensor)
    assert mine.dtype is plain.dtype
    assert mine.tolist() == plain.tolist()


@pytest.mark.parametrize("function", [*ARITHMETIC, *COMPARISONS, operator.matmul, operator.iadd, operator.imul])
def test_operators_of_numpys_arrays_are_numpys(function, backend):
    x, y = np.float32([1.0, 2.0, -3.0]), np.float32([2.0, 2.0, 0.5])
    expected = function(y.copy(), x)
    found = function(y, netcl.asarray(x, device=backend.device))
    assert isinstance(found, np.ndarray | np.generic)
    np.testing.assert_array_equal(found, expected, strict=True)


UNARY = [each for name in dir(np) if isinstance(each := getattr(np, name), np.ufunc) and each.nin == each.nout == 1]


def test_functions_of_numpy_read_tensors(backend):
    value = np.float32([0.25, 1.0])
    x = netcl.asarray(value, device=backend.device)
    for function in UNARY:
        if not any(types.startswith("f->") for types in function.types):
            continue
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(function(x), function(value), strict=True, err_msg=function.__name__)


# Copies, moves, other libraries


def test_clone_detach_and_copies(backend):
    with netcl.use_backend(backend):
        x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        x.grad = netcl.ones((2, 2))
        assert x.detach().storage is x.storage
        assert not x.detach().requires_grad
        assert x.T.clone().is_contiguous
        for duplicate in (copy.deepcopy(x), copy.copy(x), pickle.loads(pickle.dumps(x))):
            assert duplicate.storage is not x.storage
            assert duplicate.tolist() == x.tolist()
            assert duplicate.requires_grad
            assert duplicate.device == x.device
        assert copy.deepcopy(x).grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
        shared = copy.deepcopy([x, x])
        assert shared[0] is shared[1]
        half = netcl.asarray([1.0, -3.5], dtype="bfloat16")
        assert pickle.loads(pickle.dumps(half)).tolist() == [1.0, -3.5]
        assert pickle.loads(pickle.dumps(half)).dtype is netcl.bfloat16


def test_moving_between_devices(backend):
    x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]], device="numpy", requires_grad=True)
    with netcl.autograd.Tape() as tape:
        there = x.T.to(backend.device)
        loss = netcl.sum(there * netcl.asarray([1.0, 2.0], device=backend.device))
        back = loss.to_device("numpy")
    assert there.device == backend.device
    assert there.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    tape.backward(back)
    assert x.grad.device == x.device
    assert x.grad.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert x.to(x.device) is x
    for dtype in ("int64", "bool", "float16", "bfloat16"):
        y = netcl.asarray([0, 1, 1], dtype=dtype, device="numpy")
        assert y.to(backend.device).to("numpy").tolist() == y.tolist()
    with pytest.raises(BackendError):
        x.to("abacus")


def test_dlpack_through_host_memory(backend):
    x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]], device=backend.device)
    assert np.from_dlpack(x.T, device="cpu").tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert netcl.from_dlpack(np.arange(3), device=backend.device).tolist() == [0, 1, 2]
    assert x.__dlpack_device__() == (1, 0)
    assert np.from_dlpack(x).tolist() == x.tolist()
    with pytest.raises(BufferError, match=r"ask for dl_device=\(1, 0\)"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="bfloat16"):
        x.astype("bfloat16").__dlpack__(dl_device=(1, 0))


def test_dlpack_shares_memory_where_that_is_the_host_s(backend):
    x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]], device=backend.device)
    ours = backend.device.backend == "numpy"
    seen = np.from_dlpack(x.T)
    x[0, 1] = 7.0
    assert seen[1, 0] == (7.0 if ours else 2.0)
    host = np.arange(4, dtype=np.float32)
    taken = netcl.from_dlpack(host, device=backend.device)
    host[0] = 9.0
    assert taken[0].item() == (9.0 if ours else 0.0)
    kept = netcl.from_dlpack(host, device=backend.device, copy=True)
    host[0] = 5.0
    assert kept[0].item() == 9.0
    if backend.device.shares_host_memory:
        view = netcl.from_dlpack(host, device=backend.device, copy=False)
        assert (view + 1.0).tolist() == [6.0, 2.0, 3.0, 4.0]
        with pytest.raises(ArgumentError, match="not one aligned row-major run"):
            netcl.from_dlpack(host[::2], device=backend.device, copy=False)

        class Shared:
            def __dlpack__(self, **options):
                return x.__dlpack__(copy=False, **options)

            def __dlpack_device__(self):
                return x.__dlpack_device__()

        assert np.from_dlpack(Shared()).tolist() == [[1.0, 7.0], [3.0, 4.0]]
        assert (x + 1.0).tolist() == [[2.0, 8.0], [4.0, 5.0]]  # given back


def test_numpy_reads_tensors(backend):
    """In silence it would make arrays of objects."""
    x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]], device=backend.device)
    assert np.asarray(x).dtype == np.float32
    assert np.mean([x[0, 0], x[1, 1]]) == 2.5
    assert np.asarray(x, dtype="int32").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="copy=False cannot be had"):
        x.__array__(copy=False)


def test_numbers_are_formatted_and_rounded():
    x = netcl.asarray(2.4567)
    assert f"{x:.2f} {netcl.asarray([7]):03d}" == "2.46 007"
    assert f"{netcl.ones(2)}" == str(netcl.ones(2))
    with pytest.raises(ArgumentError, match="format elements one by one"):
        f"{netcl.ones(2):.2f}"
    assert round(x).item() == 2.0
    assert round(x, 2).item() == pytest.approx(2.46)


def test_array_namespace_and_its_questions():
    xp = netcl.ones(1).__array_namespace__(api_version="2025.12")
    assert xp is netcl
    with pytest.raises(ValueError, match=r"version 2025\.12"):
        netcl.ones(1).__array_namespace__(api_version="1999.01")
    info = xp.__array_namespace_info__()
    assert str(info.default_device()) == "numpy"
    assert info.default_device() in info.devices()
    assert info.default_dtypes()["real floating"] is netcl.float32
    assert set(info.dtypes(device="numpy", kind=("bool", "unsigned integer"))) == {
        "bool", "uint8", "uint16", "uint32", "uint64",
    }  # fmt: skip
    assert {"boolean indexing", "data-dependent shapes", "max dimensions"} <= set(info.capabilities())
    assert (xp.pi, xp.e, xp.inf, xp.newaxis) == (np.pi, np.e, np.inf, None)
    assert np.isnan(xp.nan)
    assert xp.finfo(xp.float32).eps == np.finfo("float32").eps
    assert xp.iinfo(xp.uint16).max == 65535
    assert xp.can_cast(xp.int8, xp.int16)
    assert not xp.can_cast(xp.uint64, xp.int64)
    assert xp.isdtype(xp.float16, ("integral", "real floating"))
    assert not xp.isdtype(xp.int8, "unsigned integer")
    for call in (lambda: xp.isdtype(xp.int8, "number"), lambda: xp.finfo(xp.int8), lambda: xp.iinfo(xp.float32)):
        with pytest.raises(DTypeError):
            call()


def test_array_api_compat_knows_netcl():
    import array_api_compat

    assert array_api_compat.is_array_api_obj(netcl.ones(1))
    assert array_api_compat.array_namespace(netcl.ones(1), netcl.ones(2)) is netcl


def test_every_public_name_is_there():
    for module in (netcl, netcl.autograd, netcl.functional, netcl.linalg, netcl.fft):
        for name in module.__all__:
            assert hasattr(module, name), name
    assert set(netcl.functional.__all__) < set(netcl.autograd.__all__)


def test_import_needs_no_opencl():
    code = "import sys, netcl; assert 'pyopencl' not in sys.modules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_operations_make_no_blocking_call():
    class Counting:
        def __init__(self, backend):
            self.backend, self.reads = backend, 0

        def __getattr__(self, name):
            if name in ("download", "synchronize"):
                self.reads += 1
            return getattr(self.backend, name)

    counting = Counting(netcl.get_backend("numpy"))
    x = netcl.Tensor(netcl.array.Storage.empty(counting, 12, netcl.float32), (3, 4))
    x[...] = 1.0
    x.requires_grad = True
    labels = netcl.zeros_like(x[:, 0].detach(), dtype="int64")
    with netcl.autograd.Tape() as tape:
        y = netcl.functional.layer_norm(netcl.functional.gelu(x @ x.T), 3)
        loss = netcl.autograd.cross_entropy(y[:, ::-1], labels, label_smoothing=0.1)
    tape.backward(loss)
    assert counting.reads == 0
    assert x.grad.shape == (3, 4)
    assert counting.reads == 0
    loss.item()
    assert counting.reads == 1


def test_full_takes_a_value_of_no_dimensions(backend):
    with netcl.use_backend(backend):
        seven = netcl.asarray(7, dtype=netcl.int16)
        assert (netcl.full(2, seven).tolist(), netcl.full(2, seven).dtype) == ([7, 7], netcl.int16)
        assert netcl.full(2, seven, dtype=netcl.float32).tolist() == [7.0, 7.0]
        assert netcl.full_like(netcl.zeros(2), seven).tolist() == [7.0, 7.0]
        with pytest.raises(ArgumentError, match="fill_value must be a number"):
            netcl.full(2, netcl.zeros(1))


def test_ranges_take_numbers_of_no_dimensions(backend):
    with netcl.use_backend(backend):
        one, three, half = netcl.asarray(1), netcl.asarray(3, dtype="int8"), netcl.asarray(0.5)
        for made, plain in (
            (netcl.arange(three), netcl.arange(3)),
            (netcl.arange(one, three), netcl.arange(1, 3)),
            (netcl.arange(one, three, half), netcl.arange(1, 3, 0.5)),
            (netcl.linspace(one, half, 4), netcl.linspace(1, 0.5, 4)),
            (netcl.linspace(half * 1j, three, 4), netcl.linspace(0.5j, 3, 4)),
        ):
            assert (made.dtype, made.tolist()) == (plain.dtype, plain.tolist())
        for call in (netcl.arange, lambda x: netcl.arange(0, x), lambda x: netcl.linspace(0, x, 2)):
            with pytest.raises(ArgumentError, match="must be a number"):
                call(netcl.ones(1))
