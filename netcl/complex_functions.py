"""Complex arithmetic as arithmetic on pairs of reals: what each operator of an expression is on two parts.

Every function takes the two nodes of each complex operand and gives the two of the result, or one node where that is
real. Special values are those of the Array API standard, which are C99's; branch cuts go by the signs of zeros. Nothing
over- or underflows on the way to a result that is representable, and each part is accurate to a few units in the last
place wherever a change of the operand by such a unit changes it no more than that.

The inverse functions are Kahan's ("Branch cuts for complex elementary functions", 1987), put so that no two numbers of
unlike sign are added; the quotient is Smith's with the guards of Baudin and Smith ("A robust complex division in
Scilab", 2012).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from netcl.dtypes import float32, float64
from netcl.expression import Node, apply, constant, where

Pair: TypeAlias = tuple[Node, Node]


class Limits(NamedTuple):
    """Where the arithmetic of a dtype has to be careful.

    Attributes
    ----------
    digits : int
        Bits of a significand.
    largest : float
        A quarter of the power of two beyond all numbers: sums of a few such still are numbers.
    smallest : float
        Below it, products with what is left of a number after rounding are no normal numbers.
    up, down : float
        Powers of two, with even exponents, that bring what is smaller or larger than these to the middle of the range.
    steep, step : float
        From where on exp(x) nears the largest number, and by how much less its argument is then made.
    flat : float
        From where on tanh(x) is 1.
    """

    digits: int
    largest: float
    smallest: float
    up: float
    down: float
    steep: float
    step: float
    flat: float

    @property
    def far(self) -> float:
        """From where on 1 is nothing beside a number, nor beside its square root's square."""
        return 2.0 ** (self.digits + 1)


LIMITS = {
    float32: Limits(24, 2.0**126, 2.0**-100, 2.0**50, 2.0**-4, 88.0, 64.0, 11.0),
    float64: Limits(53, 2.0**1022, 2.0**-960, 2.0**108, 2.0**-4, 709.0, 512.0, 22.0),
}


def _limits(x: Node) -> Limits:
    return LIMITS[x.dtype]


def _number(value: float, like: Node) -> Node:
    return constant(value, like.dtype)


def _hypot(x: Node, y: Node) -> Node:
    return apply("hypot", x, y)


def _copysign(x: Node | float, y: Node) -> Node:
    return apply("copysign", x, y)


def _atan2(y: Node, x: Node) -> Node:
    return apply("atan2", y, x)


def _both(function: str) -> Callable[[Pair], Pair]:
    return lambda z: (apply(function, z[0]), apply(function, z[1]))


def _parts(function: str) -> Callable[[Pair, Pair], Pair]:
    return lambda z, w: (apply(function, z[0], w[0]), apply(function, z[1], w[1]))


def _larger(z: Pair) -> Node:
    return apply("maximum", abs(z[0]), abs(z[1]))


def _not_finite(x: Node) -> Node:
    return apply("logical_not", apply("isfinite", x))


def _is(x: Node, value: Node | float) -> Node:
    return apply("equal", x, value)


def is_real(z: Pair) -> bool:
    """Whether the imaginary part is the 0 that a real number was given when it was made complex."""
    return z[1].op == "constant" and z[1].value == 0.0


def choose(condition: Node, z: Pair, w: Pair) -> Pair:
    """``z`` where a condition holds, else ``w``."""
    return where(condition, z[0], w[0]), where(condition, z[1], w[1])


def length(z: Pair) -> Node:
    """|z|."""
    return _hypot(*z)


def multiply(z: Pair, w: Pair) -> Pair:
    """z · w; a factor that is real acts on each part."""
    (a, b), (c, d) = z, w
    if is_real(w):
        return a * c, b * c
    if is_real(z):
        return a * c, a * d
    return a * c - b * d, a * d + b * c


def square(z: Pair) -> Pair:
    """z²."""
    x, y = z
    product = x * y
    return (x - y) * (x + y), product + product


def _by_size(size: Node, large: float, small: float, usual: float = 1.0) -> Node:
    """One number where sums of a few such sizes may be no numbers, one where products of them may be none, else one."""
    limits = _limits(size)
    otherwise = where(size < limits.smallest, _number(small, size), _number(usual, size))
    return where(size > limits.largest, _number(large, size), otherwise)


def _to_middle(z: Pair) -> tuple[Pair, Node]:
    """``z`` away from the ends of the range, and the power of two that takes it back."""
    size = _larger(z)
    limits = _limits(size)
    by = _by_size(size, limits.down, limits.up)
    return (z[0] * by, z[1] * by), _by_size(size, 1.0 / limits.down, 1.0 / limits.up)


def divide(z: Pair, w: Pair) -> Pair:
    """z / w, and by 0 each part of z over |0|."""
    ((a, b), back), ((c, d), divisor_back) = _to_middle(z), _to_middle(w)
    steep = abs(d) > abs(c)
    main, other = choose(steep, (d, c), (c, d))
    first, second = choose(steep, (b, a), (a, b))
    ratio = other / main
    bottom = main + other * ratio

    def share(x: Node) -> Node:
        # x · ratio, where the ratio has underflowed too.
        return where(_is(ratio, 0.0), other * (x / main), x * ratio)

    turned = where(steep, _number(-1.0, a), _number(1.0, a))
    whole = back / divisor_back
    quotient = (first + share(second)) / bottom * whole, (second - share(first)) / bottom * turned * whole
    zero = abs(w[0])
    return choose(_is(w[0], 0.0) & _is(w[1], 0.0), (z[0] / zero, z[1] / zero), quotient)


def reciprocal(z: Pair) -> Pair:
    """1 / z."""
    return divide((_number(1.0, z[0]), _number(0.0, z[0])), z)


def sign(z: Pair) -> Pair:
    """z / |z|, and 0 for 0."""
    size = _larger(z)
    u, v = z[0] / size, z[1] / size
    unit = _hypot(u, v)
    made = choose(_is(size, math.inf), (u, v), (u / unit, v / unit))
    zero = _number(0.0, size)
    return choose(_is(size, 0.0), (zero, zero), made)


def sqrt(z: Pair) -> Pair:
    """The square root with a real part that is not negative."""
    x, y = z
    limits, size = _limits(x), _larger(z)
    by, back = _by_size(size, limits.down, limits.up), _by_size(size, limits.down**-0.5, limits.up**-0.5)
    u, v = abs(x) * by, abs(y) * by
    main = apply("sqrt", u * 0.5 + _hypot(u, v) * 0.5)
    zero = _number(0.0, x)
    rest = where(_is(main, 0.0), zero, v / (main + main)) * back
    main = main * back
    left = x < 0.0
    endless = apply("isinf", y)
    return (
        where(endless, abs(y), where(left, rest, main)),
        where(endless, y, _copysign(where(left, main, rest), y)),
    )


def rsqrt(z: Pair) -> Pair:
    """1 / sqrt(z)."""
    return reciprocal(sqrt(z))


def _log_length(z: Pair, log: str = "log") -> Node:
    """The logarithm of |z|, in base e, 2 or 10."""
    base = {"log": math.e, "log2": 2.0, "log10": 10.0}[log]
    of = {"log": math.log, "log2": math.log2, "log10": math.log10}[log]
    size, small = _larger(z), apply("minimum", abs(z[0]), abs(z[1]))
    limits = _limits(size)
    shift = _by_size(size, -of(limits.down), -of(limits.up), 0.0)
    plain = apply(log, _hypot(*_to_middle(z)[0])) + shift
    # |z|² - 1, without |z|².
    excess = (size - 1.0) * (size + 1.0) + small * small
    near = (size < 2.0) & (excess > -0.75) & (excess < 3.0)
    close = apply("log1p", excess) * (0.5 if log == "log" else 0.5 / math.log(base))
    return where(near, close, plain)


def _logarithm(log: str) -> Callable[[Pair], Pair]:
    factor = {"log": 1.0, "log2": 1.0 / math.log(2.0), "log10": 1.0 / math.log(10.0)}[log]

    def function(z: Pair) -> Pair:
        angle = _atan2(z[1], z[0])
        return _log_length(z, log), angle if log == "log" else angle * factor

    return function


def log1p(z: Pair) -> Pair:
    """log(1 + z), exact near 0."""
    x, y = z
    moved = 1.0 + x
    excess = x * (2.0 + x) + y * y
    near = (abs(x) < 2.0) & (abs(y) < 2.0) & (excess > -0.5) & (excess < 3.0)
    return where(near, 0.5 * apply("log1p", excess), _log_length((moved, y))), _atan2(y, moved)


def _steep(x: Node) -> tuple[Node, Node]:
    """Two factors whose product is exp(x), of which the first alone is no number too large."""
    limits = _limits(x)
    beyond = x > limits.steep
    factor = where(beyond, _number(math.exp(limits.step), x), _number(1.0, x))
    return apply("exp", where(beyond, x - limits.step, x)), factor


def exp(z: Pair) -> Pair:
    """e to the power of z."""
    x, y = z
    grown, factor = _steep(x)
    real, imag = grown * apply("cos", y) * factor, grown * apply("sin", y) * factor
    imag = where(_is(y, 0.0), y, imag)
    # e to the power of -∞ is 0 in every direction, and of ∞ it has none where y is no number.
    lost, zero = apply("isinf", x) & _not_finite(y), _number(0.0, x)
    return choose(lost, (where(x > 0.0, x, zero), where(x > 0.0, y - y, zero)), (real, imag))


def expm1(z: Pair) -> Pair:
    """e to the power of z, minus 1, exact near 0."""
    x, y = z
    real, imag = exp(z)
    half = apply("sin", 0.5 * y)
    fine = apply("expm1", x) * apply("cos", y) - 2.0 * (half * half)
    real = where(x > _limits(x).digits * math.log(2.0) + 2.0, real, fine + 0.0)  # never -0.0, says the standard
    return where(_is(x, -math.inf), _number(-1.0, x), real), imag


def _hyperbolic(x: Node, function: str, other: Node) -> Node:
    """sinh(x) · other or cosh(x) · other, which may be a number where the first factor is none."""
    grown, factor = _steep(abs(x))
    beyond = abs(x) > _limits(x).steep
    far = grown * (0.5 * other) * factor
    if function == "sinh":
        far = far * _copysign(1.0, x)
    return where(beyond, far, apply(function, x) * other)


def sinh(z: Pair) -> Pair:
    """The hyperbolic sine."""
    x, y = z
    real, imag = _hyperbolic(x, "sinh", apply("cos", y)), _hyperbolic(x, "cosh", apply("sin", y))
    kept = _not_finite(y) & (_is(x, 0.0) | apply("isinf", x))
    return where(kept, x, real), where(_is(y, 0.0), y, imag)


def cosh(z: Pair) -> Pair:
    """The hyperbolic cosine."""
    x, y = z
    real, imag = _hyperbolic(x, "cosh", apply("cos", y)), _hyperbolic(x, "sinh", apply("sin", y))
    undirected = _not_finite(y)
    real = where(undirected & apply("isinf", x), abs(x), real)
    imag = where(undirected & _is(x, 0.0), x, imag)
    return real, where(_is(y, 0.0), _copysign(1.0, x) * y, imag)


def tanh(z: Pair) -> Pair:
    """The hyperbolic tangent."""
    x, y = z
    undirected = _not_finite(y)
    tangent = apply("tan", y)
    slope, rise = 1.0 + tangent * tangent, apply("sinh", x)
    bottom = 1.0 + slope * rise * rise
    real, imag = slope * apply("cosh", x) * rise / bottom, tangent / bottom
    decay = apply("exp", -abs(x))
    tail = 4.0 * apply("sin", y) * apply("cos", y) * decay * decay
    zero = _number(0.0, x)
    # At infinity C gives the zero the sign of sin(2 y), the standard that of y.
    tail = where(apply("isinf", x), where(undirected, zero, apply("copysign", zero, y)), tail)
    end = where(undirected & apply("isfinite", x), y - y, _copysign(1.0, x))
    real, imag = choose(abs(x) > _limits(x).flat, (end, tail), (real, imag))
    return where(_is(x, 0.0), x, real), where(_is(y, 0.0), y, imag)


def _quarter_turned(function: Callable[[Pair], Pair]) -> Callable[[Pair], Pair]:
    """-i f(i z)."""

    def turned(z: Pair) -> Pair:
        real, imag = function((-z[1], z[0]))
        return imag, -real

    return turned


def cos(z: Pair) -> Pair:
    """The cosine, cosh(i z)."""
    return cosh((-z[1], z[0]))


class _Arc(NamedTuple):
    """Re acos(z), Re asin(z), and |Im| of both."""

    acos: Node
    asin: Node
    height: Node


def _arc(z: Pair) -> _Arc:
    x, y = z
    minus, plus = sqrt((1.0 - x, -y)), sqrt((1.0 + x, y))
    height = apply("asinh", plus[0] * abs(minus[1]) + abs(plus[1]) * minus[0])
    across = minus[0] * plus[0] + abs(minus[1]) * abs(plus[1])
    far = (abs(x) > _limits(x).far) | (abs(y) > _limits(x).far)
    acos = where(far, _atan2(abs(y), x), 2.0 * _atan2(minus[0], plus[0]))
    return _Arc(
        where(_is(x, 0.0), _number(math.pi / 2.0, x), acos),
        where(_is(x, 0.0), x, where(far, _atan2(x, abs(y)), _atan2(x, across))),
        where(far, _log_length(z) + math.log(2.0), height),
    )


def asin(z: Pair) -> Pair:
    """The angle whose sine is z."""
    arc = _arc(z)
    return arc.asin, _copysign(arc.height, z[1])


def acos(z: Pair) -> Pair:
    """The angle whose cosine is z."""
    arc = _arc(z)
    return arc.acos, -_copysign(arc.height, z[1])


def acosh(z: Pair) -> Pair:
    """The inverse hyperbolic cosine with a real part that is not negative: ±i acos(z)."""
    arc = _arc(z)
    return arc.height, _copysign(arc.acos, z[1])


def asinh(z: Pair) -> Pair:
    """The inverse hyperbolic sine, -i asin(i z)."""
    arc = _arc((z[1], z[0]))
    return _copysign(arc.height, z[0]), arc.asin


def atanh(z: Pair) -> Pair:
    """The inverse hyperbolic tangent."""
    x, y = abs(z[0]), z[1]
    limits = _limits(x)
    far = (x > limits.far) | (abs(y) > limits.far)
    rest = 1.0 - x
    real = 0.25 * apply("log1p", 4.0 * x / (rest * rest + y * y))
    # Beside the pole y² may be no number.
    beside = _is(x, 1.0) & (abs(y) < 2.0 ** -(limits.digits // 2 + 1))
    real = where(beside, 0.5 * (math.log(2.0) - apply("log", abs(y))), real)
    reach = _hypot(0.5 * x, 0.5 * y)
    endless = apply("isinf", x) | apply("isinf", y)
    tail = where(endless, _number(0.0, x), 0.25 * (x / reach / reach))
    real = _copysign(where(far, tail, real), z[0])
    imag = 0.5 * _atan2(2.0 * y, rest * (1.0 + x) - y * y)
    half_turn = _copysign(_number(math.pi / 2.0, x), y)
    half_turn = where(apply("isnan", y) | (apply("isnan", x) & apply("isfinite", y)), x * y, half_turn)
    return where(_is(z[0], 0.0), z[0], real), where(far, half_turn, imag)


def power(z: Pair, w: Pair) -> Pair:
    """z to the power of w, exp(w log(z)); products of z to a whole power below 16, and 1 to the power of 0."""
    made = exp(multiply(w, _logarithm("log")(z)))
    one = _number(1.0, z[0]), _number(0.0, z[0])
    product, factor, left = one, z, abs(w[0])
    for _ in range(4):
        rest = apply("floor", left * 0.5)
        product = choose(apply("not_equal", left, rest + rest), multiply(product, factor), product)
        factor, left = multiply(factor, factor), rest
    whole = _is(w[1], 0.0) & _is(apply("floor", w[0]), w[0]) & (abs(w[0]) < 16.0)
    # What has overflowed on the way, or vanished, is left to the logarithm.
    usable = apply("isfinite", product[0]) & apply("isfinite", product[1]) & (_larger(product) > 0.0)
    product = choose(w[0] < 0.0, divide(one, product), product)
    made = choose(whole & usable, product, made)
    return choose(_is(w[0], 0.0) & _is(w[1], 0.0), one, made)


def _any(op: str) -> Callable[[Pair], Node]:
    return lambda z: apply(op, z[0]) | apply(op, z[1])


FUNCTIONS: MappingProxyType[str, Callable[..., Pair | Node]] = MappingProxyType(
    {
        "add": _parts("add"), "subtract": _parts("subtract"), "multiply": multiply, "divide": divide, "pow": power,
        "negative": _both("negative"), "positive": _both("positive"), "round": _both("round"), "abs": length,
        "sign": sign, "square": square, "sqrt": sqrt, "rsqrt": rsqrt, "reciprocal": reciprocal, "exp": exp,
        "expm1": expm1, "log": _logarithm("log"), "log1p": log1p, "log2": _logarithm("log2"),
        "log10": _logarithm("log10"), "sin": _quarter_turned(sinh), "cos": cos, "tan": _quarter_turned(tanh),
        "asin": asin, "acos": acos, "atan": _quarter_turned(atanh), "sinh": sinh, "cosh": cosh, "tanh": tanh,
        "asinh": asinh, "acosh": acosh, "atanh": atanh,
        "equal": lambda z, w: apply("equal", z[0], w[0]) & apply("equal", z[1], w[1]),
        "not_equal": lambda z, w: apply("not_equal", z[0], w[0]) | apply("not_equal", z[1], w[1]),
        "isnan": _any("isnan"), "isinf": _any("isinf"),
        "isfinite": lambda z: apply("isfinite", z[0]) & apply("isfinite", z[1]),
        "where": choose, "real": lambda z: z[0], "imag": lambda z: z[1], "conj": lambda z: (z[0], -z[1]),
        "complex": lambda x, y: (x, y),
    }
)  # fmt: skip
"""What every operator that complex numbers have is on their parts."""
