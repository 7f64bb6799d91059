"""Elementwise maps over strided views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, final

import numpy as np

from netcl.backends.base import Scalar, View
from netcl.backends.opencl.codegen import operands
from netcl.backends.opencl.codegen.operands import SIZE_MASK, Access
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.strided_loops import OUTER_AXES, Axes
from netcl.backends.opencl.codegen.writer import statements, value_dtypes
from netcl.backends.opencl.device.arguments import arguments, check_count, check_dtypes, check_shapes
from netcl.backends.opencl.device.complex_views import interleaved, split_views
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue
from netcl.complex_pairs import lowered, split_numbers
from netcl.dtypes import DType
from netcl.expression import Expression, conversion

RUN = 512
"""Neighbours that one work-item of a CPU goes through."""


class MapPlan(NamedTuple):
    """How one map over views of given shapes and strides runs: a launch for each piece, without the operands."""

    kernel: Kernel
    global_size: tuple[int, int]
    local_size: tuple[int, int]
    last: tuple[int, ...]
    pieces: tuple[tuple[int, ...], ...]


@final
class Map:
    """map of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._plans: dict[tuple[Any, ...], MapPlan | None] = {}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    def map(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar] = ()
    ) -> None:
        """outputs ← expression(inputs). See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If the views differ in shape, or are not as many as the expression has.
        DTypeError
            If a view or scalar does not have the expression's dtype, or the device cannot compute with it.
        """
        views = (*inputs, *outputs)
        key = (expression.key, *[view.shape for view in views], *[view.strides for view in views])
        try:
            plan = self._plans[key]
        except KeyError:
            plan = self._plan(expression, inputs, outputs, scalars, key)
        check_dtypes(expression.name, views, expression.inputs + expression.stored)
        if plan is None:
            self._map_parts(expression, inputs, outputs, scalars)
            return
        kernel, global_size, local_size, last, pieces = plan
        first = arguments(expression, views, scalars)
        for piece in pieces:
            for position, shift in enumerate(piece):
                first[2 * position + 1] = views[position].offset + shift
            self._queue.launch(kernel, global_size, local_size, *first, *last)

    def _plan(
        self,
        expression: Expression,
        inputs: Sequence[View],
        outputs: Sequence[View],
        scalars: Sequence[Scalar],
        key: tuple[Any, ...],
    ) -> MapPlan | None:
        check_count(expression, inputs, outputs, scalars)
        shape = outputs[0].shape
        check_shapes(expression.name, (*inputs, *outputs))
        self._queue.require(*expression.inputs, *expression.scalars, *expression.stored)
        plan = None
        if 0 not in shape and lowered(expression) is None:
            axes = Axes.of(shape, [view.strides for view in (*inputs, *outputs)]).ordered(len(inputs))
            plan = self._lay_out(expression, axes.merged().widened())
        remember(self._plans, key, plan)
        return plan

    def _map_parts(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar]
    ) -> None:
        """The map over the parts of complex numbers; nothing where there is nothing to map."""
        parts = lowered(expression)
        if parts is None or 0 in outputs[0].shape:
            return
        copied = _copied_dtypes(expression)
        if copied is not None:
            self.map(conversion(*copied), (interleaved(inputs[0]),), (interleaved(outputs[0]),))
            return
        self.map(parts, split_views(inputs), split_views(outputs), split_numbers(scalars, expression.scalars))

    def _lay_out(self, expression: Expression, axes: Axes) -> MapPlan:
        count, inputs = len(expression.inputs) + len(expression.stored), len(expression.inputs)
        outer, inner, steps = axes.split(count)
        accesses = tuple(operands.access(step, written=position >= inputs) for position, step in enumerate(steps))
        pieces, outer = outer.pieces(OUTER_AXES, count)
        width = self._queue.lanes("map", *value_dtypes(expression))
        rows = math.prod(outer.shape)
        per_item = width
        if self._queue.is_cpu:
            parts = -(-inner // RUN)
            per_item = -(-inner // (parts * width)) * width
        items = -(-inner // per_item)
        group = self._group(items, rows)
        kernel_key = (expression.key, accesses, len(outer.shape), group)
        kernel = self._kernels.get(kernel_key)
        if kernel is None:
            kernel = self._kernels[kernel_key] = self._kernel(expression, accesses, len(outer.shape), width, group)
        last = list(outer.shape[1:])
        for position in range(count):
            last += [strides[position] & SIZE_MASK for strides in outer.strides]
            if accesses[position] == "strided":
                last.append(steps[position] & SIZE_MASK)
        global_size = (-(-items // group[0]) * group[0], -(-rows // group[1]) * group[1])
        return MapPlan(kernel, global_size, group, (*last, inner, rows, per_item), pieces)

    def _group(self, items: int, rows: int) -> tuple[int, int]:
        """A work-group of items along the inner axis, or across rows where these are short."""
        if self._queue.is_cpu:
            return (16, 1) if rows < 16 or items >= 16 else (1, 32)
        return (self._queue.work_group_size, 1) if rows == 1 or items >= 24 else (4, self._queue.work_group_size // 4)

    def _kernel(
        self, expression: Expression, accesses: tuple[Access, ...], rank: int, width: int, group: tuple[int, int]
    ) -> Kernel:
        """The kernel for operands that lie along the inner axis as ``accesses`` says, with ``rank`` outer axes."""
        inputs = len(expression.inputs)
        named = [(f"x{k}", dtype) for k, dtype in enumerate(expression.inputs)]
        named += [(f"r{k}", dtype) for k, dtype in enumerate(expression.stored)]
        parameters, types = operands.parameters(named, expression.scalars)
        lines, results = statements(expression, operands.names(expression), width)
        extra = [f"const ulong e{axis}" for axis in range(1, rank)]
        rows = operands.indices("q", rank, "e")
        loads: list[str] = []
        stores: list[str] = []
        for position, ((name, dtype), access) in enumerate(zip(named, accesses, strict=True)):
            strides = [f"{name}_stride{axis}" for axis in range(rank)]
            extra += [f"const ulong {stride}" for stride in strides]
            extra += [f"const ulong {name}_lane"] if access == "strided" else []
            rows.append(f"const size_t {name}_row = {operands.address(f'{name}_offset', 'q', strides)};")
            if position < inputs:
                text = operands.load(dtype, access, position, f"{name}_row")
                # The same for the whole row, so loaded before the loop.
                (rows if access == "broadcast" else loads).append(text)
            elif access == "unit":
                stores.append(f"PUT({TAG[dtype]}, {results[position - inputs]}, {name}, {name}_row + i)")
            else:
                target = f"{name}_row + i * {name}_lane, {name}_lane"
                stores.append(f"SCATTER({TAG[dtype]}, {results[position - inputs]}, {name}, {target})")
        generated = operands.define("PARAMETERS", [", ".join(parameters + extra)]) + operands.define("ROWS", rows)
        generated += operands.define("LOADS", loads) + operands.define("STATEMENTS", lines)
        generated += operands.define("STORES", stores)
        defines = (("WIDTH", width), ("GROUP_INNER", group[0]), ("GROUP_OUTER", group[1]))
        return self._queue.kernels.shared(
            "map.cl", "map", defines, generated, (*types, *([np.uint64] * (len(extra) + 3)))
        )


@cache
def _copied_dtypes(expression: Expression) -> tuple[DType, DType] | None:
    """The dtypes of the parts where an expression does no more than copy or cast complex numbers."""
    if len(expression.inputs) != 1 or len(expression.outputs) != 1 or expression.scalars:
        return None
    (source,), (target,), (output,) = expression.inputs, expression.stored, expression.outputs
    while output.op == "cast" and output.dtype is target:
        (output,) = output.args
    plain = output.op == "input" and source.kind == target.kind == "c"
    return (source.part, target.part) if plain else None
