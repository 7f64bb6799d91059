"""map: every operator, every cast, and views of any layout."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import View
from netcl.dtypes import float32, float64, int32, int64, uint32, uint64
from netcl.expression import OPERATORS
from netcl.testing.conformance.operands import (
    ALL,
    FLOATS,
    INTEGERS,
    SHORT,
    SHORT_INTEGERS,
    Operand,
    assert_close,
    decode,
    encode,
    storage,
    supported,
    zeros,
)

NUMPY = {
    "pow": np.power, "atan2": np.arctan2, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "bitwise_left_shift": np.left_shift,
    "bitwise_right_shift": np.right_shift, "rsqrt": lambda x: 1 / np.sqrt(x), "round": np.rint,
    "erf": np.vectorize(math.erf, otypes=[float]), "bitwise_invert": np.invert, "reciprocal": lambda x: 1 / x,
}  # fmt: skip

# Operators that take the same operands: the range from which these are drawn, and the operators. One expression has
# them all as outputs, so that a device builds one kernel for each group.
FLOAT_GROUPS = {
    "arithmetic": ((-5, 5), ("add", "subtract", "multiply", "divide", "maximum", "minimum", "copysign", "where")),
    "division": ((-5, 5), ("floor_divide", "remainder")),
    "two-positive": ((0.1, 5), ("pow", "atan2", "hypot", "logaddexp")),
    "comparisons": ((-2, 2), ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")),
    "signs": ((-5, 5), ("negative", "positive", "abs", "sign", "square", "reciprocal")),
    "rounding": ((-5, 5), ("floor", "ceil", "trunc", "round")),
    "roots": ((0.01, 50), ("sqrt", "rsqrt", "log", "log2", "log10")),
    "exponentials": ((-10, 10), ("exp", "expm1", "sinh", "cosh", "tanh", "asinh", "erf")),
    "circular": ((-1.5, 1.5), ("sin", "cos", "tan", "atan")),
    "unit": ((-0.99, 0.99), ("asin", "acos", "atanh", "log1p")),
    "above-one": ((1, 50), ("acosh",)),
    "tests": ((-5, 5), ("isnan", "isinf", "isfinite", "signbit")),
}
INTEGER_GROUPS = {
    "any": (
        "add", "subtract", "multiply", "maximum", "minimum", "negative", "positive", "square", "floor", "ceil",
        "trunc", "round", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert",
    ),
    "signed": ("abs", "sign"),
    "comparisons": FLOAT_GROUPS["comparisons"][1],
    "division": ("floor_divide", "remainder"),
    "small": ("pow", "bitwise_left_shift", "bitwise_right_shift"),
}  # fmt: skip
LOGICAL = ("logical_and", "logical_or", "logical_xor", "logical_not")
BOOLEAN = (*LOGICAL, "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert", "equal", "not_equal")

# OpenCL C 1.2, section 7.4, allows these functions so many units in the last place; others at most 5.
ULPS = {"pow": 16, "atan2": 6, "expm1": 8, "logaddexp": 16, "erf": 16, "hypot": 8}

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 3.0, 0.5, math.inf, -math.inf, math.nan]


def oracle(op):
    return NUMPY.get(op) or getattr(np, op)


def apply_all(backend, function, *operands, stored=None):
    """``function`` traced for the operands and mapped into a new operand for each of its results."""
    expression = ex.trace(function, [x.dtype for x in operands], stored=stored)
    outs = [zeros(backend, operands[0].shape, dtype, offset=2) for dtype in expression.stored]
    backend.map(expression, [x.view for x in operands], [out.view for out in outs])
    assert all(x.unchanged() for x in operands)
    return outs


def apply(backend, function, *operands, stored=None):
    """The same for a function of one result."""
    return apply_all(backend, function, *operands, stored=None if stored is None else (stored,))[0]


def need(backend, *needed):
    for dtype in needed:
        if not backend.supports(dtype):
            pytest.skip(f"{backend.device} does not compute with {dtype}")


def node(op):
    """``op`` of as many of the arguments as it takes; ``where`` chooses by the sign of the first."""

    def function(x, y):
        arity = OPERATORS[op][0]
        return ex.where(x > 0.0, x, y) if op == "where" else ex.apply(op, *(x, y)[:arity])

    return function


def expected_of(op, x, y):
    if op == "where":
        return np.where(x > 0, x, y)
    with np.errstate(all="ignore"):
        return oracle(op)(*(x, y)[: OPERATORS[op][0]])


def test_the_groups_hold_every_operator():
    grouped = {op for _, ops in FLOAT_GROUPS.values() for op in ops} | {
        op for ops in INTEGER_GROUPS.values() for op in ops
    }
    alone = {"cast", "narrow", "nextafter", "round_float16", "round_bfloat16", "real", "imag", "conj", "complex"}
    alone |= {"stochastic_float16", "stochastic_bfloat16"}
    assert grouped | {*BOOLEAN, *alone} == set(OPERATORS)


def float_operands(backend, group, dtype):
    rng = np.random.default_rng(len(group))
    x, y = (rng.uniform(*FLOAT_GROUPS[group][0], 301) for _ in range(2))
    if group == "rounding":
        x[:9] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.0, -3.0, 1e4]
    if group in ("arithmetic", "comparisons"):
        y[::3] = x[::3]
    return [Operand(backend, values, dtype) for values in (x, y)]


def alone_or_simple(row):
    """float16 and bfloat16 are computed with as float32: what is read and written is tried in one group."""
    return row["dtype"].compute is row["dtype"] or row["group"] in ("arithmetic", "comparisons")


@pytest.mark.compiled(rows=alone_or_simple)
@pytest.mark.short(rows=lambda row: row["dtype"] is float32 or row["group"] in ("arithmetic", "two-positive"))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("group", FLOAT_GROUPS)
def test_floats(backend, group, dtype):
    need(backend, dtype)
    x, y = float_operands(backend, group, dtype)
    ops = FLOAT_GROUPS[group][1]
    stored = [dtypes.bool_ if OPERATORS[op][1] == "bool" else dtype for op in ops]
    outs = apply_all(backend, lambda x, y: [node(op)(x, y) for op in ops], x, y, stored=stored)
    for op, out in zip(ops, outs, strict=True):
        # Half a unit for storing, more where the arithmetic is as narrow as the storage.
        ulps = ULPS.get(op, 5) if dtype.compute is dtype else 1.01
        absolute = 1e-6 if op == "logaddexp" and dtype is not dtypes.float64 else 0.0
        check(op, out, expected_of(op, x.given, y.given), dtype, ulps, absolute)


def check(op, out, expected, dtype, ulps, absolute):
    if out.dtype is dtypes.bool_:
        np.testing.assert_array_equal(out.stored, expected, op)
    else:
        assert_close(out.values, expected, dtype, ulps, absolute, op)


@pytest.mark.parametrize("group", FLOAT_GROUPS)
def test_special_values(backend, group):
    x, y = (Operand(backend, grid.ravel(), float32) for grid in np.meshgrid(SPECIAL, SPECIAL))
    ops = FLOAT_GROUPS[group][1]
    outs = apply_all(backend, lambda x, y: [node(op)(x, y) for op in ops], x, y)
    narrow = [encode(operand.given, float32) for operand in (x, y)]
    for op, out in zip(ops, outs, strict=True):
        check(op, out, expected_of(op, *narrow), float32, 16, 1e-7)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("n", [1, 8, 4001])
def test_the_nearest_sixteen_bit_value(backend, n, dtype):
    need(backend, dtype)
    bits = np.random.default_rng(n).integers(0, 2**32, n, dtype=np.uint32)
    bits[: n // 4] &= np.uint32(0xFFFF0000)
    bits[: n // 8] |= np.uint32(0x8000)  # half way between two bfloat16 values
    values = np.concatenate([bits.view(np.float32), np.float32([*SPECIAL, 65519.0, 65520.0, 1.0 + 2.0**-11, 2.0**-25])])
    values[np.isnan(values)] = np.nan
    x = Operand(backend, values.astype(np.float64), float32)
    found = apply(backend, lambda x: ex.rounded(x, dtype), x).stored
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, decode(encode(values.astype(np.float64), dtype), dtype))


def test_nextafter(backend):
    x = Operand(backend, [0.5, 1.0, 1.0, -2.0, math.inf, 1.0, math.nan], float32)
    y = Operand(backend, [1.0, 2.0, -2.0, -1.0, 0.0, math.nan, 0.0], float32)
    expected = np.nextafter(x.given.astype("f4"), y.given.astype("f4"))
    np.testing.assert_array_equal(apply(backend, node("nextafter"), x, y).values, expected)


@pytest.mark.compiled(rows=lambda row: row["group"] == "any" or row["dtype"] in SHORT_INTEGERS)
@pytest.mark.short(dtype=SHORT_INTEGERS, rows=lambda row: row["group"] == "any" or row["dtype"] is not int32)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("group", INTEGER_GROUPS)
def test_integers(backend, group, dtype):
    need(backend, dtype)
    if dtype.kind == "u" and group == "signed":
        return
    rng = np.random.default_rng(len(group))
    info = np.iinfo(dtype.name)
    x, y = (rng.integers(info.min, info.max, 200, dtype=dtype.name, endpoint=True) for _ in range(2))
    x[:4], y[:4] = (info.min, info.max, 0, 1), (1, 1, 1, 1)
    if group == "division":
        y[y == 0] = 3
        y[y == np.array(-1).astype(dtype.name)] = 5  # the smallest integer has no negative
    if group == "small":
        x, y = x % 7, y % 4
    x, y = Operand(backend, x, dtype), Operand(backend, y, dtype)
    ops = INTEGER_GROUPS[group]
    outs = apply_all(backend, lambda x, y: [node(op)(x, y) for op in ops], x, y)
    for op, out in zip(ops, outs, strict=True):
        np.testing.assert_array_equal(out.stored, expected_of(op, x.given, y.given), op)


def test_shifts_reach_the_sign(backend):
    x = Operand(backend, [-128, -1, 127, 64], dtypes.int8)
    y = Operand(backend, [7, 7, 1, 1], dtypes.int8)
    outs = apply_all(backend, lambda x, y: [node(op)(x, y) for op in INTEGER_GROUPS["small"][1:]], x, y)
    np.testing.assert_array_equal(outs[0].stored, np.left_shift(x.given, y.given))
    np.testing.assert_array_equal(outs[1].stored, np.right_shift(x.given, y.given))


def test_booleans(backend):
    x = Operand(backend, [False, False, True, True], dtypes.bool_)
    y = Operand(backend, [False, True, False, True], dtypes.bool_)
    outs = apply_all(backend, lambda x, y: [node(op)(x, y) for op in BOOLEAN], x, y)
    for op, out in zip(BOOLEAN, outs, strict=True):
        np.testing.assert_array_equal(out.stored, expected_of(op, x.given, y.given), op)


@pytest.mark.compiled(source=SHORT)
@pytest.mark.short(source=[dtypes.bool_, int32, uint64, dtypes.bfloat16, float64])
@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts(backend, source):
    need(backend, source)
    signed = [target for target in supported(backend, ALL) if target.kind in "if"]
    for targets, values in (
        (supported(backend, ALL), [0, 1, 3, 7, 100, 64, 127]),
        (signed, [-1, -100, *([2.75, -2.75, 1.0 / 3.0] if source.is_floating else [])]),
    ):
        if source.kind in "ub" and min(values) < 0:
            continue
        x = Operand(backend, values, source)
        outs = apply_all(backend, lambda v, to=targets: [ex.cast(v, dtype) for dtype in to], x, stored=targets)
        for out in outs:
            np.testing.assert_array_equal(out.stored, encode(x.given, out.dtype), str(out.dtype))


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


def test_a_choice_of_two_numbers_is_as_wide_as_what_decides_it(backend):
    need(backend, float64)
    x = Operand(backend, [1.0, -1.0], float64)
    out = apply(backend, lambda x: ex.where((x > 0.0) & (x < 2.0), 0.1, 0.2), x)
    np.testing.assert_array_equal(out.values, [0.1, 0.2])


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


@pytest.mark.parametrize("source", [float64, int32, int64, uint32, uint64], ids=str)
def test_narrow_rounds_to_odd(backend, source):
    """To one of the two neighbours in float32, and to the odd one unless the number is a float32 itself."""
    need(backend, source)
    rng = np.random.default_rng(5)
    if source is float64:
        near = rng.integers(2**23, 2**24, 300) + rng.choice([0.0, 2.0**-20, 0.5, 0.75], 300)
        near = np.ldexp(near, rng.integers(-60, 60, 300))
        given = np.concatenate([near, -near, [0.0, -0.0, 1e300, -1e300, np.inf, -np.inf, 3.5e38]])
    else:
        limits = np.iinfo(source.name)
        given = rng.integers(limits.min, limits.max, 300, dtype=source.name, endpoint=True)
        given[:4] = [limits.min, limits.max, 0, 2**24 + 1]
    x = Operand(backend, given, source)
    found = apply(backend, ex.narrow, x).stored
    with np.errstate(all="ignore"):
        near = given.astype(np.float32)
    exact = [float(f) == g for f, g in zip(found, given.tolist(), strict=True)]
    odd = found.view(np.uint32) & 1
    assert all(e or o for e, o in zip(exact, odd, strict=True))
    assert (np.abs(found.view(np.int32).astype(np.int64) - near.view(np.int32)) <= 1).all()
