"""scale over flat spans of any dtype."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.device.flat_launch import FlatPlan, factor, factor_parameter, launch_flat, plan_flat
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue


@final
class Scale:
    """scale of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._plans: dict[tuple[Any, ...], FlatPlan] = {}

    def scale(self, a: Scalar | Span, x: Span) -> None:
        """x ← a·x. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If the device cannot compute with x's dtype, or ``a`` is not a value of it.
        """
        dtype = x.buffer.dtype
        self._queue.require_real("scale", dtype)
        given, factor_dtype = factor(self._queue, a, dtype)
        knobs = self._queue.knobs("scale")
        plan = self._plans.get((knobs, dtype, factor_dtype))
        if plan is None:
            defines, arguments = factor_parameter(factor_dtype, dtype)
            defines = (("X", TAG[dtype]), *defines)
            arguments = (*arguments, None, np.uint64, np.uint64)
            plan = plan_flat(self._queue, "scale", knobs, (dtype,), defines, arguments)
            self._plans[knobs, dtype, factor_dtype] = plan
        launch_flat(self._queue, plan, x.size, *given, cl_buffer(x), x.offset, x.size)
