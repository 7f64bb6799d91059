"""GradientNorm: the norm of the gradients in some spans, taken on the device and left there."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from itertools import accumulate
from weakref import WeakKeyDictionary

from netcl.array import Storage
from netcl.backends.base import HEADER, Backend, Span, StepBlock, header_entry
from netcl.dtypes import DType
from netcl.expression import conversion


class GradientNorm:
    """The records of a norm, and the way to it.

    Parameters
    ----------
    backend : Backend
    compute : DType
        The dtype of the records.
    spans : sequence of Span
        The gradients.
    chunk_to_row : sequence of Span, optional
        For each of them, the rows of its chunks: those of inactive rows count as zero.
    records : Span, optional
        Memory to use again, if it is large enough by chance.

    Attributes
    ----------
    records : Span
        Two values for each part of the norm; the memory is used again by the next measurement.
    """

    def __init__(
        self,
        backend: Backend,
        compute: DType,
        spans: Sequence[Span],
        chunk_to_row: Sequence[Span] | None = None,
        records: Span | None = None,
    ) -> None:
        self._backend = backend
        counts = [2 * backend.norm_partials(span.size) for span in spans]
        size = sum(counts)
        known = records is not None and records.size == size
        self.records = records if known and records is not None else Span(backend.alloc(size, compute), 0, size)
        rows: Sequence[Span | None] = chunk_to_row or [None] * len(spans)
        ends = accumulate(counts)
        self._parts = [
            (span, row, end - count, count) for span, row, count, end in zip(spans, rows, counts, ends, strict=True)
        ]

    def measure(
        self, ord: float, block: StepBlock, *, multiplier: Span | None = None, records: Span | None = None
    ) -> Span:
        """Take the norm, of gradients times ``multiplier``. Returns the records, in ``records`` if given.

        Does not block.
        """
        records = records or self.records
        for span, rows, start, size in self._parts:
            self._backend.norm_reduce(
                span, records.part(start, size), ord, multiplier=multiplier, rows=rows, block=block
            )
        return records


class HandedOutNorm:
    """The norm that a clipping returned: it lies in the header, and moves out when that is written again."""

    def __init__(self) -> None:
        self._storage: weakref.ref[Storage] | None = None

    def hand_out(self, backend: Backend, header: Span) -> Storage:
        """What holds the norm in this header."""
        entry = header_entry(header, "norm")
        storage = Storage(backend, entry.buffer, entry.offset, 1)
        self._storage = weakref.ref(storage)
        return storage

    def move_out(self, header: Span) -> None:
        """Give the norm memory of its own, if it is still referenced and lies in this header. Does not block."""
        storage = None if self._storage is None else self._storage()
        if storage is not None and storage.buffer is header.buffer:
            copy = Storage.empty(storage.backend, 1, storage.dtype)
            kept = conversion(storage.dtype, storage.dtype)
            storage.backend.map(kept, (storage.span().view(),), (copy.span().view(),))
            storage.buffer, storage.offset = copy.buffer, copy.offset
        self._storage = None


def new_header(backend: Backend, compute: DType) -> StepBlock:
    """A step block of a header alone, all zero. Does not block."""
    header = Span(backend.alloc(len(HEADER), compute), 0, len(HEADER))
    backend.fill(header, 0)
    return StepBlock(header)


def measured_header(backend: Backend, compute: DType, spans: Sequence[Span], max_norm: float, norm_type: float) -> Span:
    """A step header whose norm and multiplier are those of the gradients in ``spans``. Does not block.

    The next call of this thread for as many records writes it again.
    """
    size = sum(2 * backend.norm_partials(span.size) for span in spans)
    kept = _scratch.kept.setdefault(backend, {})
    found = kept.get((compute.name, size))
    if found is None:
        made = new_header(backend, compute), Span(backend.alloc(size, compute), 0, size)
        found = kept[compute.name, size] = made
    block, records = found
    GradientNorm(backend, compute, spans, records=records).measure(norm_type, block)
    backend.prepare_step(block, records, ord=norm_type, max_norm=max_norm)
    return block.header


class _Scratch(threading.local):
    """Per thread and backend, the blocks and records of earlier calls: the launches bound to a block stay bound."""

    def __init__(self) -> None:
        self.kept: WeakKeyDictionary[Backend, dict[tuple[str, int], tuple[StepBlock, Span]]] = WeakKeyDictionary()


_scratch = _Scratch()
