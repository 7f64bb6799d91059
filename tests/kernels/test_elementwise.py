"""map, reduce and arg_reduce on OpenCL: every layout, canaries, accuracy, and kernels that are built once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import expression as ex
from netcl.backends.base import View
from netcl.backends.opencl.codegen.strided_loops import Axes
from netcl.dtypes import bool_, float16, float32, int32, int64, uint8
from netcl.errors import DTypeError, ShapeError
from tests.kernels.strided import Strided

EXTENTS = (1, 2, 3, 5, 8, 9, 17, 33)
ADD = ex.trace(lambda x, y: x + y, (float32, float32))
SCALED = ex.trace(lambda x, a: x * a, (float32,), (float32,))


def same(dtype):
    return ex.trace(lambda x: x, (dtype,))


@st.composite
def layouts(draw, shape, *, repeat=True):
    """Where the axes of an operand of this shape lie."""
    axes = list(range(len(shape)))
    some = st.lists(st.sampled_from(axes), unique=True) if axes else st.just([])
    return {
        "order": draw(st.permutations(axes)), "step": draw(st.sampled_from((1, 1, 2, 3))), "reverse": draw(some),
        "repeated": draw(some) if repeat else (), "offset": draw(st.integers(0, 5)),
    }  # fmt: skip


shapes = st.lists(st.sampled_from(EXTENTS), max_size=4).map(tuple)


def numbers(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype is float32:
        return rng.normal(size=shape).astype("f4")
    return rng.integers(0, 2 if dtype is bool_ else 100, shape).astype(dtype.name)


def upload(opencl, host, dtype):
    return Strided(opencl, host, dtype, range(host.ndim))


def outputs_like(opencl, shape, dtype):
    return upload(opencl, np.zeros(shape, dtype.name), dtype)


@given(data=st.data(), shape=shapes, seed=st.integers(0, 99))
def test_map_over_any_views(opencl, data, shape, seed):
    x = Strided(opencl, numbers(shape, float32, seed), float32, **data.draw(layouts(shape)))
    n = Strided(opencl, numbers(shape, uint8, seed), uint8, **data.draw(layouts(shape)))
    out = Strided(opencl, np.zeros(shape, "f4"), float32, **data.draw(layouts(shape, repeat=False)))
    flag = Strided(opencl, np.zeros(shape, bool), bool_, **data.draw(layouts(shape, repeat=False)))
    expression = ex.trace(lambda x, n: (x * 2.0 + n, x > 0.5), (float32, uint8))
    opencl.map(expression, [x.view, n.view], [out.view, flag.view])
    np.testing.assert_array_equal(out.read(), x.host * np.float32(2) + n.host)
    np.testing.assert_array_equal(flag.read(), x.host > 0.5)
    x.read()


@given(data=st.data(), shape=shapes, seed=st.integers(0, 99))
def test_reduce_over_any_views_and_axes(opencl, data, shape, seed):
    dtype, op = data.draw(st.sampled_from([
        (float32, "sum"), (float32, "max"), (int32, "sum"), (int32, "min"), (uint8, "max"), (bool_, "any"),
        (bool_, "all"), (int32, "prod"),
    ]))  # fmt: skip
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1))))) if shape else ()
    x = Strided(opencl, numbers(shape, dtype, seed), dtype, **data.draw(layouts(shape)))
    left = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    out = Strided(opencl, np.zeros(left, dtype.name), dtype, **data.draw(layouts(left, repeat=False)))
    opencl.reduce(op, same(dtype), [x.view], axes, out.view)
    with np.errstate(all="ignore"):
        wide = x.host.astype(float) if dtype is float32 else x.host
        expected = (getattr(np, op)(wide, axis=axes) if axes else wide).astype(dtype.name)
    if dtype is float32 and op == "sum":
        size = np.sum(np.abs(wide), axis=axes) if axes else np.abs(wide)
        assert (np.abs(out.read() - expected) <= 1e-6 * size).all()
    else:
        np.testing.assert_array_equal(out.read(), expected)


@given(data=st.data(), shape=shapes.filter(bool), seed=st.integers(0, 99))
def test_arg_reduce_over_any_view(opencl, data, shape, seed):
    op, axis = data.draw(st.sampled_from(["argmax", "argmin"])), data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from([float32, uint8]))
    x = Strided(opencl, numbers(shape, dtype, seed) // 20, dtype, **data.draw(layouts(shape)))
    left = shape[:axis] + shape[axis + 1 :]
    out = Strided(opencl, np.zeros(left, "i8"), int64, **data.draw(layouts(left, repeat=False)))
    opencl.arg_reduce(op, x.view, axis, out.view)
    np.testing.assert_array_equal(out.read(), getattr(np, op)(x.host, axis=axis))


@pytest.mark.parametrize("shape", [(1000, 7), (7, 1000), (3, 40, 50), (5, 513), (2, 3, 2, 3, 2, 3, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [float32, bool_, float16], ids=str)
def test_transposed_operands_and_long_rows(opencl, shape, dtype):
    host = numbers(shape, bool_ if dtype is bool_ else uint8, 1).astype(dtype.name)
    x = Strided(opencl, host, dtype, tuple(reversed(range(len(shape)))), reverse=(0,))
    out = Strided(opencl, np.zeros(shape, dtype.name), dtype, range(len(shape)), step=2, reverse=(len(shape) - 1,))
    opencl.map(ex.trace(lambda x: x, (dtype,), stored=(dtype,)), [x.view], [out.view])
    np.testing.assert_array_equal(out.read(), host)


def test_more_axes_than_a_kernel_walks(opencl):
    shape = (2, 3) * 6
    host = numbers(shape, float32, 2)
    x = Strided(opencl, host, float32, (10, 0, 8, 2, 6, 4, 11, 1, 9, 3, 7, 5))
    out = Strided(opencl, np.zeros(shape, "f4"), float32, (5, 7, 3, 9, 1, 11, 4, 6, 2, 8, 0, 10))
    opencl.map(same(float32), [x.view], [out.view])
    np.testing.assert_array_equal(out.read(), host)
    axes = (1, 2, 5, 6, 9, 10)
    left = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    total = Strided(opencl, np.zeros(left, "f4"), float32, (3, 1, 5, 0, 4, 2), step=2)
    opencl.reduce("sum", same(float32), [x.view], axes, total.view)
    np.testing.assert_allclose(total.read(), host.sum(axis=axes, dtype=float), rtol=1e-5, atol=1e-5)


def test_in_place(opencl):
    host = numbers((37, 11), float32, 3)
    for order in ((0, 1), (1, 0)):
        x = Strided(opencl, host, float32, order)
        opencl.map(ADD, [x.view, x.view], [x.view])
        np.testing.assert_array_equal(x.read(), host + host)


def test_a_new_scalar_or_shape_builds_nothing(opencl):
    x = upload(opencl, numbers((6, 5), float32, 4), float32)
    out = outputs_like(opencl, (6, 5), float32)
    opencl.map(SCALED, [x.view], [out.view], [0.5])
    built = len(opencl._programs)
    opencl.map(SCALED, [x.view], [out.view], [-3])
    np.testing.assert_array_equal(out.read(), x.host * np.float32(-3))
    larger, out = upload(opencl, numbers((7, 3, 9), float32, 4), float32), outputs_like(opencl, (7, 3, 9), float32)
    opencl.map(SCALED, [larger.view], [out.view], [2.0])
    np.testing.assert_array_equal(out.read(), larger.host * 2)
    assert len(opencl._programs) == built


def test_nothing_is_launched_for_no_elements(opencl):
    buffer = opencl.alloc(0, float32)
    empty, gone = View(buffer, 0, (3, 0, 2), (0, 2, 1)), View(buffer, 0, (3, 0), (0, 1))
    before = opencl.launches
    opencl.map(ADD, [empty, empty], [empty])
    opencl.reduce("sum", same(float32), [empty], (2,), gone)
    assert opencl.launches == before


@pytest.mark.parametrize(
    ("op", "dtype", "identity"),
    [
        ("sum", float32, 0), ("prod", float32, 1), ("any", bool_, False), ("all", bool_, True),
        ("max", float32, -math.inf), ("min", int32, 2**31 - 1),
    ],
)  # fmt: skip
def test_over_no_elements_there_is_the_identity(opencl, op, dtype, identity):
    x = View(opencl.alloc(0, dtype), 0, (3, 0), (0, 1))
    out = upload(opencl, np.ones(3, dtype.name) * 0, dtype) if dtype is not bool_ else outputs_like(opencl, (3,), bool_)
    opencl.reduce(op, same(dtype), [x], (1,), out.view)
    np.testing.assert_array_equal(out.read(), np.full(3, identity, dtype.name))


def test_a_value_does_not_depend_on_where_it_lies(opencl):
    host = np.full(45, 0.7, "f4")
    expression = ex.trace(lambda x: ex.tanh(x) * x + ex.exp(x), (float32,))
    found = set()
    for layout in ({"order": (0,)}, {"order": (0,), "step": 3}, {"order": (0,), "repeated": (0,)}):
        x, out = Strided(opencl, host, float32, **layout), outputs_like(opencl, (45,), float32)
        opencl.map(expression, [x.view], [out.view])
        found.update(out.read().tolist())
    assert len(found) == 1
    assert found.pop() == pytest.approx(math.tanh(0.7) * 0.7 + math.exp(0.7), rel=1e-6)


@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,)], ids=str)
def test_large_sums_are_as_good_as_pairwise(opencl, axes):
    rng = np.random.default_rng(5)
    host = (rng.random((1500, 700)) + 0.5).astype("f4")
    x = upload(opencl, host, float32)
    exact = host.sum(axis=axes, dtype=float)
    out = outputs_like(opencl, exact.shape, float32)
    opencl.reduce("sum", same(float32), [x.view], axes, out.view)
    first = out.read()
    assert np.abs(first / exact - 1).max() < 4e-7
    opencl.reduce("sum", same(float32), [x.view], axes, out.view)
    np.testing.assert_array_equal(out.read().view("u4"), first.view("u4"))


def test_a_long_sum_loses_nothing_to_its_length(opencl):
    n = 3_000_001
    x = View(upload(opencl, np.full(1, 0.1, "f4"), float32).buffer, 0, (n,), (0,))
    out = outputs_like(opencl, (), float32)
    opencl.reduce("sum", same(float32), [x], (0,), out.view)
    assert abs(float(out.read()) / (n * float(np.float32(0.1))) - 1) < 1e-6


def test_float16_is_summed_in_float32(opencl):
    x = upload(opencl, np.full(5000, 1.0, "f2"), float16)
    out = outputs_like(opencl, (), float16)
    opencl.reduce("sum", ex.trace(lambda x: x, (float16,), stored=(float16,)), [x.view], (0,), out.view)
    assert out.read() == 5000  # adding ones in float16 stops at 2048


@pytest.mark.parametrize("shape", [(5,), (100_003,), (300, 41)], ids=str)
def test_infinity_and_nan_reach_the_result(opencl, shape):
    host = np.ones(shape, "f4")
    for place, value in ((3, np.inf), (-1, np.nan)):
        host.reshape(-1)[place] = value
        x = upload(opencl, host, float32)
        for op in ("sum", "max", "min"):
            out = outputs_like(opencl, shape[1:], float32)
            opencl.reduce(op, same(float32), [x.view], (0,), out.view)
            np.testing.assert_array_equal(out.read(), getattr(np, op)(host, axis=0))


def test_a_sum_that_overflows_is_infinite(opencl):
    x = upload(opencl, np.full(100_000, 3e38, "f4"), float32)
    out = outputs_like(opencl, (), float32)
    opencl.reduce("sum", same(float32), [x.view], (0,), out.view)
    assert out.read() == np.inf


def test_integers_are_summed_in_the_output_dtype(opencl):
    x = upload(opencl, np.full((300, 20), 200, "u1"), uint8)
    out = outputs_like(opencl, (20,), int64)
    opencl.reduce("sum", same(uint8), [x.view], (0,), out.view)
    np.testing.assert_array_equal(out.read(), np.full(20, 60_000))


@pytest.mark.parametrize("shape", [(10,), (50_000,), (50_000, 3)], ids=str)
@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_the_first_nan_wins_and_the_first_of_equals(opencl, op, shape):
    host = np.zeros(shape, "f4")
    host[4] = 1 if op == "argmax" else -1
    host[7:9] = host[4]
    out = outputs_like(opencl, shape[1:], int64)
    opencl.arg_reduce(op, upload(opencl, host, float32).view, 0, out.view)
    assert (out.read() == 4).all()
    host[[6, 8]] = np.nan
    opencl.arg_reduce(op, upload(opencl, host, float32).view, 0, out.view)
    assert (out.read() == 6).all()


def test_refusals_launch_nothing(opencl):
    x = upload(opencl, np.ones((3, 4), "f4"), float32)
    n = upload(opencl, np.ones((3, 4), "i4"), int32)
    row = upload(opencl, np.ones(4, "f4"), float32)
    before = opencl.launches
    with pytest.raises(ShapeError, match=r"\(4,\).*broadcast"):
        opencl.map(ADD, [x.view, row.view], [x.view])
    with pytest.raises(DTypeError, match="float32, got int32"):
        opencl.map(ADD, [x.view, n.view], [x.view])
    with pytest.raises(ShapeError, match="2 inputs"):
        opencl.map(ADD, [x.view], [x.view])
    with pytest.raises(ShapeError, match=r"has shape \(3,\)"):
        opencl.reduce("sum", same(float32), [x.view], (1,), row.view)
    with pytest.raises(ShapeError, match="unknown reduction 'mean'"):
        opencl.reduce("mean", same(float32), [x.view], (0,), row.view)
    with pytest.raises(DTypeError, match="int64"):
        opencl.arg_reduce("argmax", x.view, 0, row.view)
    assert opencl.launches == before


def test_bytes_between_lanes_survive(opencl):
    """Intel's compiler once wrote a lane too many here."""
    host = numbers((33, 3, 70), bool_, 6)
    for _ in range(3):
        x = upload(opencl, host, bool_)
        out = Strided(opencl, np.zeros_like(host), bool_, (0, 2, 1), step=6)
        opencl.map(same(bool_), [x.view], [out.view])
        np.testing.assert_array_equal(out.read(), host)


def test_axes_that_fit_together_are_one():
    contiguous, bias = (20, 5, 1), (0, 0, 1)
    assert Axes.of((3, 4, 5), [contiguous, contiguous]).merged().shape == (60,)
    assert Axes.of((3, 4, 5), [contiguous, bias]).merged().shape == (12, 5)
    assert Axes.of((3, 1, 5), [(5, 99, 1)]).merged().shape == (15,)
    assert Axes.of((), [()]).merged().split(1)[1:] == (1, (1,))
    assert Axes.of((2, 900), [(1, 2)]).widened().shape == (2, 900)
    assert Axes.of((900, 2), [(2, 1)]).widened().shape == (2, 900)


def test_parts_reach_every_row_once(opencl):
    """Reductions cut into parts, along outer axes and along the innermost one."""
    for shape, axes in (((40, 3, 700), (0, 2)), ((3, 9000), (1,)), ((9000, 3), (0,)), ((2, 9000, 64), (0, 1))):
        host = np.random.default_rng(7).integers(0, 9, shape).astype("i4")
        out = outputs_like(opencl, host.sum(axes).shape, int32)
        opencl.reduce("sum", same(int32), [upload(opencl, host, int32).view], axes, out.view)
        np.testing.assert_array_equal(out.read(), host.sum(axes))


def test_a_product_of_inputs_is_reduced_without_a_copy(opencl):
    dot = ex.trace(lambda x, y, a: x * y * a, (float32, float32), (float32,))
    x, y = (upload(opencl, numbers((50, 60), float32, seed), float32) for seed in (8, 9))
    out = outputs_like(opencl, (50,), float32)
    before = opencl.launches
    opencl.reduce("sum", dot, [x.view, y.view], (1,), out.view, [0.5])
    assert opencl.launches == before + 1
    np.testing.assert_allclose(out.read(), (x.host.astype(float) * y.host * 0.5).sum(1), rtol=1e-5, atol=1e-5)
