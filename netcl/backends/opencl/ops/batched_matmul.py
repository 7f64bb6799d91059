"""The matrix product: which kernel, in which blocks, and the launches that are kept for each layout.

CPU runtimes run ``batched_matmul.cl``, other devices ``batched_matmul_tiled.cl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.storage import TAG, VECTOR_BYTES
from netcl.backends.opencl.device.complex_views import interleaved, part_views
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.backends.opencl.ops.map import Map
from netcl.dtypes import DType, complex64, float32, int32, promote, uint32
from netcl.errors import ShapeError
from netcl.expression import Node, apply, build, cast, conj, constant, conversion, imag, real, trace

TILE_M = 6
"""Rows of a register tile in ``batched_matmul.cl``; its columns are two vectors of 32 bytes."""

RUN = 256
"""Elements of k that ``batched_matmul.cl`` packs at a time."""

WIDEST = 64
"""Columns of its widest block, where local memory suffices."""

TASK = 10_000
"""Cycles that a block should take at least, so that starting it does not show."""

TILE, SMALL_TILE = 64, 32
"""Results along each side of a tile in ``batched_matmul_tiled.cl``, with groups of 256 and of 64."""

WIDENED = 1 << 17
"""Multiplications from which a CPU runtime converts 16-bit operands before the product, not one by one in it."""


@dataclass(frozen=True, slots=True)
class MatmulLayout:
    """Extents and strides of a product: a as (b, m, k), b as (b, k, n), out as (b, split, m, n)."""

    batch: int
    m: int
    n: int
    k: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    out: tuple[int, ...]

    def transposed(self) -> MatmulLayout:
        """outᵀ = bᵀ·aᵀ."""
        (a_b, a_m, a_k), (b_b, b_k, b_n), (out_b, out_s, out_m, out_n) = self.a, self.b, self.out
        a, b, out = (b_b, b_n, b_k), (a_b, a_k, a_m), (out_b, out_s, out_n, out_m)
        return MatmulLayout(self.batch, self.n, self.m, self.k, a, b, out)

    def with_scratch(self, k_splits: int) -> MatmulLayout:
        """The same product, into contiguous (b, split, m, n)."""
        out = (k_splits * self.m * self.n, self.m * self.n, self.n, 1)
        return MatmulLayout(self.batch, self.m, self.n, self.k, self.a, self.b, out)

    def tiles(self, lanes: int) -> tuple[int, int]:
        """Register tiles along m and n in ``batched_matmul.cl``."""
        return -(-self.m // TILE_M), -(-self.n // (2 * lanes))

    def cycles(self, lanes: int) -> int:
        """Rough cost in ``batched_matmul.cl``: 6 per element of k and tile, 12 to store a tile by rows, else 150."""
        along_m, along_n = self.tiles(lanes)
        return self.batch * along_m * along_n * (TILE_M * self.k + (12 if self.out[3] == 1 else 150))


def blocks(layout: MatmulLayout, lanes: int, widest: int, tasks: int) -> tuple[int, int]:
    """Rows and columns of a block: as large as leaves ``tasks`` blocks, since all its rows share the packed panels."""
    along_m, along_n = layout.tiles(lanes)
    tall, wide = along_m, min(widest // (2 * lanes), along_n)
    while layout.batch * -(-along_m // tall) * -(-along_n // wide) < tasks and (wide > 1 or tall > 1):
        if wide > 1:
            wide = -(-wide // 2)
        else:
            tall = -(-tall // 2)
    return tall * TILE_M, wide * 2 * lanes


def sum_dtype(a: DType, b: DType, out: DType) -> DType:
    """The dtype in whose arithmetic type products are summed: at least 32 bits wide."""
    common = promote(promote(a, b), out).compute
    if common.kind == "f" or common.itemsize == 8:
        return common
    return uint32 if common.kind == "u" else int32


class Narrowing(NamedTuple):
    """The second launch, where sums were split or are wider than the result; ``scratch`` counts its elements."""

    kernel: Kernel
    global_size: tuple[int]
    local_size: tuple[int]
    scalars: tuple[int, ...]
    scratch: int
    dtype: DType


class Plan(NamedTuple):
    """The launches for one layout; ``swap`` says that a and b change places."""

    kernel: Kernel
    global_size: tuple[int, int, int]
    local_size: tuple[int, int, int]
    scalars: tuple[int, ...]
    swap: bool
    narrowing: Narrowing | None


@final
class BatchedMatmul:
    """batched_matmul of :class:`~netcl.backends.base.ArrayOperations`; ``map`` widens 16-bit operands."""

    def __init__(self, queue: Queue, map: Map) -> None:
        self._queue = queue
        self._map = map
        self._plans: dict[tuple[Any, ...], Plan | None] = {}

    def batched_matmul(self, a: View, b: View, out: View) -> None:
        """out[b, m, n] ← Σ_k a[b, m, k]·b[b, k, n]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        Enqueues one kernel; two where k is split among work-items, or where a CPU runtime has a result narrower than
        float32 or int32; on a CPU runtime, one more for each 16-bit operand of all but small products, which is
        converted first. Integers are summed modulo their width. The same call gives the same bits.

        On a CPU runtime the product could go to the host's BLAS through mapped buffers, but mapping waits for the
        queue, and the threads of the two compete. Medians on a shared machine with 2 cores (AVX2, Intel's runtime)
        for the eight products of a training step of a 784-256-128-10 network with batches of 128: 1.1 ms here and
        2.5 ms through OpenBLAS with one thread; in a busier moment 2.6 ms here and 9.2 ms with two threads. At 1024³
        the two are level. So no product blocks.

        Raises
        ------
        ShapeError
            If the shapes are not (b, m, k), (b, k, n) and (b, m, n).
        DTypeError
            If the device cannot compute with a dtype.
        """
        if self._queue.is_cpu and a.shape[1:] and math.prod(out.shape) * a.shape[-1] >= WIDENED:
            a, b = self._widened(a), self._widened(b)
        dtypes = (a.buffer.dtype, b.buffer.dtype, out.buffer.dtype)
        key = (a.shape, b.shape, out.shape, a.strides, b.strides, out.strides, dtypes, self._queue.is_cpu)
        try:
            plan = self._plans[key]
        except KeyError:
            plan = self._plan(a, b, out)
            remember(self._plans, key, plan)
        left, right, result = cl_buffer(a), cl_buffer(b), cl_buffer(out)
        if plan is None:
            if out.buffer.dtype.kind == "c":
                self._multiply_parts(a, b, out)
            return
        operands = (right, b.offset, left, a.offset) if plan.swap else (left, a.offset, right, b.offset)
        second = plan.narrowing
        if second is None:
            self._queue.launch(
                plan.kernel, plan.global_size, plan.local_size, *operands, result, out.offset, *plan.scalars
            )
            return
        scratch = self._queue.alloc(second.scratch, second.dtype)
        self._queue.launch(plan.kernel, plan.global_size, plan.local_size, *operands, scratch.mem, 0, *plan.scalars)
        self._queue.launch(
            second.kernel, second.global_size, second.local_size, scratch.mem, result, out.offset, *second.scalars
        )

    def _widened(self, x: View) -> View:
        """A 16-bit operand in float32, its axes in the order in which they lie in memory; else the operand itself."""
        dtype = x.buffer.dtype
        if dtype.compute is dtype:
            return x
        shape = tuple([extent if stride else 1 for extent, stride in zip(x.shape, x.strides, strict=True)])
        strides, size = [0] * len(shape), 1
        for axis in sorted(range(len(shape)), key=lambda axis: abs(x.strides[axis])):
            if x.strides[axis]:
                strides[axis] = size
                size *= shape[axis]
        wide = self._queue.alloc(size, dtype.compute)
        source = View(x.buffer, x.offset, shape, x.strides)
        self._map.map(conversion(dtype, dtype.compute), (source,), (View(wide, 0, shape, tuple(strides)),))
        return View(wide, 0, x.shape, tuple(strides))

    def _multiply_parts(self, a: View, b: View, out: View) -> None:
        """The product of complex matrices, as one real product for each part of the result.

        Row m of a, its parts in turn, times column n of b, with the imaginary parts negated or the parts exchanged, is
        a sum over twice as many terms.
        """
        if 0 in out.shape:
            return
        if a.shape[2] == 0:
            self._map.map(build((constant(0, out.dtype),), (), (), (out.dtype,)), (), (out,))
            return
        rows = self._rows(_same, a)
        columns = View(b.buffer, b.offset, (b.shape[0], b.shape[2], b.shape[1]), _swapped(b.strides))
        for turn, part in zip((conj, _exchanged), part_views(out), strict=True):
            turned = self._rows(turn, columns)
            batch, n, k = turned.shape
            turned = View(turned.buffer, turned.offset, (batch, k, n), _swapped(turned.strides))
            self.batched_matmul(rows, turned, part)

    def _rows(self, function: Callable[[Node], Node], x: View) -> View:
        """``function`` of a view as complex numbers, with the parts of each row in turn."""
        if function is not _same or x.dtype.kind != "c" or x.strides[2] != 1:
            dtype = promote(x.dtype, complex64)
            extents = [extent if stride else 1 for extent, stride in zip(x.shape[:2], x.strides, strict=False)]
            full = (*extents, x.shape[2])
            buffer = self._queue.alloc(math.prod(full), dtype)
            made = trace(lambda z: function(cast(z, dtype)), (x.dtype,), stored=(dtype,))
            lines = (full[1] * full[2], full[2], 1)
            self._map.map(made, (View(x.buffer, x.offset, full, x.strides),), (View(buffer, 0, full, lines),))
            kept = [line if stride else 0 for line, stride in zip(lines[:2], x.strides, strict=False)]
            x = View(buffer, 0, x.shape, (*kept, 1))
        parts = interleaved(x)
        batch, row, _, _ = parts.strides
        return View(parts.buffer, parts.offset, (*x.shape[:2], 2 * x.shape[2]), (batch, row, 1))

    def _plan(self, a: View, b: View, out: View) -> Plan | None:
        shapes = (a.shape, b.shape, out.shape)
        if not (len(a.shape) == len(b.shape) == 3 and a.shape[2] == b.shape[1]) or (
            (a.shape[0], a.shape[1], b.shape[2]) != out.shape or b.shape[0] != out.shape[0]
        ):
            raise ShapeError(
                f"batched_matmul takes shapes (b, m, k), (b, k, n) and (b, m, n), got {', '.join(map(str, shapes))}"
            )
        self._queue.require(a.dtype, b.dtype, out.dtype)
        if out.dtype.kind == "c":
            return None
        self._queue.require_real("batched_matmul into a real array", a.dtype, b.dtype)
        layout = MatmulLayout(*out.shape, a.shape[2], a.strides, b.strides, (out.strides[0], 0, *out.strides[1:]))
        if layout.batch * layout.m * layout.n == 0:
            return None
        dtypes = (a.dtype, b.dtype, out.dtype)
        if self._queue.is_cpu and not self._queue.needs_plain("batched_matmul", *dtypes):
            return self._plan_blocks(layout, *dtypes)
        return self._plan_tiles(layout, *dtypes)

    def _plan_blocks(self, layout: MatmulLayout, a: DType, b: DType, out: DType) -> Plan:
        dtype = sum_dtype(a, b, out)
        lanes = VECTOR_BYTES // dtype.itemsize
        units = self._queue.cl_device.max_compute_units
        along_m, along_n = layout.tiles(lanes)
        k_splits = min(units // (layout.batch * along_m * along_n), layout.k // (4 * RUN)) or 1
        narrowing = None
        if k_splits > 1 or dtype is not out:
            narrowing = self._plan_narrowing(layout, out, dtype, k_splits)
            layout = layout.with_scratch(k_splits)
        swap = layout.transposed().cycles(lanes) < layout.cycles(lanes)
        if swap:
            layout, a, b = layout.transposed(), b, a
        widest = WIDEST if self._queue.cl_device.local_mem_size >= (WIDEST + 8) * RUN * dtype.itemsize else 2 * lanes
        tasks = max(min(layout.cycles(lanes) // TASK, 8 * units) // k_splits, 1)
        tall, wide = blocks(layout, lanes, widest, tasks)
        defines: tuple[tuple[str, str | int], ...] = (
            ("A", TAG[a]), ("B", TAG[b]), ("SUM", TAG[dtype]), ("LANES", lanes), ("KC", RUN), ("BLOCK_N", widest),
        )  # fmt: skip
        defines += (("PACK_A", 1),) * (a is not dtype) + (("PLAIN_B", 1),) * (b is dtype)
        defines += (("TRANSPOSE", 1),) * (b is dtype is float32)
        kernel = self._queue.kernels.shared("batched_matmul.cl", "batched_matmul", defines, arguments=_arguments(10, 7))
        size = (-(-layout.n // wide), -(-layout.m // tall), layout.batch * k_splits)
        extents = (layout.m, layout.n, layout.k, tall, wide, k_splits, -(-layout.k // k_splits))
        return Plan(kernel, size, (1, 1, 1), (*layout.a, *layout.b, *layout.out, *extents), swap, narrowing)

    def _plan_tiles(self, layout: MatmulLayout, a: DType, b: DType, out: DType) -> Plan:
        dtype = sum_dtype(a, b, out)
        small = self._queue.cl_device.max_work_group_size < 256
        group, tile = (8, SMALL_TILE) if small else (16, TILE)
        groups = -(-layout.n // tile), -(-layout.m // tile)
        busy = layout.batch * groups[0] * groups[1]
        k_splits = min(2 * self._queue.cl_device.max_compute_units // busy, layout.k // RUN) or 1
        narrowing = None
        if k_splits > 1:
            narrowing = self._plan_narrowing(layout, out, dtype, k_splits)
            layout = layout.with_scratch(k_splits)
        defines = (
            ("A", TAG[a]), ("B", TAG[b]), ("OUT", TAG[dtype if k_splits > 1 else out]), ("SUM", TAG[dtype]),
            ("GROUP", group), ("A_ALONG_K", int(abs(layout.a[2]) <= abs(layout.a[1]))),
            ("B_ALONG_K", int(abs(layout.b[1]) < abs(layout.b[2]))),
        )  # fmt: skip
        kernel = self._queue.kernels.shared(
            "batched_matmul_tiled.cl", "batched_matmul_tiled", defines, arguments=_arguments(10, 5)
        )
        size = (groups[0] * group, groups[1] * group, layout.batch * k_splits)
        extents = (layout.m, layout.n, layout.k, k_splits, -(-layout.k // k_splits))
        return Plan(kernel, size, (group, group, 1), (*layout.a, *layout.b, *layout.out, *extents), False, narrowing)

    def _plan_narrowing(self, layout: MatmulLayout, out: DType, dtype: DType, k_splits: int) -> Narrowing:
        group = self._queue.work_group_size
        kernel = self._queue.kernels.shared(
            "batched_matmul_sum.cl",
            "batched_matmul_sum",
            (("OUT", TAG[out]), ("SUM", TAG[dtype]), ("WORK_GROUP_SIZE", group)),
            arguments=(None, None, np.uint64, *(np.int64,) * 3, *(np.uint64,) * 4),
        )
        size = layout.batch * layout.m * layout.n
        out_b, _, out_m, out_n = layout.out
        scalars = (out_b, out_m, out_n, layout.batch, layout.m, layout.n, k_splits)
        return Narrowing(kernel, whole_groups(size, group), (group,), scalars, k_splits * size, dtype)


def _arguments(strides: int, extents: int) -> tuple[Any, ...]:
    return (*(None, np.uint64) * 3, *(np.int64,) * strides, *(np.uint64,) * extents)


def _swapped(strides: tuple[int, ...]) -> tuple[int, ...]:
    batch, row, column = strides
    return batch, column, row


def _same(z: Node) -> Node:
    return z


def _exchanged(z: Node) -> Node:
    """The parts in the other order."""
    return apply("complex", imag(z), real(z))
