"""The OpenCL backend, put together, and the factory that opens it on a device."""

from __future__ import annotations

import re
import threading
from dataclasses import replace

from netcl.backends.opencl.device import selection
from netcl.backends.opencl.device.defects import Defects
from netcl.backends.opencl.elementwise import ElementwiseCalls
from netcl.backends.opencl.ops.flat import FlatCalls
from netcl.backends.opencl.ops.softmax import ArrayCalls
from netcl.backends.opencl.ops.update import UpdateCalls

_PART = re.compile(r"/\d+of\d+$")

_lock = threading.Lock()
_opened: dict[tuple[int, str], OpenCLBackend] = {}


class OpenCLBackend(FlatCalls, UpdateCalls, ElementwiseCalls, ArrayCalls):
    """One OpenCL device, with every operation of :class:`~netcl.backends.base.Backend`."""


def open_backend(selector: str = "") -> OpenCLBackend:
    """The backend on the first healthy device that ``selector`` means; there is one backend per device.

    A selector that ends in ``/0of2`` means the first of two equal parts of that device (OpenCL's sub-devices).

    Raises
    ------
    BackendError
        If there is no such device, none of them works, or it has no such part.
    """
    whole, _, part = selector.rpartition("/") if _PART.search(selector) else (selector, "", "")
    index = selection.choose(whole, thorough=True)
    with _lock:
        backend = _opened.get((index, part))
        if backend is None:
            device = selection.part_of(index, part) if part else selection.listing()[index]
            backend = _opened[index, part] = OpenCLBackend(device, index)
            backend.device = replace(backend.device, part=part)
            backend.defects = selection.health(index, thorough=True).defects or Defects()
        return backend
