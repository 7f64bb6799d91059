"""axpy on every OpenCL device: every pair of dtypes, tails, unaligned spans, and nothing written beside them."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import Span
from netcl.dtypes import bfloat16, bool_, float16, float32, int32, int64, uint64
from netcl.errors import DTypeError
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import (
    REAL,
    SHORT,
    Guarded,
    from_storage,
    needs,
    numbers,
    offsets,
    positive,
    sizes,
    to_bfloat16,
    to_storage,
)


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", REAL, ids=str)
@given(n=sizes, x_offset=offsets, y_offset=offsets, seed=st.integers(0, 99))
def test_axpy_adds_into_its_span_alone(opencl, dtype, n, x_offset, y_offset, seed):
    needs(opencl, dtype)
    rng = np.random.default_rng(seed)
    x_host, y_host = numbers(rng, n, dtype), numbers(rng, n, dtype)
    x, y = Guarded(opencl, x_host, dtype, x_offset), Guarded(opencl, y_host, dtype, y_offset)
    opencl.axpy(2, x.span, y.span)
    if dtype is bool_:
        expected = x_host | y_host
    else:
        expected = to_storage(from_storage(x_host, dtype) * 2 + from_storage(y_host, dtype), dtype)
    np.testing.assert_array_equal(y.read(), expected)
    np.testing.assert_array_equal(x.read(), x_host)


@pytest.mark.compiled(y_dtype=SHORT)
@pytest.mark.short(rows=lambda row: row["y_dtype"] in (float32, bfloat16) or row["x_dtype"] is float32)
@pytest.mark.parametrize("y_dtype", REAL, ids=str)
@pytest.mark.parametrize("x_dtype", [bool_, int32, float16, bfloat16, float32], ids=str)
def test_axpy_of_different_dtypes(opencl, x_dtype, y_dtype):
    needs(opencl, x_dtype, y_dtype)
    if x_dtype is int32 and y_dtype is uint64:
        with pytest.raises(DTypeError, match="no common integer dtype"):
            opencl.axpy(2, Span(opencl.alloc(1, x_dtype), 0, 1), Span(opencl.alloc(1, y_dtype), 0, 1))
        return
    rng = np.random.default_rng(7)
    n = 1021
    x_host, y_host = positive(rng, n, x_dtype), positive(rng, n, y_dtype)
    x, y = Guarded(opencl, x_host, x_dtype, 3), Guarded(opencl, y_host, y_dtype, 1)
    opencl.axpy(2, x.span, y.span)
    total = from_storage(x_host, x_dtype).astype(np.float64) * 2 + from_storage(y_host, y_dtype)
    expected = total != 0 if y_dtype is bool_ else to_storage(total.astype(np.float32), y_dtype)
    np.testing.assert_array_equal(y.read(), expected)


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_axpy_of_one_onto_zero_copies_exactly(opencl, dtype):
    needs(opencl, dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(STORAGE[dtype])
        host = np.array([limits.min, limits.max, 0, 1, limits.max - 1] * 7, STORAGE[dtype])
    elif dtype is bool_:
        host = np.array([True, False, True] * 11)
    elif dtype is bfloat16:
        host = np.array([0x0001, 0x7F7F, 0xFF80, 0x3F81, 0x8001] * 7, np.uint16)
    else:
        limits = np.finfo(STORAGE[dtype])
        host = np.array([limits.max, limits.min, limits.tiny, np.inf, -np.inf, 1 + limits.eps] * 7, STORAGE[dtype])
    x, y = Guarded(opencl, host, dtype, 1), Guarded(opencl, np.empty_like(host), dtype, 2)
    opencl.fill(y.span, 0)
    opencl.axpy(1, x.span, y.span)
    np.testing.assert_array_equal(y.read(), host)


def test_integer_arithmetic_is_exact_beyond_float64(opencl):
    host = np.array([2**62 - 1, -(2**62) + 1, 2**53 + 1] * 9, np.int64)
    x, y = Guarded(opencl, host, int64, 0), Guarded(opencl, np.ones_like(host), int64, 3)
    opencl.axpy(1, x.span, y.span)
    np.testing.assert_array_equal(y.read(), host + 1)


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_bfloat16_stores_round_to_nearest_even(opencl, values):
    host = np.array(values, np.float32)
    host = host[np.abs(host) < 3.38e38]
    x = Guarded(opencl, host, float32, 1)
    y = Guarded(opencl, np.zeros(host.size, np.uint16), bfloat16, 0)
    opencl.axpy(1, x.span, y.span)
    normal = np.abs(host) >= 2.0**-126  # a device may flush what is smaller
    np.testing.assert_array_equal(y.read()[normal], to_bfloat16(host)[normal])


@given(values=st.lists(st.floats(-7e4, 7e4, width=32), min_size=1, max_size=40))
def test_float16_stores_round_to_nearest_even(opencl, values):
    host = np.array(values, np.float32)
    host = np.where(np.abs(host) < 2.0**-126, np.float32(0), host)
    x = Guarded(opencl, host, float32, 1)
    y = Guarded(opencl, np.zeros(host.size, np.float16), float16, 0)
    opencl.axpy(1, x.span, y.span)
    expected = [struct.pack("e", v) if abs(v) < 65520 else struct.pack("e", math.copysign(math.inf, v)) for v in host]
    np.testing.assert_array_equal(y.read(), np.frombuffer(b"".join(expected), np.float16))
