"""What the derived calls are stated over, and the views that they are made of."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from netcl.backends.base import CHUNK, Buffer, HostArray, Span, View
from netcl.dtypes import DType, int64
from netcl.quantization import Elementwise

Shape = tuple[int, ...]


class Primitives(Elementwise, Protocol):
    """The calls that every backend has of its own. See :mod:`netcl.backends.base`."""

    def alloc(self, n: int, dtype: DType) -> Buffer: ...

    def upload(self, host: HostArray, out: Span) -> None: ...

    def download(self, x: Span) -> HostArray: ...

    def gather(self, x: View, indices: View, out: View) -> None: ...

    def scatter_add(self, updates: View, indices: View, out: View) -> None: ...


def scratch(primitives: Primitives, n: int, dtype: DType) -> Span:
    """Memory of its own."""
    return Span(primitives.alloc(n, dtype), 0, n)


def counting(primitives: Primitives, n: int) -> Span:
    """The integers from 0 to n - 1, as int64."""
    numbers = scratch(primitives, n, int64)
    primitives.upload(np.arange(n, dtype=np.int64), numbers)
    return numbers


def point(x: Span) -> View:
    """One element, as an array without axes."""
    return View(x.buffer, x.offset, (), ())


def spread(x: Span, shape: Shape) -> View:
    """One element, repeated."""
    return View(x.buffer, x.offset, shape, (0,) * len(shape))


def column(x: Span, index: int, columns: int) -> View:
    """A column of a table that lies in a span row by row."""
    return View(x.buffer, x.offset + index, (x.size // columns,), (columns,))


def pieces(n: int) -> list[tuple[int, Shape]]:
    """Where ``n`` elements fall into whole chunks and a rest: the first element of each, and (chunks, elements)."""
    whole, rest = divmod(n, CHUNK)
    found: list[tuple[int, Shape]] = [(0, (whole, CHUNK))] if whole else []
    return [*found, (whole * CHUNK, (1, rest))] if rest else found


def piece(x: Span, start: int, shape: Shape) -> View:
    """The elements of a span that :func:`pieces` names."""
    return View(x.buffer, x.offset + start, shape, (CHUNK, 1))


def of_chunks(x: Span, index: int, columns: int, start: int, shape: Shape) -> View:
    """A column of a table with a row per chunk, repeated for the elements of each chunk."""
    return View(x.buffer, x.offset + start // CHUNK * columns + index, shape, (columns, 0))
