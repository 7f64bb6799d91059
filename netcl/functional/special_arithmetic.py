"""What the special functions share: approximations by polynomials, and arithmetic that keeps what is rounded off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from netcl import expression as ex
from netcl.dtypes import DEFAULT_FLOAT, float32, float64, promote
from netcl.rounding import nearest


def floating(*operands: Any) -> tuple[Any, ...]:
    """Traced operands in their common floating dtype; float32 where all are integers."""
    common = operands[0].dtype
    for x in operands[1:]:
        common = promote(common, x.dtype)
    return tuple([ex.cast(x, common if common.kind == "f" else DEFAULT_FLOAT) for x in operands])


def of_width(x: Any, narrow: float, wide: float) -> float:
    """``narrow`` where ``x`` is float32, ``wide`` where it is float64."""
    return wide if x.dtype is float64 else narrow


def horner(x: Any, coefficients: Sequence[float]) -> tuple[Any, float]:
    """Σ c_k x^k but for its constant term, and that term as one number of the dtype of ``x``.

    What the constant loses when it is rounded to float32 is part of the first. The highest power comes first.
    """
    *others, last = coefficients
    total = x * others[0]
    for coefficient in others[1:]:
        total = (total + coefficient) * x
    if x.dtype is float64:
        return total, last
    high = nearest(last, float32)
    return (total + (last - high) if last != high else total), high


@final
@dataclass(frozen=True, slots=True)
class Approximation:
    """A polynomial, or a quotient of two, with coefficients for float32 and float64; the highest power comes first.

    Attributes
    ----------
    narrow, wide : tuple of float
        The coefficients of the polynomial or of the numerator, for float32 and for float64.
    narrow_over, wide_over : tuple of float
        Those of the denominator; none for a polynomial.
    """

    narrow: tuple[float, ...]
    wide: tuple[float, ...]
    narrow_over: tuple[float, ...] = ()
    wide_over: tuple[float, ...] = ()

    def __call__(self, x: Any) -> Any:
        """The value at a traced ``x``."""
        rest, last = self.parts(x)
        over = self.wide_over if x.dtype is float64 else self.narrow_over
        if not over:
            return rest + last
        below, one = horner(x, over)
        return (rest + last) / (below + one)

    def parts(self, x: Any) -> tuple[Any, float]:
        """The numerator but for its constant term, and that term."""
        return horner(x, self.wide if x.dtype is float64 else self.narrow)


def split(value: float, x: Any) -> tuple[float, float]:
    """A number as one of the dtype of ``x`` and what that has lost; ``value`` itself is as good as float64 is."""
    high = value if x.dtype is float64 else nearest(value, float32)
    return high, value - high


def square(x: Any) -> tuple[Any, Any]:
    """x² rounded, and what rounding took away (T. J. Dekker, "A floating-point technique", 1971).

    Exact where x² and its parts neither overflow nor underflow.
    """
    spread = x * of_width(x, 2.0**12 + 1.0, 2.0**27 + 1.0)
    high = spread - (spread - x)
    low = x - high
    rounded = x * x
    return rounded, ((high * high - rounded) + 2.0 * high * low) + low * low


def plus(number: float, rest: Any) -> Any:
    """``number + rest`` as if the number had more digits than its dtype."""
    high, low = split(number, rest)
    return (rest + low if low else rest) + high


def log(x: Any) -> Any:
    """The logarithm. In float32 by way of log1p near 1, where the logarithms of some libraries lose three units."""
    if x.dtype is float64:
        return ex.log(x)
    return ex.where((x > 0.5) & (x < 2.0), ex.log1p(x - 1.0), ex.log(x))


_LOG_2_HIGH, _LOG_2_LOW = 0.693145751953125, 1.4286068203094172e-06


def exp(x: Any, approximation: Approximation) -> Any:
    """The exponential of -110 <= x <= 80, in float32 to one unit, where that of some libraries is off by more than two.

    exp(x) = 2^k exp(x - k log(2)), with the power of 2 from an exponential whose last 12 bits are rounded off.
    """
    if x.dtype is float64:
        return ex.exp(x)
    k = ex.apply("round", x * (1.0 / math.log(2.0)))
    near = ex.exp(k * math.log(2.0))
    spread = near * (2.0**12 + 1.0)
    power = spread - (spread - near)
    r = (x - k * _LOG_2_HIGH) - k * _LOG_2_LOW
    return power * (1.0 + (r + r * r * approximation(r)))
