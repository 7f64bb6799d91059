"""The OpenCL backend, put together, and the factory that opens it on a device."""

from __future__ import annotations

import threading

from netcl.backends.opencl import devices
from netcl.backends.opencl.arrays import ArrayCalls
from netcl.backends.opencl.elementwise import ElementwiseCalls
from netcl.backends.opencl.flat import FlatCalls
from netcl.backends.opencl.update import UpdateCalls

_lock = threading.Lock()
_opened: dict[int, OpenCLBackend] = {}


class OpenCLBackend(FlatCalls, UpdateCalls, ElementwiseCalls, ArrayCalls):
    """One OpenCL device, with every operation of :class:`~netcl.backends.base.Backend`."""


def open_backend(selector: str = "") -> OpenCLBackend:
    """The backend on the first healthy device that ``selector`` means; there is one backend per device.

    Raises
    ------
    BackendError
        If there is no such device, or none of them works.
    """
    index = devices.choose(selector)
    with _lock:
        backend = _opened.get(index)
        if backend is None:
            backend = _opened[index] = OpenCLBackend(devices.listing()[index], index)
        return backend
