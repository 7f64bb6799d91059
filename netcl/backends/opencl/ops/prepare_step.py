"""prepare_step: one work-group that decides a step on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import Span, StepBlock
from netcl.backends.opencl.codegen.storage import SCALAR
from netcl.backends.opencl.device.bound_launch import KEPT_LAUNCHES, BoundLaunch, bind, span_arguments
from netcl.backends.opencl.device.plans import remember
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.step_arguments import (
    block_spans,
    block_tables,
    check_block,
    check_compute,
    check_loss_scale,
    column_defines,
    norm_order,
    real_argument,
    real_defines,
)
from netcl.dtypes import float64


@final
class PrepareStep:
    """prepare_step of :class:`~netcl.backends.base.UpdateOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def prepare_step(
        self,
        block: StepBlock,
        partials: Span | None = None,
        *,
        ord: float = 2.0,
        max_norm: float = float("inf"),
        loss_scale: Span | None = None,
    ) -> None:
        """Decide a step on the device. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If ``ord`` is not positive.
        ShapeError
            If header, hyper-parameters or counters are smaller than the block says.
        DTypeError
            If they differ in dtype, or the device cannot compute with it.
        """
        order = norm_order(ord)
        spans = block_spans(block, partials, loss_scale)
        key = ("prepare_step", ord, block.slot, partials is not None, loss_scale is not None)
        launch: BoundLaunch | None = block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind(block, partials, loss_scale, ord, order, max_norm, spans)
            if block.rows:
                remember(block.bound, key, launch, KEPT_LAUNCHES)
        elif partials is not None and launch.max_norm != max_norm:
            launch.kernel.set_arg(3, real_argument(max_norm, block.header.dtype))
            launch.max_norm = max_norm
        self._queue.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def _bind(
        self,
        block: StepBlock,
        partials: Span | None,
        loss_scale: Span | None,
        ord: float,
        order: int,
        max_norm: float,
        spans: Sequence[Span],
    ) -> BoundLaunch:
        compute = block.header.dtype
        self._queue.require(compute)
        check_block(block)
        real = SCALAR[compute]
        types: list[Any] = [None, np.uint64]
        arguments = span_arguments(block.header)
        if partials is not None:
            check_compute(compute, partials=partials)
            types += [real, real, None, np.uint64, np.uint64]
            arguments += [
                real_argument(ord, compute),
                real_argument(max_norm, compute),
                *span_arguments(partials),
                partials.size // 2,
            ]
        if loss_scale is not None:
            check_loss_scale(loss_scale, partials)
            types += [None, np.uint64]
            arguments += span_arguments(loss_scale)
        if block.rows:
            types += [None, np.uint64] * 3 + [np.uint64]
            arguments += [*span_arguments(*block_tables(block)), block.rows]
        self._queue.needs_plain("prepare_step", compute)
        ((_, group),) = self._queue.knobs("prepare_step")
        defines: Defines = (
            *real_defines(compute),
            *column_defines(block),
            ("WORK_GROUP_SIZE", group),
            ("WIDE", int(compute is float64)),
            ("ORDER", order),
            ("RECORDS", int(partials is not None)),
            ("LOSS_SCALED", int(loss_scale is not None)),
            ("ROWS", int(block.rows > 0)),
        )
        # A block without rows is made for one norm; one with rows lives as long as an optimizer.
        ready = bind(self._queue, "prepare_step", defines, types, arguments, (1, group), spans, kept=block.rows > 0)
        ready.max_norm = max_norm
        return ready
