"""Elementwise operations, each with its derivatives beside it.

A derivative names what it needs: ``g`` is the gradient of the output, ``y`` the output, ``x`` (or ``x1`` and ``x2``)
the operands. Each line is one launch forward and one launch back, over broadcast, strided operands of any dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, overload

from netcl import expression as ex
from netcl.array import Array
from netcl.backends.base import Scalar
from netcl.errors import DTypeError
from netcl.functional.dispatch import (
    A,
    Derivative,
    Function,
    Operand,
    check_arrays,
    identity,
    map_arrays,
    record_elementwise,
)
from netcl.functional.singular import (
    acosh_derivative,
    asinh_derivative,
    atan2_derivative,
    atanh_derivative,
    divide_left,
    divide_right,
    flat,
    hypot_derivative,
    log_derivative,
    logaddexp_derivative,
    over_root,
    pow_left,
    pow_right,
    reciprocal_derivative,
    remainder_right,
    rsqrt_derivative,
    sign_derivative,
    sqrt_derivative,
    winner_takes,
)
from netcl.rounding import nearest
from netcl.validation import shown

__all__ = [
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_invert",
    "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "ceil", "copysign", "cos",
    "cosh", "divide", "equal", "erf", "exp", "expm1", "floor", "floor_divide", "greater", "greater_equal", "hypot",
    "isfinite", "isinf", "isnan", "less", "less_equal", "log", "log10", "log1p", "log2", "logaddexp", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "multiply", "negative", "nextafter",
    "not_equal", "positive", "pow", "reciprocal", "remainder", "round", "rsqrt", "sign", "signbit", "sin", "sinh",
    "sqrt", "square", "subtract", "tan", "tanh", "trunc",
]  # fmt: skip


class Binary(Protocol):
    """A function of two operands, at least one of them an array."""

    @overload
    def __call__(self, x1: A, x2: Operand, /) -> A: ...
    @overload
    def __call__(self, x1: Scalar, x2: A, /) -> A: ...


_KINDS = {
    "any": "buifc",
    "numeric": "uifc",
    "real": "uif",
    "integer": "bui",
}
_TEMPLATE = """{summary}

    ``{formula}``

    Parameters
    ----------
    {parameters}

    Returns
    -------
    Tensor
        Of the promoted dtype{result}. Enqueues; does not block.

    Raises
    ------
    DTypeError
        If an operand's dtype is not {domain}.
    {raises}
    Examples
    --------
    >>> import netcl
    >>> netcl.{call}.tolist()
    {value}
    """
_RESULT = {"float": " (float32 for integers)", "bool": ": bool", "same": "", "real": "", "where": ""}
_RAISES = """ShapeError
        If the shapes do not broadcast.
    DeviceMismatchError
        If the operands are on different devices.

    """
_ON_INTEGERS: dict[str, Function] = {
    "floor": identity,
    "ceil": identity,
    "trunc": identity,
    "round": identity,
    "positive": identity,
    "isnan": lambda x: ex.not_equal(x, x),
    "isinf": lambda x: ex.not_equal(x, x),
    "isfinite": lambda x: ex.equal(x, x),
}


def _document(
    operation: Any, name: str, summary: str, formula: str, arity: int, domain: str, call: str, value: str
) -> None:
    two = "x1, x2 : Tensor or Python number\n        At least one of them a Tensor; their shapes broadcast."
    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = _TEMPLATE.format(
        summary=summary, formula=formula, parameters="x : Tensor" if arity == 1 else two,
        result=_RESULT[ex.OPERATORS[name][1]], domain={"any": "one of netcl's"}.get(domain, domain),
        raises="" if arity == 1 else _RAISES, call=call, value=value,
    ).replace("\n    \n", "\n\n")  # fmt: skip


def check_kind(name: str, x: object, domain: str) -> None:
    """Refuse an operand of the function ``name`` that is not of the domain."""
    if isinstance(x, Array):
        if x.storage.dtype.kind not in _KINDS[domain]:
            raise DTypeError(
                f"{name} takes {domain} operands, got an array of {x.storage.dtype}; convert it with astype() first"
            )
    elif not isinstance(x, bool | int | float | complex):
        raise DTypeError(f"{name} takes Tensors and Python numbers, got {shown(x)}; use netcl.asarray(x)")
    elif isinstance(x, complex) and domain in ("real", "integer"):
        raise DTypeError(f"{name} takes {domain} operands, got {x!r}; take its real part")


def as_stored(x: Any, other: Any) -> Any:
    """A number that may become an element beside 16-bit floats, rounded once."""
    if isinstance(x, float) and isinstance(other, Array) and other.storage.dtype.itemsize == 2:
        return nearest(x, other.storage.dtype)
    return x


def check_operands(operation: Any, *operands: object) -> None:
    """Refuse operands of a kind that an operation of this file does not take."""
    for x in operands:
        check_kind(operation.__name__, x, operation.domain)


def _unary(
    name: str, summary: str, formula: str, call: str, value: str, derivative: Function | None = None,
    domain: str = "numeric",
) -> Callable[[A], A]:  # fmt: skip
    function = partial(ex.apply, name)
    on_integers = _ON_INTEGERS.get(name, function)
    derivatives = (Derivative(derivative),) if derivative is not None else None
    kinds = _KINDS[domain]

    def operation(x: A, /) -> A:
        if not isinstance(x, Array) or x.storage.dtype.kind not in kinds:
            check_arrays(name, x)
            check_kind(name, x, domain)
        out = map_arrays(function if x.storage.dtype.kind in "fc" else on_integers, x)
        if derivatives is not None:
            record_elementwise(out, (x,), derivatives, name)
        return out

    operation.function, operation.domain = function, domain  # type: ignore[attr-defined]
    _document(operation, name, summary, formula, 1, domain, call, value)
    return operation


def _binary(
    name: str, summary: str, formula: str, call: str, value: str, left: Function | None = None,
    right: Function | None = None, domain: str = "numeric", function: Function | None = None,
) -> Binary:  # fmt: skip
    function = function or partial(ex.apply, name)
    derivatives = tuple(None if d is None else Derivative(d) for d in (left, right))
    kinds = _KINDS[domain]
    differentiable = left is not None
    chooses = name in ("maximum", "minimum")

    def operation(x1: Any, x2: Any, /) -> Any:
        for x in (x1, x2):
            if not isinstance(x, Array) or x.storage.dtype.kind not in kinds:
                check_kind(name, x, domain)
        if chooses:
            x1, x2 = as_stored(x1, x2), as_stored(x2, x1)
        out = map_arrays(function, x1, x2)
        if differentiable:
            record_elementwise(out, (x1, x2), derivatives, name)
        return out

    operation.function, operation.domain = function, domain  # type: ignore[attr-defined]
    _document(operation, name, summary, formula, 2, domain, call, value)
    return operation


_X = "netcl.asarray([-1.0, 0.5])"

# Arithmetic
add = _binary(
    "add", "The sum of each pair of elements.", "y = x1 + x2", "add(netcl.asarray([1, 2]), 3)", "[4, 5]",
    left=lambda g: g, right=lambda g: g,
)  # fmt: skip
subtract = _binary(
    "subtract", "The difference of each pair of elements.", "y = x1 - x2",
    "subtract(netcl.asarray([1, 2]), 3)", "[-2, -1]",
    left=lambda g: g, right=lambda g: -g,
)  # fmt: skip
multiply = _binary(
    "multiply", "The product of each pair of elements.", "y = x1 · x2", "multiply(netcl.asarray([1, 2]), 3)", "[3, 6]",
    left=lambda g, x2: g * x2, right=lambda g, x1: g * x1,
)  # fmt: skip
divide = _binary(
    "divide", "The quotient of each pair of elements.", "y = x1 / x2", "divide(netcl.asarray([1.0, 3.0]), 2)",
    "[0.5, 1.5]",
    left=divide_left, right=divide_right,
)  # fmt: skip


def _floor_divide(x1: Any, x2: Any) -> Any:
    """As the standard has it, not as Python: a quotient with an infinity in it is that of ``divide``."""
    quotient = ex.apply("floor_divide", x1, x2)
    if quotient.dtype.kind != "f":
        return quotient
    infinite = ex.apply("isinf", ex.cast(x1, quotient.dtype)) | ex.apply("isinf", ex.cast(x2, quotient.dtype))
    return ex.where(infinite, ex.apply("divide", x1, x2), quotient)


floor_divide = _binary(
    "floor_divide", "The quotient of each pair of elements, rounded down.", "y = floor(x1 / x2)",
    "floor_divide(netcl.asarray([7, -7]), 2)", "[3, -4]", left=lambda g, x1: flat(g, x1),
    right=lambda g, x2: flat(g, x2), domain="real", function=_floor_divide,
)  # fmt: skip
remainder = _binary(
    "remainder", "The remainder of each division, with the sign of the divisor.", "y = x1 - floor(x1 / x2) · x2",
    "remainder(netcl.asarray([7, -7]), 4)", "[3, 1]",
    left=lambda g: g, right=remainder_right, domain="real",
)  # fmt: skip


_power = _binary(
    "pow", "Each element of x1 to the power of x2.", "y = x1 ^ x2", "pow(netcl.asarray([2.0, 3.0]), 3)", "[8.0, 27.0]",
    left=pow_left, right=pow_right,
)  # fmt: skip


@overload
def pow(x1: A, x2: Operand, /) -> A: ...
@overload
def pow(x1: Scalar, x2: A, /) -> A: ...
def pow(x1: Any, x2: Any, /) -> Any:  # noqa: D103 - its documentation is made below
    if (
        isinstance(x2, int | float)
        and x2 == 2
        and isinstance(x1, Array)
        and not (isinstance(x2, float) and x1.storage.dtype.kind not in "fc")
    ):
        return square(x1)
    return _power(x1, x2)


pow.__doc__ = _power.__doc__
pow.function, pow.domain = _power.function, _power.domain  # type: ignore[attr-defined]

atan2 = _binary(
    "atan2", "The angle of each point (x2, x1), in radians.", "y = atan(x1 / x2), in the quadrant of the point",
    "atan2(netcl.asarray([0.0, -0.0]), 1.0)", "[0.0, -0.0]",
    left=lambda g, x1, x2: atan2_derivative(g, x2, x1, x2), right=lambda g, x1, x2: atan2_derivative(-g, x1, x1, x2),
    domain="real",
)  # fmt: skip
hypot = _binary(
    "hypot", "The length of each vector (x1, x2).", "y = sqrt(x1² + x2²)", "hypot(netcl.asarray([3.0]), 4.0)", "[5.0]",
    left=lambda g, x1, y: hypot_derivative(g, x1, y), right=lambda g, x2, y: hypot_derivative(g, x2, y), domain="real",
)  # fmt: skip
logaddexp = _binary(
    "logaddexp", "The logarithm of a sum of exponentials, without overflow.", "y = log(exp(x1) + exp(x2))",
    "logaddexp(netcl.asarray([1000.0]), 0.0)", "[1000.0]",
    left=lambda g, x1, x2: logaddexp_derivative(g, x1, x2), right=lambda g, x1, x2: logaddexp_derivative(g, x2, x1),
    domain="real",
)  # fmt: skip
copysign = _binary(
    "copysign", "The magnitude of x1 with the sign of x2.", "y = |x1| · sign(x2)",
    "copysign(netcl.asarray([1.0, -2.0]), -1.0)", "[-1.0, -2.0]",
    left=lambda g, x1, x2: g * ex.sign(x1) * ex.apply("copysign", 1.0, x2), right=lambda g: g * 0.0, domain="real",
)  # fmt: skip
nextafter = _binary(
    "nextafter", "The next representable number after x1 towards x2.", "y = x1 ± one unit in the last place",
    "nextafter(netcl.asarray([1.0]), 2.0)", "[1.0000001192092896]", left=lambda g: g,
    right=lambda g, x2: flat(g, x2), domain="real",
)  # fmt: skip


maximum = _binary(
    "maximum", "The larger of each pair of elements; NaN if either is NaN.", "y = max(x1, x2)",
    f"maximum({_X}, 0.0)", "[0.0, 0.5]",
    left=lambda g, x1, x2: winner_takes(g, x1 < x2, ex.equal(x1, x2)),
    right=lambda g, x1, x2: winner_takes(g, x2 < x1, ex.equal(x1, x2)), domain="real",
)  # fmt: skip
minimum = _binary(
    "minimum", "The smaller of each pair of elements; NaN if either is NaN.", "y = min(x1, x2)",
    f"minimum({_X}, 0.0)", "[-1.0, 0.0]",
    left=lambda g, x1, x2: winner_takes(g, x1 > x2, ex.equal(x1, x2)),
    right=lambda g, x1, x2: winner_takes(g, x2 > x1, ex.equal(x1, x2)), domain="real",
)  # fmt: skip

negative = _unary("negative", "Minus each element.", "y = -x", f"negative({_X})", "[1.0, -0.5]", lambda g: -g)
positive = _unary("positive", "A copy of the array.", "y = +x", f"positive({_X})", "[-1.0, 0.5]", lambda g: g)
abs = _unary(
    "abs", "The absolute value of each element; its derivative at 0 is 0.", "y = |x|", f"abs({_X})", "[1.0, 0.5]",
    lambda g, x: g * ex.sign(x),
)  # fmt: skip
sign = _unary(
    "sign", "The sign of each element: -1, 0 or 1, or the direction of a complex number.", "y = x / |x|",
    f"sign({_X})", "[-1.0, 1.0]", sign_derivative,
)  # fmt: skip
square = _unary(
    "square", "The square of each element.", "y = x²", f"square({_X})", "[1.0, 0.25]", lambda g, x: 2.0 * g * x
)
sqrt = _unary(
    "sqrt", "The square root of each element.", "y = x^(1/2)", "sqrt(netcl.asarray([4.0, 9.0]))", "[2.0, 3.0]",
    sqrt_derivative,
)  # fmt: skip
rsqrt = _unary(
    "rsqrt", "One over the square root of each element.", "y = x^(-1/2)", "rsqrt(netcl.asarray([4.0]))", "[0.5]",
    rsqrt_derivative,
)  # fmt: skip
reciprocal = _unary(
    "reciprocal", "One over each element.", "y = 1 / x", "reciprocal(netcl.asarray([4.0]))", "[0.25]",
    reciprocal_derivative,
)  # fmt: skip

# Exponentials, logarithms, angles
exp = _unary(
    "exp", "The exponential of each element.", "y = e^x", "exp(netcl.asarray([0.0]))", "[1.0]", lambda g, y: g * y
)
expm1 = _unary(
    "expm1", "The exponential of each element minus one, exact near 0.", "y = e^x - 1",
    "expm1(netcl.asarray([0.0]))", "[0.0]", lambda g, x: g * ex.exp(x),
)  # fmt: skip
log = _unary(
    "log", "The natural logarithm of each element.", "y = log(x)", "log(netcl.asarray([1.0]))", "[0.0]",
    lambda g, x: log_derivative(g, x),
)  # fmt: skip
log1p = _unary(
    "log1p", "The logarithm of one plus each element, exact near 0.", "y = log(1 + x)",
    "log1p(netcl.asarray([0.0]))", "[0.0]", lambda g, x: log_derivative(g, 1.0 + x),
)  # fmt: skip
log2 = _unary(
    "log2", "The base-2 logarithm of each element.", "y = log(x) / log(2)", "log2(netcl.asarray([8.0]))", "[3.0]",
    lambda g, x: log_derivative(g, x, math.log(2.0)),
)  # fmt: skip
log10 = _unary(
    "log10", "The base-10 logarithm of each element.", "y = log(x) / log(10)", "log10(netcl.asarray([1.0]))", "[0.0]",
    lambda g, x: log_derivative(g, x, math.log(10.0)),
)  # fmt: skip
sin = _unary(
    "sin", "The sine of each angle in radians.", "y = sin(x)", "sin(netcl.asarray([0.0]))", "[0.0]",
    lambda g, x: g * ex.cos(x),
)  # fmt: skip
cos = _unary(
    "cos", "The cosine of each angle in radians.", "y = cos(x)", "cos(netcl.asarray([0.0]))", "[1.0]",
    lambda g, x: -g * ex.sin(x),
)  # fmt: skip
tan = _unary(
    "tan", "The tangent of each angle in radians.", "y = tan(x)", "tan(netcl.asarray([0.0]))", "[0.0]",
    lambda g, y: g * (1.0 + y * y),
)  # fmt: skip
asin = _unary(
    "asin", "The angle whose sine is each element.", "y = arcsin(x)", "asin(netcl.asarray([0.0]))", "[0.0]",
    lambda g, x: over_root(g, (1.0 - x) * (1.0 + x)),
)  # fmt: skip
acos = _unary(
    "acos", "The angle whose cosine is each element.", "y = arccos(x)", "acos(netcl.asarray([1.0]))", "[0.0]",
    lambda g, x: over_root(-g, (1.0 - x) * (1.0 + x)),
)  # fmt: skip
atan = _unary(
    "atan", "The angle whose tangent is each element.", "y = arctan(x)", "atan(netcl.asarray([0.0]))", "[0.0]",
    lambda g, x: g / (1.0 + x * x),
)  # fmt: skip
sinh = _unary(
    "sinh", "The hyperbolic sine of each element.", "y = (e^x - e^-x) / 2", "sinh(netcl.asarray([0.0]))", "[0.0]",
    lambda g, x: g * ex.apply("cosh", x),
)  # fmt: skip
cosh = _unary(
    "cosh", "The hyperbolic cosine of each element.", "y = (e^x + e^-x) / 2", "cosh(netcl.asarray([0.0]))", "[1.0]",
    lambda g, x: g * ex.apply("sinh", x),
)  # fmt: skip
tanh = _unary(
    "tanh", "The hyperbolic tangent of each element.", "y = (e^x - e^-x) / (e^x + e^-x)",
    "tanh(netcl.asarray([0.0]))", "[0.0]", lambda g, y: g * (1.0 - y * y),
)  # fmt: skip
asinh = _unary(
    "asinh", "The inverse hyperbolic sine of each element.", "y = log(x + sqrt(x² + 1))",
    "asinh(netcl.asarray([0.0]))", "[0.0]", asinh_derivative,
)  # fmt: skip
acosh = _unary(
    "acosh", "The inverse hyperbolic cosine of each element.", "y = log(x + sqrt(x² - 1))",
    "acosh(netcl.asarray([1.0]))", "[0.0]", acosh_derivative,
)  # fmt: skip
atanh = _unary(
    "atanh", "The inverse hyperbolic tangent of each element.", "y = log((1 + x) / (1 - x)) / 2",
    "atanh(netcl.asarray([0.0]))", "[0.0]", atanh_derivative,
)  # fmt: skip
erf = _unary(
    "erf", "The error function of each element.", "y = 2/sqrt(π) ∫₀ˣ exp(-t²) dt", "erf(netcl.asarray([0.0]))",
    "[0.0]", lambda g, x: g * (2.0 / math.sqrt(math.pi)) * ex.exp(-(x * x)), domain="real",
)  # fmt: skip

# Rounding: piecewise constant, so the derivative is 0
floor = _unary("floor", "Each element rounded down.", "y = ⌊x⌋", f"floor({_X})", "[-1.0, 0.0]", flat, "real")
ceil = _unary("ceil", "Each element rounded up.", "y = ⌈x⌉", f"ceil({_X})", "[-1.0, 1.0]", flat, "real")
trunc = _unary(
    "trunc", "Each element rounded towards 0.", "y = sign(x) ⌊|x|⌋", f"trunc({_X})", "[-1.0, 0.0]", flat,
    "real",
)  # fmt: skip
round = _unary(
    "round", "Each element rounded to the nearest integer, halves to even.", "y = ⌊x⌉", f"round({_X})", "[-1.0, 0.0]",
    flat,
)  # fmt: skip

# Comparisons and predicates
equal = _binary("equal", "Whether each pair is equal.", "y = x1 == x2", f"equal({_X}, 0.5)", "[False, True]",
                domain="any")  # fmt: skip
not_equal = _binary("not_equal", "Whether each pair differs.", "y = x1 != x2", f"not_equal({_X}, 0.5)",
                    "[True, False]", domain="any")  # fmt: skip
less = _binary("less", "Whether x1 is smaller.", "y = x1 < x2", f"less({_X}, 0.5)", "[True, False]", domain="real")
less_equal = _binary("less_equal", "Whether x1 is not larger.", "y = x1 <= x2", f"less_equal({_X}, 0.5)",
                     "[True, True]", domain="real")  # fmt: skip
greater = _binary("greater", "Whether x1 is larger.", "y = x1 > x2", f"greater({_X}, 0.5)", "[False, False]",
                  domain="real")  # fmt: skip
greater_equal = _binary("greater_equal", "Whether x1 is not smaller.", "y = x1 >= x2", f"greater_equal({_X}, 0.5)",
                        "[False, True]", domain="real")  # fmt: skip
isnan = _unary("isnan", "Whether each element is NaN.", "y = (x != x)", f"isnan({_X})", "[False, False]")
isinf = _unary("isinf", "Whether each element is infinite.", "y = (|x| = inf)", f"isinf({_X})", "[False, False]")
isfinite = _unary("isfinite", "Whether each element is finite.", "y = (|x| < inf)", f"isfinite({_X})", "[True, True]")
signbit = _unary("signbit", "Whether the sign bit of each element is set.", "y = (x < 0 or x = -0)", f"signbit({_X})",
                 "[True, False]", domain="real")  # fmt: skip

# Logic and bits
_B = "netcl.asarray([True, False])"
_I = "netcl.asarray([5, 6])"
logical_and = _binary("logical_and", "Whether both are true.", "y = x1 ∧ x2", f"logical_and({_B}, True)",
                      "[True, False]", domain="any")  # fmt: skip
logical_or = _binary("logical_or", "Whether at least one is true.", "y = x1 ∨ x2", f"logical_or({_B}, True)",
                     "[True, True]", domain="any")  # fmt: skip
logical_xor = _binary("logical_xor", "Whether exactly one is true.", "y = x1 ⊕ x2", f"logical_xor({_B}, True)",
                      "[False, True]", domain="any")  # fmt: skip
logical_not = _unary("logical_not", "Whether each element is false.", "y = ¬x", f"logical_not({_B})",
                     "[False, True]", domain="any")  # fmt: skip
bitwise_and = _binary("bitwise_and", "The bits set in both.", "y = x1 & x2", f"bitwise_and({_I}, 3)", "[1, 2]",
                      domain="integer")  # fmt: skip
bitwise_or = _binary("bitwise_or", "The bits set in either.", "y = x1 | x2", f"bitwise_or({_I}, 3)", "[7, 7]",
                     domain="integer")  # fmt: skip
bitwise_xor = _binary("bitwise_xor", "The bits set in exactly one.", "y = x1 ^ x2", f"bitwise_xor({_I}, 3)", "[6, 5]",
                      domain="integer")  # fmt: skip
bitwise_invert = _unary("bitwise_invert", "Every bit inverted.", "y = ~x", f"bitwise_invert({_I})", "[-6, -7]",
                        domain="integer")  # fmt: skip
bitwise_left_shift = _binary("bitwise_left_shift", "The bits moved up by x2.", "y = x1 · 2^x2",
                             f"bitwise_left_shift({_I}, 1)", "[10, 12]", domain="integer")  # fmt: skip
bitwise_right_shift = _binary("bitwise_right_shift", "The bits moved down by x2.", "y = ⌊x1 / 2^x2⌋",
                              f"bitwise_right_shift({_I}, 1)", "[2, 3]", domain="integer")  # fmt: skip
