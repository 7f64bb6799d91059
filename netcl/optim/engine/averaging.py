"""What a schedule-free optimizer does with its parameters between training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from netcl.backends.base import Span
from netcl.dtypes import DType
from netcl.expression import Expression, Node, rounded, trace, where
from netcl.optim.engine.group import ParameterGroup
from netcl.optim.engine.host_parameters import HostParameters
from netcl.optim.engine.master_weights import keeps_master_weights
from netcl.optim.engine.partition import Partition
from netcl.optim.engine.step_engine import StepEngine

Interpolation = Callable[[Mapping[str, Any]], float]


def exchange(engine: StepEngine, host: HostParameters | None, *, train: bool, interpolation: Interpolation) -> None:
    """Bring all parameters to the point of training, or to the average, and note it in their groups.

    A parameter θ of training lies between z and the average x: ``θ = (1 - i)·z + i·x``. One launch for each run of
    parameters with the same ``i``; enqueues and does not block, but for host arrays.
    """
    with engine.lock:
        for partition in engine.partitions:
            partition.arena.check()
        engine.adapt()
        moving = [group for group in engine.groups if group["train_mode"] is not train]
        if not moving:
            return
        values = [group.checked({"train_mode": train}) for group in moving]
        mapped: AbstractContextManager[Any] = nullcontext() if host is None else host.mapped()
        with mapped:
            for partition in engine.partitions:
                _exchange(partition, moving, train, interpolation)
        for group, held in zip(moving, values, strict=True):
            group.replace(held)


def _exchange(
    partition: Partition, moving: Sequence[ParameterGroup], train: bool, interpolation: Interpolation
) -> None:
    fields, with_master = partition.fields, "master" in partition.fields.spans
    expression = _exchanged(partition.dtype, partition.compute, with_master)
    for parameters, offset, (share, keeps) in _pieces(partition, moving, interpolation):
        names = ("master", "z", "weight_sum") if with_master else ("z", "weight_sum")
        state = [fields.whole(name).part(offset, parameters.size).view() for name in names]
        place = parameters.view()
        way = 1.0 - share if train else 1.0 - 1.0 / share
        partition.backend.map(
            expression,
            (place, *state),
            (place, state[0]) if with_master else (place,),
            (way, keeps) if with_master else (way,),
        )
    partition.arena.count_step()


def _pieces(
    partition: Partition, moving: Sequence[ParameterGroup], interpolation: Interpolation
) -> list[tuple[Span, int, tuple[float, float]]]:
    """What each launch takes: memory of parameters, where it lies in the state's arenas, and (i, has a master).

    Parameters that follow one another in both, and agree in the rest, are one piece with the padding between them.
    """
    group_of = {id(p): group for group in moving for p in group["params"]}
    pieces: list[tuple[Span, int, tuple[float, float]]] = []
    joins = False
    for segment in partition.arena.layout.segments:
        group = group_of.get(id(segment.array))
        if group is None:
            joins = False
            continue
        if not segment.size:
            continue
        span, numbers = segment.array.span(), (interpolation(group), float(keeps_master_weights(group)))
        if joins:
            first, offset, known = pieces[-1]
            if (
                known == numbers
                and first.buffer is span.buffer
                and span.offset - first.offset == segment.offset - offset
            ):
                pieces[-1] = Span(first.buffer, first.offset, span.offset - first.offset + span.size), offset, known
                continue
        pieces.append((span, segment.offset, numbers))
        joins = True
    return pieces


@cache
def _exchanged(dtype: DType, compute: DType, with_master: bool) -> Expression:
    """The parameter, and its master, on the way to z: by ``1 - i`` from the average, and back."""

    def moved(current: Node, z: Node, weight_sum: Node, way: Node) -> Node:
        # z has no value before the first step.
        return where(weight_sum > 0.0, current + way * (z - current), current)

    if not with_master:
        return trace(moved, (dtype, compute, compute), (compute,), stored=(dtype,))

    def with_masters(p: Node, master: Node, z: Node, weight_sum: Node, way: Node, keeps: Node) -> tuple[Node, Node]:
        kept = (keeps != 0.0) & (rounded(master, dtype) == p)
        result = moved(where(kept, master, p), z, weight_sum, way)
        return result, where(keeps != 0.0, result, 0.0)

    return trace(with_masters, (dtype, compute, compute, compute), (compute, compute), stored=(dtype, compute))
