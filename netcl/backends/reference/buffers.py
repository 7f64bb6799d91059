"""Buffers of the reference backend, and the evaluation of an expression over views of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netcl.backends.base import HostArray, Scalar, Span, View
from netcl.backends.reference.namespace import Namespace, NumpyNamespace
from netcl.backends.reference.program import BLOCK, Program, blocks
from netcl.dtypes import DType
from netcl.errors import ShapeError
from netcl.expression import Expression
from netcl.strides import contiguous_strides

_PYTHON: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "c": complex}
"""What an element of each kind of dtype is in Python."""


class ReferenceBuffer:
    """A flat array of the namespace."""

    __slots__ = ("array", "dtype", "size")

    def __init__(self, array: Any, size: int, dtype: DType) -> None:
        self.array = array
        self.size = size
        self.dtype = dtype


class ReferenceMapping:
    """Elements that the host works on: in place where the namespace's arrays are the host's own."""

    def __init__(self, core: Core, x: Span) -> None:
        self._core, self._span = core, x
        self._host: HostArray = core.shared(x)

    def array(self) -> HostArray:
        return self._host

    def ready(self) -> bool:
        return True

    def release(self) -> None:
        if not isinstance(self._core.namespace, NumpyNamespace):
            self._core.upload(self._host, self._span)


class Core:
    """Memory and evaluation, which the two halves of the protocol share."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._programs: dict[str, Program] = {}
        self._rules: dict[str, Program] = {}

    def alloc(self, n: int, dtype: DType) -> ReferenceBuffer:
        return ReferenceBuffer(self.namespace.empty(n, dtype), n, dtype)

    def upload(self, host: HostArray, out: Span) -> None:
        host = np.asarray(host).reshape(-1)
        if host.size != out.size:
            raise ShapeError(f"upload of {host.size} elements to a span of {out.size}; both must have the same size")
        self.write(out, self.namespace.from_host(host, out.dtype))

    def download(self, x: Span) -> HostArray:
        return self.namespace.to_host(self.read(x))

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> ReferenceBuffer:
        """A buffer over the memory of a host array. See :class:`~netcl.backends.base.HostOperations`."""
        return ReferenceBuffer(host.reshape(-1), host.size, dtype)

    def map_host(self, x: Span) -> ReferenceMapping:
        """See :class:`~netcl.backends.base.HostOperations`."""
        return ReferenceMapping(self, x)

    def shared(self, x: Span) -> HostArray:
        """The elements on the host: the memory itself for NumPy, else a copy."""
        return self.read(x) if isinstance(self.namespace, NumpyNamespace) else self.download(x)

    def synchronize(self) -> None:
        """Nothing is ever under way: calls return when they have taken effect."""

    def read(self, x: Span) -> Any:
        """The stored elements of a span, as the namespace's array."""
        return x.buffer.array[x.offset : x.offset + x.size]  # type: ignore[attr-defined]

    def write(self, x: Span, value: Any) -> None:
        """Set the elements of a span to stored elements, or to one number."""
        x.buffer.array[x.offset : x.offset + x.size] = value  # type: ignore[attr-defined]

    def number(self, x: Span) -> Any:
        """The first element of a span as a Python number."""
        element = self.namespace.widen(self.read(Span(x.buffer, x.offset, 1)), x.dtype)
        return _PYTHON[x.dtype.kind](element[0])

    def view(self, x: View) -> Any:
        """The stored elements of a view, as the namespace's array."""
        return self.namespace.read(x.buffer.array, x.offset, x.shape, x.strides)  # type: ignore[attr-defined]

    def load(self, x: View) -> Any:
        """The elements of a view in their compute dtype."""
        return self.namespace.widen(self.view(x), x.dtype)

    def store(self, x: View, value: Any) -> None:
        """Round ``value`` to the storage of a view."""
        namespace = self.namespace
        if isinstance(namespace, NumpyNamespace):
            namespace.store(x.dtype)(self.view(x), value)
        else:
            namespace.write(x.buffer.array, x.offset, x.shape, x.strides, value)  # type: ignore[attr-defined]

    def program(self, expression: Expression) -> Program:
        """The compiled form of an expression whose outputs may share memory with any input."""
        program = self._programs.get(expression.key)
        if program is None:
            program = self._programs[expression.key] = Program(expression, self.namespace)
        return program

    def evaluate(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar]
    ) -> None:
        """outputs ← expression(inputs)."""
        program, namespace = self.program(expression), self.namespace
        shape = outputs[0].shape
        size = math.prod(shape)
        if size == 0:
            return
        uniform = self._uniform(expression, scalars)
        with np.errstate(all="ignore"):
            if not namespace.in_place:
                values = program.values([*(self.view(x) for x in inputs), *uniform])
                for x, value in zip(outputs, values, strict=True):
                    self.store(x, value)
            elif size <= BLOCK or (len(program.steps) <= 1 and not program.scratch):
                program.run([*map(self._array, inputs), *uniform], [*map(self._array, outputs)])
            else:
                self._evaluate_in_blocks(program, inputs, outputs, uniform)

    def _uniform(self, expression: Expression, scalars: Sequence[Scalar]) -> list[Any]:
        if not scalars:
            return []
        scalar = self.namespace.scalar
        return [scalar(a, dtype.compute) for a, dtype in zip(scalars, expression.scalars, strict=True)]

    def _array(self, x: View) -> Any:
        """A view as a NumPy array of at least one axis: NumPy turns arrays without one into immutable scalars."""
        return self.namespace.read(x.buffer.array, x.offset, x.shape or (1,), x.strides or (1,))  # type: ignore[attr-defined]

    def _evaluate_in_blocks(
        self, program: Program, inputs: Sequence[View], outputs: Sequence[View], uniform: list[Any]
    ) -> None:
        views = [*inputs, *outputs]
        arrays = [x.buffer.array for x in views]  # type: ignore[attr-defined]
        read, n = self.namespace.read, len(inputs)
        room = [self.namespace.empty(BLOCK, dtype) for dtype in program.scratch]
        for shape, places in blocks(views, BLOCK):
            pieces = [read(array, start, shape, steps) for array, (start, steps) in zip(arrays, places, strict=True)]
            size = math.prod(shape)
            scratch = [memory[:size].reshape(shape) for memory in room]
            program.run([*pieces[:n], *uniform], pieces[n:], scratch)

    def value_of(self, expression: Expression, inputs: Sequence[View], scalars: Sequence[Scalar]) -> Any:
        """The one output of an expression as an array in its compute dtype; a view where it is an input itself."""
        node = expression.outputs[0]
        if node.op == "input":
            return self.load(inputs[int(node.value)])  # type: ignore[arg-type]
        shape = inputs[0].shape
        if not self.namespace.in_place:
            program = self.program(expression)
            value = program.values([*map(self.view, inputs), *self._uniform(expression, scalars)])[0]
            return self.namespace.xp.broadcast_to(value, shape)
        buffer = self.alloc(math.prod(shape), node.dtype)
        out = View(buffer, 0, shape, contiguous_strides(shape))
        if expression.stored != (node.dtype,):
            wide = f"wide|{expression.key}"
            expression = Expression(expression.inputs, expression.scalars, expression.outputs, (node.dtype,), wide)
        self.evaluate(expression, inputs, [out], scalars)
        return self.view(out)
