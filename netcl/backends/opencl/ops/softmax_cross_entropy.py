"""softmax_cross_entropy: loss and gradient of each row in one pass."""

from __future__ import annotations

from typing import final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.faults import LABEL
from netcl.backends.opencl.device.index_arguments import index_type
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.row_sharing import require_floating, share_rows
from netcl.errors import ShapeError


@final
class SoftmaxCrossEntropy:
    """softmax_cross_entropy of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def softmax_cross_entropy(
        self, logits: View, labels: View, loss: View, gradient: View | None, label_smoothing: float, ignore_index: int
    ) -> None:
        """loss and gradient of each row. See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If the shapes are not (rows, classes), (rows,), (rows,) and (rows, classes).
        DTypeError
            If ``labels`` is neither int32 nor int64, or another dtype is not floating.
        """
        wanted = logits if gradient is None else gradient
        if len(logits.shape) != 2 or not labels.shape == loss.shape == logits.shape[:1] or wanted.shape != logits.shape:
            raise ShapeError(
                f"softmax_cross_entropy takes logits (rows, classes), labels (rows,), loss (rows,) and a gradient of "
                f"the logits' shape, got {logits.shape}, {labels.shape}, {loss.shape} and {wanted.shape}"
            )
        require_floating(self._queue, "softmax_cross_entropy", logits, loss, wanted)
        label = index_type(labels)
        rows, columns = logits.shape
        if rows == 0:
            return
        sharing = share_rows(self._queue, rows, columns)
        items, group_rows, rows_each = sharing
        compute = logits.dtype.compute
        width = self._queue.lanes("softmax_cross_entropy", logits.dtype, loss.dtype, wanted.dtype)
        kernel = self._queue.kernels.shared(
            "softmax_cross_entropy.cl",
            "softmax_cross_entropy",
            (
                ("X", TAG[logits.dtype]), ("LOSS", TAG[loss.dtype]), ("GRADIENT", TAG[wanted.dtype]),
                ("SUM", TAG[compute]), ("WIDTH", width), ("LABEL", label), ("ITEMS", items), ("ROWS", group_rows),
                ("WITH_GRADIENT", int(gradient is not None)), ("FAULT", LABEL),
            ),
            arguments=(
                *(None, np.uint64) * 4, None, SCALAR[compute], *(np.int64,) * 6, *(np.uint64,) * 2, np.int64, np.uint64,
            ),
        )  # fmt: skip
        operands = [part for view in (logits, labels, loss, wanted) for part in (cl_buffer(view), view.offset)]
        strides = (*logits.strides, *labels.strides, *loss.strides, *wanted.strides)
        self._queue.launch(
            kernel,
            sharing.global_size(rows),
            (items, group_rows),
            *operands,
            self._queue.faults.buffer.mem,
            label_smoothing,
            *(*strides, rows, columns, ignore_index, rows_each),
        )
        self._queue.faults.pending = True
