"""norm_reduce: records of a p-norm in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import Span, StepBlock
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.bound_launch import KEPT_LAUNCHES, BoundLaunch, bind, span_arguments
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.step_arguments import (
    check_compute,
    check_row_map,
    norm_order,
    real_argument,
    real_defines,
)
from netcl.dtypes import float64
from netcl.errors import DTypeError, ShapeError


@final
class NormReduce:
    """norm_reduce of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def norm_partials(self, n: int) -> int:
        """How many records ``norm_reduce`` writes for ``n`` elements: one for each piece of a fixed size."""
        return max(1, -(-n // dict(self._queue.knobs("norm_reduce"))["PIECE"]))

    def norm_reduce(
        self,
        x: Span,
        partials: Span,
        ord: float,
        *,
        multiplier: Span | None = None,
        rows: Span | None = None,
        block: StepBlock | None = None,
    ) -> None:
        """Records of a p-norm. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If ``ord`` is not positive.
        ShapeError
            If ``partials`` has no room for the records, or ``rows`` does not cover x or comes without a block.
        DTypeError
            If the records cannot hold the norm, an operand differs from them in dtype, or the device cannot compute
            with it.
        """
        order = norm_order(ord)
        spans = [span for span in (x, partials, multiplier, rows, block.hyper if block else None) if span is not None]
        key = ("norm_reduce", ord, id(x.buffer), x.offset, x.size, rows is not None, multiplier is not None)
        launch: BoundLaunch | None = None if block is None else block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind(x, partials, ord, order, multiplier, rows, block, spans)
            if block is not None:
                remember(block.bound, key, launch, KEPT_LAUNCHES)
        self._queue.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def _bind(
        self,
        x: Span,
        partials: Span,
        ord: float,
        order: int,
        multiplier: Span | None,
        rows: Span | None,
        block: StepBlock | None,
        spans: Sequence[Span],
    ) -> BoundLaunch:
        compute = partials.dtype
        count = self.norm_partials(x.size)
        self._queue.require(x.dtype, compute)
        if not x.dtype.is_floating:
            raise DTypeError(f"norm_reduce takes floating-point elements, got {x.dtype}; cast with astype() first")
        if compute not in (x.dtype.compute, float64):
            raise DTypeError(f"the norm of {x.dtype} elements needs records of {x.dtype.compute}, got {compute}")
        if partials.size < 2 * count:
            raise ShapeError(
                f"the norm of {x.size} elements has {count} records of 2 values, got room for {partials.size} values; "
                "ask norm_partials(n) how many there are"
            )
        check_compute(compute, multiplier=multiplier)
        knobs = dict(self._queue.knobs("norm_reduce"))
        items = knobs["LANES"]
        defines: Defines = (
            *real_defines(compute),
            ("WIDTH", self._queue.lanes("norm_reduce", compute, x.dtype, most=knobs["WIDTH"])),
            ("LANES", items),
            ("PIECE", knobs["PIECE"]),
            ("X", TAG[x.dtype]),
            ("WIDE", int(compute is float64)),
            ("WIDEN", int(compute is not x.dtype.compute)),
            ("ORDER", order),
            ("MULTIPLIED", int(multiplier is not None)),
            ("MAPPED", int(rows is not None)),
        )
        real = SCALAR[compute]
        types: list[Any] = [None, np.uint64, np.uint64, None, np.uint64, real]
        arguments = [*span_arguments(x), x.size, *span_arguments(partials), real_argument(ord, compute)]
        if multiplier is not None:
            types += [None, np.uint64]
            arguments += span_arguments(multiplier)
        if rows is not None:
            if block is None or block.hyper is None:
                raise ShapeError("norm_reduce reads the rows of a step block; pass block= with rows=, or neither")
            check_row_map(rows, x.size)
            check_compute(compute, hyper=block.hyper)
            defines += (("COLUMNS", len(block.columns)),)
            types += [None, np.uint64, None, np.uint64]
            arguments += span_arguments(block.hyper, rows)
        return bind(
            self._queue, "norm_reduce", defines, types, arguments, (count, items), spans, kept=block is not None
        )
