"""Buckets: the gradient arena in pieces of a few MB, each reduced as soon as the gradients in it are complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from netcl.array import Array, GradientBuffer
from netcl.backends.base import CHUNK, Backend, Span
from netcl.errors import DistributedError

BUCKET_BYTES = 4 << 20
"""Measured with ``benchmarks/all_reduce.py``: smaller ones cost messages, larger ones gain little and start later."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the gradient of a parameter belongs: in its buffer, over the layout's gradients from ``offset``."""

    parameter: Array
    gradient_buffer: GradientBuffer
    offset: int


@dataclass(frozen=True, slots=True)
class GradientLayout:
    """Gradients in one buffer: where each parameter's lie.

    Attributes
    ----------
    backend : Backend
    gradients : Span
        All of them; what lies between is zero.
    places : sequence of Place
    """

    backend: Backend
    gradients: Span
    places: Sequence[Place]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of a layout that is reduced at once.

    Attributes
    ----------
    layout : GradientLayout
    start, size : int
        In elements from the start of the layout's gradients.
    members : tuple of Place
        The parameters with gradients in it.
    shares : tuple of (start, size)
        Which stretch of the bucket each rank adds up.
    """

    layout: GradientLayout
    start: int
    size: int
    members: tuple[Place, ...]
    shares: tuple[tuple[int, int], ...]

    @property
    def span(self) -> Span:
        whole = self.layout.gradients
        return whole.part(self.start, self.size)


def make_buckets(
    layouts: Sequence[GradientLayout], nbytes: int, ranks: int, owned: Sequence[tuple[int, int]] | None
) -> list[Bucket]:
    """The buckets of some layouts in the order in which they are reduced: from the last gradients to the first.

    Parameters
    ----------
    layouts : sequence of GradientLayout
    nbytes : int
        The largest size of a bucket.
    ranks : int
    owned : sequence of (start, stop), optional
        The stretch of the layout that each rank keeps; by default every rank gets all, and adds up an equal share.
    """
    if nbytes < 1:
        raise DistributedError(f"bucket_bytes must be at least 1, got {nbytes}")
    buckets = []
    for layout in reversed(layouts):
        total = layout.gradients.size
        longest = max(nbytes // layout.gradients.dtype.itemsize // CHUNK, 1) * CHUNK
        edges = [*range(total, 0, -longest), 0]
        for stop, start in pairwise(edges):
            members = tuple(x for x in layout.places if x.offset < stop and x.offset + x.parameter.size > start)
            shares = even_shares(stop - start, ranks) if owned is None else _within(owned, start, stop)
            buckets.append(Bucket(layout, start, stop - start, members, tuple(shares)))
    return buckets


def even_shares(size: int, ranks: int) -> list[tuple[int, int]]:
    """(start, size) of each rank's share of so many elements, of almost equal sizes."""
    edges = [size * rank // ranks for rank in range(ranks + 1)]
    return [(start, stop - start) for start, stop in pairwise(edges)]


def _within(owned: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    clipped = [(max(first, start), min(last, stop)) for first, last in owned]
    return [(first - start, last - first) if first < last else (0, 0) for first, last in clipped]
