"""Checks of what optimizers, schedules and clipping are given: messages name the value, the rule and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

from netcl import validation
from netcl.errors import ArgumentError, HyperParameterError, NetclError

LARGEST = (2.0 - 2.0**-23) * 2.0**127
"""The largest float32: what a hyper-parameter may be, as the device holds it in that."""

_MOST_STEPS = (1 << 63) - 1


def scalar(value: Any) -> Any:
    """The number in an array of one element, of any library; anything else as it is. **Blocks** for one on a device."""
    if not hasattr(value, "shape") or isinstance(value, type):
        return value
    try:
        value = getattr(value, "detach", lambda: value)()
        return value.item() if math.prod(value.shape) == 1 else value
    except Exception:  # what is no such array is refused by the check that follows
        return value


def real(name: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number that float32 holds."""
    if type(value) is float and -LARGEST <= value <= LARGEST:
        return value
    return validation.real(name, scalar(value), least=-LARGEST, most=LARGEST, error=HyperParameterError)


def not_negative(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in [0, inf) and float32 holds it."""
    if type(value) is float and 0.0 <= value <= LARGEST:
        return value
    return validation.real(name, scalar(value), least=0.0, most=LARGEST, error=HyperParameterError)


def positive(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in (0, inf]."""
    if type(value) is float and value > 0.0:
        return value
    return validation.real(name, scalar(value), above=0.0, finite=False, error=HyperParameterError)


def bound(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in [0, inf]."""
    if type(value) is float and value >= 0.0:
        return value
    return validation.real(name, scalar(value), least=0.0, finite=False, error=HyperParameterError)


def fraction(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in [0, 1)."""
    return validation.real(name, scalar(value), least=0.0, below=1.0, error=HyperParameterError)


def at_most_one(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in [0, 1]."""
    return validation.real(name, scalar(value), least=0.0, most=1.0, error=HyperParameterError)


def betas(name: str, value: Any) -> tuple[float, float]:
    """``value`` if it is a pair of decay rates in [0, 1)."""
    try:
        if isinstance(value, str | bytes | Mapping | set | frozenset):
            raise TypeError
        beta1, beta2 = value
    except Exception:  # an array says in its own way that it does not unpack
        raise HyperParameterError(
            f"{name} must be a pair such as (0.9, 0.999), got {validation.shown(value)}"
        ) from None
    return fraction("beta1", beta1), fraction("beta2", beta2)


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    return validation.flag(name, value, error=HyperParameterError)


def integer(name: str, value: Any, least: int) -> int:
    """``value`` as an int, if it is a whole number of at least ``least``, as 10 and 10.0 are."""
    value = scalar(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return validation.integer(name, value, least=least, most=_MOST_STEPS, error=HyperParameterError)


def one_of(choices: tuple[str | None, ...]) -> Callable[[str, Any], Any]:
    """The check of a hyper-parameter that has one of these values."""
    return partial(_one_of, choices)


def _one_of(choices: tuple[str | None, ...], name: str, value: Any) -> str | None:
    if value is None and None in choices:
        return None
    if not isinstance(value, str) or value not in choices:
        raise HyperParameterError(
            f"{name} must be one of {', '.join(map(repr, choices))}, got {validation.shown(value)}"
        )
    return str(value)


def seed(name: str, value: Any) -> int:
    """``value`` as an int, if it is a whole number of 32 bits."""
    number = integer(name, value, 0)
    if number >> 32:
        raise HyperParameterError(f"{name} must be below 2**32, got {number}; take it modulo 2**32")
    return number


def text(name: str, value: Any) -> str:
    """``value`` if it is a string."""
    if not isinstance(value, str):
        raise HyperParameterError(f"{name} must be a string, got {validation.shown(value)}")
    return value


def listed(name: str, value: Any, *, error: type[NetclError] = HyperParameterError) -> list[Any]:
    """The items of an iterable that is neither a string nor a mapping."""
    try:
        if isinstance(value, str | bytes | Mapping):
            raise TypeError
        items = iter(value)
    except TypeError:
        raise error(
            f"{name} must be an iterable of tensors such as model.parameters(), got {validation.shown(value)}"
        ) from None
    return list(items)


def function(name: str, value: Any) -> None:
    """Refuse what cannot be called and is not None."""
    if value is not None and not callable(value):
        raise ArgumentError(f"{name} must be a function or None, got {validation.shown(value)}")


def columns(hyper: Callable[[Mapping[str, Any]], Mapping[str, float]], group: Mapping[str, Any]) -> None:
    """Refuse a group that a rule's ``hyper`` does not turn into numbers."""
    try:
        made = hyper(group)
    except NetclError:
        raise
    except Exception as error:  # whatever goes wrong in an author's function, its caller is told the group
        shown = ", ".join(f"{k}={validation.shown(v)}" for k, v in group.items() if k not in ("params", "names"))
        raise HyperParameterError(
            f"the rule's hyper() fails with {type(error).__name__}: {error}, for a group with {shown}; it must return "
            "a dict of numbers"
        ) from error
    if not isinstance(made, Mapping):
        raise HyperParameterError(
            f"the rule's hyper() must return a dict of numbers by name, got {validation.shown(made)}"
        )
    for name, value in made.items():
        text("a name that hyper() returns", name)
        validation.real(f"{name}, which the rule's hyper() returns,", value, finite=False, error=HyperParameterError)


def three_betas(name: str, value: Any) -> tuple[float, float, float]:
    """``value`` if it is three decay rates in [0, 1)."""
    beta1, beta2, beta3 = _unpacked(name, value, 3, "three decay rates such as (0.98, 0.92, 0.99)")
    return fraction("beta1", beta1), fraction("beta2", beta2), fraction("beta3", beta3)


def pair(name: str, value: Any, example: str) -> tuple[float, float]:
    """``value`` if it is a pair of numbers in [0, inf)."""
    first, second = _unpacked(name, value, 2, f"a pair such as {example}")
    return not_negative(f"the first of {name}", first), not_negative(f"the second of {name}", second)


def _unpacked(name: str, value: Any, count: int, what: str) -> tuple[Any, ...]:
    try:
        if isinstance(value, str | bytes | Mapping | set | frozenset):
            raise TypeError
        items = tuple(islice(iter(value), count + 1))
    except Exception:  # an array says in its own way that it cannot be iterated over
        items = ()
    if len(items) != count:
        raise HyperParameterError(f"{name} must be {what}, got {validation.shown(value)}")
    return items
