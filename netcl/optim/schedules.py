"""Learning-rate schedules: closed forms of an integer, and the one that watches a metric.

A schedule scales every parameter group from its ``initial_lr``: the learning rate that it had when its first schedule
was made, or when it joined an optimizer with one. It touches the host alone and never blocks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, SupportsFloat

from netcl import validation
from netcl.errors import ArgumentError, HyperParameterError, NetclError, StateError
from netcl.optim import validation as checks
from netcl.optim.engine.group import assign
from netcl.optim.optimizer import Optimizer

Check = Callable[[str, Any], Any]


def _optimizer(optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise HyperParameterError(
            f"a schedule takes an optimizer, got {validation.shown(optimizer)}; build the optimizer first"
        )
    if not all("lr" in group for group in optimizer.param_groups):
        raise HyperParameterError(
            f"a schedule sets the lr of each parameter group, and those of {type(optimizer).__name__} have none; give "
            "it a hyper-parameter of that name"
        )
    return optimizer


def _integer(least: int) -> Check:
    return lambda name, value: checks.integer(name, value, least)


def _between(least: float, most: float) -> Check:
    return lambda name, value: validation.real(name, value, least=least, most=most, error=HyperParameterError)


def _inside(above: float, below: float) -> Check:
    return lambda name, value: validation.real(name, value, above=above, below=below, error=HyperParameterError)


def _one_of(*choices: str) -> Check:
    return lambda name, value: validation.one_of(name, value, choices, error=HyperParameterError)


def _longer_than_warmup(settings: Mapping[str, Any]) -> None:
    """Refuse a total that leaves nothing after the warmup."""
    warmup, total = settings["warmup_steps"], settings["total_steps"]
    if total <= warmup:
        raise HyperParameterError(
            f"total_steps must exceed warmup_steps={warmup}, got {total}; it counts the warmup too"
        )


def _metric(metric: Any) -> float:
    """The value of a measurement, which may be NaN or infinite."""
    try:
        if isinstance(metric, bool | str | bytes) or getattr(metric, "shape", ()) != ():
            raise TypeError
        return float(metric)
    except (TypeError, ValueError, OverflowError):
        raise HyperParameterError(f"step takes the measured metric, a number, got {validation.shown(metric)}") from None


def _checked(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a kind of schedule, each checked."""
    settings = {name: check(name, given[name]) for name, check in kind.SETTINGS.items()}
    together = getattr(kind, "CHECK_TOGETHER", None)
    if together is not None:
        together(settings)
    return settings


def _settings(schedule: Any, state: Any, names: Iterable[str]) -> dict[str, Any]:
    """The settings that a state holds, after its kind and the names of its entries were checked.

    States of before schedules said their kind hold nothing but ``names``, and leave the settings as they are.
    """
    kind = type(schedule)
    if not isinstance(state, Mapping):
        raise StateError(f"a schedule's state is what its state_dict() returns, a dict, got {validation.shown(state)}")
    saved = state.get("schedule", kind.__name__)
    if saved != kind.__name__:
        raise StateError(
            f"the state is of the schedule {validation.shown(saved)} and cannot be loaded into {kind.__name__}; build "
            "the schedule that it was saved from"
        )
    bare = set(state) == set(names)
    expected = [*names] if bare else ["schedule", *names, *kind.SETTINGS]
    for name in expected:
        if name not in state:
            held = ", ".join(map(str, state)) or "nothing"
            raise StateError(f"the schedule's state lacks {name!r}; it has {held}, and must come from state_dict()")
    for name in state:
        if name not in expected:
            raise StateError(
                f"the schedule's state has {validation.shown(name)}, which {kind.__name__} does not know; it has "
                f"{', '.join(expected)}"
            )
    try:
        return {} if bare else _checked(kind, state)
    except NetclError as error:
        raise StateError(f"the schedule's state does not fit: {error}") from error


def _count(name: str, value: Any) -> int:
    return validation.integer(f"{name} of the schedule's state", value, least=0, most=(1 << 63) - 1, error=StateError)


def _rates(name: str, value: Any, groups: int) -> list[float]:
    """The learning rates of a state, one for each parameter group."""
    if not isinstance(value, list | tuple):
        raise StateError(f"{name} of the schedule's state must be a list of numbers, got {validation.shown(value)}")
    if len(value) != groups:
        raise StateError(
            f"the state has {len(value)} parameter group(s) and the optimizer {groups}; build the optimizer with the "
            "same groups, or add those that are missing with add_param_group()"
        )
    try:
        return [checks.not_negative(f"{name}[{i}]", rate) for i, rate in enumerate(value)]
    except HyperParameterError as error:
        raise StateError(f"the schedule's state does not fit: {error}") from error


class Schedule(ABC):
    """A learning rate that is a function of how often :meth:`step` was called, and of nothing else.

    A subclass sets the attributes that ``SETTINGS`` names before it calls this constructor.

    Parameters
    ----------
    optimizer : Optimizer
        Each of its groups gets an ``initial_lr``, unless it has one. A group that is added later gets one at the next
        step, and takes part from then on.

    Attributes
    ----------
    SETTINGS : mapping of str to callable
        The attributes that belong to the state, each with the check of its value: ``check(name, value)`` returns what
        to keep or raises HyperParameterError.
    CHECK_TOGETHER : callable or None
        Refuses settings that do not go together.
    last_step : int
        How often ``step`` was called.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {}
    CHECK_TOGETHER: ClassVar[staticmethod[[Mapping[str, Any]], None] | None] = None

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _optimizer(optimizer)
        self.last_step = 0
        self._apply(0, self.base_lrs)

    @abstractmethod
    def lr_at(self, step: int, base_lr: float) -> float:
        """The learning rate after ``step`` calls, for a group that began with ``base_lr``."""

    @property
    def base_lrs(self) -> list[float]:
        """The learning rate that each parameter group starts from."""
        return [group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups]

    def step(self, epoch: None = None) -> None:
        """Go on by one and set the learning rates. ``epoch`` is refused: a schedule counts its own calls.

        Raises
        ------
        ArgumentError
            If anything is passed.
        """
        if epoch is not None:
            raise ArgumentError(
                f"step() takes no argument, got {validation.shown(epoch)}; a schedule counts its own calls, "
                "load_state_dict() goes on from others, and a metric is for ReduceLROnPlateau"
            )
        self._apply(self.last_step + 1, self.base_lrs)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        # A group that was added since the last step joins with the next one, from the rate that it has by then.
        bases = [group.get("initial_lr") for group in self.optimizer.param_groups]
        return {"schedule": type(self).__name__, "last_step": self.last_step, "base_lrs": bases, **settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, with the settings and the ``initial_lr`` of each group that it holds.

        Raises
        ------
        StateError
            If it is of another kind of schedule or another number of parameter groups, or an entry is missing, unknown
            or out of range; nothing is changed then.
        """
        settings = _settings(self, state, ("last_step", "base_lrs"))
        groups = self.optimizer.param_groups
        step = _count("last_step", state["last_step"])
        bases = state["base_lrs"]
        # The groups of before the schedule was made have all joined: the first one is among them.
        joined = [i == 0 or base is not None for i, base in enumerate(bases)] if isinstance(bases, list | tuple) else []
        given = [base if there else 0.0 for base, there in zip(bases, joined, strict=True)] if joined else bases
        rates = _rates("base_lrs", given, len(groups))
        earlier = {name: getattr(self, name) for name in settings}
        self.__dict__.update(settings)
        try:
            self._apply(step, [rate if there else None for rate, there in zip(rates, joined, strict=True)])
        except Exception as error:
            self.__dict__.update(earlier)
            if isinstance(error, HyperParameterError):
                raise StateError(f"the schedule's state does not fit: {error}") from error
            raise

    def _apply(self, step: int, base_lrs: Sequence[float | None]) -> None:
        """Set the learning rates of this step, or change nothing if one is refused.

        A group whose base rate is None has yet to join, and keeps its own.
        """
        groups = self.optimizer.param_groups
        changes = [{} if base is None else {"lr": self.lr_at(step, base)} for base in base_lrs]
        for group, base, change in zip(groups, base_lrs, changes, strict=True):
            if base is not None and group.get("initial_lr") != base:
                change["initial_lr"] = base
        assign(groups, changes)
        for group, base in zip(groups, base_lrs, strict=True):
            if base is None:
                group.pop("initial_lr", None)
        self.last_step = step


class CosineAnnealingLR(Schedule):
    """Anneal along a cosine, once per epoch.

    ``lr(e) = eta_min + (lr_0 - eta_min)·(1 + cos(π·e / T_max)) / 2`` for every e, also beyond ``T_max``.

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Epochs until ``eta_min`` is reached, at least 1.
    eta_min : float, default 0.0
        Lowest learning rate, at least 0.

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, CosineAnnealingLR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> sched = CosineAnnealingLR(opt, T_max=2)
    >>> sched.step()
    >>> round(opt.lr, 6)
    0.5

    Notes
    -----
    The closed form, where torch chains from one epoch to the next. Source: I. Loshchilov and F. Hutter, "SGDR", 2016.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"T_max": _integer(1), "eta_min": checks.not_negative}

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max: int
        self.eta_min: float
        self.__dict__.update(_checked(type(self), {"T_max": T_max, "eta_min": eta_min}))
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at e = ``step``."""
        return self.eta_min + (base_lr - self.eta_min) * (1.0 + math.cos(math.pi * step / self.T_max)) / 2.0


class WarmupCosine(Schedule):
    """Warm up along a line, then decay along a cosine, once per optimizer step.

    For s < ``warmup_steps``: ``lr_0·(f + (1 - f)·s / warmup_steps)`` with f = ``warmup_start``; then, with
    ``x = (s - warmup_steps) / (total_steps - warmup_steps)``: ``eta_min + (lr_0 - eta_min)·(1 + cos(π·x)) / 2``; from
    ``total_steps`` on: ``eta_min``.

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps : int
        Steps until ``lr_0`` is reached, at least 0.
    total_steps : int
        Steps until ``eta_min`` is reached; more than ``warmup_steps``.
    eta_min : float, default 0.0
        Lowest learning rate of the decay, at least 0.
    warmup_start : float, default 0.0
        Fraction of ``lr_0`` at step 0, in [0, 1].

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, WarmupCosine
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> sched = WarmupCosine(opt, warmup_steps=2, total_steps=4)
    >>> rates = [opt.lr]
    >>> for _ in range(4):
    ...     sched.step()
    ...     rates.append(round(opt.lr, 6))
    >>> rates
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "warmup_steps": _integer(0),
        "total_steps": _integer(1),
        "eta_min": checks.not_negative,
        "warmup_start": _between(0.0, 1.0),
    }
    CHECK_TOGETHER = staticmethod(_longer_than_warmup)

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        eta_min: float = 0.0,
        warmup_start: float = 0.0,
    ) -> None:
        self.warmup_steps: int
        self.total_steps: int
        self.eta_min: float
        self.warmup_start: float
        given = {
            "warmup_steps": warmup_steps,
            "total_steps": total_steps,
            "eta_min": eta_min,
            "warmup_start": warmup_start,
        }
        self.__dict__.update(_checked(type(self), given))
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        if step < self.warmup_steps:
            return base_lr * (self.warmup_start + (1.0 - self.warmup_start) * step / self.warmup_steps)
        if step >= self.total_steps:
            return self.eta_min
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.eta_min + (base_lr - self.eta_min) * (1.0 + math.cos(math.pi * progress)) / 2.0


class ReduceLROnPlateau:
    """Multiply the learning rate by ``factor`` when a metric has stopped improving.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}, default "min"
        Whether lower or higher is better.
    factor : float, default 0.5
        ``new_lr = old_lr·factor``; in (0, 1).
    patience : int, default 5
        The rate falls when *more* than this many measurements in a row brought no improvement.
    threshold : float, default 1e-4
        Smallest change that counts, at least 0.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether ``threshold`` is a share of \\|best\\| or a difference.
    cooldown : int, default 0
        Measurements after a reduction during which none is counted as bad.
    min_lr : float, default 0.0
        Lowest learning rate.
    eps : float, default 1e-8
        A reduction smaller than this is left out.

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, ReduceLROnPlateau
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> plateau = ReduceLROnPlateau(opt, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     plateau.step(loss)
    >>> opt.lr
    0.5

    Notes
    -----
    Counts as ``torch.optim.lr_scheduler.ReduceLROnPlateau``, whose defaults are factor 0.1 and patience 10. The
    relative margin is taken from \\|best\\|, so that negative metrics work too. A NaN counts as no improvement.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "mode": _one_of("min", "max"),
        "factor": _inside(0.0, 1.0),
        "patience": _integer(0),
        "threshold": checks.not_negative,
        "threshold_mode": _one_of("rel", "abs"),
        "cooldown": _integer(0),
        "min_lr": checks.not_negative,
        "eps": checks.not_negative,
    }

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.5,
        patience: int = 5,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.mode: str
        self.factor: float
        self.patience: int
        self.threshold: float
        self.threshold_mode: str
        self.cooldown: int
        self.min_lr: float
        self.eps: float
        given = {"mode": mode, "factor": factor, "patience": patience, "threshold": threshold}
        given |= {"threshold_mode": threshold_mode, "cooldown": cooldown, "min_lr": min_lr, "eps": eps}
        self.__dict__.update(_checked(type(self), given))
        self.optimizer = _optimizer(optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    def step(self, metric: SupportsFloat) -> None:
        """Take one measurement. **Blocks** if it is a Tensor, whose value has to be read.

        Raises
        ------
        HyperParameterError
            If it is not a number; nothing is changed then.
        """
        value = _metric(metric)
        improves = self._improves(value)
        bad = 0 if improves or self.cooldown_counter > 0 else self.num_bad_epochs + 1
        cooldown = max(self.cooldown_counter - 1, 0)
        if bad > self.patience:
            self._reduce()
            bad, cooldown = 0, self.cooldown
        self.best = value if improves else self.best
        self.num_bad_epochs, self.cooldown_counter = bad, cooldown

    def get_last_lr(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {
            "schedule": type(self).__name__,
            "best": self.best,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "lrs": self.get_last_lr(),
            **{name: getattr(self, name) for name in self.SETTINGS},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, with the settings that it holds.

        Raises
        ------
        StateError
            If it is of another kind of schedule or another number of parameter groups, or an entry is missing, unknown
            or out of range; nothing is changed then.
        """
        settings = _settings(self, state, ("best", "num_bad_epochs", "cooldown_counter", "lrs"))
        best = validation.real("best of the schedule's state", state["best"], finite=False, error=StateError)
        bad, cooldown = (_count(name, state[name]) for name in ("num_bad_epochs", "cooldown_counter"))
        groups = self.optimizer.param_groups
        rates = _rates("lrs", state["lrs"], len(groups))
        assign(groups, [{"lr": rate} for rate in rates])
        self.__dict__.update(settings, best=best, num_bad_epochs=bad, cooldown_counter=cooldown)

    def _improves(self, value: float) -> bool:
        if math.isinf(self.best):
            return value < self.best if self.mode == "min" else value > self.best
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def _reduce(self) -> None:
        changes = []
        for group in self.optimizer.param_groups:
            lower = max(group["lr"] * self.factor, self.min_lr)
            changes.append({"lr": lower} if group["lr"] - lower > self.eps else {})
        assign(self.optimizer.param_groups, changes)
