"""fused_adam: one pass of Adam in any variant, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from netcl.backends.base import ADAM_COLUMNS, Span, StepBlock
from netcl.backends.opencl.device.fused_launch import FusedLaunch
from netcl.backends.opencl.device.queue import Queue
from netcl.errors import HyperParameterError


@final
class FusedAdam:
    """fused_adam of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._launch = FusedLaunch(queue, "fused_adam")

    def fused_adam(
        self,
        p: Span,
        g: Span,
        exp_avg: Span,
        exp_avg_sq: Span,
        max_exp_avg_sq: Span | None,
        block: StepBlock,
        rows: Span,
        *,
        advance: bool,
    ) -> None:
        """One pass of Adam in any variant. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If the block's columns are not :data:`~netcl.backends.base.ADAM_COLUMNS`.
        ShapeError
            If the spans differ in size, or the row map or block is too small.
        DTypeError
            If the spans are not of the block's compute dtype, or the device cannot compute with it.
        """
        state = (exp_avg, exp_avg_sq) if max_exp_avg_sq is None else (exp_avg, exp_avg_sq, max_exp_avg_sq)
        if block.columns != ADAM_COLUMNS:
            raise HyperParameterError(
                f"fused_adam reads the columns {', '.join(ADAM_COLUMNS)}, got a block with {', '.join(block.columns)}"
            )
        self._launch.run(None, (p, g, *state), block, rows, advance)

    def source(self, fields: Sequence[Span], block: StepBlock) -> str:
        """The OpenCL C of the update, as the compiler gets it for a step without clipping. Does not block."""
        return self._launch.source(None, fields, block)
