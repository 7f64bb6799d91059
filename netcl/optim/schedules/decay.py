"""Schedules that multiply by a factor of the step alone: constant, linear, steps, powers, functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, Unpack

from netcl.errors import StateError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules.schedule import Schedule
from netcl.optim.schedules.settings import (
    Check,
    ScheduleOptions,
    at_least,
    between,
    called,
    checked_kind,
    counts,
    fitting,
    functions,
    keep,
    loaded_count,
    of_group,
    positive_fraction,
)
from netcl.validation import real, shown

Factors: TypeAlias = "Callable[[int], float] | Sequence[Callable[[int], float]]"


class ConstantLR(Schedule):
    """Multiply by ``factor`` until ``total_iters``.

    ``lr(s) = lr_0·factor`` for s < ``total_iters``, then ``lr_0``.

    Parameters
    ----------
    optimizer : Optimizer
    factor : float, default 1/3
        In [0, 1].
    total_iters : int, default 5
        Steps until ``lr_0``, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, ConstantLR
    >>> sched = ConstantLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), factor=0.5, total_iters=2)
    >>> sched.preview(3)
    [[0.5, 0.5, 1.0, 1.0]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"factor": between(0.0, 1.0), "total_iters": at_least(0)}

    factor: float
    total_iters: int

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3.0,
        total_iters: int = 5,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"factor": factor, "total_iters": total_iters})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        return base_lr * self.factor if step < self.total_iters else base_lr


class LinearLR(Schedule):
    """Go from one factor to another along a line: a warmup, or a decay.

    ``lr(s) = lr_0·(a + (b - a)·min(s, total_iters) / total_iters)`` with a = ``start_factor``, b = ``end_factor``.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float, default 1/3
        In (0, 1].
    end_factor : float, default 1.0
        In [0, 1].
    total_iters : int, default 5
        Steps until ``end_factor``, at least 1.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, LinearLR
    >>> sched = LinearLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), start_factor=0.5, total_iters=2)
    >>> sched.preview(3)
    [[0.5, 0.75, 1.0, 1.0]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {
        "start_factor": positive_fraction,
        "end_factor": between(0.0, 1.0),
        "total_iters": at_least(1),
    }

    start_factor: float
    end_factor: float
    total_iters: int

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3.0,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"start_factor": start_factor, "end_factor": end_factor, "total_iters": total_iters})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        share = min(step, self.total_iters) / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * share)


class StepLR(Schedule):
    """Multiply by ``gamma`` every ``step_size`` steps.

    ``lr(s) = lr_0·gamma^⌊s / step_size⌋``

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        At least 1.
    gamma : float, default 0.1
        At least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, StepLR
    >>> sched = StepLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), step_size=2, gamma=0.5)
    >>> sched.preview(4)
    [[1.0, 1.0, 0.5, 0.5, 0.25]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"step_size": at_least(1), "gamma": validation.not_negative}

    step_size: int
    gamma: float

    def __init__(
        self,
        optimizer: Optimizer,
        step_size: int,
        gamma: float = 0.1,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"step_size": step_size, "gamma": gamma})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        return base_lr * _power(self.gamma, step // self.step_size)


class MultiStepLR(Schedule):
    """Multiply by ``gamma`` at each milestone.

    ``lr(s) = lr_0·gamma^k`` with k the number of milestones of at most s; one given twice counts twice.

    Parameters
    ----------
    optimizer : Optimizer
    milestones : iterable of int
        Steps, each at least 0, in any order.
    gamma : float, default 0.1
        At least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, MultiStepLR
    >>> sched = MultiStepLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), milestones=[1, 3], gamma=0.5)
    >>> sched.preview(4)
    [[1.0, 0.5, 0.5, 0.25, 0.25]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"milestones": counts, "gamma": validation.not_negative}

    milestones: list[int]
    gamma: float

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"milestones": milestones, "gamma": gamma})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        return base_lr * _power(self.gamma, bisect_right(self.milestones, step))


class ExponentialLR(Schedule):
    """Multiply by ``gamma`` at each step.

    ``lr(s) = lr_0·gamma^s``

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
        At least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, ExponentialLR
    >>> sched = ExponentialLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), gamma=0.5)
    >>> sched.preview(3)
    [[1.0, 0.5, 0.25, 0.125]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"gamma": validation.not_negative}

    gamma: float

    def __init__(
        self, optimizer: Optimizer, gamma: float, last_epoch: int = -1, **common: Unpack[ScheduleOptions]
    ) -> None:
        keep(self, {"gamma": gamma})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        return base_lr * _power(self.gamma, step)


class PolynomialLR(Schedule):
    """Decay to 0 along a power of a line.

    ``lr(s) = lr_0·(1 - min(s, total_iters) / total_iters)^power``

    Parameters
    ----------
    optimizer : Optimizer
    total_iters : int, default 5
        Steps until 0, at least 1.
    power : float, default 1.0
        At least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, PolynomialLR
    >>> sched = PolynomialLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), total_iters=2, power=2.0)
    >>> sched.preview(3)
    [[1.0, 0.25, 0.0, 0.0]]
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"total_iters": at_least(1), "power": validation.not_negative}

    total_iters: int
    power: float

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        keep(self, {"total_iters": total_iters, "power": power})
        super().__init__(optimizer, last_epoch, **common)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``."""
        left = (self.total_iters - min(step, self.total_iters)) / self.total_iters
        return float(base_lr * left**self.power)


class LambdaLR(Schedule):
    """Multiply by a function of the step.

    ``lr(s) = lr_0·lr_lambda(s)``

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or list of callable
        ``lr_lambda(step)`` returns the factor, at least 0; a list has one for each parameter group. No part of the
        state: build the schedule with the same functions.
    **common

    Raises
    ------
    HyperParameterError
        If what is given cannot be called, or a factor is no number of at least 0.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, LambdaLR
    >>> sched = LambdaLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), lambda step: 1 / (step + 1))
    >>> sched.preview(3)[0][-1]
    0.25

    Notes
    -----
    Multiplies with other schedules, where torch's overwrites what those before it made.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Factors, last_epoch: int = -1, **common: Unpack[ScheduleOptions]
    ) -> None:
        self.lr_lambda = functions("lr_lambda", lr_lambda)
        super().__init__(optimizer, last_epoch, **common)

    def _fit(self) -> None:
        fitting(self.optimizer, {"lr_lambda": self.lr_lambda})

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``, in the first parameter group."""
        return self._rate(step, 0, base_lr)

    def _rate(self, step: int, number: int, base: float) -> float:
        """The formula in one parameter group."""
        return base * _factor(of_group("lr_lambda", self.lr_lambda, number), step)


class MultiplicativeLR(Schedule):
    """Multiply by one more value of a function at each step.

    ``lr(s) = lr_0·lr_lambda(1)·lr_lambda(2)·…·lr_lambda(s)``

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or list of callable
        ``lr_lambda(step)`` returns the factor, at least 0; a list has one for each parameter group. No part of the
        state: build the schedule with the same functions.
    **common

    Raises
    ------
    HyperParameterError
        If what is given cannot be called, or a factor is no number of at least 0.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, MultiplicativeLR
    >>> sched = MultiplicativeLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), lambda step: 0.5)
    >>> sched.preview(3)
    [[1.0, 0.5, 0.25, 0.125]]

    Notes
    -----
    The product is part of the state, so that a run that goes on has its bits and calls no function for the past.
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Factors, last_epoch: int = -1, **common: Unpack[ScheduleOptions]
    ) -> None:
        self.lr_lambda = functions("lr_lambda", lr_lambda)
        several = isinstance(self.lr_lambda, list)
        self._products: list[tuple[int, float]] = [(0, 1.0)] * (len(self.lr_lambda) if several else 1)
        super().__init__(optimizer, last_epoch, **common)

    def _fit(self) -> None:
        fitting(self.optimizer, {"lr_lambda": self.lr_lambda})

    def lr_at(self, step: int, base_lr: float) -> float:
        """The formula above at s = ``step``, in the first parameter group."""
        return self._rate(step, 0, base_lr)

    def _rate(self, step: int, number: int, base: float) -> float:
        """The formula in one parameter group."""
        function, index = of_group("lr_lambda", self.lr_lambda, number), min(number, len(self._products) - 1)
        return base * self._product(function, index, step)[1]

    def _product(self, function: Callable[[int], float], index: int, step: int) -> tuple[int, float]:
        known, product = self._products[index]
        if known > step:
            known, product = 0, 1.0
        for each in range(known + 1, step + 1):
            product *= _factor(function, each)
        return step, product

    def _move(self, step: int) -> None:
        self._products = [
            self._product(of_group("lr_lambda", self.lr_lambda, index), index, step)
            for index in range(len(self._products))
        ]

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "products": [list(each) for each in self._products]}

    def _read_own(self, state: Any, *, outer: bool) -> tuple[list[tuple[Schedule, dict[str, Any]]], bool]:
        checked_kind(type(self).__name__, state)
        for name in ("schedule", "products"):
            if name not in state:
                raise StateError(
                    f"the schedule's state lacks {name!r}; it has {', '.join(map(str, state)) or 'nothing'}, and must "
                    "come from state_dict()"
                )
        changes, whole = super()._read_own({k: v for k, v in state.items() if k != "products"}, outer=outer)
        given = state["products"]
        if not isinstance(given, list | tuple) or len(given) != len(self._products):
            raise StateError(
                f"products of the schedule's state must be a list of {len(self._products)} pair(s) of a step and a "
                f"product, got {shown(given)}"
            )
        products = []
        for pair in given:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise StateError(f"a product of the schedule's state is a pair of step and product, got {shown(pair)}")
            product = real("a product of the schedule's state", pair[1], least=0.0, error=StateError)
            products.append((loaded_count("the step of a product", pair[0]), product))
        return [*changes, (self, {"_products": products})], whole


def _factor(function: Callable[[int], float], step: int) -> float:
    return called("lr_lambda", function, step, least=0.0)


def _power(gamma: float, exponent: int) -> float:
    """``gamma**exponent``, infinite where it is too large, so that the hyper-parameter's check refuses it."""
    try:
        return float(gamma**exponent)
    except OverflowError:
        return float("inf")
