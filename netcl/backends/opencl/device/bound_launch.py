"""Launches whose arguments are set once and kept in a step block, because rebinding costs more than launching."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from netcl.backends.base import Span
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.queue import Queue

KEPT_LAUNCHES = 256
"""Launches kept in one step block, before they are all forgotten."""


@final
@dataclass(slots=True)
class BoundLaunch:
    """A kernel that is ready to run, and the operands it was made for, which it does not keep alive.

    Either the kernel is its own and its arguments are set, or it is shared and ``arguments`` must be set.
    """

    kernel: Kernel
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    operands: tuple[tuple[weakref.ref[Any], int, int], ...]
    arguments: tuple[Any, ...] = ()
    max_norm: float = math.inf

    def fits(self, spans: Sequence[Span]) -> bool:
        """Whether the arguments are those of ``spans``."""
        # A loop, because the generator of an all() costs as much again, at every step.
        for (buffer, offset, size), span in zip(self.operands, spans, strict=True):
            if buffer() is not span.buffer or offset != span.offset or size != span.size:
                return False
        return True


def bind(
    queue: Queue,
    call: str,
    defines: Defines,
    types: Sequence[Any],
    arguments: Sequence[Any],
    sizes: tuple[int, int],
    spans: Sequence[Span],
    *,
    kept: bool = True,
    generated: str = "",
) -> BoundLaunch:
    """A launch of ``groups`` work-groups of ``group`` work-items; making a kernel pays off if it is kept."""
    groups, group = sizes
    make = queue.kernels.own if kept else queue.kernels.shared
    kernel = make(f"{call}.cl", call, defines, generated, tuple(types))
    if kept:
        kernel.set_args(*arguments)
    operands = tuple([(weakref.ref(span.buffer), span.offset, span.size) for span in spans])
    return BoundLaunch(kernel, (groups * group,), (group,), operands, () if kept else tuple(arguments))


def span_arguments(*spans: Span) -> list[Any]:
    """Buffer and offset of each span."""
    return [argument for span in spans for argument in (cl_buffer(span), span.offset)]
