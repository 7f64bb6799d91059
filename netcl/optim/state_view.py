"""StateView: what an optimizer keeps for each parameter, as a mapping to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, final

from netcl.array import Array, Storage
from netcl.backends.base import COUNTERS, Span
from netcl.dtypes import DType
from netcl.expression import Expression, conversion, trace
from netcl.optim.engine.partition import Partition
from netcl.optim.engine.state_fields import dense
from netcl.optim.engine.step_table import counters_of


@final
class StateView(Mapping[Array, dict[str, Array]]):
    """The state of each parameter by the parameter: a dict of its step count and fields, copied on the device.

    Nothing here blocks; reading the numbers of what it returns does. Writing to those changes nothing.

    Parameters
    ----------
    partitions : callable
        Those of the optimizer, as they are now.
    lock : context manager
        The optimizer's.
    """

    def __init__(self, partitions: Callable[[], Sequence[Partition]], lock: Any) -> None:
        self._partitions = partitions
        self._lock = lock

    def __getitem__(self, parameter: Array) -> dict[str, Array]:
        with self._lock:
            for partition in self._partitions():
                for i, p in enumerate(partition.parameters):
                    if p is parameter:
                        return _read(partition, i)
        raise KeyError("this Tensor is not a parameter of the optimizer")

    def __contains__(self, parameter: object) -> bool:
        return any(p is parameter for p in self)

    def __iter__(self) -> Iterator[Array]:
        return iter([p for partition in self._partitions() for p in partition.parameters])

    def __len__(self) -> int:
        return sum(len(partition.parameters) for partition in self._partitions())

    def __repr__(self) -> str:
        fields = sorted({name for partition in self._partitions() for name in partition.fields.spans})
        return f"state of {len(self)} parameter(s): step{''.join(f', {name}' for name in fields)}"


def _read(partition: Partition, index: int) -> dict[str, Array]:
    segment = partition.arena.layout.segments[index]
    table = partition.step.table
    taken = counters_of(table.block)[table.block.slot]
    place = int(table.row_of[index]) * len(COUNTERS) + COUNTERS.index("step")
    step = _copied(segment.array, taken.element(place), (), _less_one(partition.compute))
    found = {"step": step}
    for name, field in partition.fields.spans.items():
        source = dense(partition.backend, field.part(segment.offset, segment.size)).part(0, segment.size)
        found[name] = _copied(segment.array, source, segment.array.shape, conversion(source.dtype, source.dtype))
    return found


def _copied(like: Array, source: Span, shape: tuple[int, ...], expression: Expression) -> Array:
    copy = type(like)(Storage.empty(like.backend, source.size, source.dtype), shape)
    if source.size:
        like.backend.map(expression, (source.view(),), (copy.span().view(),))
    return copy


@cache
def _less_one(dtype: DType) -> Expression:
    """The counters say which step comes next."""
    return trace(lambda step: step - 1.0, (dtype,), stored=(dtype,))
