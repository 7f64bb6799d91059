"""Schedules along a cosine, with warmup, restarts or a constant stretch, and that of stochastic weight averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules.schedule import Schedule
from netcl.optim.schedules.settings import (
    Check,
    ScheduleOptions,
    at_least,
    between,
    choice,
    fitting,
    keep,
    of_group,
    rates,
)


def annealed(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a wave, for a share of the way."""
    return end + (start - end) * (1.0 + math.cos(math.pi * share)) / 2.0


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
    **common

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

    T_max: int
    eta_min: float

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"T_max": T_max, "eta_min": eta_min})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at e = ``step``."""
        return annealed(base_lr, self.eta_min, step / self.T_max)


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
    **common

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

    warmup_steps: int
    total_steps: int
    eta_min: float
    warmup_start: float

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        eta_min: float = 0.0,
        warmup_start: float = 0.0,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        given = {
            "warmup_steps": warmup_steps,
            "total_steps": total_steps,
            "eta_min": eta_min,
            "warmup_start": warmup_start,
        }
        keep(self, given)
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        if step < self.warmup_steps:
            return base_lr * (self.warmup_start + (1.0 - self.warmup_start) * step / self.warmup_steps)
        if step >= self.total_steps:
            return self.eta_min
        return annealed(base_lr, self.eta_min, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))


class WarmupStableDecay(Schedule):
    """Warm up along a line, stay, then decay: a run can be prolonged before its decay begins.

    For s < ``warmup_steps``: ``lr_0·(f + (1 - f)·s / warmup_steps)`` with f = ``warmup_start``; for the next
    ``stable_steps``: ``lr_0``; then, with x the share of ``decay_steps`` that is over:
    ``eta_min + (lr_0 - eta_min)·d(x)``; afterwards ``eta_min``. The decay d is ``1 - x`` ("linear"),
    ``(1 + cos(π·x)) / 2`` ("cos") or ``1 - sqrt(x)`` ("sqrt").

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps : int
        Steps until ``lr_0`` is reached, at least 0.
    stable_steps : int
        Steps at ``lr_0``, at least 0.
    decay_steps : int
        Steps from ``lr_0`` to ``eta_min``, at least 1.
    eta_min : float, default 0.0
        Lowest learning rate of the decay, at least 0.
    warmup_start : float, default 0.0
        Fraction of ``lr_0`` at step 0, in [0, 1].
    decay : {"linear", "cos", "sqrt"}, default "linear"
        The form of the decay.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, WarmupStableDecay
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> WarmupStableDecay(opt, warmup_steps=2, stable_steps=2, decay_steps=2).preview(6)
    [[0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]]

    Notes
    -----
    Source: S. Hu et al., "MiniCPM", 2024; the root: A. Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", 2024.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "warmup_steps": at_least(0),
        "stable_steps": at_least(0),
        "decay_steps": at_least(1),
        "eta_min": validation.not_negative,
        "warmup_start": between(0.0, 1.0),
        "decay": choice("linear", "cos", "sqrt"),
    }

    warmup_steps: int
    stable_steps: int
    decay_steps: int
    eta_min: float
    warmup_start: float
    decay: str

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        eta_min: float = 0.0,
        warmup_start: float = 0.0,
        decay: str = "linear",
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        given = {"warmup_steps": warmup_steps, "stable_steps": stable_steps, "decay_steps": decay_steps}
        keep(self, {**given, "eta_min": eta_min, "warmup_start": warmup_start, "decay": decay})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        if step < self.warmup_steps:
            return base_lr * (self.warmup_start + (1.0 - self.warmup_start) * step / self.warmup_steps)
        over = step - self.warmup_steps - self.stable_steps
        if over <= 0:
            return base_lr
        if over >= self.decay_steps:
            return self.eta_min
        share = over / self.decay_steps
        if self.decay == "cos":
            return annealed(base_lr, self.eta_min, share)
        return self.eta_min + (base_lr - self.eta_min) * (1.0 - (share if self.decay == "linear" else math.sqrt(share)))


class CosineAnnealingWarmRestarts(Schedule):
    """Anneal along a cosine, and begin again.

    ``lr(s) = eta_min + (lr_0 - eta_min)·(1 + cos(π·c / T)) / 2``, with c the steps since the last restart and T the
    length of the period: ``T_0``, and ``T_mult`` times longer after each restart.

    Parameters
    ----------
    optimizer : Optimizer
    T_0 : int
        Steps until the first restart, at least 1.
    T_mult : int, default 1
        At least 1.
    eta_min : float, default 0.0
        Lowest learning rate, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, CosineAnnealingWarmRestarts
    >>> sched = CosineAnnealingWarmRestarts(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), T_0=2)
    >>> [round(rate, 6) for rate in sched.preview(4)[0]]
    [1.0, 0.5, 1.0, 0.5, 1.0]

    Notes
    -----
    Source: I. Loshchilov and F. Hutter, "SGDR", 2016.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "T_0": at_least(1),
        "T_mult": at_least(1),
        "eta_min": validation.not_negative,
    }

    T_0: int
    T_mult: int
    eta_min: float

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"T_0": T_0, "T_mult": T_mult, "eta_min": eta_min})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        period = self.T_0
        if self.T_mult == 1:
            step %= period
        while step >= period:
            step -= period
            period *= self.T_mult
        return annealed(base_lr, self.eta_min, step / period)


class SWALR(Schedule):
    """Go from whatever the other schedules make to a constant rate, for stochastic weight averaging.

    ``lr(s) = (1 - a(x))·r + a(x)·swa_lr`` with x = ``min(s / anneal_epochs, 1)``, r the rate that the schedules before
    this one make of ``lr_0``, and a(x) = ``(1 - cos(π·x)) / 2`` or x. With ``anneal_epochs=0`` it is ``swa_lr``.

    Parameters
    ----------
    optimizer : Optimizer
    swa_lr : float, or list of float
        The last rate, at least 0; a list has one for each parameter group.
    anneal_epochs : int, default 10
        Steps until ``swa_lr``, at least 0.
    anneal_strategy : {"cos", "linear"}, default "cos"
        The form of a.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, SWALR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> SWALR(opt, swa_lr=0.5, anneal_epochs=2, anneal_strategy="linear").preview(3)
    [[1.0, 0.75, 0.5, 0.5]]

    Notes
    -----
    Begin to call ``step`` when the averaging begins. The last rate is absolute: neither an assigned ``lr`` nor a
    schedule of before changes it. Source: P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization", 2018.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "swa_lr": rates,
        "anneal_epochs": at_least(0),
        "anneal_strategy": choice("cos", "linear"),
    }

    swa_lr: float | list[float]
    anneal_epochs: int
    anneal_strategy: str

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"swa_lr": swa_lr, "anneal_epochs": anneal_epochs, "anneal_strategy": anneal_strategy})
        super().__init__(optimizer, last_epoch, **common)

    def _fit(self) -> None:
        fitting(self.optimizer, {"swa_lr": self.swa_lr})

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step`` for r = ``base_lr``, in the first parameter group."""
        return self._rate(step, 0, base_lr)

    def _rate(self, step: int, number: int, base: float) -> float:
        """The formula in one parameter group."""
        share = min(step / self.anneal_epochs, 1.0) if self.anneal_epochs else 1.0
        weight = (1.0 - math.cos(math.pi * share)) / 2.0 if self.anneal_strategy == "cos" else share
        last: float = of_group("swa_lr", self.swa_lr, number)
        return last * weight + base * (1.0 - weight)

    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """The formula of what the schedules before this one make."""
        return self._rate(step, number, value)
