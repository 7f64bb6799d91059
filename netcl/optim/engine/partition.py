"""Partition: the parameters of one device and dtype, with all that one launch needs to update them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from netcl.arena import Run, check_disjoint
from netcl.array import Array, Storage, check_gradient
from netcl.backends.base import CHUNK, Span, UpdateSource
from netcl.dtypes import DType
from netcl.expression import Expression
from netcl.host_dtypes import STORAGE
from netcl.optim.engine import shaped_state
from netcl.optim.engine.checkpoint import Entry
from netcl.optim.engine.gradient_norm import GradientNorm, HandedOutNorm, new_header
from netcl.optim.engine.group import ParameterGroup
from netcl.optim.engine.narrow_storage import stored_narrowly
from netcl.optim.engine.parameter_arena import ParameterArena
from netcl.optim.engine.state_fields import Field, StateFields
from netcl.optim.engine.step_state import Prepared, StepState
from netcl.optim.engine.step_table import StepTable
from netcl.optim.engine.tensor_passes import TensorPasses
from netcl.optim.rule import Rule


@dataclass(frozen=True, slots=True)
class _Operands:
    """What one launch of the update gets: the same elements of every arena, and the rows of their chunks."""

    parameters: Span
    gradients: Span
    state: tuple[Field, ...]
    rows: Span
    offset: int


class Partition:
    """Parameter arena, state fields and step state of the parameters of one backend and dtype, and their launches.

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
    arena : ParameterArena
    fields : StateFields
    step : StepState
    norm : GradientNorm
        Of these gradients.
    is_narrow : bool
        Whether these parameters may have master weights.
    state_dtype : str or None
        That of their groups.
    """

    fields: StateFields
    step: StepState
    norm: GradientNorm

    def __init__(
        self,
        parameters: Sequence[Array],
        group_of: Sequence[int],
        groups: Sequence[ParameterGroup],
        rule: Rule,
        lock: AbstractContextManager[Any],
        earlier: Partition | None = None,
    ) -> None:
        self.lock = lock
        self.arena = ParameterArena(parameters, weakref.ref(self))
        self.backend, self.dtype, self.parameters = self.arena.backend, self.arena.dtype, self.arena.parameters
        self.compute: DType = self.dtype.compute
        self.is_narrow = self.compute is not self.dtype
        self.pending = self.arena.pending
        number = {id(p): group for p, group in zip(parameters, group_of, strict=True)}
        self._group_of = [number[id(p)] for p in self.parameters]
        self.state_dtype: str | None = groups[self._group_of[0]].get("state_dtype")
        self._rule, columns, self._expression = self._choose(rule, groups)
        segments = self.arena.layout.segments
        starts = ({} if earlier is None else earlier.fields.starts) | self._rule.started()
        kept_as = dict(() if earlier is None else earlier.fields.kept_as.items()) | dict(self._rule.kept_as)
        self.fields = StateFields(self.arena.layout, self.compute, starts, kept_as)
        chunks = [segment.chunks for segment in segments]
        table = StepTable(self.backend, self.compute, self._rule, columns, groups, self._group_of, chunks)
        if earlier is not None:
            position = {id(p): i for i, p in enumerate(self.parameters)}
            positions = {i: position[id(p)] for i, p in enumerate(earlier.parameters)}
            table.take_over(earlier.step.table, positions)
            self.fields.take_over(earlier.fields)
        self._groups = groups
        self._passes = _passes_of(self, self._rule, columns)
        if earlier is not None:
            shaped_state.take_over(self.backend, earlier.stored, self.stored, positions)
        self.step = StepState(table)
        self._earlier = earlier
        self._given: set[int] = set(range(len(self.parameters)))
        self._handed_out = HandedOutNorm()
        self._bind()

    def adopt(self) -> None:
        """Move the parameters and their gradients in. Until then nothing outside has changed; takes no memory."""
        earlier, self._earlier = self._earlier, None
        self.arena.adopt(None if earlier is None else earlier.arena)

    def _choose(
        self, rule: Rule, groups: Sequence[Mapping[str, Any]]
    ) -> tuple[Rule, tuple[str, ...], Expression | None]:
        """The rule for the dtype of these parameters, its columns, and what is run if the backend has no own form."""
        dtype = self.dtype
        rule = stored_narrowly(rule, dtype, [groups[number] for number in sorted(set(self._group_of))])
        columns = rule.columns(groups[0])
        return rule, columns, None if rule.fused_adam else rule.expression(dtype, dtype, columns)

    def plan(self, rule: Rule, groups: Sequence[Mapping[str, Any]]) -> Callable[[], Callable[[], None]] | None:
        """Take the memory that another rule needs, and return what changes to it; None if nothing has to change.

        What that returns changes back, as long as no step came between, and takes no memory. State that exists already
        is kept, also where the rule does not use it. Does not block.
        """
        chosen, columns, expression = self._choose(rule, groups)
        table = self.step.table
        if chosen == self._rule and columns == table.columns:
            return None
        fields = self.fields.extended(chosen.started(), dict(chosen.kept_as))
        block = table.with_rule(columns)
        passes = _passes_of(self, chosen, columns)
        if passes is not None:
            unmoved = {i: i for i in range(len(self.parameters))}
            shaped_state.take_over(self.backend, self.stored, passes.stored, unmoved)

        def change() -> Callable[[], None]:
            before = self._rule, self._expression, self.fields, self._passes
            columns_before, block_before = table.columns, table.block
            self._rule, self._expression, self.fields, self._passes = chosen, expression, fields, passes
            self.step.adopt_rule(chosen, columns, block)
            self._bind()

            def change_back() -> None:
                self._rule, self._expression, self.fields, self._passes = before
                self.step.adopt_rule(self._rule, columns_before, block_before)
                self._bind()

            return change_back

        return change

    def gather_gradients(self) -> bool:
        """Bring gradients given from elsewhere into the arena, note which are missing, and say whether there is any."""
        self.arena.gather_gradients(self.step.table.split)
        return self.step.table.any_active

    def use_gradients(self, gradients: Mapping[int, Array]) -> bool:
        """Take these gradients, which are given to a step, by the parameter's id; say whether there are any."""
        self.arena.layout.gather()
        active = {i for i, p in enumerate(self.parameters) if id(p) in gradients}
        if active != self._given:
            self.step.table.split(active)
            self._given = active
        self._bind(gradients)
        return bool(active)

    def prepare(self, *, measured: bool) -> None:
        """Do what may take memory, before any step of the optimizer is enqueued, and send the hyper-parameters.

        ``measured`` says that the norm is taken, so that the header is written again.
        """
        if self.arena.layout.gather():
            self._bind()
        if measured:
            self._handed_out.move_out(self.step.block.header)
        if self._passes is not None:
            self._passes.prepare()
        self.step.write_table(self.pending.workers)

    def enqueue(
        self, max_norm: float | None = None, loss_scale: Span | None = None, records: Span | None = None
    ) -> None:
        """Enqueue one step: one launch, or those of a rule with per-tensor values
        (:class:`~netcl.optim.rule.PerTensor`), and two before with clipping or a loss scale. Does not block.

        ``records`` are those of the norm of more gradients than these, if they decide the step together.
        """
        step = self.step
        measured = max_norm is not None or loss_scale is not None
        if measured or step.prepared is not Prepared.CLIPPED:
            self.pending.apply_clip()
        prepared = step.prepared
        if measured:
            most = math.inf if max_norm is None else max_norm
            records = self.measure_norm(2.0) if records is None else records
            self.backend.prepare_step(step.block, records, ord=2.0, max_norm=most, loss_scale=loss_scale)
        elif prepared is Prepared.NOTHING or (prepared is Prepared.COUNTERS and not self._operands):
            # Without any element there is no launch that would move the counters on.
            self.backend.prepare_step(step.block)
        self._launch(advance=prepared is Prepared.COUNTERS and not measured)
        step.stepped(neutral=not measured and prepared is not Prepared.CLIPPED)
        self.arena.count_step()

    def clip(self, max_norm: float, ord: float) -> tuple[Storage, Span] | None:
        """Decide the coming step for gradients clipped to ``max_norm``. Does not block.

        The factor is left for the step to fold. A read of the gradients before that applies it. Returns what
        holds their norm, and the header with all that was found; None if there is no gradient.
        """
        with self.lock:
            self.arena.check()
            if not self.gather_gradients():
                return None
            self.arena.detach_inactive()
            self.prepare(measured=True)
            self.pending.apply_clip()
            self.backend.prepare_step(self.step.block, self.measure_norm(ord), ord=ord, max_norm=max_norm)
            header = self.step.block.header
            self.pending.clip = header
            self.step.clipped()
            return self._handed_out.hand_out(self.backend, header), header

    def has_gradients(self) -> bool:
        """Whether any parameter has its gradient in the arena, or one is kept there."""
        return self.arena.has_gradients()

    def clip_is_over(self) -> None:
        """Note that the factor of a clipping is no longer pending."""
        self.step.clip_is_over()

    def measure_norm(self, ord: float, records: Span | None = None) -> Span:
        """The records of a norm of all gradients, in ``records`` if given. Does not block."""
        return self.norm.measure(ord, self.step.block, multiplier=self.pending.mean, records=records)

    def average(self, workers: int) -> None:
        """Say that the gradients are sums over so many workers, and must be read as their mean. Does not block.

        The division is folded into the coming step, its norm included. A read before that applies it.
        """
        mean = None
        if workers != 1:
            mean = Span(self.backend.alloc(1, self.compute), 0, 1)
            self.backend.upload(np.array([1.0 / workers], STORAGE[self.compute]), mean)
        self.pending.apply()
        self.arena.detach_others()
        self.pending.divide_by(workers, mean)

    def measure(self, loss_scale: Span) -> Span:
        """A header with the norm, finiteness and multiplier of the gradients as they are. Does not block."""
        self.pending.apply_clip()
        block = new_header(self.backend, self.compute)
        self.backend.prepare_step(block, self.measure_norm(2.0), loss_scale=loss_scale)
        return block.header

    def _bind(self, given: Mapping[int, Array] | None = None) -> None:
        """Note what the launches get, for as long as the parameters stay where they are."""
        rows, runs = self.step.table.chunk_to_row, self.arena.layout.runs
        if self.arena.given:
            found = [(segment, (given or {}).get(id(segment.array))) for segment in self.arena.layout.segments]
            taken = [(segment, gradient) for segment, gradient in found if gradient is not None and segment.size]
            runs = [Run(segment.array.span(), segment.offset) for segment, _ in taken]
            gradients = [gradient.span() for _, gradient in taken]
        else:
            gradients = [run.within(self.arena.gradients) for run in runs]
        fields = [self.fields.spans[name] for name in self._rule.state]
        if self._passes is not None:
            fields.append(self._passes.direction)
        self._operands = [
            _Operands(
                run.parameters,
                gradient,
                tuple(run.within(field) for field in fields),
                rows.part(run.offset // CHUNK, -(-run.parameters.size // CHUNK)),
                run.offset,
            )
            for run, gradient in zip(runs, gradients, strict=True)
        ]
        self.norm = GradientNorm(
            self.backend,
            self.compute,
            [each.gradients for each in self._operands],
            [each.rows for each in self._operands],
            self.norm.records if hasattr(self, "norm") else None,
        )

    def _launch(self, *, advance: bool) -> None:
        backend, rule, block = self.backend, self._expression, self.step.block
        if self._passes is not None:
            self._passes.enqueue(backend, self.step.table, self._operands, advance=advance)
            return
        for run in self._operands:
            p, g, state, rows = run.parameters, run.gradients, run.state, run.rows
            if rule is None:
                m, v, *largest = cast("tuple[Span, ...]", state)
                backend.fused_adam(p, g, m, v, largest[0] if largest else None, block, rows, advance=advance)
            else:
                backend.fused_update(rule, p, g, state, block, rows, advance=advance)
            # One launch of a step moves the counters on.
            advance = False

    def source(self) -> str:
        """The program of the update, of a backend that tells it; else the rule as it was traced."""
        if self._operands and isinstance(self.backend, UpdateSource):
            run = self._operands[0]
            fields = (run.parameters, run.gradients, *run.state)
            rule = self._expression if self._passes is None else self._passes.rule
            return self.backend.update_source(rule, fields, self.step.block)
        return self._rule.text(self.dtype, self.step.block.columns)

    def read_state(self) -> dict[int, tuple[int, dict[str, np.ndarray[Any, Any]]]]:
        """Step count and state fields of each parameter, by its id. **Blocks**."""
        steps, fields = self.step.table.steps(), self.fields.read()
        shaped = shaped_state.read(self.backend, self.stored)
        for i, p in enumerate(self.parameters):
            if i not in shaped:  # without elements it has none on the device
                own = [item for item in self._rule.shapes(p.shape).items() if item[0] not in self.fields.spans]
                shaped[i] = {name: np.zeros(shape, STORAGE[self.compute]) for name, shape in own}
        return {id(p): (steps[i], fields[id(p)] | shaped[i]) for i, p in enumerate(self.parameters)}

    @property
    def stored(self) -> Sequence[shaped_state.Stored]:
        """The state whose fields have shapes of their own."""
        return () if self._passes is None else self._passes.stored

    def prepared_state(self, entries: Mapping[int, Entry]) -> Callable[[], None]:
        """Take the memory for the state that a checkpoint has for each parameter, and return what takes it up.

        Nothing is changed before that is called. Enqueues; does not block.
        """
        take_up_fields = self.fields.prepared(entries)
        shaped = [entries[id(p)].fields for p in self.parameters]
        take_up_shaped = shaped_state.prepared(self.backend, self.stored, shaped)
        steps = [entries[id(p)].step for p in self.parameters]
        block = self.step.table.block_for(steps)

        def take_up() -> None:
            take_up_fields()
            take_up_shaped()
            self.pending.apply_clip()
            self.step.restore(steps, block)
            self.arena.all_active()
            self._given = set(range(len(self.parameters)))

        return take_up


def _passes_of(partition: Partition, rule: Rule, columns: tuple[str, ...]) -> TensorPasses | None:
    """What comes after the first pass of a rule with per-tensor values."""
    if rule.per_tensor is None:
        return None
    return TensorPasses.of(partition.arena.layout, rule, columns, partition._group_of, partition._groups)


def check_parameters(parameters: Sequence[Array]) -> None:
    """Refuse what no partition can hold, before anything is moved."""
    check_disjoint(parameters)
    for p in parameters:
        if p.gradient is not None:
            check_gradient(p.gradient, p)


def measurable_together(partitions: Sequence[Partition]) -> bool:
    """Whether one norm of all the gradients can be taken on the device."""
    first = partitions[0]
    return all(other.backend is first.backend and other.compute is first.compute for other in partitions[1:])
