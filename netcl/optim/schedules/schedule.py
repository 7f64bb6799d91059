"""Schedule: a hyper-parameter as a function of how often ``step`` was called."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

from netcl.amp.scaler import GradScaler
from netcl.errors import ArgumentError, HyperParameterError
from netcl.optim.engine.group import base_name
from netcl.optim.optimizer import Optimizer
from netcl.optim.schedules import composition
from netcl.optim.schedules.composition import Scaling
from netcl.optim.schedules.settings import (
    Check,
    ScheduleOptions,
    check_hyper,
    checked_kind,
    checked_names,
    declare,
    loaded_count,
    loaded_rates,
    loaded_settings,
    options_of,
    read_settings,
    scheduled,
)
from netcl.validation import integer, shown

_LATER = ("lrs", "hyper", "steps_skipped")
"""Entries of a state that those from before schedules multiplied do not have."""

_MOST_SHOWN = 10**6
"""Up to so many steps a list of values is of use."""


class Schedule(Scaling):
    """A hyper-parameter that is a function of how often :meth:`step` was called, and of nothing else.

    In each parameter group the schedules of one hyper-parameter multiply::

        lr = initial_lr·f_1·f_2·…          where f_i = lr_at(step_i, initial_lr) / initial_lr

    and alone a schedule gives ``lr_at`` itself. ``initial_lr`` is the learning rate that the group had when its first
    schedule was made, or when it joined an optimizer with one. Assigning ``lr`` scales it by the same ratio, so that
    schedules go on from the assigned rate.

    A schedule of one's own gives :meth:`lr_at`. One with settings checks them before it calls this constructor, keeps
    each as an attribute, and names them in ``SETTINGS``: they then are part of the state.

    Parameters
    ----------
    optimizer : Optimizer
        A group that is added later takes part from the next step on. The schedule stays with it until :meth:`detach`.
    **common

    Attributes
    ----------
    SETTINGS : mapping of str to callable
        The attributes that belong to the state, each with the check of its value: ``check(name, value)`` returns what
        to keep or raises HyperParameterError.
    CHECK_TOGETHER : callable or None
        Refuses settings that do not go together.
    last_step : int
        How often ``step`` was called, less the steps that were skipped.

    Raises
    ------
    HyperParameterError
        If a value is out of range, or the groups have no such hyper-parameter.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, Schedule
    >>> class InverseRoot(Schedule):
    ...     def lr_at(self, step, base_lr):
    ...         return base_lr / (step + 1) ** 0.5
    >>> opt = SGD([netcl.ones(1, requires_grad=True)], lr=1.0)
    >>> sched = InverseRoot(opt)
    >>> for _ in range(3):
    ...     sched.step()
    >>> opt.lr
    0.5

    Notes
    -----
    A closed form, where torch goes from one value to the next: nothing adds up, and a rate of 0 does not stay 0.
    """

    SETTINGS: ClassVar[Mapping[str, Check]] = {}
    CHECK_TOGETHER: ClassVar[staticmethod[[Mapping[str, Any]], None] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declare(cls)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, **common: Unpack[ScheduleOptions]) -> None:
        options = options_of(common, type(self))
        self.hyper: str = options["hyper"]
        self.optimizer = scheduled(optimizer, self.hyper)
        self.last_step = _start(last_epoch, optimizer, self.hyper)
        self.scaler: GradScaler | None = options["scaler"]
        self.read_every: int = options["read_every"]
        self._unread = 0
        self._skipped = 0 if self.scaler is None else self.scaler.steps_skipped
        self._owner: Schedule | None = None
        self.place = composition.next_place(optimizer)
        self._fit()
        composition.apply(self, self._bases())

    @abstractmethod
    def lr_at(self, step: int, base_lr: float) -> float:
        """The value after ``step`` calls, for a group that began with ``base_lr``."""

    @property
    def position(self) -> int:
        """``last_step``."""
        return self.last_step

    @property
    def last_epoch(self) -> int:
        """``last_step``, by torch's name."""
        return self.last_step

    @property
    def base_lrs(self) -> list[float]:
        """What each parameter group starts from: its ``initial_lr``."""
        return self._bases()

    def step(self, epoch: None = None) -> None:
        """Go on by one and set the values. ``epoch`` is refused: a schedule counts its own calls.

        Does not block; with a ``scaler`` every ``read_every``-th call does.

        Raises
        ------
        ArgumentError
            If anything is passed, or another schedule steps this one.
        """
        if epoch is not None:
            raise ArgumentError(
                f"step() takes no argument, got {shown(epoch)}; a schedule counts its own calls, "
                "load_state_dict() continues from a saved one, and a metric is for ReduceLROnPlateau"
            )
        self._refuse_part("step()")
        unread, skipped = self._unread + 1, self._skipped
        if self.scaler is not None and unread >= self.read_every:
            unread, skipped = 0, self.scaler.steps_skipped
        # A count that fell is that of a scaler which began anew.
        less = skipped - self._skipped if skipped >= self._skipped else skipped
        self._settle(
            [(self, {"last_step": max(self.last_step + 1 - less, 0), "_unread": unread, "_skipped": skipped})],
            list(self._bases()),
        )

    def get_last_lr(self) -> list[float]:
        """The value of each parameter group, with all schedules applied."""
        return self._values()

    def preview(self, steps: int) -> list[list[float]]:
        """The values of the coming steps, without taking them: other schedules stay where they are.

        Parameters
        ----------
        steps : int
            How many, from 0 to 10**6.

        Returns
        -------
        list of list of float
            For each parameter group its value now and after each step.

        Examples
        --------
        >>> import netcl
        >>> from netcl.optim import SGD, StepLR
        >>> sched = StepLR(SGD([netcl.ones(1, requires_grad=True)], lr=1.0), step_size=2, gamma=0.5)
        >>> sched.preview(5)
        [[1.0, 1.0, 0.5, 0.5, 0.25, 0.25]]
        """
        self._refuse_part("preview()")
        count = integer("steps", steps, least=0, most=_MOST_SHOWN, error=HyperParameterError)
        span = range(self.last_step, self.last_step + count + 1)
        found = []
        for number, (group, start) in enumerate(zip(self.optimizer.param_groups, self._bases(), strict=True)):
            schedules = composition.with_one(group, self)
            found.append([composition.made(schedules, self.hyper, number, start, {self: step}) for step in span])
        return found

    def detach(self) -> None:
        """Leave the optimizer: its values become what the other schedules make of ``initial_lr``, and ``step`` ends.

        Raises
        ------
        ArgumentError
            If another schedule steps this one, or it has left already.
        """
        self._refuse_part("detach()")
        composition.detach(self)
        self.place = -1

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here, bit for bit."""
        # A group that was added since the last step joins with the next one, from the value that it has by then.
        groups, name = self.optimizer.param_groups, base_name(self.hyper)
        joined = [group.get(name) if there else None for group, there in zip(groups, self._joined(), strict=True)]
        return {
            **self._own_state(),
            "last_step": self.last_step,
            "base_lrs": joined,
            "lrs": self._values(),
            "hyper": self.hyper,
            "steps_skipped": self._skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, with the settings and the base of each group that it holds.

        Functions are not part of it: build the schedule with the same ones.

        Raises
        ------
        StateError
            If it is of another kind of schedule or another number of parameter groups, or an entry is missing, unknown
            or out of range; nothing is changed then.
        """
        self._refuse_part("load_state_dict()")
        changes, whole = self._read_own(state, outer=True)
        groups = len(self.optimizer.param_groups)
        step = loaded_count("last_step", state["last_step"])
        given, joined = composition.loaded_bases(state)
        rates = loaded_rates("base_lrs", given, groups)
        saved, skipped = None, self._skipped
        if whole:
            saved = loaded_rates("lrs", state["lrs"], groups)
            skipped = loaded_count("steps_skipped", state["steps_skipped"])
            check_hyper(self.hyper, state["hyper"])
        changes.append((self, {"last_step": step, "_unread": 0, "_skipped": skipped}))
        try:
            bases = [rate if there else None for rate, there in zip(rates, joined, strict=True)]
            self._settle(changes, bases, saved)
        except HyperParameterError as error:
            raise composition.refuse_misfit(error) from error

    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """``value`` times ``lr_at`` over its base, or ``lr_at`` itself of what is still the base."""
        if value == base:
            return self._rate(step, number, base)
        # Where the base is 0 the factor is that of any other one.
        return value * (self._rate(step, number, base) / base if base else self._rate(step, number, 1.0))

    def _rate(self, step: int, number: int, base: float) -> float:
        """``lr_at`` in one parameter group."""
        return self.lr_at(step, base)

    def _fit(self) -> None:
        """Refuse settings that do not fit the optimizer or its groups."""

    def _own_state(self) -> dict[str, Any]:
        """The kind and the settings."""
        return {"schedule": type(self).__name__, **{name: getattr(self, name) for name in self.SETTINGS}}

    def _read_own(self, state: Any, *, outer: bool) -> tuple[list[tuple[Schedule, dict[str, Any]]], bool]:
        """The attributes that a state brings, its own and those of the schedules in it, and whether it has all entries.

        ``outer`` says that it is what :meth:`state_dict` returned, and not :meth:`_own_state`.
        """
        if outer:
            settings, whole = loaded_settings(self, state, ("last_step", "base_lrs"), _LATER)
            return [(self, settings)], whole
        checked_kind(type(self).__name__, state)
        checked_names(type(self).__name__, state, ["schedule", *self.SETTINGS])
        return [(self, read_settings(type(self), state))], True

    def _move(self, step: int) -> None:
        """Note where the schedules that this one steps are, and what was worked out on the way."""

    def _settle(
        self,
        changes: list[tuple[Schedule, dict[str, Any]]],
        bases: list[float | None],
        saved: list[float] | None = None,
    ) -> None:
        """Set these attributes and what the optimizer's groups hold with them, or change nothing if one is refused."""
        earlier = [(one, dict(one.__dict__)) for one, _ in changes]
        for one, attributes in changes:
            one.__dict__.update(attributes)
        try:
            self._fit()
            composition.apply(self, bases, saved)
        except BaseException:
            for one, attributes in earlier:
                one.__dict__.update(attributes)
            raise
        self._move(self.last_step)

    def _refuse_part(self, call: str) -> None:
        if self._owner is not None:
            kind = type(self._owner).__name__
            raise ArgumentError(
                f"{call} is for the {kind} that this {type(self).__name__} is part of, which steps and saves it; call "
                "that one's"
            )
        if self.place < 0:
            raise ArgumentError(f"{call} of a {type(self).__name__} that was detached; build another one")


declare(Schedule)


def _start(last_epoch: Any, optimizer: Optimizer, hyper: str) -> int:
    """The step to begin with."""
    epoch = integer("last_epoch", last_epoch, least=-1, most=(1 << 63) - 2, error=HyperParameterError)
    if epoch >= 0:
        for number, group in enumerate(optimizer.param_groups):
            if base_name(hyper) not in group:
                raise HyperParameterError(
                    f"last_epoch={epoch} goes on from the {base_name(hyper)} of each group, and parameter group "
                    f"{number} has none; load the optimizer's state first, or load_state_dict() of the schedule after"
                )
    return epoch + 1
