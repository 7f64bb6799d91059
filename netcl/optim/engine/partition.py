"""Partition: the parameters of one device and dtype, with all that one launch needs to update them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from operator import is_
from typing import Any

import numpy as np

from netcl.arena import Arena, GradientArena, Home, check_disjoint
from netcl.array import STANDING, Array, Clock, Storage, check_gradient, relocations
from netcl.backends.base import CHUNK, HEADER, Span, StepBlock, UpdateSource, View
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError
from netcl.expression import Expression, conversion
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.checkpoint import Entry
from netcl.optim.engine.group import ParameterGroup
from netcl.optim.engine.master_weights import with_master_weights
from netcl.optim.engine.pending import PendingFactors, scale_by
from netcl.optim.engine.step_table import Rows
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

    Making one takes all memory that it needs; :meth:`adopt` then moves the parameters in.

    Parameters
    ----------
    parameters : sequence of Array
        All of one backend and dtype.
    group_of : sequence of int
        The parameter group of each.
    groups : sequence of ParameterGroup
        All groups of the optimizer, as they are at each step.
    rule : Rule
    lock : context manager
        The optimizer's.
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
        lock: AbstractContextManager[Any],
        earlier: Partition | None = None,
    ) -> None:
        dtype = parameters[0].dtype
        self.lock = lock
        self.arena = Arena(parameters)
        self.backend = self.arena.backend
        self.compute: DType = self.arena.dtype.compute
        self.parameters = [segment.array for segment in self.arena.segments]
        number = {id(p): group for p, group in zip(parameters, group_of, strict=True)}
        self._group_of = [number[id(p)] for p in self.parameters]
        self._rule, columns, self._expression = self._chosen(rule, groups)
        # Plain arrays bring their gradients to each step.
        self._plain = self.parameters[0].storage.fixed
        self.gradients = Span(self.backend.alloc(0, dtype), 0, 0) if self._plain else self.arena.like(dtype)
        self.pending = PendingFactors(self.backend, self.gradients, self)
        segments = [] if self._plain else self.arena.segments
        places = [(type(segment.array), segment.array.shape, segment.offset) for segment in segments]
        self._homes = GradientArena(self.backend, self.gradients, places, self.pending)
        names = dict.fromkeys((*self._rule.state, *(() if earlier is None else earlier.state)))
        self.state: dict[str, Span] = {name: self.arena.like(self.compute) for name in names}
        chunks = [segment.chunks for segment in self.arena.segments]
        self._rows = Rows(self.backend, self.compute, self._rule, columns, groups, self._group_of, chunks)
        if earlier is not None:
            self._take_over(earlier)
        self._earlier = earlier
        # Which parameters have a gradient, as the active rows say; None if all of them.
        self._active: list[bool] | None = None
        self._lent: set[int] = set(range(len(self.parameters)))
        # The coming step was decided by a clipping, whose factor is pending.
        self._decided = False
        self._norm: weakref.ref[Storage] | None = None
        self._mean: Span | None = None
        self._records: Span | None = None
        self._clock = Clock()
        self._clocked: list[Storage] = []
        self._checked_at = -1
        self._bind()

    def adopt(self) -> None:
        """Move the parameters and their gradients in. Until then nothing outside has changed; takes no memory."""
        earlier, self._earlier = self._earlier, None
        known = {} if earlier is None else {id(p): i for i, p in enumerate(earlier.parameters)}
        self.arena.gather()
        if not self._plain:
            for i, p in enumerate(self.parameters):
                gradient, position = p.gradient, known.get(id(p), -1)
                if earlier is not None and position >= 0 and gradient is earlier._homes.arrays[position]:
                    self._homes.take_over(i, earlier._homes, position)
                elif gradient is not None:
                    p.gradient = self._take_in(gradient, self._homes.arrays[i])
                p.grad_home = self._homes.home(i)
        self._checked_at = relocations.count
        self._follow()

    @property
    def dtype(self) -> DType:
        return self.arena.dtype

    def home(self, index: int) -> Home:
        """Where the gradient of one parameter belongs."""
        return self._homes.home(index)

    def _chosen(
        self, rule: Rule, groups: Sequence[Mapping[str, Any]]
    ) -> tuple[Rule, tuple[str, ...], Expression | None]:
        """The rule for the dtype of these parameters, its columns, and what is run if the backend has no own form."""
        dtype = self.dtype
        if self.is_narrow and any(groups[number]["master_weights"] for number in set(self._group_of)):
            rule = with_master_weights(rule, dtype)
        columns = rule.columns(groups[0])
        return rule, columns, None if rule.fused_adam else rule.expression(dtype, dtype, columns)

    def planned(self, rule: Rule, groups: Sequence[Mapping[str, Any]]) -> Callable[[], Callable[[], None]] | None:
        """Take the memory that another rule needs, and return what changes to it; None if nothing has to change.

        What that returns changes back, as long as no step came between, and takes no memory. State that exists already
        is kept, also where the rule does not use it. Does not block.
        """
        chosen, columns, expression = self._chosen(rule, groups)
        if chosen == self._rule and columns == self._rows.columns:
            return None
        state = {name: self.arena.like(self.compute) for name in chosen.state if name not in self.state}
        block = self._rows.with_rule(columns)

        def change() -> Callable[[], None]:
            before = self._rule, self._expression, self.state, self._norm
            columns_before, block_before = self._rows.columns, self._rows.block
            if block is not block_before:
                # Their header is written no more: the norm of a clipping, and its factor, stay as they are.
                self._norm = None
            self._rule, self._expression, self.state = chosen, expression, self.state | state
            self._rows.adopt(chosen, columns, block)
            self._bind()

            def change_back() -> None:
                self._rule, self._expression, self.state, self._norm = before
                self._rows.adopt(self._rule, columns_before, block_before)
                self._bind()

            return change_back

        return change

    def _take_in(self, gradient: Array, home: Array) -> Array:
        self.backend.map(conversion(gradient.dtype, home.dtype), (gradient.view(),), (home.view(),))
        return home

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
        self._homes.recover()
        for i, p in enumerate(self.parameters):
            if p.grad_home is None and not self._plain:
                p.grad_home = self._homes.home(i)  # it came back from another device
        self._follow()
        self._checked_at = relocations.count

    def collect(self) -> bool:
        """Bring gradients given from elsewhere into the arena, note who has none, and say whether anybody has one."""
        gradients = [p.gradient for p in self.parameters]
        homes, active = self._homes.arrays, self._active
        if active is None:
            known = all(map(is_, gradients, homes))
        else:
            known = all(
                map(is_, gradients, [home if there else None for home, there in zip(homes, active, strict=True)])
            )
        if not known:
            present = {i for i, gradient in enumerate(gradients) if gradient is not None}
            given = [i for i in present if gradients[i] is not homes[i]]
            for i in given:
                check_gradient(gradients[i], self.parameters[i])
            places = [self._homes.claim(i) for i in given]
            self._rows.split(present)
            for i, place in zip(given, places, strict=True):
                gradient = gradients[i]
                assert gradient is not None
                self.parameters[i].gradient = self._take_in(gradient, place)
            resting = len(present) < len(gradients)
            self._active = [i in present for i in range(len(gradients))] if resting else None
        return self._rows.any_active

    def leave_resting(self) -> None:
        """See that what is done to all gradients at once reaches none that a parameter has given up and somebody keeps.

        To be called after :meth:`collect`.
        """
        if self._active is not None:
            self._homes.leave(i for i, there in enumerate(self._active) if not there)

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

    def _leave_others(self) -> bool:
        """As :meth:`leave_resting`, at any time. Returns whether there were none to leave."""
        gradients, homes = [p.gradient for p in self.parameters], self._homes.arrays
        if all(map(is_, gradients, homes)):
            return True
        others = [i for i, home in enumerate(homes) if gradients[i] is not home]
        del gradients  # which would count as somebody who sees them
        self._homes.leave(others)
        return False

    def prepare(self, *, measured: bool) -> None:
        """Do what may take memory, before any step of the optimizer is enqueued."""
        if self.arena.gather():
            self._bind()
        if self._norm is not None and not self._folds(measured):
            self._hand_over_norm()

    def _folds(self, measured: bool) -> bool:
        """Whether a clipping that nothing came in between has measured and decided the coming step."""
        return self._decided and self.pending.clip is not None and not measured and not self._rows.renew

    @property
    def is_narrow(self) -> bool:
        """Whether these parameters may have master weights."""
        return self.compute is not self.arena.dtype

    def enqueue(
        self, max_norm: float | None = None, loss_scale: Span | None = None, records: Span | None = None
    ) -> None:
        """Enqueue one step: one launch, or three with clipping or a loss scale. Does not block.

        ``records`` are those of the norm of more gradients than these, if they decide the step together.
        """
        rows = self._rows
        measured = max_norm is not None or loss_scale is not None
        folded = self._decided and self._folds(measured)
        if not folded:
            rows.renew |= self._decided
            self.pending.settle_clip()
        if measured:
            self._measure_step(math.inf if max_norm is None else max_norm, 2.0, loss_scale, records)
        elif not folded and (rows.renew or not self._operands):
            # Without any element there is no launch that would move the counters on.
            self.backend.prepare_step(rows.block)
        self._launch(advance=not (measured or folded or rows.renew))
        rows.block.slot ^= 1
        # After a measured step the header still holds its factor and its decision.
        rows.renew = measured or folded
        self._decided = False
        self._clock.ticks += 1
        for storage in self._clocked:
            storage.version += 1

    def clip(self, max_norm: float, ord: float) -> tuple[Storage, Span] | None:
        """Decide the coming step for gradients clipped to ``max_norm``. Does not block.

        The factor is left for the step to fold. Whoever reads the gradients first finds them clipped. Returns what
        holds their norm, and the header with all that was found; None if there is no gradient.
        """
        with self.lock:
            self.check()
            if not self.collect():
                return None
            self.leave_resting()
            self.prepare(measured=True)
            self.pending.settle_clip()
            self._decided = False
            self.write_table()
            self._measure_step(max_norm, ord)
            header = self._rows.block.header
            self.pending.clip = header
            self._decided, self._rows.renew = True, False
            norm = Storage(self.backend, header.buffer, header.offset + HEADER.index("norm"), 1)
            self._norm = weakref.ref(norm)
            return norm, header

    def clips_as_one(self, owners: Sequence[Array]) -> bool:
        """Whether ``owners`` are all parameters that have a gradient, each in the arena."""
        held = {id(p) for p, home in zip(self.parameters, self._homes.arrays, strict=True) if p.gradient is home}
        return held == set(map(id, owners)) and held == {id(p) for p in self.parameters if p.gradient is not None}

    def _measure_step(
        self, max_norm: float, ord: float, loss_scale: Span | None = None, records: Span | None = None
    ) -> None:
        if records is None:
            records = self._partials(ord)
        self.backend.prepare_step(self._rows.block, records, ord=ord, max_norm=max_norm, loss_scale=loss_scale)

    def record_count(self) -> int:
        """How many values the records of a norm of these gradients have."""
        self.pending.settle_clip()
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
        if workers != 1:
            self._mean = Span(self.backend.alloc(1, self.compute), 0, 1)
            self.backend.upload(np.array([1.0 / workers], STORAGE[self.compute]), self._mean)
        self.pending.settle()
        self._leave_others()
        self.pending.workers = workers

    @property
    def nonfinite(self) -> Span:
        """Nonzero if the last measured step found a gradient that was not finite."""
        return _entry(self._rows.block.header, "nonfinite")

    def measure(self, loss_scale: Span) -> Span:
        """A header with the norm, finiteness and multiplier of the gradients as they are. Does not block."""
        self.pending.settle_clip()
        header = Span(self.backend.alloc(len(HEADER), self.compute), 0, len(HEADER))
        self.backend.fill(header, 0)
        self.backend.prepare_step(StepBlock(header), self._partials(2.0), loss_scale=loss_scale)
        return header

    def unscale(self, header: Span) -> Span:
        """Multiply the gradients by what :meth:`measure` found; nonzero if one was not finite. Does not block."""
        scale_by(self.backend, header, self.gradients)
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
                tuple(run.within(self.state[name]) for name in self._rule.state),
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
        if set_to_none:
            for p in self.parameters:
                p.gradient = None
            pending = self.pending
            if (pending.clip is not None or pending.workers != 1) and not self._homes.anybody_sees():
                pending.drop()
            return
        everywhere = self._leave_others()
        self.pending.drop()
        self.backend.fill(self.gradients, 0)
        if not everywhere:
            for p, home in zip(self.parameters, self._homes.arrays, strict=True):
                if p.gradient is not None:
                    p.gradient = home

    def has_gradients(self) -> bool:
        """Whether any parameter has its gradient in the arena, or anybody else keeps one there."""
        return any(map(is_, [p.gradient for p in self.parameters], self._homes.arrays)) or self._homes.anybody_sees()

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

    def prepared_state(self, entries: Mapping[int, Entry]) -> Callable[[], None]:
        """Take the memory for the state that a checkpoint has for each parameter, and return what takes it up.

        Nothing is changed before that is called. Enqueues; does not block.
        """
        host = {name: np.zeros(self.arena.size, STORAGE[self.compute]) for name in self.state}
        for segment in self.arena.segments:
            for name, values in entries[id(segment.array)].fields.items():
                host[name][segment.offset : segment.offset + segment.size] = values.reshape(-1)
        steps = [entries[id(p)].step for p in self.parameters]
        block = self._rows.block_for(steps)

        def take_up() -> None:
            for name, values in host.items():
                self.backend.upload(values, self.state[name])
            self.pending.settle_clip()
            self._decided = False
            self._norm = None  # the header that holds it is written no more
            self._rows.restore(steps, block)
            self._active, self._lent = None, set(range(len(self.parameters)))

        return take_up

    def write_state(self, entries: Mapping[int, Entry]) -> None:
        """Take up the state that a checkpoint has for each parameter. Enqueues; does not block."""
        self.prepared_state(entries)()


def check_parameters(parameters: Sequence[Array]) -> None:
    """Refuse what no partition can hold, before anything is moved."""
    check_disjoint(parameters)
    for p in parameters:
        if p.gradient is not None:
            check_gradient(p.gradient, p)


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
