"""scatter_add on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import bfloat16, float16, float32, float64, int8, int32, int64
from netcl.host_dtypes import STORAGE
from tests.kernels.forms import TOLERANCE, cpu_and_gpu, extents, kernels_for, needs
from tests.kernels.strided import Strided, layouts, plain, store, widen


@cpu_and_gpu
@given(
    outer=st.integers(0, 3), n=st.integers(1, 9), count=extents, inner=st.integers(0, 20), index=layouts(3, (0, 2)),
    updates=layouts(3, (0, 1)), out=layouts(3), narrow=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_scatter_add(opencl, cpu, outer, n, count, inner, index, updates, out, narrow, seed):
    random = np.random.default_rng(seed)
    dtype = int32 if narrow else int64
    given_updates = Strided(
        opencl, random.standard_normal((outer, count, inner)).astype(np.float32), float32, **updates
    )
    indices = Strided(opencl, random.integers(-n, n, (outer, count, inner), STORAGE[dtype]), dtype, **index)
    result = Strided(opencl, random.standard_normal((outer, n, inner)).astype(np.float32), float32, **out)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(given_updates.view, indices.view, result.view)
    expected = result.host.copy()
    at = (np.arange(outer)[:, None, None], indices.host.astype(np.int64) % n, np.arange(inner)[None, None, :])
    np.add.at(expected, at, given_updates.host)
    # The same order of the same float32 sums: equal to the last bit.
    np.testing.assert_array_equal(result.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_scatter_add_rounds_narrow_sums_once(opencl, cpu, dtype):
    ones = plain(opencl, store(np.ones((1, 5000, 3)), dtype), dtype)
    indices = Strided(opencl, np.ones((1, 5000, 3), np.int64), int64, (0, 1, 2), repeated=(0, 1, 2))
    out = Strided(opencl, store(np.full((1, 2, 3), 2.0), dtype), dtype, (2, 1, 0), 2, offset=3)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(ones.view, indices.view, out.view)
    found = widen(out.read(), dtype)
    assert (found[0, 0] == 2).all()
    np.testing.assert_allclose(found[0, 1], 5002, rtol=TOLERANCE[dtype])


@cpu_and_gpu
@pytest.mark.parametrize("dtype", [int8, int64, float64], ids=str)
def test_scatter_add_of_other_dtypes(opencl, cpu, dtype):
    needs(opencl, dtype)
    random = np.random.default_rng(7)
    updates = random.integers(-9, 9, (2, 40, 3)).astype(STORAGE[dtype])
    picked = random.integers(0, 4, 40)
    indices = Strided(opencl, np.broadcast_to(picked[None, :, None], (2, 40, 3)), int64, (1, 0, 2), repeated=(0, 2))
    out = plain(opencl, np.zeros((2, 4, 3), STORAGE[dtype]), dtype)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(plain(opencl, updates).view, indices.view, out.view)
    expected = np.zeros((2, 4, 3), STORAGE[dtype])
    np.add.at(expected, (slice(None), picked), updates)
    np.testing.assert_array_equal(out.read(), expected)


@cpu_and_gpu
def test_scatter_add_gives_the_same_bits_on_every_run(opencl, cpu):
    random = np.random.default_rng(8)
    updates = plain(opencl, random.standard_normal((1, 3000, 7)).astype(np.float32))
    indices = plain(opencl, random.integers(0, 5, (1, 3000, 7)))
    results = set()
    with kernels_for(opencl, cpu):
        for _ in range(3):
            out = plain(opencl, np.zeros((1, 5, 7), np.float32))
            opencl.scatter_add(updates.view, indices.view, out.view)
            results.add(out.read().tobytes())
    assert len(results) == 1
