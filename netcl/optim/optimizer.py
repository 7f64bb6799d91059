"""Optimizer: parameter groups, checks and the step, the same for every rule."""

from __future__ import annotations

import copy
import copyreg
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias, TypeVar

from netcl.array import Array
from netcl.backends import Selection
from netcl.backends.base import Span
from netcl.errors import HyperParameterError, NetclError
from netcl.optim import options, validation
from netcl.optim.engine import checkpoint
from netcl.optim.engine.checkpoint import Entry
from netcl.optim.engine.group import ParameterGroup, as_groups, assign, refuse_duplicates
from netcl.optim.engine.group_factory import Check, GroupFactory
from netcl.optim.engine.partition import Partition
from netcl.optim.engine.started_fields import check_extension, start_fields
from netcl.optim.engine.step_engine import StepEngine
from netcl.optim.extensions import ExtensibleChoice, Extension
from netcl.optim.hooks import Hookable, Hooks
from netcl.optim.options import CommonOptions
from netcl.optim.releasing import Releasing
from netcl.optim.rule import Rule, RuleChoice, check_author
from netcl.optim.state_view import StateView
from netcl.validation import flag

Parameters: TypeAlias = "Iterable[Array] | Iterable[tuple[str, Any]] | Iterable[Mapping[str, Any]] | Iterable[Any]"
T = TypeVar("T")


class Optimizer(Hookable, Releasing, ABC):
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
        Where to compute, for parameters that are host arrays; by default the default backend.
    common : mapping, optional
        ``maximize``, ``master_weights``, ``backend`` and their like, as a user gave them. A subclass whose
        ``__init__`` ends in ``**common`` and passes that on takes them all, and shows them in its signature; a line
        ``**common`` among the parameters of its docstring becomes their description.

    Attributes
    ----------
    param_groups : list of dict
        Assigning a hyper-parameter takes effect at the next step, also one that needs state which was not there so far.
        A group refuses names that it does not have, but for ``name``, which is yours, and ``initial_lr``, which
        schedules start from.

    Notes
    -----
    Threads may share an optimizer: one call after the other changes it.

    A number may be given as one of Python or NumPy, or as an array of one element of any library: it is read once, when
    it is assigned, and that **blocks** for an array on a device.

    ``copy.deepcopy((model, optimizer))`` and pickles go on bit for bit. A rule of one's own can be pickled if its
    functions stand at the top of a module. Hooks are not copied.
    """

    _fixed: tuple[str, ...] = ()
    """The hyper-parameters of a group that are chosen when it is made."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        options.declare(cls)

    @abstractmethod
    def __init__(
        self,
        params: Parameters,
        defaults: Mapping[str, Any],
        rule: Rule | Callable[[Sequence[Mapping[str, Any]]], Rule],
        check: Mapping[str, Check] | None = None,
        check_group: Callable[[Mapping[str, Any]], None] | None = None,
        backend: Selection = None,
        *,
        common: CommonOptions | None = None,
    ) -> None:
        check_author(defaults, rule, check, check_group)
        given: dict[str, Any] = dict(common or {})
        options.refuse_unknown(type(self), given)
        options.take_out_torchs(given)
        backend = given.pop("backend", backend)
        # An optimizer that does not take the options has no maximize, as it has not in its checkpoints.
        shared = options.DEFAULTS if common is not None else {"master_weights": True}
        own = {name: defaults[name] for name in options.DEFAULTS if name in defaults}
        self._rule = ExtensibleChoice(RuleChoice(rule))
        self._choose_rule = RuleChoice(self._rule)
        self._factory = GroupFactory(
            type(self).__name__,
            {**defaults, **shared, **own, **given},
            {**options.CHECKS, **(check or {})},
            check_group,
            self._choose_rule,
            (*self._fixed, *(name for name in options.FIXED if name in {**shared, **own})),
            backend,
        )
        self.defaults = self._factory.defaults
        groups = [self._factory.made(group, f"parameter group {i}") for i, group in enumerate(as_groups(params))]
        refuse_duplicates(groups)
        self._build(groups)

    def _build(self, groups: list[ParameterGroup]) -> None:
        """Make what these groups need on the devices of their parameters."""
        self.param_groups = groups
        self._hooks = Hooks()
        self._held_by: str | None = None
        self._engine = StepEngine(type(self).__name__, groups, self._choose_rule, self._factory.host)

    @property
    def partitions(self) -> Sequence[Partition]:
        """The parameters by device and dtype, each with the arenas that its launch works on."""
        return tuple(self._engine.partitions)

    @property
    def state(self) -> StateView:
        """What is kept for each parameter, by the parameter: a dict of its ``step`` and fields. Does not block.

        The arrays are copies on the device, made when they are asked for: they do not change with later steps, and
        writing to them changes nothing. Reading their numbers blocks. Use :meth:`load_state_dict` to change a state.

        Examples
        --------
        >>> import netcl
        >>> from netcl.optim import SGD
        >>> w = netcl.ones(2, requires_grad=True)
        >>> w.grad = netcl.ones(2)
        >>> opt = SGD([w], momentum=0.9)
        >>> opt.step()
        >>> {name: value.tolist() for name, value in opt.state[w].items()}
        {'step': 1.0, 'momentum_buffer': [1.0, 1.0]}
        """
        return StateView(lambda: self._engine.partitions, self._engine.lock)

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
        with self._engine.lock:
            self._refuse_if_held("add_param_group()")
            self._refuse_if_released("add_param_group()")
            host = self._factory.host
            taken = 0 if host is None else len(host)
            try:
                self._engine.extend(self._factory.made(group, f"parameter group {len(self.param_groups)}"))
            except BaseException:
                if host is not None:
                    host.keep(taken)
                raise
            start_fields(self.partitions, self._rule.fields(), self.param_groups[-1]["params"])

    def extend(self, extension: Extension) -> None:
        """Do more in each step's launches: what precedes and follows the rule. Does not block.

        :class:`~netcl.optim.AveragedParameters`, :func:`~netcl.optim.Lookahead` and :func:`~netcl.optim.zero_nans` call
        this. The settings of the extension become hyper-parameters of every group, its fields state of every parameter.

        Parameters
        ----------
        extension : Extension
            As ``netcl/optim/extensions.py`` describes it.

        Raises
        ------
        HyperParameterError
            If there is a hyper-parameter or field of one of its names, or the parameters are arrays of another library
            and it has fields. Nothing is changed then, nor if there is no memory for the fields.
        """
        with self._engine.lock:
            self._refuse_if_held("extend()")
            check_extension(type(self).__name__, extension, self._choose_rule(self.param_groups), self._factory.host)
            before = self._rule.extensions
            values = [dict(group) for group in self.param_groups]
            take_back = self._factory.extend(extension.settings())
            try:
                self._rule.extensions = (*before, extension)
                for group in self.param_groups:
                    group.replace({**group, **{name: self.defaults[name] for name in extension.settings()}})
                self._engine.adapt()
            except BaseException:
                take_back()
                self._rule.extensions = before
                for group, held in zip(self.param_groups, values, strict=True):
                    group.replace(held)
                raise
            start_fields(self.partitions, extension.fields())

    def _refuse_if_held(self, call: str) -> None:
        """Refuse a call while the parameters hold averages."""
        if self._held_by is not None:
            raise NetclError(
                f"{call} within {self._held_by}, where the parameters hold averages; call it after the block"
            )

    def step(
        self,
        closure: Callable[[], T] | None = None,
        *,
        max_norm: float | None = None,
        grads: Iterable[Any] | None = None,
    ) -> T | None:
        """Update every parameter that has a gradient. Enqueues work and does not block, but for host arrays.

        Parameters
        ----------
        closure : callable, optional
            Called first, between the hooks; its result is returned.
        max_norm : float, optional
            Scale the gradients by ``min(1, max_norm / norm)`` in the same pass, where norm is the L2 norm of all of
            them together; at least 0. The gradients themselves are left as they are.
        grads : iterable of array, optional
            For an optimizer built from host arrays, and only then: the gradient of each parameter, in order, or None.
            The call **blocks** until the parameters are updated.

        Returns
        -------
        What ``closure`` returned, or None.

        Raises
        ------
        NetclError
            If no parameter has a gradient. Nothing is changed then, nor in any other refusal.
        HyperParameterError, ShapeError, DTypeError
            If ``grads`` do not fit the parameters, or ``max_norm`` is not a number of at least 0.
        ArgumentError
            If ``closure`` cannot be called.

        Notes
        -----
        A parameter whose ``grad`` is None is skipped: neither moved nor decayed, and its step count is kept.
        """
        if not self._hooks.of_steps:
            return self._step(closure, max_norm=max_norm, grads=grads)
        kwargs = {name: value for name, value in (("max_norm", max_norm), ("grads", grads)) if value is not None}
        stepped: T | None = self._hooks.stepped(self, self._step, () if closure is None else (closure,), kwargs)
        return stepped

    def _step(
        self,
        closure: Callable[[], T] | None = None,
        *,
        max_norm: float | None = None,
        grads: Iterable[Any] | None = None,
    ) -> T | None:
        self._refuse_if_held("step()")
        self._refuse_if_released("step()")
        validation.function("closure", closure)
        if max_norm is not None:
            max_norm = validation.bound("max_norm", max_norm)
        if grads is not None:
            grads = validation.listed("grads", grads)
        result = None if closure is None else closure()
        if grads is None:
            self._engine.step(max_norm)
            return result
        host = self._factory.host
        if host is None:
            raise NetclError(
                "step(grads=...) is for an optimizer built from host arrays; set the grad of each Tensor, or call "
                "tape.backward(loss)"
            )
        with self._engine.lock, host.mapped_for_device(grads) as gradients:
            self._engine.step(max_norm, gradients)
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
        self._refuse_if_held("step()")
        self._refuse_if_released("scaled_step()")
        if not self._hooks.of_steps:
            return self._engine.scaled_step(loss_scale, max_norm)

        def step(max_norm: float | None = None) -> list[Span]:
            return self._engine.scaled_step(loss_scale, max_norm)

        kwargs = {} if max_norm is None else {"max_norm": max_norm}
        flags: list[Span] = self._hooks.stepped(self, step, (), kwargs)
        return flags

    def unscale_gradients(self, loss_scale: Span) -> list[Span]:
        """Divide the gradients by the loss scale in place, for :class:`netcl.amp.GradScaler`. Does not block.

        Parameters and result are those of :meth:`scaled_step`.
        """
        self._refuse_if_released("unscale_gradients()")
        return self._engine.unscale_gradients(loss_scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients. Does not block.

        Parameters
        ----------
        set_to_none : bool, default True
            Forget them, which touches no memory: the next backward overwrites instead of adding. Otherwise fill them
            with zeros in place.
        """
        flag("set_to_none", set_to_none)
        with self._engine.lock:
            for partition in self._engine.partitions:
                partition.arena.release_gradients(set_to_none=set_to_none)

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
        return "\n\n".join(partition.source() for partition in self._engine.partitions)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit, as NumPy arrays in the layout of ``torch.optim``. **Blocks**.

        State in few bits is decoded to float32; :func:`netcl.save` keeps its codes.

        Examples
        --------
        >>> import netcl
        >>> from netcl.optim import AdamW
        >>> opt = AdamW([("w", netcl.ones(2, requires_grad=True))], lr=3e-4)
        >>> opt.state_dict()["param_groups"][0]["param_names"]
        ['w']
        """
        hooks = self._hooks
        hooks.told(hooks.before_saving, self)
        packed = checkpoint.pack(self._kind(), self.param_groups, self._engine.read_state())
        return hooks.passed_on(hooks.after_saving, self, packed)

    @classmethod
    def _kind(cls) -> str:
        """What checkpoints call this optimizer: what it is of netcl's own, or its class."""
        for base in cls.__mro__:
            if base.__module__.startswith("netcl.optim.") and base not in (Optimizer, Hookable, Releasing):
                return _SAME_KIND.get(base.__name__, base.__name__)
        return cls.__name__

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
        hooks = self._hooks
        if hooks.before_loading and isinstance(state, Mapping):
            state = hooks.passed_on(hooks.before_loading, self, dict(state))
        with self._engine.lock:
            loaded = checkpoint.read(state, self._kind(), self.param_groups, self._choose_rule)
            self._engine.restore(loaded.groups, loaded.entries)
            for name in self._rule.fields():
                lacking = {key for key, entry in loaded.entries.items() if name not in entry.fields}
                start_fields(self.partitions, [name], [p for p in self.state if id(p) in lacking])
        hooks.told(hooks.after_loading, self)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made from. **Blocks**."""
        checkpoint.refuse_untied_copies(type(self).__name__, self.param_groups)
        entries = self._engine.read_state()
        return {
            "attributes": {name: value for name, value in self.__dict__.items() if name not in _MADE_ANEW},
            "groups": [dict(group) for group in self.param_groups],
            "released": None if self._engine.release is None else (self._engine.release.max_norm,),
            "state": [[entries[id(p)] for p in group["params"]] for group in self.param_groups],
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state["attributes"])
        self._build([self._factory.held(values) for values in state["groups"]])
        entries = {
            id(p): Entry(step, fields)
            for group, saved in zip(self.param_groups, state["state"], strict=True)
            for p, (step, fields) in zip(group["params"], saved, strict=True)
        }
        self._engine.restore([dict(group) for group in self.param_groups], entries)
        if state.get("released") is not None:
            self._engine.release_gradients(*state["released"])

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
            pickle.dumps((type(self), self._factory))
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

_MADE_ANEW = ("param_groups", "_engine", "_hooks", "_held_by")
"""Attributes that a copy makes for itself."""
