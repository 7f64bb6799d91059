"""gather: the rows that indices name."""

from __future__ import annotations

from typing import final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.scalars import WORDS
from netcl.backends.opencl.device.faults import GATHER_INDEX
from netcl.backends.opencl.device.index_arguments import check_indexing, index_type
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.errors import DTypeError

COPIED = 4096
"""Neighbours in memory that one work-item copies on a CPU runtime; on others it is one."""


@final
class Gather:
    """gather of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def gather(self, x: View, indices: View, out: View) -> None:
        """out[o, c, i] ← x[o, indices[o, c, i], i]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        Where an index is out of range the result is 0, and the next call that blocks raises ``IndexError``.

        Raises
        ------
        ShapeError
            If ``indices`` and ``out`` differ in shape, or from ``x`` in the outer or inner extent.
        DTypeError
            If ``indices`` is neither int32 nor int64, or ``x`` and ``out`` differ in dtype.
        """
        check_indexing("gather", x, indices, out)
        if x.dtype is not out.dtype:
            raise DTypeError(f"gather keeps the dtype: x is {x.dtype} and out is {out.dtype}; cast one with astype()")
        self._queue.needs_plain("gather", x.dtype)
        word = "ulong2" if x.dtype.itemsize == 16 else WORDS[x.dtype.itemsize][0]
        index = index_type(indices)
        outer, size_c, inner = out.shape
        if outer * size_c * inner == 0:
            return
        per_item = min(inner, COPIED) if self._queue.is_cpu else 1
        items_per_row = -(-inner // per_item)
        group = self._queue.work_group_size
        kernel = self._queue.kernels.shared(
            "gather.cl",
            "gather",
            (("WORD", word), ("INDEX", index), ("FAULT", GATHER_INDEX), ("WORK_GROUP_SIZE", group)),
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 9, *(np.uint64,) * 6),
        )
        operands = (
            cl_buffer(x),
            x.offset,
            cl_buffer(indices),
            indices.offset,
            cl_buffer(out),
            out.offset,
            self._queue.faults.buffer.mem,
        )
        strides = (*x.strides, *indices.strides, *out.strides)
        extents = (outer, x.shape[1], size_c, inner, per_item, items_per_row)
        self._queue.launch(
            kernel, whole_groups(outer * size_c * items_per_row, group), (group,), *operands, *strides, *extents
        )
        self._queue.faults.pending = True
