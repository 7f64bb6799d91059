"""Elementwise arithmetic, written once as Python and carried as data.

A function over :class:`Node` objects is called once (traced); what it returns is an :class:`Expression`, which the
OpenCL backend sets into a kernel and the reference backend evaluates over arrays. Update rules and the operations of
the tape are both written this way, so neither knows a backend.

>>> from netcl import expression as ex
>>> from netcl.dtypes import float32
>>> e = ex.trace(lambda x, a: ex.maximum(x, 0.0) * a, inputs=(float32,), scalars=(float32,))
>>> e.key
'float32;float32;float32|multiply(maximum(i0:float32,0.0:float32),s0:float32)'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from netcl import dtypes
from netcl.dtypes import DType, bfloat16, bool_, complex64, complex128, float32, float64, int64, promote, promote_scalar
from netcl.errors import TraceError
from netcl.operators import LEAVES as LEAVES
from netcl.operators import OPERATORS as OPERATORS

Number: TypeAlias = bool | int | float | complex


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value in an expression. Arithmetic on it makes new nodes; nothing is computed.

    Attributes
    ----------
    op : str
        A name of :data:`OPERATORS`, or a leaf: ``input`` and ``scalar`` (``value`` is the position), ``constant``
        (``value`` is the number), ``hyper`` (``value`` is a hyper-parameter's name).
    args : tuple of Node
        The operands.
    dtype : DType
        The compute dtype: never one of the 16-bit floats, which are widened when they are loaded.
    """

    op: str
    args: tuple[Node, ...]
    dtype: DType
    value: Number | str | None = None

    # NumPy's functions refuse a node, and its numbers leave arithmetic with one to the methods below.
    __array_ufunc__ = None

    def __bool__(self) -> bool:
        raise TraceError(
            f"a traced value has no truth value, so Python's if, and, or, while and == chains cannot branch on it "
            f"{caller()}; use where(condition, a, b)"
        )

    def __iter__(self) -> Iterator[Node]:
        raise TraceError(f"a traced value is one element and cannot be iterated over {caller()}")

    def __float__(self) -> float:
        raise TraceError(f"a traced value has no number yet {caller()}; use the functions of netcl.expression")

    __int__ = __index__ = __float__

    def __add__(self, other: Operand) -> Node:
        return apply("add", self, other)

    def __radd__(self, other: Operand) -> Node:
        return apply("add", other, self)

    def __sub__(self, other: Operand) -> Node:
        return apply("subtract", self, other)

    def __rsub__(self, other: Operand) -> Node:
        return apply("subtract", other, self)

    def __mul__(self, other: Operand) -> Node:
        return apply("multiply", self, other)

    def __rmul__(self, other: Operand) -> Node:
        return apply("multiply", other, self)

    def __truediv__(self, other: Operand) -> Node:
        return apply("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Node:
        return apply("divide", other, self)

    def __pow__(self, other: Operand) -> Node:
        if not isinstance(other, Node) and other == 2:
            return apply("square", self)
        return apply("pow", self, other)

    def __rpow__(self, other: Operand) -> Node:
        return apply("pow", other, self)

    def __neg__(self) -> Node:
        return apply("negative", self)

    def __abs__(self) -> Node:
        return apply("abs", self)

    # Nodes are compared by identity where they are kept in dicts and sets; an == in a traced function is an operator.
    __hash__ = object.__hash__

    def __eq__(self, other: Operand) -> Node:  # type: ignore[override]
        return apply("equal", self, other)

    def __ne__(self, other: Operand) -> Node:  # type: ignore[override]
        return apply("not_equal", self, other)

    def __lt__(self, other: Operand) -> Node:
        return apply("less", self, other)

    def __le__(self, other: Operand) -> Node:
        return apply("less_equal", self, other)

    def __gt__(self, other: Operand) -> Node:
        return apply("greater", self, other)

    def __ge__(self, other: Operand) -> Node:
        return apply("greater_equal", self, other)

    def __and__(self, other: Operand) -> Node:
        return apply("logical_and" if self.dtype is bool_ else "bitwise_and", self, other)

    def __or__(self, other: Operand) -> Node:
        return apply("logical_or" if self.dtype is bool_ else "bitwise_or", self, other)

    def __invert__(self) -> Node:
        return apply("logical_not" if self.dtype is bool_ else "bitwise_invert", self)


Operand: TypeAlias = Node | bool | int | float | complex


@dataclass(frozen=True, slots=True)
class Expression:
    """A traced function: what each output is, in terms of the inputs.

    Attributes
    ----------
    inputs, scalars, stored : tuple of DType
        The storage dtype of each array operand, of each scalar given at the call, and of each output.
    outputs : tuple of Node
    key : str
        Two expressions with the same key compute the same thing; kernels are cached under it.
    name : str
        For messages and profiles only.
    """

    inputs: tuple[DType, ...]
    scalars: tuple[DType, ...]
    outputs: tuple[Node, ...] = field(compare=False)
    stored: tuple[DType, ...]
    key: str
    name: str = field(default="map", compare=False)

    def nodes(self) -> list[Node]:
        """Every node that the outputs are made of, once and after its operands. See :func:`nodes_of`."""
        return nodes_of(self.outputs)

    def rewrite(self, function: Callable[[Node], Node]) -> Expression:
        """This expression with nodes replaced. See :func:`rewrite`."""
        outputs = rewrite(self.outputs, function)
        return build(outputs, self.inputs, self.scalars, self.stored, self.name)


def nodes_of(outputs: Sequence[Node]) -> list[Node]:
    """Every node that ``outputs`` are made of, once and after its operands, in the order in which they are met.

    Takes time linear in the graph and no recursion, so a sum of any length will do.

    Examples
    --------
    >>> from netcl.dtypes import float32
    >>> from netcl.expression import nodes_of, trace
    >>> e = trace(lambda x, y: (x - y) * (x - y), (float32, float32))
    >>> [node.op for node in nodes_of(e.outputs)]
    ['input', 'input', 'subtract', 'subtract', 'multiply']
    """
    ordered: list[Node] = []
    seen: set[int] = set()
    pending = [(output, False) for output in reversed(outputs)]
    while pending:
        node, ready = pending.pop()
        if id(node) in seen:
            continue
        if ready or not node.args:
            seen.add(id(node))
            ordered.append(node)
        else:
            pending.append((node, True))
            pending += [(arg, False) for arg in reversed(node.args)]
    return ordered


def rewrite(outputs: Sequence[Node], function: Callable[[Node], Node]) -> tuple[Node, ...]:
    """``outputs`` with every node replaced by what ``function`` returns for it, without recursion.

    Parameters
    ----------
    outputs : sequence of Node
    function : callable
        Called once for each node, after its operands, with the node over its replaced operands. What it returns,
        that node or another, stands in its place; that is not rewritten again.

    Examples
    --------
    >>> from netcl.dtypes import float32
    >>> from netcl.expression import build, rewrite, sqrt, trace
    >>> e = trace(lambda x: x * x + 1.0, (float32,))
    >>> outputs = rewrite(e.outputs, lambda node: sqrt(node) if node.op == "input" else node)
    >>> build(outputs, e.inputs).key.split("|")[1]
    'add(multiply(sqrt(i0:float32),#2),1.0:float32)'
    """
    made: dict[int, Node] = {}
    for node in nodes_of(outputs):
        args = tuple([made[id(arg)] for arg in node.args])
        changed = any(new is not old for new, old in zip(args, node.args, strict=True))
        made[id(node)] = function(Node(node.op, args, node.dtype, node.value) if changed else node)
    return tuple([made[id(output)] for output in outputs])


def caller(*files: str) -> str:
    """The line that called into this file, or into ``files``, for a message about it."""
    for frame in inspect.stack()[1:]:
        if frame.filename not in (__file__, *files):
            line = frame.code_context[0].strip() if frame.code_context else "?"
            return f"(in {frame.function}, line {frame.lineno}: {line!r})"
    return ""


def constant(value: Number, dtype: DType) -> Node:
    """A number that is part of the expression itself."""
    if dtype.kind in "fc":
        value = float(value) if dtype.kind == "f" else complex(value)  # type: ignore[arg-type]
    return Node("constant", (), dtype, value)


def _as_nodes(op: str, operands: Sequence[Operand]) -> list[Node]:
    nodes = [operand for operand in operands if isinstance(operand, Node)]
    for operand in operands:
        if not isinstance(operand, Node | bool | int | float | complex):
            raise TraceError(
                f"{op} takes traced values and Python numbers, got {type(operand).__name__} {caller()}; "
                "pass arrays as inputs of the traced function"
            )
    # A number takes the dtype of the values it meets; in where(), of the other branch and not of the condition.
    partners = [node for node in nodes if node.dtype is not bool_] or nodes
    if not partners:
        raise TraceError(f"{op} needs at least one traced value {caller()}")
    dtype = partners[0].dtype
    for node in partners[1:]:
        dtype = promote(dtype, node.dtype)
    result = []
    for position, operand in enumerate(operands):
        if isinstance(operand, Node):
            result.append(operand)
        elif op == "where" and position == 0:
            result.append(constant(bool(operand), bool_))
        else:
            own = promote_scalar(dtype, operand)
            result.append(constant(operand, own if isinstance(operand, complex) else own.part))
    return result


def cast(x: Node, dtype: DType) -> Node:
    """``x`` converted to ``dtype`` (its compute dtype: float16 gives float32)."""
    dtype = dtype.compute
    if x.dtype is dtype:
        return x
    if x.op == "constant" and not isinstance(x.value, complex) and dtype.kind in "fc":
        return constant(x.value, dtype)  # type: ignore[arg-type]
    return Node("cast", (x,), dtype)


def narrow(x: Node) -> Node:
    """``x`` as float32 rounded to odd: rounded once more, to a 16-bit float, it is as if it had been rounded once."""
    return Node("narrow", (x,), float32)


def _stored_as(x: Node, dtype: DType) -> Node:
    """``x`` in the compute dtype of ``dtype``, so that the store's rounding is the only one that shows."""
    has_digits_to_lose = x.dtype is float64 or (dtype is bfloat16 and x.dtype.kind in "iu" and x.dtype.itemsize >= 4)
    return narrow(x) if has_digits_to_lose and dtype.compute is not dtype else cast(x, dtype)


def apply(op: str, *operands: Operand) -> Node:
    """The node that applies operator ``op``, with its operands promoted to a common dtype."""
    arity, rule = OPERATORS[op]
    if len(operands) != arity:
        raise TraceError(f"{op} takes {arity} operand(s), got {len(operands)} {caller()}")
    nodes = _as_nodes(op, operands)
    if rule == "random":
        return Node(op, (cast(nodes[0], float32), cast(nodes[1], dtypes.int32)), float32)
    if rule == "where":
        condition, *branches = nodes
        common = promote(branches[0].dtype, branches[1].dtype)
        if common is float32 and all(isinstance(x, float) for x in operands[1:]) and _compares_doubles(condition):
            common = float64  # two numbers meet no value that says how wide they are
        args = (cast(condition, bool_), *(cast(branch, common) for branch in branches))
        return Node(op, args, common)
    common = nodes[0].dtype
    for node in nodes[1:]:
        common = promote(common, node.dtype)
    if op.startswith("logical_"):
        common = bool_
    if op.startswith("bitwise_") and common.kind not in "iub":
        raise TraceError(f"{op} takes integers or booleans, got {common} {caller()}; use the logical functions")
    if rule in ("float", "complex") and common.kind not in "fc":
        common = promote_scalar(common, 0.0)
    if rule == "complex" and common.kind == "c":
        raise TraceError(f"complex takes two real parts, got {nodes[0].dtype} and {nodes[1].dtype} {caller()}")
    if common.kind == "c" and op in ("add", "subtract", "multiply", "divide") and (parts := _with_a_real(op, *nodes)):
        return apply("complex", *parts)
    args = tuple(cast(node, common) for node in nodes)
    if rule == "bool":
        return Node(op, args, bool_)
    if rule == "real":
        return Node(op, args, common.part)
    if rule == "complex":
        return Node(op, args, complex64 if common is float32 else complex128)
    return Node(op, args, common)


def _with_a_real(op: str, x1: Node, x2: Node) -> tuple[Node, Node] | None:
    """The parts of an operation between a complex and a real number; None for two complex ones or a complex divisor."""
    # A real number is not given an imaginary part first: that 0 would make NaN of infinities.
    if x1.dtype.kind == x2.dtype.kind or (op == "divide" and x2.dtype.kind == "c"):
        return None
    first, second = apply(op, real(x1), real(x2)), imag(x1 if x1.dtype.kind == "c" else x2)
    if op in ("multiply", "divide"):
        return first, apply(op, second, x2) if x1.dtype.kind == "c" else apply(op, x1, second)
    return first, -second if op == "subtract" and x2.dtype.kind == "c" else second


def _compares_doubles(condition: Node) -> bool:
    """Whether float64 values decide a condition."""
    seen, pending = {condition}, [condition]
    while pending:
        for arg in pending.pop().args:
            if arg.dtype is float64:
                return True
            if arg.dtype is bool_ and arg not in seen:
                seen.add(arg)
                pending.append(arg)
    return False


def _unary(op: str) -> Callable[[Operand], Node]:
    def function(x: Operand, /) -> Node:
        return apply(op, x)

    function.__name__ = function.__qualname__ = op
    return function


def _binary(op: str) -> Callable[[Operand, Operand], Node]:
    def function(x1: Operand, x2: Operand, /) -> Node:
        return apply(op, x1, x2)

    function.__name__ = function.__qualname__ = op
    return function


sqrt, rsqrt, square, exp, expm1, log, log1p = map(_unary, ("sqrt", "rsqrt", "square", "exp", "expm1", "log", "log1p"))
tanh, sin, cos, erf, sign = map(_unary, ("tanh", "sin", "cos", "erf", "sign"))
isnan, isfinite, logical_not = map(_unary, ("isnan", "isfinite", "logical_not"))
maximum, minimum, equal, not_equal, logical_and, logical_or = map(
    _binary, ("maximum", "minimum", "equal", "not_equal", "logical_and", "logical_or")
)


def real(x: Node) -> Node:
    """The real part of ``x``, which is ``x`` where that is real."""
    return apply("real", x) if x.dtype.kind == "c" else x


def imag(x: Node) -> Node:
    """The imaginary part of ``x``: 0 where that is real."""
    return apply("imag", x) if x.dtype.kind == "c" else constant(0, x.dtype)


def conj(x: Node) -> Node:
    """The complex conjugate of ``x``, which is ``x`` where that is real."""
    return apply("conj", x) if x.dtype.kind == "c" else x


def rounded(x: Node, dtype: DType) -> Node:
    """The float32 ``x`` rounded to the nearest value of a 16-bit dtype, ties to even; unchanged for wider dtypes."""
    return x if dtype.compute is dtype else apply(f"round_{dtype.name}", cast(x, float32))


def where(condition: Operand, x1: Operand, x2: Operand, /) -> Node:
    """``x1`` where ``condition`` holds, else ``x2``; both are evaluated."""
    return apply("where", condition, x1, x2)


def _text(output: Node, numbers: dict[int, int]) -> str:
    """The expression as text. A value used again is its number, so that keys stay linear in the size of the graph."""
    parts: list[str] = []
    pending: list[Node | str] = [output]
    while pending:  # without recursion, for a long sum must not meet Python's limit
        item = pending.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item.op in LEAVES:
            prefix = {"input": "i", "scalar": "s", "constant": "", "hyper": "h."}[item.op]
            parts.append(f"{prefix}{item.value}:{item.dtype}")
        elif id(item) in numbers:
            parts.append(f"#{numbers[id(item)]}")
        else:
            # Operators are counted as they are written, leaves never: two equal leaves may be one node or two.
            numbers[id(item)] = len(numbers)
            parts.append(f"{item.op}(")
            pending.append(f",{item.dtype})" if item.op == "cast" else ")")
            for position, arg in reversed(list(enumerate(item.args))):
                pending.append(arg)
                if position:
                    pending.append(",")
    return "".join(parts)


def trace(
    function: Callable[..., Operand | Sequence[Operand]],
    inputs: Sequence[DType],
    scalars: Sequence[DType] = (),
    stored: Sequence[DType] | None = None,
) -> Expression:
    """Call ``function`` once with nodes and return what it computes.

    Parameters
    ----------
    function : callable
        Takes one node per input, then one per scalar; returns a node or a sequence of them.
    inputs, scalars : sequence of DType
        Storage dtypes of the array operands and of the scalars given at the call.
    stored : sequence of DType, optional
        Storage dtypes of the outputs; by default what the nodes have.

    Returns
    -------
    Expression

    Raises
    ------
    TraceError
        If the function branches on a value or calls what is not an operator; the message names the line.
    """
    nodes = [Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs)]
    nodes += [Node("scalar", (), dtype.compute, i) for i, dtype in enumerate(scalars)]
    returned = function(*nodes)
    outputs = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    name = getattr(function, "__name__", "map")
    return build(outputs, inputs, scalars, stored, name="map" if name == "<lambda>" else name)


@cache
def conversion(source: DType, target: DType) -> Expression:
    """The expression that copies elements, from one dtype to another."""
    return trace(lambda x: x, (source,), stored=(target,))


def build(
    outputs: Sequence[Operand],
    inputs: Sequence[DType],
    scalars: Sequence[DType] = (),
    stored: Sequence[DType] | None = None,
    name: str = "map",
    *,
    summed: bool = False,
) -> Expression:
    """The :class:`Expression` with these output nodes. See :func:`trace` for the parameters.

    ``summed`` says that a reduction adds the outputs up before they are stored.
    """
    nodes: list[Node] = []
    for output in outputs:
        if not isinstance(output, Node):
            if not isinstance(output, bool | int | float):
                raise TraceError(f"a traced function must return traced values, {name} returned {output!r}")
            output = constant(output, inputs[0].compute if inputs else _default_dtype(output))
        nodes.append(output)
    kept = tuple(stored) if stored is not None else tuple(node.dtype for node in nodes)
    converted = cast if summed else _stored_as
    nodes = [converted(node, dtype) for node, dtype in zip(nodes, kept, strict=True)]
    numbers: dict[int, int] = {}
    head = ";".join(",".join(map(str, dtypes)) for dtypes in (inputs, scalars, kept))
    key = f"{head}|{','.join(_text(node, numbers) for node in nodes)}"
    return Expression(tuple(inputs), tuple(scalars), tuple(nodes), kept, key, name)


def _default_dtype(value: Number) -> DType:
    if isinstance(value, bool):
        return bool_
    return int64 if isinstance(value, int) else float32
