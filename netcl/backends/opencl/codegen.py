"""Expression to OpenCL C: the statements that compute its outputs, at any vector width.

Only values and types are written here; where they are loaded from and stored to is the business of a kernel file.
The arithmetic is NumPy's: integers wrap, division rounds towards minus infinity and never traps, NaN propagates.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import TypeAlias

from netcl.dtypes import DType, bool_, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64
from netcl.errors import DTypeError
from netcl.expression import LEAVES, Expression, Node

Names: TypeAlias = Mapping[tuple[str, int | str], str]
"""What a leaf is called in C: ``("input", 0)``, ``("scalar", 0)`` or ``("hyper", "lr")`` to a C name."""

_C_TYPES = {
    bool_: "uchar", int8: "char", int16: "short", int32: "int", int64: "long",
    uint8: "uchar", uint16: "ushort", uint32: "uint", uint64: "ulong", float32: "float", float64: "double",
}  # fmt: skip
_SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "bitwise_and": "&", "bitwise_or": "|",
    "bitwise_xor": "^", "equal": "==", "not_equal": "!=", "less": "<", "less_equal": "<=", "greater": ">",
    "greater_equal": ">=",
}  # fmt: skip
_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
_CLASSIFIERS = ("isnan", "isinf", "isfinite", "signbit")
_ROUNDING = ("floor", "ceil", "trunc", "round")

_BUILTINS = {
    **{name: name for name in (
        "pow", "atan2", "hypot", "copysign", "nextafter", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10",
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf",
        "floor", "ceil", "trunc",
    )},
    "abs": "fabs", "round": "rint",
}  # fmt: skip
"""Operators on floats that are one function of OpenCL C."""

_BOOL_MEANINGS = {
    "add": "|", "maximum": "|", "bitwise_or": "|", "logical_or": "|", "multiply": "&", "minimum": "&",
    "bitwise_and": "&", "logical_and": "&", "bitwise_xor": "^", "logical_xor": "^", "not_equal": "^",
}  # fmt: skip


def c_type(dtype: DType, width: int = 1) -> str:
    """The OpenCL C type that holds ``width`` values of ``dtype`` during computation; bool is uchar, 0 or 1.

    Raises
    ------
    DTypeError
        For a complex dtype.

    Examples
    --------
    >>> from netcl.backends.opencl.codegen import c_type
    >>> from netcl.dtypes import bool_, float16
    >>> c_type(float16, 8), c_type(bool_)
    ('float8', 'uchar')
    """
    name = _C_TYPES.get(dtype.compute)
    if name is None:
        raise DTypeError(
            f"the opencl backend does not compute with {dtype}; split it into real and imaginary parts, or compute on "
            'backend="numpy"'
        )
    return _vector(name, width)


def literal(value: bool | int | float, dtype: DType) -> str:
    """``value`` as a C constant of ``dtype``, exact to the last bit.

    Examples
    --------
    >>> from netcl.backends.opencl.codegen import literal
    >>> from netcl.dtypes import float32, int64
    >>> literal(0.1, float32), literal(-(2**63), int64)
    ('0.1f', '(-9223372036854775807L - 1L)')
    """
    dtype = dtype.compute
    if dtype is bool_:
        return str(int(bool(value)))
    if dtype is float64:
        # A suffix for double does not exist, and an unsuffixed literal changes meaning under some build options.
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        return f"as_double(0x{bits:016x}UL)"
    if dtype is float32:
        return _float_literal(float(value))
    bits = 8 * dtype.itemsize
    wrapped = int(value) & ((1 << bits) - 1)
    if dtype.kind == "u":
        return f"{wrapped}UL" if bits == 64 else f"{wrapped}u"
    if wrapped >> (bits - 1):
        wrapped -= 1 << bits
    suffix = "L" if bits == 64 else ""
    if wrapped == -(1 << (bits - 1)) and bits >= 32:
        return f"({wrapped + 1}{suffix} - 1{suffix})"
    return f"{wrapped}{suffix}"


def statements(expression: Expression, names: Names, width: int, prefix: str = "t") -> tuple[list[str], list[str]]:
    """The C statements that compute ``expression``, and the names that hold its outputs.

    Parameters
    ----------
    expression : Expression
    names : mapping
        The C name (or any C primary expression) of each leaf. Inputs hold ``width`` values of their compute type
        (``c_type(dtype, width)``, bool as uchar); scalars and hyper-parameters hold one and are spread here.
    width : {1, 2, 4, 8}
    prefix : str, default "t"
        What the names of intermediate values begin with; they are ``const`` and unique within the result.

    Returns
    -------
    lines : list of str
        One statement each.
    outputs : list of str
        The name of each output, of type ``c_type(output.dtype, width)``: bool as uchar, 0 or 1. To be rounded to the
        storage dtype by the caller.

    Raises
    ------
    DTypeError
        For complex dtypes, and for operators that a dtype does not have.

    Examples
    --------
    >>> from netcl import expression as ex
    >>> from netcl.dtypes import float32
    >>> from netcl.backends.opencl.codegen import statements
    >>> e = ex.trace(lambda x, a: x * a + 1.0, (float32,), (float32,))
    >>> lines, outputs = statements(e, {("input", 0): "x", ("scalar", 0): "a"}, 4)
    >>> for line in lines:
    ...     print(line)
    const float4 t0 = (float4)(a);
    const float4 t1 = x * t0;
    const float4 t2 = (float4)(1.0f);
    const float4 t3 = t1 + t2;
    >>> outputs
    ['t3']
    """
    for dtype in (*expression.inputs, *expression.scalars, *expression.stored):
        c_type(dtype)
    writer = _Writer(names, width, prefix)
    outputs = [writer.result(node) for node in expression.outputs]
    return writer.lines, outputs


def is_wide(expression: Expression) -> bool:
    """Whether a value of 8 bytes takes part. Vectors of 8 of them are unsafe on PoCL, so such code uses 4.

    Examples
    --------
    >>> from netcl import expression as ex
    >>> from netcl.dtypes import float32, int64
    >>> from netcl.backends.opencl.codegen import is_wide
    >>> is_wide(ex.trace(lambda x: x + 1, (int64,), stored=(float32,)))
    True
    """
    if any(dtype.itemsize == 8 for dtype in (*expression.inputs, *expression.scalars, *expression.stored)):
        return True
    seen: set[int] = set()
    pending = list(expression.outputs)
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        # A float becomes an unsigned int by way of a long.
        through_long = node.op == "cast" and node.dtype is uint32 and node.args[0].dtype.kind == "f"
        if node.dtype.itemsize == 8 or through_long:
            return True
        pending.extend(node.args)
    return False


def _vector(name: str, width: int) -> str:
    return name if width == 1 else f"{name}{width}"


def _float_literal(value: float) -> str:
    if math.isnan(value):
        return "NAN"
    try:
        (value,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        value = math.copysign(math.inf, value)
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    # Nine significant digits name every float32.
    short = next(text for digits in range(1, 10) if _is_float32(text := f"{value:.{digits}g}", value))
    if not any(mark in short for mark in ".e"):
        short += ".0"
    return f"{short}f" if not short.startswith("-") else f"({short}f)"


def _is_float32(text: str, value: float) -> bool:
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", float(text)))[0]
    except OverflowError:
        return False
    return rounded == value


class _Writer:
    """Writes each distinct value once.

    A bool is held as a mask: for vectors, lanes of 0 and -1 as wide as what was compared, because that is what select
    takes; for scalars, an int of 0 or 1. It becomes 0 or 1 in a uchar only where it leaves.
    """

    def __init__(self, names: Names, width: int, prefix: str) -> None:
        self.names = names
        self.width = width
        self.prefix = prefix
        self.lines: list[str] = []
        self.count = 0
        self._values: dict[int, str] = {}
        self._texts: dict[tuple[str, str], str] = {}
        self._lane: dict[str, int] = {}

    # -- naming ------------------------------------------------------------------------------------------------------

    def name(self) -> str:
        self.count += 1
        return f"{self.prefix}{self.count - 1}"

    def let(self, ctype: str, text: str) -> str:
        """The name of a constant of this vector or scalar type with this value."""
        known = self._texts.get((ctype, text))
        if known is None:
            known = self._texts[ctype, text] = self.name()
            self.lines.append(f"const {ctype} {known} = {text};")
        return known

    def value(self, dtype: DType, text: str) -> str:
        return self.let(c_type(dtype, self.width), text)

    def mask(self, lane: int, text: str) -> str:
        """A bool made by comparing things of ``lane`` bytes."""
        lane = 4 if self.width == 1 else lane
        found = self.let(_vector(_SIGNED[lane], self.width), text)
        self._lane[found] = lane
        return found

    def widened(self, mask: str, lane: int) -> str:
        """The same bool with lanes of ``lane`` bytes."""
        if self.width == 1 or self._lane[mask] == lane:
            return mask
        return self.mask(lane, f"convert_{_vector(_SIGNED[lane], self.width)}({mask})")

    def number(self, value: bool | int | float, dtype: DType) -> str:
        """A constant, spread over the lanes."""
        return self.value(dtype, self.spread(literal(value, dtype), dtype))

    def spread(self, scalar: str, dtype: DType) -> str:
        return f"({c_type(dtype, self.width)})({scalar})"

    def select(self, condition: str, yes: str, no: str, dtype: DType) -> str:
        if self.width == 1:
            return self.value(dtype, f"{condition} ? {yes} : {no}")
        return self.value(dtype, f"select({no}, {yes}, {self.widened(condition, dtype.itemsize)})")

    # -- nodes -------------------------------------------------------------------------------------------------------

    def result(self, node: Node) -> str:
        """The value of an output: bools as 0 or 1."""
        name = self.node(node)
        return self.cast(name, bool_, uint8) if node.dtype is bool_ else name

    def node(self, node: Node) -> str:
        known = self._values.get(id(node))
        if known is not None:
            return known
        # Depth first without recursion: a long sum must not meet Python's limit.
        pending = [node]
        while pending:
            top = pending[-1]
            missing = [arg for arg in top.args if id(arg) not in self._values]
            if missing:
                pending.extend(reversed(missing))
                continue
            pending.pop()
            if id(top) not in self._values:
                self._values[id(top)] = self.write(top)
        return self._values[id(node)]

    def write(self, node: Node) -> str:
        c_type(node.dtype)
        if node.op in LEAVES:
            return self.leaf(node)
        args = [self._values[id(arg)] for arg in node.args]
        source = node.args[0].dtype
        if node.op == "cast":
            return self.cast(args[0], source, node.dtype)
        if node.op == "where":
            return self.where(args, node.dtype)
        if source is bool_:
            return self.on_bools(node.op, args)
        if node.op in _COMPARISONS:
            return self.mask(source.itemsize, f"{args[0]} {_INFIX[node.op]} {args[1]}")
        if source.kind == "f":
            return self.on_floats(node.op, args, source)
        return self.on_integers(node, args, source)

    def leaf(self, node: Node) -> str:
        if node.op == "constant":
            assert isinstance(node.value, bool | int | float)
            if node.dtype is bool_:
                truth = int(node.value)
                return self.mask(1, self.spread(str(-truth if self.width > 1 else truth), int8))
            return self.number(node.value, node.dtype)
        assert isinstance(node.value, int | str)
        name = self.names[node.op, node.value]
        if node.op != "input" and self.width > 1:
            name = self.value(node.dtype, self.spread(name, node.dtype))
        if node.dtype is bool_:
            return self.mask(1, f"{name} != {self.spread('0', uint8)}")
        return name

    def cast(self, name: str, source: DType, target: DType) -> str:
        if target is bool_:
            return self.mask(source.itemsize, f"{name} != {self.number(0, source)}")
        ctype = c_type(target, self.width)
        if source is bool_:
            return self.value(target, f"convert_{ctype}({name if self.width == 1 else f'-{name}'})")
        if source.kind == "f" and target.kind in "iu":
            # Out of range is undefined in C; through a wider signed type it wraps as NumPy's casts do.
            if target.itemsize < 4:
                name = self.cast(name, source, int32)
            elif target is uint32:
                name = self.cast(name, source, int64)
            elif target is uint64:
                negative = self.mask(source.itemsize, f"{name} < {self.number(0, source)}")
                wrapped = self.value(uint64, f"as_{ctype}({self.cast(name, source, int64)})")
                return self.select(negative, wrapped, self.value(uint64, f"convert_{ctype}({name})"), uint64)
        return self.value(target, f"convert_{ctype}({name})")

    def where(self, args: list[str], dtype: DType) -> str:
        condition, yes, no = args
        if dtype is not bool_:
            return self.select(condition, yes, no, dtype)
        if self.width == 1:
            return self.mask(4, f"{condition} ? {yes} : {no}")
        lane = max(self._lane[arg] for arg in args)
        condition, yes, no = (self.widened(arg, lane) for arg in args)
        return self.mask(lane, f"({condition} & {yes}) | (~{condition} & {no})")

    # -- operators by kind -------------------------------------------------------------------------------------------

    def on_bools(self, op: str, args: list[str]) -> str:
        if op in ("positive", "abs", "square", *_ROUNDING):
            return args[0]
        lane = max((self._lane[arg] for arg in args), default=1)
        args = [self.widened(arg, lane) for arg in args]
        if op in _BOOL_MEANINGS:
            return self.mask(lane, f"{args[0]} {_BOOL_MEANINGS[op]} {args[1]}")
        if op in ("logical_not", "bitwise_invert"):
            return self.negated(args[0])
        if op == "equal":
            return self.negated(self.mask(lane, f"{args[0]} ^ {args[1]}"))
        if op in ("less", "less_equal", "greater", "greater_equal"):
            first, second = args if op in ("less", "greater_equal") else reversed(args)
            less = self.mask(lane, f"{self.negated(first)} & {second}")
            return less if op in ("less", "greater") else self.negated(less)
        raise _undefined(op, bool_)

    def negated(self, mask: str) -> str:
        return self.mask(self._lane[mask], f"!{mask}" if self.width == 1 else f"~{mask}")

    def on_floats(self, op: str, args: list[str], dtype: DType) -> str:
        if op in _CLASSIFIERS:
            return self.mask(dtype.itemsize, f"{op}({args[0]})")
        if op in _BUILTINS:
            return self.value(dtype, f"{_BUILTINS[op]}({', '.join(args)})")
        if op in _INFIX and not op.startswith("bitwise"):
            return self.value(dtype, f"{args[0]} {_INFIX[op]} {args[1]}")
        special = _FLOAT_OPERATORS.get(op)
        if special is None:
            raise _undefined(op, dtype)
        return special(self, args, dtype)

    def on_integers(self, node: Node, args: list[str], dtype: DType) -> str:
        op = node.op
        if op in _CLASSIFIERS:
            return self.classify_integer(op, args[0], dtype)
        if op in ("positive", *_ROUNDING) or (op == "abs" and dtype.kind == "u"):
            return args[0]
        if op.startswith("bitwise_") and op in _INFIX:
            return self.value(dtype, f"{args[0]} {_INFIX[op]} {args[1]}")
        if op in ("add", "subtract", "multiply"):
            return self.wrapping(_INFIX[op], args[0], args[1], dtype)
        if op == "pow" and node.args[1].op == "constant":
            assert isinstance(node.args[1].value, int)
            if node.args[1].value >= 0:
                return self.power_of_constant(args[0], node.args[1].value, dtype)
        special = _INTEGER_OPERATORS.get(op)
        if special is None:
            raise _undefined(op, dtype)
        return special(self, args, dtype)

    def classify_integer(self, op: str, x: str, dtype: DType) -> str:
        if op == "signbit" and dtype.kind == "i":
            return self.mask(dtype.itemsize, f"{x} < {self.number(0, dtype)}")
        truth = self.mask(dtype.itemsize, f"{x} == {x}")
        return truth if op == "isfinite" else self.negated(truth)

    def wrapping(self, sign: str, x: str, y: str, dtype: DType) -> str:
        """Arithmetic modulo 2**bits: signed overflow is undefined in C, so it is done on unsigned integers."""
        if dtype.kind == "u" and (self.width > 1 or dtype.itemsize >= 4):
            return self.value(dtype, f"{x} {sign} {y}")
        if self.width == 1:
            unsigned = "ulong" if dtype.itemsize == 8 else "uint"
            return self.value(dtype, f"({c_type(dtype)})(({unsigned}){x} {sign} ({unsigned}){y})")
        unsigned = f"as_u{c_type(dtype, self.width)}"
        return self.value(dtype, f"as_{c_type(dtype, self.width)}({unsigned}({x}) {sign} {unsigned}({y}))")

    def power_of_constant(self, x: str, exponent: int, dtype: DType) -> str:
        result = None
        while exponent:
            if exponent & 1:
                result = x if result is None else self.wrapping("*", result, x, dtype)
            exponent >>= 1
            if exponent:
                x = self.wrapping("*", x, x, dtype)
        return self.number(1, dtype) if result is None else result

    def both(self, first: str, second: str, sign: str = "&") -> str:
        """Two masks combined."""
        lane = max(self._lane[first], self._lane[second])
        return self.mask(lane, f"{self.widened(first, lane)} {sign} {self.widened(second, lane)}")


_Operator: TypeAlias = Callable[[_Writer, list[str], DType], str]


def _undefined(op: str, dtype: DType) -> DTypeError:
    return DTypeError(f"{op} is not defined for {dtype}; cast the operand with astype() first")


# -- floats ----------------------------------------------------------------------------------------------------------


def _float_extremum(sign: str) -> _Operator:
    def write(w: _Writer, args: list[str], dtype: DType) -> str:
        # fmax and fmin drop a NaN; this keeps the first one.
        wins = w.mask(dtype.itemsize, f"{args[0]} {sign} {args[1]}")
        return w.select(w.both(wins, w.mask(dtype.itemsize, f"isnan({args[0]})"), "|"), args[0], args[1], dtype)

    return write


def _float_sign(w: _Writer, args: list[str], dtype: DType) -> str:
    (x,) = args
    zero = w.number(0, dtype)
    one = w.value(dtype, f"copysign({w.number(1, dtype)}, {x})")
    # Zero of either sign gives +0, NaN stays NaN.
    moved = w.select(w.mask(dtype.itemsize, f"{x} == {zero}"), zero, one, dtype)
    return w.select(w.mask(dtype.itemsize, f"isnan({x})"), x, moved, dtype)


def _float_modulo(w: _Writer, x: str, y: str, dtype: DType) -> tuple[str, str, str, str]:
    """fmod(x, y), whether it must move by y to get the sign of y, zero, and whether it is nonzero."""
    zero = w.number(0, dtype)
    modulo = w.value(dtype, f"fmod({x}, {y})")
    nonzero = w.mask(dtype.itemsize, f"{modulo} != {zero}")
    signs = w.both(w.mask(dtype.itemsize, f"{y} < {zero}"), w.mask(dtype.itemsize, f"{modulo} < {zero}"), "^")
    return modulo, w.both(nonzero, signs), zero, nonzero


def _float_remainder(w: _Writer, args: list[str], dtype: DType) -> str:
    x, y = args
    modulo, moves, zero, nonzero = _float_modulo(w, x, y, dtype)
    moved = w.select(moves, w.value(dtype, f"{modulo} + {y}"), modulo, dtype)
    return w.select(nonzero, moved, w.value(dtype, f"copysign({zero}, {y})"), dtype)


def _float_floor_divide(w: _Writer, args: list[str], dtype: DType) -> str:
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


def _float_logaddexp(w: _Writer, args: list[str], dtype: DType) -> str:
    x, y = args
    larger = _float_extremum(">=")(w, args, dtype)
    gap = w.value(dtype, f"fabs({x} - {y})")
    smooth = w.value(dtype, f"{larger} + log1p(exp(-{gap}))")
    # Equal operands may both be infinite, where their difference is NaN.
    same = w.mask(dtype.itemsize, f"{x} == {y}")
    return w.select(same, w.value(dtype, f"{x} + {w.number(math.log(2.0), dtype)}"), smooth, dtype)


_FLOAT_OPERATORS: dict[str, _Operator] = {
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


def _integer_division(w: _Writer, x: str, y: str, dtype: DType) -> tuple[str, str, str]:
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


def _integer_floor_divide(w: _Writer, args: list[str], dtype: DType) -> str:
    x, y = args
    quotient, _, bad = _integer_division(w, x, y, dtype)
    # x // 0 is 0 and x // -1 is -x: both are x * y.
    return w.select(bad, w.wrapping("*", x, y, dtype), quotient, dtype)


def _integer_remainder(w: _Writer, args: list[str], dtype: DType) -> str:
    _, rest, bad = _integer_division(w, args[0], args[1], dtype)
    return w.select(bad, w.number(0, dtype), rest, dtype)


def _integer_pow(w: _Writer, args: list[str], dtype: DType) -> str:
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


def _integer_sign(w: _Writer, args: list[str], dtype: DType) -> str:
    (x,) = args
    zero, one = w.number(0, dtype), w.number(1, dtype)
    if dtype.kind == "u":
        return w.value(dtype, f"min({x}, {one})")
    up = w.select(w.mask(dtype.itemsize, f"{x} > {zero}"), one, zero, dtype)
    return w.select(w.mask(dtype.itemsize, f"{x} < {zero}"), w.number(-1, dtype), up, dtype)


def _shift(left: bool) -> _Operator:
    def write(w: _Writer, args: list[str], dtype: DType) -> str:
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


_INTEGER_OPERATORS: dict[str, _Operator] = {
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
