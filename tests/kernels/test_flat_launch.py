"""What fill, scale and axpy have in common: factors on the device, NaN, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from netcl import dtypes
from netcl.backends.base import Span
from netcl.dtypes import float32, int8, int32, int64, uint8
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import (
    FLOATS,
    Guarded,
    from_storage,
    needs,
    numbers,
    to_storage,
)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_factor_on_the_device(opencl, dtype):
    needs(opencl, dtype)
    rng = np.random.default_rng(3)
    x_host, y_host = numbers(rng, 100, dtype), numbers(rng, 100, dtype)
    x, y = Guarded(opencl, x_host, dtype, 1), Guarded(opencl, y_host, dtype, 0)
    factors = opencl.alloc(4, float32)
    opencl.upload(np.array([9, 9, 0.5, 9], np.float32), Span(factors, 0, 4))
    opencl.axpy(Span(factors, 2, 1), x.span, y.span)
    opencl.scale(Span(factors, 2, 1), x.span)
    half = from_storage(x_host, dtype) / 2
    np.testing.assert_array_equal(y.read(), to_storage(half + from_storage(y_host, dtype), dtype))
    np.testing.assert_array_equal(x.read(), to_storage(half, dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_survives_every_call(opencl, dtype):
    needs(opencl, dtype)
    x = Guarded(opencl, np.zeros(17, STORAGE[dtype]), dtype, 0)
    opencl.fill(x.span, math.nan)
    opencl.scale(0, x.span)
    y = Guarded(opencl, np.zeros(17, STORAGE[dtype]), dtype, 0)
    opencl.axpy(0, x.span, y.span)
    assert np.isnan(from_storage(y.read(), dtype)).all()
    opencl.fill(y.span, 0)
    assert (y.read() == 0).all()


@pytest.mark.parametrize(
    ("dtype", "value"), [(int8, 128), (uint8, -1), (int32, 0.5), (int32, math.nan), (int64, 2**63)]
)
def test_numbers_that_an_integer_dtype_cannot_hold_are_refused(opencl, dtype, value):
    target = Guarded(opencl, np.full(9, 3, STORAGE[dtype]), dtype, 0)
    launches = opencl.launches
    for call in (
        lambda: opencl.fill(target.span, value),
        lambda: opencl.scale(value, target.span),
        lambda: opencl.axpy(value, target.span, target.span),
    ):
        with pytest.raises(DTypeError, match=f"not a value of {dtype}"):
            call()
    assert opencl.launches == launches
    assert (target.read() == 3).all()


def test_operands_that_do_not_fit_are_refused(opencl):
    x = Span(opencl.alloc(8, float32), 0, 8)
    whole = Span(opencl.alloc(8, int32), 0, 8)
    with pytest.raises(ShapeError, match=r"x of 8 and y of 7"):
        opencl.axpy(1, x, Span(x.buffer, 0, 7))
    with pytest.raises(ShapeError, match="one element, got 2"):
        opencl.scale(Span(x.buffer, 0, 2), x)
    with pytest.raises(DTypeError, match="float32 factor on the device does not fit int32"):
        opencl.scale(Span(x.buffer, 0, 1), whole)
    with pytest.raises(DTypeError, match="complex number"):
        opencl.fill(x, 1j)
    with pytest.raises(DTypeError, match="scale does not take complex64"):
        opencl.scale(2.0, Span(opencl.alloc(8, dtypes.complex64), 0, 8))
