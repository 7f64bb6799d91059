"""StateFields: what an optimizer keeps for each element of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netcl.arena import Arena, Segment
from netcl.backends.base import CHUNK, Backend, BlockFormat, BlockSpan, Span
from netcl.dtypes import DType, float32, uint8
from netcl.expression import conversion
from netcl.host_dtypes import STORAGE, stored_as, values_of
from netcl.narrow_arrays import HostBlocks, blocks_of, is_asked_for, narrow_array
from netcl.optim.engine.checkpoint import Entry
from netcl.quantization import dequantize, quantize

Field = Span | BlockSpan


class StateFields:
    """The state fields of the parameters of an arena, each laid out as they are.

    Parameters
    ----------
    layout : Arena
    dtype : DType
        The parameters' compute dtype, and that of every field that is not named in ``kept_as``.
    starts : mapping of str to float
        What each field starts at, the padding between parameters too.
    kept_as : mapping of str to DType or BlockFormat
        The storage of the other fields.
    known : mapping of str to Span or BlockSpan, optional
        Fields that are there already.

    Attributes
    ----------
    spans : dict of str to Span or BlockSpan
    starts : dict of str to float
    kept_as : dict of str to DType or BlockFormat
    """

    def __init__(
        self,
        layout: Arena,
        dtype: DType,
        starts: Mapping[str, float],
        kept_as: Mapping[str, DType | BlockFormat],
        known: Mapping[str, Field] | None = None,
    ) -> None:
        self._layout = layout
        self._dtype = dtype
        self.starts = dict(starts)
        self.kept_as = dict(kept_as)
        self.spans = dict(known or {})
        for name, start in starts.items():
            if name not in self.spans:
                self.spans[name] = self._started(self.kept_as.get(name, dtype), start)

    def _started(self, kept_as: DType | BlockFormat, start: float) -> Field:
        if isinstance(kept_as, DType):
            return self._layout.like(kept_as, start)
        backend, size = self._layout.backend, self._layout.size
        bytes_, blocks = size // kept_as.per_byte, size // kept_as.block
        made = BlockSpan(
            Span(backend.alloc(bytes_, uint8), 0, bytes_), Span(backend.alloc(blocks, float32), 0, blocks), kept_as
        )
        backend.fill(made.scales, abs(start))
        backend.fill(made.codes, _start_byte(kept_as, start))
        return made

    def whole(self, name: str) -> Span:
        """The memory of a field that is never kept in blocks."""
        field = self.spans[name]
        assert isinstance(field, Span)
        return field

    def extended(self, starts: Mapping[str, float], kept_as: Mapping[str, DType | BlockFormat]) -> StateFields:
        """These fields, and those of other names as they start. Does not block."""
        return StateFields(
            self._layout, self._dtype, {**starts, **self.starts}, {**kept_as, **self.kept_as}, self.spans
        )

    def take_over(self, earlier: StateFields) -> None:
        """Continue from the fields of fewer parameters. Does not block."""
        backend = self._layout.backend
        for source, target, size in _common(earlier._layout, self._layout):
            for name, field in earlier.spans.items():
                pairs = zip(
                    _memory(field.part(source, size)), _memory(self.spans[name].part(target, size)), strict=True
                )
                for old, new in pairs:
                    backend.map(conversion(old.dtype, new.dtype), (old.view(),), (new.view(),))

    def read(self) -> dict[int, dict[str, np.ndarray[Any, Any]]]:
        """The fields of each parameter, by its id, in the compute dtype. **Blocks**.

        Where that is asked for (:mod:`netcl.narrow_arrays`), what a field is kept in stands beside it: blocks, or a
        16-bit dtype.
        """
        backend = self._layout.backend
        found: dict[int, dict[str, np.ndarray[Any, Any]]] = {id(segment.array): {} for segment in self._layout.segments}
        for name, field in self.spans.items():
            span = dense(backend, field)
            values = values_of(backend.download(span), span.dtype)
            whole = _downloaded(backend, field) if isinstance(field, BlockSpan) and is_asked_for() else None
            narrow = isinstance(field, Span) and field.dtype.compute is not field.dtype and is_asked_for()
            for segment in self._layout.segments:
                own = values[segment.offset : segment.offset + segment.size].reshape(segment.array.shape).copy()
                if whole is not None:
                    rows = _rows(segment, whole.format)
                    blocks = HostBlocks(whole.codes[rows].copy(), whole.scales[rows].copy(), whole.format)
                    own = narrow_array(own, blocks)
                elif narrow:
                    own = narrow_array(own, span.dtype)
                found[id(segment.array)][name] = own
        return found

    def prepared(self, entries: Mapping[int, Entry]) -> Callable[[], None]:
        """Lay out the fields of a checkpoint, and return what takes them up. Nothing is changed before that is called.

        Enqueues; does not block.
        """
        # All memory is taken before anything is changed.
        take_up = [self._prepared(name, field, entries) for name, field in self.spans.items()]

        def take_up_all() -> None:
            for each in take_up:
                each()

        return take_up_all

    def _prepared(self, name: str, field: Field, entries: Mapping[int, Entry]) -> Callable[[], None]:
        """As :meth:`prepared`, of one field."""
        backend = self._layout.backend
        given = [(segment, entries[id(segment.array)].fields.get(name)) for segment in self._layout.segments]
        # Fields that no entry names are of a shape of their own, kept elsewhere, or start anew.
        found = [(segment, values) for segment, values in given if values is not None]
        if isinstance(field, BlockSpan) and len(found) == len(given):
            blocks = [(segment, blocks_of(values)) for segment, values in found]
            if all(own is not None and own.format == field.format for _, own in blocks):
                whole = _started_blocks(field, self.starts[name])
                for segment, own in blocks:
                    assert own is not None
                    rows = _rows(segment, field.format)
                    whole.codes[rows], whole.scales[rows] = own.codes, own.scales
                return lambda: _upload(backend, whole, field)
        host = np.full(self._layout.size, self.starts[name], STORAGE[self._dtype])
        for segment, values in found:
            host[segment.offset : segment.offset + segment.size] = values.reshape(-1)
        if isinstance(field, Span):
            stored = stored_as(host, field.dtype)
            return lambda: backend.upload(stored, field)
        scratch = Span(backend.alloc(field.size, float32), 0, field.size)
        backend.upload(host, scratch)
        return lambda: quantize(backend, scratch, field)


def dense(backend: Backend, field: Field) -> Span:
    """The numbers of a field as they lie, or of one in blocks in memory of their own. Does not block."""
    if isinstance(field, Span):
        return field
    made = Span(backend.alloc(field.size, field.dtype), 0, field.size)
    dequantize(backend, field, made)
    return made


def _rows(segment: Segment, format: BlockFormat) -> slice:
    """The blocks of one array among those of all: it begins with a chunk, which is whole blocks."""
    first = segment.offset // format.block
    return slice(first, first - (-segment.size // format.block))


def _start_byte(format: BlockFormat, start: float) -> int:
    """The byte of the codes that are worth the whole scale, with the sign of ``start``."""
    if start == 0.0:
        return 0
    full = (1 << (format.bits - 1)) - 1 if format.signed and start > 0.0 else (1 << format.bits) - 1
    return full if format.bits == 8 else 17 * full


def _started_blocks(field: BlockSpan, start: float) -> HostBlocks:
    """Blocks for the whole layout on the host, as they start."""
    shape = (field.scales.size, field.format.block // field.format.per_byte)
    codes = np.full(shape, _start_byte(field.format, start), np.uint8)
    return HostBlocks(codes, np.full(shape[0], abs(start), np.float32), field.format)


def _downloaded(backend: Backend, field: BlockSpan) -> HostBlocks:
    """The blocks of the whole layout. **Blocks**."""
    codes, scales = backend.download(field.codes), backend.download(field.scales)
    return HostBlocks(codes.reshape(field.scales.size, -1), scales, field.format)


def _upload(backend: Backend, blocks: HostBlocks, field: BlockSpan) -> None:
    backend.upload(blocks.codes.reshape(-1), field.codes)
    backend.upload(blocks.scales, field.scales)


def _memory(field: Field) -> tuple[Span, ...]:
    """The memory that a field lies in."""
    return (field,) if isinstance(field, Span) else (field.codes, field.scales)


def _common(old: Arena, new: Arena) -> list[tuple[int, int, int]]:
    """(from, to, size) of the stretches that an arena and a larger one have in common."""
    target = {id(segment.array): segment.offset for segment in new.segments}
    found: list[tuple[int, int, int]] = []
    for segment in old.segments:
        start, to, size = segment.offset, target[id(segment.array)], segment.chunks * CHUNK
        if found and found[-1][0] + found[-1][2] == start and found[-1][1] + found[-1][2] == to:
            found[-1] = (found[-1][0], found[-1][1], found[-1][2] + size)
        elif size:
            found.append((start, to, size))
    return found
