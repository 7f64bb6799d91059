"""The launch of an update whose state is kept in blocks of few bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from netcl.backends.base import CHUNK, BlockFormat, BlockSpan, Span, StepBlock
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.update_rule import check_rule, rule_text, stored_tag
from netcl.backends.opencl.codegen.writer import value_dtypes
from netcl.backends.opencl.device.bound_launch import KEPT_LAUNCHES, BoundLaunch, bind, span_arguments
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.program import Defines, compose
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.step_arguments import (
    block_spans,
    block_tables,
    check_block,
    check_compute,
    check_row_map,
    column_defines,
    real_defines,
)
from netcl.dtypes import float32, uint8
from netcl.errors import DTypeError, ShapeError
from netcl.expression import Expression

Field = Span | BlockSpan

LARGEST_GROUP = 64
"""Work-items that share a block where those of a group take turns; two elements each are a block of 128."""


@final
class BlockLaunch:
    """Launches of ``block_update``, kept in step blocks."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def run(
        self, rule: Expression, p: Span, g: Span, state: Sequence[Field], block: StepBlock, rows: Span, advance: bool
    ) -> None:
        """Enqueue an update. The arguments are those of ``fused_update``.

        Raises
        ------
        ShapeError
        DTypeError
        HyperParameterError
        """
        fields = (p, g, *state)
        spans = [*_memory(fields), rows, *block_spans(block, None)]
        key = ("block_update", rule.key, _formats(state), id(p.buffer), p.offset, p.size, block.slot, advance)
        launch: BoundLaunch | None = block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind(rule, fields, block, rows, advance, spans)
            remember(block.bound, key, launch, KEPT_LAUNCHES)
        if launch.global_size[0]:
            self._queue.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def source(self, rule: Expression, fields: Sequence[Field], block: StepBlock) -> str:
        """The OpenCL C of an update, as the compiler gets it for a step without clipping."""
        return compose("block_update.cl", *self._program(rule, fields, block, *self._sharing(rule, fields), True))

    def _sharing(self, rule: Expression, fields: Sequence[Field]) -> tuple[int, int]:
        """Elements of a vector, and work-items that share a block."""
        knobs = dict(self._queue.knobs("fused_update"))
        group = min(knobs["WORK_GROUP_SIZE"], LARGEST_GROUP) if knobs["INTERLEAVED"] else 1
        least = max(format.per_byte for format in _formats(fields) if format is not None)
        dtypes = [float32, uint8, *(field.dtype for field in fields), *value_dtypes(rule)]
        width = max(self._queue.lanes("block_update", *dtypes, most=knobs["WIDTH"]), least)
        return width, group

    def _bind(
        self,
        rule: Expression,
        fields: tuple[Field, ...],
        block: StepBlock,
        rows: Span,
        advance: bool,
        spans: Sequence[Span],
    ) -> BoundLaunch:
        p = fields[0]
        assert isinstance(p, Span)
        check_block(block)
        if not block.rows:
            raise ShapeError("fused_update needs a step block with rows; give it hyper, counters and their number")
        _check(fields, p.size)
        check_row_map(rows, p.size)
        check_compute(block.header.dtype, **{f"operand {i}": x for i, x in enumerate(fields) if isinstance(x, Span)})
        if block.header.dtype is not float32:
            raise DTypeError(
                f"state in blocks of few bits is computed with in float32, and this step in {block.header.dtype}; keep "
                "such state in full"
            )
        width, group = self._sharing(rule, fields)
        defines, generated = self._program(rule, fields, block, width, group, advance)
        memory = _memory(fields)
        types = ([None, np.uint64] * 4) + [np.uint64, None, np.uint64, np.uint64] + [None, np.uint64] * len(memory)
        arguments = [*span_arguments(block.header, *block_tables(block)), block.rows, *span_arguments(rows), p.size]
        arguments += span_arguments(*memory)
        sizes = (-(-p.size // CHUNK) + advance, group)
        return bind(self._queue, "block_update", defines, types, arguments, sizes, spans, generated=generated)

    @staticmethod
    def _program(
        rule: Expression, fields: Sequence[Field], block: StepBlock, width: int, group: int, advance: bool
    ) -> tuple[Defines, str]:
        check_rule(rule, fields, block.columns)
        formats = _formats(fields[2:])
        sizes = {format.block for format in formats if format is not None}
        if len(sizes) > 1:
            raise ShapeError(
                f"the state in blocks of one update has blocks of one size, got {sorted(sizes)}; keep all of it in 8, "
                "or all in 4 bits"
            )
        defines: Defines = (
            *real_defines(block.header.dtype),
            *column_defines(block),
            ("WIDTH", width),
            ("WORK_GROUP_SIZE", group),
            ("ADVANCE", int(advance)),
            ("P", stored_tag(rule, 0)),
            ("G", TAG[fields[1].dtype]),
            ("BLOCK", sizes.pop()),
        )
        return defines, rule_text(rule, block.columns, width, formats)


def _formats(fields: Sequence[Field]) -> tuple[BlockFormat | None, ...]:
    return tuple([field.format if isinstance(field, BlockSpan) else None for field in fields])


def _memory(fields: Sequence[Field]) -> list[Span]:
    """The memory of all fields in the order of the kernel's parameters: those in blocks come last."""
    whole = [field for field in fields if isinstance(field, Span)]
    return whole + [span for field in fields if isinstance(field, BlockSpan) for span in (field.codes, field.scales)]


def _check(fields: Sequence[Field], n: int) -> None:
    for field in fields:
        if isinstance(field, Span):
            if field.size != n:
                raise ShapeError(f"fused_update needs operands of one size, got {field.size} and {n} elements")
            continue
        blocks = -(-n // field.format.block)
        codes, scales = field.codes, field.scales
        if codes.dtype is not uint8 or scales.dtype is not float32:
            raise DTypeError(f"blocks have codes of uint8 and scales of float32, got {codes.dtype} and {scales.dtype}")
        if scales.size < blocks or codes.size * field.format.per_byte < blocks * field.format.block:
            raise ShapeError(
                f"{n} elements need {blocks} blocks of {field.format.block}, got {scales.size} scales and "
                f"{codes.size} bytes of codes"
            )
