"""Learning-rate schedules that are closed forms of an integer.

A schedule scales every parameter group from its ``initial_lr``: the learning rate that it had when its first schedule
was made, or when it joined an optimizer with one. It touches the host alone and never blocks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from netcl.errors import ArgumentError, HyperParameterError, StateError
from netcl.optim import validation
from netcl.optim.engine.group import assign
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedule_validation import (
    Check,
    at_least,
    between,
    checked_settings,
    loaded_count,
    loaded_rates,
    loaded_settings,
    scheduled,
)
from netcl.validation import shown


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
        self.optimizer = scheduled(optimizer)
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
                f"step() takes no argument, got {shown(epoch)}; a schedule counts its own calls, "
                "load_state_dict() continues from a saved one, and a metric is for ReduceLROnPlateau"
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
        settings = loaded_settings(self, state, ("last_step", "base_lrs"))
        groups = self.optimizer.param_groups
        step = loaded_count("last_step", state["last_step"])
        bases = state["base_lrs"]
        # The groups of before the schedule was made have all joined: the first one is among them.
        joined = [i == 0 or base is not None for i, base in enumerate(bases)] if isinstance(bases, list | tuple) else []
        given = [base if there else 0.0 for base, there in zip(bases, joined, strict=True)] if joined else bases
        rates = loaded_rates("base_lrs", given, len(groups))
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

    SETTINGS: ClassVar[Mapping[str, Check]] = {"T_max": at_least(1), "eta_min": validation.not_negative}

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max: int
        self.eta_min: float
        self.__dict__.update(checked_settings(type(self), {"T_max": T_max, "eta_min": eta_min}))
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at e = ``step``."""
        return self.eta_min + (base_lr - self.eta_min) * (1.0 + math.cos(math.pi * step / self.T_max)) / 2.0


def _longer_than_warmup(settings: Mapping[str, Any]) -> None:
    """Refuse a total that leaves nothing after the warmup."""
    warmup, total = settings["warmup_steps"], settings["total_steps"]
    if total <= warmup:
        raise HyperParameterError(
            f"total_steps must exceed warmup_steps={warmup}, got {total}; it counts the warmup too"
        )


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
        "warmup_steps": at_least(0),
        "total_steps": at_least(1),
        "eta_min": validation.not_negative,
        "warmup_start": between(0.0, 1.0),
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
        self.__dict__.update(checked_settings(type(self), given))
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        if step < self.warmup_steps:
            return base_lr * (self.warmup_start + (1.0 - self.warmup_start) * step / self.warmup_steps)
        if step >= self.total_steps:
            return self.eta_min
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.eta_min + (base_lr - self.eta_min) * (1.0 + math.cos(math.pi * progress)) / 2.0
