"""One checked entrance for each kind of argument: numbers, integers, flags, choices, extents and axes.

Each function returns the value to go on with, or raises an error that names the value, the rule and the remedy. Callers
pass ``error`` where their users expect another class than :class:`~netcl.errors.ArgumentError`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from netcl.errors import ArgumentError, AxisError, NetclError, ShapeError

LARGEST_EXTENT = (1 << 63) - 1
"""What an int64 index can reach."""

_LONGEST = 80


def shown(value: Any) -> str:
    """``repr(value)``, cut where it is long: what a message says of an argument. Reads no array's elements."""
    kind = type(value).__name__
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and hasattr(value, "dtype") and (shape or type(value).__module__ != "numpy"):
        return f"a {kind} of shape {shape}"
    if isinstance(value, list | tuple | dict | set | str | bytes) and len(value) > _LONGEST:
        return f"a {kind} of length {len(value)}"
    try:
        text = repr(value)
    except Exception:  # an argument whose repr fails is refused like any other
        text = f"a {kind}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def real(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
    error: type[NetclError] = ArgumentError,
) -> float:
    """``value`` as a float: a Python or NumPy real number, or anything 0-d that has ``__float__``, but no bool.

    It must lie in ``[least, most]`` and in ``(above, below)``, and be finite unless ``finite`` is False. NaN never
    passes.
    """
    rule = _interval(least, most, above, below, finite)
    if (
        isinstance(value, bool | str | bytes)
        or type(value).__name__ in ("bool", "bool_")
        or getattr(value, "shape", ()) != ()
    ):
        raise error(f"{name} must be a number{rule}, got {shown(value)}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise error(f"{name} must be a number{rule}, got {shown(value)}") from None
    fits = least <= number <= most and (number > above or above == -math.inf) and (number < below or below == math.inf)
    if not fits or (finite and math.isinf(number)):
        raise error(f"{name} must be a number{rule}, got {shown(value)}")
    return number


def _interval(least: float, most: float, above: float, below: float, finite: bool) -> str:
    words = [
        text
        for text, said in (
            (f"at least {least:g}", least > -math.inf),
            (f"greater than {above:g}", above > -math.inf),
            (f"at most {most:g}", most < math.inf),
            (f"less than {below:g}", below < math.inf),
        )
        if said
    ]
    if finite and not (most < math.inf or below < math.inf):
        words.insert(0, "finite")
    return f", {' and '.join(words)}" if words else ""


def number(name: str, value: Any, *, error: type[NetclError] = ArgumentError) -> bool | int | float | complex:
    """``value`` as a Python number, if it is one of Python or of NumPy."""
    if isinstance(value, bool | int | float | complex) and type(value).__module__ != "numpy":
        return value
    if getattr(value, "shape", None) == () and type(value).__module__ == "numpy":
        found = value.item()
        if isinstance(found, bool | int | float | complex):
            return found
    raise error(f"{name} must be a number, got {shown(value)}")


def integer(
    name: str,
    value: Any,
    *,
    least: int | None = None,
    most: int | None = None,
    error: type[NetclError] = ArgumentError,
) -> int:
    """``value`` as an int, if ``operator.index`` takes it (NumPy's integers too) and it is not a bool.

    Examples
    --------
    >>> from netcl.validation import integer
    >>> integer("patience", 3, least=0)
    3
    >>> integer("patience", 2.5, least=0)
    Traceback (most recent call last):
    netcl.errors.ArgumentError: patience must be an integer of at least 0, got 2.5
    """
    limits = "" if least is None else f" of at least {least}"
    if most is not None:
        limits += f"{' and' if limits else ' of'} at most {most}"
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        raise error(f"{name} must be an integer{limits}, got {shown(value)}")
    try:
        number = operator.index(value)
    except Exception:  # an array with several elements has an __index__ that raises what it likes
        raise error(f"{name} must be an integer{limits}, got {shown(value)}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise error(f"{name} must be an integer{limits}, got {shown(value)}")
    return number


def seed(name: str, value: Any, *, error: type[NetclError] = ArgumentError) -> int:
    """``value`` as a seed or a counter of random bits: an integer in [0, 2**64)."""
    return integer(name, value, least=0, most=2**64 - 1, error=error)


def flag(name: str, value: Any, *, error: type[NetclError] = ArgumentError) -> bool:
    """``value`` as a bool, if it is True or False (NumPy's too)."""
    if isinstance(value, bool):
        return value
    if type(value).__name__ in ("bool", "bool_") and type(value).__module__ == "numpy":
        return bool(value)
    raise error(f"{name} must be True or False, got {shown(value)}")


def one_of(name: str, value: Any, choices: Iterable[str], *, error: type[NetclError] = ArgumentError) -> str:
    """``value``, if it is one of some strings."""
    known = tuple(choices)
    if isinstance(value, str) and value in known:
        return value
    raise error(f"{name} must be one of {', '.join(map(repr, known))}, got {shown(value)}")


def extent(name: str, value: Any, *, least: int = 0) -> int:
    """``value`` as the extent of an axis."""
    return integer(name, value, least=least, most=LARGEST_EXTENT, error=ShapeError)


def extents(name: str, value: Any, *, free: bool = False) -> tuple[int, ...]:
    """``value`` as a shape: an extent or a sequence of them, whose product an index can reach.

    With ``free``, one of them may be -1.
    """
    least = -1 if free else 0
    if type(value) is int:
        value = (value,)
    elif not isinstance(value, tuple | list):
        value = _listed(name, value)
    found = tuple(
        [extent(name, each, least=least) if type(each) is not int or each < least else each for each in value]
    )
    if free and found.count(-1) > 1:
        raise ShapeError(f"{name} must leave at most one extent open with -1, got {found}")
    if math.prod(found) > LARGEST_EXTENT:
        raise ShapeError(f"{name} must have at most {LARGEST_EXTENT} elements, got {shown(found)}")
    return found


def _listed(name: str, value: Any) -> Sequence[Any]:
    """What a shape or axes may be besides a tuple or a list: one integer, a range, a NumPy array of integers."""
    if isinstance(value, range):
        return value
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 0) == 1 and value.dtype.kind in "iu":
        listed: list[int] = value.tolist()
        return listed
    return (integer(name, value, error=ShapeError),)


def axis(name: str, value: Any, ndim: int) -> int:
    """``value`` as an axis of an array with ``ndim`` axes, counted from the start; negative ones count from the end."""
    found = value if type(value) is int else integer(name, value)
    if not -ndim <= found < ndim:
        if not ndim:
            raise AxisError(f"{name} must be left out for an array without axes, got {shown(found)}")
        rule = f"{name} must lie in [{-ndim}, {ndim}) for an array of {ndim} axes"
        raise AxisError(f"{rule}, got {shown(found)}, which is out of range")
    return found % ndim


def axes(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """``value``, an axis or several different ones, as a tuple in the order given."""
    given: Sequence[Any] = value if isinstance(value, tuple | list | range) else (value,)
    found = tuple(axis(name, each, ndim) for each in given)
    if len(set(found)) != len(found):
        raise AxisError(f"{name} must name each axis once, got {shown(value)} for an array of {ndim} axes")
    return found
