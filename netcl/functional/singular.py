"""Derivatives at poles and at the edges of domains, where the chain rule multiplies a gradient by infinity or NaN.

A gradient of exactly 0 says that nothing depends on this element: ``where`` did not take it, say. Then it stays 0,
where 0 · ∞ would make NaN of it. What is NaN itself stays NaN. ``docs/autograd.md`` has the table of all such points.
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex


def unless_cut(g: Any, singular: Any, gradient: Any) -> Any:
    """``gradient``, but 0 where ``g`` is 0 at a ``singular`` place, which must be no NaN."""
    return ex.where(ex.equal(g, 0.0) & singular, 0.0, gradient)


def flat(g: Any, x: Any) -> Any:
    """The derivative of a step function: 0 wherever it has one, NaN where ``x`` is NaN."""
    return g * ex.where(ex.equal(x, x), 0.0, x)


def sign_derivative(g: Any, x: Any) -> Any:
    """Of x / |x|: what of ``g`` is across x, over |x|; 0 at 0. Of real numbers it is flat."""
    if x.dtype.kind != "c":
        return flat(g, x)
    unit, length = ex.sign(x), ex.apply("abs", x)
    across = g - ex.conj(unit) * ex.real(unit * g)  # g is the conjugate of the gradient, and so is the result
    return ex.where(ex.equal(length, 0.0), 0.0, across / length)


def _inside(outside: Any, value: Any) -> Any:
    """``value``, and NaN ``outside`` of the domain, where the function itself is NaN."""
    return ex.where(outside, math.nan, value)


def log_derivative(g: Any, x: Any, base: float = 1.0) -> Any:
    """g / (x · base), with ``base`` the natural logarithm of a logarithm's base."""
    slope = g / x if base == 1.0 else g / (x * base)
    if x.dtype.kind == "c":
        return slope
    return unless_cut(g, x <= 0.0, _inside(x < 0.0, slope))


def divide_left(g: Any, x2: Any) -> Any:
    """Of x1 / x2 along x1."""
    return unless_cut(g, ex.equal(x2, 0.0), g / x2)


def divide_right(g: Any, x2: Any, y: Any) -> Any:
    """Of x1 / x2 along x2."""
    return unless_cut(g, ex.equal(x2, 0.0), -g * y / x2)


def remainder_right(g: Any, x1: Any, x2: Any) -> Any:
    """Of x1 - floor(x1 / x2) · x2 along x2."""
    return unless_cut(g, ex.equal(x2, 0.0), -g * ex.apply("floor_divide", x1, x2))


def sqrt_derivative(g: Any, x: Any) -> Any:
    """g / (2 sqrt(x))."""
    return over_root(0.5 * g, x)


def rsqrt_derivative(g: Any, x: Any) -> Any:
    """-g / (2 sqrt(x)³)."""
    y = ex.rsqrt(x)
    slope = -0.5 * g * y * y * y
    return slope if x.dtype.kind == "c" else unless_cut(g, x <= 0.0, slope)


def reciprocal_derivative(g: Any, y: Any) -> Any:
    """Of y = 1 / x."""
    return unless_cut(g, ex.apply("isinf", y), -g * y * y)


def over_root(g: Any, square: Any) -> Any:
    """g / sqrt(square), which is infinite where ``square`` is 0 and NaN below."""
    slope = g / ex.sqrt(square)
    return slope if square.dtype.kind == "c" else unless_cut(g, square <= 0.0, slope)


def acosh_derivative(g: Any, x: Any) -> Any:
    """g / sqrt(x² - 1) without the square, which would overflow."""
    slope = g * ex.rsqrt(x - 1.0) * ex.rsqrt(x + 1.0)
    return slope if x.dtype.kind == "c" else unless_cut(g, x <= 1.0, slope)


def asinh_derivative(g: Any, x: Any) -> Any:
    """g / sqrt(x² + 1) without the square, which would overflow."""
    if x.dtype.kind == "c":
        return g * ex.rsqrt(1.0 + 1j * x) * ex.rsqrt(1.0 - 1j * x)
    return g / ex.apply("hypot", x, 1.0)


def atanh_derivative(g: Any, x: Any) -> Any:
    """g / (1 - x²)."""
    square = (1.0 - x) * (1.0 + x)
    if x.dtype.kind == "c":
        return g / square
    return unless_cut(g, square <= 0.0, _inside(square < 0.0, g / square))


def pow_left(g: Any, x1: Any, x2: Any) -> Any:
    """Of x1 ^ x2 along x1."""
    slope = ex.where(ex.equal(x2, 0.0), 0.0, g * x2 * ex.apply("pow", x1, x2 - 1.0))
    if x1.dtype.kind == "c" or x2.dtype.kind == "c":
        return slope
    return unless_cut(g, (x1 <= 0.0) & ex.equal(x2, x2), slope)


def pow_right(g: Any, x1: Any, x2: Any, y: Any) -> Any:
    """Of x1 ^ x2 along x2; with x1 = 0 the power is flat in x2 >= 0, and its limit elsewhere where it vanishes."""
    if y.dtype.kind == "c":
        return ex.where(ex.equal(x1, 0.0) & (ex.real(x2) >= 0.0), 0.0, g * y * ex.log(x1))
    flat_at_zero = ex.equal(x1, 0.0) & (x2 >= 0.0)
    vanished = (x1 > 0.0) & ex.equal(y, 0.0)
    slope = ex.where(flat_at_zero | vanished, 0.0, g * y * ex.log(x1))
    return unless_cut(g, (x1 <= 0.0) & ex.equal(x2, x2), slope)


def atan2_derivative(g: Any, along: Any, x1: Any, x2: Any) -> Any:
    """g · along / (x1² + x2²) without the squares; 0 at the origin."""
    length = ex.apply("hypot", x1, x2)
    return ex.where(ex.equal(length, 0.0), 0.0, g * (along / length) / length)


def hypot_derivative(g: Any, x: Any, y: Any) -> Any:
    """Of y = hypot(x, …) along x; 0 at the origin."""
    return ex.where(ex.equal(y, 0.0), 0.0, g * (x / y))


def logaddexp_derivative(g: Any, mine: Any, other: Any) -> Any:
    """g / (1 + exp(other - mine)): by the difference, for the result has lost it. Equals share, even infinite ones."""
    return ex.where(ex.equal(mine, other), 0.5 * g, g / (1.0 + ex.exp(other - mine)))


def winner_takes(g: Any, loses: Any, ties: Any) -> Any:
    """Nothing to an operand that ``loses``, half to each of two that are equal, and all to a winner or a NaN."""
    return ex.where(loses, 0.0, ex.where(ties, 0.5 * g, g))
