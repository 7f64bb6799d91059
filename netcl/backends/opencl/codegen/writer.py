"""Expression to OpenCL C: the statements that compute its outputs, at any vector width.

Only values and types are written here; where they are loaded from and stored to is the business of a kernel file.
The arithmetic is NumPy's: integers wrap, division rounds towards minus infinity and never traps, NaN propagates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, final

from netcl.backends.opencl.codegen import operators
from netcl.backends.opencl.codegen.literals import c_type
from netcl.backends.opencl.codegen.operators import BOOL_MEANINGS, BUILTINS, INFIX
from netcl.backends.opencl.codegen.values import Values
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
    writer = _Writer(names, width, prefix)
    for node in expression.nodes():
        writer.write(node)
    outputs = [writer.result(node) for node in expression.outputs]
    return writer.values.lines, outputs


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
            found[int64] = None  # the cast goes through it
    return tuple(found)


@final
class _Writer:
    """Writes the nodes of an expression, operands before what is made of them."""

    def __init__(self, names: Names, width: int, prefix: str) -> None:
        self.values = Values(width, prefix)
        self._leaves = names
        self._names: dict[int, str] = {}

    def result(self, node: Node) -> str:
        """The value of an output: bools as 0 or 1."""
        name = self._names[id(node)]
        return self.cast(name, bool_, uint8) if node.dtype is bool_ else name

    def write(self, node: Node) -> None:
        """The statement of a node whose operands are written."""
        self._names[id(node)] = self._value_of(node)

    def _value_of(self, node: Node) -> str:
        c_type(node.dtype)
        if node.op in LEAVES:
            return self.leaf(node)
        args = [self._names[id(arg)] for arg in node.args]
        source = node.args[0].dtype
        if node.op == "cast":
            return self.cast(args[0], source, node.dtype)
        if node.op == "narrow":
            return operators.narrow(self.values, args[0], source)
        if node.op == "where":
            return self.where(args, node.dtype)
        if source is bool_:
            return self.on_bools(node.op, args)
        if node.op in operators.COMPARISONS:
            return self.values.mask(source.itemsize, f"{args[0]} {INFIX[node.op]} {args[1]}")
        if source.kind == "f":
            return self.on_floats(node.op, args, source)
        return self.on_integers(node, args, source)

    def leaf(self, node: Node) -> str:
        if node.op == "constant":
            assert isinstance(node.value, bool | int | float)
            if node.dtype is bool_:
                truth = int(node.value)
                return self.values.mask(1, self.values.spread(str(-truth if self.values.width > 1 else truth), int8))
            return self.values.number(node.value, node.dtype)
        assert isinstance(node.value, int | str)
        name = self._leaves[node.op, node.value]
        if node.op != "input" and self.values.width > 1:
            name = self.values.value(node.dtype, self.values.spread(name, node.dtype))
        if node.dtype is bool_:
            return self.values.mask(1, f"{name} != {self.values.spread('0', uint8)}")
        return name

    def cast(self, name: str, source: DType, target: DType) -> str:
        if target is bool_:
            return self.values.mask(source.itemsize, f"{name} != {self.values.number(0, source)}")
        ctype = c_type(target, self.values.width)
        if source is bool_:
            return self.values.value(target, f"convert_{ctype}({name if self.values.width == 1 else f'-{name}'})")
        if source.kind == "f" and target.kind in "iu":
            # Out of range is undefined in C; through a wider signed type it wraps as NumPy's casts do.
            if target.itemsize < 4:
                name = self.cast(name, source, int32)
            elif target is uint32:
                name = self.cast(name, source, int64)
            elif target is uint64:
                negative = self.values.mask(source.itemsize, f"{name} < {self.values.number(0, source)}")
                wrapped = self.values.value(uint64, f"as_{ctype}({self.cast(name, source, int64)})")
                return self.values.select(
                    negative, wrapped, self.values.value(uint64, f"convert_{ctype}({name})"), uint64
                )
        return self.values.value(target, f"convert_{ctype}({name})")

    def where(self, args: list[str], dtype: DType) -> str:
        condition, yes, no = args
        if dtype is not bool_:
            return self.values.select(condition, yes, no, dtype)
        if self.values.width == 1:
            return self.values.mask(4, f"{condition} ? {yes} : {no}")
        lane = max(self.values.lane(arg) for arg in args)
        condition, yes, no = (self.values.widened(arg, lane) for arg in args)
        return self.values.mask(lane, f"({condition} & {yes}) | (~{condition} & {no})")

    # -- operators by kind -------------------------------------------------------------------------------------------

    def on_bools(self, op: str, args: list[str]) -> str:
        if op in ("positive", "abs", "square", *operators.ROUNDING):
            return args[0]
        lane = max((self.values.lane(arg) for arg in args), default=1)
        args = [self.values.widened(arg, lane) for arg in args]
        if op in BOOL_MEANINGS:
            return self.values.mask(lane, f"{args[0]} {BOOL_MEANINGS[op]} {args[1]}")
        if op in ("logical_not", "bitwise_invert"):
            return self.values.negated(args[0])
        if op == "equal":
            return self.values.negated(self.values.mask(lane, f"{args[0]} ^ {args[1]}"))
        if op in ("less", "less_equal", "greater", "greater_equal"):
            first, second = args if op in ("less", "greater_equal") else reversed(args)
            less = self.values.mask(lane, f"{self.values.negated(first)} & {second}")
            return less if op in ("less", "greater") else self.values.negated(less)
        if op in operators.CLASSIFIERS and op != "signbit":
            never = self.values.mask(lane, f"{args[0]} ^ {args[0]}")
            return self.values.negated(never) if op == "isfinite" else never
        raise operators.undefined(op, bool_)

    def on_floats(self, op: str, args: list[str], dtype: DType) -> str:
        if op in operators.CLASSIFIERS:
            return self.values.mask(dtype.itemsize, f"{op}({args[0]})")
        if op in operators.LANES and dtype is float32 and self.values.width > 1:
            return self.values.value(dtype, f"{op}_lanes{self.values.width}({args[0]})")
        if op in BUILTINS:
            return self.values.value(dtype, f"{BUILTINS[op]}({', '.join(args)})")
        if op in INFIX and not op.startswith("bitwise"):
            return self.values.value(dtype, f"{args[0]} {INFIX[op]} {args[1]}")
        special = operators.FLOAT_OPERATORS.get(op)
        if special is None:
            raise operators.undefined(op, dtype)
        return special(self.values, args, dtype)

    def on_integers(self, node: Node, args: list[str], dtype: DType) -> str:
        op = node.op
        if op in operators.CLASSIFIERS:
            return self.classify_integer(op, args[0], dtype)
        if op in ("positive", *operators.ROUNDING) or (op == "abs" and dtype.kind == "u"):
            return args[0]
        if op.startswith("bitwise_") and op in INFIX:
            return self.values.value(dtype, f"{args[0]} {INFIX[op]} {args[1]}")
        if op in ("add", "subtract", "multiply"):
            return self.values.wrapping(INFIX[op], args[0], args[1], dtype)
        if op == "pow" and node.args[1].op == "constant":
            assert isinstance(node.args[1].value, int)
            if node.args[1].value >= 0:
                return self.power_of_constant(args[0], node.args[1].value, dtype)
        special = operators.INTEGER_OPERATORS.get(op)
        if special is None:
            raise operators.undefined(op, dtype)
        return special(self.values, args, dtype)

    def classify_integer(self, op: str, x: str, dtype: DType) -> str:
        if op == "signbit" and dtype.kind == "i":
            return self.values.mask(dtype.itemsize, f"{x} < {self.values.number(0, dtype)}")
        truth = self.values.mask(dtype.itemsize, f"{x} == {x}")
        return truth if op == "isfinite" else self.values.negated(truth)

    def power_of_constant(self, x: str, exponent: int, dtype: DType) -> str:
        result = None
        while exponent:
            if exponent & 1:
                result = x if result is None else self.values.wrapping("*", result, x, dtype)
            exponent >>= 1
            if exponent:
                x = self.values.wrapping("*", x, x, dtype)
        return self.values.number(1, dtype) if result is None else result
