"""Softmax, cross-entropy and random bits; with the matrix product and indexing, all that is no map or reduction."""

from __future__ import annotations

import math

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.queue import memory
from netcl.backends.opencl.ops.batched_matmul import BatchedMatmulCall
from netcl.backends.opencl.ops.gather_scatter import IndexingCalls, index_type
from netcl.dtypes import uint32
from netcl.errors import DTypeError, ShapeError

LABEL_FAULT = 3
"""Key of ``core.FAULTS``."""

ROW_SHARE = 8
"""Elements of a row for each work-item on a GPU."""

COUNTERS = 8
"""Philox counters for each work-item."""

WORD = (1 << 64) - 1


class ArrayCalls(BatchedMatmulCall, IndexingCalls):
    """What :class:`~netcl.backends.base.ArrayOperations` has besides maps and reductions."""

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
        self._require_floating("softmax", x, out)
        rows, columns = x.shape
        if rows * columns == 0:
            return
        items, group_rows, rows_each = self._share_rows(rows, columns)
        kernel = self.kernel(
            "softmax.cl",
            "softmax",
            (
                ("X", TAG[x.dtype]), ("OUT", TAG[out.dtype]), ("SUM", TAG[x.dtype.compute]),
                ("WIDTH", self.lanes("softmax", x.dtype, out.dtype)), ("ITEMS", items), ("ROWS", group_rows),
                ("LOG", int(log)),
            ),
            arguments=(*(None, np.uint64) * 2, *(np.int64,) * 4, *(np.uint64,) * 3),
        )  # fmt: skip
        operands = (memory(x), x.offset, memory(out), out.offset)
        size = _row_groups(rows, items, group_rows, rows_each)
        self.launch(kernel, size, (items, group_rows), *operands, *x.strides, *out.strides, rows, columns, rows_each)

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
        self._require_floating("softmax_cross_entropy", logits, loss, wanted)
        label = index_type(labels)
        rows, columns = logits.shape
        if rows == 0:
            return
        items, group_rows, rows_each = self._share_rows(rows, columns)
        compute = logits.dtype.compute
        width = self.lanes("softmax_cross_entropy", logits.dtype, loss.dtype, wanted.dtype)
        kernel = self.kernel(
            "softmax_cross_entropy.cl",
            "softmax_cross_entropy",
            (
                ("X", TAG[logits.dtype]), ("LOSS", TAG[loss.dtype]), ("GRADIENT", TAG[wanted.dtype]),
                ("SUM", TAG[compute]), ("WIDTH", width), ("LABEL", label), ("ITEMS", items), ("ROWS", group_rows),
                ("WITH_GRADIENT", int(gradient is not None)), ("FAULT", LABEL_FAULT),
            ),
            arguments=(
                *(None, np.uint64) * 4, None, SCALAR[compute], *(np.int64,) * 6, *(np.uint64,) * 2, np.int64, np.uint64,
            ),
        )  # fmt: skip
        operands = [part for view in (logits, labels, loss, wanted) for part in (memory(view), view.offset)]
        strides = (*logits.strides, *labels.strides, *loss.strides, *wanted.strides)
        self.launch(
            kernel,
            _row_groups(rows, items, group_rows, rows_each),
            (items, group_rows),
            *operands,
            self.faults.mem,
            label_smoothing,
            *(*strides, rows, columns, ignore_index, rows_each),
        )
        self.faults_pending = True

    def random_bits(self, out: View, seed: int, offset: int) -> None:
        """Fill with Philox4x32-10. See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If ``out`` is not contiguous.
        DTypeError
            If ``out`` is not uint32.
        """
        if out.dtype is not uint32:
            raise DTypeError(f"random bits are uint32, got an output of {out.dtype}")
        n = math.prod(out.shape)
        if n == 0:
            return
        run = 1
        for extent, stride in zip(reversed(out.shape), reversed(out.strides), strict=True):
            run = run * extent if extent == 1 or stride == run else 0
        if run != n:
            raise ShapeError(
                f"random_bits fills contiguous memory, got shape {out.shape} with strides {out.strides}; fill an array "
                "of its own and copy it"
            )
        self.needs_plain("random_bits", uint32)
        group = self.work_group_size
        kernel = self.kernel(
            "random_bits.cl",
            "random_bits",
            (("WORK_GROUP_SIZE", group),),
            arguments=(None, *(np.uint64,) * 4, np.uint32, np.uint32),
        )
        first, skip = divmod(offset, 4)
        items = -(-(skip + n) // (4 * COUNTERS))
        key = seed & WORD
        self.launch(
            kernel,
            (-(-items // group) * group,),
            (group,),
            *(memory(out), out.offset, first & WORD, skip, n, key & 0xFFFFFFFF, key >> 32),
        )

    def _require_floating(self, call: str, *views: View) -> None:
        for view in views:
            if not view.dtype.is_floating:
                raise DTypeError(f"{call} takes floating-point dtypes, got {view.dtype}; cast it with astype()")
            self.require(view.dtype)

    def _share_rows(self, rows: int, columns: int) -> tuple[int, int, int]:
        """Work-items for a row, rows for a work-group, and rows that each of them takes in turn."""
        if self.is_cpu:
            return 1, 1, -(-rows // (4 * self.cl_device.max_compute_units))
        items = 1
        while items < self.work_group_size and items * ROW_SHARE < columns:
            items *= 2
        return items, max(self.work_group_size // 4 // items, 1), 1


def _row_groups(rows: int, items: int, group_rows: int, rows_each: int) -> tuple[int, int]:
    return items, -(-rows // (group_rows * rows_each)) * group_rows
