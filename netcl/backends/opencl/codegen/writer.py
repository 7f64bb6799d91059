"""Expression to OpenCL C: the statements that compute its outputs, at any vector width.

Only values and types are written here; where they are loaded from and stored to is the business of a kernel file.
The arithmetic is NumPy's: integers wrap, division rounds towards minus infinity and never traps, NaN propagates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from netcl.backends.opencl.codegen import operators
from netcl.backends.opencl.codegen.literals import SIGNED, c_type, literal, vector
from netcl.backends.opencl.codegen.operators import BOOL_MEANINGS, BUILTINS, INFIX
from netcl.dtypes import DType, bool_, float32, int8, int32, int64, uint8, uint32, uint64
from netcl.expression import LEAVES, Expression, Node

Names: TypeAlias = Mapping[tuple[str, int | str], str]
"""What a leaf is called in C: ``("input", 0)``, ``("scalar", 0)`` or ``("hyper", "lr")`` to a C name."""


def statements(expression: Expression, names: Names, width: int, prefix: str = "t") -> tuple[list[str], list[str]]:
    """The C statements that compute ``expression``, and the names that hold its outputs.

    They are for kernel files that include ``trigonometry.clh``, as ``storage.clh`` does.

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
    >>> from netcl.backends.opencl.codegen.writer import statements
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
    writer = Writer(names, width, prefix)
    for node in expression.nodes():
        writer.write(node)
    outputs = [writer.result(node) for node in expression.outputs]
    return writer.lines, outputs


def value_dtypes(expression: Expression) -> tuple[DType, ...]:
    """The dtype of every value in the statements of ``expression``, each once; the widest limits the lanes.

    Examples
    --------
    >>> from netcl import expression as ex
    >>> from netcl.dtypes import float32, int64
    >>> from netcl.backends.opencl.codegen.writer import value_dtypes
    >>> [dtype.name for dtype in value_dtypes(ex.trace(lambda x: x + 1, (int64,), stored=(float32,)))]
    ['int64', 'float32']
    """
    found = dict.fromkeys((*expression.inputs, *expression.scalars, *expression.stored))
    for node in expression.nodes():
        found[node.dtype] = None
        if node.op == "cast" and node.dtype is uint32 and node.args[0].dtype.kind == "f":
            found[int64] = None  # by way of which the cast goes
    return tuple(found)


class Writer:
    """Writes each distinct value once.

    A bool is held as a mask: for vectors, lanes of 0 and -1 as wide as what was compared, because that is what select
    takes; for scalars, an int of 0 or 1. It becomes 0 or 1 in a uchar only where it leaves.
    """

    def __init__(self, names: Names, width: int, prefix: str) -> None:
        self.names = names
        self.width: int = width
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
        found = self.let(vector(SIGNED[lane], self.width), text)
        self._lane[found] = lane
        return found

    def widened(self, mask: str, lane: int) -> str:
        """The same bool with lanes of ``lane`` bytes."""
        if self.width == 1 or self._lane[mask] == lane:
            return mask
        return self.mask(lane, f"convert_{vector(SIGNED[lane], self.width)}({mask})")

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
        name = self._values[id(node)]
        return self.cast(name, bool_, uint8) if node.dtype is bool_ else name

    def write(self, node: Node) -> None:
        """The statement of a node whose operands are written."""
        self._values[id(node)] = self._value_of(node)

    def _value_of(self, node: Node) -> str:
        c_type(node.dtype)
        if node.op in LEAVES:
            return self.leaf(node)
        args = [self._values[id(arg)] for arg in node.args]
        source = node.args[0].dtype
        if node.op == "cast":
            return self.cast(args[0], source, node.dtype)
        if node.op == "narrow":
            return operators.narrow(self, args[0], source)
        if node.op == "where":
            return self.where(args, node.dtype)
        if source is bool_:
            return self.on_bools(node.op, args)
        if node.op in operators.COMPARISONS:
            return self.mask(source.itemsize, f"{args[0]} {INFIX[node.op]} {args[1]}")
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
        if op in ("positive", "abs", "square", *operators.ROUNDING):
            return args[0]
        lane = max((self._lane[arg] for arg in args), default=1)
        args = [self.widened(arg, lane) for arg in args]
        if op in BOOL_MEANINGS:
            return self.mask(lane, f"{args[0]} {BOOL_MEANINGS[op]} {args[1]}")
        if op in ("logical_not", "bitwise_invert"):
            return self.negated(args[0])
        if op == "equal":
            return self.negated(self.mask(lane, f"{args[0]} ^ {args[1]}"))
        if op in ("less", "less_equal", "greater", "greater_equal"):
            first, second = args if op in ("less", "greater_equal") else reversed(args)
            less = self.mask(lane, f"{self.negated(first)} & {second}")
            return less if op in ("less", "greater") else self.negated(less)
        if op in operators.CLASSIFIERS and op != "signbit":
            never = self.mask(lane, f"{args[0]} ^ {args[0]}")
            return self.negated(never) if op == "isfinite" else never
        raise operators.undefined(op, bool_)

    def negated(self, mask: str) -> str:
        return self.mask(self._lane[mask], f"!{mask}" if self.width == 1 else f"~{mask}")

    def on_floats(self, op: str, args: list[str], dtype: DType) -> str:
        if op in operators.CLASSIFIERS:
            return self.mask(dtype.itemsize, f"{op}({args[0]})")
        if op in operators.LANES and dtype is float32 and self.width > 1:
            return self.value(dtype, f"{op}_lanes{self.width}({args[0]})")
        if op in BUILTINS:
            return self.value(dtype, f"{BUILTINS[op]}({', '.join(args)})")
        if op in INFIX and not op.startswith("bitwise"):
            return self.value(dtype, f"{args[0]} {INFIX[op]} {args[1]}")
        special = operators.FLOAT_OPERATORS.get(op)
        if special is None:
            raise operators.undefined(op, dtype)
        return special(self, args, dtype)

    def on_integers(self, node: Node, args: list[str], dtype: DType) -> str:
        op = node.op
        if op in operators.CLASSIFIERS:
            return self.classify_integer(op, args[0], dtype)
        if op in ("positive", *operators.ROUNDING) or (op == "abs" and dtype.kind == "u"):
            return args[0]
        if op.startswith("bitwise_") and op in INFIX:
            return self.value(dtype, f"{args[0]} {INFIX[op]} {args[1]}")
        if op in ("add", "subtract", "multiply"):
            return self.wrapping(INFIX[op], args[0], args[1], dtype)
        if op == "pow" and node.args[1].op == "constant":
            assert isinstance(node.args[1].value, int)
            if node.args[1].value >= 0:
                return self.power_of_constant(args[0], node.args[1].value, dtype)
        special = operators.INTEGER_OPERATORS.get(op)
        if special is None:
            raise operators.undefined(op, dtype)
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
