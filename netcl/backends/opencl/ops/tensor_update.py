"""tensor_update: two passes of a rule with values of whole tensors, and the ratios between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import CHUNK, RECORDS, Span, StepBlock, TensorMap, TensorRule
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.tensor_rule import check_tensor_rule, direction_text, update_text
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
from netcl.dtypes import float64, int64, uint16
from netcl.errors import DTypeError, ShapeError

FEWEST_BLOCKS = 128
"""Blocks into which at least the largest tensor is divided, where it has so many chunks. Each adds all of their records
up, so there must not be many more; and there are at least a few for each compute unit."""

BLOCKS_PER_UNIT = 4


@final
class TensorUpdate:
    """tensor_update of :class:`~netcl.backends.base.UpdateOperations`: a launch for each pass."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._blocks = max(FEWEST_BLOCKS, BLOCKS_PER_UNIT * queue.cl_device.max_compute_units)

    def tensor_update(
        self,
        rule: TensorRule,
        p: Span,
        g: Span | None,
        state: Sequence[Span],
        block: StepBlock,
        rows: Span,
        tensors: TensorMap,
        *,
        chunk: int,
        advance: bool,
    ) -> None:
        """Two passes, and the ratios. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If the rule reads a hyper-parameter that the block does not have.
        ShapeError
            If the spans differ in size or number from what the rule says, or a map or the block is too small.
        DTypeError
            If a span does not have the rule's dtype, or the device cannot compute with it.
        """
        of_tensors = (tensors.first, tensors.of_chunk, tensors.sizes, tensors.records)
        spans = [p, *state, rows, *block_spans(block, None), *of_tensors]
        if g is not None:
            spans.append(g)
        key = ("tensor_update", rule.key, id(p.buffer), p.offset, p.size, chunk, block.slot, advance, g is None)
        launches: list[BoundLaunch] = []
        for number in range(0 if g is not None or rule.measured else 1, 2):
            launch: BoundLaunch | None = block.bound.get((*key, number))
            if launch is None or not launch.fits(spans):
                bound = self._bind(rule, p, g, state, block, rows, tensors, chunk, advance, spans)
                for i, made in enumerate(bound):
                    remember(block.bound, (*key, i), made, KEPT_LAUNCHES)
                launch = bound[number]
            launches.append(launch)
        for launch in launches:
            if launch.global_size[0]:
                self._queue.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def source(self, rule: TensorRule, fields: Sequence[Span], block: StepBlock) -> str:
        """The OpenCL C of both kernels, as the compiler gets it for a step without clipping. Does not block."""
        p, g, *state = fields
        programs = self._programs(rule, p, g, state, block, advance=True)
        return "\n\n".join(compose(f"{name}.cl", *program) for name, program in programs.items())

    def _programs(
        self, rule: TensorRule, p: Span, g: Span | None, state: Sequence[Span], block: StepBlock, *, advance: bool
    ) -> dict[str, tuple[Defines, str]]:
        """Defines and generated part of both kernels."""
        compute = block.header.dtype
        expressions = (rule.direction, *rule.measured, rule.ratio, rule.update)
        dtypes = [
            compute,
            *(span.dtype for span in (p, *state)),
            *(d for each in expressions for d in value_dtypes(each)),
        ]
        knobs = dict(self._queue.knobs("norm_reduce"))
        width = self._queue.lanes("tensor_update", *dtypes, most=knobs["WIDTH"])
        defines: Defines = (
            *real_defines(compute),
            *column_defines(block),
            ("WIDTH", width),
            ("LANES", knobs["LANES"]),
            ("NORM_COUNT", len(rule.measured)),
            ("WIDE", int(compute is float64)),
            ("P", TAG[p.dtype]),
            ("G", TAG[compute if g is None else g.dtype]),
        )
        first = direction_text(rule, state, block.columns, width, moves=g is not None)
        second = update_text(rule, state, block.columns, width)
        return {
            "tensor_direction": ((*defines, ("ADVANCE", int(advance))), first),
            "tensor_update": (defines, second),
        }

    def _bind(
        self,
        rule: TensorRule,
        p: Span,
        g: Span | None,
        state: Sequence[Span],
        block: StepBlock,
        rows: Span,
        tensors: TensorMap,
        chunk: int,
        advance: bool,
        spans: Sequence[Span],
    ) -> list[BoundLaunch]:
        """Both launches."""
        compute = block.header.dtype
        self._queue.require(compute)
        self._check(rule, p, g, state, block, rows, tensors, chunk)
        per_block = max(1, -(-tensors.largest // self._blocks))
        chunks, pieces = -(-p.size // CHUNK), tensors.starts[-1] + tensors.count
        groups = -(-(chunk + chunks) // per_block) - chunk // per_block if chunks else 0
        lanes = dict(self._queue.knobs("norm_reduce"))["LANES"]
        buffers = [block.header, *block_tables(block)]
        numbers = [pieces, per_block, chunk, p.size]
        gradient = state[-1] if g is None else g  # which is not read then
        given: dict[str, tuple[list[Any], list[Span]]] = {
            "tensor_direction": (
                [
                    *span_arguments(*buffers),
                    block.rows,
                    *span_arguments(rows, *_of(tensors), tensors.records),
                    *numbers,
                ],
                [p, gradient, *state],
            ),
            "tensor_update": (
                [*span_arguments(*buffers[:3], rows, *_of(tensors), tensors.sizes, tensors.records), *numbers],
                [p, *state],
            ),
        }
        made = []
        for name, (defines, text) in self._programs(rule, p, g, state, block, advance=advance).items():
            arguments, fields = given[name]
            arguments += span_arguments(*fields)
            # A buffer comes with its offset; all else are sizes.
            types = [np.uint64 if isinstance(argument, int) else None for argument in arguments]
            sizes = (groups + (advance and name == "tensor_direction"), lanes)
            made.append(bind(self._queue, name, defines, types, arguments, sizes, spans, generated=text))
        return made

    def _check(
        self,
        rule: TensorRule,
        p: Span,
        g: Span | None,
        state: Sequence[Span],
        block: StepBlock,
        rows: Span,
        tensors: TensorMap,
        chunk: int,
    ) -> None:
        check_block(block)
        if not block.rows:
            raise ShapeError(
                "tensor_update needs a step block with rows; give it hyper, counters and the number of rows"
            )
        fields = (p, *(() if g is None else (g,)), *state)
        if any(span.size != p.size for span in fields):
            sizes = ", ".join(str(span.size) for span in fields)
            raise ShapeError(f"tensor_update needs parameters, gradients and state of one size, got {sizes} elements")
        check_row_map(rows, p.size)
        compute = block.header.dtype
        check_compute(compute, **{f"operand {i}": span for i, span in enumerate(fields)})
        check_tensor_rule(rule, p, g, state, block.columns)
        chunks, count = tensors.starts[-1], tensors.count
        if chunk < 0 or chunk - -p.size // CHUNK > chunks:
            raise ShapeError(f"{p.size} elements from chunk {chunk} on are beyond the {chunks} of the tensor map")
        wanted = {
            "first": (tensors.first, int64, count + 1),
            "of_chunk": (tensors.of_chunk, uint16, chunks),
            "sizes": (tensors.sizes, compute, count),
            "records": (tensors.records, compute, RECORDS * (chunks + count)),
        }
        for name, (span, dtype, least) in wanted.items():
            if span.dtype is not dtype or span.size < least:
                raise (ShapeError if span.dtype is dtype else DTypeError)(
                    f"{name} of a map of {count} tensors and {chunks} chunks are {least} values of {dtype}, got "
                    f"{span.size} of {span.dtype}"
                )


def _of(tensors: TensorMap) -> tuple[Span, Span]:
    return tensors.first, tensors.of_chunk
