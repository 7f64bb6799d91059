"""How the schedules of one optimizer go together: each scales what those before it have made of the base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from netcl.errors import StateError
from netcl.optim.engine.group import ParameterGroup, base_name, read, written
from netcl.optim.optimizer import Optimizer


class Scaling(ABC):
    """What scales a hyper-parameter of each parameter group, together with others.

    Attributes
    ----------
    hyper : str
        The hyper-parameter.
    place : int
        Those of lower places are applied before.
    optimizer : Optimizer
    """

    hyper: str
    place: int
    optimizer: Optimizer

    @property
    @abstractmethod
    def position(self) -> int:
        """The step that it is at."""

    @abstractmethod
    def _scaled(self, step: int, number: int, base: float, value: float) -> float:
        """What it makes at a step of ``value``, which those before it have made of ``base``, in a parameter group."""

    def _anchor(self, number: int) -> float | None:
        """The base that a group gets when it joins, whatever it has; None where it keeps its own."""
        return None

    def _beside(self, step: int, number: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """Assignments of other hyper-parameters at a step."""
        return {}

    def _joined(self) -> list[bool]:
        """For each parameter group, whether this scales it already."""
        return [self in group.schedules for group in self.optimizer.param_groups]

    def _bases(self) -> list[float]:
        """What each parameter group starts from, or will when it joins."""
        found = []
        for number, group in enumerate(self.optimizer.param_groups):
            anchor = None if self in group.schedules else self._anchor(number)
            found.append(base(group, self.hyper) if anchor is None else anchor)
        return found

    def _values(self) -> list[float]:
        """The hyper-parameter of each parameter group."""
        return [read(group, self.hyper) for group in self.optimizer.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_joined": self._joined()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        held = dict(state)
        joined = held.pop("_joined")
        self.__dict__.update(held)
        for group, there in zip(self.optimizer.param_groups, joined, strict=True):
            if there:
                group.schedules = with_one(group, self)


def base(group: Mapping[str, Any], hyper: str) -> float:
    """What the schedules of a hyper-parameter start from."""
    found: float = group.get(base_name(hyper), read(group, hyper))
    return found


def next_place(optimizer: Optimizer) -> int:
    """The place after all there are."""
    places = [schedule.place for group in optimizer.param_groups for schedule in group.schedules]
    return max(places, default=-1) + 1


def with_one(group: ParameterGroup, one: Scaling) -> list[Scaling]:
    """The schedules of a group and another one, in order."""
    return sorted([*(each for each in group.schedules if each is not one), one], key=lambda each: each.place)


def made(
    schedules: Sequence[Scaling], hyper: str, number: int, base: float, at: Mapping[Scaling, int] | None = None
) -> float:
    """What schedules make of a base, each where it stands or at the step of ``at``."""
    value = base
    for each in schedules:
        if each.hyper == hyper:
            step = each.position if at is None or each not in at else at[each]
            value = each._scaled(step, number, base, value)
    return value


def apply(one: Scaling, bases: Sequence[float | None], saved: Sequence[float] | None = None) -> None:
    """Set what a schedule scales, or change nothing if a value is refused.

    Parameters
    ----------
    one : Scaling
        At the step to apply.
    bases : sequence of float or None
        For each group what it starts from; one with None has yet to join.
    saved : sequence of float, optional
        The values themselves, which differ by their rounding where one was assigned since the last step.
    """
    held, lists = [], []
    groups = one.optimizer.param_groups
    for number, (group, start) in enumerate(zip(groups, bases, strict=True)):
        if start is None:
            schedules = [each for each in group.schedules if each is not one]
            change = {} if saved is None else written(group, one.hyper, saved[number])
        else:
            schedules = with_one(group, one)
            change = written(group, one.hyper, made(schedules, one.hyper, number, start))
            if group.get(base_name(one.hyper)) != start:
                change[base_name(one.hyper)] = start
            change |= one._beside(one.position, number, {**group, **change})
            if saved is not None:
                group.checked(change)
                change |= written({**group, **change}, one.hyper, saved[number])
        values = group.checked(change)
        if start is None and not any(each.hyper == one.hyper for each in schedules):
            values.pop(base_name(one.hyper), None)
        held.append(values)
        lists.append(schedules)
    for group, values, schedules in zip(groups, held, lists, strict=True):
        group.schedules = schedules
        group.replace(values)


def detach(one: Scaling) -> None:
    """Set what the other schedules make of the base."""
    groups, held = one.optimizer.param_groups, []
    for number, group in enumerate(groups):
        rest = [each for each in group.schedules if each is not one]
        value = made(rest, one.hyper, number, base(group, one.hyper))
        held.append((group.checked(written(group, one.hyper, value)), rest))
    for group, (values, rest) in zip(groups, held, strict=True):
        group.schedules = rest
        group.replace(values)


def loaded_bases(state: Mapping[str, Any]) -> tuple[Any, list[bool]]:
    """The bases of a state with 0 for the groups that have yet to join, and which have joined."""
    given = state["base_lrs"]
    if not isinstance(given, list | tuple):
        return given, []
    # The groups of before the schedule was made have all joined: the first one is among them.
    joined = [number == 0 or start is not None for number, start in enumerate(given)]
    return [start if there else 0.0 for start, there in zip(given, joined, strict=True)], joined


def refuse_misfit(error: Exception) -> StateError:
    """The error of a state whose values the optimizer refuses."""
    return StateError(f"the schedule's state does not fit: {error}")
