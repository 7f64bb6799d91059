"""StateFields: what an optimizer keeps for each element of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netcl.arena import Arena
from netcl.backends.base import CHUNK, Backend, BlockFormat, BlockSpan, Span
from netcl.dtypes import DType, float32, uint8
from netcl.expression import conversion
from netcl.host_dtypes import STORAGE, stored_as, values_of
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
        # The code that is worth the whole scale, with its sign.
        full = (1 << (kept_as.bits - 1)) - 1 if kept_as.signed and start > 0.0 else (1 << kept_as.bits) - 1
        backend.fill(made.codes, 0 if start == 0.0 else full if kept_as.bits == 8 else 17 * full)
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
        """The fields of each parameter, by its id, in the compute dtype. **Blocks**."""
        host = {}
        for name, field in self.spans.items():
            span = dense(self._layout.backend, field)
            host[name] = values_of(self._layout.backend.download(span), span.dtype)
        return {
            id(segment.array): {
                name: values[segment.offset : segment.offset + segment.size].reshape(segment.array.shape).copy()
                for name, values in host.items()
            }
            for segment in self._layout.segments
        }

    def prepared(self, entries: Mapping[int, Entry]) -> Callable[[], None]:
        """Lay out the fields of a checkpoint, and return what takes them up. Nothing is changed before that is called.

        Enqueues; does not block.
        """
        backend = self._layout.backend
        host = {name: np.full(self._layout.size, self.starts[name], STORAGE[self._dtype]) for name in self.spans}
        for segment in self._layout.segments:
            for name, values in entries[id(segment.array)].fields.items():
                if name not in host:  # of a shape of its own, kept elsewhere
                    continue
                host[name][segment.offset : segment.offset + segment.size] = values.reshape(-1)
        # All memory is taken before anything is changed.
        scratch: dict[str, Span] = {}
        for name, field in self.spans.items():
            if isinstance(field, BlockSpan):
                scratch[name] = Span(backend.alloc(field.size, float32), 0, field.size)
                backend.upload(host[name], scratch[name])
            else:
                host[name] = stored_as(host[name], field.dtype)

        def take_up() -> None:
            for name, field in self.spans.items():
                if isinstance(field, BlockSpan):
                    quantize(backend, scratch[name], field)
                else:
                    backend.upload(host[name], field)

        return take_up


def dense(backend: Backend, field: Field) -> Span:
    """The numbers of a field as they lie, or of one in blocks in memory of their own. Does not block."""
    if isinstance(field, Span):
        return field
    made = Span(backend.alloc(field.size, field.dtype), 0, field.size)
    dequantize(backend, field, made)
    return made


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
