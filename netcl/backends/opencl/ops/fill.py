"""fill over flat spans of any dtype."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.scalars import WORDS, bit_pattern
from netcl.backends.opencl.device.complex_views import part_span
from netcl.backends.opencl.device.flat_launch import FlatPlan, launch_flat, plan_flat
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.ops.map import Map
from netcl.expression import trace


@final
class Fill:
    """fill of :class:`~netcl.backends.base.UpdateOperations`; ``map`` sets parts that differ."""

    def __init__(self, queue: Queue, map: Map) -> None:
        self._queue = queue
        self._map = map
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
            self._fill_parts(x, complex(a))
            return
        value = bit_pattern(a, dtype)
        knobs = self._queue.knobs("fill")
        plan = self._plans.get((knobs, dtype))
        if plan is None:
            name, argument = WORDS[dtype.itemsize]
            arguments = (argument, None, np.uint64, np.uint64)
            plan = plan_flat(self._queue, "fill", knobs, (dtype,), (("WORD", name),), arguments)
            self._plans[knobs, dtype] = plan
        launch_flat(self._queue, plan, x.size, value, cl_buffer(x), x.offset, x.size)

    def _fill_parts(self, x: Span, a: complex) -> None:
        """Complex elements, as one run of reals where both parts have the same bits."""
        self._queue.require(x.dtype)
        parts = part_span(x)
        if bit_pattern(a.real, parts.dtype) == bit_pattern(a.imag, parts.dtype):
            self.fill(parts, a.real)
        elif x.size:
            self._map.map(trace(lambda value: value, (), (x.dtype,)), (), (x.view(),), (a,))
