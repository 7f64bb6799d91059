"""Complex numbers: special values, accuracy, and every call that takes arrays of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import View
from netcl.dtypes import complex64, complex128, float32, int64
from netcl.testing.conformance.complex_values import WITH_TABLES, mismatch, special_values
from netcl.testing.conformance.operands import Operand, zeros
from netcl.testing.conformance.test_map import apply, apply_all, need

BOTH = (complex64, complex128)

# Functions that are outputs of one expression, so that a device builds few kernels.
GROUPS = {
    "exponentials": ("exp", "expm1", "sinh", "cosh", "tanh"),
    "logarithms": ("log", "log1p", "log2", "log10", "sqrt", "sign"),
    "circular": ("sin", "cos", "tan"),
    "inverse": ("asin", "acos", "acosh", "asinh"),
    "inverse of tangents": ("atan", "atanh"),
}
WIDE = np.clongdouble
EXTENDED = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps


def pair(real, imag):
    out = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), np.result_type(real, np.complex64))
    out.real, out.imag = real, imag
    return out


def log1p(z):
    x, y = z.real, z.imag
    near = np.abs(z) < 0.5
    return pair(np.where(near, 0.5 * np.log1p(x * (2 + x) + y * y), np.log(1 + z).real), np.arctan2(y, 1 + x))


def expm1(z):
    x, y = z.real, z.imag
    fine = np.expm1(x) * np.cos(y) - 2 * np.sin(y / 2) ** 2
    return pair(np.where(x < 5, fine, np.exp(z).real - 1), np.exp(z).imag)


ORACLES = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "log1p": log1p, "expm1": expm1,
}  # fmt: skip
SLOPES = {
    "exp": np.exp, "expm1": np.exp, "log": lambda z: 1 / z, "log1p": lambda z: 1 / (1 + z),
    "log2": lambda z: math.log2(math.e) / z, "log10": lambda z: math.log10(math.e) / z,
    "sqrt": lambda z: 0.5 / np.sqrt(z),
    "sin": np.cos, "cos": np.sin, "tan": lambda z: 1 + np.tan(z) ** 2, "sinh": np.cosh, "cosh": np.sinh,
    "tanh": lambda z: 1 - np.tanh(z) ** 2, "asin": lambda z: 1 / (np.sqrt(1 - z) * np.sqrt(1 + z)),
    "acos": lambda z: 1 / (np.sqrt(1 - z) * np.sqrt(1 + z)), "acosh": lambda z: 1 / (np.sqrt(z - 1) * np.sqrt(z + 1)),
    "asinh": lambda z: 1 / np.sqrt(1 + z * z), "atan": lambda z: 1 / (1 + z * z),
    "atanh": lambda z: 1 / ((1 - z) * (1 + z)),
}  # fmt: skip


def some(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def assert_near(found, expected, dtype, message="", factor=4.0, floor=0.0):
    """Each part is what it should be to a few units in the last place of the number, or of ``floor``."""
    eps = np.finfo(dtype.part.name).eps
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(expected), floor)
        np.testing.assert_array_less(np.abs(found - expected), factor * eps * size + 1e-37, message)


@pytest.mark.short(rows=lambda row: row["dtype"] is complex64 or row["group"] == "inverse of tangents")
@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_special_values(backend, group, dtype):
    need(backend, dtype)
    ops = GROUPS[group]
    rows = {op: special_values(op) for op in ops}
    operands = [row.operand for op in ops for row in rows[op]]
    outs = apply_all(backend, functions(ops), Operand(backend, operands, dtype))
    start = 0
    for op, out in zip(ops, outs, strict=True):
        found = out.stored[start : start + len(rows[op])]
        start += len(rows[op])
        wrong = mismatch(found, rows[op], 8 * np.finfo(dtype.part.name).eps)
        assert not wrong, f"{op}: {wrong}"


def functions(ops):
    return lambda z: [ex.apply(op, z) for op in ops]


def test_every_function_with_a_table_is_in_a_group():
    assert {op for ops in GROUPS.values() for op in ops} == set(WITH_TABLES)


def grid(dtype):
    """Numbers of all sizes, around 1 and around the ends of ranges."""
    info = np.finfo(dtype.part.name)
    sizes = [0.0, 4 * float(info.tiny), float(info.tiny) ** 0.5, info.eps / 4, 1e-3, 0.3, 0.5, 1 - info.eps, 1.0]
    sizes += [1 + info.eps, 2**0.5, 2.0, 3.0, 10.5, 20.0, 70.0, 90.0, 100.0, 700.0, 720.0, 1e4, float(info.max) ** 0.5]
    values = np.array([*sizes, float(info.max) / 8, float(info.max)], info.dtype)
    values = np.concatenate([values, -values])
    return pair(values[:, None], values).ravel()


def drawn(dtype):
    rng = np.random.default_rng(0)
    wide = np.exp(rng.uniform(-12, 6, 600)) * np.exp(2j * np.pi * rng.uniform(size=600))
    unit = np.exp(1j * rng.uniform(-3.2, 3.2, 100)) * (1 + 1e-4 * rng.standard_normal(100))
    return np.concatenate([wide, 2 * some(rng, 600), unit]).astype(dtype.name)


@pytest.mark.short(rows=lambda row: row["dtype"] is complex64 or row["group"] == "inverse of tangents")
@pytest.mark.parametrize("dtype", BOTH if EXTENDED else BOTH[:1], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_accuracy(backend, group, dtype):
    """Each part is that of the function of an operand nearby, to a few units in the last place."""
    need(backend, dtype)
    values = np.concatenate([grid(dtype), drawn(dtype)])
    x = Operand(backend, values, dtype)
    info = np.finfo(dtype.part.name)
    for op, out in zip(GROUPS[group], apply_all(backend, functions(GROUPS[group]), x), strict=True):
        if op not in SLOPES:
            continue
        found, wide = out.stored.astype(WIDE), values.astype(WIDE)
        with np.errstate(all="ignore"):
            expected = ORACLES.get(op, getattr(np, op, None))(wide)
            reach = np.abs(wide * SLOPES[op](wide))
            rounded = expected.astype(values.dtype)
            for name in ("real", "imag"):
                got, right, stored = (getattr(z, name) for z in (found, expected, rounded))
                bound = 8 * info.eps * (np.abs(right) + np.where(np.isfinite(reach), reach, 0)) + 2 * info.tiny
                fine = (np.abs(got - right) <= bound) | (got == stored)
                fine |= np.isnan(got) & np.isnan(stored)
                at = np.flatnonzero(~fine)[:1]
                assert fine.all(), f"{op}({values[at]}): the {name} part is {got[at]}, not {right[at]}"


ODD = ("asinh", "atanh", "sinh", "tanh", "sin", "tan", "asin", "atan")
parts = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@pytest.mark.parametrize("group", GROUPS)
@given(values=st.lists(st.tuples(parts, parts), min_size=6, max_size=6))
def test_symmetries(backend, group, values):
    """f(conj(z)) is conj(f(z)), and f(-z) is -f(z) for odd functions, with the same signs of zeros."""
    need(backend, complex64)
    z = np.array([complex(*value) for value in values], np.complex64)
    x = Operand(backend, np.concatenate([z, z.conj(), -z]), complex64)
    for op, out in zip(GROUPS[group], apply_all(backend, functions(GROUPS[group]), x), strict=True):
        if op == "sign":  # which has 0 + 0j for every zero
            continue
        plain, mirrored, turned = out.stored.reshape(3, -1)
        assert_same(mirrored.conj(), plain, op)
        if op in ODD:
            assert_same(-turned, plain, op)


def assert_same(found, expected, op):
    for name in ("real", "imag"):
        got, right = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(got, right, rtol=2**-21, atol=2e-38, err_msg=op)
        told = ~np.isnan(right)
        np.testing.assert_array_equal(np.signbit(got[told]), np.signbit(right[told]), op)


@pytest.mark.short(dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_quotients_neither_overflow_nor_vanish(backend, dtype):
    need(backend, dtype)
    info = np.finfo(dtype.part.name)
    big, small = 2.0 ** (info.maxexp - 2), 2.0 ** (info.minexp + 1)
    cases = [
        ((big + big * 1j), (big + big * 1j), 1.0), ((small + small * 1j), (small + small * 1j), 1.0),
        (complex(big, small), complex(big, small), 1.0), (1.0, complex(big, big), complex(0.5, -0.5) / big),
        (complex(big, big), 2 + 0j, complex(big, big) / 2), (3 + 4j, 1j, 4 - 3j), (10 + 5j, 3 - 4j, 0.4 + 2.2j),
        (complex(small, 0.0), complex(0.0, small), -1j), (0j, 1 + 1j, 0j),
    ]  # fmt: skip
    x, y, expected = (np.array(column, complex) for column in zip(*cases, strict=True))
    x, y = Operand(backend, x, dtype), Operand(backend, y, dtype)
    quotient, inverse = apply_all(backend, lambda a, b: [a / b, ex.apply("reciprocal", b)], x, y)
    assert_near(quotient.stored, expected, dtype)
    np.testing.assert_allclose(inverse.stored[-1:], [0.5 - 0.5j], rtol=4 * info.eps)
    assert np.isfinite(inverse.stored[:1]).all()


@pytest.mark.short(dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_arithmetic(backend, dtype):
    need(backend, dtype)
    rng = np.random.default_rng(1)
    x, y = (Operand(backend, some(rng, 101), dtype) for _ in range(2))
    ops = {
        "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
        "pow": lambda a, b: np.exp(b * np.log(a)),
    }  # fmt: skip
    a, b = x.given.astype(complex), y.given.astype(complex)
    for (op, expected), out in zip(
        ops.items(), apply_all(backend, lambda u, v: [ex.apply(name, u, v) for name in ops], x, y), strict=True
    ):
        # Parts of products and sums may cancel, and a power is as good as its logarithm.
        reach = 16 * np.abs(b * np.log(a)).max() if op == "pow" else 4.0
        assert_near(out.stored, expected(a, b), dtype, op, factor=reach, floor=0.0 if op != "subtract" else 1.0)
    ones = {
        "negative": np.negative, "positive": np.positive, "square": np.square, "abs": np.abs, "round": np.rint,
        "conj": np.conj, "real": np.real, "imag": np.imag, "reciprocal": lambda z: 1 / z,
        "rsqrt": lambda z: 1 / np.sqrt(z), "sign": lambda z: z / np.abs(z),
    }  # fmt: skip
    for (op, expected), out in zip(ones.items(), apply_all(backend, functions(ones), x), strict=True):
        assert_near(out.stored, expected(a), dtype, op)


def test_whole_powers_are_products(backend):
    need(backend, complex64)
    z = Operand(backend, [5j, 1 + 1j, 2 - 3j, -1 + 0j, 3 + 0j, 0j, 0j, 1e30 + 0j, 2j], complex64)
    w = Operand(backend, [3, 8, 2, 15, 1, 0, 5, -2, -3], complex64)
    out = apply(backend, lambda a, b: ex.apply("pow", a, b), z, w)
    np.testing.assert_array_equal(out.stored, [-125j, 16, -5 - 12j, -1, 3, 1, 0, 0, 0.125j])


def test_predicates(backend):
    need(backend, complex64)
    parts = [0.0, -0.0, 1.0, math.inf, math.nan]
    values = np.array([complex(a, b) for a in parts for b in parts])
    x, y = Operand(backend, values, complex64), Operand(backend, values[::-1].copy(), complex64)
    names = ("equal", "not_equal", "isnan", "isinf", "isfinite", "logical_and", "logical_or", "logical_not")

    def every(u, v):
        return [ex.apply(op, *(u, v)[: ex.OPERATORS[op][0]]) for op in names]

    for op, out in zip(names, apply_all(backend, every, x, y), strict=True):
        expected = getattr(np, op)(*(x.given, y.given)[: ex.OPERATORS[op][0]])
        np.testing.assert_array_equal(out.stored, expected, op)


def test_a_real_number_acts_on_each_part(backend):
    need(backend, complex64)
    values = np.array([complex(math.inf, 1.0), complex(0.0, -0.0), complex(1.0, math.inf), 3 - 4j])
    z, r = Operand(backend, values, complex64), Operand(backend, [2.0, -1.0, 0.5, math.inf], float32)
    outs = apply_all(backend, lambda u, v: [u * v, v * u, u + v, v - u, u / v, u * 2.0, 1.0 - u], z, r)
    x, y, w = z.given.real, z.given.imag, r.given.astype("f4")
    with np.errstate(all="ignore"):
        expected = [(x * w, y * w)] * 2 + [(x + w, y), (w - x, -y), (x / w, y / w), (x * 2, y * 2), (1 - x, -y)]
    for out, (real, imag) in zip(outs, expected, strict=True):
        np.testing.assert_array_equal(out.stored.real, real)
        np.testing.assert_array_equal(out.stored.imag, imag)
        whole = ~np.isnan(imag)
        np.testing.assert_array_equal(np.signbit(out.stored.imag[whole]), np.signbit(imag[whole]))


def bits(values):
    return np.ascontiguousarray(values).view(np.uint8)


@pytest.mark.short(dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_copies_keep_every_bit(backend, dtype):
    need(backend, dtype)
    word = np.dtype(f"u{dtype.part.itemsize}").type
    quiet = {4: (0x7FC01234, 0xFFC00001), 8: (0x7FF8000000001234, 0xFFF8000000000001)}[dtype.part.itemsize]
    parts = np.array([*quiet, quiet[1], 0, 1 << (8 * word(0).itemsize - 1), quiet[0]], word).view(dtype.part.name)
    values = parts.view(dtype.name)
    x, y = Operand(backend, np.zeros(3), dtype), Operand(backend, np.ones(3), dtype)
    backend.upload(values, x.span)
    x.before[x.start : x.start + 3] = values
    pick = Operand(backend, [True, False, True], dtypes.bool_)
    copy, chosen, made = apply_all(
        backend, lambda z, w, c: [z, ex.where(c, z, w), ex.apply("complex", ex.real(z), ex.imag(z))], x, y, pick
    )
    np.testing.assert_array_equal(bits(copy.stored), bits(values))
    np.testing.assert_array_equal(bits(made.stored), bits(values))
    np.testing.assert_array_equal(bits(chosen.stored[[0, 2]]), bits(values[[0, 2]]))
    alone = zeros(backend, 3, dtype)
    backend.map(ex.conversion(dtype, dtype), [x.view], [alone.view])
    np.testing.assert_array_equal(bits(alone.stored), bits(values))


def test_casts(backend):
    need(backend, *BOTH)
    values = np.array([1.5 - 2.25j, complex(-0.0, 0.0), complex(0.0, 3.0), complex(math.inf, -1e300)])
    z = Operand(backend, values, complex128)
    targets = [complex64, complex128, dtypes.float32, dtypes.bool_]
    outs = apply_all(backend, lambda v: [ex.cast(v, t) for t in targets], z, stored=targets)
    with np.errstate(all="ignore"):
        for out, expected in zip(
            outs, [values.astype("c8"), values, values.real.astype("f4"), values != 0], strict=True
        ):
            np.testing.assert_array_equal(out.stored, expected)
    for source, numbers in ((dtypes.int32, [3, -7]), (dtypes.float64, [0.5, -0.0]), (dtypes.bool_, [True, False])):
        x = Operand(backend, numbers, source)
        out = apply(backend, lambda v: v, x, stored=complex128)
        np.testing.assert_array_equal(bits(out.stored), bits(pair(np.array(numbers, float), 0.0)))


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("value", [0, 1.5, 2 - 3j, complex(math.nan, math.inf), 1 + 1j], ids=str)
def test_fill(backend, dtype, value):
    need(backend, dtype)
    x = Operand(backend, np.ones(37), dtype)
    backend.fill(x.span, value)
    np.testing.assert_array_equal(x.stored, np.full(37, value, dtype.name))


@given(data=st.data())
def test_views_of_any_layout(backend, data):
    need(backend, complex64)
    shape = (3, 5)
    strides = data.draw(st.sampled_from([(5, 1), (1, 3), (12, 2), (-5, 1), (5, -1)]))
    x = Operand(backend, some(np.random.default_rng(0), *shape), complex64, strides, data.draw(st.integers(0, 3)))
    y = Operand(
        backend, some(np.random.default_rng(1), *shape), complex64, (0, 1) if data.draw(st.booleans()) else None
    )
    out = zeros(backend, shape, complex64, strides=data.draw(st.sampled_from([(5, 1), (1, 3), (-10, 2)])))
    sum_of = ex.trace(lambda u, v, a: u * v + a, (complex64, complex64), (complex64,))
    backend.map(sum_of, [x.view, y.view], [out.view], (1 - 2j,))
    assert_near(out.stored, x.given * y.given + (1 - 2j), complex64, floor=4.0)
    backend.map(sum_of, [out.view, out.view], [out.view], (0j,))
    assert_near(out.stored, (x.given * y.given + (1 - 2j)) ** 2, complex64, floor=40.0)


@pytest.mark.short(dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("op", ["sum", "prod"])
def test_reductions(backend, op, dtype):
    need(backend, dtype)
    x = Operand(backend, some(np.random.default_rng(2), 4, 5, 7), dtype)
    for axes in ((0,), (1, 2)):
        out = zeros(backend, [extent for axis, extent in enumerate(x.shape) if axis not in axes], dtype)
        backend.reduce(op, ex.conversion(dtype, dtype), [x.view], axes, out.view)
        wide = x.given.astype(complex)
        size = np.sum(np.abs(wide), axis=axes).max() if op == "sum" else 0.0
        factor = 4.0 if op == "sum" else 4.0 * x.given.size
        assert_near(out.stored, getattr(np, op)(wide, axis=axes), dtype, str(axes), factor, floor=size)


def test_large_sums_are_as_good_as_pairwise(backend):
    need(backend, complex64)
    values = some(np.random.default_rng(3), 100_000) + (1 + 2j)
    x, out = Operand(backend, values, complex64), zeros(backend, (), complex64)
    backend.reduce("sum", ex.conversion(complex64, complex64), [x.view], (0,), out.view)
    assert_near(out.stored, x.given.astype(complex).sum(), complex64, factor=16.0)


def test_reductions_over_no_elements_and_to_other_dtypes(backend):
    need(backend, complex64)
    x = View(backend.alloc(0, complex64), 0, (2, 0), (0, 1))
    for op, identity in (("sum", 0), ("prod", 1)):
        out = Operand(backend, np.full(2, 5), complex64)
        backend.reduce(op, ex.conversion(complex64, complex64), [x], (1,), out.view)
        np.testing.assert_array_equal(out.stored, [identity] * 2)
    z = Operand(backend, [[0, 1j, 0], [0, 0, complex(0, -0.0)]], complex64)
    for op, expected in (("any", [True, False]), ("all", [False, False])):
        out = zeros(backend, 2, dtypes.bool_)
        backend.reduce(op, ex.conversion(complex64, complex64), [z.view], (1,), out.view)
        np.testing.assert_array_equal(out.stored, expected)
    out = zeros(backend, 2, float32)
    backend.reduce("max", ex.trace(abs, (complex64,)), [z.view], (1,), out.view)
    np.testing.assert_array_equal(out.stored, [1, 0])


@pytest.mark.compiled(rows=lambda row: row["dtype"] is complex64 or row["layout"] == "columns")
@pytest.mark.short(rows=lambda row: row["dtype"] is complex64 and row["layout"] != "rows")
@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns", "one matrix"])
def test_batched_matmul(backend, dtype, layout):
    need(backend, dtype)
    rng = np.random.default_rng(4)
    a = Operand(backend, some(rng, 2, 9, 13), dtype)
    b = Operand(backend, some(rng, 2, 13, 17), dtype, (221, 1, 13) if layout == "columns" else None)
    right, given_b = b.view, b.given
    if layout == "one matrix":
        right, given_b = View(b.buffer, b.start, b.shape, (0, 17, 1)), b.given[:1]
    out = zeros(backend, (2, 9, 17), dtype, strides=(153, 1, 9) if layout == "columns" else None)
    backend.batched_matmul(a.view, right, out.view)
    expected = a.given.astype(complex) @ given_b.astype(complex)
    assert_near(out.stored, expected, dtype, factor=8.0, floor=13.0)


@pytest.mark.short(dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_indexing(backend, dtype):
    need(backend, dtype)
    rng = np.random.default_rng(5)
    picked = np.array([0, 4, -1, 2, 4])
    x, updates = Operand(backend, some(rng, 3, 5, 7), dtype), Operand(backend, some(rng, 3, 5, 7), dtype)
    index = Operand(backend, picked, int64)
    indices = View(index.buffer, index.start, (3, 5, 7), (0, 1, 0))
    out = zeros(backend, (3, 5, 7), dtype)
    backend.gather(x.view, indices, out.view)
    np.testing.assert_array_equal(bits(out.stored), bits(x.given[:, picked]))
    expected = x.given.copy()
    for c, place in enumerate(picked):
        expected[:, place] += updates.given[:, c]
    backend.scatter_add(updates.view, indices, x.view)
    np.testing.assert_array_equal(x.stored, expected)


@pytest.mark.compiled(rows=lambda row: row["dtype"] is complex64 or row["shape"] == (3, 8, 2))
@pytest.mark.short(shape=[(3, 8, 2)], dtype=[complex64])
@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize(("shape", "axis"), [((1,), 0), ((3, 8, 2), 1), ((2, 129), 1), ((70, 3), 0)], ids=str)
def test_running_sums_and_products(backend, dtype, shape, axis):
    need(backend, dtype)
    values = some(np.random.default_rng(6), *shape)
    values /= np.abs(values)  # so that no product leaves the range
    x = Operand(backend, values, dtype, [-stride for stride in Operand(backend, values, dtype).strides])
    for op, function in (("sum", np.cumsum), ("prod", np.cumprod)):
        out = zeros(backend, shape, dtype)
        backend.scan(op, ex.trace(lambda z: z * 1.0, (dtype,)), [x.view], axis, out.view)
        expected = function(x.given.astype(complex), axis=axis)
        assert_near(out.stored, expected, dtype, op, 4.0 * shape[axis], floor=1.0)


def test_running_results_of_other_dtypes(backend):
    need(backend, complex64)
    x = Operand(backend, [1.0, 2.0, 3.0], float32)
    out = zeros(backend, 3, complex64)
    backend.scan("sum", ex.conversion(float32, float32), [x.view], 0, out.view)
    np.testing.assert_array_equal(out.stored, [1, 3, 6])
    z = Operand(backend, [3 + 4j, 0, -1], complex64)
    out = zeros(backend, 3, float32)
    backend.scan("max", ex.trace(abs, (complex64,)), [z.view], 0, out.view)
    np.testing.assert_array_equal(out.stored, [5, 5, 5])


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_writes_by_index_keep_every_bit(backend, dtype):
    need(backend, dtype)
    values = np.array([1 + 2j, complex(-0.0, 0.0), complex(math.inf, math.nan), 3j])
    updates = Operand(backend, values[None, :, None], dtype)
    index = Operand(backend, np.array([[[2], [0], [-1], [0]]]), int64)
    out = zeros(backend, (1, 4, 1), dtype)
    backend.scatter(updates.view, index.view, out.view)
    expected = np.zeros((1, 4, 1), dtype.name)
    expected[0, [2, 0, 3, 0], 0] = values
    np.testing.assert_array_equal(bits(out.stored), bits(expected))
