"""Where along an axis the largest or smallest element lies."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen import operands
from netcl.backends.opencl.codegen.operands import SIZE_MASK
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.strided_loops import Axes
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue
from netcl.dtypes import int64
from netcl.errors import DTypeError, ShapeError
from netcl.strides import contiguous_strides


class Scan(NamedTuple):
    """One launch over views of given shapes and strides, without the operands."""

    kernel: Kernel
    global_size: tuple[int]
    local_size: tuple[int]
    last: tuple[int, ...]


@final
class ArgReduce:
    """arg_reduce of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._plans: dict[tuple[Any, ...], tuple[Scan, ...]] = {}

    def arg_reduce(self, op: str, x: View, axis: int, out: View) -> None:
        """out ← index of the first maximum or minimum. See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If ``op`` is neither argmax nor argmin, the output's shape does not fit, or the axis has no elements.
        DTypeError
            If the output is not int64, or the device cannot compute with x's dtype.
        """
        key = (op, x.buffer.dtype, x.shape, x.strides, axis, out.buffer.dtype, out.shape, out.strides)
        scans = self._plans.get(key)
        if scans is None:
            scans = self._plan(op, x, axis, out)
            remember(self._plans, key, scans)
        target = out
        found: list[Any] = []
        for scan in scans:
            if len(scans) > 1 and not found:
                # The parts of the first launch leave their results densely.
                target = View(self._queue.alloc(scan.last[-1] * math.prod(out.shape), int64), 0, (), ())
            self._queue.launch(
                scan.kernel, scan.global_size, scan.local_size,
                cl_buffer(x), x.offset, cl_buffer(target), target.offset, *found, *scan.last,
            )  # fmt: skip
            target, found = out, [cl_buffer(target)]

    def _plan(self, op: str, x: View, axis: int, out: View) -> tuple[Scan, ...]:
        left = x.shape[:axis] + x.shape[axis + 1 :]
        if op not in ("argmax", "argmin"):
            raise ShapeError(f"unknown reduction {op!r}; argmax or argmin")
        if out.shape != left:
            raise ShapeError(f"{op} over axis {axis} of shape {x.shape} has shape {left}, the output has {out.shape}")
        if out.dtype is not int64:
            raise DTypeError(f"{op} writes int64, the output is {out.dtype}; pass an int64 array")
        self._queue.require_real(op, x.dtype)
        self._queue.needs_plain("arg_reduce", x.dtype)
        if 0 in left:
            return ()
        extent = x.shape[axis]
        if extent == 0:
            raise ShapeError(f"{op} over axis {axis} of shape {x.shape}: there is no element to find")
        kept = math.prod(left)
        wanted = 8 * self._queue.cl_device.max_compute_units * (1 if self._queue.is_cpu else 32)
        parts = max(min(-(-wanted // kept), extent // (4096 if self._queue.is_cpu else 256)), 1)
        part_size = -(-extent // parts)
        parts = -(-extent // part_size)
        if parts == 1:
            return (self._scan(op, x, axis, left, out.strides, extent, part_size, candidates=False),)
        return (
            self._scan(op, x, axis, left, contiguous_strides(left), extent, part_size, candidates=False),
            self._scan(op, x, axis, left, out.strides, parts, parts, candidates=True),
        )

    def _scan(
        self,
        op: str,
        x: View,
        axis: int,
        shape: tuple[int, ...],
        out_strides: tuple[int, ...],
        extent: int,
        part_size: int,
        *,
        candidates: bool,
    ) -> Scan:
        """One launch, which leaves a result per part of the axis or of the candidates."""
        axes = Axes.of(shape, [x.strides[:axis] + x.strides[axis + 1 :], out_strides]).merged()
        rank = len(axes.shape)
        names = [f"u_extent{axis}" for axis in range(1, rank)]
        kept_axes = operands.indices("u", rank, "u_extent")
        numbers = list(axes.shape[1:])
        for position, name in enumerate(("x", "out")):
            own = [f"{name}_kept{axis}" for axis in range(rank)]
            names += own
            numbers += [steps[position] & SIZE_MASK for steps in axes.strides]
            kept_axes.append(f"const size_t {name}_kept = {operands.address(f'{name}_offset', 'u', own)};")
        names.append("x_step")
        numbers.append(x.strides[axis] & SIZE_MASK)
        generated = operands.define("STRIDES", [", ".join(f"const ulong {name}" for name in names)])
        generated += operands.define("KEPT_AXES", kept_axes)
        group = 16 if self._queue.is_cpu else self._queue.work_group_size
        defines = (
            ("X", TAG[x.dtype]), ("FLOATING", int(x.dtype.kind == "f")), ("LARGEST", int(op == "argmax")),
            ("CANDIDATES", int(candidates)), ("WORK_GROUP_SIZE", group),
        )  # fmt: skip
        types = [None, np.uint64, None, np.uint64, *([None] * candidates), *([np.uint64] * (len(names) + 5))]
        kernel = self._queue.kernels.shared("arg_reduce.cl", "arg_reduce", defines, generated, tuple(types))
        count, parts = math.prod(shape), -(-extent // part_size)
        last = (*numbers, count, count, extent, part_size, parts)
        return Scan(kernel, (-(-count * parts // group) * group,), (group,), last)
