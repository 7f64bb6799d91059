"""The gamma function's family as expressions: its logarithm and derivatives, and the logarithm of the beta function.

About the roots a quotient of polynomials is multiplied by the distance to each root; from 3 on it is Stirling's
series, fitted; from -1/4 down the reflection formula (M. Abramowitz, I. A. Stegun, "Handbook of mathematical
functions", chapter 6). The quotients take u, with their value at 1 + u: where |x| < 3/4 a step of the recurrence
Γ(1 + x) = x Γ(x) leads there.
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl.dtypes import float64
from netcl.functional.singular import unless_cut
from netcl.functional.special_arithmetic import floating, log, plus, split
from netcl.functional.special_coefficients import (
    COT_PI,
    DIGAMMA,
    DIGAMMA_TAIL,
    GAMMALN,
    GAMMALN_TAIL,
    SIN_PI,
    TRIGAMMA,
    TRIGAMMA_TAIL,
)

# Numbers with what float64 cannot hold of them: Euler's, and the root of digamma less 1.
_E = (math.e, 1.4456468917292502e-16)
_ROOT = (0.46163214496836236, -1.5522348162858677e-17)
# Where the two quotients are centred: lgamma(3/2) over -1/4, and trigamma at digamma's root.
_GAMMALN_CENTRE, _TRIGAMMA_ROOT = 0.4831289505409809, 0.9676722454476212
_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


def _less(x: Any, number: tuple[float, float]) -> Any:
    """``x`` minus a number that is given in two parts."""
    high, low = number if x.dtype is float64 else split(number[0], x)
    return (x - high) - low


def _stirling(x: Any) -> Any:
    """lgamma(x) - (x - 1/2) log(x) + x - log(2π)/2 for x >= 3."""
    return GAMMALN_TAIL(1.0 / (x * x)) / x


def _fraction(x: Any) -> Any:
    """``x`` minus the nearest integer, which is exact."""
    return x - ex.apply("round", x)


def gammaln(x: Any) -> Any:
    """log|Γ(x)|, which at -inf is -inf as in SciPy."""
    (x,) = floating(x)
    size = abs(x)
    near, reflects = size < 0.75, x <= -0.25
    u = ex.where(near, ex.where(reflects, size, x), size - 1.0)
    # log(x) - 1 as a logarithm of 1 + (x - e) / e, which loses nothing where it is small.
    beyond_e = ex.log1p(_less(size, _E) / math.e)
    tail = (size - 0.5) * beyond_e + ((_HALF_LOG_2_PI - 0.5) + _stirling(size))
    value = ex.where(size < 3.0, u * (u - 1.0) * plus(_GAMMALN_CENTRE, (u - 0.5) * GAMMALN(u)), tail)
    fraction = _fraction(x)
    sine = abs(fraction) * SIN_PI(fraction * fraction)
    logarithm = log(ex.where(reflects, ex.where(near, sine, sine * size), size))
    reflected = ex.where(ex.equal(fraction, 0.0), math.inf, (math.log(math.pi) - logarithm) - value)
    value = ex.where(reflects, reflected, ex.where(near, value - logarithm, value))
    return ex.where(ex.equal(size, math.inf), x, value)


def _shifted(x: Any) -> tuple[Any, Any, Any, Any, Any]:
    """|x|, whether that is below 3/4, whether to reflect, the argument 1 - x where so and x elsewhere, and u."""
    size = abs(x)
    near, reflects = size < 0.75, x <= -0.25
    u = ex.where(reflects, size, ex.where(near, x, x - 1.0))
    return size, near, reflects, ex.where(reflects, 1.0 + size, size), u


def digamma(x: Any) -> Any:
    """Γ'(x) / Γ(x), as the distance to its root times a quotient near that."""
    (x,) = floating(x)
    _, near, reflects, w, u = _shifted(x)
    tail = log(w) - (0.5 + DIGAMMA_TAIL(1.0 / (w * w)) / w) / w
    distance = _less(u, _ROOT)
    value = ex.where(w < 3.0, distance * plus(_TRIGAMMA_ROOT, distance * DIGAMMA(distance)), tail)
    f = _fraction(x)
    cotangent = (1.0 - 2.0 * f) * (1.0 + 2.0 * f) / f * COT_PI(f * f)
    reflected = ex.where(ex.equal(f, 0.0), math.nan, value - cotangent)
    return ex.where(reflects, reflected, ex.where(near, value - 1.0 / x, value))


def trigamma(x: Any) -> Any:
    """The derivative of digamma."""
    (x,) = floating(x)
    _, near, reflects, w, u = _shifted(x)
    tail = (1.0 + (0.5 + TRIGAMMA_TAIL(1.0 / (w * w)) / w) / w) / w
    value = ex.where(w < 3.0, TRIGAMMA(u), tail)
    f = _fraction(x)
    cosecant = math.pi / (f * SIN_PI(f * f))
    reflected = cosecant * cosecant - value
    inverse = 1.0 / x
    return ex.where(reflects, reflected, ex.where(near, value + inverse * inverse, value))


def gammaln_derivative(g: Any, x: Any) -> Any:
    """digamma(x)."""
    return unless_cut(g, x <= 0.0, g * digamma(x))


def digamma_derivative(g: Any, x: Any) -> Any:
    """trigamma(x)."""
    return unless_cut(g, x <= 0.0, g * trigamma(x))


def betaln(x1: Any, x2: Any) -> Any:
    """With Stirling's series for what is at least 3, whose large terms cancel before they are computed."""
    x1, x2 = floating(x1, x2)
    a, b = ex.minimum(x1, x2), ex.maximum(x1, x2)
    # B(a, b) = (-1)^b B(1 - a - b, b) has a value at an integer a <= 0 if b is an integer from 1 to -a.
    at_pole = (a <= 0.0) & ex.equal(a, ex.apply("floor", a))
    other = (1.0 - a) - b
    finite = at_pole & (a > -math.inf) & (b > 0.0) & (other > 0.0) & ex.equal(b, ex.apply("floor", b))
    a, b = ex.where(finite, ex.minimum(other, b), a), ex.where(finite, ex.maximum(other, b), b)
    total = a + b
    both = -(total - 0.5) * ex.log1p(a / b) + (_stirling(b) - _stirling(total))
    of_a = gammaln(a)
    far = a * ex.log(a / b) - 0.5 * ex.log(a) + (both + _stirling(a) + _HALF_LOG_2_PI)
    mixed = of_a + (both - a * (ex.log(b) - 1.0))
    close = of_a + (gammaln(b) - gammaln(total))
    value = ex.where(a >= 3.0, far, ex.where((b >= 3.0) & (total >= 3.0), mixed, close))
    value = ex.where(ex.equal(b, math.inf) & (a > 0.0), -math.inf, value)
    value = ex.where(ex.equal(b, math.inf) & (a < 0.0), math.inf, value)
    return ex.where(at_pole & ex.logical_not(finite), math.inf, value)


def _betaln_derivative(g: Any, mine: Any, other: Any) -> Any:
    """digamma(mine) - digamma(mine + other), without cancellation where both are at least 3."""
    mine, other = floating(mine, other)
    total = mine + other
    gap = (0.5 + DIGAMMA_TAIL(1.0 / (mine * mine)) / mine) / mine
    far = -ex.log1p(other / mine) - (gap - (0.5 + DIGAMMA_TAIL(1.0 / (total * total)) / total) / total)
    slope = ex.where((mine >= 3.0) & (total >= 3.0), far, digamma(mine) - digamma(total))
    return unless_cut(g, (mine <= 0.0) | (total <= 0.0), g * slope)


def betaln_left(g: Any, x1: Any, x2: Any) -> Any:
    """Along x1."""
    return _betaln_derivative(g, x1, x2)


def betaln_right(g: Any, x1: Any, x2: Any) -> Any:
    """Along x2."""
    return _betaln_derivative(g, x2, x1)
