"""Spans in the middle of their buffers, for fill, scale and axpy, and numbers on which all arithmetic is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import Span
from netcl.dtypes import bfloat16, float16, float32, float64
from netcl.host_dtypes import STORAGE

REAL = [dtype for dtype in dtypes.ALL if dtype.kind != "c"]
INTEGERS = [dtype for dtype in REAL if dtype.kind in "iu"]
FLOATS = [float16, bfloat16, float32, float64]
SHORT = [dtypes.bool_, dtypes.int8, dtypes.int32, dtypes.uint64, *FLOATS]  # see netcl/testing/conformance/operands.py
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
