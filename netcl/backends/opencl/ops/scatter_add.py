"""scatter_add: adds rows where indices name them, the derivative of gather."""

from __future__ import annotations

from typing import final

import numpy as np

from netcl.backends.base import Span, View
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.device.complex_views import part_views, split_views
from netcl.backends.opencl.device.faults import SCATTER_INDEX
from netcl.backends.opencl.device.index_arguments import check_indexing, index_type
from netcl.backends.opencl.device.memory import CLBuffer, cl_buffer
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.backends.opencl.ops.fill import Fill

ADDED = 256
"""Neighbours in memory that one work-item adds on a CPU runtime; on others it is one."""


@final
class ScatterAdd:
    """scatter_add of :class:`~netcl.backends.base.ArrayOperations`; ``fill`` starts wider sums."""

    def __init__(self, queue: Queue, fill: Fill) -> None:
        self._queue = queue
        self._fill = fill

    def scatter_add(self, updates: View, indices: View, out: View) -> None:
        """out[o, indices[o, c, i], i] += updates[o, c, i]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        No atomics: each sum has one owner and runs in the order of c. Sums into float16 and bfloat16 are formed in
        float32 and rounded once. Where an index is out of range nothing is added, and the next call that blocks raises
        ``IndexError``.

        Raises
        ------
        ShapeError
            If ``indices`` and ``updates`` differ in shape, or from ``out`` in the outer or inner extent.
        DTypeError
            If ``indices`` is neither int32 nor int64, or the device cannot compute with a dtype.
        """
        check_indexing("scatter_add", out, indices, updates)
        self._queue.require(updates.dtype, out.dtype)
        self._queue.needs_plain("scatter_add", updates.dtype, out.dtype)
        index = index_type(indices)
        outer, size_n, inner = out.shape
        if updates.shape[0] * updates.shape[1] * updates.shape[2] == 0:
            return
        if out.dtype.kind == "c":
            for added, part in zip(split_views([updates]), part_views(out), strict=False):  # real ones have no second
                self._add(added, indices, index, part)
            return
        self._queue.require_real("scatter_add to a real array", updates.dtype)
        if out.dtype.compute is out.dtype:
            self._add(updates, indices, index, out)
            return
        sums = self._queue.alloc(max(outer * size_n * inner, 1), out.dtype.compute)
        self._fill.fill(Span(sums, 0, sums.size), 0)
        self._add(updates, indices, index, View(sums, 0, out.shape, (size_n * inner, inner, 1)))
        if outer * size_n * inner:
            self._round(sums, out)

    def _add(self, updates: View, indices: View, index: str, out: View) -> None:
        outer, size_n, inner = out.shape
        per_item = min(inner, ADDED) if self._queue.is_cpu else 1
        items_per_row = -(-inner // per_item)
        # Where few work-items would do all the adding, several share a column, each with a range of its rows.
        group = 1 if self._queue.is_cpu else self._queue.work_group_size
        wanted = self._queue.cl_device.max_compute_units * (2 if self._queue.is_cpu else 4 * group)
        parts = max(min(wanted // (outer * items_per_row), size_n), 1)
        kernel = self._queue.kernels.shared(
            "scatter_add.cl",
            "scatter_add",
            (
                ("X", TAG[updates.dtype]), ("OUT", TAG[out.dtype]), ("INDEX", index), ("FAULT", SCATTER_INDEX),
                ("WORK_GROUP_SIZE", group),
            ),
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 9, *(np.uint64,) * 7),
        )  # fmt: skip
        faults = self._queue.faults
        operands = [part for view in (updates, indices, out) for part in (cl_buffer(view), view.offset)]
        extents = (outer, size_n, updates.shape[1], inner, per_item, items_per_row, parts)
        self._queue.launch(
            kernel,
            whole_groups(outer * parts * items_per_row, group),
            (group,),
            *(*operands, faults.buffer.mem, *updates.strides, *indices.strides, *out.strides, *extents),
        )
        faults.pending = True

    def _round(self, sums: CLBuffer, out: View) -> None:
        group = self._queue.work_group_size
        kernel = self._queue.kernels.shared(
            "scatter_add.cl",
            "scatter_add_rounded",
            (("OUT", TAG[out.dtype]), ("WORK_GROUP_SIZE", group)),
            arguments=(None, None, np.uint64, *(np.int64,) * 3, *(np.uint64,) * 3),
        )
        outer, size_n, inner = out.shape
        size = whole_groups(outer * size_n * inner, group)
        self._queue.launch(kernel, size, (group,), sums.mem, cl_buffer(out), out.offset, *out.strides, *out.shape)
