"""The first OpenCL device that works as one without 64-bit floats, as many GPUs are: ``NETCL_BACKEND=single``.

With this folder in PYTHONPATH: ``python -m pytest --pyargs netcl.testing.conformance --netcl-backend=single``.
"""

from dataclasses import replace
from functools import cache

from netcl.backends import get_backend
from netcl.backends.base import NAMED_ONLY, OPENCL_DEVICE
from netcl.backends.opencl.backend import OpenCLBackend
from netcl.backends.opencl.device.queue import Queue


@cache
def opened():
    found = get_backend("opencl")
    queue = Queue(found.queue.cl_device, found.device.index)
    queue.device = replace(queue.device, backend="single", index=0, float64=False)
    return OpenCLBackend(queue)


class SingleProvider:
    """Its one device."""

    label = "single precision"

    def devices(self):
        return [opened().device]

    def open(self, device):
        return opened()

    def preference(self, device):
        return NAMED_ONLY

    def dlpack_device_type(self, device):
        return OPENCL_DEVICE
