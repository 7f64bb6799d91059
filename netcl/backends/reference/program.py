"""An expression as a list of array calls, compiled once, and run where every call makes a new array."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol, TypeAlias, final

from netcl.backends.base import Span, View
from netcl.dtypes import DType
from netcl.expression import LEAVES, Expression, Node

# On integers these change nothing.
ROUNDING = ("floor", "ceil", "trunc", "round")

UPDATE_BLOCK = 32768
"""Elements updated at a time: parameters, gradient, state and scratch of so many stay in the cache."""

Function: TypeAlias = "Callable[..., Any]"


class Program(Protocol):
    """A compiled :class:`~netcl.expression.Expression`. ``uniform`` are the scalars and then the hyper-parameters."""

    @property
    def hyper(self) -> dict[str, DType]:
        """The hyper-parameters to give at the run, with their dtypes."""
        ...

    def evaluate(self, inputs: Sequence[View], outputs: Sequence[View], uniform: list[Any]) -> None:
        """outputs ← expression(inputs)."""
        ...

    def value(self, inputs: Sequence[View], uniform: list[Any]) -> Any:
        """The one output as an array in its compute dtype."""
        ...

    def update(self, spans: Sequence[Span], uniform: list[Any]) -> None:
        """The outputs of a rule over (p, g, *state, *others), written to (p, *state)."""
        ...


class Operators(Protocol):
    """What a program needs of the namespace that it runs in."""

    @property
    def xp(self) -> Any: ...

    def empty(self, n: int, dtype: DType) -> Any: ...

    def scalar(self, value: Any, dtype: DType) -> Any: ...

    def load(self, dtype: DType) -> Function | None: ...

    def operator(self, op: str, dtype: DType, operand: DType) -> Function: ...

    def read(self, x: View) -> Any: ...

    def write(self, x: View, value: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Operation:
    """One array call. Values are named by what makes them.

    Attributes
    ----------
    result, args : hashable
    function : callable
        Takes the arguments and then the memory for the result, or None.
    dtype : DType
        That of the result.
    uniform : bool
        Whether the result is one number for all elements.
    op : str
        The operator, or nothing for a load.
    """

    result: Hashable
    function: Callable[..., Any]
    args: tuple[Hashable, ...]
    dtype: DType
    uniform: bool = False
    op: str = ""


class Listing:
    """The calls of an expression in order, the values that they need, and the names of the outputs' values."""

    def __init__(self, expression: Expression, operators: Operators) -> None:
        order = [node for node in expression.nodes() if node.op not in LEAVES]
        nodes = [*order, *expression.outputs]
        leaves = {id(leaf): leaf for node in nodes for leaf in (node, *node.args) if leaf.op in LEAVES}
        self.hyper = {str(leaf.value): leaf.dtype for leaf in leaves.values() if leaf.op == "hyper"}
        self.operations, self.results = _operations(expression, operators, order, leaves)
        constants = {name: leaf for name, leaf in leaves.items() if leaf.op == "constant"}
        self._made: list[Hashable] = [*constants, *(op.result for op in self.operations)]
        self._given: list[Hashable] = [("input", i) for i in range(len(expression.inputs))]
        self._given += [("scalar", i) for i in range(len(expression.scalars))]
        self._given += [("hyper", name) for name in self.hyper]
        self.tail = [operators.scalar(leaf.value, leaf.dtype) for leaf in constants.values()]
        self.tail += [None] * len(self.operations)
        """What stands behind the given values when a run begins: constants, and room for what the calls make."""

    def places(self, room: Sequence[Hashable] = ()) -> dict[Hashable, int]:
        """Where each value stands: None, inputs, scalars, hyper-parameters, ``room``, constants, results."""
        return {name: place for place, name in enumerate([None, *self._given, *room, *self._made])}

    def steps(self, places: dict[Hashable, int], memory: dict[Hashable, Hashable]) -> list[Step]:
        """The calls with the places of their operands, of which the last is the memory for the result, or None."""
        return [
            (
                op.function,
                itemgetter(*(places[arg] for arg in op.args), places[memory.get(op.result)]),
                places[op.result],
            )
            for op in self.operations
        ]


Step: TypeAlias = "tuple[Function, Callable[[list[Any]], tuple[Any, ...]], int]"
"""A call, what takes its operands from the list of values, and where its result belongs."""


@final
class ValueProgram:
    """The calls of an expression in a namespace whose functions make new arrays. See :class:`Program`."""

    def __init__(self, expression: Expression, operators: Operators) -> None:
        listing = Listing(expression, operators)
        places = listing.places()
        self.hyper = listing.hyper
        self._operators = operators
        self._steps = listing.steps(places, {})
        self._results = [places[result] for result in listing.results]
        self._tail = listing.tail

    def evaluate(self, inputs: Sequence[View], outputs: Sequence[View], uniform: list[Any]) -> None:
        if 0 not in outputs[0].shape:
            for x, value in zip(outputs, self._values(inputs, uniform), strict=True):
                self._operators.write(x, value)

    def value(self, inputs: Sequence[View], uniform: list[Any]) -> Any:
        return self._operators.xp.broadcast_to(self._values(inputs, uniform)[0], inputs[0].shape)

    def update(self, spans: Sequence[Span], uniform: list[Any]) -> None:
        size = spans[0].size
        for start in range(0, size, UPDATE_BLOCK):
            views = [span.part(start, min(UPDATE_BLOCK, size - start)).view() for span in spans]
            self.evaluate(views, [views[0], *views[2 : 1 + len(self._results)]], uniform)

    def _values(self, inputs: Sequence[View], uniform: list[Any]) -> list[Any]:
        """The outputs as new arrays (or uniform values), not yet rounded to their storage dtypes."""
        registers = [None, *map(self._operators.read, inputs), *uniform, *self._tail]
        for function, operands, result in self._steps:
            registers[result] = function(*operands(registers))
        return [registers[place] for place in self._results]


def _operations(
    expression: Expression, operators: Operators, order: list[Node], leaves: dict[int, Node]
) -> tuple[list[Operation], list[Hashable]]:
    """The calls in order, and the names of the outputs' values."""
    used = {leaf.value for leaf in leaves.values() if leaf.op == "input"}
    operations = []
    renamed: dict[Hashable, Hashable] = {}
    for i, dtype in enumerate(expression.inputs):
        load = operators.load(dtype)
        if load is not None and i in used:
            renamed["input", i] = ("loaded", i)
            operations.append(Operation(("loaded", i), load, (("input", i),), dtype.compute))

    def name(node: Node) -> Hashable:
        own = (node.op, node.value) if node.op in ("input", "scalar", "hyper") else id(node)
        return renamed.get(own, own)

    uniform = {name(leaf): leaf.op != "input" for leaf in leaves.values()}
    for node in order:
        args = tuple(map(name, node.args))
        uniform[id(node)] = all(uniform[arg] for arg in args)
        if node.op in ROUNDING and node.dtype.kind in "biu":
            renamed[id(node)] = args[0]
            continue
        function = operators.operator(node.op, node.dtype, node.args[-1].dtype)
        operations.append(Operation(id(node), function, args, node.dtype, uniform[id(node)], node.op))
    results = [name(node) for node in expression.outputs]
    for i, (result, dtype) in enumerate(zip(results, expression.stored, strict=True)):
        if len(results) > 1 and isinstance(result, tuple) and result[0] == "input":
            # Another output may overwrite this input before it is stored.
            copy = operators.operator("cast", dtype.compute, dtype.compute)
            results[i] = ("copied", i)
            operations.append(Operation(("copied", i), copy, (result,), dtype.compute))
    return operations, results
