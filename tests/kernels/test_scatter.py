"""scatter on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.opencl.device.defects import Defect, Defects
from netcl.dtypes import ALL, float32, float64, int32, int64
from netcl.errors import BackendError, DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import SHORT
from tests.kernels.forms import cpu_and_gpu, extents, kernels_for, own_backend
from tests.kernels.strided import Strided, layouts, plain


@cpu_and_gpu
@given(
    outer=st.integers(0, 3), n=st.integers(1, 9), count=extents, inner=st.integers(0, 20), index=layouts(3, (0, 2)),
    updates=layouts(3, (0, 1)), out=layouts(3), narrow=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_scatter(opencl, cpu, outer, n, count, inner, index, updates, out, narrow, seed):
    random = np.random.default_rng(seed)
    dtype = int32 if narrow else int64
    shape = (outer, count, inner)
    given_updates = Strided(opencl, random.standard_normal(shape).astype(np.float32), float32, **updates)
    indices = Strided(opencl, random.integers(-n, n, shape, STORAGE[dtype]), dtype, **index)
    result = Strided(opencl, random.standard_normal((outer, n, inner)).astype(np.float32), float32, **out)
    with kernels_for(opencl, cpu):
        opencl.scatter(given_updates.view, indices.view, result.view)
    expected = result.host.copy()
    o, i = np.arange(outer)[:, None], np.arange(inner)
    for c in range(count):
        expected[o, indices.host[:, c].astype(np.int64) % n, i] = given_updates.host[:, c]
    np.testing.assert_array_equal(result.read(), expected)


@cpu_and_gpu
@pytest.mark.short(rows=lambda row: row["dtype"] in SHORT or row["dtype"].kind == "c")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_scatter_moves_every_dtype(opencl, cpu, dtype):
    host = np.random.default_rng(1).integers(0, 2, (2, 4, 3 * dtype.itemsize), np.uint8).view(STORAGE[dtype])
    picked = np.array([4, 0, -1, 2])
    updates, out = plain(opencl, host, dtype), plain(opencl, np.zeros((2, 5, 3), STORAGE[dtype]), dtype, 5)
    indices = Strided(opencl, np.broadcast_to(picked[None, :, None], (2, 4, 3)), int64, (1, 0, 2), repeated=(0, 2))
    with kernels_for(opencl, cpu):
        opencl.scatter(updates.view, indices.view, out.view)
    expected = out.host.copy()
    for c, place in enumerate(picked):
        expected[:, place] = host[:, c]
    np.testing.assert_array_equal(out.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("repeated", [(), (0,), (2,), (0, 2)], ids=str)
def test_the_last_of_many_writes_wins(opencl, cpu, repeated):
    """Whatever the indices depend on, with far more updates than places."""
    shape = (2, 5000, 3)
    random = np.random.default_rng(8)
    updates = plain(opencl, random.standard_normal(shape).astype(np.float32))
    indices = Strided(opencl, random.integers(0, 7, shape), int64, (0, 1, 2), repeated=repeated)
    expected = np.zeros((2, 7, 3), np.float32)
    o, i = np.arange(2)[:, None], np.arange(3)
    for c in range(5000):
        expected[o, indices.host[:, c], i] = updates.host[:, c]
    with kernels_for(opencl, cpu):
        for _ in range(3):
            out = plain(opencl, np.zeros((2, 7, 3), np.float32))
            opencl.scatter(updates.view, indices.view, out.view)
            np.testing.assert_array_equal(out.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("bad", [3, -4, 2**31 - 1, -(2**31), 2**40, -(2**63)])
@pytest.mark.parametrize("broadcast", [True, False])
def test_an_index_out_of_range_is_skipped_and_reported(opencl, cpu, bad, broadcast):
    dtype = int32 if -(2**31) <= bad < 2**31 else int64
    chosen = np.broadcast_to(np.array([0, bad, 2], STORAGE[dtype])[None, :, None], (1, 3, 5))
    indices = Strided(opencl, chosen, dtype, (0, 1, 2), repeated=(2,) * broadcast)
    updates = plain(opencl, np.arange(15, dtype=np.float32).reshape(1, 3, 5), offset=2)
    out = plain(opencl, np.full((1, 3, 5), 7, np.float32), offset=2)
    with kernels_for(opencl, cpu):
        opencl.scatter(updates.view, indices.view, out.view)
        with pytest.raises(IndexError, match="scatter: an index is out of range"):
            opencl.synchronize()
    opencl.synchronize()  # reported once
    np.testing.assert_array_equal(out.read()[0], [updates.host[0, 0], [7] * 5, updates.host[0, 2]])


def test_refusals_launch_nothing(opencl):
    x, out = plain(opencl, np.ones((1, 2, 3), np.float32)), plain(opencl, np.ones((1, 4, 3), np.float32))
    indices, wide = plain(opencl, np.zeros((1, 2, 3), np.int64)), plain(opencl, np.zeros((1, 4, 3), np.int64))
    before = opencl.launches
    with pytest.raises(ShapeError, match="scatter takes views"):
        opencl.scatter(x.view, wide.view, out.view)
    with pytest.raises(DTypeError, match="keeps the dtype"):
        opencl.scatter(x.view, indices.view, wide.view)
    with pytest.raises(DTypeError, match="int32 or int64"):
        opencl.scatter(x.view, x.view, out.view)
    assert opencl.launches == before
    backend = own_backend(opencl)
    backend.queue.defects = Defects({("scatter", "float64"): Defect("x")})
    doubles, places = plain(backend, np.ones((1, 1, 1)), float64), plain(backend, np.zeros((1, 1, 1), np.int64))
    with pytest.raises(BackendError, match="scatter of float64"):
        backend.scatter(doubles.view, places.view, doubles.view)
