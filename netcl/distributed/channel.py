"""Messages between ranks that wait with a deadline, and name the ranks that are missing when it passes."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netcl.errors import DistributedError
from netcl.validation import shown

if TYPE_CHECKING:
    from mpi4py import MPI

_OBJECTS = 32000
"""The tag of whole objects; buckets use their number, and every MPI allows tags up to 32767."""

_SPIN, _PATIENT = 1e-4, 2e-2
"""Seconds after which a wait lets other processes run between two polls, and after which it sleeps."""

_let_others_run = getattr(os, "sched_yield", lambda: time.sleep(0))


class ExitNotices:
    """Which ranks have ended, and why: each rank tells all others when it ends, however it ends.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm or None
        Used for nothing else. None if this rank is alone.
    """

    def __init__(self, communicator: MPI.Comm | None) -> None:
        self._notes: dict[int, bytearray] = {}
        self._requests: dict[int, MPI.Request] = {}
        self._comm = communicator
        if communicator is not None:
            self._notes = {rank: bytearray(512) for rank in range(communicator.size) if rank != communicator.rank}
            self._requests = {rank: communicator.Irecv(note, rank) for rank, note in self._notes.items()}
        self._reasons: dict[int, str] = {}

    def reasons(self) -> dict[int, str]:
        """Why each rank that has ended did so, as far as is known. Does not block."""
        for rank in [rank for rank, request in self._requests.items() if request.Test()]:
            del self._requests[rank]
            self._reasons[rank] = self._notes[rank].rstrip(b"\0").decode(errors="replace")
        return self._reasons

    def broadcast_exit(self, reason: str, patience: float | None) -> None:
        """Say that this rank ends, and wait until all do, or for ``patience`` seconds. **Blocks**."""
        note = reason.encode()[:500].ljust(512, b"\0")
        sends = [] if self._comm is None else [self._comm.Isend(note, rank) for rank in self._notes]
        started = time.monotonic()
        while self._requests or not all(request.Test() for request in sends):
            if patience is not None and time.monotonic() - started > patience:
                return
            self.reasons()
            time.sleep(1e-3)


class Wait:
    """One wait for other ranks: it polls, then sleeps between polls, and raises when what it waits for cannot come.

    Parameters
    ----------
    channel : Channel
    what : str
        What is waited for, for the message.
    """

    def __init__(self, channel: Channel, what: str) -> None:
        self._channel = channel
        self._what = what
        self._started = time.monotonic()
        self._gone: float | None = None

    def pause(self, missing: Callable[[], Collection[int]]) -> None:
        """Called between two polls.

        Raises
        ------
        DistributedError
            If a rank that ``missing`` names has ended, or the channel's timeout has passed.
        """
        now = time.monotonic()
        elapsed = now - self._started
        if elapsed < _SPIN:
            return
        if elapsed < _PATIENT:
            _let_others_run()
            return
        time.sleep(2e-4)
        ended = self._channel.exit_notices.reasons()
        if ended and (gone := sorted(set(ended) & set(missing()))):
            # What they sent before they ended may still be on its way.
            self._gone = self._gone or now
            if now - self._gone > 0.5:
                told = "; ".join(f"{_ranks([rank])} {ended[rank]}" for rank in gone)
                raise DistributedError(
                    f"{self._what} cannot be completed: {told}; look for the cause in that rank's output, and let all "
                    "ranks take the same number of steps"
                )
        if elapsed > self._channel.timeout:
            raise DistributedError(
                f"{self._what} was not completed within {self._channel.timeout:g} s: {_ranks(missing())} did not take "
                "part; all ranks have to take the same steps in the same order, and init(timeout=...) gives slow ones "
                "more time"
            )


class Channel:
    """A communicator of its own, with a timeout.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm or None
        Duplicated, so that no message of others can be mistaken for one of this channel. None if this rank is alone.
    exit_notices : ExitNotices
    timeout : float
        Seconds.
    """

    def __init__(self, communicator: MPI.Comm | None, exit_notices: ExitNotices, timeout: float) -> None:
        self._comm = None if communicator is None else communicator.Dup()
        self.exit_notices = exit_notices
        self.timeout = timeout
        self.rank: int = 0 if self._comm is None else self._comm.rank
        self.size: int = 1 if self._comm is None else self._comm.size
        self.peers = [rank for rank in range(self.size) if rank != self.rank]

    @property
    def comm(self) -> MPI.Comm:
        """The communicator; there is one whenever there are peers."""
        assert self._comm is not None
        return self._comm

    def duplicate(self) -> Channel:
        """A channel between the same ranks, with a communicator of its own. All ranks call it together. **Blocks**."""
        self.exchange(None, "opening a channel")
        return Channel(self._comm, self.exit_notices, self.timeout)

    def send(self, values: NDArray[Any], rank: int, tag: int) -> MPI.Request:
        """Start to send the bytes of a contiguous array, which must not be changed meanwhile."""
        return self.comm.Isend(values.view(np.uint8), rank, tag)

    def receive(self, values: NDArray[Any], rank: int, tag: int) -> MPI.Request:
        """Start to receive into a contiguous array."""
        return self.comm.Irecv(values.view(np.uint8), rank, tag)

    def finish(self, requests: Sequence[tuple[int, MPI.Request]], what: str) -> None:
        """Return when all requests, each given with the other rank, are done. **Blocks**."""
        wait = Wait(self, what)
        while left := pending(requests):
            wait.pause(lambda left=left: left)  # type: ignore[misc]

    def exchange(self, value: Any, what: str) -> list[Any]:
        """The ``value`` of every rank, in the order of ranks. **Blocks**. Any picklable objects."""
        try:
            pickled = pickle.dumps(value)
        except Exception as error:  # whatever an object raises when it is pickled
            raise DistributedError(f"{what} sends what can be pickled, and {shown(value)} cannot: {error}") from error
        payload = np.frombuffer(pickled, np.uint8)
        sends = [(rank, self.send(payload, rank, _OBJECTS)) for rank in self.peers]
        found = {self.rank: value}
        wait = Wait(self, what)
        while absent := [rank for rank in self.peers if rank not in found]:
            for rank in absent:
                message = self.comm.improbe(rank, _OBJECTS)
                if message is not None:
                    found[rank] = message.recv()
            wait.pause(lambda absent=absent: absent)  # type: ignore[misc]
        self.finish(sends, what)
        return [found[rank] for rank in range(self.size)]

    def broadcast(self, values: NDArray[Any], what: str) -> None:
        """Overwrite ``values``, a contiguous array, with those of rank 0. **Blocks**."""
        if not self.peers:
            return
        request = self.comm.Ibcast(values.view(np.uint8), 0)
        others = [0] if self.rank else self.peers
        self.finish([(rank, request) for rank in others[:1]], what)


def pending(requests: Iterable[tuple[int, MPI.Request]]) -> list[int]:
    """The ranks whose requests are not done yet."""
    return sorted({rank for rank, request in requests if not request.Test()})


def _ranks(ranks: Collection[int]) -> str:
    listed = ", ".join(map(str, sorted(ranks)))
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {listed}"
