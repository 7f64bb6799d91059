"""scatter: rows written where indices say."""

from __future__ import annotations

from typing import final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.scalars import WORDS
from netcl.backends.opencl.device.faults import SCATTER_WRITE
from netcl.backends.opencl.device.index_arguments import check_indexing, index_type
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.dtypes import int32
from netcl.errors import DTypeError

WRITTEN = 4096
"""Neighbours in memory that one work-item writes on a CPU runtime."""

CLAIMS = (1 << 31) - 1
"""Updates of one place that an int32 tells apart."""


@final
class Scatter:
    """scatter of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def scatter(self, updates: View, indices: View, out: View) -> None:
        """out[o, indices[o, c, i], i] ← updates[o, c, i]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        On CPU runtimes each place has one owner, who writes in the order of c. Elsewhere every update claims its place
        with an atomic maximum of c, which is the same in whatever order they come, and the last one writes; that takes
        an int32 of scratch for each place. Where an index is out of range nothing is written, and the next call that
        blocks raises ``IndexError``.

        Raises
        ------
        ShapeError
            If ``indices`` and ``updates`` differ in shape, or from ``out`` in the outer or inner extent.
        DTypeError
            If ``indices`` is neither int32 nor int64, or ``updates`` and ``out`` differ in dtype.
        """
        check_indexing("scatter", out, indices, updates)
        if updates.dtype is not out.dtype:
            raise DTypeError(
                f"scatter keeps the dtype: updates are {updates.dtype} and out is {out.dtype}; cast one with astype()"
            )
        self._queue.needs_plain("scatter", out.dtype)
        word = "ulong2" if out.dtype.itemsize == 16 else WORDS[out.dtype.itemsize][0]
        index = index_type(indices)
        outer, size_c, inner = updates.shape
        if outer * size_c * inner == 0:
            return
        if self._queue.is_cpu or size_c > CLAIMS:
            self._walk(updates, indices, out, word, index)
        else:
            self._claim(updates, indices, out, word, index)
        self._queue.faults.pending = True

    def _walk(self, updates: View, indices: View, out: View, word: str, index: str) -> None:
        outer, size_n, inner = out.shape
        chunk = min(inner, WRITTEN)
        chunks = -(-inner // chunk)
        # Where few work-items would do all the writing, several share a column, each with a range of its rows.
        wanted = 2 * self._queue.cl_device.max_compute_units
        parts = max(min(wanted // (outer * chunks), size_n), 1)
        kernel = self._queue.kernels.shared(
            "scatter.cl",
            "scatter",
            (("WORD", word), ("INDEX", index), ("FAULT", SCATTER_WRITE), ("WORK_GROUP_SIZE", 1)),
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 9, *(np.uint64,) * 7),
        )
        operands = [part for view in (updates, indices, out) for part in (cl_buffer(view), view.offset)]
        extents = (outer, size_n, updates.shape[1], inner, chunk, chunks, parts)
        self._queue.launch(
            kernel,
            (outer * parts * chunks,),
            (1,),
            *(*operands, self._queue.faults.buffer.mem, *updates.strides, *indices.strides, *out.strides, *extents),
        )

    def _claim(self, updates: View, indices: View, out: View, word: str, index: str) -> None:
        outer, size_n, inner = out.shape
        size_c = updates.shape[1]
        # Where the indices do not depend on o or i, one claim serves all of these.
        claims_o = 1 if indices.strides[0] == 0 else outer
        claims_i = 1 if indices.strides[2] == 0 else inner
        scratch = self._queue.alloc(claims_o * size_n * claims_i, int32)
        winners = scratch.mem
        group = self._queue.work_group_size
        defines = (("WORD", word), ("INDEX", index), ("FAULT", SCATTER_WRITE), ("WORK_GROUP_SIZE", group))
        faults = self._queue.faults.buffer.mem
        extents = (claims_o, size_n, size_c, claims_i)
        size = whole_groups(claims_o * size_c * claims_i, group)
        for entry, last in (("scatter_clear", ()), ("scatter_claim", (faults,))):
            kernel = self._queue.kernels.shared(
                "scatter.cl",
                entry,
                defines,
                arguments=(None, np.uint64, None, *(None for _ in last), *(np.int64,) * 3, *(np.uint64,) * 4),
            )
            self._queue.launch(
                kernel, size, (group,), cl_buffer(indices), indices.offset, winners, *last, *indices.strides, *extents
            )
        kernel = self._queue.kernels.shared(
            "scatter.cl",
            "scatter_write",
            defines,
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 12, *(np.uint64,) * 4),
        )
        operands = [part for view in (updates, indices, out) for part in (cl_buffer(view), view.offset)]
        steps = (size_n * claims_i if claims_o > 1 else 0, claims_i, int(claims_i > 1))
        strides = (*updates.strides, *indices.strides, *out.strides, *steps)
        size = whole_groups(outer * size_c * inner, group)
        self._queue.launch(kernel, size, (group,), *operands, winners, *strides, outer, size_n, size_c, inner)
