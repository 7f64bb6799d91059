"""Arenas: many arrays of one device and dtype in one buffer, so that one launch reaches them all.

An arena fixes a layout: each array starts at a whole chunk of 1024 elements, and the padding after it holds zeros that
every update rule keeps zero. Gradients and optimizer state are laid out alike, so one index means one element in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from netcl import array
from netcl.array import Array, Deferred, DeferredStorage, Storage
from netcl.backends.base import CHUNK, Buffer, Span
from netcl.dtypes import DType
from netcl.errors import ShapeError


@dataclass(frozen=True, slots=True)
class Segment:
    """Where one array lies: ``size`` elements from element ``offset`` of the arena, a multiple of the chunk."""

    array: Array
    offset: int
    size: int

    @property
    def chunks(self) -> int:
        return -(-self.size // CHUNK)


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent memory of one or more parameters, and where it lies in the arena's other buffers."""

    parameters: Span
    offset: int

    def within(self, arena: Span) -> Span:
        """The same elements of a buffer with the arena's layout."""
        return Span(arena.buffer, arena.offset + self.offset, self.parameters.size)


class Arena:
    """A common layout for arrays of one backend and dtype.

    Parameters
    ----------
    arrays : sequence of Array
        Contiguous and not overlapping. An array that owns its storage is moved into the arena's buffer, and whatever
        else views that storage follows. A view of a larger storage (a slice, a shard) stays where it is and is reached
        in place.

    Raises
    ------
    ShapeError
        If an array is not contiguous or two of them overlap; nothing is moved then.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        check_disjoint(arrays)
        self.backend = arrays[0].backend
        self.dtype = arrays[0].dtype
        self.segments: list[Segment] = []
        offset = 0
        # Arrays that move come first, so that they form one run whatever the order in which they were given.
        for x in sorted(arrays, key=lambda x: not _owns_storage(x)):
            segment = Segment(x, offset, x.size)
            self.segments.append(segment)
            offset += segment.chunks * CHUNK
        self.size = offset
        self._buffer: Buffer | None = None
        self._generation = -1
        self.runs: list[Run] = []
        self.gather()

    @property
    def chunks(self) -> int:
        """How many chunks the layout has."""
        return self.size // CHUNK

    def like(self, dtype: DType) -> Span:
        """A zeroed buffer of this layout."""
        span = Span(self.backend.alloc(self.size, dtype), 0, self.size)
        self.backend.fill(span, 0)
        return span

    def gather(self) -> bool:
        """Bring every array that owns its storage into the arena's buffer; say whether anything had moved away."""
        if self._generation == array.relocations.count:
            return False
        owners = [segment for segment in self.segments if _owns_storage(segment.array)]
        movable = owners if len(owners) > 1 else []
        if movable and self._buffer is None:
            total = sum(segment.chunks for segment in movable) * CHUNK
            self._buffer = self.backend.alloc(total, self.dtype)
            self.backend.fill(Span(self._buffer, 0, total), 0)
        for segment in movable:
            storage = segment.array.storage
            if storage.buffer is not self._buffer:
                assert self._buffer is not None
                storage.move(self._buffer, segment.offset)
        before = self.runs
        self.runs = self._find_runs(bool(movable))
        self._generation = array.relocations.count
        return before != self.runs

    def _find_runs(self, moved: bool) -> list[Run]:
        runs: list[Run] = []
        if moved:
            assert self._buffer is not None
            runs.append(Run(Span(self._buffer, 0, self._buffer.size), 0))
        for segment in self.segments:
            if moved and _owns_storage(segment.array):
                continue
            span = segment.array.span()
            last = runs[-1] if runs else None
            # Whole chunks that continue one another, here and in the arena, are one launch.
            if (
                last is not None
                and last.parameters.buffer is span.buffer
                and last.parameters.offset + last.parameters.size == span.offset
                and last.offset + last.parameters.size == segment.offset
            ):
                merged = Span(span.buffer, last.parameters.offset, last.parameters.size + span.size)
                runs[-1] = Run(merged, last.offset)
            elif span.size:
                runs.append(Run(span, segment.offset))
        return runs

    def piece(self, segment: Segment, buffer: Buffer, deferred: Deferred) -> Storage:
        """The storage of one array's elements in a buffer of this layout, whose contents may be deferred."""
        return DeferredStorage(self.backend, buffer, segment.offset, segment.size, deferred)


def _owns_storage(x: Array) -> bool:
    return x.size == x.storage.size and not x.storage.fixed


def check_disjoint(arrays: Sequence[Array]) -> None:
    """Refuse arrays that no arena can hold, with a ShapeError: strided ones, or two that overlap."""
    for position, x in enumerate(arrays):
        if not x.is_contiguous:
            raise ShapeError(
                f"parameter {position} has shape {x.shape} and strides {x.strides}, which is not one run of memory; "
                "give the optimizer a contiguous tensor (netcl.asarray(x, copy=True))"
            )
    placed = sorted(
        ((id(x.storage), x.offset, x.offset + x.size, position) for position, x in enumerate(arrays) if x.size),
    )
    for (storage, _, end, first), (other, start, _, second) in pairwise(placed):
        if storage == other and start < end:
            raise ShapeError(
                f"parameters {min(first, second)} and {max(first, second)} share memory and would be updated twice; "
                "give each element to the optimizer once"
            )
