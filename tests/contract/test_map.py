"""map: every operator, every cast, and views of any layout."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operands import ALL, FLOATS, INTEGERS, Operand, assert_close, decode, encode, storage, supported, zeros

from netcl import dtypes
from netcl import expression as ex
from netcl.array import contiguous_strides
from netcl.backends.base import View
from netcl.dtypes import float32
from netcl.expression import OPERATORS

NUMPY = {
    "pow": np.power, "atan2": np.arctan2, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "bitwise_left_shift": np.left_shift,
    "bitwise_right_shift": np.right_shift, "rsqrt": lambda x: 1 / np.sqrt(x), "round": np.rint,
    "erf": np.vectorize(math.erf, otypes=[float]), "bitwise_invert": np.invert, "reciprocal": lambda x: 1 / x,
}  # fmt: skip

UNARY = [op for op, (arity, rule) in OPERATORS.items() if arity == 1 and rule != "cast"]
BINARY = [op for op, (arity, _) in OPERATORS.items() if arity == 2]
LOGICAL = [op for op in OPERATORS if op.startswith("logical_")]
BITWISE = [op for op in OPERATORS if op.startswith("bitwise_")]
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
ANY_NUMBER = (
    "add", "subtract", "multiply", "maximum", "minimum", "negative", "positive", "abs", "sign", "square", *COMPARISONS,
)  # fmt: skip

# Where a function is defined, or where its value is not a difference of large numbers.
DOMAIN = {
    "sqrt": (0, 50), "rsqrt": (0.01, 50), "log": (1e-3, 50), "log2": (1e-3, 50), "log10": (1e-3, 50),
    "log1p": (-0.99, 50), "asin": (-1, 1), "acos": (-1, 1), "acosh": (1, 50), "atanh": (-0.99, 0.99), "sin": (-6, 6),
    "cos": (-6, 6), "tan": (-1.5, 1.5), "exp": (-10, 10), "expm1": (-10, 10), "sinh": (-10, 10), "cosh": (-10, 10),
    "erf": (-4, 4),
}  # fmt: skip

# OpenCL C 1.2, section 7.4, allows these functions so many units in the last place; others at most 5.
ULPS = {"pow": 16, "atan2": 6, "expm1": 8, "logaddexp": 16, "erf": 16, "hypot": 8}

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 3.0, 0.5, math.inf, -math.inf, math.nan]


def oracle(op):
    return NUMPY.get(op) or getattr(np, op)


def apply(backend, function, *operands, stored=None):
    """``function`` traced for the operands and mapped into a new operand of dtype ``stored``."""
    expression = ex.trace(function, [x.dtype for x in operands], stored=None if stored is None else (stored,))
    out = zeros(backend, operands[0].shape, expression.stored[0], offset=2)
    backend.map(expression, [x.view for x in operands], [out.view])
    assert all(x.unchanged() for x in operands)
    return out


def need(backend, *needed):
    for dtype in needed:
        if not backend.supports(dtype):
            pytest.skip(f"{backend.device} does not compute with {dtype}")


def node(op):
    return lambda *args: ex.apply(op, *args)


def float_inputs(op, arity, n=301):
    rng = np.random.default_rng(len(op))
    low, high = DOMAIN.get(op, (-5, 5))
    values = [rng.uniform(low, high, n) for _ in range(arity)]
    if op == "pow":
        values[0] = np.abs(values[0]) + 0.1
    if op in ("floor", "ceil", "trunc", "round"):
        values[0][:9] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.0, -3.0, 1e9]
    if op in ("maximum", "minimum", "equal", "less_equal"):
        values[1][::3] = values[0][::3]
    return values


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", [op for op in (*UNARY, *BINARY) if op not in (*LOGICAL, *BITWISE, "nextafter")])
def test_floats(backend, op, dtype):
    need(backend, dtype)
    operands = [Operand(backend, x, dtype) for x in float_inputs(op, OPERATORS[op][0])]
    out = apply(backend, node(op), *operands, stored=dtypes.bool_ if OPERATORS[op][1] == "bool" else dtype)
    with np.errstate(all="ignore"):
        expected = oracle(op)(*(x.given for x in operands))
    if out.dtype is dtypes.bool_:
        np.testing.assert_array_equal(out.stored, expected)
    else:
        # Half a unit for storing, more where the arithmetic is as narrow as the storage.
        ulps = ULPS.get(op, 5) if dtype.compute is dtype else 1.01
        absolute = 1e-6 if op == "logaddexp" and dtype is not dtypes.float64 else 0.0
        assert_close(out.values, expected, dtype, ulps, absolute)


@pytest.mark.parametrize("op", [op for op in (*UNARY, *BINARY) if op not in (*LOGICAL, *BITWISE, "nextafter")])
def test_special_values(backend, op):
    arity = OPERATORS[op][0]
    grids = np.meshgrid(*[SPECIAL] * arity)
    operands = [Operand(backend, grid.ravel(), float32) for grid in grids]
    out = apply(backend, node(op), *operands)
    with np.errstate(all="ignore"):
        expected = oracle(op)(*(encode(x.given, float32) for x in operands))
    if out.dtype is dtypes.bool_:
        np.testing.assert_array_equal(out.stored, expected)
    else:
        assert_close(out.values, expected, float32, ulps=16, absolute=1e-7)


def test_nextafter(backend):
    x = Operand(backend, [0.5, 1.0, 1.0, -2.0, math.inf, 1.0, math.nan], float32)
    y = Operand(backend, [1.0, 2.0, -2.0, -1.0, 0.0, math.nan, 0.0], float32)
    expected = np.nextafter(x.given.astype("f4"), y.given.astype("f4"))
    np.testing.assert_array_equal(apply(backend, node("nextafter"), x, y).values, expected)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("op", [*ANY_NUMBER, "floor_divide", "remainder", "pow", "floor", "round", *BITWISE])
def test_integers(backend, op, dtype):
    need(backend, dtype)
    if dtype.kind == "u" and op in ("abs", "sign"):
        return
    rng = np.random.default_rng(len(op))
    info = np.iinfo(dtype.name)
    x, y = (rng.integers(info.min, info.max, 200, dtype=dtype.name, endpoint=True) for _ in range(2))
    x[:4], y[:4] = (info.min, info.max, 0, 1), (1, 1, 1, 1)
    if op in ("floor_divide", "remainder"):
        y[y == 0] = 3
        y[y == np.array(-1).astype(dtype.name)] = 5  # the smallest integer has no negative
    if op == "pow":
        x, y = x % 7, y % 4
    if "shift" in op:
        y = y % (8 * dtype.itemsize)
    operands = [Operand(backend, v, dtype) for v in (x, y)[: OPERATORS[op][0]]]
    out = apply(backend, node(op), *operands)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out.stored, oracle(op)(*(v.given for v in operands)))


@pytest.mark.parametrize("op", [*LOGICAL, *BITWISE[:4], "equal", "not_equal"])
def test_booleans(backend, op):
    x = Operand(backend, [False, False, True, True], dtypes.bool_)
    y = Operand(backend, [False, True, False, True], dtypes.bool_)
    operands = [x, y][: OPERATORS[op][0]]
    np.testing.assert_array_equal(apply(backend, node(op), *operands).stored, oracle(op)(*(v.given for v in operands)))


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "square", "exp", "sqrt", "abs", "equal"])
def test_complex_numbers(backend, op):
    need(backend, dtypes.complex64)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(20) + 1j * rng.standard_normal(20) for _ in range(2))
    operands = [Operand(backend, v, dtypes.complex64) for v in (x, y)][: OPERATORS[op][0]]
    found = apply(backend, node(op), *operands).stored
    np.testing.assert_allclose(found, oracle(op)(*(v.given for v in operands)), rtol=1e-5)


@pytest.mark.parametrize("target", ALL, ids=str)
@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts(backend, source, target):
    need(backend, source, target)
    values = [0, 1, 3, 7, 100, 64, 127]
    if "u" not in source.kind + target.kind and dtypes.bool_ not in (source, target):
        values += [-1, -100]
    if source.is_floating and target.kind != "u":
        values += [2.75, -2.75, 1.0 / 3.0]
    x = Operand(backend, values, source)
    out = apply(backend, lambda v: ex.cast(v, target), x, stored=target)
    np.testing.assert_array_equal(out.stored, encode(x.given, target))


@pytest.mark.parametrize("target", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_rounding_to_sixteen_bits(backend, target):
    need(backend, target)
    step = 2.0 ** (-10 if target is dtypes.float16 else -7)
    tie = 1 + step / 2
    values = [tie, tie + step, tie + 1e-6, tie - 1e-6, -tie, 65519.0, 65520.0, 1e30, 3.4e38, 1e-7, 3e-8, 1e-40]
    values += [0.0, -0.0, math.inf, -math.inf, math.nan]
    x = Operand(backend, values, float32)
    out = apply(backend, lambda v: v, x, stored=target)
    expected = decode(encode(x.given.astype("f4"), target), target)
    found = out.values
    flushed = (np.abs(expected) < 1.2e-38) & (found == 0)  # a device may flush subnormal float32 numbers
    np.testing.assert_array_equal(found[~flushed], expected[~flushed])
    np.testing.assert_array_equal(np.signbit(found[:-1]), np.signbit(expected[:-1]))


@pytest.mark.parametrize("source", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_every_sixteen_bit_number_is_widened_exactly(backend, source):
    need(backend, source)
    bits = np.arange(65536, dtype=np.uint16).view(storage(source))
    x = zeros(backend, bits.size, source)
    backend.upload(bits, x.span)
    out = zeros(backend, bits.size, float32)
    backend.map(ex.trace(lambda v: v, (source,), stored=(float32,)), [x.view], [out.view])
    expected, found = decode(bits, source), out.values
    flushed = (np.abs(expected) < 1.2e-38) & (found == 0)
    np.testing.assert_array_equal(found[~flushed], expected[~flushed])


def test_scalars_and_constants(backend):
    expression = ex.trace(lambda x, a, b: x * a + b - 0.25, (float32,), (float32, dtypes.int32))
    x = Operand(backend, [1.0, 2.0], float32)
    out = zeros(backend, 2, expression.stored[0])
    for a, b in ((0.5, 3), (math.inf, -7), (2, 0)):
        backend.map(expression, [x.view], [out.view], (a, b))
        np.testing.assert_array_equal(out.values, x.given * a + b - 0.25)


def test_an_expression_without_inputs(backend):
    out = zeros(backend, (3, 4), float32, strides=(8, 2))
    backend.map(ex.trace(lambda a: a * 2.0, (), (float32,)), [], [out.view], (1.5,))
    np.testing.assert_array_equal(out.values, np.full((3, 4), 3.0))


def test_several_outputs_of_several_dtypes(backend):
    x = Operand(backend, [[1.5, -2.5], [0.0, 4.0]], float32)
    expression = ex.trace(lambda v: (v > 0.0, v * 2.0, abs(v)), (float32,))
    outs = [zeros(backend, (2, 2), dtype) for dtype in expression.stored]
    backend.map(expression, [x.view], [out.view for out in outs])
    for out, expected in zip(outs, (x.given > 0, x.given * 2, abs(x.given)), strict=True):
        np.testing.assert_array_equal(out.values, expected)


@pytest.mark.parametrize("n", [0, 1, 5, 1000, 50_000])
@pytest.mark.parametrize("dtype", [float32, dtypes.float16, dtypes.int64], ids=str)
def test_outputs_may_be_inputs(backend, dtype, n):
    need(backend, dtype)
    values = np.arange(n) % 50
    x, y = Operand(backend, values, dtype), Operand(backend, values[::-1], dtype)
    swap = ex.trace(lambda a, b: (b, a + b), (dtype, dtype), stored=(dtype, dtype))
    backend.map(swap, [x.view, y.view], [x.view, y.view])
    np.testing.assert_array_equal(x.values, values[::-1])
    np.testing.assert_array_equal(y.values, values + values[::-1])


def test_where(backend):
    c = Operand(backend, [True, False, True, False], dtypes.bool_)
    x = Operand(backend, [1.0, math.nan, 3.0, math.inf], float32)
    out = apply(backend, lambda c, x: ex.where(c, x, -1.0), c, x)
    np.testing.assert_array_equal(out.values, [1.0, -1.0, 3.0, -1.0])


def test_a_long_expression_uses_values_twice(backend):
    def polynomial(x, y):
        a = x * y + 1.0
        b = ex.maximum(a, x) - y
        c = a * b + ex.sqrt(abs(a))
        return c / (1.0 + a * a) - b * c

    rng = np.random.default_rng(0)
    x, y = (Operand(backend, rng.uniform(-2, 2, 40_000), float32) for _ in range(2))
    found = apply(backend, polynomial, x, y).values
    a = x.given * y.given + 1
    b = np.maximum(a, x.given) - y.given
    c = a * b + np.sqrt(np.abs(a))
    assert_close(found, c / (1 + a * a) - b * c, float32, ulps=8, absolute=2e-5)


@st.composite
def layouts(draw, shape, broadcast=True):
    """Strides for ``shape`` in which no two elements meet, except along broadcast axes."""
    order = draw(st.permutations(range(len(shape))))
    strides, step = [0] * len(shape), 1
    for axis in order:
        if broadcast and draw(st.integers(0, 3)) == 0:
            continue
        gap = draw(st.sampled_from((1, 1, 1, 2, 3)))
        strides[axis] = step * gap * draw(st.sampled_from((1, 1, -1)))
        step *= gap * max(shape[axis], 1)
    return tuple(strides)


@given(data=st.data(), shape=st.lists(st.integers(0, 7), max_size=5).map(tuple))
def test_views_of_any_layout(backend, data, shape):
    layout = [data.draw(layouts(shape)) for _ in range(2)]
    target = data.draw(layouts(shape, broadcast=False))
    rng = np.random.default_rng(len(shape))
    x, y = (
        Operand(backend, rng.integers(-9, 9, shape), dtype, strides=strides, offset=4)
        for dtype, strides in zip((float32, dtypes.int32), layout, strict=True)
    )
    out = zeros(backend, shape, float32, strides=target, offset=1)
    backend.map(ex.trace(lambda a, b: a * 2.0 + b, (float32, dtypes.int32)), [x.view, y.view], [out.view])
    np.testing.assert_array_equal(out.values, x.given * 2 + y.given)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((300, 200), (200, 1)),
        ((300, 200), (1, 300)),
        ((300, 200), (0, 1)),
        ((300, 200), (1, 0)),
        ((3, 40_000), (40_000, 1)),
        ((40_000, 3), (-3, -1)),
        ((2, 3, 5, 7, 11, 13), (15015, 5005, 1001, 143, 13, 1)),
        ((13, 11, 7, 5, 3, 2), (1, 13, 143, 1001, 5005, 15015)),
        ((100_000,), (0,)),
        ((100_000,), (2,)),
        ((1, 60_000, 1), (7, 1, 9)),
    ],
)
def test_large_views(backend, shape, strides):
    x = Operand(backend, np.arange(math.prod(shape)).reshape(shape) % 1009, float32, strides=strides)
    y = Operand(backend, np.arange(math.prod(shape)).reshape(shape) % 31, float32)
    out = zeros(backend, shape, float32)
    backend.map(ex.trace(lambda a, b: (a + b) * (a - b), (float32, float32)), [x.view, y.view], [out.view])
    np.testing.assert_array_equal(out.values, (x.given + y.given) * (x.given - y.given))


def test_a_window_of_a_larger_array(backend):
    x = Operand(backend, np.arange(60).reshape(6, 10), float32)
    window = View(x.buffer, x.start + 2 * 10 + 7, (3, 4), (10, -2))
    out = zeros(backend, (3, 4), float32)
    backend.map(ex.trace(lambda v: v, (float32,)), [window], [out.view])
    np.testing.assert_array_equal(out.values, x.given[2:5, 7:0:-2])


def test_supported_dtypes_are_stored_contiguously(backend):
    for dtype in supported(backend, ALL):
        x = Operand(backend, [[0, 1], [1, 0]], dtype)
        assert x.strides == contiguous_strides((2, 2))
        np.testing.assert_array_equal(apply(backend, lambda v: v, x, stored=dtype).stored, x.stored)
