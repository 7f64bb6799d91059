"""The functions: against NumPy in what the standard says, and the same numbers on every backend."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
import netcl.functional as F
from netcl.errors import DeviceMismatchError, DTypeError, HyperParameterError, ShapeError
from tests.operations import ELEMENTWISE, LOW_HIGH, OPERATIONS


@pytest.fixture(autouse=True)
def _on_numpy():
    with netcl.use_backend("numpy"):
        yield


# The same on every backend


def run(backend, operation, dtype):
    """Output and gradients of an operation with inputs rounded to ``dtype``."""
    rng = np.random.default_rng(5)
    with netcl.use_backend(backend):
        values = [rng.uniform(*LOW_HIGH[domain], shape) for shape, domain in operation.operands]
        operands = [netcl.asarray(value, dtype=dtype, requires_grad=True) for value in values]
        with ag.Tape() as tape:
            out = operation.function(*operands)
        assert out.dtype is netcl.dtypes.as_dtype(dtype)
        assert out.backend is backend
        tape.backward(out, seed=netcl.asarray(rng.normal(size=out.shape), dtype=dtype))
        return [out.numpy(), *(x.grad.numpy() for x in operands)]


SHARED = (
    "shifted", "plain", "of two axes", "sum", "rows", "ignoring", "of images", "of one", "broadcast", "transposed",
    "permuted",
    "of a vector", "without bias", "below", "above", "of a power of two", "flat", "middle axis",
)  # fmt: skip
"""Parts of the names of operations whose kernels another operation has too."""

SHORT = {
    "exp", "log1p", "atan2", "clip", "where", "scalars", "reshape of a transpose", "concat", "roll", "basic index",
    "array index", "take_along_axis", "sum of an axis", "prod", "std", "max", "logsumexp", "softmax of the first axis",
    "layer_norm", "matmul batch", "linear", "tensordot", "conv2d", "max_pool2d overlapping", "cross_entropy smoothed",
}  # fmt: skip
"""For the OpenCL runtimes behind the first: an operation of each kind."""


def on_opencl(row):
    """Elementwise derivatives are tried in test_singular_gradients.py too, and each operator in test_map.py."""
    name = row["name"]
    alone = not any(name.endswith(part) for part in SHARED) or name == "sum"
    return name in SHORT or (alone and (name not in ELEMENTWISE or list(ELEMENTWISE).index(name) % 3 == 0))


@pytest.mark.compiled(rows=on_opencl)
@pytest.mark.short(name=SHORT)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_agrees_with_numpy_in_float32(backend, name):
    expected = run(netcl.get_backend("numpy"), OPERATIONS[name], "float32")
    for got, want in zip(run(backend, OPERATIONS[name], "float32"), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=3e-5, atol=3e-6)


IN_16_BITS = [
    "add", "exp", "gelu", "sum of an axis", "mean", "softmax", "layer_norm", "matmul", "linear", "conv2d",
    "cross_entropy", "concat", "embedding", "basic index",
]  # fmt: skip


# Every kernel is built anew for a dtype, so each operation takes one of the two in turn.
@pytest.mark.compiled(name=[*IN_16_BITS[::2], *IN_16_BITS[7::4]])
@pytest.mark.short(name=["add", "softmax", "conv2d"])
@pytest.mark.parametrize(("name", "dtype"), [*zip(IN_16_BITS, cycle(["float16", "bfloat16"]), strict=False)])
def test_operation_agrees_with_numpy_in_16_bits(backend, name, dtype):
    expected = run(netcl.get_backend("numpy"), OPERATIONS[name], dtype)
    unit = 2.0**-10 if dtype == "float16" else 2.0**-7
    for got, want in zip(run(backend, OPERATIONS[name], dtype), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=4 * unit, atol=4 * unit)


@pytest.mark.short(rows=lambda row: False)  # test_map.py tries these operators on each
def test_comparisons_integers_and_indices_agree_with_numpy(backend):
    rng = np.random.default_rng(2)
    a, b = rng.integers(-9, 9, (4, 1, 5)), rng.integers(1, 9, (3, 1))
    u, v = rng.integers(0, 9, (4, 5)).astype("uint8"), rng.integers(0, 3, 5).astype("uint8")
    p = rng.integers(0, 2, (3, 4)).astype(bool)
    with netcl.use_backend(backend):
        x, y, s, t, q = map(netcl.asarray, (a, b, u, v, p))
        pairs = {
            "less": (x < y, a < b),
            "equal": (x == y, a == b),
            "floor_divide": (x // y, a // b),
            "remainder": (x % y, a % b),
            "divide": (x / y, a / b),
            "shift": (s << t, u << v),
            "bits": ((s & t) | (s ^ 5), (u & v) | (u ^ 5)),
            "invert": (~s, ~u),
            "not": (~q, ~p),
            "sum": (netcl.sum(s, axis=0), u.sum(0)),
            "prod": (netcl.prod(y), b.prod()),
            "max": (netcl.max(x, axis=(0, 2)), a.max((0, 2))),
            "argmax": (netcl.argmax(x, axis=2), a.argmax(2)),
            "argmin": (netcl.argmin(x), a.argmin()),
            "any": (netcl.any(q, axis=0), p.any(0)),
            "all": (netcl.all(q), p.all()),
            "count": (netcl.count_nonzero(x, axis=1), np.count_nonzero(a, axis=1)),
            "matmul": (s[:3] @ s.T, u[:3] @ u.T),
            "power": (x**2, a**2),
            "sign": (netcl.sign(x), np.sign(a)),
            "abs": (abs(x), abs(a)),
            "where": (netcl.where(x > y, x, 0), np.where(a > b, a, 0)),
            "isnan": (netcl.isnan(x), np.isnan(a)),
            "astype": (x.astype("float32").astype("int8"), a.astype("int8")),
        }
        for name, (got, want) in pairs.items():
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, err_msg=name)
            if name != "divide":
                assert got.dtype.name == want.dtype.name, name


def test_nan_and_infinity(backend):
    values = np.array([1.0, np.nan, -np.inf, np.inf], "float32")
    with netcl.use_backend(backend):
        x = netcl.asarray(values)
        assert netcl.isnan(x).tolist() == [False, True, False, False]
        assert netcl.isinf(x).tolist() == [False, False, True, True]
        assert netcl.isfinite(x).tolist() == [True, False, False, False]
        assert np.isnan(netcl.max(x).item())
        assert np.isnan(netcl.maximum(x, 0.0).tolist()[1])
        assert netcl.argmax(x).item() == 1
        assert netcl.logsumexp(netcl.asarray([-np.inf, -np.inf])).item() == -np.inf
        assert F.sigmoid(netcl.asarray([-1e4, 1e4])).tolist() == [0.0, 1.0]


def test_empty_and_zero_dimensional_arrays(backend):
    with netcl.use_backend(backend):
        none = netcl.zeros((0, 3))
        assert netcl.sum(none, axis=0).tolist() == [0.0, 0.0, 0.0]
        assert netcl.prod(none).item() == 1.0
        assert netcl.all(none).item() is True
        assert netcl.any(none).item() is False
        assert (none @ netcl.ones((3, 2))).shape == (0, 2)
        assert (netcl.ones((2, 0)) @ netcl.ones((0, 2))).tolist() == [[0.0, 0.0], [0.0, 0.0]]
        assert np.isnan(netcl.mean(none).item())
        assert (none + 1).shape == (0, 3)
        assert netcl.concat([none, netcl.ones((1, 3))]).shape == (1, 3)
        assert F.softmax(none).shape == (0, 3)
        assert netcl.take(netcl.ones(3), netcl.zeros(0, dtype="int64")).shape == (0,)
        with pytest.raises(ShapeError, match="max over no elements"):
            netcl.max(none)
        scalar = netcl.asarray(3.0)
        assert scalar.shape == ()
        assert (scalar * scalar + 1).item() == 10.0
        assert netcl.sum(scalar).item() == 3.0
        assert netcl.reshape(scalar, (1, 1)).tolist() == [[3.0]]
        assert netcl.exp(netcl.asarray(0)).dtype is netcl.float32
        assert netcl.stack([scalar, scalar]).tolist() == [3.0, 3.0]


def test_an_index_out_of_range_is_reported_at_the_next_read(backend):
    with netcl.use_backend(backend):
        x, bad = netcl.ones((3, 2)), netcl.asarray([0, 3])
        with pytest.raises(IndexError):
            netcl.take(x, bad, axis=0).numpy()
        with pytest.raises(IndexError):
            x[bad, netcl.asarray([0, 1])].numpy()
        with pytest.raises(IndexError):
            F.cross_entropy(x, netcl.asarray([0, 1, 2])).numpy()
        assert netcl.take(x, netcl.asarray([-1]), axis=0).tolist() == [[1.0, 1.0]]


def test_dropout_is_the_same_everywhere(backend):
    with netcl.use_backend("numpy"):
        expected = F.dropout(netcl.ones(1001), 0.3, generator=netcl.random.Generator(5)).numpy()
    with netcl.use_backend(backend):
        x = netcl.ones(1001)
        np.testing.assert_array_equal(F.dropout(x, 0.3, generator=netcl.random.Generator(5)).numpy(), expected)
        assert F.dropout(x, 0.3, training=False) is x
        assert F.dropout(x, 1.0).tolist() == [0.0] * 1001


# What the standard says


DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("right", DTYPES)
def test_promotion_within_a_kind_is_numpys(left, right):
    kinds = {np.dtype(left).kind, np.dtype(right).kind}
    if "b" in kinds or ("f" in kinds and kinds != {"f"}):
        return
    if kinds == {"i", "u"} and "uint64" in (left, right):
        with pytest.raises(DTypeError, match="no common integer dtype"):
            netcl.ones(1, dtype=left) + netcl.ones(1, dtype=right)
        return
    expected = np.result_type(left, right).name
    assert (netcl.ones(1, dtype=left) + netcl.ones(1, dtype=right)).dtype.name == expected
    assert netcl.result_type(netcl.ones(1, dtype=left), netcl.dtypes.as_dtype(right)).name == expected


def test_python_numbers_do_not_widen():
    assert (netcl.ones(1, dtype="float16") * 2.5).dtype is netcl.float16
    assert (netcl.ones(1, dtype="int8") + 1).dtype is netcl.int8
    assert (netcl.ones(1, dtype="int8") + 1.5).dtype is netcl.float32
    assert (netcl.ones(1, dtype="int64") * netcl.ones(1)).dtype is netcl.float32
    assert (netcl.ones(1, dtype="bfloat16") * netcl.ones(1, dtype="float16")).dtype is netcl.float32
    assert (1 / netcl.asarray([2, 4])).tolist() == [0.5, 0.25]
    with pytest.raises(DTypeError, match=r"300 is out of range for uint8, \[0, 255\]"):
        netcl.ones(1, dtype="uint8") + 300


def test_sums_of_integers_are_wide():
    for dtype, expected in (("int8", "int64"), ("uint8", "uint64"), ("float16", "float16"), ("float32", "float32")):
        x = netcl.full(300, 100, dtype=dtype)
        assert netcl.sum(x).dtype.name == expected
        assert netcl.sum(x).item() == pytest.approx(30000, rel=1e-3)
        assert netcl.prod(x[:1]).dtype.name == expected
    assert netcl.sum(netcl.ones(3, dtype="int8"), dtype="float32").dtype is netcl.float32


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(shape=shapes, data=st.data())
def test_reductions_are_numpys(shape, data):
    axes = data.draw(st.none() | st.sets(st.integers(0, max(len(shape) - 1, 0))).map(tuple)) if shape else None
    keepdims = data.draw(st.booleans())
    name = data.draw(st.sampled_from(["sum", "prod", "mean", "var", "std", "max", "min", "all", "any"]))
    value = np.random.default_rng(1).normal(size=shape)
    reduced = value.shape if axes is None else [shape[i] for i in axes]
    if 0 in reduced and name in ("max", "min", "mean", "var", "std"):
        return
    got = getattr(netcl, name)(netcl.asarray(value), axis=axes, keepdims=keepdims)
    want = getattr(np, name)(value, axis=axes, keepdims=keepdims)
    assert got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-14)


@given(data=st.data())
def test_reshape_of_any_view_is_numpys(data):
    value = np.arange(24).reshape(data.draw(st.sampled_from([(24,), (4, 6), (2, 3, 4), (2, 1, 12)])))
    x = netcl.asarray(value)
    order = data.draw(st.permutations(range(value.ndim)))
    keys = data.draw(st.tuples(*[st.slices(extent) for extent in value.shape]))
    value, x = value[keys].transpose(order), netcl.permute_dims(x[keys], order)
    assert x.shape == value.shape
    target = data.draw(st.sampled_from([(-1,), (value.size,), (1, value.size, 1), value.shape]))
    if value.size == 0:
        target = (0, 3)
    reshaped = netcl.reshape(x, target)
    np.testing.assert_array_equal(reshaped.numpy(), value.reshape(target))
    shared = value.reshape(target)
    if value.size > 1 and np.shares_memory(value, shared):
        assert reshaped.storage is x.storage


@given(left=shapes, right=shapes)
def test_broadcasting_is_numpys(left, right):
    try:
        expected = np.broadcast_shapes(left, right)
    except ValueError:
        with pytest.raises(ShapeError, match="cannot be broadcast"):
            netcl.zeros(left) + netcl.zeros(right)
        return
    assert (netcl.zeros(left) + netcl.zeros(right)).shape == expected


def test_shape_functions_are_numpys():
    value = np.arange(24.0).reshape(2, 3, 4)
    x = netcl.asarray(value)
    pairs = [
        (netcl.permute_dims(x, (1, -1, 0)), value.transpose(1, 2, 0)),
        (netcl.moveaxis(x, (0, 1), (-1, 0)), np.moveaxis(value, (0, 1), (-1, 0))),
        (netcl.expand_dims(x, axis=(0, -1)), np.expand_dims(value, (0, -1))),
        (netcl.squeeze(netcl.expand_dims(x, axis=-2), axis=-2), value),
        (netcl.flip(x), np.flip(value)),
        (netcl.flip(x, axis=(0, 2)), np.flip(value, (0, 2))),
        (netcl.roll(x, 5), np.roll(value, 5)),
        (netcl.roll(x, (1, -2), axis=(1, 2)), np.roll(value, (1, -2), (1, 2))),
        (netcl.tile(x, (2, 1, 1, 3)), np.tile(value, (2, 1, 1, 3))),
        (netcl.tile(x, (2,)), np.tile(value, 2)),
        (netcl.repeat(x, 2), np.repeat(value, 2)),
        (netcl.repeat(x, 3, axis=-1), np.repeat(value, 3, axis=-1)),
        (netcl.concat([x, x[:, :1]], axis=1), np.concatenate([value, value[:, :1]], axis=1)),
        (netcl.stack([x, x], axis=-1), np.stack([value, value], axis=-1)),
        (netcl.unstack(x, axis=1)[2], value[:, 2]),
        (netcl.broadcast_to(x, (5, 2, 3, 4)), np.broadcast_to(value, (5, 2, 3, 4))),
        (netcl.meshgrid(x[0, 0], x[0, :, 0])[1], np.meshgrid(value[0, 0], value[0, :, 0])[1]),
        (netcl.matrix_transpose(x), value.swapaxes(1, 2)),
        (netcl.tril(x, k=-1), np.tril(value, -1)),
        (netcl.triu(x, k=1), np.triu(value, 1)),
        (netcl.concat([netcl.asarray([1], dtype="int8"), netcl.asarray([2])]), np.array([1, 2])),
    ]
    for got, want in pairs:
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 10), ("bfloat16", 7)])
def test_products_of_16_bits_are_added_up_unrounded(dtype, digits):
    # (1 + ε)² - (1 + 2ε) is ε², which is lost if the square is rounded to the dtype.
    eps = 2.0**-digits
    x = netcl.asarray([1 + eps, 1.0], dtype=dtype)
    y = netcl.asarray([1 + eps, -(1 + 2 * eps)], dtype=dtype)
    products = [netcl.vecdot(x, y), x @ y, netcl.tensordot(x, y, axes=1), F.linear(x, y[None])[0]]
    assert [float(found) for found in products] == [eps * eps] * 4
    assert all(found.dtype is x.dtype for found in products)


def test_products_are_numpys():
    rng = np.random.default_rng(0)
    a, b, v = rng.normal(size=(2, 1, 3, 4)), rng.normal(size=(5, 4, 2)), rng.normal(size=4)
    x, y, w = map(netcl.asarray, (a, b, v))
    pairs = [
        (x @ y, a @ b),
        (netcl.permute_dims(y, (0, 2, 1)) @ netcl.permute_dims(x, (0, 1, 3, 2)), b.swapaxes(1, 2) @ a.swapaxes(2, 3)),
        (x @ w, a @ v),
        (w @ y, v @ b),
        (w @ w, v @ v),
        (netcl.tensordot(x, y, axes=([3], [1])), np.tensordot(a, b, axes=([3], [1]))),
        (netcl.vecdot(x, w), np.sum(a * v, axis=-1)),
        (netcl.linalg.outer(w, w), np.outer(v, v)),
        (F.linear(x, y[0].T), a @ b[0]),
    ]
    for got, want in pairs:
        assert got.shape == want.shape
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_conv2d_is_the_sum_it_says():
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)
    y = F.conv2d(*map(netcl.asarray, (x, w, b)), stride=(2, 1), padding=(1, 2), dilation=(1, 2)).numpy()
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = wide[:, :, 2 * i : 2 * i + 3, j : j + 3 : 2]
            np.testing.assert_allclose(y[:, :, i, j], np.einsum("bcuv,ocuv->bo", window, w) + b, rtol=1e-10)


def test_cross_entropy_is_its_formula():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    rows = -log_p[np.arange(5), labels]
    q = 0.9 * np.eye(3)[labels] + 0.1 / 3
    logits, target = netcl.asarray(x), netcl.asarray(labels)

    def loss(**options):
        return F.cross_entropy(logits, options.pop("target", target), **options).numpy()

    np.testing.assert_allclose(loss(reduction="none"), rows)
    np.testing.assert_allclose(loss(), rows.mean())
    np.testing.assert_allclose(loss(reduction="sum"), rows.sum())
    np.testing.assert_allclose(loss(ignore_index=1), rows[labels != 1].mean())
    np.testing.assert_allclose(loss(label_smoothing=0.1), -(q * log_p).sum(1).mean())
    probabilities = netcl.asarray(np.eye(3)[labels])
    np.testing.assert_allclose(loss(target=probabilities, label_smoothing=0.1), -(q * log_p).sum(1).mean())
    np.testing.assert_allclose(
        F.nll_loss(netcl.asarray(log_p), target, ignore_index=1).numpy(), rows[labels != 1].mean()
    )
    assert np.isnan(loss(target=netcl.full(5, -100)))


def test_mean_is_exact_where_the_sum_is():
    for n in (1, 3, 4, 7, 10, 128):
        assert netcl.mean(netcl.full(n, 3.0)).item() == 3.0
    assert netcl.mean(netcl.full(1000, 60000.0, dtype="float16")).item() == 60000.0


# Refusals


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x + netcl.ones(4), ShapeError, r"\(2, 3\) and \(4,\) cannot be broadcast"),
        (lambda x: x @ x, ShapeError, r"inner extents 3 and 2 must be equal"),
        (lambda x: netcl.matmul(x, netcl.asarray(1.0)), ShapeError, "at least one axis each"),
        (lambda x: netcl.reshape(x, (4, 2)), ShapeError, "6 elements do not fit"),
        (lambda x: netcl.permute_dims(x, (0, 0)), ShapeError, "must name each axis once"),
        (lambda x: netcl.squeeze(x, axis=0), ShapeError, "only axes of extent 1"),
        (lambda x: netcl.sum(x, axis=2), ShapeError, r"axis must lie in \[-2, 2\) .* got 2"),
        (lambda x: netcl.sum(x, axis=(0, -2)), ShapeError, "must name each axis once"),
        (lambda x: netcl.concat([x, netcl.ones((2, 3, 1))]), ShapeError, "do not join"),
        (lambda x: netcl.concat([]), ShapeError, "at least one array"),
        (lambda x: netcl.broadcast_to(x, (2, 2)), ShapeError, "broadcast"),
        (lambda x: F.cross_entropy(x, netcl.asarray([0])), ShapeError, r"labels of shape \(2,\), got \(1,\)"),
        (lambda x: F.cross_entropy(x, netcl.ones(3)), ShapeError, "probabilities of that shape"),
        (lambda x: F.cross_entropy(x, [0, 1]), DTypeError, r"cross_entropy takes Tensors, got \[0, 1\]"),
        (lambda x: F.cross_entropy(x, netcl.asarray([0, 1]), reduction="avg"), HyperParameterError, "'avg'"),
        (
            lambda x: F.cross_entropy(x, netcl.asarray([0, 1]), label_smoothing=2),
            HyperParameterError,
            "at least 0 and at most 1, got 2",
        ),
        (lambda x: F.mse_loss(x, netcl.ones(3)), ShapeError, "one shape"),
        (lambda x: F.softmax(netcl.arange(3)), DTypeError, "floating dtype, got int64"),
        (lambda x: F.gelu(x, approximate="fast"), HyperParameterError, "one of 'none', 'tanh', got 'fast'"),
        (lambda x: F.dropout(x, 1.5), HyperParameterError, "at least 0 and at most 1, got 1.5"),
        (lambda x: F.layer_norm(x, 2), ShapeError, r"layer_norm over \(2,\)"),
        (lambda x: F.layer_norm(x, 3, eps=0.0), HyperParameterError, "eps must be a number, .*greater than 0"),
        (lambda x: F.linear(x, netcl.ones((4, 2))), ShapeError, "in_features"),
        (lambda x: F.conv2d(x, netcl.ones((1, 1, 2, 2))), ShapeError, "batch, channels, height, width"),
        (lambda x: F.conv2d(netcl.ones((1, 1, 2, 2)), netcl.ones((1, 1, 3, 3))), ShapeError, "do not fit images"),
        (lambda x: F.max_pool2d(netcl.ones((1, 1, 4, 4)), 2, padding=2), HyperParameterError, "half the window"),
        (lambda x: netcl.take(x, netcl.ones(1), axis=0), DTypeError, "integer indices, got float32"),
        (lambda x: netcl.where(x, x, x), DTypeError, "condition of bool, got float32"),
        (lambda x: netcl.clip(netcl.arange(3), 0.5), DTypeError, "keeps the dtype"),
        (lambda x: netcl.bitwise_and(x, 1), DTypeError, "bitwise_and takes integer operands, got an array of float32"),
        (lambda x: netcl.add(x, "1"), DTypeError, "Tensors and Python numbers, got '1'"),
        (lambda x: netcl.add(1, 2), DTypeError, "at least one operand must be an array"),
        (lambda x: netcl.subtract(x > 0, x > 0), DTypeError, "subtract takes numeric operands, got an array of bool"),
        (lambda x: netcl.astype(x, "float8"), DTypeError, "unknown dtype 'float8'"),
    ],
)
def test_refusals_name_value_and_rule(call, error, message):
    with pytest.raises(error, match=message):
        call(netcl.ones((2, 3)))


def test_operands_on_different_devices(backend):
    here = netcl.ones(2, device="numpy")
    there = netcl.ones(2, device=backend.device)
    if there.backend is here.backend:
        from netcl.backends.reference import ReferenceBackend

        there = netcl.Tensor(netcl.array.Storage.empty(ReferenceBackend(name="other"), 2, netcl.float32), (2,))
    calls = [
        lambda: here + there,
        lambda: netcl.concat([here, there]),
        lambda: netcl.matmul(here, there),
        lambda: F.mse_loss(here, there),
        lambda: netcl.where(here > 0, there, 0.0),
        lambda: here.__iadd__(there),
    ]
    for call in calls:
        with pytest.raises(DeviceMismatchError, match=r"different devices, .* and .*; move one of them with to\("):
            call()
    assert here.tolist() == [1.0, 1.0]


def test_a_device_without_a_dtype_says_what_to_do(backend):
    missing = [dtype for dtype in netcl.dtypes.ALL if not backend.supports(dtype)]
    with netcl.use_backend(backend):
        for dtype in missing:
            with pytest.raises(DTypeError, match=f"cannot compute in {dtype}; pass dtype=netcl"):
                netcl.zeros(2, dtype=dtype)
        for dtype in set(netcl.dtypes.ALL) - set(missing):
            assert netcl.zeros(2, dtype=dtype).tolist() == [0, 0]
