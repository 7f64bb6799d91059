"""Schedules made of schedules: one after the other, and all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from netcl.errors import HyperParameterError, StateError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules.schedule import Schedule
from netcl.optim.schedules.settings import (
    Check,
    ScheduleOptions,
    checked_kind,
    checked_names,
    counts,
    keep,
    read_settings,
    scheduled,
)
from netcl.validation import shown


def _parts(given: Any, optimizer: Any, hyper: Any) -> list[Schedule]:
    """Schedules of one hyper-parameter of an optimizer, which are part of no other yet."""
    try:
        if isinstance(given, str | bytes | Mapping):
            raise TypeError
        parts = list(given)
    except Exception:  # an array says in its own way that it has no items
        raise HyperParameterError(f"schedulers must be a list of schedules, got {shown(given)}") from None
    if not parts:
        raise HyperParameterError("schedulers must be a list of schedules, got an empty one; give at least one")
    for number, part in enumerate(parts):
        if not isinstance(part, Schedule):
            raise HyperParameterError(
                f"schedulers[{number}] must be a schedule that counts its steps, got {shown(part)}; a "
                "ReduceLROnPlateau goes beside them, on its own"
            )
        if part._owner is not None or part.place < 0 or part in parts[:number]:
            raise HyperParameterError(
                f"schedulers[{number}], a {type(part).__name__}, is part of another schedule, or here twice, or "
                "detached; build another one"
            )
        if part.optimizer is not optimizer or part.hyper != hyper:
            raise HyperParameterError(
                f"schedulers[{number}], a {type(part).__name__}, schedules the {part.hyper} of another optimizer or "
                f"another hyper-parameter than {hyper}; build them all for this one"
            )
        if part.scaler is not None:
            raise HyperParameterError(
                f"schedulers[{number}] has a scaler of its own; give scaler= to the schedule that steps them all"
            )
    return parts


class _Composed(Schedule):
    """A schedule that steps others, which leave the optimizer to it."""

    schedulers: list[Schedule]

    def _take(self, parts: list[Schedule], optimizer: Optimizer, last_epoch: int, common: ScheduleOptions) -> None:
        """Step these schedules from now on."""
        self.schedulers = parts
        groups = optimizer.param_groups
        earlier = [(group, group.schedules) for group in groups]
        for group, before in earlier:
            group.schedules = [each for each in before if each not in parts]
        try:
            super().__init__(optimizer, last_epoch, **common)
        except BaseException:
            for group, before in earlier:
                group.schedules = before
            raise
        for part in parts:
            part._owner = self
        self._move(self.last_step)

    def _fit(self) -> None:
        for part in self.schedulers:
            part._fit()

    def _anchor(self, number: int) -> float | None:
        """That of the first schedule which has one."""
        return next((found for part in self.schedulers if (found := part._anchor(number)) is not None), None)

    def lr_at(self, step: int, base_lr: float) -> float:
        """What the schedules make of a base, in the first parameter group."""
        return self._scaled(step, 0, base_lr, base_lr)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "schedulers": [part._own_state() for part in self.schedulers]}

    def _read_own(self, state: Any, *, outer: bool) -> tuple[list[tuple[Schedule, dict[str, Any]]], bool]:
        kind = type(self).__name__
        checked_kind(kind, state)
        names = ["last_step", "base_lrs", "lrs", "hyper", "steps_skipped"] if outer else []
        checked_names(kind, state, ["schedule", *self.SETTINGS, "schedulers", *names])
        given = state["schedulers"]
        if not isinstance(given, list | tuple) or len(given) != len(self.schedulers):
            raise StateError(
                f"schedulers of the schedule's state must be a list of the states of {len(self.schedulers)} "
                f"schedule(s), got {shown(given)}; build the schedule of the same ones"
            )
        changes: list[tuple[Schedule, dict[str, Any]]] = [(self, read_settings(type(self), state))]
        for part, each in zip(self.schedulers, given, strict=True):
            changes += part._read_own(each, outer=False)[0]
        return changes, True


class SequentialLR(_Composed):
    """One schedule after the other, each from its own step 0.

    From milestone i on ``lr(s)`` is that of schedule i + 1 at step ``s - milestones[i]``, of ``lr_0``.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of Schedule
        Of this optimizer. They are stepped and saved by this one from now on.
    milestones : list of int
        The steps at which the next one begins: one fewer than schedules, each at least 1 and above the one before.
    **common

    Raises
    ------
    HyperParameterError
        If the milestones do not fit, or a schedule is of another optimizer or part of another one.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, ConstantLR, ExponentialLR, SequentialLR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> parts = [ConstantLR(opt, factor=0.5, total_iters=9), ExponentialLR(opt, gamma=0.5)]
    >>> SequentialLR(opt, parts, milestones=[2]).preview(4)
    [[0.5, 0.5, 1.0, 0.5, 0.25]]

    Notes
    -----
    Each begins from ``initial_lr``. In torch one without a closed form goes on from where the one before it ended.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {"milestones": counts}

    milestones: list[int]

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[Schedule],
        milestones: Sequence[int],
        last_epoch: int = -1,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        hyper = common.get("hyper", "lr")
        scheduled(optimizer, validation.text("hyper", hyper))
        parts = _parts(schedulers, optimizer, hyper)
        keep(self, {"milestones": milestones})
        self._take(parts, optimizer, last_epoch, common)

    def _fit(self) -> None:
        super()._fit()
        ends = self.milestones
        if len(ends) != len(self.schedulers) - 1:
            raise HyperParameterError(
                f"milestones must have one step fewer than there are schedulers, {len(self.schedulers) - 1}, got "
                f"{len(ends)}"
            )
        if any(end <= before for before, end in zip([0, *ends], ends, strict=False)):
            raise HyperParameterError(f"milestones must each be at least 1 and different, got {ends}")

    def _active(self, step: int) -> tuple[Schedule, int]:
        """The schedule of a step, and its own step."""
        index = bisect_right(self.milestones, step)
        return self.schedulers[index], step - (self.milestones[index - 1] if index else 0)

    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """What the schedule of this step makes of it."""
        part, own = self._active(step)
        return part._scaled(own, number, base, value)

    def _beside(self, step: int, number: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """What the schedule of this step sets."""
        part, own = self._active(step)
        return part._beside(own, number, group)

    def _move(self, step: int) -> None:
        part, own = self._active(step)
        part.last_step = own
        part._move(own)


class ChainedScheduler(_Composed):
    """Several schedules at once, which multiply.

    ``lr(s) = lr_0·f_1(s)·f_2(s)·…``, as without it: it steps and saves them together.

    Parameters
    ----------
    schedulers : list of Schedule
        Of one optimizer. They are stepped and saved by this one from now on.
    optimizer : Optimizer, optional
        By default that of the schedules.
    **common

    Raises
    ------
    HyperParameterError
        If a schedule is of another optimizer or part of another one.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, ChainedScheduler, ConstantLR, ExponentialLR
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> parts = [ConstantLR(opt, factor=0.5, total_iters=2), ExponentialLR(opt, gamma=0.5)]
    >>> ChainedScheduler(parts).preview(3)
    [[0.5, 0.25, 0.25, 0.125]]
    """

    def __init__(
        self,
        schedulers: Sequence[Schedule],
        optimizer: Optimizer | None = None,
        **common: Unpack[ScheduleOptions],
    ) -> None:
        hyper = validation.text("hyper", common.get("hyper", "lr"))
        if optimizer is None and isinstance(schedulers, list | tuple) and schedulers:
            optimizer = getattr(schedulers[0], "optimizer", None)
        parts = _parts(schedulers, optimizer, hyper)
        self._starts = [part.last_step for part in parts]
        self._take(parts, scheduled(optimizer, hyper), -1, common)

    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """What the schedules make of it, one after the other."""
        for part, start in zip(self.schedulers, self._starts, strict=True):
            value = part._scaled(start + step, number, base, value)
        return value

    def _beside(self, step: int, number: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """What the schedules set; where two set the same, the last of them."""
        found: dict[str, Any] = {}
        for part, start in zip(self.schedulers, self._starts, strict=True):
            found |= part._beside(start + step, number, {**group, **found})
        return found

    def _move(self, step: int) -> None:
        for part, start in zip(self.schedulers, self._starts, strict=True):
            part.last_step = start + step
            part._move(part.last_step)
