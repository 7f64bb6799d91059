"""The error function's family as expressions: erfc, the normal distribution and their inverses, with derivatives.

erfc(x) is exp(-x²) P(t) / (1 + 2 x) for x >= 0, with one polynomial P in t = (x - 3) / (x + 3) for the whole half-line:
M. M. Shepherd, J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in 0 <= x < ∞", Math. Comp. 36
(1981). What rounding takes from x² goes into P. The inverses have a quotient in the centre and, in the tails, a
polynomial after the square root of a logarithm, split like M. J. Wichura, "Algorithm AS 241: The percentage points of
the normal distribution", Applied Statistics 37 (1988).
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl.functional.singular import unless_cut
from netcl.functional.special_arithmetic import exp, floating, log, of_width, plus, square
from netcl.functional.special_coefficients import ERF, ERFCX, EXP, NDTR, NDTRI_CENTRE, NDTRI_TAIL

_HALF_ROOT = math.sqrt(0.5)
_ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_NEAR, _NEAR_IN_LOG, _FAR = 0.65, 0.95, 1e15


def _scaled(h: Any, rounded_off: Any = None) -> Any:
    """exp(h²) erfc(h) for 0 <= h < ∞, times exp(-rounded_off)."""
    rest, last = ERFCX.parts((h - 3.0) / (h + 3.0))
    if rounded_off is not None:
        rest = rest - rounded_off * (rest + last)
    return (rest + last) / (1.0 + 2.0 * h)


def _half_erf(x: Any) -> Any:
    """ndtr(x) - 1/2 for |x| < 1."""
    return x * NDTR(x * x)


def _tail(size: Any) -> Any:
    """ndtr(-size) for size >= 0, to the last digits also where it is small."""
    near = ex.minimum(size, of_width(size, 15.0, 40.0))
    exponent, rounded_off = square(near)
    return 0.5 * exp(-0.5 * exponent, EXP) * _scaled(near * _HALF_ROOT, 0.5 * rounded_off)


def erfc(x: Any) -> Any:
    """1 - erf(x), which near 0 is what it says and elsewhere the tail itself."""
    (x,) = floating(x)
    size = abs(x)
    near = ex.minimum(size, of_width(x, 10.5, 28.0))
    exponent, rounded_off = square(near)
    tail = exp(-exponent, EXP) * _scaled(near, rounded_off)
    return ex.where(size < 0.5, 1.0 - x * ERF(exponent), ex.where(x < 0.0, 2.0 - tail, tail))


def erfc_derivative(g: Any, x: Any) -> Any:
    """Minus the density that erf integrates."""
    (x,) = floating(x)
    return g * (-2.0 / math.sqrt(math.pi)) * ex.exp(-(x * x))


def ndtr(x: Any) -> Any:
    """The tail where x is negative, and 1 minus the other tail where it is positive."""
    (x,) = floating(x)
    size = abs(x)
    tail = _tail(size)
    return ex.where(size < _NEAR, 0.5 + _half_erf(x), ex.where(x < 0.0, tail, 1.0 - tail))


def ndtr_derivative(g: Any, x: Any) -> Any:
    """The density of the normal distribution."""
    (x,) = floating(x)
    return g * (0.5 * _ROOT_2_OVER_PI) * ex.exp(-0.5 * x * x)


def log_ndtr(x: Any) -> Any:
    """The logarithm of the scaled tail less x²/2 below 0, and of 1 minus the upper tail above."""
    (x,) = floating(x)
    size = abs(x)
    near, half_erf = size < _NEAR_IN_LOG, _half_erf(x)
    scaled = 0.5 * _scaled(ex.minimum(size, _FAR) * _HALF_ROOT)
    low = log(ex.where(near, 0.5 + half_erf, scaled)) - ex.where(near, 0.0, 0.5 * x * x)
    return ex.where(x < 0.0, low, ex.log1p(-ex.where(near, 0.5 - half_erf, _tail(size))))


def log_ndtr_derivative(g: Any, x: Any) -> Any:
    """The density over ndtr: in the lower tail as one over the scaled tail, which does not underflow."""
    (x,) = floating(x)
    size = abs(x)
    density = (0.5 * _ROOT_2_OVER_PI) * ex.exp(-0.5 * x * x)
    high = density / (1.0 - _tail(size))
    low = _ROOT_2_OVER_PI / _scaled(ex.minimum(size, _FAR) * _HALF_ROOT)
    return g * ex.where(x < -_FAR, size, ex.where(x < 0.0, low, high))


def _quantile(half: Any, p: Any, scale: float) -> tuple[Any, Any]:
    """Of ``scale`` times the quantile for p = 1/2 - half: the factor of ``half`` near 0, and the size in the tail.

    ``p`` is the smaller probability.
    """
    q = half * half
    logarithm = -log(p)
    r = ex.sqrt(logarithm)
    tail = (r if scale == 1.0 else ex.sqrt(0.5 * logarithm)) * NDTRI_TAIL((r - 2.5) / (r + 2.5))
    centre = plus(scale * math.sqrt(2.0 * math.pi), q * NDTRI_CENTRE(0.180625 - q) * scale)
    return centre, ex.where(ex.equal(p, 0.0), math.inf, tail)


def erfinv(x: Any) -> Any:
    """A quantile of the normal distribution with variance 1/2."""
    (x,) = floating(x)
    size = abs(x)
    centre, tail = _quantile(0.5 * size, 0.5 * (1.0 - size), _HALF_ROOT)
    return ex.where(size <= 0.85, x * (0.5 * centre), ex.apply("copysign", tail, x))


def erfinv_derivative(g: Any, x: Any, y: Any) -> Any:
    """One over the density at the result."""
    x, y = floating(x, y)
    return unless_cut(g, abs(x) >= 1.0, g * (0.5 * math.sqrt(math.pi)) * ex.exp(y * y))


def ndtri(p: Any) -> Any:
    """A quantile of the normal distribution."""
    (p,) = floating(p)
    q = p - 0.5
    centre, tail = _quantile(q, ex.minimum(p, 1.0 - p), 1.0)
    return ex.where(abs(q) <= 0.425, q * centre, ex.apply("copysign", tail, q))


def ndtri_derivative(g: Any, x: Any, y: Any) -> Any:
    """One over the density at the result."""
    x, y = floating(x, y)
    return unless_cut(g, (x <= 0.0) | (x >= 1.0), g * math.sqrt(2.0 * math.pi) * ex.exp(0.5 * y * y))
