"""fill over flat spans of any dtype."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.scalars import WORDS, bit_pattern
from netcl.backends.opencl.device.flat_launch import FlatPlan, launch_flat, plan_flat
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue


@final
class Fill:
    """fill of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._plans: dict[tuple[Any, ...], FlatPlan] = {}

    def fill(self, x: Span, a: Scalar) -> None:
        """x ← a. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If ``a`` is not a value of x's dtype.
        """
        dtype = x.buffer.dtype
        if dtype.kind == "c":
            self._queue.require(dtype)
        value = bit_pattern(a, dtype)
        knobs = self._queue.knobs("fill")
        plan = self._plans.get((knobs, dtype))
        if plan is None:
            name, argument = WORDS[dtype.itemsize]
            arguments = (argument, None, np.uint64, np.uint64)
            plan = plan_flat(self._queue, "fill", knobs, (dtype,), (("WORD", name),), arguments)
            self._plans[knobs, dtype] = plan
        launch_flat(self._queue, plan, x.size, value, cl_buffer(x), x.offset, x.size)
