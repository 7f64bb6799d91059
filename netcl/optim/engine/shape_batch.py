"""ShapeBatch: the tensors of one shape in a field, as one array with an axis more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from netcl.arena import Arena
from netcl.backends.base import CHUNK, Span, View
from netcl.dtypes import DType, int64


def contiguous(x: Span, shape: tuple[int, ...]) -> View:
    """A span as an array of this shape."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return View(x.buffer, x.offset, shape, tuple(reversed(strides)))


class ShapeBatch:
    """Some tensors of one shape. Making one takes all memory.

    Where they lie at even distances, the array is the field itself; else a copy is gathered and scattered back.

    Parameters
    ----------
    layout : Arena
    dtype : DType
        Of the field.
    members : sequence of int
        Positions of the tensors in the layout; they have the same shape and some elements.

    Attributes
    ----------
    members : list of int
    shape : tuple of int
        Of each.
    """

    def __init__(self, layout: Arena, dtype: DType, members: Sequence[int]) -> None:
        segments = [layout.segments[i] for i in members]
        self.members = list(members)
        self.shape: tuple[int, ...] = segments[0].array.shape
        self._backend, self._chunks = layout.backend, layout.chunks
        self._first, self._padded = segments[0].offset, segments[0].chunks * CHUNK
        distances = {b.offset - a.offset for a, b in pairwise(segments)} or {self._padded}
        self._distance = distances.pop() if len(distances) == 1 else None
        self._rows = self._put([float(i) for i in members])
        if self._distance is None:
            own = segments[0].chunks
            self._index = self._put([segment.offset // CHUNK + i for segment in segments for i in range(own)])
            self._stack = Span(self._backend.alloc(len(members) * self._padded, dtype), 0, len(members) * self._padded)

    def _put(self, numbers: Sequence[float]) -> Span:
        made = Span(self._backend.alloc(len(numbers), int64), 0, len(numbers))
        self._backend.upload(np.array(numbers, np.int64), made)
        return made

    def __len__(self) -> int:
        return len(self.members)

    def load(self, field: Span) -> View:
        """The tensors of a field: the first axis counts them. At most one launch. Does not block."""
        if self._distance is not None:
            tensor = contiguous(field.part(self._first, 0), self.shape)
            return View(tensor.buffer, tensor.offset, (len(self), *self.shape), (self._distance, *tensor.strides))
        self._backend.gather(*self._chunked(field))
        tensor = contiguous(self._stack, self.shape)
        return View(tensor.buffer, tensor.offset, (len(self), *self.shape), (self._padded, *tensor.strides))

    def store(self, field: Span) -> None:
        """Bring what was written to the array of :meth:`load` to the field. At most one launch. Does not block."""
        if self._distance is None:
            target, index, stack = self._chunked(field)
            self._backend.scatter(stack, index, target)

    def _chunked(self, field: Span) -> tuple[View, View, View]:
        """The field, the index and the stack, by chunks."""
        count = self._index.size
        return (
            View(field.buffer, field.offset, (1, self._chunks, CHUNK), (field.size, CHUNK, 1)),
            View(self._index.buffer, 0, (1, count, CHUNK), (0, 1, 0)),
            View(self._stack.buffer, 0, (1, count, CHUNK), (self._stack.size, CHUNK, 1)),
        )

    def rows(self, table: Span, width: int, out: Span) -> None:
        """The rows of these tensors, of a table with a row for each tensor. One launch. Does not block."""
        tensors, count = table.size // width, len(self)
        self._backend.gather(
            View(table.buffer, table.offset, (1, tensors, width), (table.size, width, 1)),
            View(self._rows.buffer, 0, (1, count, width), (0, 1, 0)),
            View(out.buffer, out.offset, (1, count, width), (out.size, width, 1)),
        )


def by_shape(layout: Arena, apart: Sequence[object]) -> dict[tuple[tuple[int, ...], object], list[int]]:
    """The tensors with elements of each shape, kept apart where ``apart`` has other values for them."""
    found: dict[tuple[tuple[int, ...], object], list[int]] = {}
    for i, segment in enumerate(layout.segments):
        if segment.size:
            found.setdefault((segment.array.shape, apart[i]), []).append(i)
    return found
