"""netcl: training for every device that speaks OpenCL, with a NumPy reference.

The module is an Array API namespace (version 2025.12): ``netcl.asarray``, ``netcl.sum``, ``netcl.matmul`` and all the
others work on Tensors of any backend. ``netcl.functional`` has what neural networks need beyond it, ``netcl.autograd``
records and differentiates, ``netcl.nn`` holds layers, ``netcl.optim`` optimizers.

>>> import netcl
>>> x = netcl.asarray([1.0, 2.0], requires_grad=True)
>>> with netcl.autograd.Tape() as tape:
...     loss = netcl.sum(x * x)
>>> tape.backward(loss)
>>> x.grad.tolist()
[2.0, 4.0]
"""

# Each name is registered once, in its module's __all__. ``name as name`` and stars export to type checkers too.
from importlib import import_module as _import_module
from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi
from typing import TYPE_CHECKING
from typing import Any as _Any

from netcl import autograd as autograd
from netcl import backends as backends
from netcl import creation, dtypes, einops_backend, inspection, ranges
from netcl import errors as errors
from netcl import fft as fft
from netcl import functional as functional
from netcl import linalg as linalg
from netcl import opencl as opencl
from netcl import random as random
from netcl import special as special
from netcl.backends import available as available
from netcl.backends import devices as devices
from netcl.backends import get_backend as get_backend
from netcl.backends import set_backend as set_backend
from netcl.backends import use_backend as use_backend
from netcl.creation import *
from netcl.dtypes import *
from netcl.functional.array_api import *
from netcl.inspection import *
from netcl.random import manual_seed as manual_seed
from netcl.ranges import *
from netcl.tensor import Tensor as Tensor
from netcl.version import __version__ as __version__

if TYPE_CHECKING:
    from netcl import amp as amp
    from netcl import checkpoint as checkpoint
    from netcl import data as data
    from netcl import distributed as distributed
    from netcl import nn as nn
    from netcl import optim as optim
    from netcl.checkpoint import load as load
    from netcl.checkpoint import save as save
    from netcl.checkpoint import to_torch_state_dict as to_torch_state_dict

einops_backend.register()
__array_api_version__ = "2025.12"
bool = dtypes.bool_
newaxis = None

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted([
        "Tensor", "__array_api_version__", "__version__", "amp", "autograd", "available", "backends", "bool", "data",
        "devices", "distributed", "e", "errors", "fft", "functional", "get_backend", "inf", "linalg", "load",
        "manual_seed", "nan", "newaxis", "nn", "opencl", "optim", "pi", "random", "save", "set_backend", "special",
        "to_torch_state_dict", "use_backend",
        *creation.__all__, *dtypes.__all__, *functional.array_api.__all__, *inspection.__all__,
        *ranges.__all__,
    ])  # fmt: skip
    _PARTS = ("amp", "checkpoint", "data", "distributed", "nn", "optim")
    """Imported when they are first asked for: half of the time of ``import netcl``."""

    _OF_CHECKPOINT = ("load", "save", "to_torch_state_dict")

    def __getattr__(name: str) -> _Any:
        if name in _PARTS:
            return _import_module(f"netcl.{name}")  # which makes it an attribute
        if name in _OF_CHECKPOINT:
            return getattr(_import_module("netcl.checkpoint"), name)
        raise AttributeError(f"module 'netcl' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PARTS, *_OF_CHECKPOINT})


del TYPE_CHECKING
