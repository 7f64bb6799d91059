"""What each operator is in OpenCL C, for floats, integers and bools.

Most are one operator or one function. The others are written out here with the help of a ``Values``, so that they
mean what NumPy means by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from netcl.backends.opencl.codegen.literals import c_type
from netcl.backends.opencl.codegen.values import Values
from netcl.dtypes import DType, float32, uint32, uint64
from netcl.errors import DTypeError

INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "bitwise_and": "&", "bitwise_or": "|",
    "bitwise_xor": "^", "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=",
}  # fmt: skip
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
CLASSIFIERS = ("isnan", "isinf", "isfinite", "signbit")
ROUNDING = ("floor", "ceil", "trunc", "round")

BUILTINS = {
    **{name: name for name in (
        "pow", "atan2", "hypot", "copysign", "nextafter", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10",
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
        "floor", "ceil", "trunc",
    )},
    "abs": "fabs", "round": "rint",
}  # fmt: skip
"""Operators on floats that are one function of OpenCL C."""

LANES = ("sin", "cos", "tan", "acosh")
"""What ``trigonometry.clh`` defines for vectors of float32."""

BOOL_MEANINGS = {
    "add": "|", "maximum": "|", "bitwise_or": "|", "logical_or": "|", "multiply": "&", "minimum": "&",
    "bitwise_and": "&", "logical_and": "&", "bitwise_xor": "^", "logical_xor": "^", "not_equal": "^",
}  # fmt: skip


Operator: TypeAlias = Callable[[Values, list[str], DType], str]


def undefined(op: str, dtype: DType) -> DTypeError:
    """The refusal of an operator that a dtype does not have."""
    return DTypeError(f"{op} is not defined for {dtype}; cast the operand with astype() first")


# -- floats ----------------------------------------------------------------------------------------------------------


def _float_extremum(sign: str) -> Operator:
    def write(w: Values, args: list[str], dtype: DType) -> str:
        # fmax and fmin drop a NaN; this keeps the first one.
        wins = w.mask(dtype.itemsize, f"{args[0]} {sign} {args[1]}")
        return w.select(w.both(wins, w.mask(dtype.itemsize, f"isnan({args[0]})"), "|"), args[0], args[1], dtype)

    return write


def _float_sign(w: Values, args: list[str], dtype: DType) -> str:
    (x,) = args
    zero = w.number(0, dtype)
    one = w.value(dtype, f"copysign({w.number(1, dtype)}, {x})")
    # Zero of either sign gives +0, NaN stays NaN.
    moved = w.select(w.mask(dtype.itemsize, f"{x} == {zero}"), zero, one, dtype)
    return w.select(w.mask(dtype.itemsize, f"isnan({x})"), x, moved, dtype)


def _float_modulo(w: Values, x: str, y: str, dtype: DType) -> tuple[str, str, str, str]:
    """fmod(x, y), whether it must move by y to get the sign of y, zero, and whether it is nonzero."""
    zero = w.number(0, dtype)
    modulo = w.value(dtype, f"fmod({x}, {y})")
    nonzero = w.mask(dtype.itemsize, f"{modulo} != {zero}")
    signs = w.both(w.mask(dtype.itemsize, f"{y} < {zero}"), w.mask(dtype.itemsize, f"{modulo} < {zero}"), "^")
    return modulo, w.both(nonzero, signs), zero, nonzero


def _float_remainder(w: Values, args: list[str], dtype: DType) -> str:
    x, y = args
    modulo, moves, zero, nonzero = _float_modulo(w, x, y, dtype)
    moved = w.select(moves, w.value(dtype, f"{modulo} + {y}"), modulo, dtype)
    return w.select(nonzero, moved, w.value(dtype, f"copysign({zero}, {y})"), dtype)


def _float_floor_divide(w: Values, args: list[str], dtype: DType) -> str:
    x, y = args
    modulo, moves, zero, _ = _float_modulo(w, x, y, dtype)
    one = w.number(1, dtype)
    exact = w.value(dtype, f"({x} - {modulo}) / {y}")
    quotient = w.select(moves, w.value(dtype, f"{exact} - {one}"), exact, dtype)
    down = w.value(dtype, f"floor({quotient})")
    # (x - modulo) / y is a whole number up to rounding, which may have left it just below one.
    short = w.mask(dtype.itemsize, f"{quotient} - {down} > {w.number(0.5, dtype)}")
    whole = w.select(short, w.value(dtype, f"{down} + {one}"), down, dtype)
    ratio = w.value(dtype, f"{x} / {y}")
    is_zero = w.mask(dtype.itemsize, f"{quotient} == {zero}")
    signed = w.select(is_zero, w.value(dtype, f"copysign({zero}, {ratio})"), whole, dtype)
    return w.select(w.mask(dtype.itemsize, f"{y} == {zero}"), ratio, signed, dtype)


def _float_logaddexp(w: Values, args: list[str], dtype: DType) -> str:
    x, y = args
    larger = _float_extremum(">=")(w, args, dtype)
    gap = w.value(dtype, f"fabs({x} - {y})")
    smooth = w.value(dtype, f"{larger} + log1p(exp(-{gap}))")
    # Equal operands may both be infinite, where their difference is NaN.
    same = w.mask(dtype.itemsize, f"{x} == {y}")
    return w.select(same, w.value(dtype, f"{x} + {w.number(math.log(2.0), dtype)}"), smooth, dtype)


def narrow(w: Values, x: str, source: DType) -> str:
    """A float64 or an integer as float32, rounded to odd: towards zero, the last bit set if anything was cut off."""
    if source.kind == "f":
        near = w.value(float32, f"convert_{c_type(float32, w.width)}({x})")
        back = w.value(source, f"convert_{c_type(source, w.width)}({near})")
        bits = w.value(uint32, f"as_{c_type(uint32, w.width)}({near})")
        beyond = w.mask(source.itemsize, f"fabs({back}) > fabs({x})")
        bits = w.select(beyond, w.value(uint32, f"{bits} - {w.number(1, uint32)}"), bits, uint32)
        inexact = w.mask(source.itemsize, f"{back} != {x}")
    else:
        unsigned = {4: uint32, 8: uint64}[source.itemsize]
        size = w.value(unsigned, f"abs({x})") if source.kind == "i" else x
        surplus = f"sub_sat({w.number(8 * source.itemsize - 24, unsigned)}, clz({size}))"
        one = w.number(1, unsigned)
        low = w.value(unsigned, f"({one} << {surplus}) - {one}")
        cut = w.value(float32, f"convert_{c_type(float32, w.width)}({size} & ~{low})")
        if source.kind == "i":
            sign = w.mask(source.itemsize, f"{x} < {w.number(0, source)}")
            cut = w.select(sign, w.value(float32, f"-{cut}"), cut, float32)
        bits = w.value(uint32, f"as_{c_type(uint32, w.width)}({cut})")
        inexact = w.mask(source.itemsize, f"({size} & {low}) != {w.number(0, unsigned)}")
    odd = w.select(inexact, w.value(uint32, f"{bits} | {w.number(1, uint32)}"), bits, uint32)
    return w.value(float32, f"as_{c_type(float32, w.width)}({odd})")


def _round_to(tag: str, how: str = "round") -> Operator:
    def write(w: Values, args: list[str], dtype: DType) -> str:
        return w.value(dtype, f"{how}{w.width if w.width > 1 else ''}_{tag}({', '.join(args)})")

    return write


FLOAT_OPERATORS: dict[str, Operator] = {
    "stochastic_float16": _round_to("float16", "stochastic"),
    "stochastic_bfloat16": _round_to("bfloat16", "stochastic"),
    "round_float16": _round_to("float16"),
    "round_bfloat16": _round_to("bfloat16"),
    "maximum": _float_extremum(">="),
    "minimum": _float_extremum("<="),
    "sign": _float_sign,
    "remainder": _float_remainder,
    "floor_divide": _float_floor_divide,
    "logaddexp": _float_logaddexp,
    "negative": lambda w, args, dtype: w.value(dtype, f"-{args[0]}"),
    "positive": lambda w, args, dtype: args[0],
    "square": lambda w, args, dtype: w.value(dtype, f"{args[0]} * {args[0]}"),
    "rsqrt": lambda w, args, dtype: w.value(dtype, f"{w.number(1, dtype)} / sqrt({args[0]})"),
    "reciprocal": lambda w, args, dtype: w.value(dtype, f"{w.number(1, dtype)} / {args[0]}"),
}

# -- integers --------------------------------------------------------------------------------------------------------


def _integer_division(w: Values, x: str, y: str, dtype: DType) -> tuple[str, str, str]:
    """Floored quotient and remainder by a divisor that cannot trap, and the mask of the divisors that can.

    Zero, and -1 under the smallest integer, kill the process on x86.
    """
    zero, one = w.number(0, dtype), w.number(1, dtype)
    bad = w.mask(dtype.itemsize, f"{y} == {zero}")
    if dtype.kind == "i":
        bad = w.both(bad, w.mask(dtype.itemsize, f"{y} == {w.number(-1, dtype)}"), "|")
    safe = w.select(bad, one, y, dtype)
    quotient = w.value(dtype, f"{x} / {safe}")
    rest = w.value(dtype, f"{x} - {quotient} * {safe}")
    if dtype.kind == "i":
        signs = w.mask(dtype.itemsize, f"({rest} ^ {safe}) < {zero}")
        moves = w.both(signs, w.mask(dtype.itemsize, f"{rest} != {zero}"))
        quotient = w.select(moves, w.value(dtype, f"{quotient} - {one}"), quotient, dtype)
        rest = w.select(moves, w.value(dtype, f"{rest} + {safe}"), rest, dtype)
    return quotient, rest, bad


def _integer_floor_divide(w: Values, args: list[str], dtype: DType) -> str:
    x, y = args
    quotient, _, bad = _integer_division(w, x, y, dtype)
    # x // 0 is 0 and x // -1 is -x: both are x * y.
    return w.select(bad, w.wrapping("*", x, y, dtype), quotient, dtype)


def _integer_remainder(w: Values, args: list[str], dtype: DType) -> str:
    _, rest, bad = _integer_division(w, args[0], args[1], dtype)
    return w.select(bad, w.number(0, dtype), rest, dtype)


def _integer_pow(w: Values, args: list[str], dtype: DType) -> str:
    x, y = args
    ctype, zero, one = c_type(dtype, w.width), w.number(0, dtype), w.number(1, dtype)
    power, base, left = w.name(), w.name(), w.name()
    w.lines.append(f"{ctype} {power} = {one}, {base} = {x}, {left} = {y};")
    odd, positive = f"({left} & {one}) != {zero}", f"{left} > {zero}"
    again = positive if w.width == 1 else f"any({positive})"
    product, square = _product(power, base, dtype, w.width), _product(base, base, dtype, w.width)
    chosen = (
        f"({odd}) & ({positive}) ? {product} : {power}"
        if w.width == 1
        else f"select({power}, {product}, ({odd}) & ({positive}))"
    )
    w.lines.append(f"for (; {again}; {left} >>= {one}) {{ {power} = {chosen}; {base} = {square}; }}")
    if dtype.kind == "u":
        return w.value(dtype, power)
    # To a negative power, the whole part of the true result: nonzero for 1 and -1 alone.
    odd_name = w.mask(dtype.itemsize, odd.replace(left, y))
    unit = w.mask(dtype.itemsize, f"{x} == {one}")
    minus = w.mask(dtype.itemsize, f"{x} == {w.number(-1, dtype)}")
    of_minus = w.select(odd_name, w.number(-1, dtype), one, dtype)
    small = w.select(unit, one, w.select(minus, of_minus, zero, dtype), dtype)
    return w.select(w.mask(dtype.itemsize, f"{y} < {zero}"), small, w.value(dtype, power), dtype)


def _product(x: str, y: str, dtype: DType, width: int) -> str:
    """x * y modulo 2**bits, as an expression."""
    ctype = c_type(dtype, width)
    if width == 1:
        unsigned = "ulong" if dtype.itemsize == 8 else "uint"
        return f"({ctype})(({unsigned}){x} * ({unsigned}){y})"
    if dtype.kind == "u":
        return f"{x} * {y}"
    return f"as_{ctype}(as_u{ctype}({x}) * as_u{ctype}({y}))"


def _integer_sign(w: Values, args: list[str], dtype: DType) -> str:
    (x,) = args
    zero, one = w.number(0, dtype), w.number(1, dtype)
    if dtype.kind == "u":
        return w.value(dtype, f"min({x}, {one})")
    up = w.select(w.mask(dtype.itemsize, f"{x} > {zero}"), one, zero, dtype)
    return w.select(w.mask(dtype.itemsize, f"{x} < {zero}"), w.number(-1, dtype), up, dtype)


def _shift(left: bool) -> Operator:
    def write(w: Values, args: list[str], dtype: DType) -> str:
        x, y = args
        bits = 8 * dtype.itemsize
        # OpenCL takes the count modulo the bits; by that many bits or more, or by a negative count, nothing is left.
        legal = w.mask(dtype.itemsize, f"{y} < {w.number(bits, dtype)}")
        if dtype.kind == "i":
            legal = w.both(legal, w.mask(dtype.itemsize, f"{y} >= {w.number(0, dtype)}"))
        count = w.select(legal, y, w.number(0 if left or dtype.kind == "u" else bits - 1, dtype), dtype)
        shifted = w.wrapping("<<", x, count, dtype) if left else w.value(dtype, f"{x} >> {count}")
        return shifted if not left and dtype.kind == "i" else w.select(legal, shifted, w.number(0, dtype), dtype)

    return write


INTEGER_OPERATORS: dict[str, Operator] = {
    "floor_divide": _integer_floor_divide,
    "remainder": _integer_remainder,
    "pow": _integer_pow,
    "maximum": lambda w, args, dtype: w.value(dtype, f"max({args[0]}, {args[1]})"),
    "minimum": lambda w, args, dtype: w.value(dtype, f"min({args[0]}, {args[1]})"),
    "sign": _integer_sign,
    "negative": lambda w, args, dtype: w.wrapping("-", w.number(0, dtype), args[0], dtype),
    "abs": lambda w, args, dtype: w.value(dtype, f"as_{c_type(dtype, w.width)}(abs({args[0]}))"),
    "square": lambda w, args, dtype: w.wrapping("*", args[0], args[0], dtype),
    "bitwise_invert": lambda w, args, dtype: w.value(dtype, f"~{args[0]}"),
    "bitwise_left_shift": _shift(left=True),
    "bitwise_right_shift": _shift(left=False),
}
