"""scan on OpenCL: every layout and axis in the shapes for CPUs and for GPUs, parts, accuracy, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import expression as ex
from netcl.backends.base import View
from netcl.backends.opencl.device.defects import Defect, Defects
from netcl.backends.opencl.ops import scan
from netcl.dtypes import bool_, float16, float32, int32, int64, uint8
from netcl.errors import BackendError, DTypeError, ShapeError
from tests.kernels.forms import cpu_and_gpu, kernels_for, own_backend
from tests.kernels.strided import Strided
from tests.kernels.views import layouts, numbers, outputs_like, same, shapes, upload

RUNNING = {"sum": np.cumsum, "prod": np.cumprod, "max": np.maximum.accumulate, "min": np.minimum.accumulate}


@cpu_and_gpu
@given(data=st.data(), shape=shapes.filter(bool), seed=st.integers(0, 99))
def test_scan_of_any_views(opencl, cpu, data, shape, seed):
    dtype, op = data.draw(st.sampled_from(
        [(float32, "sum"), (float32, "max"), (float32, "prod"), (int32, "sum"), (int32, "min"), (uint8, "prod")]
    ))  # fmt: skip
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = Strided(opencl, numbers(shape, dtype, seed), dtype, **data.draw(layouts(shape)))
    out = Strided(opencl, np.zeros(shape, dtype.name), dtype, **data.draw(layouts(shape, repeat=False)))
    with kernels_for(opencl, cpu):
        opencl.scan(op, same(dtype), [x.view], axis, out.view)
    wide = x.host.astype(float) if dtype is float32 else x.host
    options = {} if dtype is float32 or op in ("max", "min") else {"dtype": dtype.name}
    expected = RUNNING[op](wide, axis=axis, **options)
    if dtype is float32 and op != "max":
        size = RUNNING[op](np.abs(wide), axis=axis)
        assert (np.abs(out.read() - expected) <= 4e-6 * size + 1e-37).all()
    else:
        np.testing.assert_array_equal(out.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("shape", [(200_003,), (3, 70_001), (70_001, 3), (2, 9000, 40)], ids=str)
def test_parts_begin_where_those_before_them_end(opencl, cpu, shape, monkeypatch):
    monkeypatch.setattr(scan, "SHORTEST", 1 << 10)
    backend = own_backend(opencl)
    backend.queue.is_cpu = cpu
    host = np.random.default_rng(7).integers(-9, 9, shape).astype("i4")
    x, out = upload(backend, host, int32), outputs_like(backend, shape, int64)
    y, total = upload(backend, host.astype("f4"), float32), outputs_like(backend, shape, float32)
    launches = backend.launches
    for axis in range(len(shape)):
        backend.scan("sum", same(int32), [x.view], axis, out.view)
        np.testing.assert_array_equal(out.read(), host.cumsum(axis))
        for op in ("sum", "max"):
            backend.scan(op, same(float32), [y.view], axis, total.view)
            np.testing.assert_array_equal(total.read(), RUNNING[op](host, axis=axis))
    if len(shape) == 1 or not cpu:
        assert backend.launches > launches + 3 * len(shape)  # some in parts


@pytest.mark.parametrize("axis", [0, 1])
def test_large_sums_are_as_good_as_pairwise(runtime, axis):
    rng = np.random.default_rng(5)
    host = (rng.random((1500, 1500)) + 0.5).astype("f4")
    x, out = upload(runtime, host, float32), outputs_like(runtime, host.shape, float32)
    runtime.scan("sum", same(float32), [x.view], axis, out.view)
    first = out.read()
    assert np.abs(first / host.cumsum(axis, dtype=float) - 1).max() < 4e-7
    runtime.scan("sum", same(float32), [x.view], axis, out.view)
    np.testing.assert_array_equal(out.read().view("u4"), first.view("u4"))


def test_a_long_sum_loses_nothing_to_its_length(runtime):
    n = 3_000_001
    x = View(upload(runtime, np.full(1, 0.1, "f4"), float32).buffer, 0, (n,), (0,))
    out = outputs_like(runtime, (n,), float32)
    runtime.scan("sum", same(float32), [x], 0, out.view)
    assert np.abs(out.read() / (np.arange(1.0, n + 1) * float(np.float32(0.1))) - 1).max() < 4e-7


def test_float16_is_summed_in_float32(runtime):
    x, out = upload(runtime, np.ones(5000, "f2"), float16), outputs_like(runtime, (5000,), float16)
    runtime.scan("sum", ex.trace(lambda x: x, (float16,), stored=(float16,)), [x.view], 0, out.view)
    np.testing.assert_array_equal(out.read(), np.arange(1, 5001).astype("f2"))  # in float16 it stops at 2048


def test_a_product_follows_the_order_of_its_factors(opencl):
    """Neighbours multiplied first would leave the range."""
    host = np.array([1e-30, 1e30, 1e30, 1e-30] * 4, "f4")
    x, out = upload(opencl, host, float32), outputs_like(opencl, host.shape, float32)
    opencl.scan("prod", same(float32), [x.view], 0, out.view)
    np.testing.assert_allclose(out.read(), host.cumprod(), rtol=1e-5)


def test_bools_are_counted(runtime):
    host = np.arange(70_001) % 3 == 0
    x, out = upload(runtime, host, bool_), outputs_like(runtime, host.shape, int64)
    runtime.scan("sum", ex.trace(lambda x: ex.cast(x, int64), (bool_,)), [x.view], 0, out.view)
    np.testing.assert_array_equal(out.read(), host.cumsum())


def test_more_axes_than_a_kernel_of_maps_walks(runtime):
    shape = (2, 3) * 5
    host = numbers(shape, float32, 2)
    x = Strided(runtime, host, float32, (9, 0, 7, 2, 6, 4, 1, 8, 3, 5))
    out = Strided(runtime, np.zeros(shape, "f4"), float32, (3, 1, 5, 0, 4, 2, 9, 7, 8, 6), step=2)
    for axis in (0, 5, 9):
        runtime.scan("sum", same(float32), [x.view], axis, out.view)
        np.testing.assert_allclose(out.read(), host.cumsum(axis, dtype=float), rtol=1e-5, atol=1e-6)


def test_the_plain_form(opencl):
    backend = own_backend(opencl)
    backend.queue.defects = Defects(
        {("scan", "float32"): Defect("", plain=True), ("scan", "small integers"): Defect("")}
    )
    host = numbers((70, 71), float32, 3)
    x, out = upload(backend, host, float32), outputs_like(backend, host.shape, float32)
    for axis in (0, 1):
        backend.scan("sum", same(float32), [x.view], axis, out.view)
        np.testing.assert_allclose(out.read(), host.cumsum(axis, dtype=float), rtol=1e-5, atol=1e-5)
    integers = outputs_like(backend, (3,), int32)
    with pytest.raises(BackendError, match="scan of small integers"):
        backend.scan("sum", same(int32), [integers.view], 0, integers.view)


def test_nothing_is_launched_for_no_elements_or_after_a_refusal(opencl):
    empty = View(opencl.alloc(0, float32), 0, (3, 0), (0, 1))
    x, row = upload(opencl, np.ones((3, 4), "f4"), float32), upload(opencl, np.ones(4, "f4"), float32)
    before = opencl.launches
    opencl.scan("sum", same(float32), [empty], 1, empty)
    with pytest.raises(ShapeError, match=r"operands of shapes \(3, 4\) and \(4,\)"):
        opencl.scan("sum", same(float32), [x.view], 1, row.view)
    with pytest.raises(ShapeError, match="unknown scan 'mean'"):
        opencl.scan("mean", same(float32), [x.view], 0, x.view)
    with pytest.raises(ShapeError, match="axis 2"):
        opencl.scan("sum", same(float32), [x.view], 2, x.view)
    with pytest.raises(DTypeError, match="int32"):
        opencl.scan("sum", same(int32), [x.view], 0, x.view)
    assert opencl.launches == before
