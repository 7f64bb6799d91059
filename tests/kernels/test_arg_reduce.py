"""arg_reduce on OpenCL: every layout, NaN and equals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import float32, int64, uint8
from netcl.errors import DTypeError, ShapeError
from tests.kernels.strided import Strided
from tests.kernels.views import layouts, numbers, outputs_like, shapes, upload


@given(data=st.data(), shape=shapes.filter(bool), seed=st.integers(0, 99))
def test_arg_reduce_over_any_view(opencl, data, shape, seed):
    op, axis = data.draw(st.sampled_from(["argmax", "argmin"])), data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from([float32, uint8]))
    x = Strided(opencl, numbers(shape, dtype, seed) // 20, dtype, **data.draw(layouts(shape)))
    left = shape[:axis] + shape[axis + 1 :]
    out = Strided(opencl, np.zeros(left, "i8"), int64, **data.draw(layouts(left, repeat=False)))
    opencl.arg_reduce(op, x.view, axis, out.view)
    np.testing.assert_array_equal(out.read(), getattr(np, op)(x.host, axis=axis))


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
    row = upload(opencl, np.ones(4, "f4"), float32)
    out = outputs_like(opencl, (4,), int64)
    before = opencl.launches
    with pytest.raises(DTypeError, match="int64"):
        opencl.arg_reduce("argmax", x.view, 0, row.view)
    with pytest.raises(ShapeError, match=r"has shape \(3,\)"):
        opencl.arg_reduce("argmax", x.view, 1, out.view)
    with pytest.raises(ShapeError, match="unknown reduction 'max'"):
        opencl.arg_reduce("max", x.view, 0, out.view)
    assert opencl.launches == before
