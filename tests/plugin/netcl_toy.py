"""A package with a backend of two devices, found through its entry point.

It knows of its arrays only what the Array API standard says, so that it stands for a library netcl has no special ways
for. ``TOY_PREFERENCE`` in the environment says how its devices rank; without it they are used only when named.
"""

import os
from dataclasses import replace
from functools import cache

from netcl.backends.base import EXTENSION_DEVICE, NAMED_ONLY
from netcl.backends.reference import ReferenceBackend
from netcl.backends.reference.namespace import Namespace


class ToyBackend(ReferenceBackend):
    """NumPy, used through the standard alone."""

    def __init__(self, index):
        super().__init__(name="toy", index=index)
        self.namespace = Namespace(self.namespace.xp)
        self._device = replace(self._device, name="toy card", platform="toys", shares_host_memory=False)


@cache
def opened(index):
    return ToyBackend(index)


class ToyProvider:
    def devices(self):
        return [opened(index).device for index in range(2)]

    def open(self, device):
        return opened(device.index)

    def preference(self, device):
        return float(os.environ.get("TOY_PREFERENCE", NAMED_ONLY))

    def dlpack_device_type(self, device):
        return EXTENSION_DEVICE
