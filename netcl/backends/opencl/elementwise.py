"""The array calls that are made of expressions, put together."""

from __future__ import annotations

from netcl.backends.opencl.ops.arg_reduce import ArgReduceCalls
from netcl.backends.opencl.ops.reduce import ReduceCalls


class ElementwiseCalls(ReduceCalls, ArgReduceCalls):
    """map, reduce and arg_reduce of :class:`~netcl.backends.base.ArrayOperations`."""
