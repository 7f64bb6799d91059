"""The tape, and every differentiable function under one name: ``import netcl.autograd as ag``."""

from netcl.functional import *  # noqa: F403
from netcl.functional import __all__ as _functions
from netcl.tape import Tape, is_recording, no_grad

__all__ = ["Tape", "is_recording", "no_grad", *_functions]
