"""What the benchmarks share: the runtimes and sizes they compare, and the ways to reach them."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

import netcl
from netcl.backends import get_backend
from netcl.backends.base import Span, View
from netcl.dtypes import DType
from netcl.host_dtypes import stored_as

SHORT = bool(os.environ.get("NETCL_BENCH_SHORT"))
"""Small sizes, few variants, one OpenCL device: to see that every benchmark runs."""

# Fixed, so that results of different machines and days line up; a runtime that a machine lacks is left out there.
RUNTIMES = ("opencl",) if SHORT else ("numpy", "opencl:intel", "opencl:portable", "opencl:gpu")
SIZES = (1_000,) if SHORT else (1_000, 100_000, 10_000_000)

DTYPES = (netcl.bfloat16, netcl.float64) if SHORT else (netcl.float16, netcl.bfloat16, netcl.float64)

# Size and dtype of one buffer. Beside float32, dtypes where memory is the limit: there they show what conversion costs.
BUFFERS = {f"{n:,} float32": (n, netcl.float32) for n in SIZES} | {
    f"{SIZES[-1]:,} {dtype}": (SIZES[-1], dtype) for dtype in DTYPES
}


@cache
def backend_of(runtime: str) -> Any:
    """The backend for a runtime, made once per process because asv calls ``setup`` before every sample."""
    return get_backend(runtime)


def require(runtime: str, dtype: DType = netcl.float32) -> Any:
    """The backend for a runtime. asv skips the benchmark where there is none, or none with this dtype."""
    try:
        backend = backend_of(runtime)
    except netcl.errors.BackendError as error:
        raise NotImplementedError(str(error)) from error
    if dtype is netcl.float64 and not backend.device.float64:
        raise NotImplementedError(f"{backend.device} has no float64")
    return backend


def spread(backend: Any, values: np.ndarray, dtype: DType) -> Span:
    """A new buffer with these values."""
    out = Span(backend.alloc(values.size, dtype), 0, values.size)
    backend.upload(stored_as(values, dtype).reshape(-1), out)
    return out


def matrix(span: Span, *shape: int) -> View:
    """A buffer as a contiguous array."""
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return View(span.buffer, span.offset, shape, strides)


def normal(*shape: int) -> np.ndarray:
    """The same draws every time."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
