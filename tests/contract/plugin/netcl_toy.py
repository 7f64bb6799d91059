"""Two backends in a package of their own, found through its entry points.

``toy`` knows of its arrays only what the Array API standard says, so that it stands for a library netcl has no special
ways for; ``torch`` is torch on the CPU.
"""

from dataclasses import replace
from functools import cache

from netcl.backends.reference import ReferenceBackend
from netcl.backends.reference.namespace import Namespace


class ToyBackend(ReferenceBackend):
    """NumPy, used through the standard alone."""

    def __init__(self):
        super().__init__(name="toy")
        self.namespace = Namespace(self.namespace.xp)
        self._device = replace(self._device, shares_host_memory=False)


@cache
def _toy():
    return ToyBackend()


@cache
def _torch():
    import torch

    return ReferenceBackend(torch, name="torch")


def open_toy(selector):
    return _toy()


def open_torch(selector):
    return _torch()
