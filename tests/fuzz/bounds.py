"""The error model: float64 values that carry a bound on how far a computation in another format may be from them.

Every operation in a format with unit roundoff u adds ``u·|result|`` (additions and products), or what OpenCL grants a
full-profile device in single precision: 2.5 ulp for a quotient, 3 ulp for a root, and so on; whatever the operands
were off by is carried on. Where a result may lie below the smallest normal number, that number is granted as well,
since OpenCL allows a device to flush. What cannot be told (a denominator that may be zero, an overflow that another
order of the factors would avoid) has an infinite bound and is not compared. The comparison grants a factor of 2 for
factors that are grouped otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SLACK = 2.0


@dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff, smallest normal number, what is lost below that, largest number."""

    name: str
    unit: float
    normal: float
    tiny: float
    largest: float


FORMATS = {
    "float16": Format("float16", 2.0**-11, 2.0**-14, 2.0**-24, 65504.0),
    "bfloat16": Format("bfloat16", 2.0**-8, 2.0**-126, 2.0**-126, float.fromhex("0x1.fep+127")),
    "float32": Format("float32", 2.0**-24, 2.0**-126, 2.0**-126, float(np.finfo(np.float32).max)),
    "float64": Format("float64", 2.0**-53, 2.0**-1022, 2.0**-1022, float(np.finfo(np.float64).max)),
}


def compute_format(dtype: str) -> Format:
    """What arithmetic on a dtype is done in."""
    return FORMATS["float64" if dtype == "float64" else "float32"]


class Bounded:
    """Values, and for each how far a computation may be from it. A value that is not finite has bound 0 or infinity."""

    __slots__ = ("error", "format", "value")

    def __init__(self, value: Any, format: Format, error: Any = 0.0) -> None:
        self.value = np.asarray(value, np.float64)
        self.format = format
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    @classmethod
    def number(cls, value: float, format: Format) -> Bounded:
        """A number formed in double on the host and rounded once."""
        exact = format.name == "float64" or float(np.float32(value)) == value
        return cls(value, format, 0.0 if exact else max(format.unit * abs(value), 2.0**-149))

    def _made(self, value: Any, carried: Any, units: float, uncertain: Any = False) -> Bounded:
        with np.errstate(all="ignore"):
            error = carried + units * self.format.unit * (np.abs(value) + carried)
            error = error + np.where(np.abs(value) < 2 * self.format.normal + carried, self.format.tiny, 0.0)
            doubtful = uncertain | ~(error < np.inf) | (np.abs(value) + error > self.format.largest)
            error = np.where(np.isfinite(value), np.where(doubtful, np.inf, error), np.where(uncertain, np.inf, 0.0))
        return Bounded(value, self.format, error)

    def _other(self, other: Any) -> Bounded:
        if isinstance(other, Bounded):
            return other
        return Bounded(other, self.format) if isinstance(other, np.ndarray) else Bounded.number(other, self.format)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.format, self.error)

    def __abs__(self) -> Bounded:
        return Bounded(np.abs(self.value), self.format, self.error)

    def __add__(self, other: Any) -> Bounded:
        other = self._other(other)
        with np.errstate(all="ignore"):
            value, carried = self.value + other.value, self.error + other.error
        return self._made(value, carried, 1, _any_unknown(self, other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Bounded:
        return self + (-self._other(other))

    def __rsub__(self, other: Any) -> Bounded:
        return -self + other

    def __mul__(self, other: Any) -> Bounded:
        other = self._other(other)
        with np.errstate(all="ignore"):
            value = self.value * other.value
            carried = np.abs(self.value) * other.error + np.abs(other.value) * self.error + self.error * other.error
        return self._made(value, carried, 1, _any_unknown(self, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Bounded:
        other = self._other(other)
        with np.errstate(all="ignore"):
            value = self.value / other.value
            least = np.abs(other.value) - other.error
            carried = np.where(
                np.isfinite(value) & (self.error + other.error > 0),
                (self.error + np.abs(value) * other.error) / least,
                0.0,
            )
            doubtful = (least <= 0) & (other.error > 0)
        return self._made(value, carried, 5, _any_unknown(self, other) | doubtful)

    def __rtruediv__(self, other: Any) -> Bounded:
        return self._other(other) / self

    def squared(self) -> Bounded:
        """The square, which is infinite where it overflows for certain."""
        square = self * self
        with np.errstate(all="ignore"):
            overflown = (np.maximum(np.abs(self.value) - self.error, 0.0) ** 2 > 4 * self.format.largest) & np.isfinite(
                self.error
            )
        return Bounded(np.where(overflown, np.inf, square.value), self.format, np.where(overflown, 0.0, square.error))

    def root(self) -> Bounded:
        """The square root; of what may lie below zero only by its bound, that of zero."""
        with np.errstate(all="ignore"):
            value = np.sqrt(np.where(self.value < 0, np.where(self.value + self.error < 0, np.nan, 0.0), self.value))
            above = np.sqrt(np.maximum(self.value + self.error, 0.0)) - value
            below = value - np.sqrt(np.maximum(self.value - self.error, 0.0))
            carried = np.where(self.error > 0, np.maximum(above, below), 0.0)
            doubtful = (self.value - self.error < 0) & (self.error > 0)
            carried = np.where(np.isfinite(value), carried, 0.0)
        return self._made(value, carried, 6, _any_unknown(self) | (doubtful & (self.value < 0)))

    def function(self, f: Callable[[Any], Any], units: float, slope: Callable[[Any], Any]) -> Bounded:
        """``f`` where ``slope`` bounds its derivative at and near the values."""
        with np.errstate(all="ignore"):
            value = f(self.value)
            carried = np.where(self.error > 0, slope(self.value) * self.error * 2, 0.0)
        return self._made(value, np.where(np.isfinite(value), carried, 0.0), units, _any_unknown(self))

    def sign(self) -> Bounded:
        """-1, 0 or 1."""
        doubtful = (np.abs(self.value) <= self.error) & (self.error > 0)
        return Bounded(np.sign(self.value), self.format, np.where(doubtful, 2.0, 0.0))

    def maximum(self, other: Any) -> Bounded:
        """The larger; NaN if either is."""
        other = self._other(other)
        return Bounded(np.maximum(self.value, other.value), self.format, np.maximum(self.error, other.error))

    def minimum(self, other: Any) -> Bounded:
        """The smaller; NaN if either is."""
        return -((-self).maximum(-self._other(other)))

    def greater(self, other: Any) -> tuple[Any, Any]:
        """Whether it is greater, and where that cannot be told."""
        other = self._other(other)
        with np.errstate(invalid="ignore"):
            gap = np.abs(self.value - other.value)
        reach = self.error + other.error
        return self.value > other.value, (gap <= reach) & (reach > 0)

    def stored(self, target: Format) -> Bounded:
        """Rounded to another format, as a store does."""
        with np.errstate(all="ignore"):
            error = self.error + target.unit * (np.abs(self.value) + self.error)
            error = error + np.where(np.abs(self.value) < 2 * target.normal + self.error, target.tiny, 0.0)
            above = np.abs(self.value) - self.error > target.largest * (1 + target.unit)
            near = ~above & (np.abs(self.value) + self.error > target.largest)
            value = np.where(above & np.isfinite(self.error), np.copysign(np.inf, self.value), self.value)
            error = np.where(np.isfinite(value) & ~near, error, np.where(near | np.isinf(self.error), np.inf, 0.0))
        return Bounded(value, self.format, error)


def where(condition: tuple[Any, Any], x: Any, y: Any, format: Format) -> Bounded:
    """``x`` or ``y``; either, where the condition cannot be told."""
    x, y = (each if isinstance(each, Bounded) else Bounded.number(float(each), format) for each in (x, y))
    holds, doubtful = condition
    with np.errstate(all="ignore"):
        either = np.maximum(x.error, y.error) + np.abs(x.value - y.value)
        either = np.where(np.isfinite(either), either, np.inf)
    error = np.where(doubtful, either, np.where(holds, x.error, y.error))
    return Bounded(np.where(holds, x.value, y.value), format, error)


def _any_unknown(*operands: Bounded) -> Any:
    unknown: Any = False
    for x in operands:
        unknown = unknown | np.isinf(x.error)
    return unknown


def worst(actual: Any, expected: Bounded, slack: float = SLACK) -> str | None:
    """What differs most beyond its bound, in words; None if nothing does.

    Where the expected value is infinite or NaN any value that is not finite will do.
    """
    actual = np.asarray(actual, np.float64)
    if actual.shape != expected.value.shape:
        return f"shape {actual.shape} where {expected.value.shape} was expected"
    if not actual.size:
        return None
    with np.errstate(all="ignore"):
        gap = np.abs(actual - expected.value)
        right = np.where(
            np.isfinite(expected.value),
            gap <= slack * expected.error,
            ~np.isfinite(actual) | (actual == expected.value),
        ) | np.isinf(expected.error)
        if right.all():
            return None
        excess = np.where(right, -1.0, np.where(np.isfinite(gap), gap / (slack * expected.error + 5e-324), np.inf))
    place = np.unravel_index(int(np.argmax(excess)), actual.shape)
    at = f" at {tuple(map(int, place))}" if place else ""
    return (
        f"{float(actual[place])!r}{at} where {float(expected.value[place])!r} was expected within "
        f"{slack * float(expected.error[place]):.3g} ({int((~right).sum())} of {actual.size} element(s) differ)"
    )
