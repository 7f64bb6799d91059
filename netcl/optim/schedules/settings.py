"""What schedules have in common to check: their optimizer, their settings, and the state that they go on from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from netcl.amp.scaler import GradScaler
from netcl.errors import HyperParameterError, NetclError, StateError
from netcl.optim import validation
from netcl.optim.engine.group import read
from netcl.optim.optimizer import Optimizer
from netcl.validation import integer, one_of, real, shown

Check = Callable[[str, Any], Any]


class ScheduleOptions(TypedDict, total=False):
    """The keyword arguments of every schedule."""

    hyper: str
    scaler: GradScaler | None
    read_every: int


_DEFAULTS: Mapping[str, Any] = {"hyper": "lr", "scaler": None, "read_every": 1}

_PLACE = "    **common\n"
"""The line of a class's docstring that the documentation of the options replaces."""

_DOCUMENTED = """\
    last_epoch : int, default -1
        The schedule begins at step ``last_epoch + 1``; other than -1 every group needs an ``initial_lr``, as one has
        that a checkpoint brought. ``load_state_dict`` does more.
    hyper : str, default "lr"
        The hyper-parameter to schedule: any number of the groups, such as ``"weight_decay"``, or ``"beta1"``.
    scaler : GradScaler, optional
        Count only the steps that it did not skip. ``step`` then **blocks** in every ``read_every``-th call.
    read_every : int, default 1
        Calls until the scaler is asked again, at least 1. In between every call counts; at the next reading the steps
        that were skipped are taken back.
"""


def scheduled(optimizer: Any, hyper: str = "lr") -> Optimizer:
    """The optimizer, if a schedule can set this hyper-parameter of it."""
    if not isinstance(optimizer, Optimizer):
        raise HyperParameterError(f"a schedule takes an optimizer, got {shown(optimizer)}; build the optimizer first")
    for group in optimizer.param_groups:
        value = read(group, hyper)
        if not isinstance(value, float | int) or isinstance(value, bool):
            have = "none" if value is None else f"{shown(value)}, which is no number"
            raise HyperParameterError(
                f"a schedule sets the {hyper} of each parameter group, and those of {type(optimizer).__name__} have "
                f"{have}; give it a hyper-parameter of that name"
            )
    return optimizer


def options_of(given: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The options that every schedule takes, each checked, with the defaults of those that were not given."""
    for name in given:
        if name not in ScheduleOptions.__annotations__:
            raise TypeError(f"{kind.__name__}.__init__() got an unexpected keyword argument {name!r}")
    scaler = given.get("scaler")
    if scaler is not None and not isinstance(scaler, GradScaler):
        raise HyperParameterError(f"scaler must be a GradScaler or None, got {shown(scaler)}")
    return {
        "hyper": validation.text("hyper", given.get("hyper", "lr")),
        "scaler": scaler,
        "read_every": validation.integer("read_every", given.get("read_every", 1), 1),
    }


def declare(cls: type) -> None:
    """Show the common options in the signature and docstring of a schedule that takes them as ``**common``."""
    constructor = cls.__dict__.get("__init__")
    if constructor is not None:
        signature = inspect.signature(constructor)
        *parameters, last = signature.parameters.values()
        if last.kind is inspect.Parameter.VAR_KEYWORD and last.name == "common":
            for name, annotation in ScheduleOptions.__annotations__.items():
                kind, default = inspect.Parameter.KEYWORD_ONLY, _DEFAULTS[name]
                said = getattr(annotation, "__forward_arg__", annotation)
                parameters.append(inspect.Parameter(name, kind, default=default, annotation=said))
            constructor.__signature__ = signature.replace(parameters=parameters)
    if cls.__doc__ is not None:
        cls.__doc__ = cls.__doc__.replace(_PLACE, _DOCUMENTED)


def at_least(least: int) -> Check:
    """A check of an integer of at least ``least``."""
    return lambda name, value: validation.integer(name, value, least)


def between(least: float, most: float) -> Check:
    """A check of a number in [least, most]."""
    return lambda name, value: real(name, value, least=least, most=most, error=HyperParameterError)


def inside(above: float, below: float) -> Check:
    """A check of a number in (above, below)."""
    return lambda name, value: real(name, value, above=above, below=below, error=HyperParameterError)


def positive_fraction(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in (0, 1]."""
    return real(name, value, above=0.0, most=1.0, error=HyperParameterError)


def counts(name: str, value: Any) -> list[int]:
    """Steps in ascending order, each at least 0."""
    try:
        if isinstance(value, str | bytes | Mapping):
            raise TypeError
        items = list(value)
    except Exception:  # an array says in its own way that it has no items
        raise HyperParameterError(f"{name} must be a list of steps, got {shown(value)}") from None
    return sorted(validation.integer(f"{name}[{i}]", item, 0) for i, item in enumerate(items))


def functions(name: str, value: Any) -> Any:
    """A function, or a list of one for each parameter group."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items or not all(map(callable, items)):
        raise HyperParameterError(
            f"{name} must be a function of the step, or a list of one for each parameter group, got {shown(value)}"
        )
    return items if isinstance(value, list | tuple) else value


def called(name: str, function: Callable[[Any], Any], step: int, least: float = -math.inf) -> float:
    """What a user's function of the step returns."""
    try:
        value = function(step)
    except Exception as error:  # whatever goes wrong in it, its caller is told the step
        raise HyperParameterError(
            f"{name}({step}) fails with {type(error).__name__}: {error}; it must take a step and return a number"
        ) from error
    return real(f"{name}({step})", value, least=least, error=HyperParameterError)


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


def rates(name: str, value: Any) -> float | list[float]:
    """A number of at least 0 for all parameter groups, or a list with one for each."""
    return _each(name, value, validation.not_negative)


def positive_rates(name: str, value: Any) -> float | list[float]:
    """As :func:`rates`, of numbers above 0."""
    return _each(name, value, lambda label, rate: real(label, rate, above=0.0, most=validation.LARGEST, error=_BAD))


def fractions(name: str, value: Any) -> float | list[float]:
    """As :func:`rates`, of numbers in [0, 1)."""
    return _each(name, value, validation.fraction)


_BAD = HyperParameterError


def _each(name: str, value: Any, check: Callable[[str, Any], float]) -> float | list[float]:
    if not isinstance(value, list | tuple):
        return check(name, value)
    if not value:
        raise HyperParameterError(f"{name} must be a number, or a list of one for each parameter group, got {value!r}")
    return [check(f"{name}[{i}]", rate) for i, rate in enumerate(value)]


def of_group(name: str, value: Any, number: int) -> Any:
    """What a setting, one for all groups or a list of one for each, is for a parameter group."""
    if not isinstance(value, list | tuple):
        return value
    if number >= len(value):
        raise HyperParameterError(
            f"{name} has {len(value)} value(s), and parameter group {number} is one more; give one value for all "
            "groups, or build the schedule over all of them"
        )
    return value[number]


def fitting(optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
    """Refuse lists of another length than the parameter groups."""
    groups = len(optimizer.param_groups)
    for name, value in settings.items():
        if isinstance(value, list | tuple) and len(value) != groups:
            raise HyperParameterError(
                f"{name} must have one value for each of {groups} parameter group(s), got {len(value)}; one number "
                "stands for all"
            )


def keep(schedule: Any, given: Mapping[str, Any]) -> None:
    """Set the settings of a schedule as its attributes, each checked."""
    schedule.__dict__.update(checked_settings(type(schedule), given))


def checked_kind(kind: str, state: Any) -> None:
    """Refuse what is no state, or that of another kind of schedule."""
    if not isinstance(state, Mapping):
        raise StateError(f"a schedule's state is what its state_dict() returns, a dict, got {shown(state)}")
    saved = state.get("schedule", kind)
    if saved != kind:
        raise StateError(
            f"the state is of the schedule {shown(saved)} and cannot be loaded into {kind}; build "
            "the schedule that it was saved from"
        )


def checked_names(kind: str, state: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse a state that lacks an entry or has another one."""
    names = list(expected)
    for name in names:
        if name not in state:
            held = ", ".join(map(str, state)) or "nothing"
            raise StateError(f"the schedule's state lacks {name!r}; it has {held}, and must come from state_dict()")
    for name in state:
        if name not in names:
            raise StateError(
                f"the schedule's state has {shown(name)}, which {kind} does not know; it has {', '.join(names)}"
            )


def loaded_settings(
    schedule: Any, state: Any, names: Iterable[str], later: Iterable[str] = ()
) -> tuple[dict[str, Any], bool]:
    """The settings that a state holds, after its kind and the names of its entries were checked.

    A state from before schedules multiplied lacks the entries ``later``: then the second item is False. One from before
    they recorded their kind holds only ``names``, and leaves the settings as they are.
    """
    kind = type(schedule)
    checked_kind(kind.__name__, state)
    names = [*names]
    older = ["schedule", *names, *kind.SETTINGS]
    if set(state) == set(names):
        return {}, False
    is_older = set(state) == set(older)
    if not is_older:
        checked_names(kind.__name__, state, [*older, *later])
    return read_settings(kind, state), not is_older


def check_hyper(own: str, loaded: Any) -> None:
    """Refuse the state of a schedule of another hyper-parameter.

    Raises
    ------
    StateError
    """
    if loaded != own:
        raise StateError(
            f"the state schedules the hyper-parameter {shown(loaded)}, and this schedule {own}; build it with hyper= "
            "of the one that it was saved from"
        )


def read_settings(kind: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a state, each checked."""
    try:
        return checked_settings(kind, state)
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
