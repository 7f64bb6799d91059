"""Optimizer: parameter groups, checks and the step, for every rule alike."""

from __future__ import annotations

import copy
import copyreg
import pickle
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Self, TypeAlias, TypeVar

from netcl import validation
from netcl.array import Array
from netcl.backends import Selection, get_backend
from netcl.backends.base import HEADER, Span, View
from netcl.dtypes import float32
from netcl.errors import DeviceMismatchError, DTypeError, HyperParameterError, NetclError, TapeError
from netcl.expression import conversion, maximum, trace
from netcl.optim import validation as checks
from netcl.optim.engine import checkpoint
from netcl.optim.engine.checkpoint import Entry
from netcl.optim.engine.group import NOTES, ParameterGroup, as_groups, assign, refuse_duplicates
from netcl.optim.engine.host_parameters import PlainArrays
from netcl.optim.engine.partition import Partition, check_parameters
from netcl.optim.rule import Rule, RuleChoice, check_author
from netcl.validation import shown

Parameters: TypeAlias = "Iterable[Array] | Iterable[tuple[str, Any]] | Iterable[Mapping[str, Any]] | Iterable[Any]"
Check: TypeAlias = Callable[[str, Any], Any]
T = TypeVar("T")


class Optimizer(ABC):
    """What all optimizers share. A subclass gives its defaults, its rule and the checks of its hyper-parameters.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        A dict is a parameter group: ``"params"`` and hyper-parameters that differ from the defaults. Instead of
        Tensors, writable contiguous arrays of any library whose memory the host can reach: they are updated in place
        by ``step(grads=[...])``.
    defaults : mapping
        Every hyper-parameter with its value.
    rule : Rule or callable
        The update, or ``rule(groups) -> Rule``: which update runs, given all parameter groups. It is asked again when a
        hyper-parameter was assigned or a group added, and what state its answer needs beyond what there is starts at
        zero.
    check : mapping of str to callable, optional
        ``check[name](name, value)`` returns the value to keep or raises HyperParameterError.
    check_group : callable, optional
        Refuses combinations that do not go together.
    backend : str, Device or Backend, optional
        Where to compute, for parameters that are plain arrays; by default the default backend.

    Attributes
    ----------
    param_groups : list of dict
        Assigning a hyper-parameter takes effect at the next step, also one that needs state which was not there so far.
        A group refuses names that it does not have, but for ``name``, which is yours, and ``initial_lr``, which
        schedules start from.

    Notes
    -----
    Threads may share an optimizer: one call after the other changes it.

    ``copy.deepcopy((model, optimizer))`` and pickles go on bit for bit. A rule of one's own can be pickled if its
    functions stand at the top of a module. Hooks of others, such as a distributed model's, are not copied.
    """

    _fixed: tuple[str, ...] = ()
    """The hyper-parameters of a group that are chosen when it is made."""

    @abstractmethod
    def __init__(
        self,
        params: Parameters,
        defaults: Mapping[str, Any],
        rule: Rule | Callable[[Sequence[Mapping[str, Any]]], Rule],
        check: Mapping[str, Check] | None = None,
        check_group: Callable[[Mapping[str, Any]], None] | None = None,
        backend: Selection = None,
    ) -> None:
        check_author(defaults, rule, check, check_group)
        self._check: dict[str, Check] = {
            "lr": checks.not_negative,
            "maximize": checks.flag,
            "master_weights": checks.flag,
            **NOTES,
            **(check or {}),
        }
        self._check_group = check_group
        self._has_unchecked = not set(defaults) <= set(self._check)
        self._choose_rule = RuleChoice(rule)
        self.defaults = self._each_checked(
            {**defaults, "master_weights": defaults.get("master_weights", True)}, ("master_weights", *defaults)
        )
        self._selection = backend
        self._plain: PlainArrays | None = None
        self._has_tensors = False
        groups = [self._new_group(group, f"parameter group {i}") for i, group in enumerate(as_groups(params))]
        refuse_duplicates(groups)
        self._build(groups)

    def _build(self, groups: list[ParameterGroup]) -> None:
        """Make what these groups need on the devices of their parameters."""
        self._records: Span | None = None
        self._lock = threading.RLock()
        self.param_groups = groups
        self._rule = self._choose_rule(groups)
        self._partitions: list[Partition] = []
        self._partitions = self._partitioned(groups, self._rule)
        for partition in self._partitions:
            partition.adopt()
        self._versions = [group.version for group in groups]

    def _new_group(self, group: Mapping[str, Any], where: str) -> ParameterGroup:
        unknown = set(group) - set(self.defaults) - set(NOTES) - {"params", "names"}
        if unknown:
            raise HyperParameterError(
                f"{where} has unknown hyper-parameter(s) {', '.join(sorted(map(str, unknown)))}; "
                f"{type(self).__name__} has {', '.join(self.defaults)}"
            )
        names, params = self._named(group["params"], where)
        return ParameterGroup({**self.defaults, **group, "params": params, "names": names}, self._checked, self._fixed)

    def _named(self, params: Any, where: str) -> tuple[list[str | None], list[Array]]:
        """Names and tensors of one group; a tensor given under two names is tied and kept once."""
        single = isinstance(params, Array) or hasattr(params, "__dlpack__")
        given = [params] if single else checks.listed(f'"params" of {where}', params)
        if not given:
            raise HyperParameterError(f"{where} has an empty parameter list; leave the group out or give it tensors")
        names: list[str | None] = []
        tensors: list[Array] = []
        for position, item in enumerate(given):
            name, tensor = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
            if name is not None and not isinstance(name, str):
                raise HyperParameterError(
                    f"{where}, parameter {position} is a pair whose first item must be a name, got {shown(name)}; give "
                    "tensors, or (name, tensor) pairs"
                )
            label = name or f"{where}, parameter {position}"
            tensor = self._as_parameter(tensor, label)
            if not tensor.dtype.is_floating:
                raise DTypeError(f"{label} has dtype {tensor.dtype}; only floating-point parameters can be optimized")
            if tensor.node is not None:
                raise TapeError(f"{label} was computed on a tape; optimize the leaves it was computed from")
            if name is not None and any(tensor is known for known in tensors):
                continue
            if name is not None and name in names:
                raise HyperParameterError(
                    f"{where} has two parameters of the name {name!r}; checkpoints tell parameters apart by name"
                )
            names.append(name)
            tensors.append(tensor)
        return names, tensors

    def _as_parameter(self, x: Any, label: str) -> Array:
        """A Tensor itself; what stands for a plain array."""
        if isinstance(x, Array):
            if self._plain is not None:
                raise DTypeError(f"{label} is a Tensor among plain arrays; give an optimizer one kind")
            if self._selection is not None:
                raise HyperParameterError(
                    f"backend={self._selection!r} is for plain arrays, and {label} is a Tensor on {x.device}, where it "
                    "is updated; move the model with to() before building the optimizer"
                )
            self._has_tensors = True
            return x
        if self._plain is None:
            if self._has_tensors:
                raise DTypeError(f"{label} is a {type(x).__name__} among Tensors; give an optimizer one kind")
            self._plain = PlainArrays(get_backend(self._selection))
        return self._plain.take(x, label)

    def _each_checked(self, values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        for name in names:
            if name in self._check:
                try:
                    values[name] = self._check[name](name, values[name])
                except NetclError:
                    raise
                except (TypeError, ValueError) as error:  # an author's check for numbers got something else
                    raise HyperParameterError(
                        f"{name}={shown(values[name])} does not pass its check: {error}"
                    ) from error
        return values

    def _checked(self, values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """The values of a group, with those of ``names`` checked: the others were when they were set."""
        checked = self._each_checked(values, names)
        if self._check_group is not None:
            self._check_group(checked)
        if self._has_unchecked:
            checks.columns(self._choose_rule([checked]).hyper, checked)
        return checked

    def _partitioned(self, groups: Sequence[ParameterGroup], rule: Rule) -> list[Partition]:
        """One partition for each device and dtype: those there are, and new ones, to be adopted, for more parameters.

        A new one takes over the state of the one before.
        """
        found: dict[tuple[int, str], tuple[list[Array], list[int]]] = {}
        for number, group in enumerate(groups):
            for p in group["params"]:
                parameters, numbers = found.setdefault((id(p.backend), p.dtype.name), ([], []))
                parameters.append(p)
                numbers.append(number)
        for parameters, _ in found.values():
            check_parameters(parameters)
        known = {(id(partition.backend), partition.dtype.name): partition for partition in self._partitions}
        partitions = []
        for key, (parameters, numbers) in found.items():
            partition = known.get(key)
            if partition is None or len(partition.parameters) < len(parameters):
                partition = Partition(parameters, numbers, groups, rule, self._lock, partition)
            partitions.append(partition)
        return partitions

    def _adapt(self, groups: Sequence[Mapping[str, Any]] | None = None) -> Callable[[], None]:
        """Choose the rule anew, and add the state that it needs and that is not there yet. Does not block.

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
        groups = self.param_groups if groups is None else groups
        rule = self._choose_rule(groups)
        # A learning rate that changes at every step is the usual case, and asks for nothing.
        changed = [partition for partition in self._partitions if rule is not self._rule or partition.is_narrow]
        changes = [partition.planned(rule, groups) for partition in changed]
        made = [change() for change in changes if change is not None]
        earlier, self._rule = self._rule, rule
        self._versions = [group.version for group in self.param_groups]

        def take_back() -> None:
            for change_back in made:
                change_back()
            self._rule = earlier

        return take_back

    @property
    def partitions(self) -> Sequence[Partition]:
        """The parameters by device and dtype, each with the arenas that its launch works on."""
        return tuple(self._partitions)

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group; setting it sets every group's."""
        rate: float = self.param_groups[0]["lr"]
        return rate

    @lr.setter
    def lr(self, value: float) -> None:
        assign(self.param_groups, [{"lr": value}] * len(self.param_groups))

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimize further parameters, with hyper-parameters of their own. Does not block.

        They join the launches there are: parameters, gradients and state move to larger memory on the device. If the
        group is the first to need some state, such as momentum, the others get it too, and do not use it.

        Parameters
        ----------
        group : dict
            ``"params"`` and the hyper-parameters that differ from the defaults.

        Raises
        ------
        HyperParameterError
            If a hyper-parameter is out of range, or a parameter is optimized already.
        """
        if not isinstance(group, Mapping) or "params" not in group:
            raise HyperParameterError('a parameter group is a dict with "params" and hyper-parameters')
        with self._lock:
            taken = 0 if self._plain is None else len(self._plain)
            try:
                added = self._new_group(group, f"parameter group {len(self.param_groups)}")
                groups = [*self.param_groups, added]
                refuse_duplicates(groups)
                rule = self._choose_rule(groups)
                for partition in self._partitions:
                    partition.check()
                # All memory is taken before anything is changed.
                partitions = self._partitioned(groups, rule)
                new = [partition for partition in partitions if partition not in self._partitions]
                changes = [partition.planned(rule, groups) for partition in partitions if partition not in new]
            except BaseException:
                if self._plain is not None:
                    self._plain.keep(taken)
                raise
            for partition in new:
                partition.adopt()
            for change in changes:
                if change is not None:
                    change()
            self._rule, self._partitions = rule, partitions
            self.param_groups[:] = groups
            self._versions = [group.version for group in groups]

    def step(
        self,
        closure: Callable[[], T] | None = None,
        *,
        max_norm: float | None = None,
        grads: Iterable[Any] | None = None,
    ) -> T | None:
        """Update every parameter that has a gradient. Enqueues work and does not block, but for plain arrays.

        Parameters
        ----------
        closure : callable, optional
            Called first; its result is returned.
        max_norm : float, optional
            Scale the gradients by ``min(1, max_norm / norm)`` in the same pass, where norm is the L2 norm of all of
            them together; at least 0. The gradients themselves are left as they are.
        grads : iterable of array, optional
            For an optimizer built from plain arrays, and only then: the gradient of each parameter, in order, or None.
            The call **blocks** until the parameters are updated.

        Returns
        -------
        What ``closure`` returned, or None.

        Raises
        ------
        NetclError
            If no parameter has a gradient. Nothing is changed then, nor in any other refusal.
        HyperParameterError, ShapeError, DTypeError
            If ``grads`` do not fit the parameters, or ``max_norm`` is no number of at least 0.
        ArgumentError
            If ``closure`` cannot be called.

        Notes
        -----
        A parameter whose ``grad`` is None is skipped: neither moved nor decayed, and its step count is kept.
        """
        checks.function("closure", closure)
        if max_norm is not None:
            max_norm = checks.bound("max_norm", max_norm)
        if grads is not None:
            grads = checks.listed("grads", grads)
        result = None if closure is None else closure()
        if grads is None:
            with self._lock:
                self._enqueue(self._ready(max_norm), max_norm)
            return result
        if self._plain is None:
            raise NetclError(
                "step(grads=...) is for an optimizer built from plain arrays; set the grad of each Tensor, or call "
                "tape.backward(loss)"
            )
        with self._lock, self._plain.lent(grads) as gradients:
            self._enqueue(self._ready(max_norm, gradients), max_norm)
        return result

    def scaled_step(self, loss_scale: Span, max_norm: float | None = None) -> list[Span]:
        """The step of :class:`netcl.amp.GradScaler`. Enqueues work and does not block.

        Parameters
        ----------
        loss_scale : Span
            Two float32 values: the factor that the gradients carry, and nonzero to skip the step in any case.
        max_norm : float, optional
            As in :meth:`step`, of the gradients without the factor.

        Returns
        -------
        list of Span
            One element each, nonzero where a gradient was not finite. No byte of parameters or state changes then.
        """
        with self._lock:
            live = self._ready(max_norm, measured=True)
            if not _measurable_together(live):
                loss_scale = self._decided_together(live, loss_scale)
            self._enqueue(live, max_norm, loss_scale)
            return [partition.nonfinite for partition in live]

    def unscale_gradients(self, loss_scale: Span) -> list[Span]:
        """Divide the gradients by the loss scale in place, for :class:`netcl.amp.GradScaler`. Does not block.

        Parameters and result are those of :meth:`scaled_step`.
        """
        with self._lock:
            live = self._ready(None)
            for partition in live:
                partition.leave_resting()
            headers = [partition.measure(loss_scale) for partition in live]
            return [partition.unscale(header) for partition, header in zip(live, headers, strict=True)]

    def _enqueue(self, live: Sequence[Partition], max_norm: float | None, loss_scale: Span | None = None) -> None:
        """Enqueue the step of each dtype; one norm and one decision for all of them."""
        records = None
        if len(live) > 1 and (max_norm is not None or loss_scale is not None) and _measurable_together(live):
            counts = [partition.record_count() for partition in live]
            records = self._records
            if records is None or records.size != sum(counts) or records.dtype is not live[0].compute:
                buffer = live[0].backend.alloc(sum(counts), live[0].compute)
                records = self._records = Span(buffer, 0, sum(counts))
            for partition, count, end in zip(live, counts, accumulate(counts), strict=True):
                partition.measure_into(Span(records.buffer, end - count, count))
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
        backend.map(conversion(float32, float32), (_flat(loss_scale),), (_flat(pair),))
        found = _flat(Span(pair.buffer, 1, 1))
        for partition in live:
            header = partition.measure(loss_scale)
            flag = _flat(Span(header.buffer, HEADER.index("nonfinite"), 1))
            backend.map(trace(maximum, (float32, header.dtype), stored=(float32,)), (found, flag), (found,))
        return pair

    def _ready(
        self, max_norm: float | None, lent: Mapping[int, Array] | None = None, *, measured: bool = False
    ) -> list[Partition]:
        """The partitions with gradients, checked, with all memory that a step takes and their hyper-parameters there.

        ``measured`` says that the norm is taken, as it is with ``max_norm``.
        """
        if self._plain is not None and lent is None:
            raise NetclError(
                "this optimizer was built from plain arrays, which have no gradients of their own; pass them as "
                "step(grads=[...])"
            )
        if max_norm is not None:
            max_norm = checks.bound("max_norm", max_norm)
            if not _measurable_together(self._partitions):
                held = ", ".join(f"{partition.dtype} on {partition.backend.device}" for partition in self._partitions)
                raise HyperParameterError(
                    f"step(max_norm={max_norm}) takes one norm, in one precision on one device, and these parameters "
                    f"are {held}; call clip_grad_norm(...) before step()"
                )
        for partition in self._partitions:
            partition.check()
        if self._versions != [group.version for group in self.param_groups]:
            self._adapt()
        if lent is None:
            live = [partition for partition in self._partitions if partition.collect()]
        else:
            live = [partition for partition in self._partitions if partition.lend(lent)]
        if not live:
            raise NetclError(
                f"{type(self).__name__}.step() found no gradient on any of its parameters; "
                "call tape.backward(loss) first, and make sure that the loss depends on them"
            )
        for partition in live:
            partition.prepare(measured=measured or max_norm is not None)
            partition.write_table()
        return live

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients. Does not block.

        Parameters
        ----------
        set_to_none : bool, default True
            Forget them, which touches no memory: the next backward overwrites instead of adding. Otherwise fill them
            with zeros in place.
        """
        validation.flag("set_to_none", set_to_none)
        with self._lock:
            for partition in self._partitions:
                partition.release_gradients(set_to_none=set_to_none)

    def source(self) -> str:
        """The text of what runs a step, for reading. Does not block.

        Where the backend builds a program, that is its source as the compiler gets it: on OpenCL the defines, the
        traced rule, and the kernel file around it. Elsewhere it is the traced rule as Python. With parameters of
        several devices or dtypes there is a text for each.

        Examples
        --------
        >>> import netcl
        >>> from netcl.optim import SGD
        >>> print(SGD([netcl.ones(2, requires_grad=True)], lr=0.1).source())
        def sgd(p, g, s, h):  # float32, computed in float32
            return p - h.lr * (g + h.weight_decay * p)
        """
        return "\n\n".join(partition.source() for partition in self._partitions)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit, as NumPy arrays in the layout of ``torch.optim``. **Blocks**.

        Examples
        --------
        >>> import netcl
        >>> from netcl.optim import AdamW
        >>> opt = AdamW([("w", netcl.ones(2, requires_grad=True))], lr=3e-4)
        >>> opt.state_dict()["param_groups"][0]["param_names"]
        ['w']
        """
        return checkpoint.pack(self._kind(), self.param_groups, self._read_state())

    @classmethod
    def _kind(cls) -> str:
        """What checkpoints call this optimizer: what it is of netcl's own, or its class."""
        for base in cls.__mro__:
            if base.__module__.startswith("netcl.optim.") and base is not Optimizer:
                return _SAME_KIND.get(base.__name__, base.__name__)
        return cls.__name__

    def _read_state(self) -> dict[int, tuple[int, dict[str, Any]]]:
        """Step and fields of each parameter, by its id. **Blocks**."""
        entries: dict[int, Any] = {}
        with self._lock:
            self._adapt()
            for partition in self._partitions:
                entries |= partition.read_state()
        return entries

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, or from one of the ``torch.optim`` optimizer of the same kind.

        Parameters are matched by name if both sides have names (``(name, tensor)`` pairs, as from
        ``model.named_parameters()``), else by position. The hyper-parameters of the checkpoint's groups are taken over
        too, and what state they call for: momentum comes back with its velocity. Only ``amsgrad`` has to agree.

        Raises
        ------
        StateError
            At the first thing that does not fit: another kind of optimizer, a parameter, field, shape, dtype, step
            count or hyper-parameter. Nothing is changed then.
        """
        with self._lock:
            loaded = checkpoint.read(state, self._kind(), self.param_groups, self._choose_rule)
            self._restore(loaded.groups, loaded.entries)

    def _restore(self, values: Sequence[Mapping[str, Any]], entries: Mapping[int, Entry]) -> None:
        """Hold these hyper-parameters and this state, all of them or none."""
        before = [dict(group) for group in self.param_groups]
        take_back: Callable[[], None] | None = None

        def hold(values: Iterable[Mapping[str, Any]]) -> None:
            for group, held in zip(self.param_groups, values, strict=True):
                group.replace(held)

        try:
            take_back = self._adapt(checkpoint.with_state(values, entries, self._choose_rule))
            hold(values)
            fields: dict[int, tuple[str, ...]] = {}
            for partition in self._partitions:
                fields |= partition.fields()
            # Groups without master weights have no room for those of a checkpoint, which are zeros.
            kept = {
                key: Entry(entry.step, {name: x for name, x in entry.fields.items() if name in fields[key]})
                for key, entry in entries.items()
            }
            take_up = [partition.prepared_state(kept) for partition in self._partitions]
        except BaseException:
            hold(before)
            if take_back is not None:
                take_back()
            raise
        for each in take_up:
            each()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made from. **Blocks**."""
        checkpoint.refuse_untied_copies(type(self).__name__, self.param_groups)
        entries = self._read_state()
        return {
            "attributes": {name: value for name, value in self.__dict__.items() if name not in _MADE_ANEW},
            "groups": [dict(group) for group in self.param_groups],
            "state": [[entries[id(p)] for p in group["params"]] for group in self.param_groups],
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state["attributes"])
        self._build([ParameterGroup(values, self._checked, self._fixed) for values in state["groups"]])
        entries = {
            id(p): Entry(step, fields)
            for group, saved in zip(self.param_groups, state["state"], strict=True)
            for p, (step, fields) in zip(group["params"], saved, strict=True)
        }
        self._restore([dict(group) for group in self.param_groups], entries)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """An optimizer of copies of the parameters: of those that ``memo`` knows, as in ``deepcopy((model, opt))``."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return made

    def __copy__(self) -> Self:
        raise NetclError(
            f"a shallow copy of {type(self).__name__} would step the same parameters with a state of its own; take "
            "copy.deepcopy((model, optimizer)), or its state_dict()"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        try:
            pickle.dumps((type(self), self._check, self._check_group, self._choose_rule))
        except Exception as error:
            raise NetclError(
                f"{type(self).__name__} cannot be pickled, for its class, rule or checks cannot: {error}; define them "
                "at the top of a module, or save the optimizer's state_dict()"
            ) from error
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        def line(group: Mapping[str, Any]) -> str:
            shown = ", ".join(f"{k}={v}" for k, v in group.items() if k not in ("params", "names"))
            return f"    {len(group['params'])} parameter(s): {shown}"

        return "\n".join([f"{type(self).__name__}(", *map(line, self.param_groups), ")"])


_SAME_KIND = {"Momentum": "SGD"}
"""Kinds of optimizers that differ in their constructor alone."""

_MADE_ANEW = ("param_groups", "_lock", "_partitions", "_records", "_rule", "_versions")
"""Attributes that a copy makes for itself."""


def _measurable_together(partitions: Sequence[Partition]) -> bool:
    """Whether one norm of all the gradients can be taken on the device."""
    first = partitions[0]
    return all(other.backend is first.backend and other.compute is first.compute for other in partitions[1:])


def _flat(span: Span) -> View:
    return View(span.buffer, span.offset, (span.size,), (1,))
