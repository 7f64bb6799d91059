"""What the special functions are to 40 digits, and where tests look: hard points, and random ones over each domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from mpmath import mp, mpf

INF, NAN = float("inf"), float("nan")
DIGITS = 40
COUNT = 120
"""Random points of each range."""


@dataclass(frozen=True)
class Format:
    """A floating format: its smallest number and its largest, the step after 1, and where exp(-x) and exp(x) end."""

    name: str
    tiny: float
    huge: float
    epsilon: float
    vanishes: float
    overflows: float


FORMATS = {
    "float32": Format("float32", 2.0**-149, 3.4e38, 2.0**-23, 103.9, 88.7),
    "float64": Format("float64", 5e-324, 1.79e308, 2.0**-52, 745.0, 709.7),
}
Points = Sequence[Any]


def _random() -> np.random.Generator:
    return np.random.default_rng(5)


def spread(low: float, high: float, count: int = COUNT) -> Any:
    """Numbers between two positive ones, as many of each magnitude."""
    return np.exp(_random().uniform(np.log(low), np.log(high), count))


def between(low: float, high: float, count: int = COUNT) -> Any:
    return _random().uniform(low, high, count)


def around(centre: float, f: Format, reach: float = 0.4) -> Any:
    """Numbers at every distance from one, from a step of the format on."""
    return np.concatenate([centre + spread(f.epsilon, reach), centre - spread(f.epsilon, reach)])


def both(x: Any) -> Any:
    return np.concatenate([x, -x])


# -- functions in mpmath ---------------------------------------------------------------------------------------------


def _quantile(p: Any) -> Any:
    """ndtri of p by Newton's method on the logarithm, from a start above the root."""
    least = min(p, 1 - p)
    if least == mpf("0.5"):
        return mpf(0)
    y = mp.sqrt(-2 * mp.log(least)) if least < 0.1 else mpf("0.25")
    for _ in range(80):
        tail = mp.erfc(y / mp.sqrt(2)) / 2
        step = (mp.log(tail) - mp.log(least)) * tail * mp.sqrt(2 * mp.pi) * mp.exp(y * y / 2)
        y += step
        if abs(step) < mpf(10) ** (4 - DIGITS) * abs(y):
            break
    return -y if p < mpf("0.5") else y


def _erfinv(x: Any) -> Any:
    if abs(x) < mpf(10) ** -8:
        return mp.sqrt(mp.pi) / 2 * (x + mp.pi * x**3 / 12)
    return mp.sign(x) * -_quantile((1 - abs(x)) / 2) / mp.sqrt(2)


def _log_ndtr(x: Any) -> Any:
    if x < -(10**6):
        return -x * x / 2 - mp.log(-x * mp.sqrt(2 * mp.pi)) - 1 / (x * x)
    tail = mp.erfc(abs(x) / mp.sqrt(2)) / 2
    return mp.log(tail) if x < 0 else mp.log1p(-tail)


def _gammaln(x: Any) -> Any:
    if x > 0:
        return mp.loggamma(x)
    return mp.log(mp.pi / abs(x * mp.sinpi(x))) - mp.loggamma(-x)


def _gammaln_terms(x: Any) -> Any:
    return abs(mp.log(mp.pi / abs(x * mp.sinpi(x)))) + abs(mp.loggamma(-x)) if x < 0 else mpf(0)


def _digamma_terms(x: Any) -> Any:
    return abs(mp.pi * mp.cot(mp.pi * x)) + abs(mp.digamma(1 - x)) if x < 0 else mpf(0)


def _betaln(a: Any, b: Any) -> Any:
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)


def _betaln_terms(a: Any, b: Any) -> Any:
    return abs(mp.loggamma(min(a, b))) + abs(mp.loggamma(max(a, b)) - mp.loggamma(a + b))


def _scaled(order: int) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        size = abs(x)
        if size < 10**4:
            value = mp.exp(-size) * mp.besseli(order, size)
        else:  # Abramowitz and Stegun 9.7.1
            term = total = mpf(1)
            for k in range(1, 14):
                term *= -(4 * order - (2 * k - 1) ** 2) / (8 * k * size)
                total += term
            value = total / mp.sqrt(2 * mp.pi * size)
        return -value if order and x < 0 else value

    return function


@dataclass(frozen=True)
class Case:
    """A function in mpmath, and where to look at it in a format.

    ``terms`` says how large the terms are whose sum the value is, where that may cancel. Derivatives are along each
    operand, at ``slopes``.
    """

    exact: Callable[..., Any]
    points: Callable[[Format], Points]
    derivatives: tuple[Callable[..., Any], ...]
    slopes: tuple[Sequence[float], ...]
    terms: Callable[..., Any] = lambda *x: mpf(0)


def _one(*parts: Any) -> Any:
    return (np.concatenate([np.atleast_1d(np.asarray(part, float)) for part in parts]),)


_HALF_PI = mp.sqrt(mp.pi) / 2


def _density(x: Any) -> Any:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def _numeric(function: Callable[..., Any], place: int = 0) -> Callable[..., Any]:
    """The partial derivative of a function, by differences in 40 digits."""
    return lambda *x: mp.diff(lambda v: function(*x[:place], v, *x[place + 1 :]), x[place])


_WIDE = (-6.0, -2.5, -1.0, -0.3, 0.2, 0.9, 1.7, 3.0, 5.5)
_UNIT = (1e-6, 0.01, 0.07, 0.2, 0.5, 0.8, 0.95, 0.999)
_POSITIVE = (1e-3, 0.1, 0.6, 0.8, 1.3, 2.5, 4.0, 11.0, 1e4)
_REAL = (-7.4, -2.5, -1.4, -0.4, -0.1, *_POSITIVE)
_BESSEL = (-30.0, -9.0, -2.0, -0.1, 0.3, 1.0, 3.9, 4.1, 7.9, 8.1, 60.0)
_PAIRS = ((0.2, 0.7, 1.5, 3.5, 20.0, 0.4, 5.0, 1e3), (0.5, 3.0, 0.3, 8.0, 2.0, 500.0, 5.5, 1e-2))

CASES: dict[str, Case] = {
    "erf": Case(
        mp.erf, lambda f: _one(both(spread(10 * f.tiny, 6.0)), between(-4.0, 4.0)),
        (lambda x: 2 * mp.exp(-x * x) / mp.sqrt(mp.pi),), (_WIDE,),
    ),
    "erfc": Case(
        mp.erfc, lambda f: _one(both(spread(f.epsilon**2, 9.0)), between(-4.0, f.vanishes**0.5), 0.5,
                       -0.5, f.tiny, 100.0),
        (lambda x: -2 * mp.exp(-x * x) / mp.sqrt(mp.pi),), (_WIDE,),
    ),
    "erfinv": Case(
        _erfinv, lambda f: _one(
            both(spread(f.tiny, 1.0)), between(-1.0, 1.0), both(1.0 - spread(f.epsilon, 0.5)), 0.85,
            1.0 - f.epsilon / 2),
        (lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(_erfinv(x) ** 2),), ((-0.999, -0.5, 0.0, 1e-3, 0.8, 0.9, 0.99999),),
    ),
    "gammaln": Case(
        _gammaln, lambda f: _one(
            spread(f.tiny, f.huge / 1e3), between(0.0, 5.0), between(3.0, 60.0), around(1.0, f), around(2.0, f), 0.75,
            3.0, -spread(f.tiny, 0.25), between(-3.0, -0.25), between(-30.0, -2.0), -spread(1.0, 1e4), -2.457024,
            -2.747682, -3.143580887),
        (mp.digamma,), (_REAL,), _gammaln_terms,
    ),
    "digamma": Case(
        mp.digamma, lambda f: _one(
            spread(10 / f.huge, f.huge / 1e3), between(0.0, 5.0), between(3.0, 60.0), around(1.4616321449683623, f),
            -spread(10 / f.huge, 0.25), between(-3.0, -0.25), between(-30.0, -2.0), -spread(1.0, 1e4), -0.504083008,
            -1.573498473),
        (lambda x: mp.psi(1, x),), (_REAL,), _digamma_terms,
    ),
    "expit": Case(
        lambda x: 1 / (1 + mp.exp(-x)),
        lambda f: _one(both(spread(f.epsilon, f.vanishes)), between(-f.vanishes, 40.0), f.tiny),
        (lambda x: mp.exp(-x) / (1 + mp.exp(-x)) ** 2,), ((*_WIDE, -60.0, 60.0),),
    ),
    "logit": Case(
        lambda x: mp.log(x / (1 - x)),
        lambda f: _one(spread(f.tiny, 1.0), between(0.0, 1.0), 1.0 - spread(f.epsilon, 1.0), around(0.5, f)),
        (lambda x: 1 / (x * (1 - x)),), (_UNIT,),
    ),
    "ndtr": Case(
        lambda x: mp.erfc(-x / mp.sqrt(2)) / 2,
        lambda f: _one(both(spread(f.epsilon, 9.0)), between(-((2 * f.vanishes) ** 0.5), 6.0), 0.65, -0.65, -100.0),
        (_density,), (_WIDE,),
    ),
    "log_ndtr": Case(
        _log_ndtr,
        lambda f: _one(
            both(spread(f.epsilon, 12.0)), -spread(1.0, f.huge**0.5), between(-15.0, 14.0), 0.95, -0.95, -0.7),
        (lambda x: _density(x) / (mp.erfc(-x / mp.sqrt(2)) / 2),), ((*_WIDE, -100.0, -1e10),),
    ),
    "ndtri": Case(
        _quantile,
        lambda f: _one(
            spread(f.tiny, 1.0), between(0.0, 1.0), 1.0 - spread(f.epsilon, 1.0), around(0.5, f), f.tiny, 0.075),
        (lambda p: mp.sqrt(2 * mp.pi) * mp.exp(_quantile(p) ** 2 / 2),), (_UNIT,),
    ),
    "entr": Case(
        lambda x: -x * mp.log(x), lambda f: _one(spread(f.tiny, f.huge / 1e3), between(0.0, 2.0), around(1.0, f)),
        (lambda x: -1 - mp.log(x),), (_POSITIVE,),
    ),
    "i0": Case(
        lambda x: mp.besseli(0, x),
        lambda f: _one(both(spread(f.epsilon, f.overflows + 2.0)), between(-20.0, 20.0), 8.0, 4.0),
        (lambda x: mp.besseli(1, x),), (_BESSEL,),
    ),
    "i1": Case(
        lambda x: mp.besseli(1, x),
        lambda f: _one(both(spread(10 / f.huge, f.overflows + 2.0)), between(-20.0, 20.0), 8.0),
        (lambda x: mp.besseli(0, x) - mp.besseli(1, x) / x,), (_BESSEL,),
    ),
    "i0e": Case(
        _scaled(0), lambda f: _one(both(spread(f.epsilon, f.huge / 10)), between(-20.0, 20.0), 8.0, 4.0),
        (_numeric(_scaled(0)),), ((*_BESSEL, 1e3),),
    ),
    "i1e": Case(
        _scaled(1), lambda f: _one(both(spread(10 / f.huge, f.huge / 10)), between(-20.0, 20.0), 8.0, 4.0),
        (_numeric(_scaled(1)),), ((*_BESSEL, 1e3),),
    ),
    "betaln": Case(
        _betaln, lambda f: (
            np.concatenate([spread(1e-6, 1e6), between(0.0, 20.0), spread(1e-3, 10.0), [1.0, 0.5, 3.0, 1e4]]),
            np.concatenate([spread(1e-6, 1e6)[::-1], between(0.0, 20.0)[::-1], spread(1e2, 1e9)[::-1],
                            [1.0, 0.5, 3.0, 1e4]]),
        ),
        (lambda a, b: mp.digamma(a) - mp.digamma(a + b), lambda a, b: mp.digamma(b) - mp.digamma(a + b)), _PAIRS,
        _betaln_terms,
    ),
    "xlogy": Case(
        lambda x, y: x * mp.log(y), lambda f: (
            both(spread(1e-15, 1e15, 120)), np.concatenate([spread(f.tiny, f.huge**0.5)[::-1], around(1.0, f)[:120]])),
        (lambda x, y: mp.log(y), lambda x, y: x / y), _PAIRS,
    ),
    "xlog1py": Case(
        lambda x, y: x * mp.log1p(y), lambda f: (
            both(spread(1e-15, 1e15, 120)), np.concatenate([spread(1e-12, f.huge**0.5)[::-1], between(-1.0, 1.0)])),
        (lambda x, y: mp.log1p(y), lambda x, y: x / (1 + y)), _PAIRS,
    ),
    "rel_entr": Case(
        lambda x, y: x * mp.log(x / y), lambda f: (
            np.concatenate([spread(f.tiny * 1e9, f.huge**0.9), spread(0.1, 10.0), spread(0.1, 10.0)]),
            np.concatenate([spread(f.tiny * 1e9, f.huge**0.9)[::-1], spread(0.1, 10.0)[::-1],
                            spread(0.1, 10.0) * (1.0 + spread(f.epsilon, 0.9))]),
        ),
        (lambda x, y: mp.log(x / y) + 1, lambda x, y: -x / y), _PAIRS,
    ),
}  # fmt: skip


@cache
def expected(name: str, dtype: str) -> tuple[Points, Any, Any, Any]:
    """Points of a format, the values there, what float64 cannot hold of them, and the size of their terms.

    Points that the format rounds to a pole or an edge of the domain are left out.
    """
    case, kind = CASES[name], np.dtype(dtype).type
    with np.errstate(all="ignore"):
        points = [np.asarray(x).astype(kind) for x in case.points(FORMATS[dtype])]
    rows = []
    with mp.workdps(DIGITS):
        for place, x in enumerate(zip(*points, strict=True)):
            try:
                operands = [mpf(float(v)) for v in x]
                exact, terms = case.exact(*operands), case.terms(*operands)
            except (ValueError, ZeroDivisionError):
                continue
            if mp.isfinite(exact) and isinstance(exact, mpf):
                value = float(exact)
                rows.append((place, value, float(exact - mpf(value)) if np.isfinite(value) else 0.0, float(terms)))
    places, values, rest, sizes = map(np.array, zip(*rows, strict=True))
    assert len(places) > 0.9 * len(points[0])
    return [x[places] for x in points], values, rest, sizes


@cache
def expected_slopes(name: str, dtype: str) -> list[Any]:
    """The derivatives along each operand at the points that a case names, rounded to a format."""
    case = CASES[name]
    points = [np.array(x, dtype).astype(float).tolist() for x in case.slopes]
    with mp.workdps(DIGITS):
        return [
            np.array([float(function(*map(mpf, x))) for x in zip(*points, strict=True)])
            for function in case.derivatives
        ]


# What SciPy returns at zeros, infinities, NaN and poles; i0 and i1 of infinities, where that is NaN, are their limits.
EDGES: dict[str, tuple[tuple[float, ...], ...]] = {
    "erf": ((0.0, 0.0), (INF, 1.0), (-INF, -1.0)),
    "erfc": ((0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0)),
    "erfinv": ((0.0, 0.0), (-0.0, 0.0), (1.0, INF), (-1.0, -INF), (2.0, NAN), (-2.0, NAN), (INF, NAN), (-INF, NAN)),
    "gammaln": ((0.0, INF), (-0.0, INF), (1.0, 0.0), (2.0, 0.0), (INF, INF), (-INF, -INF), (-1.0, INF), (-7.0, INF),
                (-1e20, INF), (-16777216.0, INF)),
    "digamma": ((0.0, -INF), (-0.0, INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (-7.0, NAN), (-1e20, NAN)),
    "expit": ((0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0)),
    "logit": ((0.0, -INF), (-0.0, -INF), (1.0, INF), (0.5, 0.0), (2.0, NAN), (-1.0, NAN), (INF, NAN), (-INF, NAN)),
    "ndtr": ((0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0)),
    "log_ndtr": ((INF, 0.0), (-INF, -INF)),
    "ndtri": ((0.0, -INF), (-0.0, -INF), (1.0, INF), (0.5, 0.0), (2.0, NAN), (-1.0, NAN), (INF, NAN), (-INF, NAN)),
    "entr": ((0.0, 0.0), (-0.0, 0.0), (1.0, 0.0), (INF, -INF), (-1.0, -INF), (-INF, -INF)),
    "i0": ((0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF)),
    "i1": ((0.0, 0.0), (-0.0, 0.0), (INF, INF), (-INF, -INF)),
    "i0e": ((0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 0.0)),
    "i1e": ((0.0, 0.0), (-0.0, 0.0), (INF, 0.0), (-INF, 0.0)),
    "xlogy": ((0.0, 0.0, 0.0), (-0.0, INF, 0.0), (0.0, -1.0, 0.0), (0.0, NAN, NAN), (1.0, 0.0, -INF), (-1.0, 0.0, INF),
              (INF, INF, INF), (1.0, -1.0, NAN), (INF, 1.0, NAN), (NAN, 1.0, NAN), (2.0, INF, INF)),
    "xlog1py": ((0.0, -1.0, 0.0), (-0.0, INF, 0.0), (0.0, -2.0, 0.0), (0.0, NAN, NAN), (1.0, -1.0, -INF),
                (-1.0, -1.0, INF), (INF, INF, INF), (1.0, -2.0, NAN), (INF, 0.0, NAN), (NAN, 1.0, NAN)),
    "rel_entr": ((0.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, -1.0, INF), (1.0, 0.0, INF), (-1.0, 1.0, INF), (INF, 1.0, INF),
                 (1.0, INF, -INF), (1e30, INF, -INF), (INF, 1e30, INF), (1e-30, INF, -INF), (INF, INF, NAN),
                 (NAN, 1.0, NAN), (0.0, NAN, NAN), (1.0, 1.0, 0.0)),
    "betaln": ((0.0, 1.0, INF), (1.0, 0.0, INF), (-1.0, 1.0, 0.0), (-1.0, 2.0, INF), (-3.0, 2.0, -1.791759469228055),
               (1.0, 1.0, 0.0), (INF, 1.0, -INF), (1.0, INF, -INF), (1.0, NAN, NAN), (NAN, 1.0, NAN), (-1.0, -2.0, INF),
               (INF, -0.5, INF), (-170.5, INF, INF), (INF, -2.0, INF), (6.0, -INF, INF), (0.5, -2.5, -INF),
               (-0.5, 0.25, 0.963959335631537)),
}  # fmt: skip
