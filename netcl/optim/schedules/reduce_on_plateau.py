"""ReduceLROnPlateau: the learning-rate schedule that watches a metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, SupportsFloat

from netcl.errors import ArgumentError, HyperParameterError, StateError
from netcl.optim import validation
from netcl.optim.engine.group import base_name, read
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules import composition
from netcl.optim.schedules.composition import Scaling
from netcl.optim.schedules.settings import (
    Check,
    at_least,
    check_hyper,
    checked_settings,
    choice,
    fitting,
    inside,
    loaded_count,
    loaded_rates,
    loaded_settings,
    of_group,
    rates,
    scheduled,
)
from netcl.validation import real, shown

_NAMES = ("best", "num_bad_epochs", "cooldown_counter", "lrs")


def _measured(metric: Any) -> float:
    """The value of a measurement, which may be NaN or infinite."""
    try:
        if isinstance(metric, bool | str | bytes) or getattr(metric, "shape", ()) != ():
            raise TypeError
        return float(metric)
    except (TypeError, ValueError, OverflowError):
        raise HyperParameterError(f"step takes the measured metric, a number, got {shown(metric)}") from None


class ReduceLROnPlateau(Scaling):
    """Multiply the learning rate by ``factor`` when a metric has stopped improving.

    A reduction multiplies with other schedules, so that their next steps keep it.

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
    min_lr : float, or list of float, default 0.0
        Lowest learning rate that a reduction leads to; a list has one for each parameter group.
    eps : float, default 1e-8
        A reduction smaller than this is left out.
    hyper : str, default "lr"
        The hyper-parameter, if not the learning rate.

    Raises
    ------
    HyperParameterError
        If a value is out of range, or the groups have no such hyper-parameter.

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
        "mode": choice("min", "max"),
        "factor": inside(0.0, 1.0),
        "patience": at_least(0),
        "threshold": validation.not_negative,
        "threshold_mode": choice("rel", "abs"),
        "cooldown": at_least(0),
        "min_lr": rates,
        "eps": validation.not_negative,
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
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
        *,
        hyper: str = "lr",
    ) -> None:
        self.mode: str
        self.factor: float
        self.patience: int
        self.threshold: float
        self.threshold_mode: str
        self.cooldown: int
        self.min_lr: float | list[float]
        self.eps: float
        given = {"mode": mode, "factor": factor, "patience": patience, "threshold": threshold}
        given |= {"threshold_mode": threshold_mode, "cooldown": cooldown, "min_lr": min_lr, "eps": eps}
        self.__dict__.update(checked_settings(type(self), given))
        self.hyper = validation.text("hyper", hyper)
        self.optimizer = scheduled(optimizer, self.hyper)
        fitting(self.optimizer, {"min_lr": self.min_lr})
        self.place = composition.next_place(optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._factors: list[float] = []
        composition.apply(self, self._bases(), self._values())

    @property
    def position(self) -> int:
        """None is counted: what it makes depends on the metric alone."""
        return 0

    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """``value`` times the product of the reductions of this parameter group."""
        return value * (self._factors[number] if number < len(self._factors) else 1.0)

    def step(self, metric: SupportsFloat) -> None:
        """Take one measurement. **Blocks** if it is a Tensor, whose value has to be read.

        Raises
        ------
        HyperParameterError
            If it is not a number; nothing is changed then.
        ArgumentError
            If the schedule was detached.
        """
        if self.place < 0:
            raise ArgumentError("step() of a ReduceLROnPlateau that was detached; build another one")
        value = _measured(metric)
        improves = self._improves(value)
        bad = 0 if improves or self.cooldown_counter > 0 else self.num_bad_epochs + 1
        cooldown = max(self.cooldown_counter - 1, 0)
        if bad > self.patience:
            self._reduce()
            bad, cooldown = 0, self.cooldown
        self.best = value if improves else self.best
        self.num_bad_epochs, self.cooldown_counter = bad, cooldown

    def get_last_lr(self) -> list[float]:
        """The learning rate, or what else is scheduled, of each parameter group."""
        return self._values()

    def detach(self) -> None:
        """Leave the optimizer: its rates become what the other schedules make of ``initial_lr``, and ``step`` ends."""
        if self.place >= 0:
            composition.detach(self)
            self.place = -1

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        name, groups = base_name(self.hyper), list(zip(self.optimizer.param_groups, self._joined(), strict=True))
        return {
            "schedule": type(self).__name__,
            "best": self.best,
            "num_bad_epochs": self.num_bad_epochs,
            "cooldown_counter": self.cooldown_counter,
            "lrs": self._values(),
            "base_lrs": [group.get(name) if there else None for group, there in groups],
            "factors": [self._scaled(0, number, 1.0, 1.0) for number in range(len(groups))],
            **{name: getattr(self, name) for name in self.SETTINGS},
            **({} if self.hyper == "lr" else {"hyper": self.hyper}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, with the settings that it holds.

        Raises
        ------
        StateError
            If it is of another kind of schedule, another hyper-parameter or another number of parameter groups, or an
            entry is missing, unknown or out of range; nothing is changed then.
        """
        later = ("base_lrs", "factors", *(() if self.hyper == "lr" else ("hyper",)))
        if isinstance(state, Mapping) and state.get("schedule") == type(self).__name__:
            check_hyper(self.hyper, state.get("hyper", "lr"))
        settings, whole = loaded_settings(self, state, _NAMES, later)
        best = real("best of the schedule's state", state["best"], finite=False, error=StateError)
        bad, cooldown = (loaded_count(name, state[name]) for name in ("num_bad_epochs", "cooldown_counter"))
        groups = self.optimizer.param_groups
        saved = loaded_rates("lrs", state["lrs"], len(groups))
        bases: list[float | None] = list(self._bases())
        if whole:
            given, joined = composition.loaded_bases(state)
            starts = loaded_rates("base_lrs", given, len(groups))
            bases = [start if there else None for start, there in zip(starts, joined, strict=True)]
            factors = loaded_rates("factors", state["factors"], len(groups))
        else:
            factors = [self._factor_of(number, rate) for number, rate in enumerate(saved)]
        earlier = dict(self.__dict__)
        self.__dict__.update(settings, best=best, num_bad_epochs=bad, cooldown_counter=cooldown, _factors=factors)
        try:
            fitting(self.optimizer, {"min_lr": self.min_lr})
            composition.apply(self, bases, saved)
        except HyperParameterError as error:
            self.__dict__.update(earlier)
            raise composition.refuse_misfit(error) from error

    def _factor_of(self, number: int, rate: float) -> float:
        """What makes this rate of what the other schedules make."""
        group = self.optimizer.param_groups[number]
        others = [each for each in group.schedules if each is not self]
        value = composition.made(others, self.hyper, number, composition.base(group, self.hyper))
        return rate / value if value else 1.0

    def _improves(self, value: float) -> bool:
        if math.isinf(self.best):
            return value < self.best if self.mode == "min" else value > self.best
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def _reduce(self) -> None:
        factors, reached = [], []
        for number, group in enumerate(self.optimizer.param_groups):
            rate = read(group, self.hyper)
            lower = max(rate * self.factor, of_group("min_lr", self.min_lr, number))
            reduces = rate - lower > self.eps
            reached.append(lower if reduces else rate)
            factors.append(self._scaled(0, number, 1.0, 1.0) * (lower / rate if reduces else 1.0))
        earlier, self._factors = self._factors, factors
        try:
            composition.apply(self, list(self._bases()), reached)
        except BaseException:
            self._factors = earlier
            raise
