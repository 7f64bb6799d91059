"""Every elementwise function at its kinks, poles, ties and edges: the value and the derivatives that are right there.

A point gives the operands, the value, the derivative along each operand, the gradient that comes in (1 unless it says
otherwise), and why it departs from torch where it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import netcl
import netcl.functional as F

INF, NAN = float("inf"), float("nan")

CUT = "a gradient of 0 stays 0 at a pole and outside a domain, where 0 · ∞ or 0 · NaN would undo a where()"
SHOWN = "a NaN operand shows in the gradient"
OUTSIDE = "outside its domain a function is NaN and its derivative too, not what the formula goes on with"
SCALED = "squares and cubes overflow or vanish in torch's formula"
LIMIT = "the limit, where the formula has 0 · ∞ or ∞ / ∞"
TIES = "equal infinities share as other equals do"
ORIGIN = "0 as for the other norms, where the formula has 0 / 0"
ZEROS = "torch has two ways of taking this power, with another sign of zero or NaN"
FLUSHED = "torch takes a reciprocal that overflows, or flushes it to 0"
STEP = "along x1 the next number moves as x1 does"


@dataclass(frozen=True)
class Point:
    """One place, and what is expected there."""

    x: tuple[float, ...]
    y: float
    d: tuple[float, ...]
    g: float = 1.0
    why: str = ""


@dataclass(frozen=True)
class Elementwise:
    """A function over one or two operands, with its points."""

    function: Callable[..., Any]
    torch: Callable[..., Any]
    points: tuple[Point, ...]


def _one(name: str, *rows: tuple[Any, ...], torch: Any = None, function: Any = None) -> Elementwise:
    function = function or getattr(netcl, name, None) or getattr(F, name)
    points = tuple([Point((x,), y, (d,), *rest) for x, y, d, *rest in rows])
    return Elementwise(function, torch or (lambda t, x: getattr(t, name)(x)), points)


def _two(name: str, *rows: tuple[Any, ...], torch: Any = None, function: Any = None) -> Elementwise:
    points = tuple([Point((x1, x2), y, (d1, d2), *rest) for x1, x2, y, d1, d2, *rest in rows])
    return Elementwise(function or getattr(netcl, name), torch or (lambda t, x1, x2: getattr(t, name)(x1, x2)), points)


def _steps(name: str, *rows: tuple[float, float]) -> Elementwise:
    ordinary = [(x, y, 0.0) for x, y in rows]
    return _one(name, *ordinary, (INF, INF, 0.0), (-INF, -INF, 0.0), (NAN, NAN, NAN, 1.0, SHOWN))


_LN2, _LN10, _HALF_PI = 0.6931471805599453, 2.302585092994046, 1.5707963267948966
_ONE_NAN = (NAN, NAN, NAN)

UNARY: dict[str, Elementwise] = {
    "negative": _one("negative", (0.0, 0.0, -1.0), (INF, -INF, -1.0), (NAN, NAN, -1.0)),
    "positive": _one("positive", (-0.0, 0.0, 1.0), (-INF, -INF, 1.0), (NAN, NAN, 1.0)),
    "abs": _one(
        "abs", (0.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (INF, INF, 1.0), (-INF, INF, -1.0), (1e-30, 1e-30, 1.0),
        (NAN, NAN, NAN, 1.0, SHOWN),
    ),
    "sign": _one(
        "sign", (0.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (INF, 1.0, 0.0), (-INF, -1.0, 0.0), (NAN, NAN, NAN, 1.0, SHOWN)
    ),
    "square": _one("square", (0.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (INF, INF, INF), (-INF, INF, -INF), _ONE_NAN),
    "sqrt": _one(
        "sqrt", (0.0, 0.0, INF), (0.0, 0.0, 0.0, 0.0, CUT), (-0.0, 0.0, 0.0, 0.0, CUT), (-1.0, NAN, NAN),
        (-1.0, NAN, 0.0, 0.0, CUT), (INF, INF, 0.0), (1e-30, 1e-15, 5e14), (1e30, 1e15, 5e-16), _ONE_NAN,
        (NAN, NAN, NAN, 0.0),
    ),
    "rsqrt": _one(
        "rsqrt", (0.0, INF, -INF), (0.0, INF, 0.0, 0.0, CUT), (-1.0, NAN, NAN), (-1.0, NAN, 0.0, 0.0, CUT),
        (INF, 0.0, 0.0), (1e-20, 1e10, -5e29), (1e20, 1e-10, -5e-31), _ONE_NAN,
    ),
    "reciprocal": _one(
        "reciprocal", (0.0, INF, -INF), (-0.0, -INF, -INF), (0.0, INF, 0.0, 0.0, CUT), (INF, 0.0, 0.0),
        (-INF, 0.0, 0.0), (1e-15, 1e15, -1e30), (1e15, 1e-15, -1e-30), _ONE_NAN, (NAN, NAN, NAN, 0.0),
    ),
    "exp": _one(
        "exp", (0.0, 1.0, 1.0), (1e4, INF, INF), (-1e4, 0.0, 0.0), (INF, INF, INF), (-INF, 0.0, 0.0), _ONE_NAN
    ),
    "expm1": _one(
        "expm1", (0.0, 0.0, 1.0), (1e-20, 1e-20, 1.0), (1e4, INF, INF), (-1e4, -1.0, 0.0), (INF, INF, INF),
        (-INF, -1.0, 0.0), (-30.0, -1.0 + 9.357622968840175e-14, 9.357622968840175e-14, 1.0, SCALED), _ONE_NAN,
    ),
    "log": _one(
        "log", (0.0, -INF, INF), (0.0, -INF, 0.0, 0.0, CUT), (1.0, 0.0, 1.0), (INF, INF, 0.0),
        (1e-30, -30 * _LN10, 1e30), (-1.0, NAN, NAN, 1.0, OUTSIDE), (-1.0, NAN, 0.0, 0.0),
        (-INF, NAN, NAN, 1.0, OUTSIDE),
        _ONE_NAN, (NAN, NAN, NAN, 0.0),
    ),
    "log1p": _one(
        "log1p", (-1.0, -INF, INF), (-1.0, -INF, 0.0, 0.0, CUT), (0.0, 0.0, 1.0), (1e-20, 1e-20, 1.0), (INF, INF, 0.0),
        (-2.0, NAN, NAN, 1.0, OUTSIDE), (-2.0, NAN, 0.0, 0.0), _ONE_NAN,
    ),
    "log2": _one(
        "log2", (0.0, -INF, INF), (0.0, -INF, 0.0, 0.0, CUT), (1.0, 0.0, 1.0 / _LN2), (INF, INF, 0.0),
        (-1.0, NAN, NAN, 1.0, OUTSIDE), _ONE_NAN,
    ),
    "log10": _one(
        "log10", (0.0, -INF, INF), (0.0, -INF, 0.0, 0.0, CUT), (1.0, 0.0, 1.0 / _LN10), (INF, INF, 0.0),
        (-1.0, NAN, NAN, 1.0, OUTSIDE), _ONE_NAN,
    ),
    "sin": _one("sin", (0.0, 0.0, 1.0), (-0.0, 0.0, 1.0), (1e-30, 1e-30, 1.0), (INF, NAN, NAN), _ONE_NAN),
    "cos": _one("cos", (0.0, 1.0, 0.0), (-0.0, 1.0, 0.0), (-INF, NAN, NAN), _ONE_NAN),
    "tan": _one("tan", (0.0, 0.0, 1.0), (INF, NAN, NAN), _ONE_NAN),
    "asin": _one(
        "asin", (1.0, _HALF_PI, INF), (-1.0, -_HALF_PI, INF), (1.0, _HALF_PI, 0.0, 0.0, CUT), (0.0, 0.0, 1.0),
        (2.0, NAN, NAN), (2.0, NAN, 0.0, 0.0, CUT), (INF, NAN, NAN), _ONE_NAN,
    ),
    "acos": _one(
        "acos", (1.0, 0.0, -INF), (-1.0, 2 * _HALF_PI, -INF), (-1.0, 2 * _HALF_PI, 0.0, 0.0, CUT),
        (0.0, _HALF_PI, -1.0), (-2.0, NAN, NAN), _ONE_NAN,
    ),
    "atan": _one(
        "atan", (0.0, 0.0, 1.0), (INF, _HALF_PI, 0.0), (-INF, -_HALF_PI, 0.0), (1e25, _HALF_PI, 0.0), _ONE_NAN
    ),
    "sinh": _one("sinh", (0.0, 0.0, 1.0), (1e4, INF, INF), (-1e4, -INF, INF), (-INF, -INF, INF), _ONE_NAN),
    "cosh": _one("cosh", (0.0, 1.0, 0.0), (1e4, INF, INF), (-1e4, INF, -INF), (-INF, INF, -INF), _ONE_NAN),
    "tanh": _one(
        "tanh", (0.0, 0.0, 1.0), (1e4, 1.0, 0.0), (-1e4, -1.0, 0.0), (INF, 1.0, 0.0), (-INF, -1.0, 0.0), _ONE_NAN
    ),
    "asinh": _one(
        "asinh", (0.0, 0.0, 1.0), (INF, INF, 0.0), (-INF, -INF, 0.0),
        (1e25, 25 * _LN10 + _LN2, 1e-25, 1.0, SCALED), _ONE_NAN,
    ),
    "acosh": _one(
        "acosh", (1.0, 0.0, INF), (1.0, 0.0, 0.0, 0.0, CUT), (INF, INF, 0.0),
        (1e25, 25 * _LN10 + _LN2, 1e-25, 1.0, SCALED), (0.5, NAN, NAN), (0.5, NAN, 0.0, 0.0, CUT),
        (-2.0, NAN, NAN, 1.0, OUTSIDE), _ONE_NAN,
    ),
    "atanh": _one(
        "atanh", (1.0, INF, INF), (-1.0, -INF, INF), (1.0, INF, 0.0, 0.0, CUT), (0.0, 0.0, 1.0),
        (2.0, NAN, NAN, 1.0, OUTSIDE), (2.0, NAN, 0.0, 0.0), _ONE_NAN,
    ),
    "erf": _one(
        "erf", (0.0, 0.0, 1.1283791670955126), (1e4, 1.0, 0.0), (-1e25, -1.0, 0.0), (INF, 1.0, 0.0),
        (-INF, -1.0, 0.0), _ONE_NAN,
    ),
    "floor": _steps("floor", (0.0, 0.0), (-1.0, -1.0), (-0.5, -1.0)),
    "ceil": _steps("ceil", (0.0, 0.0), (1.0, 1.0), (0.5, 1.0)),
    "trunc": _steps("trunc", (0.0, 0.0), (1.0, 1.0), (-1.5, -1.0)),
    "round": _steps("round", (0.0, 0.0), (0.5, 0.0), (1.5, 2.0), (-2.5, -2.0)),
    "relu": _one(
        "relu", (0.0, 0.0, 0.0), (-0.0, 0.0, 0.0), (1e-30, 1e-30, 1.0), (INF, INF, 1.0), (-INF, 0.0, 0.0),
        (NAN, NAN, 1.0),
    ),
    "sigmoid": _one(
        "sigmoid", (0.0, 0.5, 0.25), (1e4, 1.0, 0.0), (-1e4, 0.0, 0.0), (INF, 1.0, 0.0), (-INF, 0.0, 0.0), _ONE_NAN
    ),
    "silu": _one(
        "silu", (0.0, 0.0, 0.5), (1e4, 1e4, 1.0), (-1e4, 0.0, 0.0), (1e25, 1e25, 1.0), (-1e25, 0.0, 0.0),
        (INF, INF, 1.0, 1.0, LIMIT), (-INF, 0.0, 0.0, 1.0, LIMIT), _ONE_NAN,
        torch=lambda t, x: t.nn.functional.silu(x),
    ),
    "gelu": _one(
        "gelu", (0.0, 0.0, 0.5), (1e4, 1e4, 1.0), (-1e4, 0.0, 0.0), (1e25, 1e25, 1.0), (-1e25, 0.0, 0.0),
        (INF, INF, 1.0, 1.0, LIMIT), (-INF, 0.0, 0.0, 1.0, LIMIT), _ONE_NAN,
        torch=lambda t, x: t.nn.functional.gelu(x),
    ),
    "gelu tanh": _one(
        "gelu", (0.0, 0.0, 0.5), (1e4, 1e4, 1.0), (-1e4, 0.0, 0.0), (1e25, 1e25, 1.0, 1.0, SCALED),
        (-1e25, 0.0, 0.0, 1.0, SCALED), (INF, INF, 1.0, 1.0, LIMIT), (-INF, 0.0, 0.0, 1.0, LIMIT), _ONE_NAN,
        function=lambda x: F.gelu(x, approximate="tanh"),
        torch=lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
    ),
    "clip": _one(
        "clip", (-1.0, -1.0, 1.0), (1.0, 1.0, 1.0), (1.5, 1.0, 0.0), (INF, 1.0, 0.0), (-INF, -1.0, 0.0),
        (NAN, NAN, 1.0, 1.0, SHOWN),
        function=lambda x: netcl.clip(x, -1.0, 1.0), torch=lambda t, x: t.clamp(x, -1.0, 1.0),
    ),
    "clip below": _one(
        "clip", (0.0, 0.0, 1.0), (-0.0, 0.0, 1.0), (INF, INF, 1.0), (-INF, 0.0, 0.0), (NAN, NAN, 1.0, 1.0, SHOWN),
        function=lambda x: netcl.clip(x, min=0.0), torch=lambda t, x: t.clamp(x, min=0.0),
    ),
    "clip above": _one(
        "clip", (0.0, 0.0, 1.0), (INF, 0.0, 0.0), (-INF, -INF, 1.0), (NAN, NAN, 1.0, 1.0, SHOWN),
        function=lambda x: netcl.clip(x, max=0.0), torch=lambda t, x: t.clamp(x, max=0.0),
    ),
    "clip with its ends exchanged": _one(
        "clip", (-2.0, -1.0, 0.0), (0.0, -1.0, 0.0), (2.0, -1.0, 0.0), (NAN, NAN, 1.0, 1.0, SHOWN),
        function=lambda x: netcl.clip(x, 1.0, -1.0), torch=lambda t, x: t.clamp(x, 1.0, -1.0),
    ),
    "x ** 0": _one(
        "pow", (0.0, 1.0, 0.0), (NAN, 1.0, 0.0), (INF, 1.0, 0.0), function=lambda x: x**0, torch=lambda t, x: x**0
    ),
    "x ** 1": _one(
        "pow", (0.0, 0.0, 1.0), (-0.0, 0.0, 1.0), (INF, INF, 1.0), (NAN, NAN, 1.0),
        function=lambda x: x**1, torch=lambda t, x: x**1,
    ),
    "x ** 2": _one("pow", (0.0, 0.0, 0.0), (-INF, INF, -INF), _ONE_NAN, function=lambda x: x**2, torch=lambda t,
    x: x**2),
    "x ** 3": _one("pow", (0.0, 0.0, 0.0), (-INF, -INF, INF), _ONE_NAN, function=lambda x: x**3, torch=lambda t,
    x: x**3),
    "x ** 0.5": _one(
        "pow", (0.0, 0.0, INF), (0.0, 0.0, 0.0, 0.0, CUT), (-0.0, 0.0, INF, 1.0, ZEROS), (-1.0, NAN, NAN),
        (-1.0, NAN, 0.0, 0.0, CUT), _ONE_NAN, function=lambda x: x**0.5, torch=lambda t, x: x**0.5,
    ),
    "x ** -1": _one(
        "pow", (0.0, INF, -INF), (0.0, INF, 0.0, 0.0, CUT), (INF, 0.0, 0.0), _ONE_NAN,
        function=lambda x: x**-1.0, torch=lambda t, x: x**-1.0,
    ),
    "0 ** x": _one(
        "pow", (0.0, 1.0, 0.0), (2.0, 0.0, 0.0), (INF, 0.0, 0.0), (-1.0, INF, -INF), (-1.0, INF, 0.0, 0.0, CUT),
        _ONE_NAN, function=lambda x: 0.0**x, torch=lambda t, x: 0.0**x,
    ),
    "2 ** x": _one(
        "pow", (0.0, 1.0, _LN2), (1e4, INF, INF), (-1e4, 0.0, 0.0), (INF, INF, INF), (-INF, 0.0, 0.0), _ONE_NAN,
        function=lambda x: 2.0**x, torch=lambda t, x: 2.0**x,
    ),
    "1 / x": _one(
        "divide", (0.0, INF, -INF), (0.0, INF, 0.0, 0.0, CUT), (-0.0, -INF, -INF), (INF, 0.0, 0.0), _ONE_NAN,
        function=lambda x: 1.0 / x, torch=lambda t, x: 1.0 / x,
    ),
    "0 / x": _one(
        "divide", (0.0, NAN, NAN), (0.0, NAN, 0.0, 0.0, CUT), (INF, 0.0, 0.0), (1e-30, 0.0, 0.0, 1.0, FLUSHED),
        _ONE_NAN,
        function=lambda x: 0.0 / x, torch=lambda t, x: 0.0 / x,
    ),
    "x / 0": _one(
        "divide", (0.0, NAN, INF), (1.0, INF, INF), (1.0, INF, 0.0, 0.0, CUT), (NAN, NAN, INF),
        function=lambda x: x / 0.0, torch=lambda t, x: x / 0.0,
    ),
    "1 - x": _one(
        "subtract", (INF, -INF, -1.0), (NAN, NAN, -1.0), function=lambda x: 1.0 - x, torch=lambda t, x: 1.0 - x
    ),
    "x % 3": _one(
        "remainder", (3.0, 0.0, 1.0), (-1.0, 2.0, 1.0), (INF, NAN, 1.0), (NAN, NAN, 1.0),
        function=lambda x: x % 3.0, torch=lambda t, x: x % 3.0,
    ),
    "3 % x": _one(
        "remainder", (3.0, 0.0, -1.0), (-2.0, -1.0, 2.0), (INF, 3.0, 0.0), (0.0, NAN, -INF), (0.0, NAN, 0.0, 0.0, CUT),
        _ONE_NAN, function=lambda x: 3.0 % x, torch=lambda t, x: t.remainder(t.full_like(x, 3.0), x),
    ),
    "astype": _one(
        "astype", (1e6, INF, 1.0), (INF, INF, 1.0), (-INF, -INF, 1.0), (NAN, NAN, 1.0), (0.0, 0.0, 1.0),
        function=lambda x: netcl.astype(x, netcl.float16), torch=lambda t, x: x.to(t.float16),
    ),
    "clone": _one("clone", (INF, INF, 1.0), (NAN, NAN, 1.0)),
}  # fmt: skip

BINARY: dict[str, Elementwise] = {
    "add": _two("add", (INF, -INF, NAN, 1.0, 1.0), (NAN, 1.0, NAN, 1.0, 1.0)),
    "subtract": _two("subtract", (INF, INF, NAN, 1.0, -1.0), (1.0, NAN, NAN, 1.0, -1.0)),
    "multiply": _two(
        "multiply", (0.0, 0.0, 0.0, 0.0, 0.0), (INF, 0.0, NAN, 0.0, INF), (2.0, NAN, NAN, NAN, 2.0),
        (INF, INF, INF, INF, INF), (INF, 2.0, INF, 0.0, NAN, 0.0),
    ),
    "divide": _two(
        "divide", (1.0, 0.0, INF, INF, -INF), (1.0, -0.0, -INF, -INF, -INF), (0.0, 0.0, NAN, INF, NAN),
        (1.0, 0.0, INF, 0.0, 0.0, 0.0, CUT), (0.0, 0.0, NAN, 0.0, 0.0, 0.0, CUT), (1.0, INF, 0.0, 0.0, 0.0),
        (INF, INF, NAN, 0.0, NAN), (INF, 2.0, INF, 0.5, -INF), (NAN, 1.0, NAN, 1.0, NAN), (1.0, NAN, NAN, NAN, NAN),
    ),
    "floor_divide": _two(
        "floor_divide", (7.0, 2.0, 3.0, 0.0, 0.0), (-6.0, 2.0, -3.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0),
        (NAN, 1.0, NAN, NAN, 0.0), (1.0, NAN, NAN, 0.0, NAN), torch=lambda t, x1, x2: None,
    ),
    "remainder": _two(
        "remainder", (4.0, 4.0, 0.0, 1.0, -1.0), (-1.0, 4.0, 3.0, 1.0, 1.0), (0.0, 3.0, 0.0, 1.0, 0.0),
        (1.0, INF, 1.0, 1.0, 0.0), (1.0, -INF, -INF, 1.0, 1.0), (1.0, 0.0, NAN, 1.0, -INF),
        (1.0, 0.0, NAN, 0.0, 0.0, 0.0, CUT), (INF, 3.0, NAN, 1.0, NAN, 1.0, LIMIT), (NAN, 3.0, NAN, 1.0, NAN),
        (1.0, NAN, NAN, 1.0, NAN),
    ),
    "pow": _two(
        "pow", (0.0, 0.0, 1.0, 0.0, 0.0), (0.0, 1.0, 0.0, 1.0, 0.0), (0.0, 2.0, 0.0, 0.0, 0.0),
        (0.0, 0.5, 0.0, INF, 0.0), (0.0, 0.5, 0.0, 0.0, 0.0, 0.0, CUT), (0.0, -1.0, INF, -INF, -INF),
        (0.0, -1.0, INF, 0.0, 0.0, 0.0, CUT), (-2.0, 2.0, 4.0, -4.0, NAN), (-2.0, 0.5, NAN, NAN, NAN),
        (-2.0, 2.0, 4.0, 0.0, 0.0, 0.0, CUT), (1.0, INF, 1.0, INF, 0.0), (INF, 0.0, 1.0, 0.0, INF),
        (INF, 1.0, INF, 1.0, INF), (INF, -1.0, 0.0, 0.0, 0.0, 1.0, LIMIT), (0.5, 1e4, 0.0, 0.0, 0.0),
        (NAN, 0.0, 1.0, 0.0, NAN), (NAN, 1.0, NAN, 1.0, NAN), (1.0, NAN, 1.0, NAN, 0.0), (0.0, NAN, NAN, NAN, NAN),
        (0.0, NAN, NAN, NAN, NAN, 0.0),
    ),
    "atan2": _two(
        "atan2", (0.0, 0.0, 0.0, 0.0, 0.0), (0.0, -0.0, 2 * _HALF_PI, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (0.0, -1.0, 2 * _HALF_PI, -1.0, 0.0), (1.0, 0.0, _HALF_PI, 0.0, -1.0),
        (1e-25, 1e-25, _HALF_PI / 2, 5e24, -5e24, 1.0, SCALED), (1e25, 1e25, _HALF_PI / 2, 5e-26, -5e-26, 1.0, SCALED),
        (INF, 1.0, _HALF_PI, 0.0, NAN), (1.0, INF, 0.0, NAN, 0.0), (INF, INF, _HALF_PI / 2, NAN, NAN),
        (NAN, 1.0, NAN, NAN, NAN), (1.0, NAN, NAN, NAN, NAN),
    ),
    "hypot": _two(
        "hypot", (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, ORIGIN), (-0.0, 0.0, 0.0, 0.0, 0.0, 1.0, ORIGIN),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ORIGIN), (0.0, -2.0, 2.0, 0.0, -1.0),
        (3e30, 4e30, 5e30, 0.6, 0.8), (3e-30, 4e-30, 5e-30, 0.6, 0.8), (INF, 1.0, INF, NAN, 0.0),
        (NAN, 1.0, NAN, NAN, NAN), (INF, NAN, INF, NAN, NAN),
    ),
    "logaddexp": _two(
        "logaddexp", (0.0, 0.0, _LN2, 0.5, 0.5), (1e7, 1e7, 1e7 + _LN2, 0.5, 0.5), (-1e7, -1e7, _LN2 - 1e7, 0.5, 0.5),
        (1e30, 1e30, 1e30, 0.5, 0.5), (1e30, 0.0, 1e30, 1.0, 0.0), (-1e30, 1e30, 1e30, 0.0, 1.0),
        (1e4, -1e4, 1e4, 1.0, 0.0), (INF, 1.0, INF, 1.0, 0.0), (1.0, INF, INF, 0.0, 1.0), (-INF, 1.0, 1.0, 0.0, 1.0),
        (INF, -INF, INF, 1.0, 0.0), (INF, INF, INF, 0.5, 0.5, 1.0, TIES), (-INF, -INF, -INF, 0.5, 0.5, 1.0, TIES),
        (NAN, 1.0, NAN, NAN, NAN), (INF, NAN, NAN, NAN, NAN),
    ),
    "copysign": _two(
        "copysign", (2.0, -1.0, -2.0, -1.0, 0.0), (-2.0, -0.0, -2.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0, 0.0),
        (0.0, -1.0, 0.0, 0.0, 0.0), (INF, -1.0, -INF, -1.0, 0.0, 1.0, LIMIT), (NAN, 1.0, NAN, NAN, 0.0, 1.0, SHOWN),
    ),
    "nextafter": _two(
        "nextafter", (INF, INF, INF, 1.0, 0.0, 1.0, STEP), (1.0, 1.0, 1.0, 1.0, 0.0, 1.0, STEP),
        (NAN, 1.0, NAN, 1.0, 0.0, 1.0, STEP), (1.0, NAN, NAN, 1.0, NAN, 1.0, SHOWN),
    ),
    "maximum": _two(
        "maximum", (1.0, 1.0, 1.0, 0.5, 0.5), (0.0, -0.0, 0.0, 0.5, 0.5), (2.0, 1.0, 2.0, 1.0, 0.0),
        (INF, INF, INF, 0.5, 0.5), (-INF, 1.0, 1.0, 0.0, 1.0), (NAN, 1.0, NAN, 1.0, 1.0), (1.0, NAN, NAN, 1.0, 1.0),
        (NAN, NAN, NAN, 1.0, 1.0), (INF, NAN, NAN, 1.0, 1.0),
    ),
    "minimum": _two(
        "minimum", (1.0, 1.0, 1.0, 0.5, 0.5), (0.0, -0.0, 0.0, 0.5, 0.5), (2.0, 1.0, 1.0, 0.0, 1.0),
        (-INF, -INF, -INF, 0.5, 0.5), (INF, 1.0, 1.0, 0.0, 1.0), (NAN, 1.0, NAN, 1.0, 1.0), (1.0, NAN, NAN, 1.0, 1.0),
    ),
    "where": _two(
        "where", (1.0, NAN, 1.0, 1.0, 0.0), (-1.0, NAN, NAN, 0.0, 1.0), (INF, 2.0, INF, 1.0, 0.0),
        (NAN, 2.0, 2.0, 0.0, 1.0),
        function=lambda x1, x2: netcl.where(x1 > 0.0, x1, x2), torch=lambda t, x1, x2: t.where(x1 > 0.0, x1, x2),
    ),
    "log behind where": _two(
        "where", (0.0, 5.0, 5.0, 0.0, 1.0, 1.0, CUT), (-1.0, 5.0, 5.0, 0.0, 1.0, 1.0, CUT), (1.0, 5.0, 0.0, 1.0, 0.0),
        (NAN, 5.0, 5.0, NAN, 1.0), function=lambda x1, x2: netcl.where(x1 > 0.0, netcl.log(x1), x2),
        torch=lambda t, x1, x2: t.where(x1 > 0.0, t.log(x1), x2),
    ),
    "sin(x) / x": _two(
        "where", (0.0, 1.0, 1.0, 0.0, 1.0, 1.0, CUT), (1.0, 1.0, 0.8414709848078965, -0.3011686789397568, 0.0),
        (NAN, 1.0, NAN, NAN, 0.0),
        function=lambda x1, x2: netcl.where(x1 == 0.0, x2, netcl.sin(x1) / x1),
        torch=lambda t, x1, x2: t.where(x1 == 0.0, x2, t.sin(x1) / x1),
    ),
}  # fmt: skip
"""``floor_divide`` has no gradient in torch."""

ELEMENTWISE = {**UNARY, **BINARY}
