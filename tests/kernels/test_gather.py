"""gather on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import ALL, float32, int32, int64
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import SHORT
from tests.kernels.forms import cpu_and_gpu, extents, kernels_for
from tests.kernels.strided import Strided, layouts, plain


@cpu_and_gpu
@given(
    outer=st.integers(0, 3), n=st.integers(1, 9), count=extents, inner=st.integers(0, 20), index=layouts(3, (0, 2)),
    x=layouts(3, (0,)), out=layouts(3), narrow=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_gather(opencl, cpu, outer, n, count, inner, index, x, out, narrow, seed):
    random = np.random.default_rng(seed)
    source = Strided(opencl, random.standard_normal((outer, n, inner)).astype(np.float32), float32, **x)
    dtype = int32 if narrow else int64
    chosen = random.integers(-n, n, (outer, count, inner), STORAGE[dtype])
    indices = Strided(opencl, chosen, dtype, **index)
    result = Strided(opencl, np.zeros((outer, count, inner), np.float32), float32, **out)
    with kernels_for(opencl, cpu):
        opencl.gather(source.view, indices.view, result.view)
    expected = np.take_along_axis(source.host, indices.host.astype(np.int64) % n, 1)
    np.testing.assert_array_equal(result.read(), expected)


@cpu_and_gpu
@pytest.mark.short(rows=lambda row: row["dtype"] in SHORT or row["dtype"].kind == "c")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_gather_moves_every_dtype(opencl, cpu, dtype):
    host = np.random.default_rng(1).integers(0, 2, (2, 5, 3 * dtype.itemsize), np.uint8).view(STORAGE[dtype])
    picked = np.array([4, 0, -1, 2])
    source, result = plain(opencl, host, dtype), plain(opencl, np.zeros((2, 4, 3), STORAGE[dtype]), dtype, 5)
    indices = Strided(opencl, np.broadcast_to(picked[None, :, None], (2, 4, 3)), int64, (1, 0, 2), repeated=(0, 2))
    with kernels_for(opencl, cpu):
        opencl.gather(source.view, indices.view, result.view)
    np.testing.assert_array_equal(result.read(), host[:, picked])
