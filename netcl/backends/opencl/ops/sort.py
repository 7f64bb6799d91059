"""Elements in order along an axis, and where each of them stood."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import numpy as np

from netcl import expression as ex
from netcl.backends.base import Span, View
from netcl.backends.opencl.codegen import operands
from netcl.backends.opencl.codegen.operands import SIZE_MASK
from netcl.backends.opencl.codegen.scalars import WORDS
from netcl.backends.opencl.codegen.strided_loops import Axes
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import CLBuffer, cl_buffer
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.ops.map import Map
from netcl.dtypes import BY_NAME, DType, int64, uint8, uint32, uint64
from netcl.errors import DTypeError, ShapeError
from netcl.host_sorting import infinity_bits, sort_on_host
from netcl.strides import contiguous_strides

SHORT = 1 << 13
"""Elements of a row up to which one work-group sorts it, or it is cut into parts of at least half of that."""

MOST_PARTS = 256
"""Parts of a row, at most: what they count is put together by one work-group."""


class SortPlan(NamedTuple):
    """How one sort of views of given shapes and strides runs, without the operands."""

    kernels: tuple[Kernel, ...]
    group: int
    bits: int
    passes: int
    rows: int
    parts: int
    chunk: int
    numbers: tuple[int, ...]
    item: int
    place: DType


@final
class Sort:
    """sort of :class:`~netcl.backends.base.ArrayOperations`; ``map`` copies what was sorted in place.

    A radix sort: stable of itself, without comparisons, and with as many passes over memory as a key has digits, where
    a merge sort takes log2(n). On CPU runtimes, whose memory is the host's, long values without places are left to
    NumPy, whose vectors sort them in half the time.

    Parameters
    ----------
    queue : Queue
    map : Map
    on_host : bool, optional
        Whether the host sorts, so that the call **blocks**; by default for values alone, from :data:`SHORT` elements
        on, on CPU runtimes that share its memory.
    """

    def __init__(self, queue: Queue, map: Map, *, on_host: bool | None = None) -> None:
        self._queue = queue
        self._map = map
        self._on_host = on_host
        self._plans: dict[tuple[Any, ...], SortPlan] = {}

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        """out ← x in order along ``axis``, indices ← where each stood. **Blocks** where the host sorts.

        See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If an output has another shape, there is none, or x has no such axis.
        DTypeError
            If ``out`` has another dtype than ``x``, ``indices`` is not int64, or the device cannot compute with x's.
        """
        self._check(x, axis, out, indices)
        if 0 in x.shape:
            return
        on_host = self._on_host
        if on_host is None:
            shared = self._queue.is_cpu and self._queue.device.shares_host_memory
            on_host = shared and indices is None and math.prod(x.shape) >= SHORT
        if on_host:
            self._sort_on_host(x, axis, out, indices, descending=descending)
            return
        self._queue.needs_plain("sort", x.dtype)
        if out is None or out.buffer is not x.buffer:
            self._sort(x, axis, out, indices, descending=descending)
            return
        # Values that a key does not tell are read from x to the end.
        word = BY_NAME[f"uint{8 * x.dtype.itemsize}"]
        strides = contiguous_strides(x.shape)
        sorted_out = View(self._queue.alloc(math.prod(x.shape), word), 0, x.shape, strides)
        self._sort(x, axis, sorted_out, indices, descending=descending)
        words = CLBuffer(word, out.buffer.size, cl_buffer(out), [])
        self._map.map(ex.conversion(word, word), (sorted_out,), (out._replace(buffer=words),))

    def _check(self, x: View, axis: int, out: View | None, indices: View | None) -> None:
        if out is None and indices is None:
            raise ShapeError("sort writes values or places; pass out, indices or both")
        if not 0 <= axis < len(x.shape):
            raise ShapeError(f"axis {axis} of shape {x.shape}; pass one from 0 to {len(x.shape) - 1}")
        for name, view, dtype in (("out", out, x.dtype), ("indices", indices, int64)):
            if view is None:
                continue
            if view.shape != x.shape:
                raise ShapeError(f"sort of shape {x.shape} has that shape, {name} has {view.shape}")
            if view.dtype is not dtype:
                raise DTypeError(f"sort writes {dtype} to {name}, which is {view.dtype}; pass an array of {dtype}")
        self._queue.require(x.dtype)

    def _sort_on_host(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        views = [view for view in (x, out, indices) if view is not None]
        # A buffer is mapped once, however many views of it there are.
        reaches: dict[int, tuple[View, int, int]] = {}
        for view in views:
            low, high = _reach(view)
            _, least, most = reaches.get(id(view.buffer), (view, low, high))
            reaches[id(view.buffer)] = (view, min(low, least), max(high, most))
        mappings = {
            key: (self._queue.map_host(Span(view.buffer, low, high - low)), low)
            for key, (view, low, high) in reaches.items()
        }

        def array(view: View | None) -> Any:
            if view is None:
                return None
            mapping, low = mappings[id(view.buffer)]
            flat = mapping.array()
            item = flat.itemsize
            return np.ndarray(
                view.shape, flat.dtype, flat, (view.offset - low) * item, [step * item for step in view.strides]
            )

        sort_on_host(array(x), x.dtype, axis, array(out), array(indices), descending=descending)
        for mapping, _ in mappings.values():
            mapping.release()

    def _sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        kinds = [None if view is None else view.strides for view in (out, indices)]
        key = (x.buffer.dtype, x.shape, x.strides, axis, *kinds, descending)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(x, axis, out, indices, descending=descending)
            remember(self._plans, key, plan)
        extent, group = x.shape[axis], (plan.group,)
        scratch = [self._queue.alloc(plan.rows * extent * plan.item, uint8) for _ in range(2)]
        items, moved = (buffer.mem for buffer in scratch)
        row = [part for view in (x, out or x, indices or x) for part in (cl_buffer(view), view.offset)]
        row += plan.numbers
        size = (plan.rows * plan.parts * plan.group,)
        if plan.parts == 1:
            (rows,) = plan.kernels
            self._queue.launch(rows, size, group, *row, items, moved, extent, plan.passes)
            return
        count, offsets, move = plan.kernels
        counted = self._queue.alloc((plan.rows * plan.parts) << plan.bits, plan.place)
        counts = counted.mem
        shape = (extent, plan.chunk, plan.parts)
        for number in range(plan.passes):
            shift, first, last = number * plan.bits, int(number == 0), int(number == plan.passes - 1)
            self._queue.launch(count, size, group, *row, items, counts, *shape, shift, first)
            self._queue.launch(offsets, (plan.rows * plan.group,), group, counts, plan.parts)
            self._queue.launch(move, size, group, *row, items, moved, counts, *shape, shift, first, last)
            items, moved = moved, items

    def _plan(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> SortPlan:
        extent, width = x.shape[axis], 8 * x.dtype.itemsize
        others = x.shape[:axis] + x.shape[axis + 1 :]
        rows = math.prod(others)
        bits, group = (8, 1) if self._queue.is_cpu else (4, min(64, self._queue.work_group_size))
        units = self._queue.cl_device.max_compute_units
        parts = 1
        if extent > SHORT and rows < 2 * units:
            parts = max(min(-(-4 * units // rows) if self._queue.is_cpu else MOST_PARTS, 2 * extent // SHORT), 1)
        chunk = -(-extent // parts)
        parts = -(-extent // chunk)
        place = uint32 if extent < 1 << 32 else uint64
        wide = max(place, uint32 if width <= 32 else uint64, key=lambda dtype: dtype.itemsize)
        views = [x, out or x, indices or x]
        axes = Axes.of(others, [view.strides[:axis] + view.strides[axis + 1 :] for view in views]).merged()
        rank = len(axes.shape)
        names = [f"u_extent{k}" for k in range(1, rank)]
        numbers = list(axes.shape[1:])
        kept = operands.indices("u", rank, "u_extent")
        for position, name in enumerate(("x", "out", "places")):
            own = [f"{name}_kept{k}" for k in range(rank)]
            names += own
            numbers += [steps[position] & SIZE_MASK for steps in axes.strides]
            kept.append(f"const size_t {name}_kept = {operands.address(f'{name}_offset', 'u', own)};")
        numbers += [view.strides[axis] & SIZE_MASK for view in views]
        generated = operands.define("STRIDES", ["".join(f"const ulong {name}, " for name in names)])
        generated += operands.define("KEPT_AXES", kept)
        kind = {"f": 2, "i": 1}.get(x.dtype.kind, 0)
        word = WORDS[x.dtype.itemsize][0]
        carried = indices is not None or kind == 2
        defines = (
            ("WORD", word), ("SIGN", f"(({word}){1 << width - 1}UL)"), ("KIND", kind),
            *((("INFINITE", f"(({word}){infinity_bits(x.dtype)}UL)"),) if kind == 2 else ()),
            ("DESCENDING", int(descending)), ("PLACE", "uint" if place is uint32 else "ulong"),
            ("ITEM", "uint2" if wide is uint32 else "ulong2"),
            ("VALUES", int(out is not None)), ("PLACES", int(indices is not None)), ("BITS", bits),
            ("WORK_GROUP_SIZE", group),
        )  # fmt: skip
        row = (*(None, np.uint64) * 3, *(np.uint64,) * len(numbers))
        entries: dict[str, tuple[Any, ...]] = {"sort_rows": (*row, None, None, np.uint64, np.int32)}
        if parts > 1:
            entries = {
                "sort_count": (*row, None, None, *(np.uint64,) * 3, *(np.int32,) * 2),
                "sort_offsets": (None, np.uint64),
                "sort_move": (*row, None, None, None, *(np.uint64,) * 3, *(np.int32,) * 3),
            }
        kernels = [
            self._queue.kernels.shared("sort.cl", entry, defines, generated, types) for entry, types in entries.items()
        ]
        item = 2 * wide.itemsize if carried else x.dtype.itemsize
        return SortPlan(tuple(kernels), group, bits, width // bits, rows, parts, chunk, tuple(numbers), item, place)


def _reach(view: View) -> tuple[int, int]:
    """The first element of a buffer that a view touches, and the one after the last."""
    ends = [(extent - 1) * step for extent, step in zip(view.shape, view.strides, strict=True)]
    return view.offset + sum(min(end, 0) for end in ends), view.offset + sum(max(end, 0) for end in ends) + 1
