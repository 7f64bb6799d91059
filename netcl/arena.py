"""Arenas: many arrays of one device and dtype in one buffer, so that one launch reaches them all.

An arena fixes a layout: each array starts at a whole chunk of 1024 elements, and the padding after it holds zeros that
every update rule keeps zero. Gradients and optimizer state are laid out alike, so one index means one element in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from sys import getrefcount
from typing import Any, TypeVar, cast

from netcl import array
from netcl.array import Array, PendingScale, Storage
from netcl.backends.base import CHUNK, Backend, BlockSpan, Buffer, Span
from netcl.dtypes import DType
from netcl.errors import ShapeError

Memory = TypeVar("Memory", bound=Span | BlockSpan)


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

    def within(self, arena: Memory) -> Memory:
        """The same elements of a buffer, or of blocks, with the arena's layout."""
        return cast(Memory, arena.part(self.offset, self.parameters.size))


class Arena:
    """A common layout for arrays of one backend and dtype.

    Parameters
    ----------
    arrays : sequence of Array
        Contiguous and not overlapping. :meth:`gather` moves an array that owns its storage into the arena's buffer,
        and whatever else views that storage follows. A view of a larger storage (a slice, a shard) stays where it is
        and is reached in place.

    Attributes
    ----------
    runs : list of Run
        The memory of the arrays, once :meth:`gather` was called.

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
        # All memory is taken here, so that gathering the arrays cannot fail for want of it.
        self.runs = self._find_runs(bool(self._movable()))

    @property
    def chunks(self) -> int:
        """How many chunks the layout has."""
        return self.size // CHUNK

    def like(self, dtype: DType, value: float = 0) -> Span:
        """A buffer of this layout that holds one value, in the padding too."""
        span = Span(self.backend.alloc(self.size, dtype), 0, self.size)
        self.backend.fill(span, value)
        return span

    def gather(self) -> bool:
        """Bring every array that owns its storage into the arena's buffer; say whether anything had moved away."""
        if self._generation == array.storage_generation.count:
            return False
        movable = self._movable()
        for segment in movable:
            storage = segment.array.storage
            if storage.buffer is not self._buffer:
                assert self._buffer is not None
                storage.move(self._buffer, segment.offset)
        before = self.runs
        self.runs = self._find_runs(bool(movable))
        self._generation = array.storage_generation.count
        return before != self.runs

    def _movable(self) -> list[Segment]:
        """The arrays that belong in the buffer, which there is if there are any."""
        owners = [segment for segment in self.segments if _owns_storage(segment.array)]
        movable = owners if len(owners) > 1 else []
        if movable and self._buffer is None:
            total = sum(segment.chunks for segment in movable) * CHUNK
            self._buffer = self.backend.alloc(total, self.dtype)
            self.backend.fill(Span(self._buffer, 0, total), 0)
        return movable

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


@dataclass(frozen=True, slots=True)
class ArenaGradient:
    """The :class:`~netcl.array.GradientBuffer` of one array: its piece of a gradient arena."""

    arena: GradientArena
    index: int

    @property
    def array(self) -> Array:
        return self.arena.arrays[self.index]

    @property
    def owner(self) -> Any:
        return self.arena.owner()

    def claim(self) -> Array:
        return self.arena.claim(self.index)


def _nobody() -> None:
    """The owner of gradients that no optimizer steps with."""


class GradientArena:
    """The gradients of some arrays in one buffer. Its memory is written only where nobody sees an earlier gradient.

    To keep a gradient is to keep its Array, or a view, which keeps its Storage. So how many refer to the two says
    exactly whether anybody does, at the cost of two look-ups; a record on a tape counts as well. Before a new gradient
    is written over one that is seen, the storage of that moves to memory of its own, which all its views follow, and
    the piece gets a new array. CPython alone counts references: somewhere else every gradient would be moved.

    Parameters
    ----------
    backend : Backend
    span : Span
        The buffer.
    places : iterable of (class, shape, offset)
        Of each gradient; the offset counts elements of the span.
    pending : PendingScale, optional
        What the gradients are still to be multiplied by.
    owner : callable
        Returns what steps with these gradients, or None: a weak reference.

    Attributes
    ----------
    arrays : list of Array
        The gradient of each array in this arena, if it has one. To be kept nowhere but here and in ``gradient``.
    """

    def __init__(
        self,
        backend: Backend,
        span: Span,
        places: Iterable[tuple[type[Array], tuple[int, ...], int]],
        pending: PendingScale | None = None,
        owner: Callable[[], Any] = _nobody,
    ) -> None:
        self.span = span
        self.pending = pending
        self.owner = owner
        self._backend = backend
        self._offsets: list[int] = []
        self.arrays: list[Array] = []
        self._storages: list[Storage] = []
        for cls, shape, offset in places:
            self._offsets.append(offset)
            self._append(cls, shape, offset)

    def _append(self, cls: type[Array], shape: tuple[int, ...], offset: int) -> None:
        storage = Storage(self._backend, self.span.buffer, self.span.offset + offset, math.prod(shape))
        storage.pending = self.pending
        self.arrays.append(cls(storage, shape))
        self._storages.append(storage)

    def buffer_of(self, index: int) -> ArenaGradient:
        """What an array's ``grad_buffer`` is set to."""
        return ArenaGradient(self, index)

    def claim(self, index: int) -> Array:
        """As :meth:`~netcl.array.GradientBuffer.claim`."""
        # Before the array is looked at, which would count as somebody who sees it.
        if self.pending is not None:
            self.pending.apply()
        if _references(self.arrays, index) != _ALONE:
            self._move_out(index)
        return self.arrays[index]

    def detach(self, indices: Iterable[int]) -> None:
        """Let those of these gradients that somebody sees have memory of their own."""
        for index in indices:
            self.claim(index)

    def anybody_sees(self) -> bool:
        """Whether anybody sees any of the gradients, when no array has its own here."""
        return (
            max(map(getrefcount, self.arrays), default=0) > _ALONE_IN_A_LIST
            or max(map(getrefcount, self._storages), default=0) > _ALONE_IN_A_LIST + 1
        )

    def take_over(self, index: int, earlier: GradientArena, position: int) -> None:
        """Bring a gradient of an earlier arena to this one, itself and all that views it."""
        gradient, storage = earlier.arrays[position], earlier._storages[position]
        storage.move(self.span.buffer, self.span.offset + self._offsets[index])
        storage.pending = self.pending
        earlier._replace(position)
        self.arrays[index], self._storages[index] = gradient, storage

    def recover(self) -> None:
        """Make a new array for every piece whose own was moved elsewhere, to another device or optimizer."""
        for index, (gradient, storage) in enumerate(zip(self.arrays, self._storages, strict=True)):
            place = self.span.offset + self._offsets[index]
            if gradient.storage is not storage or not storage.lies_at(self.span.buffer, place):
                self._replace(index)

    def _move_out(self, index: int) -> None:
        storage = self._storages[index]
        own = self._backend.alloc(storage.size, storage.dtype)
        storage.move(own, 0)
        storage.pending = None
        self._replace(index)

    def _replace(self, index: int) -> None:
        earlier = self.arrays[index]
        self._append(type(earlier), earlier.shape, self._offsets[index])
        self.arrays[index], self._storages[index] = self.arrays.pop(), self._storages.pop()


def _references(arrays: list[Array], index: int) -> int:
    """How many refer to an array and to its storage, this function included."""
    x = arrays[index]
    return getrefcount(x) + getrefcount(x.storage)


def _alone() -> tuple[int, int]:
    """What is counted where nobody sees a gradient: how this interpreter passes arguments is its own affair."""
    arrays = [Array(Storage.__new__(Storage), ())]
    storages = [x.storage for x in arrays]
    return _references(arrays, 0) * len(storages), max(map(getrefcount, arrays))


_ALONE, _ALONE_IN_A_LIST = _alone()


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
