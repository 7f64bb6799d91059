"""State whose fields have shapes of their own, kept together for the tensors of one shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netcl.backends.base import Backend, Span
from netcl.expression import conversion
from netcl.host_dtypes import STORAGE


@dataclass(frozen=True, slots=True)
class Stored:
    """One field of some tensors, one after the other.

    Attributes
    ----------
    name : str
    members : list of int
        Positions of the tensors in the layout.
    shape : tuple of int
        Of the field of each.
    span : Span
    """

    name: str
    members: list[int]
    shape: tuple[int, ...]
    span: Span

    def of(self, position: int) -> Span:
        """The field of one member, by its place among them."""
        size = self.span.size // len(self.members)
        return self.span.part(position * size, size)


def read(backend: Backend, stored: Sequence[Stored]) -> dict[int, dict[str, np.ndarray[Any, Any]]]:
    """The fields of each tensor, by its position. **Blocks**."""
    found: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
    for each in stored:
        host = backend.download(each.span).reshape(len(each.members), *each.shape)
        for member, values in zip(each.members, host, strict=True):
            found.setdefault(member, {})[each.name] = values.copy()
    return found


def prepared(
    backend: Backend, stored: Sequence[Stored], fields: Sequence[Mapping[str, np.ndarray[Any, Any]]]
) -> Callable[[], None]:
    """Lay out these fields, by the tensors' positions, and return what takes them up; what lacks one starts at zero."""
    host = []
    for each in stored:
        values = np.zeros((len(each.members), *each.shape), STORAGE[each.span.dtype])
        for place, member in enumerate(each.members):
            if each.name in fields[member]:
                values[place] = fields[member][each.name]
        host.append(values.reshape(-1))

    def take_up() -> None:
        for each, values in zip(stored, host, strict=True):
            backend.upload(values, each.span)

    return take_up


def take_over(
    backend: Backend, earlier: Sequence[Stored], stored: Sequence[Stored], position: Mapping[int, int]
) -> None:
    """Continue from the fields of fewer tensors; ``position`` says where each of those is now. Does not block."""
    places = {(each.name, member): each.of(i) for each in stored for i, member in enumerate(each.members)}
    for each in earlier:
        copy = conversion(each.span.dtype, each.span.dtype)
        for i, member in enumerate(each.members):
            backend.map(copy, (each.of(i).view(),), (places[each.name, position[member]].view(),))
