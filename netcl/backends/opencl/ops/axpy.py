"""axpy over flat spans of any dtypes."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.device.flat_launch import FlatPlan, factor, factor_parameter, launch_flat, plan_flat
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue
from netcl.dtypes import promote
from netcl.errors import ShapeError


@final
class Axpy:
    """axpy of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._plans: dict[tuple[Any, ...], FlatPlan] = {}

    def axpy(self, a: Scalar | Span, x: Span, y: Span) -> None:
        """y ← a·x + y, in the dtype that x and y promote to. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        ShapeError
            If x and y differ in size.
        DTypeError
            If the device cannot compute with a dtype, or ``a`` is not a value of the common one.
        """
        if x.size != y.size:
            raise ShapeError(f"axpy needs spans of one size, got x of {x.size} and y of {y.size} elements")
        x_dtype, y_dtype = x.buffer.dtype, y.buffer.dtype
        common = x_dtype if x_dtype is y_dtype else promote(x_dtype, y_dtype)
        self._queue.require_real("axpy", common)
        given, factor_dtype = factor(self._queue, a, common)
        knobs = self._queue.knobs("axpy")
        plan = self._plans.get((knobs, x_dtype, y_dtype, factor_dtype))
        if plan is None:
            defines, arguments = factor_parameter(factor_dtype, common)
            defines = (("X", TAG[x_dtype]), ("Y", TAG[y_dtype]), ("SUM", TAG[common]), *defines)
            arguments = (*arguments, None, np.uint64, None, np.uint64, np.uint64)
            plan = plan_flat(self._queue, "axpy", knobs, (x_dtype, y_dtype, common), defines, arguments)
            self._plans[knobs, x_dtype, y_dtype, factor_dtype] = plan
        launch_flat(self._queue, plan, x.size, *given, cl_buffer(x), x.offset, cl_buffer(y), y.offset, x.size)
