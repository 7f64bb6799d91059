"""Running sums, products and extremes along an axis of elementwise maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from netcl import expression as ex
from netcl.backends.base import Scalar, View
from netcl.backends.opencl.codegen import operands
from netcl.backends.opencl.codegen.combination import accumulated_terms, combination, identity
from netcl.backends.opencl.codegen.literals import c_literal
from netcl.backends.opencl.codegen.operands import SIZE_MASK
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.writer import statements, value_dtypes
from netcl.backends.opencl.device.arguments import arguments, check_count, check_dtypes, check_shapes
from netcl.backends.opencl.device.complex_views import split_views
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.backends.opencl.ops.map import Map
from netcl.backends.opencl.ops.reduce import (
    ComplexParts,
    Reduce,
    ReductionLoops,
    complex_parts,
    complex_product,
    plan_loops,
)
from netcl.complex_pairs import split_numbers
from netcl.dtypes import DType
from netcl.errors import ShapeError
from netcl.expression import Expression
from netcl.strides import contiguous_strides

OPERATORS = ("sum", "prod", "max", "min")

SHORTEST = 1 << 19
"""Elements of a part, at least, on a CPU runtime: parts cost two more launches and a second reading of the input."""

GROUP_ROUNDS = 8
"""Rounds of a work-group through a part, at least, on other devices."""

COLUMN_PART = 64
"""Elements of a part of a column, at least, on other devices."""


class ScanPlan(NamedTuple):
    """How one scan over views of given shapes and strides runs, without the operands."""

    kernel: Kernel
    global_size: tuple[int]
    local_size: tuple[int]
    numbers: tuple[int, ...]
    last: tuple[int, ...]
    parts: int
    chunk: int
    accumulator: DType


@final
class Scan:
    """scan of :class:`~netcl.backends.base.ArrayOperations`; ``reduce`` finds what the parts of a long axis come to.

    ``map`` multiplies complex numbers.
    """

    def __init__(self, queue: Queue, reduce: Reduce, map: Map) -> None:
        self._queue = queue
        self._reduce = reduce
        self._map = map
        self._plans: dict[tuple[Any, ...], ScanPlan] = {}

    def scan(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        """out ← running op along ``axis`` of expression(inputs). See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        Where few rows would leave the device idle they are cut into parts: a reduction finds what each comes to, a scan
        of these where the parts begin, and the input is read twice. A product of floats follows the order of the
        elements within a part on CPU runtimes; elsewhere neighbours are multiplied first, as in ``reduce``.

        Raises
        ------
        ShapeError
            If the views' shapes do not fit, or they are not as many as the expression has.
        DTypeError
            If a view or scalar does not have the expression's dtype, or the device cannot compute with it.
        """
        shapes = [view.shape for view in inputs]
        strides = [view.strides for view in inputs]
        key = (op, expression.key, axis, out.buffer.dtype, out.shape, out.strides, *shapes, *strides)
        plan = self._plans.get(key)
        if plan is None:
            self._check(op, expression, inputs, axis, out, scalars)
            if 0 in out.shape:
                return
            parts = complex_parts(op, expression, out.dtype)
            if parts is not None:
                self._scan_parts(op, parts, inputs, axis, out, scalars)
                return
            plan = self._plan(op, expression, inputs, axis, out)
            remember(self._plans, key, plan)
        check_dtypes(expression.name, inputs, expression.inputs)
        first = arguments(expression, inputs, scalars)
        if plan.parts > 1:
            before = self._before(op, expression, inputs, axis, scalars, plan)
            first[2 * len(inputs) : 2 * len(inputs)] = (cl_buffer(before), 0)
        self._queue.launch(
            plan.kernel, plan.global_size, plan.local_size, *first, *plan.numbers, cl_buffer(out), out.offset,
            *plan.last,
        )  # fmt: skip

    def _check(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        if op not in OPERATORS:
            raise ShapeError(f"unknown scan {op!r}; one of {', '.join(OPERATORS)}")
        check_count(expression, inputs, (out,), scalars)
        check_shapes(expression.name, (*inputs, out))
        if not 0 <= axis < len(out.shape):
            raise ShapeError(f"axis {axis} of shape {out.shape}; pass one from 0 to {len(out.shape) - 1}")
        self._queue.require(*expression.inputs, *expression.scalars, *expression.stored, out.dtype)

    def _scan_parts(
        self,
        op: str,
        parts: ComplexParts,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        """The scan of complex numbers: of each part by itself where the result is not a product."""
        if op == "prod" and len(parts.reals) == 2:
            self._multiply_along(parts.whole, inputs, axis, out, scalars)
            return
        views, numbers = split_views(inputs), split_numbers(scalars, parts.whole.scalars)
        for expression, target in zip(parts.reals, split_views([out]), strict=True):
            self.scan(op, expression, views, axis, target, numbers)

    def _multiply_along(
        self, terms: Expression, inputs: Sequence[View], axis: int, out: View, scalars: Sequence[Scalar]
    ) -> None:
        """Running products of complex numbers: after step k each holds those of the 2**k up to it."""
        dtype, n = terms.stored[0], out.shape[axis]
        kept = math.prod(out.shape) // n
        now = self._reduce.copied(terms, inputs, (axis,), scalars)
        after = self._queue.alloc(kept * n, dtype)
        step = 1
        while step < n:
            head, last = (View(memory, 0, (kept, step), (n, 1)) for memory in (now, after))
            self._map.map(ex.conversion(dtype, dtype), (head,), (last,))
            first, second = (View(now, start, (kept, n - step), (n, 1)) for start in (0, step))
            self._map.map(complex_product(dtype), (first, second), (View(after, step, (kept, n - step), (n, 1)),))
            now, after, step = after, now, 2 * step
        others = _without(out.shape, axis)
        source = View(now, 0, (*others, n), contiguous_strides((*others, n)))
        target = View(out.buffer, out.offset, source.shape, (*_without(out.strides, axis), out.strides[axis]))
        self._map.map(ex.conversion(dtype, out.dtype), (source,), (target,))

    def _before(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        scalars: Sequence[Scalar],
        plan: ScanPlan,
    ) -> View:
        """What the first parts come to, up to and with each of them: one array per part."""
        parts, chunk = plan.parts - 1, plan.chunk
        cut = [
            View(
                view.buffer,
                view.offset,
                (*view.shape[:axis], parts, chunk, *view.shape[axis + 1 :]),
                (*view.strides[:axis], chunk * view.strides[axis], *view.strides[axis:]),
            )
            for view in inputs
        ]
        shape = inputs[0].shape
        others = _without(shape, axis)
        strides = contiguous_strides(others)
        totals = View(
            self._queue.alloc(parts * math.prod(others), plan.accumulator),
            0,
            (*shape[:axis], parts, *shape[axis + 1 :]),
            (*strides[:axis], math.prod(others), *strides[axis:]),
        )
        self._reduce.reduce(op, expression, cut, (axis + 1,), totals, scalars)
        if parts > 1:
            self.scan(op, ex.conversion(plan.accumulator, plan.accumulator), (totals,), axis, totals)
        return totals

    def _plan(self, op: str, expression: Expression, inputs: Sequence[View], axis: int, out: View) -> ScanPlan:
        terms = accumulated_terms(op, expression, out.dtype)
        accumulator = terms.stored[0]
        extent = out.shape[axis]
        others = _without(out.shape, axis)
        target = View(out.buffer, 0, others, _without(out.strides, axis))
        loops = plan_loops(inputs, (axis,), target)
        width = self._queue.lanes("scan", *value_dtypes(terms), out.dtype)
        parts, chunk = self._parts(loops, extent, width)
        views = list(inputs)
        if parts > 1:
            strides = contiguous_strides(others)
            views.append(View(out.buffer, 0, out.shape, (*strides[:axis], 0, *strides[axis:])))
            loops = plan_loops(views, (axis,), target)
        kept = math.prod(loops.kept.shape)
        rows = kept * parts * (-(-loops.lanes // width) if loops.columns else 1)
        items = 1 if loops.columns or self._queue.is_cpu else self._group(extent, width)
        group = items
        if items == 1:
            group = (16 if rows >= 256 else 1) if self._queue.is_cpu else self._queue.work_group_size
        steps = [view.strides[axis] for view in (*views, out)]
        kernel, numbers = self._kernel(op, terms, out.dtype, loops, steps, len(inputs), width, items, group)
        if parts > 1:
            numbers.append(math.prod(others))
        last = (kept, extent, chunk, parts)
        return ScanPlan(
            kernel, whole_groups(rows * items, group), (group,), tuple(numbers), last, parts, chunk, accumulator
        )

    def _parts(self, loops: ReductionLoops, extent: int, width: int) -> tuple[int, int]:
        """As few parts as keep the device busy, each long enough to be worth it, and the elements of one."""
        units = self._queue.cl_device.max_compute_units
        items = math.prod(loops.kept.shape) * (-(-loops.lanes // width) if loops.columns else 1)
        if self._queue.is_cpu:
            wanted, shortest = units, SHORTEST // (width if loops.columns else 1)
        elif loops.columns:
            wanted, shortest = 32 * units * self._queue.work_group_size, COLUMN_PART
        else:
            wanted, shortest = 4 * units, GROUP_ROUNDS * self._queue.work_group_size * width
        parts = 1
        if items < wanted:
            parts = max(min(-(-wanted // items), extent // shortest), 1)
        chunk = -(-extent // (parts * width)) * width
        return -(-extent // chunk), chunk

    def _group(self, extent: int, width: int) -> int:
        """Work-items that share a row: as many as it has vectors, at most a whole work-group."""
        items = 1
        while items < self._queue.work_group_size and items * width < extent:
            items *= 2
        return max(items, 2)

    def _kernel(
        self,
        op: str,
        terms: Expression,
        result: DType,
        loops: ReductionLoops,
        along: Sequence[int],
        count: int,
        width: int,
        items: int,
        group: int,
    ) -> tuple[Kernel, list[int]]:
        """The kernel for operands whose strides along the axis are ``along``, and the numbers it takes after them."""
        accumulator, continued = terms.stored[0], len(along) > count + 1
        named = [(f"x{k}", dtype) for k, dtype in enumerate(terms.inputs)]
        named += [(f"x{count}", accumulator)] if continued else []
        parameters, types = operands.parameters(named, terms.scalars)
        rank = len(loops.kept.shape)
        extra = [f"u_extent{axis}" for axis in range(1, rank)]
        numbers = list(loops.kept.shape[1:])
        kept, steps, loads = operands.indices("u", rank, "u_extent"), [], []
        before, put = "", ""
        lane_strides = loops.lane_strides if loops.columns else tuple(along)
        for position, name in enumerate([*(name for name, _ in named), "r0"]):
            written = name == "r0"
            strides = [f"{name}_kept{axis}" for axis in range(rank)]
            extra += strides
            numbers += [every[position] & SIZE_MASK for every in loops.kept.strides]
            kept.append(f"const size_t {name}_kept = {operands.address(f'{name}_offset', 'u', strides)};")
            access = operands.access(lane_strides[position], written=written)
            if access == "strided":
                extra.append(f"{name}_lane")
                numbers.append(lane_strides[position] & SIZE_MASK)
            if continued and position == count:
                start = f"{name}_kept + (part - 1) * {name}_part"
                load = operands.load(accumulator, access, position, start)
                before = f"{load} total = v{count};" if loops.columns else f"total = LOAD(SUM, {name}, {start});"
                continue
            if loops.columns:
                extra.append(f"{name}_step")
                numbers.append(along[position] & SIZE_MASK)
            steps.append(f"const size_t {name}_at = {name}_kept{f' + k * {name}_step' if loops.columns else ''};")
            if written:
                unit = access == "unit"
                put = (
                    "PUT(OUT, value, r0, r0_at + i)"
                    if unit
                    else "SCATTER(OUT, value, r0, r0_at + i * r0_lane, r0_lane)"
                )
            else:
                loads.append(operands.load(terms.inputs[position], access, position, f"{name}_at"))
        if loops.columns:
            extra.append("lanes")
            numbers.append(loops.lanes)
        extra += [f"x{count}_part"] if continued else []
        lines, (value,) = statements(terms, operands.names(terms), width)
        wide, wide_result = combination(op, accumulator, width)
        single, single_result = combination(op, accumulator, 1)
        generated = "".join(
            operands.define(name, text)
            for name, text in (
                ("PARAMETERS", [", ".join([*parameters, *(f"const ulong {name}" for name in extra)])]),
                ("IDENTITY", [c_literal(identity(op, accumulator), accumulator)]),
                ("COMBINE_VECTORS", [*wide, f"return {wide_result};"]),
                ("COMBINE_VALUES", [*single, f"return {single_result};"]),
                ("KEPT_AXES", kept),
                ("STEPS", steps),
                ("LOADS", loads),
                ("STATEMENTS", lines),
                ("VALUE", [value]),
                ("BEFORE", [before]),
                ("RESULTS(value)", [put]),
            )
        )
        floating = accumulator.kind == "f"
        defines = (
            ("WIDTH", width), ("COLUMNS", int(loops.columns)), ("ITEMS", items),
            ("COMPENSATED", int(op == "sum" and floating)),
            ("ONE_BY_ONE", int(op == "prod" and floating and items == 1)), ("CONTINUED", int(continued)),
            ("SUM", TAG[accumulator]), ("OUT", TAG[result]), ("WORK_GROUP_SIZE", group),
        )  # fmt: skip
        types += [*[np.uint64] * len(extra), None, *[np.uint64] * 5]
        return self._queue.kernels.shared("scan.cl", "scan", defines, generated, tuple(types)), numbers


def _without(numbers: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return numbers[:axis] + numbers[axis + 1 :]
