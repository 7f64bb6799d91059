"""The OpenCL backend, put together."""

from __future__ import annotations

from netcl.backends.opencl.arrays import ArrayCalls
from netcl.backends.opencl.elementwise import ElementwiseCalls
from netcl.backends.opencl.flat import FlatCalls
from netcl.backends.opencl.update import UpdateCalls


class OpenCLBackend(FlatCalls, UpdateCalls, ElementwiseCalls, ArrayCalls):
    """One OpenCL device, with every operation of :class:`~netcl.backends.base.Backend`."""
