"""PendingFactors: what the gradients of an arena are still to be multiplied by."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from netcl.backends.base import Backend, Span

if TYPE_CHECKING:
    from netcl.optim.partition import Partition


class PendingFactors:
    """Factors that wait for a step to fold them into its own pass. Whoever reads a gradient first has them applied.

    Attributes
    ----------
    clip : Span or None
        One element on the device, the factor of a clipping.
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
            self.drop()
            return
        self.settle_clip()
        if self.workers != 1:
            workers, self.workers = self.workers, 1
            self._backend.scale(1.0 / workers, self._gradients)

    def settle_clip(self) -> None:
        """Apply the factor of a clipping, if one is pending."""
        if self.clip is not None:
            factor, self.clip = self.clip, None
            self._backend.scale(factor, self._gradients)

    def drop(self) -> None:
        """Forget them: the gradients they belong to are gone."""
        self.clip = None
        self.workers = 1
