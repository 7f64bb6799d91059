"""Every exception that netcl raises on purpose.

Each message names the value, the rule and the remedy, and is raised before anything is launched or changed. The
classes derive from the built-in exception a NumPy or torch user would catch, so existing ``except`` clauses work.
"""

from __future__ import annotations


class NetclError(Exception):
    """Base class of the errors below."""


class BackendError(NetclError, RuntimeError):
    """A backend, runtime or device is unknown, missing or broken."""


class KernelBuildError(BackendError):
    """A kernel failed to build; the message holds kernel, device, options and build log."""


class TuningError(NetclError, ValueError):
    """A tuning table is broken, or a knob in it out of range; the message names file, key and rule."""


class DeviceMemoryError(NetclError, MemoryError):
    """A device cannot hold what was asked for; the message holds bytes asked, free and largest block."""


class DeviceMismatchError(NetclError, ValueError):
    """Arrays of different devices met in one operation."""


class ShapeError(NetclError, ValueError):
    """Shapes do not fit the operation."""


class AxisError(ShapeError, IndexError):
    """An axis is out of range or named twice."""


class ArgumentError(NetclError, TypeError, ValueError):
    """An argument has a type or a value that the function does not take."""


class DTypeError(NetclError, TypeError):
    """A data type does not fit the operation or the device."""


class RangeError(DTypeError, OverflowError):
    """A number lies beyond what a data type holds."""


class LinAlgError(NetclError, ValueError):
    """A matrix is singular or not positive definite, or a factorization of it did not converge."""


class HyperParameterError(NetclError, ValueError):
    """A hyper-parameter is out of range or contradicts another."""


class TapeError(NetclError, RuntimeError):
    """The tape cannot differentiate what it was asked to."""


class TraceError(NetclError, TypeError):
    """A Python function cannot be turned into an expression; the message names the line at fault."""


class StateError(NetclError, ValueError):
    """A checkpoint does not fit; the message names the first mismatch."""


class DistributedError(NetclError, RuntimeError):
    """Ranks that work together do not fit each other, one is missing, or MPI itself is."""
