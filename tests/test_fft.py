"""netcl.fft: values, shapes and dtypes against NumPy and array-api-strict on every backend, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import netcl
from netcl import fft
from netcl.errors import ArgumentError, AxisError, DTypeError, ShapeError

NORMS = ("backward", "ortho", "forward")
ALONG_ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
ALONG_SEVERAL = ("fftn", "ifftn", "rfftn", "irfftn")
TAKE_REAL = ("rfft", "rfftn", "ihfft")
GIVE_REAL = ("irfft", "irfftn", "hfft")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "complex64": 1e-5, "complex128": 1e-12}


def operand(name, dtype, shape=(2, 5, 6)):
    random = np.random.default_rng(5)
    x = random.normal(size=shape)
    if name not in TAKE_REAL and dtype.startswith("complex"):
        x = x + 1j * random.normal(size=shape)
    return x.astype(dtype)


def dtypes_of(name, backend):
    """What a device that computes in complex numbers takes; all widths on NumPy."""
    narrow = ("float32",) if name in TAKE_REAL else ("float32", "complex64")
    wide = ("float64",) if name in TAKE_REAL else ("float64", "complex128")
    return [*narrow, *(wide if backend.device.backend == "numpy" else ())]


def check(name, x, backend, **options):
    """Of NumPy's value in double precision, in the precision of the operand; or the refusal of a device without it."""
    tensor = netcl.asarray(x, device=backend.device)
    if name not in GIVE_REAL and not backend.supports(netcl.complex64):
        with pytest.raises(DTypeError, match="cannot compute in complex64"):
            getattr(fft, name)(tensor, **options)
        return
    got = getattr(fft, name)(tensor, **options)
    wide = x.astype("complex128" if x.dtype.kind == "c" else "float64")
    want = getattr(np.fft, name)(wide, **options)
    width = "64" if x.dtype.itemsize == (4 if x.dtype.kind == "f" else 8) else "128"
    kind = f"complex{width}" if want.dtype.kind == "c" else f"float{int(width) // 2}"
    assert (got.shape, got.dtype.name, str(got.device)) == (want.shape, kind, str(backend.device))
    np.testing.assert_allclose(got.numpy(), want, rtol=TOLERANCE[kind], atol=TOLERANCE[kind] * np.abs(want).max())


def supported(name, backend):
    """The dtypes to try; on a device without complex numbers a real one, which is refused as well."""
    found = dtypes_of(name, backend)
    return found if backend.supports(netcl.complex64) else found[:1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ALONG_ONE)
def test_along_one_axis(name, norm, backend):
    for dtype in supported(name, backend):
        x = operand(name, dtype)
        for options in ({}, {"n": 4}, {"n": 9}, {"axis": 0}, {"n": 3, "axis": -2}, {"n": 1}):
            check(name, x, backend, norm=norm, **options)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ALONG_SEVERAL)
def test_along_several_axes(name, norm, backend):
    for dtype in supported(name, backend):
        x = operand(name, dtype)
        for options in ({}, {"axes": (1, 0)}, {"s": (3, 8), "axes": (2, 0)}, {"s": (4, 3, 7), "axes": (0, 1, 2)}):
            check(name, x, backend, norm=norm, **options)


@pytest.mark.parametrize("name", ALONG_SEVERAL)
def test_sizes_without_axes_are_those_of_the_last(name):
    with netcl.use_backend("numpy"):
        x = operand(name, "float64")
        function = getattr(fft, name)
        got = function(netcl.asarray(x), s=(4, 8))
        want = getattr(np.fft, name)(x, s=(4, 8), axes=(-2, -1))
        np.testing.assert_allclose(got.numpy(), want, atol=1e-12)
        left = function(netcl.asarray(x), s=(-1, 8))
        np.testing.assert_allclose(left.numpy(), getattr(np.fft, name)(x, s=(5, 8), axes=(-2, -1)), atol=1e-12)


def test_no_axes_leave_the_numbers_as_they_are():
    with netcl.use_backend("numpy"):
        x = netcl.asarray(operand("fftn", "float32"))
        for name in ALONG_SEVERAL:
            got = getattr(fft, name)(x, axes=())
            np.testing.assert_array_equal(got.numpy(), x.numpy())
            assert got.dtype is (netcl.float32 if name == "irfftn" else netcl.complex64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [*ALONG_ONE, *ALONG_SEVERAL])
def test_sixteen_bits_are_computed_in_float32(name, dtype):
    with netcl.use_backend("numpy"):
        x = netcl.asarray(operand(name, "float32"), dtype=dtype)
        got, want = getattr(fft, name)(x), getattr(fft, name)(netcl.astype(x, "float32"))
        assert got.dtype is want.dtype
        np.testing.assert_array_equal(got.numpy(), want.numpy())


@pytest.mark.parametrize("name", [*ALONG_ONE, *ALONG_SEVERAL])
def test_shapes_and_dtypes_are_the_standards(name):
    import array_api_strict as strict

    strict.set_array_api_strict_flags(api_version="2025.12")
    widths = ("float32", "float64") if name in TAKE_REAL else ("complex64", "complex128")
    with netcl.use_backend("numpy"):
        for dtype in widths:
            x = operand(name, dtype)
            got, want = getattr(fft, name)(netcl.asarray(x)), getattr(strict.fft, name)(strict.asarray(x))
            assert (got.shape, f"array_api_strict.{got.dtype}") == (want.shape, str(want.dtype))


def test_every_name_of_the_standard_is_there():
    import array_api_strict as strict

    assert len(strict.fft.__all__) == 14
    assert set(strict.fft.__all__) == set(fft.__all__)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("name", ["fftfreq", "rfftfreq"])
def test_frequencies(name, n, backend):
    for d in (1.0, 0.3, -2):
        want = getattr(np.fft, name)(n, d)
        got = getattr(fft, name)(n, d=d, device=backend.device)
        assert (got.dtype, got.device) == (netcl.float32, backend.device)
        np.testing.assert_array_equal(got.numpy(), (np.rint(want * (n * d)) / (n * d)).astype("float32"))
        if backend.supports(netcl.float64):
            got = getattr(fft, name)(n, d=d, dtype="float64", device=backend.device)
            np.testing.assert_allclose(got.numpy(), want, rtol=4e-16)


@pytest.mark.parametrize("axes", [None, 0, -1, (0, 2), (1,), ()])
@pytest.mark.parametrize("name", ["fftshift", "ifftshift"])
def test_shifts(name, axes, backend):
    x = operand(name, "float32")
    got = getattr(fft, name)(netcl.asarray(x, device=backend.device), axes=axes)
    np.testing.assert_array_equal(got.numpy(), getattr(np.fft, name)(x, axes))
    assert fft.fftshift(netcl.zeros((0, 3), device=backend.device)).shape == (0, 3)
    assert fft.fftshift(netcl.ones((), device=backend.device)).item() == 1.0


def test_what_does_not_fit_is_refused():
    with netcl.use_backend("numpy"):
        x = netcl.ones((2, 4))
        z = netcl.ones((2, 4), dtype="complex64")
        for call, error, words in (
            (lambda: fft.fft(netcl.arange(3)), DTypeError, r"fft takes floating arrays, got one of int64; convert it"),
            (lambda: fft.rfft(z), DTypeError, "rfft takes real arrays, got one of complex64; use fft"),
            (lambda: fft.rfftn(z), DTypeError, "rfftn takes real arrays, got one of complex64; use fftn"),
            (lambda: fft.ihfft(z), DTypeError, "ihfft takes real arrays, got one of complex64; use ifft"),
            (lambda: fft.fft(x, n=0), ShapeError, "would have 0 points; it must have at least 1"),
            (lambda: fft.fft(x[:, :0]), ShapeError, "would have 0 points"),
            (lambda: fft.irfft(x[:, :1]), ShapeError, "would have 0 points"),
            (lambda: fft.fft(x, n=2.0), ShapeError, "n must be an integer, got 2.0"),
            (lambda: fft.fft(x, axis=2), AxisError, "axis must lie in"),
            (lambda: fft.fft(x, norm="unitary"), ArgumentError, "norm must be one of 'backward', 'ortho', 'forward'"),
            (lambda: fft.fftn(x, axes=(0, -2)), AxisError, "each axis once"),
            (lambda: fft.fftn(x, s=(2,), axes=(0, 1)), ShapeError, "one size for each axis, got 1 sizes and 2 axes"),
            (lambda: fft.fftn(x, s=(2, 2, 2)), ShapeError, "at most 2 sizes, got 3"),
            (lambda: fft.fftn(x, s=4), ShapeError, "s must be a sequence of integers, got 4"),
            (lambda: fft.fftn(x, s=(0, 4)), ShapeError, "would have 0 points"),
            (lambda: fft.fft(x, n=2**62), ShapeError, "the result of fft must have at most"),
            (lambda: fft.fftfreq(0), ShapeError, "n must be an integer of at least 1"),
            (lambda: fft.fftfreq(4, d=0), ArgumentError, "d must be a number other than 0"),
            (lambda: fft.fftfreq(4, d=math.inf), ArgumentError, "d must be a number, finite"),
            (lambda: fft.fftfreq(4, dtype="complex64"), DTypeError, "dtype must be real floating"),
        ):
            with pytest.raises(error, match=words):
                call()
