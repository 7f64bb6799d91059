"""StepEngine: the partitions of an optimizer, and its step over all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from netcl.array import Array
from netcl.backends.base import Span, header_entry
from netcl.dtypes import float32
from netcl.errors import DeviceMismatchError, HyperParameterError, NetclError
from netcl.expression import conversion, maximum, trace
from netcl.optim import validation
from netcl.optim.engine import checkpoint
from netcl.optim.engine.checkpoint import Entry
from netcl.optim.engine.gradient_release import GradientRelease
from netcl.optim.engine.group import ParameterGroup, refuse_duplicates
from netcl.optim.engine.host_parameters import HostParameters
from netcl.optim.engine.partition import Partition, check_parameters, measurable_together
from netcl.optim.engine.pending import scale_by
from netcl.optim.rule import Rule, RuleChoice


class StepEngine:
    """What an optimizer does on the devices of its parameters. Making one moves them into arenas.

    Parameters
    ----------
    kind : str
        The name of the optimizer's class, for messages.
    groups : list of ParameterGroup
        The list that the user sees as ``param_groups``.
    choose_rule : RuleChoice
    host : HostParameters or None
        The parameters, if they are arrays of other libraries.

    Attributes
    ----------
    partitions : list of Partition
        The parameters by device and dtype.
    lock : context manager
        Held while anything is changed.
    """

    def __init__(
        self, kind: str, groups: list[ParameterGroup], choose_rule: RuleChoice, host: HostParameters | None
    ) -> None:
        self._kind = kind
        self.groups = groups
        self._choose_rule = choose_rule
        self._host = host
        self._records: Span | None = None
        self.lock = threading.RLock()
        self._rule = choose_rule(groups)
        self.release: GradientRelease | None = None
        self.partitions: list[Partition] = []
        self.partitions = self._partitioned(groups, self._rule)
        for partition in self.partitions:
            partition.adopt()
        self._versions = [group.version for group in groups]

    def _partitioned(self, groups: Sequence[ParameterGroup], rule: Rule) -> list[Partition]:
        """One partition for each device, dtype and storage of state: those there are, and new ones, to be adopted.

        A new one, for more parameters, takes over the state of the one before.
        """
        found: dict[tuple[int, str, str | None], tuple[list[Array], list[int]]] = {}
        for number, group in enumerate(groups):
            for p in group["params"]:
                key = (id(p.backend), p.dtype.name, group.get("state_dtype"))
                parameters, numbers = found.setdefault(key, ([], []))
                parameters.append(p)
                numbers.append(number)
        for parameters, _ in found.values():
            check_parameters(parameters)
        known = {
            (id(partition.backend), partition.dtype.name, partition.state_dtype): partition
            for partition in self.partitions
        }
        partitions = []
        for key, (parameters, numbers) in found.items():
            partition = known.get(key)
            if partition is None or len(partition.parameters) < len(parameters):
                partition = Partition(parameters, numbers, groups, rule, self.lock, partition)
            partitions.append(partition)
        return partitions

    def adapt(self, groups: Sequence[Mapping[str, Any]] | None = None) -> Callable[[], None]:
        """Choose the rule again, and add the state that it needs and does not have yet. Does not block.

        State starts as it does when the optimizer is built; what there is already, step counts and what is pending stay
        as they are. All memory is taken before anything is changed.

        Parameters
        ----------
        groups : sequence of mapping, optional
            The parameter groups with the hyper-parameters to choose by; by default those of the optimizer.

        Returns
        -------
        callable
            Takes the change back, as long as no step came between. Takes no memory.
        """
        groups = self.groups if groups is None else groups
        rule = self._choose_rule(groups)
        # A learning rate that changes at every step is the usual case, and asks for nothing.
        changed = [partition for partition in self.partitions if rule is not self._rule or partition.is_narrow]
        changes = [partition.plan(rule, groups) for partition in changed]
        made = [change() for change in changes if change is not None]
        earlier, self._rule = self._rule, rule
        self._versions = [group.version for group in self.groups]

        def take_back() -> None:
            for change_back in made:
                change_back()
            self._rule = earlier

        return take_back

    def extend(self, added: ParameterGroup) -> None:
        """Take the parameters of another group in, or change nothing if that fails. Does not block."""
        groups = [*self.groups, added]
        refuse_duplicates(groups)
        rule = self._choose_rule(groups)
        for partition in self.partitions:
            partition.arena.check()
        # All memory is taken before anything is changed.
        partitions = self._partitioned(groups, rule)
        new = [partition for partition in partitions if partition not in self.partitions]
        changes = [partition.plan(rule, groups) for partition in partitions if partition not in new]
        for partition in new:
            partition.adopt()
        for change in changes:
            if change is not None:
                change()
        self._rule, self.partitions = rule, partitions
        self.groups[:] = groups
        self._versions = [group.version for group in groups]

    def step(self, max_norm: float | None, given: Mapping[int, Array] | None = None) -> None:
        """Enqueue a step; ``given`` has the gradients of host parameters, by the parameter's id. Does not block."""
        with self.lock:
            self._enqueue(self._ready(max_norm, given), max_norm)

    def release_gradients(self, max_norm: float | None) -> None:
        """As :meth:`~netcl.optim.Optimizer.release_gradients`."""
        self.release = GradientRelease(self, max_norm)

    def step_one(
        self, partition: Partition, p: Array, gradient: Array, max_norm: float | None, records: Span | None
    ) -> None:
        """Enqueue the step of one parameter with this gradient; ``records`` are those of the norm to clip by."""
        with self.lock:
            self._refuse_averages()
            partition.arena.check()
            if self._versions != [group.version for group in self.groups]:
                self.adapt()
            partition.use_gradients({id(p): gradient})
            partition.prepare(measured=max_norm is not None)
            partition.enqueue(max_norm, None, records)

    def scaled_step(self, loss_scale: Span, max_norm: float | None) -> list[Span]:
        """As :meth:`~netcl.optim.Optimizer.scaled_step`."""
        with self.lock:
            live = self._ready(max_norm, measured=True)
            if not measurable_together(live):
                loss_scale = self._decided_together(live, loss_scale)
            self._enqueue(live, max_norm, loss_scale)
            return [header_entry(partition.step.block.header, "nonfinite") for partition in live]

    def unscale_gradients(self, loss_scale: Span) -> list[Span]:
        """As :meth:`~netcl.optim.Optimizer.unscale_gradients`."""
        with self.lock:
            live = self._ready(None)
            for partition in live:
                partition.arena.detach_inactive()
            headers = [partition.measure(loss_scale) for partition in live]
            for partition, header in zip(live, headers, strict=True):
                scale_by(partition.backend, header, partition.arena.gradients)
            return [header_entry(header, "nonfinite") for header in headers]

    def _enqueue(self, live: Sequence[Partition], max_norm: float | None, loss_scale: Span | None = None) -> None:
        """Enqueue the step of each dtype; one norm and one decision for all of them."""
        records = None
        if len(live) > 1 and (max_norm is not None or loss_scale is not None) and measurable_together(live):
            for partition in live:
                partition.pending.apply_clip()
            counts = [partition.norm.records.size for partition in live]
            records = self._records
            if records is None or records.size != sum(counts) or records.dtype is not live[0].compute:
                buffer = live[0].backend.alloc(sum(counts), live[0].compute)
                records = self._records = Span(buffer, 0, sum(counts))
            for partition, count, end in zip(live, counts, accumulate(counts), strict=True):
                partition.measure_norm(2.0, records.part(end - count, count))
        for partition in live:
            partition.enqueue(max_norm, loss_scale, records)

    @staticmethod
    def _decided_together(live: Sequence[Partition], loss_scale: Span) -> Span:
        """The loss scale with what any dtype's gradients say of skipping, so that all of them take the same step."""
        backend = live[0].backend
        if any(partition.backend is not backend for partition in live):
            raise DeviceMismatchError(
                f"a scaler steps parameters of one device, and these are on {backend.device} and "
                f"{live[1].backend.device}; give each device an optimizer and a scaler of its own"
            )
        pair = Span(backend.alloc(2, float32), 0, 2)
        backend.map(conversion(float32, float32), (loss_scale.view(),), (pair.view(),))
        found = pair.element(1).view()
        for partition in live:
            header = partition.measure(loss_scale)
            flag = header_entry(header, "nonfinite").view()
            backend.map(trace(maximum, (float32, header.dtype), stored=(float32,)), (found, flag), (found,))
        return pair

    def _ready(
        self, max_norm: float | None, given: Mapping[int, Array] | None = None, *, measured: bool = False
    ) -> list[Partition]:
        """The partitions with gradients, checked, with all memory that a step takes and their hyper-parameters there.

        ``measured`` says that the norm is taken, as it is with ``max_norm``.
        """
        if self._host is not None and given is None:
            raise NetclError(
                "this optimizer was built from host arrays, which have no gradients of their own; pass them as "
                "step(grads=[...])"
            )
        self._refuse_averages()
        if max_norm is not None:
            max_norm = validation.bound("max_norm", max_norm)
            if not measurable_together(self.partitions):
                held = ", ".join(f"{partition.dtype} on {partition.backend.device}" for partition in self.partitions)
                raise HyperParameterError(
                    f"step(max_norm={max_norm}) takes one norm, in one precision on one device, and these parameters "
                    f"are {held}; call clip_grad_norm(...) before step()"
                )
        for partition in self.partitions:
            partition.arena.check()
        if self._versions != [group.version for group in self.groups]:
            self.adapt()
        if given is None:
            live = [partition for partition in self.partitions if partition.gather_gradients()]
        else:
            live = [partition for partition in self.partitions if partition.use_gradients(given)]
        if not live:
            raise NetclError(
                f"{self._kind}.step() found no gradient on any of its parameters; "
                "call tape.backward(loss) first, and make sure that the loss depends on them"
            )
        for partition in live:
            partition.prepare(measured=measured or max_norm is not None)
        return live

    def _refuse_averages(self) -> None:
        if False in [group.get("train_mode", True) for group in self.groups]:
            raise NetclError(
                f"the parameters of this {self._kind} are averages for evaluation since eval(); call train() on the "
                "optimizer before the next step"
            )

    def read_state(self) -> dict[int, tuple[int, dict[str, Any]]]:
        """Step and fields of each parameter, by its id. **Blocks**."""
        entries: dict[int, Any] = {}
        with self.lock:
            self.adapt()
            for partition in self.partitions:
                entries |= partition.read_state()
        return entries

    def restore(self, values: Sequence[Mapping[str, Any]], entries: Mapping[int, Entry]) -> None:
        """Hold these hyper-parameters and this state, all of them or none."""
        before = [dict(group) for group in self.groups]
        take_back: Callable[[], None] | None = None

        def hold(values: Iterable[Mapping[str, Any]]) -> None:
            for group, held in zip(self.groups, values, strict=True):
                group.replace(held)

        try:
            take_back = self.adapt(checkpoint.with_state(values, entries, self._choose_rule))
            hold(values)
            fields: dict[int, tuple[str, ...]] = {}
            for partition in self.partitions:
                fields |= dict.fromkeys(
                    map(id, partition.parameters), (*partition.fields.spans, *(each.name for each in partition.stored))
                )
            # Groups without master weights have no room for those of a checkpoint, which are zeros.
            kept = {
                key: Entry(entry.step, {name: x for name, x in entry.fields.items() if name in fields[key]})
                for key, entry in entries.items()
            }
            take_up = [partition.prepared_state(kept) for partition in self.partitions]
        except BaseException:
            hold(before)
            if take_back is not None:
                take_back()
            raise
        for each in take_up:
            each()
