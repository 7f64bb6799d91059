"""Operands for the conformance suite: arrays anywhere in a larger buffer, and whether anything beside them changed."""

from __future__ import annotations

import math

import numpy as np

from netcl import dtypes
from netcl.backends.base import Span, View
from netcl.strides import contiguous_strides

INTEGERS = (
    dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64, dtypes.uint8, dtypes.uint16, dtypes.uint32, dtypes.uint64,
)  # fmt: skip
FLOATS = (dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
ALL = (dtypes.bool_, *INTEGERS, *FLOATS)

SHORT_INTEGERS = (dtypes.int8, dtypes.int32, dtypes.uint64)
SHORT = (dtypes.bool_, *SHORT_INTEGERS, *FLOATS)
"""Each class of dtypes and each width, for what is compiled anew for a dtype: the rows of ``pytest.mark.short``."""

# Half a unit in the last place, relative.
EPSILON = {
    dtypes.float16: 2.0**-11,
    dtypes.bfloat16: 2.0**-8,
    dtypes.float32: 2.0**-24,
    dtypes.float64: 2.0**-53,
}


# The smallest number above zero: below it no relative error can be asked for.
SMALLEST = {
    dtypes.float16: 2.0**-24,
    dtypes.bfloat16: 2.0**-133,
    dtypes.float32: 2.0**-149,
    dtypes.float64: 2.0**-1074,
}


def storage(dtype) -> np.dtype:
    """The NumPy dtype in which elements travel."""
    return np.dtype(np.uint16 if dtype is dtypes.bfloat16 else dtype.name)


def encode(values, dtype) -> np.ndarray:
    """``values`` rounded to storage of ``dtype``."""
    values = np.asarray(values)
    if dtype is not dtypes.bfloat16:
        with np.errstate(all="ignore"):
            return values.astype(storage(dtype))
    wide = values.astype(np.float64)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(wide)[1] - 8, -133)
        rounded = np.ldexp(np.rint(np.ldexp(wide, -exponent)), exponent).astype(np.float32)
    return np.where(np.isnan(values), 0x7FC0, rounded.view(np.uint32) >> 16).astype(np.uint16)


def decode(stored, dtype) -> np.ndarray:
    """Stored elements as numbers: float64 for the floats, else what NumPy has."""
    if dtype is dtypes.bfloat16:
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):  # widening a signalling NaN warns
        return stored.astype(np.float64) if dtype.kind == "f" else stored


class Operand:
    """An array in a buffer that is larger than it, filled with other numbers on both sides and between.

    Parameters
    ----------
    values : array-like
        Numbers; rounded to ``dtype``.
    strides : tuple of int, optional
        In elements; row-major by default. Where a stride is 0 the last of the values stays.
    offset : int, default 3
        Elements before the first one.
    """

    def __init__(self, backend, values, dtype, strides=None, offset=3):
        stored = encode(values, dtype)
        self.backend, self.dtype, self.shape = backend, dtype, stored.shape
        self.strides = contiguous_strides(self.shape) if strides is None else tuple(strides)
        reach = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        empty = math.prod(self.shape) == 0
        low = 0 if empty else sum(min(0, r) for r in reach)
        high = -1 if empty else sum(max(0, r) for r in reach)
        rng = np.random.default_rng(len(reach))
        size = offset + high - low + 1 + 5
        canaries = rng.integers(0, 2 if dtype is dtypes.bool_ else 100, size)
        self.start = offset - low
        self.before = canaries.astype(storage(dtype))
        self._window(self.before)[...] = stored
        self.buffer = backend.alloc(size, dtype)
        backend.upload(self.before, Span(self.buffer, 0, size))

    def _window(self, host):
        if math.prod(self.shape) == 0:
            return np.empty(self.shape, host.dtype)
        item = host.itemsize
        return np.ndarray(self.shape, host.dtype, host, self.start * item, [s * item for s in self.strides])

    @property
    def view(self) -> View:
        return View(self.buffer, self.start, self.shape, self.strides)

    @property
    def span(self) -> Span:
        return Span(self.buffer, self.start, math.prod(self.shape))

    @property
    def given(self) -> np.ndarray:
        """The numbers that were put in, as rounded."""
        return decode(self._window(self.before).copy(), self.dtype)

    @property
    def stored(self) -> np.ndarray:
        """The stored elements now, after a check that nothing beside them changed."""
        now = self.backend.download(Span(self.buffer, 0, self.buffer.size))
        inside = np.zeros(now.size, bool)
        self._window(inside)[...] = True
        assert now.dtype == storage(self.dtype)
        np.testing.assert_array_equal(now[~inside], self.before[~inside], "elements beside the operand changed")
        return self._window(now).copy()

    @property
    def values(self) -> np.ndarray:
        """The numbers now, after the same check."""
        return decode(self.stored, self.dtype)

    def unchanged(self) -> bool:
        now = self.backend.download(Span(self.buffer, 0, self.buffer.size))
        return now.tobytes() == self.before.tobytes()


def zeros(backend, shape, dtype, **where) -> Operand:
    return Operand(backend, np.zeros(shape), dtype, **where)


def assert_close(found, expected, dtype, ulps=4.0, absolute=0.0, message=""):
    """``found`` is ``expected`` to a few units of ``dtype``, and NaN and infinite in the same places."""
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            found, expected, rtol=2 * ulps * EPSILON[dtype], atol=absolute + SMALLEST[dtype], err_msg=message
        )


def supported(backend, candidates=FLOATS):
    return [dtype for dtype in candidates if backend.supports(dtype)]
