"""What the benchmarks share: the runtimes they compare and the ways to reach them."""

from __future__ import annotations

from functools import cache
from typing import Any

import netcl
from netcl.backends import get_backend

# Fixed, so that results of different machines and days line up; a runtime that a machine lacks is left out there.
RUNTIMES = ("numpy", "opencl:intel", "opencl:pocl", "opencl:gpu")
SIZES = (1_000, 100_000, 10_000_000)


@cache
def backend_of(runtime: str) -> Any:
    """The backend for a runtime, made once per process because asv calls ``setup`` before every sample."""
    return get_backend(runtime)


def require(runtime: str) -> Any:
    """The backend for a runtime. asv skips the benchmark where there is none."""
    try:
        return backend_of(runtime)
    except netcl.errors.BackendError as error:
        raise NotImplementedError(str(error)) from error
