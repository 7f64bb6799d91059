"""The modified Bessel functions of the first kind, of order 0 and 1, as expressions, with derivatives.

Up to 8 (4 in float32) a polynomial in x²/4, whose terms are all positive; beyond, exp(|x|) / sqrt(|x|) times one in
1/|x|, after the asymptotic series (M. Abramowitz, I. A. Stegun, "Handbook of mathematical functions", 9.6.10, 9.7.1).
The scaled ones are without the factor exp(|x|). Their derivatives have polynomials of their own there, where the
difference of two would cancel.
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl.functional.special_arithmetic import exp, floating, of_width
from netcl.functional.special_coefficients import EXP, I0, I0_TAIL, I0E_SLOPE, I1, I1_TAIL, I1E_SLOPE


def _is_near(size: Any) -> Any:
    return size < of_width(size, 4.0, 8.0)


def _near(x: Any) -> tuple[Any, Any]:
    """I0(x), and 2 I1(x) / x, where x is near 0."""
    quarter = 0.25 * x * x
    return 1.0 + quarter * I0(quarter), 1.0 + quarter * I1(quarter)


def _grown(size: Any, tail: Any) -> Any:
    """exp(size) tail(1 / size) / sqrt(size), where the exponential alone may overflow."""
    size = ex.minimum(size, of_width(size, 100.0, 1000.0))  # from there on infinite
    # A difference of neighbours is exact; the exponential of 65.25 is nearly a float32.
    shift = of_width(size, 65.25, 512.0)
    large = size > of_width(size, 80.0, 700.0)
    power = exp(ex.where(large, size - shift, size), EXP) * (tail(1.0 / size) / ex.sqrt(size))
    return ex.where(large, power * math.exp(shift), power)


def _bounded(size: Any) -> Any:
    return ex.minimum(size, 10.0)


def _signed(size: Any, x: Any) -> Any:
    return ex.apply("copysign", size, x)


def i0(x: Any) -> Any:
    """I0(x)."""
    (x,) = floating(x)
    size = abs(x)
    return ex.where(_is_near(size), _near(x)[0], _grown(size, I0_TAIL))


def i1(x: Any) -> Any:
    """I1(x)."""
    (x,) = floating(x)
    size = abs(x)
    return ex.where(_is_near(size), (0.5 * x) * _near(x)[1], _signed(_grown(size, I1_TAIL), x))


def i0e(x: Any) -> Any:
    """exp(-|x|) I0(x)."""
    (x,) = floating(x)
    size = abs(x)
    return ex.where(_is_near(size), exp(-_bounded(size), EXP) * _near(x)[0], I0_TAIL(1.0 / size) / ex.sqrt(size))


def i1e(x: Any) -> Any:
    """exp(-|x|) I1(x)."""
    (x,) = floating(x)
    size = abs(x)
    tail = I1_TAIL(1.0 / size) / ex.sqrt(size)
    return ex.where(_is_near(size), exp(-_bounded(size), EXP) * ((0.5 * x) * _near(x)[1]), _signed(tail, x))


def i0_derivative(g: Any, x: Any) -> Any:
    """I1(x)."""
    return g * i1(x)


def i1_derivative(g: Any, x: Any) -> Any:
    """I0(x) - I1(x) / x, which is 1/2 at 0."""
    (x,) = floating(x)
    size = abs(x)
    of_0, of_1 = _near(x)
    return g * ex.where(_is_near(size), of_0 - 0.5 * of_1, _grown(size, lambda v: I0_TAIL(v) - I1_TAIL(v) * v))


def i0e_derivative(g: Any, x: Any) -> Any:
    """0 at the kink in 0."""
    (x,) = floating(x)
    size = abs(x)
    of_0, of_1 = _near(x)
    slope = ex.exp(-size) * (0.5 * x * of_1 - ex.sign(x) * of_0)
    return g * ex.where(_is_near(size), slope, -_signed(I0E_SLOPE(1.0 / size) / (size * ex.sqrt(size)), x))


def i1e_derivative(g: Any, x: Any) -> Any:
    """exp(-|x|) (I0(x) - I1(x) / x) less the value with the sign of x."""
    (x,) = floating(x)
    size = abs(x)
    of_0, of_1 = _near(x)
    slope = ex.exp(-size) * (of_0 - 0.5 * of_1 - 0.5 * size * of_1)
    return g * ex.where(_is_near(size), slope, -(I1E_SLOPE(1.0 / size) / (size * ex.sqrt(size))))
