"""StateFields: what an optimizer keeps for each element of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netcl.arena import Arena
from netcl.backends.base import CHUNK, Span
from netcl.dtypes import DType
from netcl.expression import conversion
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.checkpoint import Entry


class StateFields:
    """The state fields of the parameters of an arena, each laid out as they are.

    Parameters
    ----------
    layout : Arena
    dtype : DType
        Of every field: the parameters' compute dtype.
    starts : mapping of str to float
        What each field starts at, the padding between parameters too.
    known : mapping of str to Span, optional
        Fields that are there already.

    Attributes
    ----------
    spans : dict of str to Span
    starts : dict of str to float
    """

    def __init__(
        self, layout: Arena, dtype: DType, starts: Mapping[str, float], known: Mapping[str, Span] | None = None
    ) -> None:
        self._layout = layout
        self._dtype = dtype
        self.starts = dict(starts)
        self.spans = dict(known or {})
        for name, start in starts.items():
            if name not in self.spans:
                self.spans[name] = layout.like(dtype, start)

    def extended(self, starts: Mapping[str, float]) -> StateFields:
        """These fields, and those of other names as they start. Does not block."""
        return StateFields(self._layout, self._dtype, {**starts, **self.starts}, self.spans)

    def take_over(self, earlier: StateFields) -> None:
        """Continue from the fields of fewer parameters. Does not block."""
        copy = conversion(self._dtype, self._dtype)
        backend = self._layout.backend
        for source, target, size in _common(earlier._layout, self._layout):
            for name, span in earlier.spans.items():
                new = self.spans[name].part(target, size)
                backend.map(copy, (span.part(source, size).view(),), (new.view(),))

    def read(self) -> dict[int, dict[str, np.ndarray[Any, Any]]]:
        """The fields of each parameter, by its id. **Blocks**."""
        host = {name: self._layout.backend.download(span) for name, span in self.spans.items()}
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
        host = {name: np.full(self._layout.size, self.starts[name], STORAGE[self._dtype]) for name in self.spans}
        for segment in self._layout.segments:
            for name, values in entries[id(segment.array)].fields.items():
                if name not in host:  # of a shape of its own, kept elsewhere
                    continue
                host[name][segment.offset : segment.offset + segment.size] = values.reshape(-1)

        def take_up() -> None:
            for name, values in host.items():
                self._layout.backend.upload(values, self.spans[name])

        return take_up


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
