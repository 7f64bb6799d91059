"""Synchronizer: sums the gradients of all ranks, bucket by bucket, while the backward pass is still running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from netcl.array import Array
from netcl.distributed.bucket_reduction import Reduction
from netcl.distributed.buckets import GradientLayout, Place, make_buckets
from netcl.distributed.channel import Channel
from netcl.dtypes import DType
from netcl.errors import DistributedError
from netcl.expression import conversion

_PRESENT = 31999
"""The tag of the bytes that say which parameters have a gradient on a rank."""


class Synchronizer:
    """Sums up the gradients of some layouts over all ranks; a :class:`~netcl.array.GradientHook`.

    Parameters
    ----------
    channel : Channel
        Used for nothing else.
    layouts : sequence of GradientLayout
    names : dict
        The name of a parameter by its id, for messages.
    finished : callable
        Called at the end of every synchronised backward, when the gradients are sums, with whether there were any.
    bucket_bytes : int
    communication_dtype : DType, str or None
        float16 or bfloat16 to halve what is sent.
    owned : sequence of (start, stop), optional
        The stretch of the one layout that each rank gets the sums of; by default all get all.

    Raises
    ------
    DistributedError
        If the ranks' parameters or settings differ; on every rank.
    """

    def __init__(
        self,
        channel: Channel,
        layouts: Sequence[GradientLayout],
        names: dict[int, str],
        finished: Callable[[bool], None],
        bucket_bytes: int,
        communication_dtype: DType | str | None,
        owned: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._channel = channel
        self._places = [place for layout in layouts for place in layout.places]
        self._finished = finished
        self._enabled = True
        self._buckets = make_buckets(layouts, bucket_bytes, channel.size, owned)
        settings = f"bucket_bytes={bucket_bytes}, communication_dtype={communication_dtype}"
        check_consistent(channel, [describe(place.parameter, names) for place in self._places], settings)
        self._reduction = Reduction(channel, self._buckets, owned is None, communication_dtype)
        self._buckets_of: dict[int, list[int]] = {id(place.parameter): [] for place in self._places}
        for number, bucket in enumerate(self._buckets):
            for place in bucket.members:
                self._buckets_of[id(place.parameter)].append(number)
        self._place_of = {id(place.parameter): place for place in self._places}
        self._reset()

    def _reset(self) -> None:
        self._seen: set[int] = set()
        self._left = [len(bucket.members) for bucket in self._buckets]
        self._started = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block every backward leaves the gradients of this rank alone."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    @property
    def writes(self) -> bool:
        """It reads gradients alone."""
        return False

    def gradient_ready(self, leaf: Array) -> None:
        """Note a gradient, and start the buckets that it completes. Does not block."""
        if not self._enabled or id(leaf) in self._seen:
            return
        self._copy_in(self._place_of[id(leaf)])
        self._start_complete()
        self._reduction.advance()

    def backward_done(self) -> None:
        """Reduce what is left. **Blocks** until all buckets are."""
        if self._enabled:
            self.synchronize()

    def synchronize(self) -> None:
        """Make every gradient the sum over all ranks; one that is missing here counts as zero. **Blocks**."""
        for place in self._places:
            if id(place.parameter) not in self._seen:
                self._copy_in(place)
        self._start_complete()
        present = self._exchange_presence()
        self._reduction.finish()
        self._channel.finish(present.requests, "the reduction of gradients")
        used = present.anywhere()
        for place, somewhere in zip(self._places, used, strict=True):
            if somewhere:
                gradient = place.parameter.gradient = place.gradient_buffer.array
                gradient.storage.version += 1
        self._reset()
        self._finished(any(used))

    @property
    def finite(self) -> bool:
        """Whether the sums of this rank's share of the last backward hold neither NaN nor infinity."""
        return self._reduction.finite

    def _copy_in(self, place: Place) -> None:
        """See that the gradient lies in its place, with zeros if there is none."""
        parameter, gradient = place.parameter, place.parameter.gradient
        buffer = place.gradient_buffer
        target = buffer.array if gradient is not None and gradient is buffer.array else buffer.claim()
        # Asking for the span also applies what an optimizer has left pending on earlier gradients.
        span = target.span()
        if gradient is None:
            if target.size:
                target.backend.fill(span, 0)
        elif gradient is not target:
            if gradient.shape != target.shape or gradient.backend is not target.backend:
                raise DistributedError(
                    f"a gradient of shape {gradient.shape} on {gradient.device} was set for a parameter of shape "
                    f"{target.shape} on {target.device}; both must be the same"
                )
            target.backend.map(conversion(gradient.dtype, target.dtype), (gradient.view(),), (target.view(),))
            parameter.gradient = target
        self._seen.add(id(parameter))
        for number in self._buckets_of[id(parameter)]:
            self._left[number] -= 1

    def _start_complete(self) -> None:
        """Start the next buckets in their order, as far as they are complete: the order is the same on all ranks."""
        while self._started < len(self._buckets) and not self._left[self._started]:
            self._reduction.start()
            self._started += 1

    def _exchange_presence(self) -> _Presence:
        own = np.array([place.parameter.grad is not None for place in self._places], np.uint8)
        return _Presence(self._channel, own)


class _Presence:
    """Which parameters have a gradient, here and elsewhere."""

    def __init__(self, channel: Channel, own: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._own = own
        self._others = {rank: np.empty_like(own) for rank in channel.peers}
        self.requests = [(rank, channel.send(own, rank, _PRESENT)) for rank in channel.peers]
        self.requests += [(rank, channel.receive(other, rank, _PRESENT)) for rank, other in self._others.items()]

    def anywhere(self) -> list[bool]:
        used: list[bool] = np.bitwise_or.reduce([self._own, *self._others.values()]).astype(bool).tolist()
        return used


def describe(parameter: Array, names: dict[int, str]) -> str:
    """One parameter in words, the same for the same parameter on every rank."""
    name = names.get(id(parameter))
    label = f"{name!r}" if name else "a parameter"
    return f"{label} of shape {parameter.shape} and dtype {parameter.dtype}"


def check_consistent(channel: Channel, described: list[str], settings: str = "") -> None:
    """Refuse, on every rank, parameters or settings that differ between ranks. **Blocks**."""
    everywhere = channel.exchange((described, settings), "comparing the ranks' parameters")
    first, first_settings = everywhere[0]
    for rank, (other, other_settings) in enumerate(everywhere):
        for position, (a, b) in enumerate(zip(first, other, strict=False)):
            if a != b:
                raise DistributedError(
                    f"parameter {position} is {a} on rank 0 and {b} on rank {rank}; build the same model on every rank"
                )
        if len(first) != len(other):
            raise DistributedError(
                f"rank 0 has {len(first)} parameters and rank {rank} has {len(other)}; build the same model on every "
                "rank"
            )
        if first_settings != other_settings:
            raise DistributedError(
                f"rank 0 has {first_settings} and rank {rank} has {other_settings}; give every rank the same"
            )
