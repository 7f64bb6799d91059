"""Partition: the parameters of one device and dtype, with all that one launch needs to update them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import is_
from typing import Any

import numpy as np

from netcl.arena import Arena, Segment, check_disjoint
from netcl.array import STANDING, Array, Clock, Storage, relocations
from netcl.backends.base import CHUNK, HEADER, Backend, Span, StepBlock, UpdateSource, View
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError, ShapeError
from netcl.expression import conversion
from netcl.optim.checkpoint import Entry
from netcl.optim.group import ParameterGroup
from netcl.optim.master import with_master_weights, without_master_weights
from netcl.optim.pending import PendingFactors
from netcl.optim.rows import Rows
from netcl.optim.rule import Rule


@dataclass(frozen=True, slots=True)
class _Operands:
    """What one launch of the update gets: the same elements of every arena, and their part of the row map."""

    parameters: Span
    gradients: Span
    state: tuple[Span, ...]
    rows: Span


class Partition:
    """Arenas, step block and row map of the parameters of one backend and dtype.

    Parameters
    ----------
    parameters : sequence of Array
        All of one backend and dtype.
    group_of : sequence of int
        The parameter group of each.
    groups : sequence of ParameterGroup
        All groups of the optimizer, as they are at each step.
    rule : Rule
    earlier : Partition, optional
        One whose parameters are among these; its state and step counts are taken over, on the device.

    Attributes
    ----------
    arena : Arena
        Where each parameter lies, in its own buffer and in those of gradients and state.
    gradients : Span
        All gradients.
    state : dict of str to Span
    pending : PendingFactors
        What the gradients are still to be multiplied by.
    """

    def __init__(
        self,
        parameters: Sequence[Array],
        group_of: Sequence[int],
        groups: Sequence[ParameterGroup],
        rule: Rule,
        earlier: Partition | None = None,
    ) -> None:
        dtype = parameters[0].dtype
        if dtype.compute is not dtype:
            keeps = any(groups[number]["master_weights"] for number in group_of)
            rule = with_master_weights(rule, dtype) if keeps else without_master_weights(rule)
        self._rule = rule
        self._expression = None if rule.fused_adam else rule.expression(dtype, dtype, rule.columns(groups[0]))
        self.arena = Arena(parameters)
        self.backend = self.arena.backend
        self.compute: DType = self.arena.dtype.compute
        self.parameters = [segment.array for segment in self.arena.segments]
        # Plain arrays bring their gradients to each step.
        self._plain = self.parameters[0].storage.fixed
        self.gradients = Span(self.backend.alloc(0, dtype), 0, 0) if self._plain else self.arena.like(dtype)
        self.pending = PendingFactors(self.backend, self.gradients, self)
        self.state = {name: self.arena.like(self.compute) for name in rule.state}
        self._homes = [] if self._plain else [self._home(segment) for segment in self.arena.segments]
        number = {id(p): group for p, group in zip(parameters, group_of, strict=True)}
        chunks = [segment.chunks for segment in self.arena.segments]
        self._rows = Rows(self.backend, self.compute, rule, groups, [number[id(p)] for p in self.parameters], chunks)
        if earlier is not None:
            self._take_over(earlier)
        # The gradients for which the active rows are right: a parameter's home, or None if it rests.
        self._expected: list[Array | None] = list(self._homes)
        self._lent: set[int] = set(range(len(self.parameters)))
        # The coming step was decided by a clipping, whose factor is pending.
        self._decided = False
        self._norm: weakref.ref[Storage] | None = None
        self._mean: Span | None = None
        self._records: Span | None = None
        self._clock = Clock()
        self._clocked: list[Storage] = []
        self._checked_at = relocations.count
        self._follow()
        self._bind()

    @property
    def dtype(self) -> DType:
        return self.arena.dtype

    def _home(self, segment: Segment) -> Array:
        p = segment.array
        home = type(p)(self.arena.piece(segment, self.gradients.buffer, self.pending), p.shape)
        if p.grad is not None:
            self._take_in(p.grad, home)
            p.grad = home
        p.grad_home = home
        return home

    def _take_in(self, gradient: Array, home: Array) -> None:
        _check_gradient(gradient, home.shape, self.backend)
        self.backend.map(conversion(gradient.dtype, home.dtype), (gradient.view(),), (home.view(),))

    def _take_over(self, earlier: Partition) -> None:
        """Go on from the state and step counts of a partition of fewer parameters."""
        position = {id(p): i for i, p in enumerate(self.parameters)}
        self._rows.take_over(earlier._rows, {i: position[id(p)] for i, p in enumerate(earlier.parameters)})
        copy = conversion(self.compute, self.compute)
        for source, target, size in _common(earlier.arena, self.arena):
            for name, span in earlier.state.items():
                new = View(self.state[name].buffer, target, (size,), (1,))
                self.backend.map(copy, (View(span.buffer, source, (size,), (1,)),), (new,))

    def _follow(self) -> None:
        """Let each parameter's storage count the steps as writes; ``_clocked`` has those that follow another clock."""
        self._clocked = []
        for p in self.parameters:
            if p.storage.clock is STANDING:
                p.storage.follow(self._clock)
            elif p.storage.clock is not self._clock:
                self._clocked.append(p.storage)

    def check(self) -> None:
        """Refuse what the coming step cannot do, before anything is changed."""
        if self._checked_at == relocations.count:
            return
        for p in self.parameters:
            if p.backend is not self.backend or p.dtype is not self.dtype:
                raise DeviceMismatchError(
                    f"a parameter was {self.dtype} on {self.backend.device} when the optimizer was built and is now "
                    f"{p.dtype} on {p.device}; build the optimizer after model.to(...)"
                )
        self._follow()
        self._checked_at = relocations.count

    def collect(self) -> bool:
        """Bring gradients given from elsewhere into the arena, note who has none, and say whether anybody has one."""
        gradients = [p.grad for p in self.parameters]
        if not all(map(is_, gradients, self._expected)):
            active = {i for i, gradient in enumerate(gradients) if gradient is not None}
            for i in active:
                gradient, home = gradients[i], self._homes[i]
                if gradient is not None and gradient is not home:
                    self._take_in(gradient, home)
                    self.parameters[i].grad = home
            self._rows.split(active)
            self._expected = [home if i in active else None for i, home in enumerate(self._homes)]
        return self._rows.any_active

    def lend(self, gradients: Mapping[int, Array]) -> bool:
        """Take the gradients of plain arrays for the coming step, by the parameter's id; say whether there are any."""
        active = {i for i, p in enumerate(self.parameters) if id(p) in gradients}
        if active != self._lent:
            self._rows.split(active)
            self._lent = active
        self._bind(gradients)
        return bool(active)

    def write_table(self) -> None:
        """Send the hyper-parameters to the device if any of them changed."""
        self._rows.write(self.pending.workers, prepared=self._decided)

    def enqueue(
        self, max_norm: float | None = None, loss_scale: Span | None = None, records: Span | None = None
    ) -> None:
        """Enqueue one step: one launch, or three with clipping or a loss scale. Does not block.

        ``records`` are those of the norm of more gradients than these, if they decide the step together.
        """
        if self.arena.gather():
            self._bind()
        rows = self._rows
        measured = max_norm is not None or loss_scale is not None
        # A clipping that nothing came in between has measured and decided this step.
        folded = self._decided and self.pending.clip is not None and not measured and not rows.renew
        if not folded:
            rows.renew |= self._decided
            self.pending.settle_clip()
        if measured:
            self._measure_step(math.inf if max_norm is None else max_norm, 2.0, loss_scale, records)
        elif rows.renew and not folded:
            self._hand_over_norm()
            self.backend.prepare_step(rows.block)
        self._launch(advance=not (measured or folded or rows.renew))
        rows.block.slot ^= 1
        # After a measured step the header still holds its factor and its decision.
        rows.renew = measured or folded
        self._decided = False
        self._clock.ticks += 1
        for storage in self._clocked:
            storage.version += 1

    def clip(self, max_norm: float, ord: float) -> Storage | None:
        """Decide the coming step for gradients clipped to ``max_norm``; what returns holds their norm. Does not block.

        The factor is left for the step to fold. Whoever reads the gradients first finds them clipped. Returns None if
        there is no gradient.
        """
        self.check()
        if not self.collect():
            return None
        self.pending.settle_clip()
        self._decided = False
        self.write_table()
        if self.arena.gather():
            self._bind()
        self._measure_step(max_norm, ord)
        header = self._rows.block.header
        self.pending.clip = _entry(header, "multiplier")
        self._decided, self._rows.renew = True, False
        norm = Storage(self.backend, header.buffer, header.offset + HEADER.index("norm"), 1)
        self._norm = weakref.ref(norm)
        return norm

    def clips_as_one(self, owners: Sequence[Array]) -> bool:
        """Whether ``owners`` are all parameters that have a gradient, each in the arena."""
        held = {id(p) for p, home in zip(self.parameters, self._homes, strict=True) if p.grad is home}
        return held == set(map(id, owners)) and held == {id(p) for p in self.parameters if p.grad is not None}

    def _measure_step(
        self, max_norm: float, ord: float, loss_scale: Span | None = None, records: Span | None = None
    ) -> None:
        self._hand_over_norm()
        if records is None:
            records = self._partials(ord)
        self.backend.prepare_step(self._rows.block, records, ord=ord, max_norm=max_norm, loss_scale=loss_scale)

    def record_count(self) -> int:
        """How many values the records of a norm of these gradients have."""
        self.pending.settle_clip()
        if self.arena.gather():
            self._bind()
        assert self._records is not None
        return self._records.size

    def measure_into(self, records: Span) -> None:
        """Write the records of the L2 norm into ``record_count()`` values. Does not block."""
        self._partials(2.0, records)

    def _hand_over_norm(self) -> None:
        """Give the norm of the last clipping memory of its own, if anybody still holds it: the header changes now."""
        norm = None if self._norm is None else self._norm()
        if norm is not None:
            copy = Storage.empty(self.backend, 1, self.compute)
            source, target = (View(x.buffer, x.offset, (1,), (1,)) for x in (norm, copy))
            self.backend.map(conversion(self.compute, self.compute), (source,), (target,))
            norm.buffer, norm.offset = copy.buffer, copy.offset
        self._norm = None

    def average(self, workers: int) -> None:
        """Say that the gradients are sums over so many workers, and to be read as their mean. Does not block.

        The division is folded into the coming step, its norm included. Whoever reads a gradient first finds the mean.
        """
        self.pending.settle()
        self.pending.workers = workers
        if workers != 1:
            host_dtype = np.float64 if self.compute.itemsize == 8 else np.float32
            self._mean = Span(self.backend.alloc(1, self.compute), 0, 1)
            self.backend.upload(np.array([1.0 / workers], host_dtype), self._mean)

    @property
    def nonfinite(self) -> Span:
        """Nonzero if the last measured step found a gradient that was not finite."""
        return _entry(self._rows.block.header, "nonfinite")

    def measure(self, loss_scale: Span) -> Span:
        """A header with the norm, finiteness and multiplier of the gradients as they are. Does not block."""
        self.pending.settle_clip()
        if self.arena.gather():
            self._bind()
        header = Span(self.backend.alloc(len(HEADER), self.compute), 0, len(HEADER))
        self.backend.fill(header, 0)
        self.backend.prepare_step(StepBlock(header), self._partials(2.0), loss_scale=loss_scale)
        return header

    def unscale(self, loss_scale: Span) -> Span:
        """Divide the gradients by the loss scale in place; nonzero if one was not finite. Does not block."""
        header = self.measure(loss_scale)
        self.backend.scale(_entry(header, "multiplier"), self.gradients)
        return _entry(header, "nonfinite")

    def _bind(self, lent: Mapping[int, Array] | None = None) -> None:
        """Note what the launches get, for as long as the parameters stay where they are."""
        row_map = self._rows.row_map.buffer
        runs = self.arena.runs
        gradients = [run.within(self.gradients) for run in runs]
        if self._plain:
            owner = {segment.offset: id(segment.array) for segment in self.arena.segments if segment.size}
            given = [(run, (lent or {}).get(owner[run.offset])) for run in runs]
            runs = [run for run, gradient in given if gradient is not None]
            gradients = [gradient.span() for _, gradient in given if gradient is not None]
        self._operands = [
            _Operands(
                run.parameters,
                gradient,
                tuple(run.within(span) for span in self.state.values()),
                Span(row_map, run.offset // CHUNK, -(-run.parameters.size // CHUNK)),
            )
            for run, gradient in zip(runs, gradients, strict=True)
        ]
        counts = [self.backend.norm_partials(run.parameters.size) for run in runs]
        if self._records is None or self._records.size != 2 * sum(counts):
            self._records = Span(self.backend.alloc(2 * sum(counts), self.compute), 0, 2 * sum(counts))
        ends = list(accumulate(counts))
        self._pieces = [(2 * (end - count), 2 * count) for count, end in zip(counts, ends, strict=True)]

    def _partials(self, ord: float, records: Span | None = None) -> Span:
        """Records of a norm of all gradients, in ``records`` if given."""
        assert self._records is not None
        records = records or self._records
        mean = self._mean if self.pending.workers != 1 else None
        for run, (start, size) in zip(self._operands, self._pieces, strict=True):
            piece = Span(records.buffer, records.offset + start, size)
            self.backend.norm_reduce(run.gradients, piece, ord, multiplier=mean, rows=run.rows, block=self._rows.block)
        return records

    def _launch(self, *, advance: bool) -> None:
        backend, rule, block = self.backend, self._expression, self._rows.block
        for run in self._operands:
            p, g, state, rows = run.parameters, run.gradients, run.state, run.rows
            if rule is None:
                largest = state[2] if len(state) > 2 else None
                backend.fused_adam(p, g, state[0], state[1], largest, block, rows, advance=advance)
            else:
                backend.fused_update(rule, p, g, state, block, rows, advance=advance)
            # One launch of a step moves the counters on.
            advance = False

    def source(self) -> str:
        """The program of the update, of a backend that tells it; else the rule as it was traced."""
        if self._operands and isinstance(self.backend, UpdateSource):
            run = self._operands[0]
            fields = (run.parameters, run.gradients, *run.state)
            return self.backend.update_source(self._expression, fields, self._rows.block)
        return self._rule.text(self.dtype, self._rows.block.columns)

    def release_gradients(self, *, set_to_none: bool) -> None:
        """Forget the gradients, or set them to zero in place."""
        self.pending.drop()
        if set_to_none:
            for p in self.parameters:
                p.grad = None
            return
        self.backend.fill(self.gradients, 0)
        for p, home in zip(self.parameters, self._homes, strict=True):
            if p.grad is not None:
                p.grad = home

    def has_gradients(self) -> bool:
        """Whether any parameter has its gradient in the arena."""
        return any(p.grad is home for p, home in zip(self.parameters, self._homes, strict=True))

    def fields(self) -> dict[int, tuple[str, ...]]:
        """The state fields of each parameter, by its id."""
        return {id(p): tuple(self.state) for p in self.parameters}

    def read_state(self) -> dict[int, tuple[int, dict[str, np.ndarray[Any, Any]]]]:
        """Step count and state fields of each parameter, by its id. **Blocks**."""
        steps = self._rows.steps()
        host = {name: self.backend.download(span) for name, span in self.state.items()}
        return {
            id(segment.array): (
                steps[i],
                {
                    name: values[segment.offset : segment.offset + segment.size].reshape(segment.array.shape).copy()
                    for name, values in host.items()
                },
            )
            for i, segment in enumerate(self.arena.segments)
        }

    def write_state(self, entries: Mapping[int, Entry]) -> None:
        """Take up the state that a checkpoint has for each parameter. Enqueues; does not block."""
        host_dtype = np.float64 if self.compute.itemsize == 8 else np.float32
        host = {name: np.zeros(self.arena.size, host_dtype) for name in self.state}
        for segment in self.arena.segments:
            for name, values in entries[id(segment.array)].fields.items():
                host[name][segment.offset : segment.offset + segment.size] = values.reshape(-1)
        for name, values in host.items():
            self.backend.upload(values, self.state[name])
        self.pending.settle_clip()
        self._decided = False
        self._hand_over_norm()
        self._rows.restore([entries[id(p)].step for p in self.parameters])
        self._expected = list(self._homes)


def check_parameters(parameters: Sequence[Array]) -> None:
    """Refuse what no partition can hold, before anything is moved."""
    check_disjoint(parameters)
    for p in parameters:
        if p.grad is not None:
            _check_gradient(p.grad, p.shape, p.backend)


def _check_gradient(gradient: Array, shape: tuple[int, ...], backend: Backend) -> None:
    if gradient.shape != shape:
        raise ShapeError(f"a parameter of shape {shape} has a gradient of shape {gradient.shape}; they must be equal")
    if gradient.backend is not backend:
        raise DeviceMismatchError(
            f"a parameter on {backend.device} has a gradient on {gradient.device}; move it with to()"
        )


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


def _entry(header: Span, name: str) -> Span:
    return Span(header.buffer, header.offset + HEADER.index(name), 1)
