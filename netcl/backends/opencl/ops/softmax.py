"""softmax over rows, and its logarithm."""

from __future__ import annotations

from typing import final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.row_sharing import require_floating, share_rows
from netcl.errors import ShapeError


@final
class Softmax:
    """softmax of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def softmax(self, x: View, out: View, *, log: bool) -> None:
        """out ← softmax (or its logarithm) over the last axis. See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If ``x`` is not two-dimensional or ``out`` has another shape.
        DTypeError
            If a dtype is not floating, or the device cannot compute with it.
        """
        if len(x.shape) != 2 or x.shape != out.shape:
            raise ShapeError(f"softmax takes two views of one shape (rows, columns), got {x.shape} and {out.shape}")
        require_floating(self._queue, "softmax", x, out)
        rows, columns = x.shape
        if rows * columns == 0:
            return
        sharing = share_rows(self._queue, rows, columns)
        items, group_rows, rows_each = sharing
        kernel = self._queue.kernels.shared(
            "softmax.cl",
            "softmax",
            (
                ("X", TAG[x.dtype]), ("OUT", TAG[out.dtype]), ("SUM", TAG[x.dtype.compute]),
                ("WIDTH", self._queue.lanes("softmax", x.dtype, out.dtype)), ("ITEMS", items), ("ROWS", group_rows),
                ("LOG", int(log)),
            ),
            arguments=(*(None, np.uint64) * 2, *(np.int64,) * 4, *(np.uint64,) * 3),
        )  # fmt: skip
        operands = (cl_buffer(x), x.offset, cl_buffer(out), out.offset)
        size = sharing.global_size(rows)
        self._queue.launch(
            kernel, size, (items, group_rows), *operands, *x.strides, *out.strides, rows, columns, rows_each
        )
