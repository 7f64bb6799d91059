"""A backend over array-api-strict on a device that is not the host: its arrays refuse to become NumPy's."""

import array_api_strict

from netcl.backends.base import EXTENSION_DEVICE, NAMED_ONLY
from netcl.backends.reference import ReferenceBackend

BACKEND = ReferenceBackend(array_api_strict, "strict", place=array_api_strict.Device("device1"))


class StrictProvider:
    def devices(self):
        return [BACKEND.device]

    def open(self, device):
        return BACKEND

    def preference(self, device):
        return NAMED_ONLY

    def dlpack_device_type(self, device):
        return EXTENSION_DEVICE
