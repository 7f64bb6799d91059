"""Expressions over views: the programs they are compiled to, and ``map``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, View
from netcl.backends.reference.memory import Memory
from netcl.backends.reference.program import Program
from netcl.complex_pairs import expanded
from netcl.expression import Expression


@final
class Evaluation:
    """Expressions evaluated in a namespace; each is compiled once."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._scalar = memory.namespace.scalar
        self._programs: dict[str, Program] = {}

    def map(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar] = ()
    ) -> None:
        """outputs ← expression(inputs). See :class:`~netcl.backends.base.ArrayOperations`."""
        program = self._programs.get(expression.key) or self._compiled(expression)
        uniform = self._uniform(expression, scalars) if scalars else []
        with np.errstate(all="ignore"):
            program.evaluate(inputs, outputs, uniform)

    def value(self, expression: Expression, inputs: Sequence[View], scalars: Sequence[Scalar]) -> Any:
        """The one output of an expression as an array in its compute dtype; a view where it is an input itself."""
        node = expression.outputs[0]
        if node.op == "input":
            return self._memory.load(inputs[int(node.value)])  # type: ignore[arg-type]
        if expression.stored != (node.dtype,):
            wide = f"wide|{expression.key}"
            expression = Expression(expression.inputs, expression.scalars, expression.outputs, (node.dtype,), wide)
        program = self._programs.get(expression.key) or self._compiled(expression)
        return program.value(inputs, self._uniform(expression, scalars))

    def _compiled(self, expression: Expression) -> Program:
        namespace = self._memory.namespace
        program = namespace.compile(expanded(expression, namespace.unlike_the_standard))
        self._programs[expression.key] = program
        return program

    def _uniform(self, expression: Expression, scalars: Sequence[Scalar]) -> list[Any]:
        scalar = self._scalar
        return [scalar(a, dtype.compute) for a, dtype in zip(scalars, expression.scalars, strict=True)]
