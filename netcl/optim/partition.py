"""Partition: the parameters of one device and dtype, with all that one launch needs to update them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import is_
from typing import Any

import numpy as np

from netcl.arena import Arena, Segment, check_disjoint
from netcl.array import Array, relocations
from netcl.backends.base import CHUNK, COUNTERS, HEADER, ROW, Backend, Span, StepBlock, View
from netcl.dtypes import DType, uint16
from netcl.errors import DeviceMismatchError, ShapeError
from netcl.expression import conversion
from netcl.optim.checkpoint import Entry
from netcl.optim.group import ParameterGroup
from netcl.optim.rule import Rule


@dataclass(slots=True)
class _Row:
    """A row of the hyper-parameter table: the parameters of one group that have taken the same steps."""

    group: int
    members: set[int]
    active: bool = True


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
    groups : sequence of int
        The parameter group of each.
    rule : Rule
    columns : tuple of str
        The hyper-parameter columns of the rule.
    earlier : Partition, optional
        One whose parameters are among these; its state and step counts are taken over, on the device.
    """

    def __init__(
        self,
        parameters: Sequence[Array],
        groups: Sequence[int],
        rule: Rule,
        columns: tuple[str, ...],
        earlier: Partition | None = None,
    ) -> None:
        self.rule = rule
        self.columns = columns
        dtype = parameters[0].dtype
        self._expression = None if rule.fused_adam else rule.expression(dtype, dtype, columns)
        self.arena = Arena(parameters)
        self.backend = self.arena.backend
        self.compute: DType = self.arena.dtype.compute
        self._host_dtype = np.float64 if self.compute.itemsize == 8 else np.float32
        self.parameters = [segment.array for segment in self.arena.segments]
        group_of = {id(p): group for p, group in zip(parameters, groups, strict=True)}
        self.gradients = self.arena.like(self.arena.dtype)
        self.state = {name: self.arena.like(self.compute) for name in rule.state}
        self._homes = [self._home(segment) for segment in self.arena.segments]
        self._rows = [
            _Row(group, {i for i, p in enumerate(self.parameters) if group_of[id(p)] == group})
            for group in sorted(set(groups))
        ]
        self._row_map = Span(self.backend.alloc(self.arena.chunks, uint16), 0, self.arena.chunks)
        if earlier is None:
            self.block = self._new_block(max(8, 2 * len(self._rows)))
        else:
            self._take_over(earlier)
        self._upload_row_map()
        # The gradients for which the active rows are right: a parameter's home, or None if it rests.
        self._expected: list[Array | None] = list(self._homes)
        # The bias corrections of the coming step have to be made anew; nothing else is pending.
        self._renew = True
        self._table: np.ndarray[Any, Any] = np.zeros(0)
        self._versions: list[int] = []
        self._checked_at = relocations.count
        self._bind()

    @property
    def dtype(self) -> DType:
        return self.arena.dtype

    def _home(self, segment: Segment) -> Array:
        p = segment.array
        home = type(p)(self.arena.piece(segment, self.gradients.buffer), p.shape)
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
        rows = [_Row(row.group, {position[id(earlier.parameters[i])] for i in row.members}) for row in earlier._rows]
        known = set().union(*(row.members for row in rows))
        self._rows = rows + [_Row(row.group, row.members - known) for row in self._rows if row.members - known]
        self.block = self._enlarged(earlier.block, len(self._rows))
        copy = conversion(self.compute, self.compute)
        for source, target, size in _common(earlier.arena, self.arena):
            for name, span in self.state.items():
                old = View(earlier.state[name].buffer, source, (size,), (1,))
                self.backend.map(copy, (old,), (View(span.buffer, target, (size,), (1,)),))

    def _new_block(self, rows: int) -> StepBlock:
        def span(values: np.ndarray[Any, Any]) -> Span:
            made = Span(self.backend.alloc(values.size, self.compute), 0, values.size)
            self.backend.upload(values.astype(self._host_dtype).reshape(-1), made)
            return made

        header = np.zeros(len(HEADER))
        header[HEADER.index("multiplier")] = 1.0
        counters = np.zeros((rows, len(COUNTERS)))
        counters[:, COUNTERS.index("step")] = 1.0
        hyper = np.zeros((rows, len(self.columns)))
        return StepBlock(span(header), self.columns, span(hyper), (span(counters), span(counters)), rows)

    def _upload_row_map(self) -> None:
        row_of = np.zeros(len(self.parameters), np.uint16)
        for number, row in enumerate(self._rows):
            row_of[list(row.members)] = number
        chunks = [segment.chunks for segment in self.arena.segments]
        self.backend.upload(np.repeat(row_of, chunks), self._row_map)

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
            self._split(active)
            self._expected = [home if i in active else None for i, home in enumerate(self._homes)]
        return any(row.active for row in self._rows)

    def _split(self, active: set[int]) -> None:
        """Give parameters that take different steps from now on rows of their own, each with the steps so far."""
        added = False
        before = [row.active for row in self._rows]
        for number, row in enumerate(list(self._rows)):
            moving = row.members & active
            if moving and moving != row.members:
                self._grow(len(self._rows) + 1)
                self._copy_counters(number, len(self._rows))
                self._rows.append(_Row(row.group, row.members - moving, active=False))
                row.members = moving
                added = True
            row.active = bool(moving)
        if added:
            self._upload_row_map()
        if before != [row.active for row in self._rows]:
            self._versions = []

    def _grow(self, rows: int) -> None:
        if rows > self.block.rows:
            self.block = self._enlarged(self.block, rows)
            self._table = np.zeros(0)

    def _enlarged(self, old: StepBlock, rows: int) -> StepBlock:
        """A block with room for more rows, which continues the counters of an old one."""
        block = self._new_block(max(8, 2 * rows, old.rows))
        block.slot = old.slot
        for source, target in zip(_counters(old), _counters(block), strict=True):
            used = Span(target.buffer, 0, source.size)
            self.backend.fill(used, 0)
            self.backend.axpy(1, source, used)
        return block

    def _copy_counters(self, source: int, target: int) -> None:
        width = len(COUNTERS)
        for slot in _counters(self.block):
            copy = Span(slot.buffer, target * width, width)
            self.backend.fill(copy, 0)
            self.backend.axpy(1, Span(slot.buffer, source * width, width), copy)

    def write_table(self, groups: Sequence[ParameterGroup]) -> None:
        """Send the hyper-parameters to the device if any of them changed."""
        versions = [group.version for group in groups]
        if versions == self._versions:
            return
        self._versions = versions
        hyper = [self.rule.hyper(group) for group in groups]
        names = self.columns[len(ROW) :]
        table = np.array(
            [
                [
                    float(row.active),
                    -1.0 if groups[row.group].get("maximize") else 1.0,
                    *(hyper[row.group][name] for name in names),
                ]
                for row in self._rows
            ],
            self._host_dtype,
        )
        known = self._table
        if np.array_equal(table, known):
            return
        betas = [i for i, name in enumerate(self.columns) if name.startswith("log_beta")]
        if table.shape != known.shape or not np.array_equal(table[:, betas], known[:, betas]):
            # The last step made the bias corrections of this one with the decay rates of then.
            self._renew = True
        assert self.block.hyper is not None
        self.backend.upload(table.reshape(-1), Span(self.block.hyper.buffer, 0, table.size))
        self._table = table

    def enqueue(self, max_norm: float | None = None, loss_scale: Span | None = None) -> None:
        """Enqueue one step: one launch, or three with clipping or a loss scale. Does not block."""
        if self.arena.gather():
            self._bind()
        measured = max_norm is not None or loss_scale is not None
        if measured:
            limit = math.inf if max_norm is None else max_norm
            self.backend.prepare_step(self.block, self._partials(), max_norm=limit, loss_scale=loss_scale)
        elif self._renew:
            self.backend.prepare_step(self.block)
        self._launch(advance=not (measured or self._renew))
        self.block.slot ^= 1
        # After a measured step the header still holds its factor and its decision.
        self._renew = measured

    @property
    def nonfinite(self) -> Span:
        """Nonzero if the last measured step found a gradient that was not finite."""
        return _entry(self.block.header, "nonfinite")

    def measure(self, loss_scale: Span) -> Span:
        """A header with the norm, finiteness and multiplier of the gradients as they are. Does not block."""
        if self.arena.gather():
            self._bind()
        header = Span(self.backend.alloc(len(HEADER), self.compute), 0, len(HEADER))
        self.backend.fill(header, 0)
        self.backend.prepare_step(StepBlock(header), self._partials(), loss_scale=loss_scale)
        return header

    def unscale(self, loss_scale: Span) -> Span:
        """Divide the gradients by the loss scale in place; nonzero if one was not finite. Does not block."""
        header = self.measure(loss_scale)
        self.backend.scale(_entry(header, "multiplier"), self.gradients)
        return _entry(header, "nonfinite")

    def _bind(self) -> None:
        """Note what the launches get, for as long as the parameters stay where they are."""
        self._operands = [
            _Operands(
                run.parameters,
                run.within(self.gradients),
                tuple(run.within(span) for span in self.state.values()),
                Span(self._row_map.buffer, run.offset // CHUNK, -(-run.parameters.size // CHUNK)),
            )
            for run in self.arena.runs
        ]
        counts = [self.backend.norm_partials(run.parameters.size) for run in self.arena.runs]
        self._records = Span(self.backend.alloc(2 * sum(counts), self.compute), 0, 2 * sum(counts))
        ends = list(accumulate(counts))
        self._pieces = [
            Span(self._records.buffer, 2 * (end - count), 2 * count) for count, end in zip(counts, ends, strict=True)
        ]

    def _partials(self) -> Span:
        """Records of the L2 norm of all gradients."""
        for run, piece in zip(self._operands, self._pieces, strict=True):
            self.backend.norm_reduce(run.gradients, piece, 2.0, rows=run.rows, block=self.block)
        return self._records

    def _launch(self, *, advance: bool) -> None:
        backend, rule, block = self.backend, self._expression, self.block
        for run in self._operands:
            p, g, state, rows = run.parameters, run.gradients, run.state, run.rows
            if rule is None:
                largest = state[2] if len(state) > 2 else None
                backend.fused_adam(p, g, state[0], state[1], largest, block, rows, advance=advance)
            else:
                backend.fused_update(rule, p, g, state, block, rows, advance=advance)
            # One launch of a step moves the counters on.
            advance = False

    def release_gradients(self, *, set_to_none: bool) -> None:
        """Forget the gradients, or set them to zero in place."""
        if set_to_none:
            for p in self.parameters:
                p.grad = None
            return
        self.backend.fill(self.gradients, 0)
        for p, home in zip(self.parameters, self._homes, strict=True):
            if p.grad is not None:
                p.grad = home

    def read_state(self) -> dict[int, tuple[int, dict[str, np.ndarray[Any, Any]]]]:
        """Step count and state fields of each parameter, by its id. **Blocks**."""
        counters = self.backend.download(_counters(self.block)[self.block.slot]).reshape(-1, len(COUNTERS))
        steps: dict[int, int] = {}
        for row, counter in zip(self._rows, counters, strict=False):
            steps |= dict.fromkeys(row.members, int(counter[0]) - 1)
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
        host = {name: np.zeros(self.arena.size, self._host_dtype) for name in self.state}
        rows: dict[tuple[int, int], set[int]] = {}
        group_of = {member: row.group for row in self._rows for member in row.members}
        for i, segment in enumerate(self.arena.segments):
            entry = entries[id(segment.array)]
            rows.setdefault((group_of[i], entry.step), set()).add(i)
            for name, values in entry.fields.items():
                host[name][segment.offset : segment.offset + segment.size] = values.reshape(-1)
        for name, values in host.items():
            self.backend.upload(values, self.state[name])
        self._rows = [_Row(group, members) for (group, _), members in rows.items()]
        self._expected = list(self._homes)
        self.block = self._new_block(max(8, 2 * len(self._rows)))
        counters = np.zeros((self.block.rows, len(COUNTERS)), self._host_dtype)
        counters[:, 0] = 1.0
        for number, (_, step) in enumerate(rows):
            counters[number, 0] = step + 1
        for slot in _counters(self.block):
            self.backend.upload(counters.reshape(-1), slot)
        self._upload_row_map()
        self._table, self._versions, self._renew = np.zeros(0), [], True


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


def _counters(block: StepBlock) -> tuple[Span, Span]:
    assert block.counters is not None
    return block.counters
