"""Expressions on complex numbers as expressions on their parts.

A complex number is a pair of reals. A backend whose kernels know none has :func:`lowered` make the expression that
takes and gives the parts: two real inputs, scalars and outputs for each complex one, the real part first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import TypeAlias

from netcl.complex_functions import FUNCTIONS, Pair
from netcl.dtypes import DType, bool_
from netcl.errors import DTypeError
from netcl.expression import LEAVES, Expression, Node, Number, apply, build, cast, constant

Value: TypeAlias = Node | Pair


def split_dtypes(dtypes: Iterable[DType]) -> tuple[DType, ...]:
    """The dtypes with those of both parts in the place of each complex one."""
    found: list[DType] = []
    for dtype in dtypes:
        found += [dtype.part] * 2 if dtype.kind == "c" else [dtype]
    return tuple(found)


def split_numbers(values: Sequence[Number], dtypes: Sequence[DType]) -> list[Number]:
    """The numbers with both parts in the place of each of a complex dtype."""
    found: list[Number] = []
    for value, dtype in zip(values, dtypes, strict=True):
        if dtype.kind == "c":
            number = complex(value)
            found += [number.real, number.imag]
        else:
            found.append(value)
    return found


@cache
def lowered(expression: Expression) -> Expression | None:
    """The expression over the parts of its complex operands; None where nothing in it is complex.

    Raises
    ------
    DTypeError
        If an operator is not defined for complex numbers.

    Examples
    --------
    >>> from netcl import expression as ex
    >>> from netcl.complex_pairs import lowered
    >>> from netcl.dtypes import complex64
    >>> lowered(ex.trace(lambda z: z + z, (complex64,))).key
    'float32,float32;;float32,float32|add(i0:float32,i0:float32),add(i1:float32,i1:float32)'
    """
    if not _is_complex(expression):
        return None
    places = {"input": _places(expression.inputs), "scalar": _places(expression.scalars)}
    values: dict[int, Value] = {}
    for node in expression.nodes():
        if node.op in LEAVES:
            values[id(node)] = _leaf(node, places)
        else:
            values[id(node)] = _value(node, [values[id(arg)] for arg in node.args])
    outputs: list[Node] = []
    for output in expression.outputs:
        value = values[id(output)]
        outputs += value if isinstance(value, tuple) else [value]
    groups = (expression.inputs, expression.scalars, expression.stored)
    inputs, scalars, stored = (split_dtypes(dtypes) for dtypes in groups)
    return build(outputs, inputs, scalars, stored, expression.name)


def _places(dtypes: Sequence[DType]) -> list[int]:
    """Where the (first part of) each operand stands among the parts of all."""
    places, at = [], 0
    for dtype in dtypes:
        places.append(at)
        at += 2 if dtype.kind == "c" else 1
    return places


def _leaf(node: Node, places: dict[str, list[int]]) -> Value:
    pair = node.dtype.kind == "c"
    if node.op == "constant":
        return _constants(node) if pair else node
    if node.op == "hyper":
        return node
    assert isinstance(node.value, int)
    at, dtype = places[node.op][node.value], node.dtype.part
    first = Node(node.op, (), dtype, at)
    return (first, Node(node.op, (), dtype, at + 1)) if pair else first


def _constants(node: Node) -> Pair:
    value = complex(node.value)  # type: ignore[arg-type]
    return constant(value.real, node.dtype.part), constant(value.imag, node.dtype.part)


def _value(node: Node, args: Sequence[Value]) -> Value:
    """One operator on what its operands have become."""
    if node.op == "cast":
        return _cast(args[0], node.dtype)
    reals = [arg for arg in args if isinstance(arg, Node)]
    if len(reals) == len(args) and node.dtype.kind != "c":
        return Node(node.op, tuple(reals), node.dtype, node.value)
    function = FUNCTIONS.get(node.op)
    if function is None:
        raise undefined(node.op, next(arg.dtype for arg in node.args if arg.dtype.kind == "c"))
    return function(*args)


def _cast(x: Value, dtype: DType) -> Value:
    if isinstance(x, Node):
        return (cast(x, dtype.part), constant(0.0, dtype.part)) if dtype.kind == "c" else cast(x, dtype)
    if dtype.kind == "c":
        return cast(x[0], dtype.part), cast(x[1], dtype.part)
    if dtype is bool_:
        return cast(x[0], bool_) | cast(x[1], bool_)
    return cast(x[0], dtype)


def undefined(op: str, dtype: DType) -> DTypeError:
    """The refusal of an operator that complex numbers do not have."""
    return DTypeError(f"{op} is not defined for {dtype}; take real(x), imag(x) or abs(x) first")


def expanded(expression: Expression, operators: frozenset[str]) -> Expression:
    """The expression with each of these operators, where it is complex, written out on the parts of its operands.

    For a backend that has complex numbers but not these operators as the standard asks for them.
    """

    def written_out(node: Node) -> Node:
        if node.op not in operators or not any(arg.dtype.kind == "c" for arg in node.args):
            return node
        pairs = [(apply("real", arg), apply("imag", arg)) for arg in node.args]
        value = FUNCTIONS[node.op](*pairs)
        return apply("complex", *value) if isinstance(value, tuple) else value

    return expression.rewrite(written_out) if _is_complex(expression) else expression


def _is_complex(expression: Expression) -> bool:
    nodes = expression.nodes()
    return any(dtype.kind == "c" for dtype in (*expression.inputs, *expression.scalars, *[n.dtype for n in nodes]))
