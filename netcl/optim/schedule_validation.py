"""What schedules have in common to check: their optimizer, their settings, and the state that they go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netcl.errors import HyperParameterError, NetclError, StateError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer
from netcl.validation import integer, one_of, real, shown

Check = Callable[[str, Any], Any]


def scheduled(optimizer: Any) -> Optimizer:
    """The optimizer, if a schedule can set its learning rates."""
    if not isinstance(optimizer, Optimizer):
        raise HyperParameterError(f"a schedule takes an optimizer, got {shown(optimizer)}; build the optimizer first")
    if not all("lr" in group for group in optimizer.param_groups):
        raise HyperParameterError(
            f"a schedule sets the lr of each parameter group, and those of {type(optimizer).__name__} have none; give "
            "it a hyper-parameter of that name"
        )
    return optimizer


def at_least(least: int) -> Check:
    """A check of an integer of at least ``least``."""
    return lambda name, value: validation.integer(name, value, least)


def between(least: float, most: float) -> Check:
    """A check of a number in [least, most]."""
    return lambda name, value: real(name, value, least=least, most=most, error=HyperParameterError)


def inside(above: float, below: float) -> Check:
    """A check of a number in (above, below)."""
    return lambda name, value: real(name, value, above=above, below=below, error=HyperParameterError)


def choice(*choices: str) -> Check:
    """A check of one of some strings."""
    return lambda name, value: one_of(name, value, choices, error=HyperParameterError)


def checked_settings(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a kind of schedule, each checked."""
    settings = {name: check(name, given[name]) for name, check in kind.SETTINGS.items()}
    together = getattr(kind, "CHECK_TOGETHER", None)
    if together is not None:
        together(settings)
    return settings


def loaded_settings(schedule: Any, state: Any, names: Iterable[str]) -> dict[str, Any]:
    """The settings that a state holds, after its kind and the names of its entries were checked.

    A state from before schedules recorded their kind holds only ``names``, and leaves the settings as they are.
    """
    kind = type(schedule)
    if not isinstance(state, Mapping):
        raise StateError(f"a schedule's state is what its state_dict() returns, a dict, got {shown(state)}")
    saved = state.get("schedule", kind.__name__)
    if saved != kind.__name__:
        raise StateError(
            f"the state is of the schedule {shown(saved)} and cannot be loaded into {kind.__name__}; build "
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
                f"the schedule's state has {shown(name)}, which {kind.__name__} does not know; it has "
                f"{', '.join(expected)}"
            )
    try:
        return {} if bare else checked_settings(kind, state)
    except NetclError as error:
        raise StateError(f"the schedule's state does not fit: {error}") from error


def loaded_count(name: str, value: Any) -> int:
    """A count of a state, at least 0."""
    return integer(f"{name} of the schedule's state", value, least=0, most=(1 << 63) - 1, error=StateError)


def loaded_rates(name: str, value: Any, groups: int) -> list[float]:
    """The learning rates of a state, one for each parameter group."""
    if not isinstance(value, list | tuple):
        raise StateError(f"{name} of the schedule's state must be a list of numbers, got {shown(value)}")
    if len(value) != groups:
        raise StateError(
            f"the state has {len(value)} parameter group(s) and the optimizer {groups}; build the optimizer with the "
            "same groups, or add those that are missing with add_param_group()"
        )
    try:
        return [validation.not_negative(f"{name}[{i}]", rate) for i, rate in enumerate(value)]
    except HyperParameterError as error:
        raise StateError(f"the schedule's state does not fit: {error}") from error
