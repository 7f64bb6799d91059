"""A package with a backend of two devices, found through its entry point.

It knows of its arrays only what the Array API standard says, so that it stands for a library netcl has no special ways
for. ``TOY_PREFERENCE`` in the environment says how its devices rank; without it they are used only when named.
"""

import os
from dataclasses import replace
from functools import cache

import array_api_compat.numpy

from netcl.backends.base import EXTENSION_DEVICE, NAMED_ONLY
from netcl.backends.reference import ReferenceBackend
from netcl.backends.reference.namespace import Namespace


@cache
def opened(index):
    backend = ReferenceBackend(Namespace(array_api_compat.numpy), "toy", index=index)
    backend.device = replace(backend.device, name="toy card", platform="toys")
    return backend


class ToyProvider:
    def devices(self):
        return [opened(index).device for index in range(2)]

    def open(self, device):
        return opened(device.index)

    def preference(self, device):
        return float(os.environ.get("TOY_PREFERENCE", NAMED_ONLY))

    def dlpack_device_type(self, device):
        return EXTENSION_DEVICE
