"""Reduction: the buckets under way, from the device to the other ranks and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

from netcl.backends.base import HostMapping
from netcl.distributed.buckets import Bucket
from netcl.distributed.channel import Channel, Wait, pending
from netcl.distributed.wire_format import AnyArray, WireFormat
from netcl.dtypes import DType

if TYPE_CHECKING:
    from mpi4py import MPI

WINDOW = 2
"""Buckets under way at once: while one is added up, the next one's parts arrive."""


class _Phase(Enum):
    SCATTER = auto()
    GATHER = auto()
    DONE = auto()


class _Scratch:
    """Memory for one bucket under way, kept from one to the next: fresh memory costs more than what it is used for."""

    def __init__(self) -> None:
        self._kept: dict[int, AnyArray] = {}

    def array(self, key: int, size: int, dtype: np.dtype[np.generic]) -> AnyArray:
        """An array with unspecified contents, the only one under this key."""
        nbytes = size * dtype.itemsize
        memory = self._kept.get(key)
        if memory is None or memory.size < nbytes:
            memory = self._kept[key] = np.empty(nbytes, np.uint8)
        array: AnyArray = memory[:nbytes].view(dtype)
        return array


class _Transfer:
    """One bucket between ranks: parts go to the ranks that add them up, and the sums come back.

    Each element is added up by one rank alone, in the order of ranks, so all ranks end with the same bits.
    """

    def __init__(
        self,
        channel: Channel,
        bucket: Bucket,
        number: int,
        mapping: HostMapping,
        wire_format: WireFormat,
        scratch: _Scratch,
        gather: bool,
    ) -> None:
        self._channel = channel
        self._bucket = bucket
        self._tag = number
        self._mapping = mapping
        self._values: AnyArray = mapping.array()
        self._wire_format = wire_format
        self.scratch = scratch
        self._gather = gather
        self.finite = True
        # What is sent: the gradients themselves, or their short form.
        self._stage: AnyArray = self._values
        if wire_format.converts:
            self._stage = scratch.array(-1, bucket.size, wire_format.dtype)
            wire_format.encode(self._values, self._stage)
        own = self._part(channel.rank)
        self._received = {rank: scratch.array(rank, own.size, own.dtype) for rank in channel.peers}
        self.phase = _Phase.SCATTER
        self.requests: list[tuple[int, MPI.Request]] = []
        for rank in channel.peers:
            if own.size:
                self.requests.append((rank, channel.receive(self._received[rank], rank, number)))
            part = self._part(rank)
            if part.size:
                self.requests.append((rank, channel.send(part, rank, number)))

    def _part(self, rank: int) -> AnyArray:
        start, size = self._bucket.shares[rank]
        return self._stage[start : start + size]

    def advance(self) -> None:
        """Proceed as far as is possible without waiting."""
        if self.phase is _Phase.SCATTER and not pending(self.requests):
            self._add_up()
            self.phase = _Phase.GATHER
            self.requests = self._exchange_sums() if self._gather else []
        if self.phase is _Phase.GATHER and not pending(self.requests):
            if self._wire_format.converts:
                self._wire_format.decode(self._stage, self._values)
            self._mapping.release()
            self.phase = _Phase.DONE

    def _add_up(self) -> None:
        own = self._part(self._channel.rank)
        if own.size:
            parts = [own if rank == self._channel.rank else self._received[rank] for rank in range(self._channel.size)]
            self._wire_format.add(parts, own)
            self.finite = self._gather or self._wire_format.finite(own)

    def _exchange_sums(self) -> list[tuple[int, MPI.Request]]:
        own = self._part(self._channel.rank)
        requests = []
        for rank in self._channel.peers:
            part = self._part(rank)
            if part.size:
                requests.append((rank, self._channel.receive(part, rank, self._tag)))
            if own.size:
                requests.append((rank, self._channel.send(own, rank, self._tag)))
        return requests


class Reduction:
    """The buckets of one backward pass: started in their order, a few at a time, the same on every rank.

    Parameters
    ----------
    channel : Channel
        Used for nothing else.
    buckets : sequence of Bucket
    gather : bool
        Whether every rank gets the sums of all, or only of its own share. Then it also notes whether they are finite.
    communication_dtype : DType, str or None
        See :class:`~netcl.distributed.wire_format.WireFormat`.
    """

    def __init__(
        self, channel: Channel, buckets: Sequence[Bucket], gather: bool, communication_dtype: DType | str | None
    ) -> None:
        self._channel = channel
        self._buckets = buckets
        self._gather = gather
        self._wire_formats = [WireFormat(bucket.layout.gradients.dtype, communication_dtype) for bucket in buckets]
        self._scratch = [_Scratch() for _ in range(WINDOW)]
        self._mapped: deque[tuple[int, HostMapping]] = deque()
        self._under_way: deque[_Transfer] = deque()
        self._next = 0
        self._all_finite = True
        self.finite = True

    def start(self) -> None:
        """Hand the next bucket, which is complete, to the host when the device gets there. Does not block."""
        bucket = self._buckets[self._next]
        self._mapped.append((self._next, bucket.layout.backend.map_host(bucket.span)))
        self._next += 1

    def advance(self, *, block: bool = False) -> None:
        """Proceed as far as possible without waiting; with ``block``, wait for the device if nothing is under way."""
        while self._mapped and self._scratch:
            number, mapping = self._mapped[0]
            if not (mapping.ready() or (block and not self._under_way)):
                break
            self._mapped.popleft()
            bucket, wire_format = self._buckets[number], self._wire_formats[number]
            scratch = self._scratch.pop()
            transfer = _Transfer(self._channel, bucket, number, mapping, wire_format, scratch, self._gather)
            self._under_way.append(transfer)
        for transfer in self._under_way:
            transfer.advance()
        while self._under_way and self._under_way[0].phase is _Phase.DONE:
            done = self._under_way.popleft()
            self._scratch.append(done.scratch)
            self._all_finite = self._all_finite and done.finite

    def finish(self) -> None:
        """Return when all buckets that were started are reduced. **Blocks**."""
        left, wait = -1, Wait(self._channel, "the reduction of gradients")
        while self._under_way or self._mapped:
            self.advance(block=True)
            if left != len(self._mapped) + len(self._under_way):
                left, wait = len(self._mapped) + len(self._under_way), Wait(self._channel, "the reduction of gradients")
            wait.pause(lambda: {rank for transfer in self._under_way for rank in pending(transfer.requests)})
        self.finite, self._all_finite, self._next = self._all_finite, True, 0
