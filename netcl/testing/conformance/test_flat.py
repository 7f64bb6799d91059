"""Memory, fill, scale and axpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import Buffer, Span
from netcl.testing.conformance.operands import ALL, FLOATS, INTEGERS, SHORT, Operand, assert_close, storage, zeros

SIZES = (0, 1, 2, 7, 8, 9, 63, 1023, 1024, 1025, 5003)


def skip_unless_supported(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")


def test_describes_its_device(backend):
    device = backend.device
    assert device.kind in ("cpu", "gpu", "accelerator")
    assert device.name
    assert device.memory >= 0
    assert str(device).startswith(device.backend)
    assert backend.supports(dtypes.float32)
    assert backend.supports(dtypes.int64)
    assert backend.supports(dtypes.bool_)
    assert backend.supports(dtypes.float64) == device.float64


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("n", [0, 1, 1025])
def test_what_goes_up_comes_down(backend, dtype, n):
    skip_unless_supported(backend, dtype)
    rng = np.random.default_rng(n)
    stored = rng.integers(0, 2 if dtype is dtypes.bool_ else 120, n).astype(storage(dtype))
    buffer = backend.alloc(n, dtype)
    assert isinstance(buffer, Buffer)
    assert (buffer.size, buffer.dtype) == (n, dtype)
    backend.upload(stored, Span(buffer, 0, n))
    found = backend.download(Span(buffer, 0, n))
    assert found.shape == (n,)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)


def test_upload_takes_what_the_host_holds_now(backend):
    host = np.arange(100_000, dtype=np.float32)
    span = Span(backend.alloc(host.size, dtypes.float32), 0, host.size)
    backend.upload(host[::-1], span)
    np.testing.assert_array_equal(backend.download(span), host[::-1])


def test_a_download_is_a_copy(backend):
    x = Operand(backend, [1.0, 2.0], dtypes.float32)
    host = backend.download(x.span)
    host[:] = 9.0
    assert x.unchanged()
    backend.fill(x.span, 5.0)
    np.testing.assert_array_equal(host, [9.0, 9.0])


def test_calls_take_effect_in_order(backend):
    x = zeros(backend, 1000, dtypes.float32)
    for i in range(10):
        backend.fill(x.span, i)
        backend.axpy(1.0, x.span, x.span)
    backend.synchronize()
    np.testing.assert_array_equal(x.values, 18.0)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("n", SIZES)
def test_fill(backend, dtype, n):
    skip_unless_supported(backend, dtype)
    x = zeros(backend, n, dtype)
    backend.fill(x.span, 1)
    np.testing.assert_array_equal(x.values, np.ones(n))


@pytest.mark.parametrize("value", [-0.1, 1e-3, 65520.0, math.inf, math.nan, 0.0])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fill_rounds(backend, dtype, value):
    skip_unless_supported(backend, dtype)
    x = Operand(backend, [math.nan] * 9, dtype, offset=5)
    backend.fill(x.span, value)
    expected = Operand(backend, [value], dtype).given[0]
    np.testing.assert_array_equal(x.values, np.full(9, expected))


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_fill_reaches_the_ends_of_integers(backend, dtype):
    skip_unless_supported(backend, dtype)
    for value in (np.iinfo(dtype.name).min, np.iinfo(dtype.name).max):
        x = zeros(backend, 9, dtype)
        backend.fill(x.span, int(value))
        np.testing.assert_array_equal(x.stored, np.full(9, value, dtype.name))


@pytest.mark.parametrize("from_device", [False, True], ids=["number", "span"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("n", SIZES)
def test_scale_and_axpy(backend, dtype, n, from_device):
    skip_unless_supported(backend, dtype)
    rng = np.random.default_rng(n)
    x = Operand(backend, rng.standard_normal(n), dtype, offset=n % 7)
    y = Operand(backend, rng.standard_normal(n), dtype, offset=1)
    number = Operand(backend, [-0.75], dtype.compute)
    a = number.span if from_device else -0.75
    backend.axpy(a, x.span, y.span)
    magnitude = np.max(np.abs(x.given) + np.abs(y.given), initial=0.0)
    assert_close(y.values, -0.75 * x.given + y.given, dtype, ulps=1, absolute=magnitude * 2.0**-24)
    assert x.unchanged()
    backend.scale(a, x.span)
    assert_close(x.values, -0.75 * x.given, dtype, ulps=1)
    assert number.unchanged()


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", [dtypes.bool_, *INTEGERS], ids=str)
def test_axpy_moves_any_dtype(backend, dtype):
    skip_unless_supported(backend, dtype)
    x = Operand(backend, np.arange(37) % 2, dtype)
    y = Operand(backend, np.zeros(37), dtype)
    backend.axpy(1, x.span, y.span)
    np.testing.assert_array_equal(y.stored, x.given)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_scale_keeps_nan_and_infinity(backend, dtype):
    skip_unless_supported(backend, dtype)
    x = Operand(backend, [math.nan, math.inf, -math.inf, 1.0], dtype)
    backend.scale(0.0, x.span)
    np.testing.assert_array_equal(x.values, [math.nan, math.nan, math.nan, 0.0])


@given(n=st.integers(0, 3000), offsets=st.tuples(st.integers(0, 40), st.integers(0, 40)), a=st.floats(-4, 4, width=32))
def test_axpy_at_any_place(backend, n, offsets, a):
    x = Operand(backend, np.arange(n) % 17 - 8, dtypes.float32, offset=offsets[0])
    y = Operand(backend, np.arange(n) % 5, dtypes.float32, offset=offsets[1])
    backend.axpy(a, x.span, y.span)
    assert_close(y.values, a * x.given + y.given, dtypes.float32, ulps=1, absolute=1e-5)
