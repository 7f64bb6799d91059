"""PendingFactors: what the gradients of an arena are still to be multiplied by."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Protocol

from netcl.backends.base import SHIFT, Backend, Span, View, header_entry
from netcl.dtypes import DType
from netcl.expression import Expression, Node, trace, where


class Owner(Protocol):
    """What steps with the gradients that the factors are for."""

    def has_gradients(self) -> bool:
        """Whether any gradient is set or kept."""
        ...

    def clip_is_over(self) -> None:
        """Note that the factor of a clipping is no longer pending: the coming step cannot fold it."""
        ...


class PendingFactors:
    """Factors that wait for a step to fold them into its own pass. Reading a gradient before that applies them.

    The :class:`~netcl.array.PendingScale` of the gradients' storages.

    Parameters
    ----------
    backend : Backend
    gradients : Span
        All of them.
    owner : callable
        Returns what steps with them, or None when that is gone: a weak reference, so that the parameters, which
        hold this object, do not keep the state alive.

    Attributes
    ----------
    clip : Span or None
        The header on the device that holds the factor of a clipping.
    workers : int
        The gradients are sums over so many workers, and must be read as their mean.
    mean : Span or None
        The inverse of that number on the device, if it is not 1.
    """

    def __init__(self, backend: Backend, gradients: Span, owner: Callable[[], Owner | None]) -> None:
        self._backend = backend
        self._gradients = gradients
        self._owner = owner
        self.clip: Span | None = None
        self.workers = 1
        self.mean: Span | None = None

    def apply(self) -> None:
        """Multiply the gradients by what is pending. Enqueues; does not block."""
        if self.clip is None and self.workers == 1:
            return
        owner = self._owner()
        if owner is not None and not owner.has_gradients():
            self.drop()  # neither a parameter nor anybody else has any of them
            return
        self.apply_clip()
        if self.workers != 1:
            workers = self.workers
            self.workers, self.mean = 1, None
            self._backend.scale(1.0 / workers, self._gradients)

    def apply_clip(self) -> None:
        """Multiply by the factor of a clipping, if one is pending. Enqueues; does not block."""
        if self.clip is not None:
            header = self.clip
            self._forget_clip()
            scale_by(self._backend, header, self._gradients)

    def divide_by(self, workers: int, mean: Span | None) -> None:
        """Read the gradients as sums over so many workers from now on; ``mean`` holds the inverse of the number."""
        self.workers, self.mean = workers, mean

    def drop(self) -> None:
        """Forget the factors: the gradients they belong to are gone."""
        self._forget_clip()
        self.workers, self.mean = 1, None

    def _forget_clip(self) -> None:
        if self.clip is not None:
            self.clip = None
            owner = self._owner()
            if owner is not None:
                owner.clip_is_over()


def scale_by(backend: Backend, header: Span, x: Span) -> None:
    """Multiply ``x`` by the multiplier and shift of a step header. Enqueues; does not block."""

    def entry(name: str) -> View:
        element = header_entry(header, name)
        return View(element.buffer, element.offset, (x.size,), (0,))

    backend.map(_scaled(x.dtype, header.dtype), (x.view(), entry("shift"), entry("multiplier")), (x.view(),))


@cache
def _scaled(x: DType, header: DType) -> Expression:
    prescale = 2.0 ** -SHIFT[header.itemsize]

    def scaled(x: Node, shift: Node, multiplier: Node) -> Node:
        result: Node = where(shift == 0, x, x * prescale) * multiplier
        return result

    return trace(scaled, (x, header, header), stored=(x,))
