"""Learning-rate schedules: closed forms of an integer, and the one that watches a metric.

A schedule scales every parameter group from the learning rate it had when the schedule was made. It touches the host
alone and never blocks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, SupportsFloat

from netcl.errors import HyperParameterError, StateError
from netcl.optim import checks
from netcl.optim.optimizer import Optimizer


class Schedule(ABC):
    """A learning rate that is a function of how often :meth:`step` was called, and of nothing else."""

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise HyperParameterError(f"a schedule takes an optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.last_step = 0
        self._apply()

    @abstractmethod
    def lr_at(self, step: int, base_lr: float) -> float:
        """The learning rate after ``step`` calls, for a group that began with ``base_lr``."""

    def step(self) -> None:
        """Go on by one and set the learning rates."""
        self.last_step += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {"last_step": self.last_step, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Raises
        ------
        StateError
            If an entry is missing or there is another number of parameter groups; nothing is changed then.
        """
        _check_state(state, self.state_dict())
        if len(state["base_lrs"]) != len(self.optimizer.param_groups):
            raise StateError(
                f"the state has {len(state['base_lrs'])} parameter group(s) and the optimizer "
                f"{len(self.optimizer.param_groups)}; build the optimizer with the same groups"
            )
        self.last_step, self.base_lrs = int(state["last_step"]), list(state["base_lrs"])
        self._apply()

    def _apply(self) -> None:
        # Groups added later keep their own rate.
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=False):
            group["lr"] = self.lr_at(self.last_step, base_lr)


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

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = checks.whole("T_max", T_max, 1)
        self.eta_min = checks.not_negative("eta_min", eta_min)
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

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        eta_min: float = 0.0,
        warmup_start: float = 0.0,
    ) -> None:
        self.warmup_steps = checks.whole("warmup_steps", warmup_steps, 0)
        self.total_steps = checks.whole("total_steps", total_steps, 1)
        if self.total_steps <= self.warmup_steps:
            raise HyperParameterError(
                f"total_steps must exceed warmup_steps={warmup_steps}, got {total_steps}; it counts the warmup too"
            )
        self.eta_min = checks.not_negative("eta_min", eta_min)
        self.warmup_start = checks.not_negative("warmup_start", warmup_start)
        if self.warmup_start > 1.0:
            raise HyperParameterError(f"warmup_start must lie in [0, 1], got {warmup_start!r}")
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
        if not isinstance(optimizer, Optimizer):
            raise HyperParameterError(f"a schedule takes an optimizer, got {type(optimizer).__name__}")
        if mode not in ("min", "max"):
            raise HyperParameterError(f'mode must be "min" or "max", got {mode!r}')
        if threshold_mode not in ("rel", "abs"):
            raise HyperParameterError(f'threshold_mode must be "rel" or "abs", got {threshold_mode!r}')
        self.factor = checks.positive("factor", factor)
        if self.factor >= 1.0:
            raise HyperParameterError(f"factor must lie in (0, 1), got {factor!r}; it multiplies the learning rate")
        self.optimizer = optimizer
        self.mode = mode
        self.patience = checks.whole("patience", patience, 0)
        self.threshold = checks.not_negative("threshold", threshold)
        self.threshold_mode = threshold_mode
        self.cooldown = checks.whole("cooldown", cooldown, 0)
        self.min_lr = checks.not_negative("min_lr", min_lr)
        self.eps = checks.not_negative("eps", eps)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    def step(self, metric: SupportsFloat) -> None:
        """Take one measurement. **Blocks** if it is a Tensor, whose value has to be read."""
        try:
            value = float(metric)
        except (TypeError, ValueError):
            raise HyperParameterError(f"step takes the measured metric, a number, got {metric!r}") from None
        if self._improves(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {
            "best": self.best,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "lrs": self.get_last_lr(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Raises
        ------
        StateError
            If an entry is missing or there is another number of parameter groups; nothing is changed then.
        """
        _check_state(state, self.state_dict())
        groups = self.optimizer.param_groups
        if len(state["lrs"]) != len(groups):
            raise StateError(
                f"the state has {len(state['lrs'])} parameter group(s) and the optimizer {len(groups)}; "
                "build the optimizer with the same groups"
            )
        self.best = float(state["best"])
        self.num_bad_epochs = int(state["num_bad_epochs"])
        self.cooldown_counter = int(state["cooldown_counter"])
        for group, lr in zip(groups, state["lrs"], strict=True):
            group["lr"] = lr

    def _improves(self, value: float) -> bool:
        if math.isinf(self.best):
            return value < self.best if self.mode == "min" else value > self.best
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def _reduce(self) -> None:
        for group in self.optimizer.param_groups:
            lower = max(group["lr"] * self.factor, self.min_lr)
            if group["lr"] - lower > self.eps:
                group["lr"] = lower


def _check_state(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in expected:
        if name not in state:
            raise StateError(f"the schedule's state lacks {name!r}; it has {', '.join(map(str, state)) or 'nothing'}")
