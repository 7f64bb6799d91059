"""Operands with any strides, set among canaries that must survive."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from netcl.backends.base import Span, View
from netcl.dtypes import DType, bfloat16
from netcl.host_dtypes import STORAGE

CANARY = 0xA5
MARGIN = 7


class Strided:
    """``host`` in a buffer of its own, its axes in memory in ``order``, ``step`` elements apart, some reversed.

    ``repeated`` axes have stride 0: along them only the first element of ``host`` counts.
    """

    def __init__(self, opencl, host, dtype: DType, order, step=1, reverse=(), repeated=(), offset=0):
        self.opencl, self.dtype = opencl, dtype
        strides = [0] * host.ndim
        extent = step
        for axis in reversed(order):
            if axis not in repeated:
                strides[axis] = extent
                extent *= max(host.shape[axis], 1)
        start = offset
        for axis in reverse:
            if axis not in repeated:
                start += strides[axis] * max(host.shape[axis] - 1, 0)
                strides[axis] = -strides[axis]
        self.positions = np.full(host.shape, start, np.int64)
        for axis, stride in enumerate(strides):
            along = [1] * host.ndim
            along[axis] = -1
            self.positions += (np.arange(host.shape[axis]) * stride).reshape(along)
        for axis in repeated:
            host = np.repeat(host.take([0], axis), host.shape[axis], axis) if host.shape[axis] else host
        self.host = host
        self.size = offset + extent + MARGIN
        self.buffer = opencl.alloc(self.size, dtype)
        self.before = np.full(self.size * dtype.itemsize, CANARY, np.uint8).view(STORAGE[dtype])
        self.before[self.positions] = host
        opencl.upload(self.before, Span(self.buffer, 0, self.size))
        self.view = View(self.buffer, start, host.shape, tuple(strides))

    def whole(self):
        return self.opencl.download(Span(self.buffer, 0, self.size))

    def read(self):
        """The elements now; everything around them must be as it was."""
        now = self.whole()
        around = np.ones(self.size, bool)
        around[self.positions] = False
        np.testing.assert_array_equal(now[around].view(np.uint8), self.before[around].view(np.uint8))
        return now[self.positions]


def plain(opencl, host, dtype=None, offset=0):
    """A contiguous operand."""
    from netcl.dtypes import as_dtype

    return Strided(
        opencl, np.asarray(host), dtype or as_dtype(np.asarray(host).dtype), range(np.ndim(host)), 1, (), (), offset
    )


@st.composite
def layouts(draw, axes: int, repeatable=()):
    """Keyword arguments of :class:`Strided` for an operand with this many axes."""
    return {
        "order": tuple(draw(st.permutations(range(axes)))),
        "step": draw(st.sampled_from([1, 1, 2, 3])),
        "reverse": tuple(draw(st.sets(st.integers(0, axes - 1), max_size=1))),
        "repeated": tuple(draw(st.sets(st.sampled_from(repeatable), max_size=1))) if repeatable else (),
        "offset": draw(st.integers(0, 9)),
    }


def store(x, dtype: DType):
    """float64 as a host array of a dtype's elements (bfloat16 by cutting off, which serves for inputs)."""
    if dtype is bfloat16:
        return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.asarray(x).astype(STORAGE[dtype])


def widen(x, dtype: DType):
    """A host array of a dtype's elements as float64."""
    if dtype is bfloat16:
        return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return x.astype(np.float64)
