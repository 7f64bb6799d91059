"""A step block as kernel arguments and defines, and whether it and its row map are what a step needs."""

from __future__ import annotations

import math
from typing import Any

from netcl.backends.base import CHUNK, COUNTERS, HEADER, ROW, Span, StepBlock
from netcl.backends.opencl.codegen.scalars import scalar_argument
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.program import Defines
from netcl.dtypes import DType, float32, uint16
from netcl.errors import DTypeError, HyperParameterError, ShapeError


def real_argument(value: float, dtype: DType) -> Any:
    """A number as a kernel argument; one that the dtype does not hold is infinite, without a warning."""
    return SCALAR[dtype](scalar_argument(value, dtype))


def norm_order(ord: float) -> int:
    """The knob ORDER: which p-norm a kernel is built for.

    Raises
    ------
    HyperParameterError
    """
    if math.isnan(ord) or ord <= 0:
        raise HyperParameterError(f"the p of a norm must be positive or infinite, got {ord}")
    return -1 if math.isinf(ord) else int(ord) if ord in (1, 2) else 0


def block_spans(block: StepBlock, partials: Span | None, loss_scale: Span | None = None) -> list[Span]:
    """Everything of a block that a launch may read, the records, and the loss scale."""
    spans = (block.header, block.hyper, *(block.counters or ()), partials, loss_scale)
    return [span for span in spans if span is not None]


def block_tables(block: StepBlock) -> tuple[Span, Span, Span]:
    """Hyper-parameters, and the counters of the coming step and of the one after it."""
    assert block.hyper is not None
    assert block.counters is not None
    return block.hyper, block.counters[block.slot], block.counters[1 - block.slot]


def real_defines(compute: DType) -> Defines:
    """The dtype that a step is computed in, and the elements of a chunk."""
    return (("REAL", TAG[compute]), ("CHUNK", CHUNK))


def column_defines(block: StepBlock) -> Defines:
    """Where a block keeps what the counters depend on."""
    places = tuple(
        (f"{name.upper()}_COLUMN", block.columns.index(name) if name in block.columns else -1)
        for name in ("log_beta1", "log_beta2")
    )
    return (("COLUMNS", len(block.columns)), *places)


def check_compute(compute: DType, **spans: Span | None) -> None:
    """Refuse spans that are not computed in the dtype of the step.

    Raises
    ------
    DTypeError
    """
    for name, span in spans.items():
        if span is not None and span.dtype.compute is not compute:
            raise DTypeError(
                f"{name} has dtype {span.dtype}, computed in {span.dtype.compute}, but the step is computed in "
                f"{compute}; use one compute dtype for parameters, gradients, state and step block"
            )


def check_row_map(rows: Span, n: int) -> None:
    """Refuse a row map that does not cover ``n`` elements.

    Raises
    ------
    ShapeError
    """
    chunks = -(-n // CHUNK)
    if rows.dtype is not uint16 or rows.size < chunks:
        raise ShapeError(
            f"the row map of {n} elements is {chunks} entries of uint16, one for each chunk of {CHUNK}; "
            f"got {rows.size} of {rows.dtype}"
        )


def check_loss_scale(loss_scale: Span, partials: Span | None) -> None:
    """Refuse a loss scale that is not two float32 values beside the records of a norm.

    Raises
    ------
    ShapeError
    """
    if partials is None or loss_scale.size < 2 or loss_scale.dtype is not float32:
        raise ShapeError(
            f"a loss scale is two float32 values and comes with the records of a norm, got {loss_scale.size} of "
            f"{loss_scale.dtype} {'without' if partials is None else 'with'} records"
        )


def check_block(block: StepBlock) -> None:
    """Refuse a block whose parts are smaller than it says, or differ in dtype.

    Raises
    ------
    ShapeError
    DTypeError
    """
    sizes = [("header", block.header, len(HEADER))]
    if block.rows:
        if block.hyper is None or block.counters is None:
            raise ShapeError(f"a step block of {block.rows} rows needs hyper and counters, got None")
        if block.columns[: len(ROW)] != ROW:
            raise ShapeError(f"the columns of a step block start with {ROW}, got {block.columns}")
        sizes.append(("hyper", block.hyper, block.rows * len(block.columns)))
        sizes += [(f"counters[{i}]", span, block.rows * len(COUNTERS)) for i, span in enumerate(block.counters)]
    for name, span, least in sizes:
        if span.size < least:
            raise ShapeError(f"{name} of a step block with {block.rows} rows needs {least} values, got {span.size}")
        if span.dtype is not block.header.dtype or span.dtype is not span.dtype.compute or not span.dtype.is_floating:
            raise DTypeError(f"{name} of a step block must be float32 or float64 throughout, got {span.dtype}")
