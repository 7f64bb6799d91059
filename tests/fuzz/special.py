"""The special functions of the array programs: SciPy's in float64, and how far netcl promises to be from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special

import netcl
from tests.fuzz.arrays import FLOATS, SIGNED, Expected, Host, Operation, Pool
from tests.fuzz.bounds import compute_format
from tests.fuzz.promotion import converted, floating, promoted
from tests.fuzz.roundoff import bound, overflown

FLOAT64 = 1e-14
"""What float64 values are off at most, relative to the value or to its terms."""

UNARY = (
    "erfc", "erfinv", "gammaln", "digamma", "expit", "logit", "ndtr", "log_ndtr", "ndtri", "entr", "i0", "i0e", "i1",
    "i1e",
)  # fmt: skip
BINARY = ("xlogy", "xlog1py", "rel_entr", "betaln")


def _gammaln_terms(x: Any) -> Any:
    """The terms of the reflection formula, by which negative numbers are computed."""
    reflected = np.abs(np.log(np.pi / np.abs(x * np.sin(np.pi * x)))) + np.abs(scipy.special.gammaln(-x))
    return np.where(x < 0, reflected, np.abs(scipy.special.gammaln(x)))


def _digamma_terms(x: Any) -> Any:
    return np.where(x < 0, np.abs(np.pi / np.tan(np.pi * x)) + np.abs(scipy.special.psi(1 - x)), 0.0)


def _betaln_terms(a: Any, b: Any) -> Any:
    less, more = np.minimum(a, b), np.maximum(a, b)
    far = np.abs(scipy.special.gammaln(less)) + np.abs(scipy.special.gammaln(more) - scipy.special.gammaln(a + b))
    return np.where(less < 0, sum(map(_gammaln_terms, (a, b, a + b))), far)


TERMS = {"gammaln": _gammaln_terms, "digamma": _digamma_terms, "betaln": _betaln_terms}
"""Of the functions that are promised relative to the terms whose sum they are, where that cancels."""


def _betaln(a: Any, b: Any) -> Any:
    """SciPy's for positive numbers; by gammaln for others; at poles by B(a, b) = B(1 - a - b, b), up to the sign."""
    less, more = np.minimum(a, b), np.maximum(a, b)
    pole = (less <= 0) & (less == np.floor(less))
    other = 1 - less - more
    finite = pole & np.isfinite(less) & (more > 0) & (other > 0) & (more == np.floor(more))
    gammaln = scipy.special.gammaln
    value = np.where(less < 0, gammaln(a) + gammaln(b) - gammaln(a + b), scipy.special.betaln(a, b))
    value = np.where(np.isinf(more), np.where(less > 0, -np.inf, np.inf), value)
    value = np.where(pole, np.inf, value)
    value = np.where(finite, scipy.special.betaln(np.where(finite, other, 1), np.where(finite, more, 1)), value)
    return np.where(np.isnan(a) | np.isnan(b), np.nan, value)


def _bessel(name: str, x: Any) -> Any:
    """i0 or i1, which SciPy takes to be infinite a little early, and NaN at infinity."""
    value = getattr(scipy.special, name)(x)
    half = np.exp(np.abs(x) / 2)
    value = np.where(np.isinf(value), getattr(scipy.special, name + "e")(x) * half * half, value)
    return np.where(np.isinf(x), x if name == "i1" else np.inf, value)


def _exact(name: str, *x: Any) -> Any:
    if name == "betaln":
        return _betaln(*x)
    if name in ("i0", "i1"):
        return _bessel(name, *x)
    return getattr(scipy.special, "psi" if name == "digamma" else name)(*x)


def _uncertain(name: str, x: Sequence[Any], values: Any, unit: float, largest: float) -> Any:
    """What rounding x1 + x2 does to betaln of a small or negative number, or where that overflows."""
    if name != "betaln":
        return 0.0
    total = x[0] + x[1]
    slope = np.where((np.minimum(*x) < 0) | (total < 6), 4 * unit * np.abs(total * scipy.special.psi(total)), 0.0)
    lost = (np.isnan(values) & ~np.isnan(total)) | (np.abs(total) > largest) | ~np.isfinite(slope)
    return np.where(lost & np.isfinite(x[0]) & np.isfinite(x[1]), np.inf, np.where(np.isfinite(slope), slope, 0.0))


def _of_scipy(name: str, x: Sequence[Any], values: Any) -> Any:
    """What SciPy is off in float64: near roots by a last digit of 1 or of the terms, and where it rounds an argument.

    That is x² before its exponential, and π x before its cotangent.
    """
    unit = compute_format("float64").unit
    if name in ("erfc", "ndtr", "log_ndtr"):
        tail = x[0] < 0 if name == "ndtr" else x[0] > 0
        return np.where(tail, 8 * unit * x[0] ** 2 * np.abs(values), 0.0)
    if name == "digamma":
        return np.where(x[0] < 0, 4 * unit * np.abs(x[0]) * (np.pi / np.sin(np.pi * x[0])) ** 2, 0.0)
    if name == "betaln":
        return 4 * unit * (1 + sum(np.abs(scipy.special.gammaln(each)) for each in (*x, x[0] + x[1])))
    return 4 * unit if name in TERMS else 0.0


def _expected(name: str, operands: Sequence[Any], dtype: str) -> Expected:
    exact = _exact(name, *operands)
    values = overflown(exact, dtype)
    format = compute_format(dtype)
    terms = TERMS[name](*operands) if name in TERMS else 0.0
    terms = np.where(np.isfinite(terms), terms, 0.0)
    units = 2 * FLOAT64 / format.unit if format.name == "float64" else 8
    error = bound(values, dtype, units, terms) + np.nan_to_num(_of_scipy(name, operands, exact), posinf=0.0)
    error = error + _uncertain(name, operands, exact, format.unit, format.largest)
    for x in operands:  # which a device may flush
        error = np.where((x != 0) & (np.abs(x) < 2 * format.normal), np.inf, error)
    return Expected(values, dtype, error)


def _unary(name: str) -> Operation:
    def draw(r: random.Random, pool: Pool) -> Any:
        return (pool.operand("f" if r.random() < 0.9 else "fi", FLOATS if r.random() < 0.9 else SIGNED),), {}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        dtype = floating(operands[0].dtype)
        return _expected(name, [converted(operands[0], dtype)], dtype)

    return Operation(draw, lambda x, o: getattr(netcl.special, name)(x[0]), oracle, 0.4)


def _binary(name: str) -> Operation:
    def draw(r: random.Random, pool: Pool) -> Any:
        left = pool.operand("f", FLOATS)
        x = pool.host(left)
        made = tuple(1 if r.random() < 0.25 else extent for extent in x.shape)
        right = pool.leaf(made, r.choice(FLOATS) if r.random() < 0.4 else x.dtype)
        return ((right, left) if r.random() < 0.5 else (left, right)), {}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        dtype = promoted(operands[0].dtype, operands[1].dtype)
        pair = np.broadcast_arrays(*(converted(x, dtype) for x in operands))
        return _expected(name, pair, dtype)

    return Operation(draw, lambda x, o: getattr(netcl.special, name)(*x), oracle, 0.5)


OPERATIONS: dict[str, Operation] = {
    **{name: _unary(name) for name in UNARY},
    **{name: _binary(name) for name in BINARY},
}
