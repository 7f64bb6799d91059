"""reduce on OpenCL: every layout and axis, canaries, accuracy, and no copy of its inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import expression as ex
from netcl.backends.base import View
from netcl.dtypes import bool_, float16, float32, int32, int64, uint8
from netcl.errors import ShapeError
from tests.kernels.strided import Strided
from tests.kernels.views import layouts, numbers, outputs_like, same, shapes, upload


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


def test_more_axes_than_a_kernel_walks(opencl):
    shape = (2, 3) * 6
    host = numbers(shape, float32, 2)
    x = Strided(opencl, host, float32, (10, 0, 8, 2, 6, 4, 11, 1, 9, 3, 7, 5))
    axes = (1, 2, 5, 6, 9, 10)
    left = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    total = Strided(opencl, np.zeros(left, "f4"), float32, (3, 1, 5, 0, 4, 2), step=2)
    opencl.reduce("sum", same(float32), [x.view], axes, total.view)
    np.testing.assert_allclose(total.read(), host.sum(axis=axes, dtype=float), rtol=1e-5, atol=1e-5)


def test_nothing_is_launched_for_no_elements(opencl):
    buffer = opencl.alloc(0, float32)
    empty, gone = View(buffer, 0, (3, 0, 2), (0, 2, 1)), View(buffer, 0, (3, 0), (0, 1))
    before = opencl.launches
    opencl.reduce("sum", same(float32), [empty], (2,), gone)
    assert opencl.launches == before


def test_refusals_launch_nothing(opencl):
    x = upload(opencl, np.ones((3, 4), "f4"), float32)
    row = upload(opencl, np.ones(4, "f4"), float32)
    before = opencl.launches
    with pytest.raises(ShapeError, match=r"has shape \(3,\)"):
        opencl.reduce("sum", same(float32), [x.view], (1,), row.view)
    with pytest.raises(ShapeError, match="unknown reduction 'mean'"):
        opencl.reduce("mean", same(float32), [x.view], (0,), row.view)
    assert opencl.launches == before
