"""scan, sort and scatter."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import View
from netcl.dtypes import float32, int32, int64, uint64
from netcl.testing.conformance.operands import (
    ALL,
    EPSILON,
    FLOATS,
    INTEGERS,
    SHORT,
    SHORT_INTEGERS,
    Operand,
    assert_close,
    encode,
    zeros,
)

RUNNING = {"sum": np.cumsum, "prod": np.cumprod, "max": np.maximum.accumulate, "min": np.minimum.accumulate}
VALUES = (0.0, -0.0, 1.0, -1.0, 1.5, -2.5, 3.0, 100.0, math.inf, -math.inf, math.nan)


def skip_unless(backend, *wanted):
    for dtype in wanted:
        if not backend.supports(dtype):
            pytest.skip(f"{backend.device} does not compute with {dtype}")


@st.composite
def layouts(draw, shape):
    """Strides of an operand of this shape: its axes in any order, some backwards, with gaps."""
    strides, step = [0] * len(shape), draw(st.sampled_from((1, 1, 2)))
    for axis in draw(st.permutations(range(len(shape)))):
        strides[axis] = step * draw(st.sampled_from((1, 1, -1)))
        step *= max(shape[axis], 1)
    return tuple(strides)


shapes = st.lists(st.sampled_from((1, 2, 3, 5, 8, 9, 17, 33)), min_size=1, max_size=4).map(tuple)
shapes = shapes.filter(lambda shape: math.prod(shape) < 3000)


# scan


def scan(backend, op, x, axis, out_dtype, function=lambda x: x, **where):
    out = zeros(backend, x.shape, out_dtype, **where)
    backend.scan(op, ex.trace(function, (x.dtype,)), [x.view], axis, out.view)
    assert x.unchanged()
    return out


@settings(max_examples=25)
@given(data=st.data(), shape=shapes, op=st.sampled_from(tuple(RUNNING)))
def test_scan_of_views_of_any_layout(backend, data, shape, op):
    axis = data.draw(st.integers(0, len(shape) - 1))
    values = np.random.default_rng(len(shape)).integers(-50, 50, shape) / (64 if op == "prod" else 1)
    x = Operand(backend, values, float32, strides=data.draw(layouts(shape)))
    out = scan(backend, op, x, axis, float32, strides=data.draw(layouts(shape)))
    expected = RUNNING[op](x.given, axis=axis)
    np.testing.assert_allclose(out.values, expected, rtol=1e-5, atol=1e-35)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scan_of_what_is_broadcast(backend, axis):
    row = Operand(backend, np.arange(1.0, 8.0), float32)
    out = zeros(backend, (3, 7, 4), float32)
    view = View(row.buffer, row.start, out.shape, (0, row.strides[0], 0))
    backend.scan("sum", ex.trace(lambda x: x, (float32,)), [view], axis, out.view)
    expected = np.broadcast_to(row.given[None, :, None], out.shape).cumsum(axis)
    np.testing.assert_array_equal(out.values, expected)


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 4), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("op", RUNNING)
def test_scan_of_nothing(backend, op, shape):
    x = zeros(backend, shape, float32)
    for axis in range(len(shape)):
        assert scan(backend, op, x, axis, float32).unchanged()


@pytest.mark.parametrize("op", RUNNING)
@pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 70_001])
def test_scan_of_what_is_not_finite(backend, op, n):
    values = np.ones((2, n))
    values[1, 2 * n // 3], values[1, n // 3], values[0, -1] = math.nan, -math.inf, math.inf
    x = Operand(backend, values, float32)
    np.testing.assert_allclose(scan(backend, op, x, 1, float32).values, RUNNING[op](x.given, axis=1), rtol=1e-6)


@pytest.mark.parametrize("op", RUNNING)
def test_the_first_element_of_a_scan_is_itself(backend, op):
    x = Operand(backend, [[1e38], [math.inf], [-math.inf], [math.nan], [-3.5e-40]], float32)
    np.testing.assert_array_equal(scan(backend, op, x, 1, float32).values, x.given)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(100_003, 3), (3, 100_003), (4000, 50)], ids=str)
def test_running_sums_keep_their_digits(backend, shape, axis):
    x = Operand(backend, np.random.default_rng(0).uniform(0, 1, shape), float32)
    np.testing.assert_allclose(scan(backend, "sum", x, axis, float32).values, x.given.cumsum(axis), rtol=1e-6)


def test_a_running_sum_of_either_sign_keeps_its_digits(backend):
    x = Operand(backend, np.random.default_rng(1).standard_normal(200_001), float32)
    error = np.abs(scan(backend, "sum", x, 0, float32).values - x.given.cumsum())
    assert error.max() <= 40 * EPSILON[float32] * np.sqrt(np.square(x.given).sum())


def along(every_row, op, dtype):
    """Axes to scan along: both, or one, so that every operator and every dtype meets both."""
    return (0, 1) if every_row else ((list(RUNNING).index(op) + ALL.index(dtype)) % 2,)


@pytest.mark.short(rows=lambda row: row["op"] == "sum" or row["dtype"] is float32)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("op", RUNNING)
def test_scan_of_every_float(backend, every_row, op, dtype):
    skip_unless(backend, dtype)
    x = Operand(backend, np.random.default_rng(2).uniform(0.9, 1.1, (5, 300)), dtype)
    for axis in along(every_row, op, dtype):
        expected = RUNNING[op](x.given, axis=axis)
        ulps = 300 if op == "prod" or dtype is dtypes.float64 else 4  # the oracle is float64 itself
        assert_close(scan(backend, op, x, axis, dtype).values, expected, dtype, ulps=ulps)
    if dtype.itemsize == 2 and (every_row or op == "sum"):  # accumulated in float32
        assert_close(scan(backend, op, x, 1, float32).values, RUNNING[op](x.given, axis=1), float32, ulps=600)


@pytest.mark.compiled(rows=lambda row: row["op"] == "sum" or row["dtype"] in SHORT_INTEGERS)
@pytest.mark.short(rows=lambda row: row["dtype"] in (SHORT_INTEGERS if row["op"] == "sum" else (int32,)))
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("op", RUNNING)
def test_scan_of_integers_wraps(backend, every_row, op, dtype):
    skip_unless(backend, dtype)
    info, rng = np.iinfo(dtype.name), np.random.default_rng(0)
    x = Operand(backend, rng.integers(info.min, info.max, (7, 133), dtype=dtype.name, endpoint=True), dtype)
    for axis in along(every_row, op, dtype):
        options = {"dtype": dtype.name} if op in ("sum", "prod") else {}
        np.testing.assert_array_equal(
            scan(backend, op, x, axis, dtype).stored, RUNNING[op](x.given, axis=axis, **options)
        )


def test_running_counts(backend):
    x = Operand(backend, np.arange(9000).reshape(3, 3000) % 7 == 0, dtypes.bool_)
    for axis in (0, 1):
        out = scan(backend, "sum", x, axis, int64, lambda v: ex.cast(v, int64))
        np.testing.assert_array_equal(out.stored, x.given.cumsum(axis))
    np.testing.assert_array_equal(
        scan(backend, "max", x, 1, dtypes.bool_).stored, np.logical_or.accumulate(x.given, axis=1)
    )


def test_scan_of_an_expression_of_two_arrays_and_a_scalar(backend):
    rng = np.random.default_rng(0)
    x, y = (Operand(backend, rng.standard_normal((40, 30)), float32) for _ in range(2))
    out = zeros(backend, (40, 30), float32, strides=(1, 40))
    expression = ex.trace(lambda a, b, s: (a - b * s) ** 2, (float32, float32), (float32,))
    for axis in (0, 1):
        backend.scan("sum", expression, [x.view, y.view], axis, out.view, (0.5,))
        assert_close(out.values, ((x.given - 0.5 * y.given) ** 2).cumsum(axis), float32, ulps=16)


@pytest.mark.parametrize("shape", [(300,), (60_001,), (30_011, 3)], ids=str)
def test_scan_in_place_and_the_same_bits_on_every_run(backend, shape):
    values = np.random.default_rng(0).standard_normal(shape)
    expected = scan(backend, "sum", Operand(backend, values, float32), 0, float32).stored
    for _ in range(3):
        x = Operand(backend, values, float32)
        backend.scan("sum", ex.trace(lambda x: x, (float32,)), [x.view], 0, x.view)
        assert x.stored.tobytes() == expected.tobytes()


# sort


def one_direction(row):
    """float32 and int32 in both directions, each other dtype in one: a kernel is built for each."""
    return row["dtype"] in (float32, int32) or row["descending"] == (ALL.index(row["dtype"]) % 2 == 0)


def order(values, axis, descending):
    """The places of numbers in the order that the protocol asks for, by Python's stable sort."""
    rows = np.moveaxis(values, axis, -1)
    places = np.empty(rows.shape, np.int64)
    for at in np.ndindex(rows.shape[:-1]):
        keys = [(x != x, 0 if x != x else -x if descending else x) for x in rows[at].tolist()]
        places[at] = sorted(range(len(keys)), key=keys.__getitem__)
    return np.moveaxis(places, -1, axis)


def assert_same(found, expected):
    """The same numbers, zeros of the same sign."""
    np.testing.assert_array_equal(found, expected)
    if expected.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(expected[expected == 0]))


EVERYTHING = ((True, True), (True, False), (False, True))
"""What is asked for: values and places, each alone and both together."""


def asked(every_row, descending):
    """All of it in both directions, or in one of them."""
    return EVERYTHING if every_row else EVERYTHING[:1] if descending else EVERYTHING[1:]


def check_sort(backend, x, axis, descending, asked, **where):
    places = order(x.given, axis, descending)
    values = np.take_along_axis(x.given, places, axis)
    for wanted in asked:
        out = zeros(backend, x.shape, x.dtype, **where) if wanted[0] else None
        indices = zeros(backend, x.shape, int64, **where) if wanted[1] else None
        backend.sort(x.view, axis, out and out.view, indices and indices.view, descending=descending)
        if out is not None:
            assert_same(out.values, values)
        if indices is not None:
            np.testing.assert_array_equal(indices.stored, places)
        assert x.unchanged()


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@given(data=st.data(), shape=shapes)
def test_sort_of_views_of_any_layout(backend, every_row, descending, data, shape):
    axis = data.draw(st.integers(0, len(shape) - 1))
    drawn = data.draw(st.sampled_from([float32, int32, dtypes.uint8]))
    # How many axes there are decides on the kernel: each number of them meets one dtype and one of what is asked for.
    dtype = drawn if every_row else (float32, int32, dtypes.uint8)[len(shape) % 3]
    some = EVERYTHING if every_row else (EVERYTHING[(len(shape) + descending) % 3],)
    values = np.random.default_rng(len(shape)).integers(0, 30, shape)
    x = Operand(backend, values, dtype, strides=data.draw(layouts(shape)))
    check_sort(backend, x, axis, descending, some, strides=data.draw(layouts(shape)))


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("n", [1, 2, 100, 10_000])
@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.compiled(rows=one_direction)
@pytest.mark.short(dtype=[dtypes.bool_, dtypes.int8, uint64, dtypes.float16, float32], n=[2, 10_000])
def test_sort_of_every_dtype(backend, every_row, dtype, n, descending):
    skip_unless(backend, dtype)
    rng = np.random.default_rng(n)
    shape = (2, n)
    if dtype is dtypes.bool_:
        values = rng.integers(0, 2, shape)
    elif dtype in FLOATS:
        values = np.where(rng.random(shape) < 0.5, rng.standard_normal(shape) * 100, rng.choice(VALUES, shape))
    else:
        info = np.iinfo(dtype.name)
        values = rng.integers(info.min, info.max, shape, dtype=dtype.name, endpoint=True)
    check_sort(backend, Operand(backend, values, dtype), 1, descending, asked(every_row, descending))


@pytest.mark.compiled(rows=one_direction)
@pytest.mark.short(dtype=[float32, dtypes.bfloat16])
@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(rows=st.lists(st.lists(st.sampled_from(VALUES), min_size=9, max_size=9), min_size=1, max_size=5))
def test_sort_of_what_is_equal_or_not_finite(backend, every_row, dtype, descending, rows):
    if backend.supports(dtype):
        x = Operand(backend, rows, dtype)
        check_sort(backend, x, 1, descending, asked(every_row, descending))
        check_sort(backend, x, 0, descending, asked(every_row, descending))


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
def test_sort_of_what_is_broadcast(backend, descending):
    row = Operand(backend, [3.0, -1.0, math.nan, -0.0, 0.0], float32)
    view = View(row.buffer, row.start, (4, 5), (0, row.strides[0]))
    out, indices = zeros(backend, (4, 5), float32), zeros(backend, (4, 5), int64)
    backend.sort(view, 1, out.view, indices.view, descending=descending)
    places = order(row.given, 0, descending)
    np.testing.assert_array_equal(indices.stored, np.broadcast_to(places, (4, 5)))
    np.testing.assert_array_equal(out.values, np.broadcast_to(row.given[places], (4, 5)))
    backend.sort(view, 0, out.view, indices.view, descending=descending)
    np.testing.assert_array_equal(indices.stored, np.broadcast_to(np.arange(4)[:, None], (4, 5)))


@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 4)], ids=str)
def test_sort_of_nothing(backend, shape):
    x, out, indices = zeros(backend, shape, float32), zeros(backend, shape, float32), zeros(backend, shape, int64)
    for axis in range(len(shape)):
        backend.sort(x.view, axis, out.view, indices.view, descending=False)
    assert out.unchanged()
    assert indices.unchanged()


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("dtype", [float32, int32, dtypes.float16], ids=str)
def test_sort_in_place(backend, dtype, descending):
    skip_unless(backend, dtype)
    values = np.random.default_rng(0).choice(VALUES[:8], (3, 700))
    x = Operand(backend, values, dtype)
    expected = np.take_along_axis(x.given, order(x.given, 1, descending), 1)
    backend.sort(x.view, 1, x.view, None, descending=descending)
    assert_same(x.values, expected)


@pytest.mark.parametrize("shape", [(3, 30_001), (30_001, 3)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_sort_of_long_rows(backend, shape, axis):
    x = Operand(backend, np.random.default_rng(0).integers(-(2**31), 2**31, shape), int32)
    out, indices = zeros(backend, shape, int32), zeros(backend, shape, int64)
    backend.sort(x.view, axis, out.view, indices.view, descending=False)
    np.testing.assert_array_equal(out.stored, np.sort(x.given, axis))
    np.testing.assert_array_equal(indices.stored, np.argsort(x.given, axis, kind="stable"))


# scatter


def spread(operand, shape):
    """A vector of indices along the middle axis, broadcast over the others."""
    return View(operand.buffer, operand.start, shape, (0, operand.strides[0], 0))


def written(out, chosen, updates):
    """What ``out`` holds after writing one update after the other."""
    out = out.copy()
    for c in range(updates.shape[1]):
        for o, i in np.ndindex(out.shape[0], out.shape[2]):
            out[o, chosen[o, c, i], i] = updates[o, c, i]
    return out


@pytest.mark.parametrize("index", [int32, int64], ids=str)
@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.compiled(rows=lambda row: row["index"] is (int32, int64)[ALL.index(row["dtype"]) % 2])
@pytest.mark.short(dtype=SHORT)
def test_scatter(backend, dtype, index):
    skip_unless(backend, dtype)
    out = Operand(backend, np.arange(2 * 5 * 3).reshape(2, 5, 3) % (2 if dtype is dtypes.bool_ else 29), dtype)
    new = np.arange(2 * 4 * 3)[::-1].reshape(2, 4, 3)
    updates = Operand(backend, new % (2 if dtype is dtypes.bool_ else 23), dtype)
    indices = Operand(backend, [4, 0, -1, -4], index)
    expected = out.stored
    for c, place in enumerate((4, 0, -1, -4)):
        expected[:, place] = updates.stored[:, c]
    backend.scatter(updates.view, spread(indices, updates.shape), out.view)
    assert out.stored.tobytes() == expected.tobytes()
    assert updates.unchanged()
    assert indices.unchanged()


def test_scatter_keeps_zeros_and_nan_as_they_are(backend):
    updates = Operand(backend, np.array([-0.0, math.nan, math.inf]).reshape(1, 3, 1), float32)
    out = zeros(backend, (1, 3, 1), float32)
    backend.scatter(updates.view, spread(Operand(backend, [2, 0, 1], int64), (1, 3, 1)), out.view)
    assert out.stored.tobytes() == encode([math.nan, math.inf, -0.0], float32).tobytes()


@given(
    data=st.data(), shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 12)), n=st.integers(1, 9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_last_of_several_writes_wins(backend, data, shape, n, seed):
    rng = np.random.default_rng(seed)
    updates = Operand(backend, rng.integers(-99, 99, shape), float32, strides=data.draw(layouts(shape)))
    indices = Operand(backend, rng.integers(-n, n, shape), int64, strides=data.draw(layouts(shape)))
    whole = (shape[0], n, shape[2])
    out = Operand(backend, rng.integers(-99, 99, whole), float32, strides=data.draw(layouts(whole)))
    backend.scatter(updates.view, indices.view, out.view)
    np.testing.assert_array_equal(out.values, written(out.given, indices.given, updates.given))


def test_the_last_of_many_writes_wins_on_every_run(backend):
    rng = np.random.default_rng(0)
    updates = Operand(backend, np.arange(20_000.0).reshape(1, 20_000, 1), float32)
    chosen = rng.integers(0, 7, 20_000)
    indices = Operand(backend, chosen, int32)
    last = [np.flatnonzero(chosen == place)[-1] for place in range(7)]
    for _ in range(3):
        out = zeros(backend, (1, 7, 1), float32)
        backend.scatter(updates.view, spread(indices, updates.shape), out.view)
        np.testing.assert_array_equal(out.values[0, :, 0], last)


def test_scatter_of_one_value_to_few_of_many_places(backend):
    value = Operand(backend, [7.0], float32)
    out = zeros(backend, (2, 100_000, 1), float32)
    indices = Operand(backend, [5, 99_999, -1, 5], int64)
    backend.scatter(View(value.buffer, value.start, (2, 4, 1), (0, 0, 0)), spread(indices, (2, 4, 1)), out.view)
    np.testing.assert_array_equal(np.flatnonzero(out.values.reshape(-1)), [5, 99_999, 100_005, 199_999])


@pytest.mark.parametrize("bad", [5, -6, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("inner", [1, 2])
def test_scatter_reports_an_index_out_of_range_at_the_next_call_that_blocks(backend, bad, inner):
    out = zeros(backend, (1, 5, inner), float32)
    updates = Operand(backend, np.ones((1, 3, inner)), float32)
    indices = Operand(backend, [0, bad, 1], int64)
    with pytest.raises(IndexError):
        write(backend, updates, indices, out)
    assert not out.values[0, 2:].any()  # nothing beside the places that are named
    write(backend, updates, Operand(backend, [0, 4, 1], int64), out)
    np.testing.assert_array_equal(out.values[0, :, 0], [1, 1, 0, 0, 1])


def write(backend, updates, indices, out):
    backend.scatter(updates.view, spread(indices, updates.shape), out.view)
    backend.synchronize()
