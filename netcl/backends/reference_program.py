"""An expression as a list of array calls, compiled once, with as few temporaries as it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from netcl.backends.base import View
from netcl.backends.reference_namespace import ROUNDING, Namespace, NumpyNamespace
from netcl.dtypes import DType
from netcl.expression import LEAVES, Expression, Node

BLOCK = 16384
"""Elements that are worked on at a time, so that operands and temporaries of a large expression stay in the cache."""


class Program:
    """The steps of an :class:`~netcl.expression.Expression` in one namespace.

    Values live in a list of registers: None, then inputs, scalars, hyper-parameters, outputs and scratch as given at
    the run, then constants and what the steps make.

    Parameters
    ----------
    aliases : sequence of int, optional
        Which input each output shares its memory with. By default any output may share it with any input.
    """

    def __init__(self, expression: Expression, namespace: Namespace, aliases: Sequence[int] | None = None) -> None:
        self.expression = expression
        self.namespace = namespace
        self.order = _ordered(expression.outputs)
        nodes = [*self.order, *expression.outputs]
        leaves = {id(leaf): leaf for node in nodes for leaf in (node, *node.args) if leaf.op in LEAVES}
        self.hyper = {str(leaf.value): leaf.dtype for leaf in leaves.values() if leaf.op == "hyper"}
        self.scratch: list[DType] = []
        self.steps: list[tuple[Any, Any, int]] = []
        self.stores: list[tuple[Any, int, int]] = []
        self._compile(leaves, aliases)

    def run(self, given: list[Any], outputs: Sequence[Any], scratch: Sequence[Any] | None = None) -> None:
        """Set ``outputs``, writable arrays of the namespace, from ``given``: inputs, scalars and hyper-parameters."""
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

    def _compile(self, leaves: dict[int, Node], aliases: Sequence[int] | None) -> None:
        expression, namespace = self.expression, self.namespace
        in_place = isinstance(namespace, NumpyNamespace)
        n_inputs, n_scalars, n_outputs = len(expression.inputs), len(expression.scalars), len(expression.outputs)
        first_output = 1 + n_inputs + n_scalars + len(self.hyper)
        first_scratch = first_output + n_outputs

        # Stored inputs that must be widened first are loaded by steps of their own.
        loads: dict[int, Any] = {}
        for index, dtype in enumerate(expression.inputs):
            if isinstance(namespace, NumpyNamespace):
                load = namespace.load(dtype)
            elif dtype.compute is dtype:
                load = None
            else:
                load = _widening(namespace, dtype)
            if load is not None and any(leaf.op == "input" and leaf.value == index for leaf in leaves.values()):
                loads[index] = load

        places_of_inputs = [("input", i) for i in range(n_inputs)]

        # A value is named by its node, except that all leaves of one input are one value.
        def name(node: Node) -> Any:
            return (node.op, node.value) if node.op in ("input", "scalar", "hyper") else id(node)

        operations: list[tuple[Any, Any, tuple[Any, ...], DType, bool, bool]] = []
        uniform = {name(leaf): leaf.op != "input" for leaf in leaves.values()}
        for index, load in loads.items():
            dtype = expression.inputs[index].compute
            operations.append((("input", index), load, (("stored", index),), dtype, False, False))
        renamed: dict[Any, Any] = {}
        for node in self.order:
            args = tuple(renamed.get(name(arg), name(arg)) for arg in node.args)
            if node.op in ROUNDING and node.dtype.kind in "biu":
                renamed[id(node)] = args[0]
                continue
            uniform[id(node)] = all(uniform[arg] for arg in args)
            function = namespace.operator(node.op, node.dtype, node.args[-1].dtype)
            elementwise = namespace.is_elementwise(node.op)
            operations.append((id(node), function, args, node.dtype, uniform[id(node)], elementwise))
        results = [renamed.get(name(node), name(node)) for node in expression.outputs]
        for index, (result, dtype) in enumerate(zip(results, expression.stored, strict=True)):
            if len(results) > 1 and result in places_of_inputs and result[1] not in loads:
                # Another output may overwrite this input before it is copied.
                function = namespace.operator("cast", dtype.compute, dtype.compute)
                results[index] = ("copy", index)
                operations.append((("copy", index), function, (result,), dtype.compute, False, False))

        last_use: dict[Any, int] = {}
        for position, (_, _, args, *_) in enumerate(operations):
            for arg in args:
                last_use[arg] = position
        stored_inputs = [("stored", i) if i in loads else ("input", i) for i in range(n_inputs)]

        # A step may set an output directly if it makes the stored dtype and no later step reads what it overwrites.
        direct: dict[Any, int] = {}
        for index, result in enumerate(results):
            made = [position for position, operation in enumerate(operations) if operation[0] == result]
            if not (in_place and made) or result in direct:
                continue
            _, _, _, dtype, is_uniform, elementwise = operations[made[0]]
            overwritten = stored_inputs if aliases is None else [stored_inputs[aliases[index]]]
            safe = all(last_use.get(stored, -1) <= made[0] for stored in overwritten)
            if elementwise and safe and not is_uniform and dtype is expression.stored[index]:
                direct[result] = index
        for result in results:
            if result not in direct:
                last_use[result] = len(operations)

        places: dict[Any, int] = {("stored", i): 1 + i for i in range(n_inputs)}
        places |= {("input", i): 1 + i for i in range(n_inputs)}
        places |= {("scalar", i): 1 + n_inputs + i for i in range(n_scalars)}
        places |= {("hyper", h): 1 + n_inputs + n_scalars + i for i, h in enumerate(self.hyper)}
        plan: list[tuple[Any, tuple[Any, ...], Any, tuple[str, int] | None, Any]] = []
        owner: dict[Any, int] = {}
        free: list[int] = []
        for position, (result, function, args, dtype, is_uniform, elementwise) in enumerate(operations):
            dying = [arg for arg in dict.fromkeys(args) if arg in owner and last_use[arg] == position]
            out: tuple[str, Any] | None = None
            if result in direct:
                out = ("output", direct[result])
            elif in_place and not is_uniform:
                reusable = [arg for arg in dying if elementwise and self.scratch[owner[arg]] is dtype]
                if reusable:
                    out = ("value", reusable[0])
                    owner[result] = owner[reusable[0]]
                    dying.remove(reusable[0])
                else:
                    slot = next((slot for slot in free if self.scratch[slot] is dtype), None)
                    if slot is None:
                        slot = len(self.scratch)
                        self.scratch.append(dtype)
                    else:
                        free.remove(slot)
                    out = ("scratch", slot)
                    owner[result] = slot
            free += [owner[arg] for arg in dying]
            plan.append((function, args, result, out, None))

        constants = {id(leaf): leaf for leaf in leaves.values() if leaf.op == "constant"}
        first_constant = first_scratch + len(self.scratch)
        for i, key in enumerate(constants):
            places[key] = first_constant + i
        first_made = first_constant + len(constants)
        self._tail = [namespace.scalar(leaf.value, leaf.dtype) for leaf in constants.values()] + [None] * len(plan)
        self._no_scratch = (None,) * len(self.scratch)
        self._no_outputs = (None,) * n_outputs
        for i, (function, args, result, out, _) in enumerate(plan):
            target = 0
            if out is not None:
                kind, which = out
                target = {"output": first_output, "scratch": first_scratch, "value": 0}[kind]
                target = places[which] if kind == "value" else target + which
            operands = itemgetter(*(places[arg] for arg in args), target)
            places[result] = first_made + i
            self.steps.append((function, operands, first_made + i))
        self.results = [places[result] for result in results]
        for index, result in enumerate(results):
            if direct.get(result) != index and isinstance(namespace, NumpyNamespace):
                self.stores.append((namespace.store(expression.stored[index]), first_output + index, places[result]))


def _widening(namespace: Namespace, dtype: DType) -> Any:
    return lambda x, out: namespace.widen(x, dtype)


def _ordered(outputs: Sequence[Node]) -> list[Node]:
    """Every operator node once, operands first."""
    order: list[Node] = []
    seen: set[int] = set()
    pending = [(node, False) for node in reversed(outputs)]
    while pending:
        node, ready = pending.pop()
        if node.op in LEAVES or (id(node) in seen and not ready):
            continue
        if ready:
            order.append(node)
            continue
        seen.add(id(node))
        pending.append((node, True))
        pending += [(arg, False) for arg in reversed(node.args)]
    return order


def collapse(views: Sequence[View]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The views' common shape with adjacent axes merged where every view allows it, and the strides of each."""
    shape = views[0].shape
    axes: list[tuple[int, list[int]]] = []
    for axis, extent in enumerate(shape):
        strides = [view.strides[axis] for view in views]
        if extent == 1:
            continue
        if axes and all(outer == inner * extent for outer, inner in zip(axes[-1][1], strides, strict=True)):
            axes[-1] = (axes[-1][0] * extent, strides)
        else:
            axes.append((extent, strides))
    axes = axes or [(1, [0] * len(views))]
    return tuple(extent for extent, _ in axes), [tuple(s[i] for _, s in axes) for i in range(len(views))]


def blocks(views: Sequence[View], size: int) -> Iterator[tuple[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]]:
    """Cut views of one shape into pieces of about ``size`` elements: the shape, and each view's offset and strides."""
    shape, strides = collapse(views)
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
