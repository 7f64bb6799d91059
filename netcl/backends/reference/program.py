"""An expression as a list of array calls, compiled once, with as few temporaries as it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from netcl.backends.base import View
from netcl.backends.reference.namespace import ROUNDING, Namespace, NumpyNamespace
from netcl.dtypes import DType
from netcl.expression import LEAVES, Expression, Node
from netcl.strides import merge_axes

BLOCK = 16384
"""Elements that are worked on at a time, so that operands and temporaries of a large expression stay in the cache."""


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
    elementwise : bool
        Whether the result may be written over an argument.
    """

    result: Hashable
    function: Callable[..., Any]
    args: tuple[Hashable, ...]
    dtype: DType
    uniform: bool = False
    elementwise: bool = False


class Program:
    """The calls of an :class:`~netcl.expression.Expression` in one namespace.

    Values live in a list of registers: None, then inputs, scalars, hyper-parameters, outputs and scratch as given at
    the run, then constants and what the calls make.

    Parameters
    ----------
    aliases : sequence of int, optional
        Which input each output shares its memory with. By default any output may share it with any input.

    Attributes
    ----------
    hyper : dict
        The hyper-parameters to give at the run, with their dtypes.
    scratch : list of DType
        The temporaries that may be given at the run.
    """

    def __init__(self, expression: Expression, namespace: Namespace, aliases: Sequence[int] | None = None) -> None:
        order = [node for node in expression.nodes() if node.op not in LEAVES]
        nodes = [*order, *expression.outputs]
        leaves = {id(leaf): leaf for node in nodes for leaf in (node, *node.args) if leaf.op in LEAVES}
        self.hyper = {str(leaf.value): leaf.dtype for leaf in leaves.values() if leaf.op == "hyper"}
        self.scratch: list[DType] = []
        operations, results = _operations(expression, namespace, order, leaves)
        in_place = isinstance(namespace, NumpyNamespace)
        direct = _direct(expression, operations, results, aliases) if in_place else {}
        memory = self._allocate(operations, results, direct) if in_place else {}
        constants = {id(leaf): leaf for leaf in leaves.values() if leaf.op == "constant"}

        given: list[Hashable] = [None]
        given += [("input", i) for i in range(len(expression.inputs))]
        given += [("scalar", i) for i in range(len(expression.scalars))]
        given += [("hyper", name) for name in self.hyper]
        given += [("output", i) for i in range(len(expression.outputs))]
        given += [("scratch", i) for i in range(len(self.scratch))]
        places = {name: place for place, name in enumerate([*given, *constants, *(op.result for op in operations)])}
        self.steps = [
            (
                op.function,
                itemgetter(*(places[arg] for arg in op.args), places[memory.get(op.result)]),
                places[op.result],
            )
            for op in operations
        ]
        self.results = [places[result] for result in results]
        self.stores: list[tuple[Callable[..., Any], int, int]] = []
        if isinstance(namespace, NumpyNamespace):
            for i, (result, dtype) in enumerate(zip(results, expression.stored, strict=True)):
                if direct.get(result) != i:
                    self.stores.append((namespace.store(dtype), places["output", i], places[result]))
        self._tail = [namespace.scalar(leaf.value, leaf.dtype) for leaf in constants.values()] + [None] * len(
            operations
        )
        self._no_scratch = (None,) * len(self.scratch)
        self._no_outputs = (None,) * len(results)

    def run(self, given: list[Any], outputs: Sequence[Any], scratch: Sequence[Any] | None = None) -> None:
        """Set ``outputs``, writable NumPy arrays, from ``given``: inputs, scalars and hyper-parameters."""
        registers = [None, *given, *outputs, *(scratch or self._no_scratch), *self._tail]
        for function, operands, result in self.steps:
            registers[result] = function(*operands(registers))
        for store, output, value in self.stores:
            store(registers[output], registers[value])

    def values(self, given: list[Any]) -> list[Any]:
        """The outputs as new arrays (or uniform values), not yet rounded to their storage dtypes."""
        registers = [None, *given, *self._no_outputs, *self._no_scratch, *self._tail]
        for function, operands, result in self.steps:
            registers[result] = function(*operands(registers))
        return [registers[place] for place in self.results]

    def _allocate(
        self, operations: list[Operation], results: list[Hashable], direct: dict[Hashable, int]
    ) -> dict[Hashable, Hashable]:
        """Where each result is written: an output, the memory of an argument that dies here, or scratch."""
        last_use = _last_uses(operations)
        kept = set(results)
        memory: dict[Hashable, Hashable] = {}
        slot_of: dict[Hashable, int] = {}
        free: list[int] = []
        for position, op in enumerate(operations):
            dying = [
                arg
                for arg in dict.fromkeys(op.args)
                if arg in slot_of and last_use[arg] == position and arg not in kept
            ]
            if op.result in direct:
                memory[op.result] = ("output", direct[op.result])
            elif not op.uniform:
                reusable = [arg for arg in dying if op.elementwise and self.scratch[slot_of[arg]] is op.dtype]
                if reusable:
                    memory[op.result] = reusable[0]
                    dying.remove(reusable[0])
                    slot_of[op.result] = slot_of[reusable[0]]
                else:
                    slot_of[op.result] = slot = self._slot(free, op.dtype)
                    memory[op.result] = ("scratch", slot)
            free += [slot_of[arg] for arg in dying]
        return memory

    def _slot(self, free: list[int], dtype: DType) -> int:
        for slot in free:
            if self.scratch[slot] is dtype:
                free.remove(slot)
                return slot
        self.scratch.append(dtype)
        return len(self.scratch) - 1


def _operations(
    expression: Expression, namespace: Namespace, order: list[Node], leaves: dict[int, Node]
) -> tuple[list[Operation], list[Hashable]]:
    """The calls in order, and the names of the outputs' values."""
    used = {leaf.value for leaf in leaves.values() if leaf.op == "input"}
    operations = []
    renamed: dict[Hashable, Hashable] = {}
    for i, dtype in enumerate(expression.inputs):
        load = namespace.load(dtype)
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
        function = namespace.operator(node.op, node.dtype, node.args[-1].dtype)
        elementwise = namespace.is_elementwise(node.op)
        operations.append(Operation(id(node), function, args, node.dtype, uniform[id(node)], elementwise))
    results = [name(node) for node in expression.outputs]
    for i, (result, dtype) in enumerate(zip(results, expression.stored, strict=True)):
        if len(results) > 1 and isinstance(result, tuple) and result[0] == "input":
            # Another output may overwrite this input before it is stored.
            copy = namespace.operator("cast", dtype.compute, dtype.compute)
            results[i] = ("copied", i)
            operations.append(Operation(("copied", i), copy, (result,), dtype.compute))
    return operations, results


def _last_uses(operations: list[Operation]) -> dict[Hashable, int]:
    return {arg: position for position, op in enumerate(operations) for arg in op.args}


def _direct(
    expression: Expression, operations: list[Operation], results: list[Hashable], aliases: Sequence[int] | None
) -> dict[Hashable, int]:
    """The values written to their output at once: of the stored dtype, when nothing they overwrite is read later."""
    last_use = _last_uses(operations)
    made = {op.result: position for position, op in enumerate(operations)}
    direct: dict[Hashable, int] = {}
    for i, result in enumerate(results):
        if result not in made or result in direct:
            continue
        op = operations[made[result]]
        overwritten = range(len(expression.inputs)) if aliases is None else (aliases[i],)
        safe = all(last_use.get(("input", index), -1) <= made[result] for index in overwritten)
        if safe and op.elementwise and not op.uniform and op.dtype is expression.stored[i]:
            direct[result] = i
    return direct


def blocks(views: Sequence[View], size: int) -> Iterator[tuple[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]]:
    """Cut views of one shape into pieces of about ``size`` elements: the shape, and each view's offset and strides."""
    shape, axes = merge_axes(views[0].shape, list(zip(*(view.strides for view in views), strict=True)))
    if not shape:
        shape, axes = (1,), ((0,) * len(views),)
    strides = list(zip(*axes, strict=True))
    axis = 0
    while axis < len(shape) - 1 and math.prod(shape[axis + 1 :]) > size:
        axis += 1
    rows = max(1, size // math.prod(shape[axis + 1 :]))
    for start in range(0, math.prod(shape[:axis]) * -(-shape[axis] // rows)):
        outer, piece = divmod(start, -(-shape[axis] // rows))
        index = [piece * rows]
        for extent in reversed(shape[:axis]):
            outer, position = divmod(outer, extent)
            index.insert(0, position)
        block = (min(rows, shape[axis] - piece * rows), *shape[axis + 1 :])
        places = []
        for view, steps in zip(views, strides, strict=True):
            offset = view.offset + sum(i * step for i, step in zip(index, steps[: axis + 1], strict=True))
            places.append((offset, steps[axis:]))
        yield block, places
