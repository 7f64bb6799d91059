"""PendingFactors: what the gradients of an arena are still to be multiplied by."""

from __future__ import annotations

import weakref
from functools import cache
from typing import TYPE_CHECKING

from netcl.backends.base import HEADER, SHIFT, Backend, Span, View
from netcl.dtypes import DType
from netcl.expression import Expression, Node, trace, where

if TYPE_CHECKING:
    from netcl.optim.engine.partition import Partition


class PendingFactors:
    """Factors that wait for a step to fold them into its own pass. Whoever reads a gradient first has them applied.

    Attributes
    ----------
    clip : Span or None
        The header on the device that holds the factor of a clipping.
    workers : int
        The gradients are sums over so many workers, and are to be read as their mean.
    partition : weak reference to Partition
        Whose gradients these are, as long as its optimizer lives: the parameters hold this object, and not the state.
    """

    def __init__(self, backend: Backend, gradients: Span, partition: Partition) -> None:
        self._backend = backend
        self._gradients = gradients
        self.partition = weakref.ref(partition)
        self.clip: Span | None = None
        self.workers = 1

    def settle(self) -> None:
        """Apply what is pending to the gradients themselves. Enqueues; does not block."""
        if self.clip is None and self.workers == 1:
            return
        partition = self.partition()
        if partition is not None and not partition.has_gradients():
            self.drop()  # neither a parameter nor anybody else has any of them
            return
        self.settle_clip()
        if self.workers != 1:
            workers, self.workers = self.workers, 1
            self._backend.scale(1.0 / workers, self._gradients)

    def settle_clip(self) -> None:
        """Apply the factor of a clipping, if one is pending."""
        if self.clip is not None:
            header, self.clip = self.clip, None
            scale_by(self._backend, header, self._gradients)

    def drop(self) -> None:
        """Forget them: the gradients they belong to are gone."""
        self.clip = None
        self.workers = 1


def scale_by(backend: Backend, header: Span, x: Span) -> None:
    """Multiply ``x`` by the multiplier and shift of a step header. Enqueues; does not block."""

    def entry(name: str) -> View:
        return View(header.buffer, header.offset + HEADER.index(name), (x.size,), (0,))

    view = View(x.buffer, x.offset, (x.size,), (1,))
    backend.map(_scaled(x.dtype, header.dtype), (view, entry("shift"), entry("multiplier")), (view,))


@cache
def _scaled(x: DType, header: DType) -> Expression:
    prescale = 2.0 ** -SHIFT[header.itemsize]

    def scaled(x: Node, shift: Node, multiplier: Node) -> Node:
        result: Node = where(shift == 0, x, x * prescale) * multiplier
        return result

    return trace(scaled, (x, header, header), stored=(x,))
