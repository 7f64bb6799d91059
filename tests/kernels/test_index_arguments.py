"""Indices out of range, and views that do not fit, in gather and scatter_add."""

from __future__ import annotations

import numpy as np
import pytest

from netcl.backends.base import Span, View
from netcl.dtypes import complex64, int32, int64
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.forms import cpu_and_gpu, kernels_for
from tests.kernels.strided import Strided, plain


@cpu_and_gpu
@pytest.mark.parametrize("bad", [3, -4, 2**31 - 1, -(2**31), 2**40, -(2**63)])
@pytest.mark.parametrize("broadcast", [True, False])
def test_an_index_out_of_range_touches_nothing_and_is_reported(opencl, cpu, bad, broadcast):
    dtype = int32 if -(2**31) <= bad < 2**31 else int64
    order = np.array([0, bad, 2], STORAGE[dtype])
    indices = Strided(
        opencl, np.broadcast_to(order[None, :, None], (1, 3, 5)), dtype, (0, 1, 2), repeated=(2,) * broadcast
    )
    x = plain(opencl, np.arange(15, dtype=np.float32).reshape(1, 3, 5), offset=2)
    out = plain(opencl, np.full((1, 3, 5), 7, np.float32), offset=2)
    with kernels_for(opencl, cpu):
        opencl.gather(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="gather"):
            opencl.synchronize()
        found = out.read()
        np.testing.assert_array_equal(found[0, [0, 2]], x.host[0, [0, 2]])
        assert (found[0, 1] == 0).all()

        opencl.scatter_add(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="scatter_add"):
            opencl.download(Span(out.buffer, 0, 1))
    opencl.synchronize()  # reported once
    np.testing.assert_array_equal(out.read()[0], [2 * x.host[0, 0], [0] * 5, 2 * x.host[0, 2]])
    np.testing.assert_array_equal(x.read(), x.host)


@cpu_and_gpu
def test_nothing_to_pick_from_is_out_of_range(opencl, cpu):
    x = plain(opencl, np.zeros((1, 0, 2), np.float32))
    indices = plain(opencl, np.zeros((1, 1, 2), np.int64))
    out = plain(opencl, np.ones((1, 1, 2), np.float32))
    with kernels_for(opencl, cpu):
        opencl.gather(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="gather"):
            opencl.synchronize()
        opencl.scatter_add(out.view, indices.view, x.view)
        with pytest.raises(IndexError, match="scatter_add"):
            opencl.synchronize()
    assert (out.read() == 0).all()


def test_indexing_refuses_what_does_not_fit(opencl):
    x, out = plain(opencl, np.ones((1, 4, 3), np.float32)), plain(opencl, np.full((1, 2, 3), 7, np.float32))
    indices = plain(opencl, np.zeros((1, 2, 3), np.int64))
    with pytest.raises(ShapeError, match=r"indexed \(1, 4, 3\), indices \(1, 4, 3\) and \(1, 2, 3\)"):
        opencl.gather(x.view, x.view, out.view)
    with pytest.raises(ShapeError, match="scatter_add takes views"):
        opencl.scatter_add(out.view, indices.view, View(x.buffer, 0, (1, 4, 2), (8, 2, 1)))
    with pytest.raises(DTypeError, match="int32 or int64, got float32"):
        opencl.gather(x.view, View(x.buffer, 0, (1, 2, 3), (6, 3, 1)), out.view)
    with pytest.raises(DTypeError, match="x is float32 and out is int64"):
        opencl.gather(x.view, indices.view, indices.view)
    with pytest.raises(DTypeError, match="to a real array does not take complex64"):
        opencl.scatter_add(View(opencl.alloc(6, complex64), 0, (1, 2, 3), (6, 3, 1)), indices.view, out.view)
    assert (out.read() == 7).all()
