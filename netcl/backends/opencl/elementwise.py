"""Elementwise maps and the reductions over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyopencl as cl

from netcl.backends.base import Scalar, View
from netcl.backends.opencl.codegen import c_type, is_wide, statements
from netcl.backends.opencl.core import Core, memory
from netcl.backends.opencl.flat import number
from netcl.backends.opencl.layout import Axes
from netcl.backends.opencl.storage import SCALAR, STORED, TAG
from netcl.dtypes import DType
from netcl.errors import DTypeError, ShapeError
from netcl.expression import Expression

PLANS = 4096
"""Prepared launches that are kept, of each kind."""

OUTER = 6
"""Outer axes that a kernel walks; what has more is launched piece by piece."""

CHUNK = 512
"""Neighbours that one work-item of a CPU goes through."""

WORD = (1 << 64) - 1


class Launch(NamedTuple):
    """A kernel with everything but the operands: element offsets to add for each piece, and the last arguments."""

    kernel: cl.Kernel
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    last: tuple[int, ...]


class MapPlan(NamedTuple):
    """How one map over views of given shapes and strides runs."""

    launch: Launch
    pieces: tuple[tuple[int, ...], ...]


class ElementwiseCalls(Core):
    """map, reduce and arg_reduce of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, cl_device: cl.Device, index: int = 0) -> None:
        super().__init__(cl_device, index)
        self._map_plans: dict[tuple[Any, ...], MapPlan | None] = {}
        self._map_kernels: dict[tuple[Any, ...], cl.Kernel] = {}

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
        key = (expression.key, outputs[0].shape, *[view.strides for view in views])
        try:
            plan = self._map_plans[key]
        except KeyError:
            plan = self._plan_map(expression, inputs, outputs, scalars, key)
        for view, dtype in zip(views, expression.inputs + expression.stored, strict=True):
            if view.buffer.dtype is not dtype:
                raise DTypeError(f"{expression.name} expects an operand of {dtype}, got {view.buffer.dtype}")
        if plan is None:
            return
        kernel, global_size, local_size, last = plan.launch
        numbers = [number(scalar, dtype) for scalar, dtype in zip(scalars, expression.scalars, strict=True)]
        for piece in plan.pieces:
            operands: list[Any] = []
            for view, shift in zip(views, piece, strict=True):
                operands += (memory(view), view.offset + shift)
            self.launch(kernel, global_size, local_size, *operands, *numbers, *last)

    def _plan_map(
        self,
        expression: Expression,
        inputs: Sequence[View],
        outputs: Sequence[View],
        scalars: Sequence[Scalar],
        key: tuple[Any, ...],
    ) -> MapPlan | None:
        check_operands(expression, inputs, outputs, scalars)
        shape = outputs[0].shape
        for view in (*inputs, *outputs):
            if view.shape != shape:
                raise ShapeError(
                    f"{expression.name}: operands of shapes {view.shape} and {shape}; broadcast them first"
                )
        self.require(*expression.inputs, *expression.scalars, *expression.stored)
        plan = None
        if 0 not in shape:
            views = [view.strides for view in (*inputs, *outputs)]
            axes = Axes.of(shape, views).ordered(len(inputs)).merged().widened()
            plan = self._lay_out_map(expression, axes, len(views))
        if len(self._map_plans) >= PLANS:
            self._map_plans.clear()
        self._map_plans[key] = plan
        return plan

    def _lay_out_map(self, expression: Expression, axes: Axes, operands: int) -> MapPlan:
        outer, inner, steps = axes.split()
        inputs = len(expression.inputs)
        kinds = "".join(
            "v" if step == 1 else "s" if step == 0 and position < inputs else "g" for position, step in enumerate(steps)
        )
        kinds = kinds or "v" * operands
        pieces, outer = outer.pieces(OUTER, operands)
        width = 4 if is_wide(expression) else 8
        rows = math.prod(outer.shape)
        chunk = width
        if self.is_cpu:
            parts = -(-inner // CHUNK)
            chunk = -(-inner // (parts * width)) * width
        items = -(-inner // chunk)
        group = self._group(items, rows)
        kernel_key = (expression.key, kinds, len(outer.shape), group)
        kernel = self._map_kernels.get(kernel_key)
        if kernel is None:
            kernel = self._map_kernels[kernel_key] = self._map_kernel(expression, kinds, len(outer.shape), width, group)
        last = list(outer.shape[1:])
        for operand in range(operands):
            last += [strides[operand] & WORD for strides in outer.strides]
            if kinds[operand] == "g":
                last.append(steps[operand] & WORD)
        global_size = (-(-items // group[0]) * group[0], -(-rows // group[1]) * group[1])
        return MapPlan(Launch(kernel, global_size, group, (*last, inner, rows, chunk)), pieces)

    def _group(self, items: int, rows: int) -> tuple[int, int]:
        """A work-group of items along the inner axis, or across rows where these are short."""
        if self.is_cpu:
            return (16, 1) if rows < 16 or items >= 16 else (1, 32)
        return (self.work_group_size, 1) if rows == 1 or items >= 24 else (4, self.work_group_size // 4)

    def _map_kernel(
        self, expression: Expression, kinds: str, rank: int, width: int, group: tuple[int, int]
    ) -> cl.Kernel:
        """The kernel for operands that lie along the inner axis as ``kinds`` says, with ``rank`` outer axes."""
        inputs = len(expression.inputs)
        operands = [(f"x{k}", dtype) for k, dtype in enumerate(expression.inputs)]
        operands += [(f"r{k}", dtype) for k, dtype in enumerate(expression.stored)]
        parameters, arguments = operand_parameters(operands, inputs, expression.scalars)
        names: dict[tuple[str, int | str], str] = {("scalar", k): f"s{k}" for k in range(len(expression.scalars))}
        names |= {("input", k): f"v{k}" for k in range(inputs)}
        lines, results = statements(expression, names, width)
        extra = [f"const ulong e{axis}" for axis in range(1, rank)]
        rows = [f"const size_t q{axis} = rest % e{axis}; rest /= e{axis};" for axis in range(rank - 1, 0, -1)]
        rows += ["const size_t q0 = rest;"] if rank else []
        loads, stores = [], []
        for position, ((name, dtype), kind) in enumerate(zip(operands, kinds, strict=True)):
            strides = [f"{name}_stride{axis}" for axis in range(rank)]
            extra += [f"const ulong {stride}" for stride in strides]
            terms = [f"{name}_offset", *(f"q{axis} * {stride}" for axis, stride in enumerate(strides))]
            rows.append(f"const size_t {name}_row = {' + '.join(terms)};")
            value = f"v{position}" if position < inputs else results[position - inputs]
            verb, place = ("FETCH" if position < inputs else "PUT"), f"{name}_row + i"
            if kind == "s":
                verb, place = "SPREAD", f"{name}_row"
            elif kind == "g":
                extra.append(f"const ulong {name}_step")
                verb, place = (
                    ("GATHER" if position < inputs else "SCATTER"),
                    f"{name}_row + i * {name}_step, {name}_step",
                )
            call = f"{verb}({TAG[dtype]}, {value}, {name}, {place})"
            (rows if verb == "SPREAD" else loads if position < inputs else stores).append(call)
        generated = define("PARAMETERS", [", ".join(parameters + extra)]) + define("ROWS", rows)
        generated += define("LOADS", loads) + define("STATEMENTS", lines) + define("STORES", stores)
        defines = (("WIDTH", width), ("GROUP_INNER", group[0]), ("GROUP_OUTER", group[1]))
        return self.kernel("map.cl", "map", defines, generated, (*arguments, *([np.uint64] * (len(extra) + 3))))


def operand_parameters(
    operands: Sequence[tuple[str, DType]], inputs: int, scalars: Sequence[DType]
) -> tuple[list[str], list[Any]]:
    """C parameters of buffers with their offsets and of scalars, and their argument types."""
    parameters: list[str] = []
    arguments: list[Any] = []
    for position, (name, dtype) in enumerate(operands):
        const = "const " if position < inputs else ""
        parameters += [f"{const}__global {STORED[dtype]} *{name}", f"const ulong {name}_offset"]
        arguments += [None, np.uint64]
    for k, dtype in enumerate(scalars):
        parameters.append(f"const {c_type(dtype)} s{k}")
        arguments.append(SCALAR[dtype])
    return parameters, arguments


def define(name: str, lines: Sequence[str]) -> str:
    """A macro of several lines."""
    return " \\\n    ".join([f"#define {name}", *lines]) + "\n"


def check_operands(
    expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar]
) -> None:
    """Refuse operands that are not as many as the expression has."""
    given = (len(inputs), len(outputs), len(scalars))
    expected = (len(expression.inputs), len(expression.stored), len(expression.scalars))
    if given != expected:
        raise ShapeError(
            f"{expression.name} takes {expected[0]} inputs, {expected[1]} outputs and {expected[2]} scalars, got "
            f"{given[0]}, {given[1]} and {given[2]}"
        )
