"""fused_update: one pass of any elementwise rule, traced once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from netcl.backends.base import BlockSpan, Span, StepBlock
from netcl.backends.opencl.device.block_launch import BlockLaunch
from netcl.backends.opencl.device.fused_launch import FusedLaunch
from netcl.backends.opencl.device.queue import Queue
from netcl.expression import Expression


@final
class FusedUpdate:
    """fused_update of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._launch = FusedLaunch(queue, "fused_update")
        self._blocks = BlockLaunch(queue)

    def fused_update(
        self,
        rule: Expression,
        p: Span,
        g: Span,
        state: Sequence[Span | BlockSpan],
        block: StepBlock,
        rows: Span,
        *,
        advance: bool,
    ) -> None:
        """One pass of an elementwise rule. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If the rule reads a hyper-parameter that the block does not have.
        ShapeError
            If the spans differ in size or number from what the rule says, or the row map or block is too small.
        DTypeError
            If a span does not have the rule's dtype, or the device cannot compute with it.
        """
        for field in state:
            if isinstance(field, BlockSpan):
                self._blocks.run(rule, p, g, state, block, rows, advance)
                return
        self._launch.run(rule, (p, g, *state), block, rows, advance)  # type: ignore[arg-type]  # all are spans

    def source(self, rule: Expression, fields: Sequence[Span | BlockSpan], block: StepBlock) -> str:
        """The OpenCL C of the update, as the compiler gets it for a step without clipping. Does not block."""
        if any(isinstance(field, BlockSpan) for field in fields):
            return self._blocks.source(rule, fields, block)
        return self._launch.source(rule, fields, block)  # type: ignore[arg-type]  # all are spans
