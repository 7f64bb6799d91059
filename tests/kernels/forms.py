"""Kernels in the form for CPUs and in the one for GPUs, on one backend."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import strategies as st

from netcl.backends.opencl.backend import OpenCLBackend
from netcl.backends.opencl.device.queue import Queue
from netcl.dtypes import bfloat16, float16, float32, float64

# Half a unit in the last place of a result, and of arithmetic in float32 or float64 over a few dozen elements.
TOLERANCE = {float16: 1e-3, bfloat16: 8e-3, float32: 4e-6, float64: 1e-14}


cpu_and_gpu = pytest.mark.parametrize("cpu", [True, False], ids=["cpu", "gpu"])
extents = st.integers(0, 9)


@contextmanager
def kernels_for(opencl, cpu):
    before, opencl.queue.is_cpu = opencl.queue.is_cpu, cpu
    try:
        yield
    finally:
        opencl.queue.is_cpu = before


def needs(opencl, *wanted):
    if not all(map(opencl.supports, wanted)):
        pytest.skip(f"{opencl.device} has no float64")


def log_softmax(x):
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = x - x.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def own_backend(opencl):
    """Another backend on the same device, with memory, plans, knobs and counters of its own."""
    return OpenCLBackend(Queue(opencl.queue.cl_device, opencl.device.index))
