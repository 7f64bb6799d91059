"""fill, scale and axpy on every OpenCL device: every dtype, tails, unaligned spans, and nothing written beside them."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import Span
from netcl.dtypes import bfloat16, bool_, float16, float32, float64, int8, int32, int64, uint8, uint64
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE

REAL = [dtype for dtype in dtypes.ALL if dtype.kind != "c"]
INTEGERS = [dtype for dtype in REAL if dtype.kind in "iu"]
FLOATS = [float16, bfloat16, float32, float64]
CANARY = 0xA5
MARGIN = 5

sizes = st.one_of(st.sampled_from([0, 1, 7, 8, 9, 2047, 2048, 2049]), st.integers(0, 5000))
offsets = st.integers(0, 9)


def needs(opencl, *wanted):
    if not all(map(opencl.supports, wanted)):
        pytest.skip(f"{opencl.device} has no float64")


class Guarded:
    """A span of a buffer whose other bytes hold a pattern that must survive."""

    def __init__(self, opencl, host, dtype, offset):
        self.opencl, self.dtype = opencl, dtype
        self.start, self.stop = offset, offset + host.size
        self.buffer = opencl.alloc(self.stop + MARGIN, dtype)
        whole = np.full(self.buffer.size * dtype.itemsize, CANARY, np.uint8).view(STORAGE[dtype])
        whole[self.start : self.stop] = host
        opencl.upload(whole, Span(self.buffer, 0, whole.size))
        self.span = Span(self.buffer, offset, host.size)

    def read(self):
        whole = self.opencl.download(Span(self.buffer, 0, self.buffer.size))
        around = np.concatenate([whole[: self.start], whole[self.stop :]])
        assert (around.view(np.uint8) == CANARY).all(), "elements beside the span were written"
        return whole[self.start : self.stop]


def to_bfloat16(x):
    """Round float32 to bfloat16 bits through exact rational steps: the nearer neighbour, the even one of a tie."""
    below = np.asarray(x, np.float32).view(np.uint32) >> 16
    neighbours = np.stack([below, below + 1]).astype(np.uint32)
    values = (neighbours << 16).view(np.float32).astype(np.float64)
    values = np.where(np.isinf(values), np.copysign(2.0**128, values), values)  # what comes after the largest number
    distance = np.abs(values - np.asarray(x, np.float64))
    up = (distance[1] < distance[0]) | ((distance[1] == distance[0]) & (below % 2 == 1))
    return np.where(up, neighbours[1], neighbours[0]).astype(np.uint16)


def from_storage(host, dtype):
    return (host.astype(np.uint32) << 16).view(np.float32) if dtype is bfloat16 else host


def to_storage(x, dtype):
    return to_bfloat16(x) if dtype is bfloat16 else x.astype(STORAGE[dtype])


def positive(rng, n, dtype):
    return to_storage(np.abs(from_storage(numbers(rng, n, dtype), dtype)), dtype)


def numbers(rng, n, dtype):
    """Values small enough that products and sums stay exact in every arithmetic."""
    if dtype.kind == "b":
        return rng.integers(0, 2, n).astype(bool)
    low = 0 if dtype.kind == "u" else -8
    return to_storage(rng.integers(low, 9, n).astype(np.float32), dtype)


@pytest.mark.parametrize("dtype", REAL, ids=str)
@given(n=sizes, offset=offsets, seed=st.integers(0, 99))
def test_fill_writes_its_span_alone(opencl, dtype, n, offset, seed):
    target = Guarded(opencl, numbers(np.random.default_rng(seed), n, dtype), dtype, offset)
    opencl.fill(target.span, 1)
    expected = to_storage(np.ones(n, np.float32), dtype)
    np.testing.assert_array_equal(target.read(), expected)


@pytest.mark.parametrize("dtype", REAL, ids=str)
@given(n=sizes, offset=offsets, seed=st.integers(0, 99))
def test_scale_multiplies_its_span_alone(opencl, dtype, n, offset, seed):
    needs(opencl, dtype)
    host = numbers(np.random.default_rng(seed), n, dtype)
    target = Guarded(opencl, host, dtype, offset)
    opencl.scale(3, target.span)
    expected = host if dtype is bool_ else to_storage(from_storage(host, dtype) * 3, dtype)
    np.testing.assert_array_equal(target.read(), expected)


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


@pytest.mark.parametrize("value", [1.0, -0.0, math.inf, -math.inf, 0.1, 1e-45, 65519.9, 65520.0, 3.4e38, 1e300, -1e300])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fill_rounds_to_nearest_even(opencl, dtype, value):
    target = Guarded(opencl, np.zeros(11, STORAGE[dtype]), dtype, 1)
    opencl.fill(target.span, value)
    with np.errstate(over="ignore"):
        if dtype is bfloat16:
            single = np.full(11, value, np.float32)
            expected = to_bfloat16(single) if np.isfinite(single).all() else (single.view(np.uint32) >> 16)
            expected = expected.astype(np.uint16)
        else:
            expected = np.full(11, value, STORAGE[dtype])
    np.testing.assert_array_equal(target.read().view(np.uint8), expected.view(np.uint8))


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
        with pytest.raises(DTypeError, match=f"no value of {dtype}"):
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
    with pytest.raises(DTypeError, match="complex64"):
        opencl.fill(Span(opencl.alloc(8, dtypes.complex64), 0, 8), 0)
