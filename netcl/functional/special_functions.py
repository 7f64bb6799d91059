"""The special functions of ``netcl.special``: each is one launch forward and one back, on any device.

They are expressions over the operators of :mod:`netcl.expression`, so that one definition serves every backend. What is
approximated how stands in ``special_error.py``, ``special_gamma.py`` and ``special_bessel.py``; the rest is here.
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl.functional import special_bessel, special_error, special_gamma
from netcl.functional.dispatch import A, Derivative, Function, check_arrays, map_arrays, record_elementwise
from netcl.functional.elementwise import check_operands
from netcl.functional.singular import unless_cut
from netcl.functional.special_arithmetic import floating, log, of_width

__all__ = [
    "betaln", "digamma", "entr", "erfc", "erfinv", "expit", "gammaln", "i0", "i0e", "i1", "i1e", "log_ndtr", "logit",
    "ndtr", "ndtri", "rel_entr", "xlog1py", "xlogy",
]  # fmt: skip

_TEMPLATE = """{summary}

    ``{formula}``
    {notes}
    Parameters
    ----------
    {parameters}

    Returns
    -------
    Tensor
        Of the promoted dtype (float32 for integers). Enqueues; does not block.

    Raises
    ------
    DTypeError
        If an operand's dtype is not real.
    {raises}
    Examples
    --------
    >>> import netcl
    >>> netcl.special.{call}.tolist()
    {value}
    """
_TWO = "x1, x2 : Tensor or Python number\n        At least one of them a Tensor; their shapes broadcast."
_RAISES = """ShapeError
        If the shapes do not broadcast.
    DeviceMismatchError
        If the operands are on different devices.
    """


def _document(operation: Any, name: str, function: Function, arity: int, texts: tuple[str, ...]) -> None:
    summary, formula, notes, call, value = texts
    operation.__name__ = operation.__qualname__ = name
    operation.function, operation.domain = function, "real"
    operation.__doc__ = _TEMPLATE.format(
        summary=summary, formula=formula, notes=f"\n    {notes}\n" if notes else "",
        parameters="x : Tensor" if arity == 1 else _TWO, raises="" if arity == 1 else _RAISES, call=call, value=value,
    ).replace("\n    \n", "\n\n")  # fmt: skip


def _unary(name: str, function: Function, derivative: Function, *texts: str) -> Any:
    derivatives = (Derivative(derivative),)

    def operation(x: A, /) -> A:
        check_arrays(name, x)
        check_operands(operation, x)
        out: A = map_arrays(function, x)
        record_elementwise(out, (x,), derivatives, name)
        return out

    _document(operation, name, function, 1, texts)
    return operation


def _binary(name: str, function: Function, left: Function, right: Function, *texts: str) -> Any:
    derivatives = (Derivative(left), Derivative(right))

    def operation(x1: Any, x2: Any, /) -> Any:
        check_operands(operation, x1, x2)
        out = map_arrays(function, x1, x2)
        record_elementwise(out, (x1, x2), derivatives, name)
        return out

    _document(operation, name, function, 2, texts)
    return operation


# -- logistic --------------------------------------------------------------------------------------------------------


def _expit(x: Any) -> Any:
    (x,) = floating(x)
    power = ex.exp(-abs(x))
    return ex.where(x >= 0.0, 1.0, power) / (1.0 + power)


def _expit_derivative(g: Any, x: Any) -> Any:
    (x,) = floating(x)
    power = ex.exp(-abs(x))
    return g * power / ((1.0 + power) * (1.0 + power))


def _logit(x: Any) -> Any:
    """With the smaller of x and 1 - x in the denominator, of which nothing is lost; where tiny, times a power of 2."""
    (x,) = floating(x)
    least = ex.minimum(x, 1.0 - x)
    exponent = of_width(x, 64, 128)
    tiny = abs(least) < 2.0 ** of_width(x, -100, -900)
    divisor = ex.where(ex.equal(least, 0.0), 0.0, ex.where(tiny, least * 2.0**exponent, least))
    odds = ex.log1p((1.0 - 2.0 * least) / divisor)
    odds = ex.where(tiny, odds + exponent * math.log(2.0), odds)
    return ex.where(x < 0.5, -odds, odds)


def _logit_derivative(g: Any, x: Any) -> Any:
    (x,) = floating(x)
    slope = g / (x * (1.0 - x))
    return unless_cut(g, (x <= 0.0) | (x >= 1.0), ex.where((x < 0.0) | (x > 1.0), math.nan, slope))


# -- entropy ---------------------------------------------------------------------------------------------------------


def _xlogy(x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return ex.where(ex.equal(x1, 0.0) & ex.equal(x2, x2), 0.0, x1 * log(x2))


def _xlog1py(x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return ex.where(ex.equal(x1, 0.0) & ex.equal(x2, x2), 0.0, x1 * ex.log1p(x2))


def _scaled_logarithm(g: Any, x1: Any, beyond: Any, logarithm: Any) -> Any:
    """g · logarithm, but 0 where x1 = 0 meets a logarithm that has no value."""
    return ex.where((beyond <= 0.0) & (ex.equal(x1, 0.0) | ex.equal(g, 0.0)), 0.0, g * logarithm)


def _scaled_inverse(g: Any, x1: Any, beyond: Any) -> Any:
    """g · x1 / beyond, the derivative of x1 log(beyond): 0 where x1 = 0, and NaN where the logarithm is."""
    slope = ex.where(beyond < 0.0, math.nan, g * (x1 / beyond))
    return ex.where(ex.equal(beyond, beyond) & ex.equal(x1, 0.0), 0.0 * g, unless_cut(g, beyond <= 0.0, slope))


def _xlogy_left(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return _scaled_logarithm(g, x1, x2, log(x2))


def _xlogy_right(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return _scaled_inverse(g, x1, x2)


def _xlog1py_left(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return _scaled_logarithm(g, x1, 1.0 + x2, ex.log1p(x2))


def _xlog1py_right(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    return _scaled_inverse(g, x1, 1.0 + x2)


def _entr(x: Any) -> Any:
    (x,) = floating(x)
    return ex.where(x > 0.0, -x * log(x), ex.where(x < 0.0, -math.inf, x))


def _entr_derivative(g: Any, x: Any) -> Any:
    (x,) = floating(x)
    return unless_cut(g, x <= 0.0, g * (-1.0 - log(x)))


def _log_ratio(x1: Any, x2: Any) -> Any:
    """log(x1 / x2) for positive numbers, through log1p where they are near and with a scale where x1 / x2 is not."""
    ratio = x1 / x2
    steps = of_width(x1, 75, 550)
    high = (ratio > 2.0 ** (1.6 * steps)) & (x1 < math.inf)
    low = (ratio < 2.0 ** (-1.6 * steps)) & (x2 < math.inf)
    moved, back = 2.0**steps, 2.0**-steps
    scaled = (x1 * ex.where(high, back, moved)) / (x2 * ex.where(high, moved, back))
    shift = 2 * steps * math.log(2.0)
    far = ex.log(ex.where(high | low, scaled, ratio)) + ex.where(high, shift, ex.where(low, -shift, 0.0))
    return ex.where((ratio > 0.5) & (ratio < 2.0), ex.log1p((x1 - x2) / x2), far)


def _rel_entr(x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    outside = ex.where(ex.equal(x1, 0.0) & (x2 >= 0.0), 0.0, math.inf)
    value = ex.where((x1 > 0.0) & (x2 > 0.0), x1 * _log_ratio(x1, x2), outside)
    return ex.where(ex.equal(x1, x1) & ex.equal(x2, x2), value, x1 + x2)


def _rel_entr_left(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    pole = ex.where((x1 > 0.0) & ex.equal(x2, 0.0), math.inf, math.nan)
    edge = ex.where(ex.equal(x1, 0.0) & (x2 > 0.0), -math.inf, pole)
    slope = ex.where((x1 <= 0.0) | (x2 <= 0.0), g * edge, g * (_log_ratio(x1, x2) + 1.0))
    return unless_cut(g, (x1 <= 0.0) | (x2 <= 0.0), slope)


def _rel_entr_right(g: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = floating(x1, x2)
    slope = ex.where((x1 < 0.0) | (x2 < 0.0), math.nan, -g * (x1 / x2))
    return ex.where(ex.equal(x1, 0.0) & (x2 >= 0.0), 0.0 * g, unless_cut(g, (x1 < 0.0) | (x2 <= 0.0), slope))


# -- what users call -------------------------------------------------------------------------------------------------

_HALVES = "netcl.asarray([0.0, 0.5])"

expit = _unary(
    "expit", _expit, _expit_derivative,
    "The logistic function of each element, without overflow.", "y = 1 / (1 + exp(-x))",
    "Its derivative does not vanish before it underflows.", "expit(netcl.asarray([0.0, 1000.0]))", "[0.5, 1.0]",
)  # fmt: skip
logit = _unary(
    "logit", _logit, _logit_derivative,
    "The logarithm of the odds of each probability; the inverse of expit.", "y = log(x / (1 - x))",
    "NaN outside of [0, 1].", f"logit({_HALVES})", "[-inf, 0.0]",
)  # fmt: skip
erfc = _unary(
    "erfc", special_error.erfc, special_error.erfc_derivative,
    "One minus the error function of each element, exact where that is nearly 1.", "y = 2/sqrt(π) ∫ₓ^∞ exp(-t²) dt",
    "", "erfc(netcl.asarray([0.0, 100.0]))", "[1.0, 0.0]",
)  # fmt: skip
erfinv = _unary(
    "erfinv", special_error.erfinv, special_error.erfinv_derivative,
    "The number of which each element is the error function.", "erf(y) = x", "NaN outside of [-1, 1].",
    "erfinv(netcl.asarray([0.0, 1.0]))", "[0.0, inf]",
)  # fmt: skip
ndtr = _unary(
    "ndtr", special_error.ndtr, special_error.ndtr_derivative,
    "The share of the standard normal distribution below each element.", "y = 1/sqrt(2π) ∫₋∞ˣ exp(-t²/2) dt", "",
    "ndtr(netcl.asarray([0.0, 10.0]))", "[0.5, 1.0]",
)  # fmt: skip
log_ndtr = _unary(
    "log_ndtr", special_error.log_ndtr, special_error.log_ndtr_derivative,
    "The logarithm of ndtr of each element, also where that underflows.", "y = log(ndtr(x))", "",
    "log_ndtr(netcl.asarray([-1e30, 100.0]))", "[-inf, -0.0]",
)  # fmt: skip
ndtri = _unary(
    "ndtri", special_error.ndtri, special_error.ndtri_derivative,
    "The quantiles of the standard normal distribution; the inverse of ndtr.", "ndtr(y) = x",
    "NaN outside of [0, 1].", f"ndtri({_HALVES})", "[-inf, 0.0]",
)  # fmt: skip
gammaln = _unary(
    "gammaln", special_gamma.gammaln, special_gamma.gammaln_derivative,
    "The logarithm of the magnitude of the gamma function of each element.", "y = log(|Γ(x)|)",
    "Infinite at 0, -1, -2, … Near its roots below -2 the error is relative to ``log(π / |x sin(πx)|)``, of which\n"
    "    it is a difference.", "gammaln(netcl.asarray([2.0, 0.0]))", "[0.0, inf]",
)  # fmt: skip
digamma = _unary(
    "digamma", special_gamma.digamma, special_gamma.digamma_derivative,
    "The logarithmic derivative of the gamma function, also called psi.", "y = Γ'(x) / Γ(x)",
    "NaN at -1, -2, …; -inf at 0 and inf at -0. Near its negative roots the error is relative to ``π cot(πx)``, of\n"
    "    which it is a difference.", "digamma(netcl.asarray([0.0]))", "[-inf]",
)  # fmt: skip
betaln = _binary(
    "betaln", special_gamma.betaln, special_gamma.betaln_left, special_gamma.betaln_right,
    "The logarithm of the magnitude of the beta function of each pair.", "y = log(|Γ(x1) Γ(x2) / Γ(x1 + x2)|)",
    "Where the beta function is about 1 the error is relative to the logarithms of which it is a sum.",
    "betaln(netcl.asarray([0.0]), 1.0)", "[inf]",
)  # fmt: skip
i0 = _unary(
    "i0", special_bessel.i0, special_bessel.i0_derivative,
    "The modified Bessel function of the first kind of order 0.", "y = Σ (x²/4)^k / k!²", "",
    "i0(netcl.asarray([0.0, 1000.0]))", "[1.0, inf]",
)  # fmt: skip
i0e = _unary(
    "i0e", special_bessel.i0e, special_bessel.i0e_derivative,
    "The modified Bessel function i0 without its exponential growth.", "y = exp(-|x|) i0(x)",
    "Its derivative at the kink in 0 is 0.", "i0e(netcl.asarray([0.0]))", "[1.0]",
)  # fmt: skip
i1 = _unary(
    "i1", special_bessel.i1, special_bessel.i1_derivative,
    "The modified Bessel function of the first kind of order 1.", "y = x/2 Σ (x²/4)^k / (k! (k + 1)!)", "",
    "i1(netcl.asarray([0.0, 1000.0]))", "[0.0, inf]",
)  # fmt: skip
i1e = _unary(
    "i1e", special_bessel.i1e, special_bessel.i1e_derivative,
    "The modified Bessel function i1 without its exponential growth.", "y = exp(-|x|) i1(x)", "",
    "i1e(netcl.asarray([0.0]))", "[0.0]",
)  # fmt: skip
xlogy = _binary(
    "xlogy", _xlogy, _xlogy_left, _xlogy_right,
    "x1 times the logarithm of x2; 0 where x1 is 0.", "y = x1 log(x2)", "",
    "xlogy(netcl.asarray([0.0, 2.0]), netcl.asarray([0.0, 1.0]))", "[0.0, 0.0]",
)  # fmt: skip
xlog1py = _binary(
    "xlog1py", _xlog1py, _xlog1py_left, _xlog1py_right,
    "x1 times the logarithm of 1 + x2; 0 where x1 is 0.", "y = x1 log(1 + x2)", "",
    "xlog1py(netcl.asarray([0.0, 2.0]), netcl.asarray([-1.0, 0.0]))", "[0.0, 0.0]",
)  # fmt: skip
entr = _unary(
    "entr", _entr, _entr_derivative,
    "What each probability adds to the entropy of a distribution.", "y = -x log(x)", "0 at 0, and -inf below.",
    "entr(netcl.asarray([0.0, 1.0, -1.0]))", "[0.0, -0.0, -inf]",
)  # fmt: skip
rel_entr = _binary(
    "rel_entr", _rel_entr, _rel_entr_left, _rel_entr_right,
    "What each pair of probabilities adds to the relative entropy.", "y = x1 log(x1 / x2)",
    "0 where x1 = 0 and x2 >= 0; inf where x1 < 0, or x2 <= 0 elsewhere.",
    "rel_entr(netcl.asarray([0.0, 1.0]), netcl.asarray([1.0, 0.0]))", "[0.0, inf]",
)  # fmt: skip
