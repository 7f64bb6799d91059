"""Schedules between two rates: cycles, and one cycle, which move the momentum the other way."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Unpack

from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.optim.engine.group import read, written
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules.cosine import annealed
from netcl.optim.schedules.schedule import Schedule
from netcl.optim.schedules.settings import (
    Check,
    ScheduleOptions,
    at_least,
    between,
    called,
    choice,
    fitting,
    fractions,
    keep,
    of_group,
    positive_rates,
    rates,
)
from netcl.validation import real


def _above(least: float) -> Check:
    return lambda name, value: real(name, value, above=least, error=HyperParameterError)


def _momentum_of(group: Mapping[str, Any]) -> str:
    """The hyper-parameter that counts as momentum."""
    return "beta1" if "betas" in group else "momentum"


class _Absolute(Schedule):
    """A schedule whose settings say the values themselves, and not what they are of a base."""

    cycle_momentum: bool

    def _fit(self) -> None:
        fitting(self.optimizer, {name: getattr(self, name) for name in self.SETTINGS})
        if self.cycle_momentum:
            for number, group in enumerate(self.optimizer.param_groups):
                if read(group, _momentum_of(group)) is None:
                    raise HyperParameterError(
                        f"cycle_momentum=True moves momentum or betas[0], and parameter group {number} of "
                        f"{type(self.optimizer).__name__} has neither; give cycle_momentum=False"
                    )

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``, in the first parameter group, scaled as its base is."""
        return self._rate(step, 0, base_lr)

    def _rate(self, step: int, number: int, base: float) -> float:
        """The formula in one parameter group, scaled as its base is."""
        start, value = self._anchor(number), self._value(step, number)
        return value if base == start else value * (base / start)

    @abstractmethod
    def _anchor(self, number: int) -> float:
        """The base of which :meth:`_value` is meant."""

    @abstractmethod
    def _value(self, step: int, number: int) -> float:
        """The value at a step, in one parameter group."""

    @abstractmethod
    def _momentum(self, step: int, number: int) -> float:
        """The momentum at a step, in one parameter group."""

    def _beside(self, step: int, number: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """The momentum, if it is moved."""
        return written(group, _momentum_of(group), self._momentum(step, number)) if self.cycle_momentum else {}


def _rising(settings: Mapping[str, Any]) -> None:
    """Refuse a lower end above the upper one."""
    for low, high in (("base_lr", "max_lr"), ("base_momentum", "max_momentum")):
        count = max([len(x) for x in (settings[low], settings[high]) if isinstance(x, list)], default=1)
        for number in range(count):
            bottom, top = of_group(low, settings[low], number), of_group(high, settings[high], number)
            if bottom > top:
                raise HyperParameterError(f"{high} must be at least {low}={bottom}, got {top}")


class CyclicLR(_Absolute):
    """Go up and down between two learning rates, again and again.

    With c the number of the cycle from 1, x going from 0 to 1 in ``step_size_up`` steps and back in
    ``step_size_down``::

        lr(s) = base_lr + (max_lr - base_lr)·x·k
        momentum(s) = max_momentum - (max_momentum - base_momentum)·x·k
        k = 1                       "triangular"
        k = 1 / 2^(c - 1)           "triangular2"
        k = gamma^s                 "exp_range"

    Parameters
    ----------
    optimizer : Optimizer
    base_lr : float, or list of float
        Lower end, at least 0; a list has one for each parameter group. It becomes ``initial_lr``, or ``max_lr`` does
        where it is 0.
    max_lr : float, or list of float
        Upper end, above 0.
    step_size_up : int, default 2000
        Steps from the lower to the upper end, at least 1.
    step_size_down : int, optional
        Steps back, at least 1; by default as many.
    mode : {"triangular", "triangular2", "exp_range"}, default "triangular"
        What becomes of the height; without effect beside ``scale_fn``.
    gamma : float, default 1.0
        For "exp_range", at least 0.
    scale_fn : callable, optional
        ``scale_fn(c)`` or ``scale_fn(s)`` returns k. No part of the state.
    scale_mode : {"cycle", "iterations"}, default "cycle"
        Which of the two ``scale_fn`` is given.
    cycle_momentum : bool, default True
        Move ``momentum``, or ``betas[0]`` where there are betas, the other way.
    base_momentum : float, or list of float, default 0.8
        Lower end of the momentum, in [0, 1).
    max_momentum : float, or list of float, default 0.9
        Upper end, in [0, 1).
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range, or there is no momentum to move.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, CyclicLR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> CyclicLR(opt, base_lr=0.5, max_lr=1.0, step_size_up=2).preview(5)
    [[0.5, 0.75, 1.0, 0.75, 0.5, 0.75]]

    Notes
    -----
    Source: L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", 2015.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "base_lr": rates,
        "max_lr": positive_rates,
        "step_size_up": at_least(1),
        "step_size_down": at_least(1),
        "mode": choice("triangular", "triangular2", "exp_range"),
        "gamma": validation.not_negative,
        "scale_mode": choice("cycle", "iterations"),
        "cycle_momentum": validation.flag,
        "base_momentum": fractions,
        "max_momentum": fractions,
    }
    CHECK_TOGETHER = staticmethod(_rising)

    base_lr: float | list[float]
    max_lr: float | list[float]
    step_size_up: int
    step_size_down: int
    mode: str
    gamma: float
    scale_mode: str
    base_momentum: float | list[float]
    max_momentum: float | list[float]

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        down = step_size_up if step_size_down is None else step_size_down
        given: dict[str, Any] = {
            "base_lr": base_lr,
            "max_lr": max_lr,
            "step_size_up": step_size_up,
            "step_size_down": down,
        }
        given |= {"mode": mode, "gamma": gamma, "scale_mode": scale_mode, "cycle_momentum": cycle_momentum}
        keep(self, {**given, "base_momentum": base_momentum, "max_momentum": max_momentum})
        validation.function("scale_fn", scale_fn)
        self.scale_fn = scale_fn
        super().__init__(optimizer, last_epoch, **common)

    def _anchor(self, number: int) -> float:
        """``base_lr``, or ``max_lr`` where that is 0."""
        low: float = of_group("base_lr", self.base_lr, number)
        return low or float(of_group("max_lr", self.max_lr, number))

    def _value(self, step: int, number: int) -> float:
        """The formula above at s = ``step``."""
        low = of_group("base_lr", self.base_lr, number)
        return float(low + (of_group("max_lr", self.max_lr, number) - low) * self._height(step))

    def _momentum(self, step: int, number: int) -> float:
        """The formula of the momentum."""
        high = of_group("max_momentum", self.max_momentum, number)
        return float(high - (high - of_group("base_momentum", self.base_momentum, number)) * self._height(step))

    def _height(self, step: int) -> float:
        """x·k at a step."""
        before, within = divmod(step, self.step_size_up + self.step_size_down)
        up, down = self.step_size_up, self.step_size_down
        share = within / up if within <= up else (up + down - within) / down
        if self.scale_fn is not None:
            point = before + 1 if self.scale_mode == "cycle" else step
            return share * called("scale_fn", self.scale_fn, point)
        if self.mode == "triangular2":
            return math.ldexp(share, -before)
        return share * self.gamma**step if self.mode == "exp_range" else share


def _steps_of(total: Any, epochs: Any, per_epoch: Any) -> int:
    """How many steps a cycle has."""
    given = {"total_steps": total, "epochs": epochs, "steps_per_epoch": per_epoch}
    count = {name: validation.integer(name, value, 1) for name, value in given.items() if value is not None}
    if total is not None:
        return count["total_steps"]
    if len(count) < 2:
        raise HyperParameterError("total_steps must be an integer of at least 1, or epochs and steps_per_epoch both be")
    return count["epochs"] * count["steps_per_epoch"]


class OneCycleLR(_Absolute):
    """Go up to the largest learning rate and far down again, once, and the momentum the other way.

    From ``max_lr / div_factor`` to ``max_lr`` at step ``pct_start·total_steps - 1``, then to
    ``max_lr / (div_factor·final_div_factor)`` at step ``total_steps - 1``, and there it stays. In three phases it goes
    back to where it began as it came, and from there to the end.

    Parameters
    ----------
    optimizer : Optimizer
    max_lr : float, or list of float
        Above 0; a list has one for each parameter group. ``max_lr / div_factor`` becomes ``initial_lr``.
    total_steps : int, optional
        At least 1; otherwise ``epochs·steps_per_epoch``.
    epochs, steps_per_epoch : int, optional
        Each at least 1.
    pct_start : float, default 0.3
        The share of the steps that goes up, in [0, 1].
    anneal_strategy : {"cos", "linear"}, default "cos"
        The form of the ways.
    cycle_momentum : bool, default True
        Move ``momentum``, or ``betas[0]`` where there are betas, the other way.
    base_momentum : float, or list of float, default 0.85
        Lowest momentum, in [0, 1).
    max_momentum : float, or list of float, default 0.95
        Highest momentum, in [0, 1).
    div_factor : float, default 25.0
        Above 0.
    final_div_factor : float, default 1e4
        Above 0.
    three_phase : bool, default False
        Go back before the last descent.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range, or there is no momentum to move.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, OneCycleLR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> sched = OneCycleLR(opt, max_lr=1.0, total_steps=5, pct_start=0.6, anneal_strategy="linear", div_factor=2.0)
    >>> [round(rate, 4) for rate in sched.preview(5)[0]]
    [0.5, 0.75, 1.0, 0.5, 0.0001, 0.0001]

    Notes
    -----
    After the last step the rate stays, where torch raises. Source: L. N. Smith and N. Topin, "Super-Convergence", 2017.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "max_lr": positive_rates,
        "total_steps": at_least(1),
        "pct_start": between(0.0, 1.0),
        "anneal_strategy": choice("cos", "linear"),
        "cycle_momentum": validation.flag,
        "base_momentum": fractions,
        "max_momentum": fractions,
        "div_factor": _above(0.0),
        "final_div_factor": _above(0.0),
        "three_phase": validation.flag,
    }

    max_lr: float | list[float]
    total_steps: int
    pct_start: float
    anneal_strategy: str
    base_momentum: float | list[float]
    max_momentum: float | list[float]
    div_factor: float
    final_div_factor: float
    three_phase: bool

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        total = _steps_of(total_steps, epochs, steps_per_epoch)
        given: dict[str, Any] = {
            "max_lr": max_lr,
            "total_steps": total,
            "pct_start": pct_start,
            "anneal_strategy": anneal_strategy,
        }
        given |= {"cycle_momentum": cycle_momentum, "base_momentum": base_momentum, "max_momentum": max_momentum}
        given |= {"div_factor": div_factor, "final_div_factor": final_div_factor, "three_phase": three_phase}
        keep(self, given)
        super().__init__(optimizer, last_epoch, **common)

    def _anchor(self, number: int) -> float:
        """``max_lr / div_factor``."""
        return float(of_group("max_lr", self.max_lr, number) / self.div_factor)

    def _value(self, step: int, number: int) -> float:
        """The rate at ``step``."""
        high, start = of_group("max_lr", self.max_lr, number), self._anchor(number)
        return self._between(step, [start, high, *([start] if self.three_phase else []), start / self.final_div_factor])

    def _momentum(self, step: int, number: int) -> float:
        """The momentum at ``step``."""
        low, high = (of_group(name, getattr(self, name), number) for name in ("base_momentum", "max_momentum"))
        return self._between(step, [high, low, *([high] if self.three_phase else []), high])

    def _between(self, step: int, ends: list[float]) -> float:
        """What lies between the ends of the phases at a step."""
        up, last = self.pct_start * self.total_steps, self.total_steps - 1
        turns = [0.0, up - 1.0, *([2.0 * up - 2.0] if self.three_phase else []), float(last)]
        if step >= last:
            return ends[-1]
        phase = next((i for i in range(1, len(turns)) if step <= turns[i]), len(turns) - 1)
        length = turns[phase] - turns[phase - 1]
        share = (step - turns[phase - 1]) / length if length else 1.0
        start, end = ends[phase - 1], ends[phase]
        return annealed(start, end, share) if self.anneal_strategy == "cos" else start + (end - start) * share
