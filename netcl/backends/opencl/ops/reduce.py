"""Reductions over any axes of elementwise maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, final

import numpy as np

from netcl import expression as ex
from netcl.backends.base import Scalar, View
from netcl.backends.opencl.codegen import operands
from netcl.backends.opencl.codegen.combination import COMBINE, accumulated_terms, combination, identity
from netcl.backends.opencl.codegen.literals import c_literal
from netcl.backends.opencl.codegen.operands import SIZE_MASK, Access
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.strided_loops import OUTER_AXES, Axes
from netcl.backends.opencl.codegen.writer import statements, value_dtypes
from netcl.backends.opencl.device.arguments import arguments, check_count, check_dtypes, check_shapes
from netcl.backends.opencl.device.complex_views import split_views
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import CLBuffer, cl_buffer
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.ops.map import Map
from netcl.complex_pairs import lowered, split_numbers, undefined
from netcl.dtypes import DType, bool_, promote
from netcl.errors import ShapeError
from netcl.expression import Expression
from netcl.strides import contiguous_strides

SHORT = 32
"""An axis shorter than this is not worth a work-item of its own if lanes can lie along another axis."""

ACCUMULATORS = 4
"""Independent accumulators of a work-item that reduces a row."""

COLUMN_BLOCK = 8
"""Vectors of neighbouring columns that one work-item of a CPU takes, so that it reads whole cache lines."""


class ReductionLoops(NamedTuple):
    """How a reduction visits its inputs: the kept and the reduced axes, and which of the two the lanes lie along."""

    columns: bool
    kept: Axes
    outer: Axes
    inner: int
    lanes: int
    lane_strides: tuple[int, ...]
    steps: tuple[int, ...]


class Split(NamedTuple):
    """How the reduced axes are cut into parts."""

    parts: int
    outer_part_size: int
    inner_part_size: int
    inner_parts: int


class ReducePlan(NamedTuple):
    """How one reduction over views of given shapes and strides runs, without the operands."""

    kernel: Kernel
    global_size: tuple[int]
    local_size: tuple[int]
    strides: tuple[int, ...]
    part_stride: int
    last: tuple[int, ...]
    parts: int
    accumulator: DType


class ComplexParts(NamedTuple):
    """What a reduction of complex numbers is of: ``whole``, and for each part of a result an expression of ``reals``.

    ``reals`` take the parts of the operands.
    """

    whole: Expression
    reals: tuple[Expression, ...]


@final
class Reduce:
    """reduce of :class:`~netcl.backends.base.ArrayOperations`; ``map`` copies what has too many axes, or multiplies."""

    def __init__(self, queue: Queue, map: Map) -> None:
        self._queue = queue
        self._map = map
        self._plans: dict[tuple[Any, ...], ReducePlan | None] = {}
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    def reduce(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        """out ← op over ``axes`` of expression(inputs). See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If the views' shapes do not fit, or they are not as many as the expression has.
        DTypeError
            If a view or scalar does not have the expression's dtype, or the device cannot compute with it.
        """
        if 0 in out.shape:
            self._check(op, expression, inputs, axes, out, scalars)
            return
        shapes = [view.shape for view in inputs]
        strides = [view.strides for view in inputs]
        key = (op, expression.key, axes, out.buffer.dtype, out.shape, out.strides, *shapes, *strides)
        try:
            plan = self._plans[key]
        except KeyError:
            self._check(op, expression, inputs, axes, out, scalars)
            plan = self._plan(op, expression, inputs, axes, out)
            remember(self._plans, key, plan)
        check_dtypes(expression.name, inputs, expression.inputs)
        if plan is None:
            parts = complex_parts(op, expression, out.dtype)
            if parts is None:
                self._reduce_copy(op, expression, inputs, axes, out, scalars)
            else:
                self._reduce_parts(op, parts, inputs, axes, out, scalars)
            return
        first = arguments(expression, inputs, scalars)
        target = out
        if plan.parts > 1:
            scratch = self._queue.alloc(plan.parts * math.prod(out.shape), plan.accumulator)
            target = View(scratch, 0, (plan.parts, *out.shape), contiguous_strides((plan.parts, *out.shape)))
        self._queue.launch(
            plan.kernel, plan.global_size, plan.local_size, *first, *plan.strides, cl_buffer(target),
            target.offset, plan.part_stride, *plan.last,
        )  # fmt: skip
        if plan.parts > 1:
            copy = ex.conversion(plan.accumulator, plan.accumulator)
            self.reduce(op, copy, (target,), (0,), out)

    def _check(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        if op not in COMBINE:
            raise ShapeError(f"unknown reduction {op!r}; one of {', '.join(COMBINE)}")
        check_count(expression, inputs, (out,), scalars)
        check_shapes(expression.name, inputs)
        shape = inputs[0].shape
        left = tuple([extent for axis, extent in enumerate(shape) if axis not in axes])
        if out.shape != left:
            raise ShapeError(f"{op} over axes {axes} of shape {shape} has shape {left}, the output has {out.shape}")
        self._queue.require(*expression.inputs, *expression.scalars, *expression.stored, out.dtype)

    def _reduce_copy(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        """The reduction by way of a contiguous copy, for more axes than a kernel visits."""
        terms = accumulated_terms(op, expression, out.dtype)
        accumulator = terms.stored[0]
        kept, reduced = math.prod(out.shape), math.prod(inputs[0].shape[axis] for axis in axes)
        copy = self.copied(terms, inputs, axes, scalars)
        total = self._queue.alloc(kept, out.dtype)
        flat = View(copy, 0, (kept, reduced), (reduced, 1))
        plain = ex.conversion(accumulator, accumulator)
        self.reduce(op, plain, (flat,), (1,), View(total, 0, (kept,), (1,)))
        result = View(total, 0, out.shape, contiguous_strides(out.shape))
        self._map.map(ex.conversion(out.dtype, out.dtype), (result,), (out,))

    def copied(
        self, terms: Expression, inputs: Sequence[View], axes: tuple[int, ...], scalars: Sequence[Scalar]
    ) -> CLBuffer:
        """What is to be reduced, in memory of its own: a contiguous row for each result."""
        shape = inputs[0].shape
        order = [axis for axis in range(len(shape)) if axis not in axes] + list(axes)
        moved = [
            View(view.buffer, view.offset, tuple(shape[a] for a in order), tuple(view.strides[a] for a in order))
            for view in inputs
        ]
        copy = self._queue.alloc(math.prod(shape), terms.stored[0])
        full = View(copy, 0, moved[0].shape, contiguous_strides(moved[0].shape))
        self._map.map(terms, moved, (full,), scalars)
        return copy

    def _reduce_parts(
        self,
        op: str,
        parts: ComplexParts,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        """The reduction of complex numbers: of each part by itself where the result is not a product."""
        if op == "prod" and len(parts.reals) == 2:
            self._multiply_up(parts.whole, inputs, axes, out, scalars)
            return
        views, numbers = split_views(inputs), split_numbers(scalars, parts.whole.scalars)
        for expression, target in zip(parts.reals, split_views([out]), strict=True):
            self.reduce(op, expression, views, axes, target, numbers)

    def _multiply_up(
        self,
        terms: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar],
    ) -> None:
        """The product of complex numbers, halves of each row by halves."""
        dtype = terms.stored[0]
        kept, length = math.prod(out.shape), math.prod(inputs[0].shape[axis] for axis in axes)
        if length == 0:
            one = ex.build((ex.constant(1, dtype),), (), (), (out.dtype,))
            self._map.map(one, (), (out,))
            return
        copy = self.copied(terms, inputs, axes, scalars)
        left = length
        while left > 1:
            half = (left + 1) // 2
            first, second = (View(copy, start, (kept, left - half), (length, 1)) for start in (0, half))
            self._map.map(complex_product(dtype), (first, second), (first,))
            left = half
        strides = tuple([length * stride for stride in contiguous_strides(out.shape)])
        self._map.map(ex.conversion(dtype, out.dtype), (View(copy, 0, out.shape, strides),), (out,))

    def _plan(
        self, op: str, expression: Expression, inputs: Sequence[View], axes: tuple[int, ...], out: View
    ) -> ReducePlan | None:
        if complex_parts(op, expression, out.dtype) is not None:
            return None
        terms = accumulated_terms(op, expression, out.dtype)
        accumulator = terms.stored[0]
        loops = plan_loops(inputs, axes, out)
        if len(loops.kept.shape) + len(loops.outer.shape) > OUTER_AXES:
            return None
        width = self._queue.lanes("reduce", *value_dtypes(terms), out.dtype)
        column_block = ACCUMULATORS
        if loops.columns:
            column_block = (
                min(COLUMN_BLOCK, 1 << (max(loops.lanes // width, 1).bit_length() - 1)) if self._queue.is_cpu else 1
            )
        column_blocks = -(-loops.lanes // (column_block * width)) if loops.columns else 1
        kept = math.prod(loops.kept.shape)
        split = self._split(loops, kept * column_blocks, column_block * width)
        items = kept * column_blocks * split.parts
        group = self._queue.work_group_size
        if self._queue.is_cpu:
            group = 16 if items >= 256 else 1
        result = out.dtype
        part_stride = 0
        count = len(inputs)
        if split.parts > 1:
            # The first launch leaves its results densely, one array per part.
            result = accumulator
            part_stride = math.prod(out.shape)
            scratch = View(out.buffer, 0, out.shape, contiguous_strides(out.shape))
            loops = plan_loops(inputs, axes, scratch)
        accesses = tuple(
            operands.access(step, written=position == count) for position, step in enumerate(loops.lane_strides)
        )
        rank = (len(loops.kept.shape), len(loops.outer.shape))
        kernel_key = (op, terms.key, result, loops.columns, accesses, rank, width, column_block, group)
        kernel = self._kernels.get(kernel_key)
        if kernel is None:
            kernel = self._kernel(op, terms, result, loops.columns, accesses, rank, width, column_block, group)
            self._kernels[kernel_key] = kernel
        strides = [*loops.kept.shape[1:], *loops.outer.shape[1:]]
        for position in range(count + 1):
            strides += [steps[position] & SIZE_MASK for steps in loops.kept.strides]
            if position < count:
                strides += [steps[position] & SIZE_MASK for steps in loops.outer.strides]
                strides += [loops.steps[position] & SIZE_MASK] if loops.columns else []
            strides += (
                [loops.lane_strides[position] & SIZE_MASK] if accesses[position : position + 1] == ("strided",) else []
            )
        strides += [loops.lanes] if loops.columns else []
        last = (
            kept,
            math.prod(loops.outer.shape),
            loops.inner,
            split.outer_part_size,
            split.inner_part_size,
            split.inner_parts,
        )
        global_size = (-(-items // group) * group,)
        return ReducePlan(
            kernel, global_size, (group,), tuple(strides), part_stride, (*last, split.parts), split.parts, accumulator
        )

    def _split(self, loops: ReductionLoops, items: int, align: int) -> Split:
        """As few parts as keep the device busy, each of them long enough to be worth an item."""
        outer = math.prod(loops.outer.shape)
        shortest = 128 if loops.columns else 4096
        wanted = 8 * self._queue.cl_device.max_compute_units
        if not self._queue.is_cpu:
            shortest, wanted = shortest // 16, 32 * wanted
        parts = max(min(-(-wanted // items), outer * loops.inner // shortest), 1)
        if outer >= parts:
            outer_part_size = -(-outer // parts)
            return Split(-(-outer // outer_part_size), outer_part_size, loops.inner, 1)
        align = 1 if loops.columns else align
        inner_part_size = -(-loops.inner // (-(-parts // outer) * align)) * align
        inner_parts = -(-loops.inner // inner_part_size)
        return Split(outer * inner_parts, 1, inner_part_size, inner_parts)

    def _kernel(
        self,
        op: str,
        terms: Expression,
        result: DType,
        columns: bool,
        accesses: tuple[Access, ...],
        rank: tuple[int, int],
        width: int,
        column_block: int,
        group: int,
    ) -> Kernel:
        """The kernel for inputs that lie along the lanes as ``accesses`` says, with ``rank`` axes kept and reduced."""
        accumulator = terms.stored[0]
        named = [(f"x{k}", dtype) for k, dtype in enumerate(terms.inputs)]
        parameters, types = operands.parameters(named, terms.scalars)
        lines, (value,) = statements(terms, operands.names(terms), width)
        extra = [f"u_extent{axis}" for axis in range(1, rank[0])] + [f"w_extent{axis}" for axis in range(1, rank[1])]
        kept, reduced = operands.indices("u", rank[0], "u_extent"), operands.indices("w", rank[1], "w_extent")
        steps, loads = [], []
        for position, name in enumerate([*(name for name, _ in named), "r0"]):
            strides = [f"{name}_kept{axis}" for axis in range(rank[0])]
            extra += strides
            kept.append(f"const size_t {name}_kept = {operands.address(f'{name}_offset', 'u', strides)};")
            if name != "r0":
                strides = [f"{name}_reduced{axis}" for axis in range(rank[1])]
                extra += strides
                reduced.append(f"const size_t {name}_reduced = {operands.address(f'{name}_kept', 'w', strides)};")
                extra += [f"{name}_step"] if columns else []
                steps.append(f"const size_t {name}_at = {name}_reduced{f' + k * {name}_step' if columns else ''};")
                loads.append(operands.load(terms.inputs[position], accesses[position], position, f"{name}_at"))
            extra += [f"{name}_lane"] if accesses[position : position + 1] == ("strided",) else []
        extra += ["lanes"] if columns else []
        row = "r0_kept + part * r0_part"
        put = (
            f"PUT(OUT, value, r0, {row} + i)"
            if accesses[-1] == "unit"
            else f"SCATTER(OUT, value, r0, {row} + (i) * r0_lane, r0_lane)"
        )
        start = c_literal(identity(op, accumulator), accumulator)
        wide, wide_result = combination(op, accumulator, width)
        single, single_result = combination(op, accumulator, 1)
        generated = "".join(
            operands.define(name, text)
            for name, text in (
                ("PARAMETERS", [", ".join([*parameters, *(f"const ulong {name}" for name in extra)])]),
                ("IDENTITY", [start]),
                ("COMBINE_VECTORS", [*wide, f"return {wide_result};"]),
                ("COMBINE_VALUES", [*single, f"return {single_result};"]),
                ("KEPT_AXES", kept),
                ("REDUCED_AXES", reduced),
                ("STEPS", steps),
                ("LOADS", loads),
                ("STATEMENTS", lines),
                ("VALUE", [value]),
                ("RESULTS(value, i)", [put]),
            )
        )
        defines = (
            ("WIDTH", width), ("COLUMNS", int(columns)), ("COLUMN_BLOCK", column_block),
            ("COMPENSATED", int(op == "sum" and accumulator.kind == "f")), ("SUM", TAG[accumulator]),
            ("OUT", TAG[result]), ("WORK_GROUP_SIZE", group),
        )  # fmt: skip
        types += [np.uint64] * len(extra) + [None] + [np.uint64] * 9
        return self._queue.kernels.shared("reduce.cl", "reduce", defines, generated, tuple(types))


def plan_loops(inputs: Sequence[View], axes: tuple[int, ...], out: View) -> ReductionLoops:
    """Choose what a work-item reduces and where its lanes lie, so that loads are vectors wherever possible."""
    shape, count = inputs[0].shape, len(inputs)
    left = [axis for axis in range(len(shape)) if axis not in axes]
    # The input with the most elements decides.
    main = max(range(count), key=lambda k: sum(stride != 0 for stride in inputs[k].strides))
    kept_strides = [[view.strides[axis] for axis in left] for view in inputs] + [list(out.strides)]
    kept = Axes.of([shape[axis] for axis in left], kept_strides).ordered(main).merged()
    empty = any(shape[axis] == 0 for axis in axes)
    reduced = Axes((), ())
    if not empty:
        strides = [[view.strides[axis] for axis in axes] for view in inputs]
        reduced = Axes.of([shape[axis] for axis in axes], strides).ordered(main).merged()
    longest_kept, longest_reduced = max(kept.shape, default=1), max(reduced.shape, default=1)
    along_reduced = bool(reduced.shape) and (
        not kept.shape or abs(reduced.strides[-1][main]) <= abs(kept.strides[-1][main])
    )
    if not kept.shape or longest_kept < 8:
        columns = False
    elif along_reduced:
        columns = reduced.shape[-1] < SHORT
    else:
        columns = kept.shape[-1] >= 8 or longest_reduced < SHORT
    if columns:
        rest, lanes, lane_strides = kept.widened().split(count + 1)
        outer, inner, steps = reduced.split(count)
        steps = steps if reduced.shape else (0,) * count
    else:
        rest, lanes, steps = kept, 1, ()
        outer, inner, lane_strides = reduced.widened().split(count)
    return ReductionLoops(columns, rest, outer, 0 if empty else inner, lanes, lane_strides, steps)


@cache
def complex_parts(op: str, expression: Expression, stored: DType) -> ComplexParts | None:
    """How complex numbers are reduced; None where neither an operand nor the result is complex.

    Raises
    ------
    DTypeError
        For the largest or smallest of complex numbers.
    """
    (value,) = expression.outputs
    if op in ("any", "all"):
        value = ex.cast(value, bool_)
    elif value.dtype.kind == "c" and op in ("max", "min"):
        raise undefined(op, value.dtype)
    elif value.dtype.kind == "c" or stored.kind == "c":
        value = ex.cast(value, promote(value.dtype, stored) if stored.kind == "c" else stored)
    whole = ex.build((value,), expression.inputs, expression.scalars, (value.dtype,), expression.name)
    parts = lowered(whole)
    if parts is None:
        return None
    reals = [
        ex.build((node,), parts.inputs, parts.scalars, (dtype,), expression.name)
        for node, dtype in zip(parts.outputs, parts.stored, strict=True)
    ]
    return ComplexParts(whole, tuple(reals))


@cache
def complex_product(dtype: DType) -> Expression:
    """The product of two elements."""
    return ex.trace(lambda x, y: x * y, (dtype, dtype))
