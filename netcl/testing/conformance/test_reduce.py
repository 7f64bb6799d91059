"""reduce and arg_reduce."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.dtypes import float32, int64
from netcl.testing.conformance.operands import FLOATS, INTEGERS, SHORT, SHORT_INTEGERS, Operand, assert_close, zeros

IDENTITY = {"sum": 0, "prod": 1, "any": False, "all": True}


def identity(dtype):
    return ex.trace(lambda x: x, (dtype,))


def all_axes(ndim):
    return [axes for n in range(ndim + 1) for axes in itertools.combinations(range(ndim), n)]


def remaining(shape, axes):
    return tuple(extent for axis, extent in enumerate(shape) if axis not in axes)


def reduce(backend, op, x, axes, out_dtype, function=lambda x: x, **where):
    out = zeros(backend, remaining(x.shape, axes), out_dtype, **where)
    backend.reduce(op, ex.trace(function, (x.dtype,)), [x.view], axes, out.view)
    assert x.unchanged()
    return out


SETS = ((3,), (0, 1), (1, 3), (0, 1, 2, 3))
"""Sets of axes among which there is one for each form of the kernel."""


@pytest.mark.compiled(rows=lambda row: row["op"] != "max" or row["axes"] in SETS)
@pytest.mark.short(rows=lambda row: row["axes"] in (SETS if row["op"] == "sum" else SETS[2:3]))
@pytest.mark.parametrize(
    ("op", "axes"),
    [
        *((op, axes) for op in ("sum", "max") for axes in all_axes(4)),
        *((op, axes) for op in ("prod", "min", "any", "all") for axes in SETS),
    ],
    ids=str,
)
def test_every_operation_over_sets_of_axes(backend, op, axes):
    rng = np.random.default_rng(0)
    shape = (3, 5, 1, 17)
    if op in ("any", "all"):
        x = Operand(backend, rng.random(shape) < (0.05 if op == "any" else 0.95), dtypes.bool_)
        out = reduce(backend, op, x, axes, dtypes.bool_)
        np.testing.assert_array_equal(out.stored, getattr(np, op)(x.given, axis=axes))
        return
    x = Operand(backend, rng.uniform(-1.2, 1.2, shape), float32)
    out = reduce(backend, op, x, axes, float32)
    assert_close(out.values, getattr(np, op)(x.given, axis=axes), float32, ulps=64, absolute=1e-5 if op == "sum" else 0)


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 4), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("op", IDENTITY)
def test_over_no_elements(backend, op, shape):
    dtype = dtypes.bool_ if op in ("any", "all") else float32
    x = zeros(backend, shape, dtype)
    for axes in all_axes(len(shape)):
        out = reduce(backend, op, x, axes, dtype)
        np.testing.assert_array_equal(out.values, np.full(out.shape, IDENTITY[op]))


def test_of_an_array_without_axes(backend):
    x = Operand(backend, 3.5, float32)
    for op in ("sum", "prod", "max", "min"):
        assert reduce(backend, op, x, (), float32).values == 3.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [5, 3000])
@pytest.mark.parametrize("op", ["sum", "prod", "max", "min"])
def test_what_is_not_finite(backend, op, n, bad):
    values = np.ones((3, n))
    values[1, n // 2] = bad
    x = Operand(backend, values, float32)
    for axes in ((1,), (0, 1)):
        expected = getattr(np, op)(x.given, axis=axes)
        np.testing.assert_allclose(reduce(backend, op, x, axes, float32).values, expected, rtol=1e-6)


@pytest.mark.parametrize("op", ["max", "min"])
def test_extremes_beside_infinities(backend, op):
    x = Operand(backend, [[math.inf] * 9, [-math.inf] * 9], float32)
    np.testing.assert_array_equal(reduce(backend, op, x, (1,), float32).values, [math.inf, -math.inf])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_narrow_floats_add_in_float32(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    x = Operand(backend, np.full((2, 5000), 0.1), dtype)
    out = reduce(backend, "sum", x, (1,), float32 if dtype.compute is float32 else dtype)
    assert_close(out.values, x.given.sum(axis=1), float32, ulps=32)
    out = reduce(backend, "sum", x, (1,), dtype)
    assert_close(out.values, x.given.sum(axis=1), dtype, ulps=32 if dtype.compute is dtype else 1.01)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        *(("sum", dtype) for dtype in INTEGERS), *(("max", dtype) for dtype in INTEGERS),
        ("min", dtypes.int32), ("min", dtypes.uint8), ("prod", dtypes.int16), ("prod", dtypes.uint64),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.short(rows=lambda row: row["op"] in ("min", "prod") or row["dtype"] in SHORT_INTEGERS)
def test_integers(backend, op, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype.name)
    x = Operand(backend, rng.integers(info.min, info.max, (7, 33), dtype=dtype.name, endpoint=True), dtype)
    options = {"dtype": dtype.name} if op in ("sum", "prod") else {}
    expected = getattr(np, op)(x.given, axis=1, **options)
    np.testing.assert_array_equal(reduce(backend, op, x, (1,), dtype).stored, expected)


def test_wide_sums_of_narrow_integers(backend):
    x = Operand(backend, np.full((3, 1000), 100), dtypes.int8)
    out = reduce(backend, "sum", x, (1,), int64, lambda v: ex.cast(v, int64))
    np.testing.assert_array_equal(out.stored, [100_000] * 3)


def test_counting(backend):
    x = Operand(backend, np.arange(3000).reshape(3, 1000) % 7 == 0, dtypes.bool_)
    out = reduce(backend, "sum", x, (0, 1), int64, lambda v: ex.cast(v, int64))
    assert out.stored == x.given.sum()


@pytest.mark.parametrize("op", ["any", "all"])
def test_truth_of_an_expression(backend, op):
    x = Operand(backend, [[1.0, math.nan, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, -1.0]], float32)
    out = reduce(backend, op, x, (1,), dtypes.bool_, lambda v: ex.not_equal(v, 0.0))
    np.testing.assert_array_equal(out.stored, getattr(np, op)(x.given != 0, axis=1))


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("shape", [(4000, 50), (50, 4000), (3, 100_000), (100_000, 3), (70_001, 1)], ids=str)
def test_sums_keep_their_digits(backend, shape, axes):
    x = Operand(backend, np.random.default_rng(0).uniform(0, 1, shape), float32)
    found = reduce(backend, "sum", x, axes, float32).values
    np.testing.assert_allclose(found, x.given.sum(axis=axes), rtol=1e-6)


def test_an_expression_of_two_arrays_and_a_scalar(backend):
    rng = np.random.default_rng(0)
    x, y = (Operand(backend, rng.standard_normal((40, 30)), float32) for _ in range(2))
    out = zeros(backend, (30,), float32, strides=(2,))
    expression = ex.trace(lambda a, b, s: (a - b * s) ** 2, (float32, float32), (float32,))
    backend.reduce("sum", expression, [x.view, y.view], (0,), out.view, (0.5,))
    assert_close(out.values, ((x.given - 0.5 * y.given) ** 2).sum(axis=0), float32, ulps=16)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_the_same_bits_on_every_run(backend, axes):
    x = Operand(backend, np.random.default_rng(0).standard_normal((300, 400)), float32)
    assert len({reduce(backend, "sum", x, axes, float32).stored.tobytes() for _ in range(3)}) == 1


def layout(order, shape, signs):
    strides, step = [0] * len(shape), 1
    for axis in order:
        strides[axis] = step * signs[axis]
        step *= max(shape[axis], 1)
    return tuple(strides)


@given(data=st.data(), shape=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple))
def test_views_of_any_layout(backend, data, shape):
    order = data.draw(st.permutations(range(len(shape))))
    signs = data.draw(st.lists(st.sampled_from((1, -1, 2)), min_size=len(shape), max_size=len(shape)))
    signs = [sign if sign != 2 or axis == order[-1] else 1 for axis, sign in enumerate(signs)]
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    op = data.draw(st.sampled_from(("sum", "max", "min")))
    values = np.random.default_rng(len(shape)).integers(-50, 50, shape)
    x = Operand(backend, values, float32, strides=layout(order, shape, signs))
    np.testing.assert_array_equal(reduce(backend, op, x, axes, float32).values, getattr(np, op)(values, axis=axes))


def test_broadcast_operands(backend):
    x = Operand(backend, np.arange(6.0).reshape(1, 6), float32)
    wide = type(x.view)(x.buffer, x.start, (50, 6), (0, 1))
    for axes, expected in (((0,), 50 * x.given[0]), ((1,), np.full(50, 15.0)), ((0, 1), 750.0)):
        out = zeros(backend, remaining((50, 6), axes), float32)
        backend.reduce("sum", identity(float32), [wide], axes, out.view)
        np.testing.assert_array_equal(out.values, expected)


@pytest.mark.parametrize(
    ("op", "axis", "dtype"),
    [
        *(("argmax", 1, dtype) for dtype in (*FLOATS, *INTEGERS)), ("argmin", 1, dtypes.bfloat16), ("argmin", 1, int64),
        *((op, axis, float32) for op in ("argmax", "argmin") for axis in (0, 2)),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.short(dtype=SHORT)
def test_arg_reduce(backend, op, axis, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    values = np.random.default_rng(0).integers(0, 9, (4, 1000, 3))  # with many ties
    x = Operand(backend, values, dtype)
    out = zeros(backend, remaining(x.shape, (axis,)), int64)
    backend.arg_reduce(op, x.view, axis, out.view)
    np.testing.assert_array_equal(out.stored, getattr(np, op)(values, axis=axis))
    assert x.unchanged()


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_the_first_nan_wins(backend, op):
    nan, inf = math.nan, math.inf
    rows = [[1.0, nan, 3.0, nan], [inf, -inf, inf, -inf], [2.0, 2.0, 2.0, 2.0], [nan, inf, -inf, 0.0]]
    x = Operand(backend, rows, float32, strides=(1, 5))
    out = zeros(backend, (4,), int64, strides=(-1,))
    backend.arg_reduce(op, x.view, 1, out.view)
    np.testing.assert_array_equal(out.stored, getattr(np, op)(np.array(rows), axis=1))


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("n", [1, 2, 255, 257, 70_001])
def test_arg_reduce_of_a_vector(backend, op, n):
    x = Operand(backend, np.random.default_rng(n).standard_normal(n), float32)
    out = zeros(backend, (), int64)
    backend.arg_reduce(op, x.view, 0, out.view)
    assert out.stored == getattr(np, op)(x.given)
