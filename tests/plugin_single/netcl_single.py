"""The first OpenCL device that works as one without 64-bit floats, which many GPUs are: ``NETCL_BACKEND=single``."""

from dataclasses import replace
from functools import cache

from netcl.backends import get_backend
from netcl.backends.base import NAMED_ONLY, OPENCL_DEVICE, Device
from netcl.backends.opencl.backend import OpenCLBackend
from netcl.backends.opencl.device.queue import Queue

DEVICE = Device("single", name="an OpenCL device without float64", platform="toys")


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
        return [replace(DEVICE, kind=get_backend("opencl").device.kind)]

    def open(self, device):
        return opened()

    def preference(self, device):
        return NAMED_ONLY

    def dlpack_device_type(self, device):
        return OPENCL_DEVICE
