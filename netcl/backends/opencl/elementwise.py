"""The array calls that are made of expressions, put together."""

from __future__ import annotations

from netcl.backends.opencl.extrema import ArgReduceCalls
from netcl.backends.opencl.reduction import ReduceCalls


class ElementwiseCalls(ReduceCalls, ArgReduceCalls):
    """map, reduce and arg_reduce of :class:`~netcl.backends.base.ArrayOperations`."""
