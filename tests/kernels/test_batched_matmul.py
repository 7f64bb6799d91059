"""The matrix product on every OpenCL device, with the kernels for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import View
from netcl.backends.opencl.ops.batched_matmul import MatmulLayout, blocks, sum_dtype
from netcl.dtypes import (
    bfloat16,
    bool_,
    complex64,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import SHORT
from tests.kernels.forms import kernels_for
from tests.kernels.strided import Strided, layouts, plain, store, widen

INTEGERS = [int8, int16, int32, int64, uint8, uint16, uint32, uint64]
# A kernel is built for each; these have every dtype in every place.
COMBINATIONS = [
    (float32, float32, float32),
    (float64, float64, float64),
    (float16, float16, float16),
    (bfloat16, bfloat16, bfloat16),
    (float32, float16, bfloat16),
    (bfloat16, float32, float64),
    (float64, bfloat16, float32),
    (float16, float64, float16),
]
EPSILON = {float16: 2.0**-10, bfloat16: 2.0**-7, float32: 2.0**-23, float64: 2.0**-52}

# Around the tiles (6 x 16, 64 x 64), the runs of k (256) and the blocks; and nothing at all.
extents = st.one_of(st.sampled_from([0, 1, 5, 6, 7, 8, 15, 16, 17, 31, 33, 63, 65, 70]), st.integers(0, 40))
depths = st.one_of(st.sampled_from([0, 1, 7, 8, 9, 255, 256, 257, 520]), st.integers(0, 50))


def check(opencl, a, b, out):
    """Against the product in float64, within the bound for a sum of rounded products in any order."""
    opencl.batched_matmul(a.view, b.view, out.view)
    found = widen(out.read(), out.dtype)
    left, right = widen(a.host, a.dtype), widen(b.host, b.dtype)
    bound = (left.shape[2] + 1) * EPSILON[sum_dtype(a.dtype, b.dtype, out.dtype)] * (abs(left) @ abs(right))
    expected = left @ right
    bound = bound + EPSILON[out.dtype] * abs(expected) + 1e-7 * (out.dtype is float16)
    assert (abs(found - expected) <= bound).all(), f"off by {abs(found - expected).max()}"


@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
@given(
    batch=st.integers(0, 3), m=extents, k=depths, n=extents, a=layouts(3, (0,)), b=layouts(3, (0,)), out=layouts(3),
    dtypes=st.sampled_from(COMBINATIONS), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_and_strides(opencl, every_row, cpu, batch, m, k, n, a, b, out, dtypes, seed):
    if not every_row:
        dtypes = COMBINATIONS[(0, 4, 7)[COMBINATIONS.index(dtypes) % 3]]
    if not opencl.supports(float64):
        dtypes = tuple(float32 if dtype is float64 else dtype for dtype in dtypes)
    random = np.random.default_rng(seed)
    left = Strided(opencl, store(random.standard_normal((batch, m, k)), dtypes[0]), dtypes[0], **a)
    right = Strided(opencl, store(random.standard_normal((batch, k, n)), dtypes[1]), dtypes[1], **b)
    result = Strided(opencl, store(random.standard_normal((batch, m, n)), dtypes[2]), dtypes[2], **out)
    with kernels_for(opencl, cpu):
        check(opencl, left, right, result)


@pytest.mark.short(order=[(0, 2, 1)], shape=[(10, 128, 128), (67, 513, 47)])
@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["row-major", "column-major"])
@pytest.mark.parametrize("transposed", ["neither", "a", "b", "both"])
@pytest.mark.parametrize("shape", [(64, 130, 34), (10, 128, 128), (128, 128, 10), (1, 300, 1), (67, 513, 47)])
def test_transposes_are_strides(opencl, cpu, order, transposed, shape):
    m, k, n = shape
    random = np.random.default_rng(1)
    orders = {True: (0, 2, 1), False: (0, 1, 2)}
    a = Strided(opencl, store(random.random((1, m, k)), float32), float32, orders[transposed in ("a", "both")])
    b = Strided(opencl, store(random.random((1, k, n)), float32), float32, orders[transposed in ("b", "both")])
    out = Strided(opencl, np.zeros((1, m, n), np.float32), float32, order)
    with kernels_for(opencl, cpu):
        check(opencl, a, b, out)


@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
@pytest.mark.compiled(dtype=SHORT)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_wrap(opencl, cpu, dtype):
    random = np.random.default_rng(2)
    limits = np.iinfo(STORAGE[dtype])
    a = random.integers(limits.min, limits.max, (2, 19, 301), STORAGE[dtype], endpoint=True)
    b = random.integers(limits.min, limits.max, (2, 301, 23), STORAGE[dtype], endpoint=True)
    out = plain(opencl, np.zeros((2, 19, 23), STORAGE[dtype]))
    with kernels_for(opencl, cpu):
        opencl.batched_matmul(plain(opencl, a).view, plain(opencl, b).view, out.view)
    wide = np.uint64 if dtype.kind == "u" else np.int64
    np.testing.assert_array_equal(out.read(), (a.astype(wide) @ b.astype(wide)).astype(STORAGE[dtype]))


def test_booleans_are_counted(opencl):
    random = np.random.default_rng(3)
    a, b = random.random((1, 9, 300)) < 0.5, random.random((1, 300, 5)) < 0.9
    found = plain(opencl, np.zeros((1, 9, 5), bool))
    counted = plain(opencl, np.zeros((1, 9, 5), np.int32))
    left, right = plain(opencl, a.view(np.uint8).view(bool)), plain(opencl, b)
    opencl.batched_matmul(left.view, right.view, found.view)
    opencl.batched_matmul(left.view, right.view, counted.view)
    np.testing.assert_array_equal(counted.read(), a.astype(int) @ b.astype(int))
    np.testing.assert_array_equal(found.read(), a @ b)


@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
def test_few_long_sums_are_split(opencl, cpu):
    random = np.random.default_rng(4)
    k = 5000
    a = plain(opencl, random.standard_normal((2, 3, k)).astype(np.float32))
    b = plain(opencl, random.standard_normal((2, k, 2)).astype(np.float32))
    out = Strided(opencl, np.zeros((2, 3, 2), np.float32), float32, (2, 0, 1), 2)
    single = plain(opencl, np.zeros((1, 3, 2), np.float32))
    with kernels_for(opencl, cpu):
        check(opencl, a, b, out)
        one = View(a.view.buffer, 0, (1, 3, k), (0, k, 1)), View(b.view.buffer, 0, (1, k, 2), (0, 2, 1))
        before = opencl.launches
        opencl.batched_matmul(*one, single.view)
        if opencl.queue.cl_device.max_compute_units > 1:
            assert opencl.launches == before + 2
    expected = widen(a.host[0], float32) @ widen(b.host[0], float32)
    np.testing.assert_allclose(single.read()[0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
def test_no_terms_sum_to_zero(opencl, cpu):
    out = plain(opencl, np.full((2, 7, 20), np.nan, np.float32), offset=3)
    a, b = plain(opencl, np.zeros((2, 7, 0), np.float32)), plain(opencl, np.zeros((2, 0, 20), np.float32))
    with kernels_for(opencl, cpu):
        opencl.batched_matmul(a.view, b.view, out.view)
    assert (out.read() == 0).all()


@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
def test_nan_and_infinity_stay_in_their_row_and_column(opencl, cpu):
    random = np.random.default_rng(5)
    a = random.standard_normal((1, 20, 30)).astype(np.float32)
    b = random.standard_normal((1, 30, 33)).astype(np.float32)
    a[0, 19, 3], b[0, 29, 32] = np.nan, np.inf
    out = plain(opencl, np.zeros((1, 20, 33), np.float32))
    with kernels_for(opencl, cpu):
        opencl.batched_matmul(plain(opencl, a).view, plain(opencl, b).view, out.view)
    finite = np.ones((20, 33), bool)
    finite[19], finite[:, 32] = False, False
    np.testing.assert_array_equal(np.isfinite(out.read()[0]), finite)


@pytest.mark.short(shape=[(10, 128, 128)])
@pytest.mark.parametrize("cpu", [True, False], ids=["batched_matmul", "batched_matmul_tiled"])
@pytest.mark.parametrize("shape", [(128, 784, 256), (10, 128, 128), (3, 9000, 2)])
def test_same_bits_on_every_run(opencl, cpu, shape):
    m, k, n = shape
    random = np.random.default_rng(6)
    a = plain(opencl, random.standard_normal((1, m, k)).astype(np.float32))
    b = plain(opencl, random.standard_normal((1, k, n)).astype(np.float32))
    results = []
    with kernels_for(opencl, cpu):
        for _ in range(3):
            out = plain(opencl, np.zeros((1, m, n), np.float32))
            opencl.batched_matmul(a.view, b.view, out.view)
            results.append(out.read().tobytes())
    assert len(set(results)) == 1


def test_blocks_leave_work_for_every_core():
    wide = MatmulLayout(1, 128, 256, 784, (0, 784, 1), (0, 1, 784), (0, 0, 256, 1))
    assert blocks(wide, 8, 64, 1) == (132, 64)
    assert blocks(wide, 8, 64, 16) == (132, 16)
    tall, narrow = blocks(wide, 8, 64, 64)
    assert -(-128 // tall) * -(-256 // narrow) >= 64
    assert blocks(wide, 8, 64, 10**9) == (6, 16)
    assert blocks(MatmulLayout(1, 5, 3, 10, (0, 10, 1), (0, 3, 1), (0, 0, 3, 1)), 8, 64, 16) == (6, 16)


def test_nothing_waits(opencl):
    a, out = plain(opencl, np.ones((1, 70, 70), np.float32)), plain(opencl, np.ones((1, 70, 70), np.float32))
    before = opencl.blocking
    opencl.batched_matmul(a.view, a.view, out.view)
    assert opencl.blocking == before


def test_refuses_other_shapes_and_complex_into_real(opencl):
    a = plain(opencl, np.ones((2, 3, 4), np.float32))
    out = plain(opencl, np.full((2, 3, 3), 7, np.float32))
    with pytest.raises(ShapeError, match=r"got \(2, 3, 4\), \(2, 3, 4\), \(2, 3, 3\)"):
        opencl.batched_matmul(a.view, a.view, out.view)
    b = plain(opencl, np.ones((1, 4, 3), np.float32))
    with pytest.raises(ShapeError, match="batched_matmul takes shapes"):
        opencl.batched_matmul(a.view, b.view, out.view)
    z = View(opencl.alloc(24, complex64), 0, (2, 4, 3), (12, 3, 1))
    with pytest.raises(DTypeError, match="into a real array does not take complex64"):
        opencl.batched_matmul(a.view, z, out.view)
    assert (out.read() == 7).all()


def test_sums_are_at_least_32_bits_wide():
    assert sum_dtype(float16, float16, float16) is float32
    assert sum_dtype(float16, bfloat16, float16) is float32
    assert sum_dtype(float32, float32, float64) is float64
    assert sum_dtype(int8, int8, int8) is int32
    assert sum_dtype(uint8, uint16, uint16) is uint32
    assert sum_dtype(int64, int8, int64) is int64
    assert sum_dtype(bool_, bool_, bool_) is int32
