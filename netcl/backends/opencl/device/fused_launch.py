"""The launch that fused_adam and fused_update have in common: one pass over parameters, gradients and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from netcl.backends.base import Span, StepBlock
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
from netcl.backends.opencl.device.tuning_table import Knobs
from netcl.errors import ShapeError
from netcl.expression import Expression


@final
@dataclass(frozen=True, slots=True)
class Sharing:
    """How the elements of a span are dealt out among work-items: the knobs of ``kernels/step.clh``."""

    width: int
    run: int
    group: int
    interleaved: int

    @classmethod
    def of(cls, knobs: Knobs) -> Sharing:
        """What the knobs of a fused kernel say."""
        return cls(*(value for _, value in knobs))

    def with_width(self, width: int) -> Sharing:
        """The same share of each work-item, in narrower vectors."""
        return Sharing(width, self.run * self.width // width, self.group, self.interleaved)

    def groups(self, n: int) -> int:
        """Work-groups that ``n`` elements take."""
        return -(-n // (self.width * self.run * self.group))

    def defines(self) -> Defines:
        return (
            ("WIDTH", self.width),
            ("RUN", self.run),
            ("WORK_GROUP_SIZE", self.group),
            ("INTERLEAVED", self.interleaved),
        )


@final
class FusedLaunch:
    """Launches of one fused update kernel, kept in step blocks; a rule of None stands for the kernel's own."""

    def __init__(self, queue: Queue, call: str) -> None:
        self._queue = queue
        self._call = call

    def run(
        self, rule: Expression | None, fields: tuple[Span, ...], block: StepBlock, rows: Span, advance: bool
    ) -> None:
        """Enqueue an update of ``fields``, which are (p, g, *state).

        Raises
        ------
        ShapeError
        DTypeError
        HyperParameterError
        """
        p = fields[0]
        spans = [*fields, rows, *block_spans(block, None)]
        key = (self._call, rule and rule.key, len(fields), id(p.buffer), p.offset, p.size, block.slot, advance)
        launch: BoundLaunch | None = block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind(rule, fields, block, rows, advance, spans)
            remember(block.bound, key, launch, KEPT_LAUNCHES)
        if launch.global_size[0]:
            self._queue.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def source(self, rule: Expression | None, fields: Sequence[Span], block: StepBlock) -> str:
        """The OpenCL C of an update, as the compiler gets it for a step without clipping."""
        sharing = self._sharing(rule, fields, block)
        return compose(f"{self._call}.cl", *_program(rule, fields, block, sharing, True))

    def _sharing(self, rule: Expression | None, fields: Sequence[Span], block: StepBlock) -> Sharing:
        dtypes = [block.header.dtype, *(span.dtype for span in fields), *(value_dtypes(rule) if rule else ())]
        sharing = Sharing.of(self._queue.knobs(self._call))
        return sharing.with_width(self._queue.lanes(self._call, *dtypes, most=sharing.width))

    def _bind(
        self,
        rule: Expression | None,
        fields: tuple[Span, ...],
        block: StepBlock,
        rows: Span,
        advance: bool,
        spans: Sequence[Span],
    ) -> BoundLaunch:
        p, call = fields[0], self._call
        compute = block.header.dtype
        self._queue.require(compute)
        check_block(block)
        if not block.rows:
            raise ShapeError(f"{call} needs a step block with rows; give it hyper, counters and the number of rows")
        if any(span.size != p.size for span in fields):
            sizes = ", ".join(str(span.size) for span in fields)
            raise ShapeError(f"{call} needs parameters, gradients and state of one size, got {sizes} elements")
        check_row_map(rows, p.size)
        check_compute(compute, **{f"operand {i}": span for i, span in enumerate(fields)})
        sharing = self._sharing(rule, fields, block)
        defines, generated = _program(rule, fields, block, sharing, advance)
        types = ([None, np.uint64] * 4) + [np.uint64, None, np.uint64, np.uint64] + [None, np.uint64] * len(fields)
        arguments = [*span_arguments(block.header, *block_tables(block)), block.rows, *span_arguments(rows), p.size]
        arguments += span_arguments(*fields)
        sizes_of = (sharing.groups(p.size) + advance, sharing.group)
        return bind(self._queue, call, defines, types, arguments, sizes_of, spans, generated=generated)


def _program(
    rule: Expression | None, fields: Sequence[Span], block: StepBlock, sharing: Sharing, advance: bool
) -> tuple[Defines, str]:
    """Defines and generated part of a fused update."""
    p, g, *state = fields
    defines: Defines = (
        *real_defines(block.header.dtype),
        *column_defines(block),
        *sharing.defines(),
        ("ADVANCE", int(advance)),
        ("P", TAG[p.dtype] if rule is None else stored_tag(rule, 0)),
        ("G", TAG[g.dtype]),
    )
    if rule is None:
        defines += (("LARGEST", int(len(state) == 3)),)
        defines += tuple((name, TAG[span.dtype]) for name, span in zip(("M", "V", "V_MAX"), state, strict=False))
        return defines, ""
    check_rule(rule, fields, block.columns)
    return defines, rule_text(rule, block.columns, sharing.width)
