"""How softmax and softmax_cross_entropy deal out the rows of a matrix among work-items."""

from __future__ import annotations

from typing import NamedTuple

from netcl.backends.base import View
from netcl.backends.opencl.device.queue import Queue
from netcl.errors import DTypeError

ROW_SHARE = 8
"""Elements of a row for each work-item on a GPU."""


class RowSharing(NamedTuple):
    """Work-items for a row, rows for a work-group, and rows that each of them takes in turn."""

    items: int
    group_rows: int
    rows_each: int

    def global_size(self, rows: int) -> tuple[int, int]:
        """For this many rows."""
        return self.items, -(-rows // (self.group_rows * self.rows_each)) * self.group_rows


def share_rows(queue: Queue, rows: int, columns: int) -> RowSharing:
    """The sharing that suits a device: a row per work-item on a CPU, a work-group or part of one per row on a GPU."""
    if queue.is_cpu:
        return RowSharing(1, 1, -(-rows // (4 * queue.cl_device.max_compute_units)))
    items = 1
    while items < queue.work_group_size and items * ROW_SHARE < columns:
        items *= 2
    return RowSharing(items, max(queue.work_group_size // 4 // items, 1), 1)


def require_floating(queue: Queue, call: str, *views: View) -> None:
    """Refuse views of dtypes that are not floating, or with which the device cannot compute.

    Raises
    ------
    DTypeError
    """
    for view in views:
        if not view.dtype.is_floating:
            raise DTypeError(f"{call} takes floating-point dtypes, got {view.dtype}; cast it with astype()")
        queue.require(view.dtype)
