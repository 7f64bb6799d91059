"""The tape and its context managers: ``import netcl.autograd as ag``.

Every function of ``netcl.functional`` is here too, under the same name: ``ag.cross_entropy`` is
``netcl.functional.cross_entropy``.
"""

from typing import TYPE_CHECKING

from netcl.functional import *
from netcl.tape import Tape as Tape
from netcl.tape import is_recording as is_recording
from netcl.tape import no_grad as no_grad

if not TYPE_CHECKING:  # as in netcl/functional/array_api.py
    __all__ = sorted(name for name, value in globals().items() if callable(value))
del TYPE_CHECKING
