"""Checks of hyper-parameters: each message names the value, the rule and the remedy."""

from __future__ import annotations

import math
from typing import Any

from netcl.errors import HyperParameterError


def real(name: str, value: Any) -> float:
    """``value`` as a float, if it is a number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise HyperParameterError(f"{name} must be a number, got {value!r}") from None
    if math.isnan(number):
        raise HyperParameterError(f"{name} must be a number, got nan")
    return number


def not_negative(name: str, value: Any) -> float:
    """``value`` if it lies in [0, inf)."""
    number = real(name, value)
    if not 0.0 <= number < math.inf:
        raise HyperParameterError(f"{name} must be finite and at least 0, got {value!r}")
    return number


def positive(name: str, value: Any) -> float:
    """``value`` if it lies in (0, inf]."""
    number = real(name, value)
    if not number > 0.0:
        raise HyperParameterError(f"{name} must be greater than 0, got {value!r}")
    return number


def fraction(name: str, value: Any) -> float:
    """``value`` if it lies in [0, 1)."""
    number = real(name, value)
    if not 0.0 <= number < 1.0:
        raise HyperParameterError(f"{name} must lie in [0, 1), got {value!r}")
    return number


def betas(value: Any) -> tuple[float, float]:
    """``value`` if it is a pair of decay rates in [0, 1)."""
    try:
        beta1, beta2 = value
    except (TypeError, ValueError):
        raise HyperParameterError(f"betas must be a pair such as (0.9, 0.999), got {value!r}") from None
    return fraction("beta1", beta1), fraction("beta2", beta2)


def whole(name: str, value: Any, least: int) -> int:
    """``value`` if it is an integer of at least ``least``."""
    integral = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not integral:
        raise HyperParameterError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if value < least:
        raise HyperParameterError(f"{name} must be at least {least}, got {value!r}")
    return int(value)


def log(beta: float) -> float:
    """Natural logarithm of a decay rate, with log 0 = -inf."""
    return math.log(beta) if beta > 0.0 else -math.inf
