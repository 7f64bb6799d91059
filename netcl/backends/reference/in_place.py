"""An expression as a list of NumPy calls that write where their result belongs, with as few temporaries as it needs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, final

from netcl.backends.base import Span, View
from netcl.backends.reference.buffers import ReferenceBuffer
from netcl.backends.reference.numpy_operators import is_elementwise, store, strided
from netcl.backends.reference.program import UPDATE_BLOCK, Function, Listing, Operation, Operators
from netcl.dtypes import DType
from netcl.expression import Expression
from netcl.strides import contiguous_strides, merge_axes

BLOCK = 16384
"""Elements that are worked on at a time, so that operands and temporaries of a large expression stay in the cache."""


@final
class InPlaceProgram:
    """The calls of an expression in NumPy. See :class:`~netcl.backends.reference.program.Program`.

    Parameters
    ----------
    aliases : sequence of int, optional
        Which input each output shares its memory with. By default any output may share it with any input.

    Attributes
    ----------
    scratch : list of DType
        The temporaries.
    """

    def __init__(self, expression: Expression, operators: Operators, aliases: Sequence[int] | None = None) -> None:
        listing = Listing(expression, operators)
        self.hyper = listing.hyper
        self.scratch: list[DType] = []
        direct = _direct(expression, listing, aliases)
        memory = self._allocate(listing.operations, listing.results, direct)
        room: list[Hashable] = [("output", i) for i in range(len(expression.outputs))]
        room += [("scratch", i) for i in range(len(self.scratch))]
        places = listing.places(room)
        self._steps = listing.steps(places, memory)
        self._stores: list[tuple[Function, int, int]] = []
        for i, (result, dtype) in enumerate(zip(listing.results, expression.stored, strict=True)):
            if direct.get(result) != i:
                self._stores.append((store(dtype), places["output", i], places[result]))
        self._tail = listing.tail
        self._no_scratch = (None,) * len(self.scratch)
        self._whole = len(self._steps) <= 1 and not self.scratch
        self._stored = expression.stored
        self._empty = operators.empty

    def evaluate(self, inputs: Sequence[View], outputs: Sequence[View], uniform: list[Any]) -> None:
        size = math.prod(outputs[0].shape)
        if size == 0:
            return
        if size <= BLOCK or self._whole:
            self._run([*map(_array, inputs), *uniform], [*map(_array, outputs)], self._no_scratch)
            return
        views = [*inputs, *outputs]
        n = len(inputs)
        room = [self._empty(BLOCK, dtype) for dtype in self.scratch]
        for shape, pieces in blocks(views, BLOCK):
            arrays = [*map(_array, pieces)]
            size = math.prod(shape)
            scratch = [memory[:size].reshape(shape) for memory in room]
            self._run([*arrays[:n], *uniform], arrays[n:], scratch)

    def value(self, inputs: Sequence[View], uniform: list[Any]) -> Any:
        shape, (dtype,) = inputs[0].shape, self._stored
        array = self._empty(math.prod(shape), dtype)
        out = View(ReferenceBuffer(array, array.size, dtype), 0, shape, contiguous_strides(shape))
        self.evaluate(inputs, [out], uniform)
        return array.reshape(shape)

    def update(self, spans: Sequence[Span], uniform: list[Any]) -> None:
        size = spans[0].size
        scratch = [self._empty(min(UPDATE_BLOCK, size), dtype) for dtype in self.scratch]
        whole = [span.buffer.array[span.offset : span.offset + size] for span in spans]  # type: ignore[attr-defined]
        for start in range(0, size, UPDATE_BLOCK):
            given = [array[start : start + UPDATE_BLOCK] for array in whole]
            n = given[0].size
            outputs = [given[0], *given[2 : 1 + len(self._stored)]]
            self._run([*given, *uniform], outputs, [memory[:n] for memory in scratch])

    def _run(self, given: list[Any], outputs: list[Any], scratch: Sequence[Any]) -> None:
        """Set ``outputs`` from ``given``: inputs, scalars and hyper-parameters."""
        registers = [None, *given, *outputs, *scratch, *self._tail]
        for function, operands, result in self._steps:
            registers[result] = function(*operands(registers))
        for stores, output, value in self._stores:
            stores(registers[output], registers[value])

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
                reusable = [arg for arg in dying if is_elementwise(op.op) and self.scratch[slot_of[arg]] is op.dtype]
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


def _array(x: View) -> Any:
    """A view as a NumPy array of at least one axis: NumPy turns arrays without one into immutable scalars."""
    return strided(x.buffer.array, x.offset, x.shape or (1,), x.strides or (1,))  # type: ignore[attr-defined]


def _last_uses(operations: list[Operation]) -> dict[Hashable, int]:
    return {arg: position for position, op in enumerate(operations) for arg in op.args}


def _direct(expression: Expression, listing: Listing, aliases: Sequence[int] | None) -> dict[Hashable, int]:
    """The values written to their output at once: of the stored dtype, when nothing they overwrite is read later."""
    operations, results = listing.operations, listing.results
    last_use = _last_uses(operations)
    made = {op.result: position for position, op in enumerate(operations)}
    direct: dict[Hashable, int] = {}
    for i, result in enumerate(results):
        if result not in made or result in direct:
            continue
        op = operations[made[result]]
        overwritten = range(len(expression.inputs)) if aliases is None else (aliases[i],)
        safe = all(last_use.get(("input", index), -1) <= made[result] for index in overwritten)
        if safe and is_elementwise(op.op) and not op.uniform and op.dtype is expression.stored[i]:
            direct[result] = i
    return direct


def blocks(views: Sequence[View], size: int) -> Iterator[tuple[tuple[int, ...], list[View]]]:
    """Cut views of one shape into pieces of about ``size`` elements: the shape, and each view's part of it."""
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
        pieces = []
        for view, steps in zip(views, strides, strict=True):
            offset = view.offset + sum(i * step for i, step in zip(index, steps[: axis + 1], strict=True))
            pieces.append(View(view.buffer, offset, block, steps[axis:]))
        yield block, pieces
