"""State fields that start as copies of the parameters, and the exchange of the two."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from netcl.array import Array
from netcl.backends.base import Span, View
from netcl.dtypes import DType
from netcl.errors import HyperParameterError
from netcl.expression import Expression, Node, conversion, equal, rounded, trace, where
from netcl.optim.engine.partition import Partition
from netcl.optim.rule import Rule
from netcl.validation import shown


def check_extension(kind: str, extension: Any, rule: Rule, host: Any) -> None:
    """Refuse an extension whose fields the optimizer cannot have, before anything is changed."""
    methods = ("fields", "settings", "columns", "before", "after")
    if isinstance(extension, type) or not all(callable(getattr(extension, name, None)) for name in methods):
        raise HyperParameterError(
            f"extend() takes an extension, which has the methods {', '.join(methods)}, got {shown(extension)}"
        )
    fields = extension.fields()
    if taken := [name for name in fields if name in rule.state or name == "master"]:
        raise HyperParameterError(
            f"{kind} has a state field {taken[0]!r} already; give this one another name, or build the optimizer anew"
        )
    if fields and host is not None:
        raise HyperParameterError(
            f"{kind} updates arrays of another library, in which no averages can be kept; build it from Tensors"
        )


def start_fields(
    partitions: Sequence[Partition], names: Collection[str], only: Collection[Array] | None = None
) -> None:
    """Let these fields be copies of the parameters, or of some of them. Enqueues; takes no memory."""
    if not names or (only is not None and not only):
        return
    wanted = None if only is None else {id(p) for p in only}
    for partition in partitions:
        layout, fields = partition.arena.layout, partition.fields
        master = fields.whole("master") if "master" in fields.spans else None
        if wanted is None:
            pieces = [(run.parameters, run.offset) for run in layout.runs]
        else:
            chosen = [segment for segment in layout.segments if id(segment.array) in wanted]
            pieces = [(segment.array.span(), segment.offset) for segment in chosen]
        for source, offset in pieces:
            for name in names:
                _copy(partition, source, offset, fields.whole(name), master)


def put_averages(partition: Partition, name: str) -> None:
    """Write a field into the parameters. Enqueues; does not block."""
    expression = conversion(partition.compute, partition.dtype)
    field = partition.fields.whole(name)
    for run in partition.arena.layout.runs:
        if run.parameters.size:
            partition.backend.map(expression, (run.within(field).view(),), (run.parameters.view(),))
    partition.arena.count_step()


def _copy(partition: Partition, source: Span, offset: int, field: Span, master: Span | None) -> None:
    if not source.size:
        return
    operands: tuple[View, ...] = (source.view(),)
    expression = conversion(partition.dtype, partition.compute)
    if master is not None:
        operands = (source.view(), master.part(offset, source.size).view())
        expression = _current(partition.dtype)
    partition.backend.map(expression, operands, (field.part(offset, source.size).view(),))


@cache
def _current(dtype: DType) -> Expression:
    """What a 16-bit parameter is in full: its master weight, unless it was written to since."""

    def current(p: Node, master: Node) -> Node:
        return where(equal(rounded(master, dtype), p), master, p)

    return trace(current, (dtype, dtype.compute), stored=(dtype.compute,))
