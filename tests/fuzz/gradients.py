"""Kind ``gradients``: graphs of 3 to 25 operations, their gradients against torch's and against central differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag
from tests.fuzz.case import Disagreement, Values, source, without
from tests.fuzz.graph_operations import OPERATIONS

STEP = 2e-5
"""Of the central differences: their error is about STEP² and 1e-16 / STEP."""


@dataclass(frozen=True)
class Step:
    """One operation on values that are there: leaves first, then what the steps before it made."""

    name: str
    operands: tuple[int, ...]
    options: dict[str, Any]
    recorded: bool = True
    """Whether it is computed outside a ``no_grad`` block."""


@dataclass(frozen=True)
class Graph:
    """Leaves, steps, and the values that are weighted and added up at the end."""

    leaves: tuple[Values, ...]
    constant: tuple[int, ...]
    """The leaves that require no gradient."""
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    retain: bool = False
    again: bool = False
    """Whether the graph is recorded and walked a second time, which adds to the gradients."""

    def simpler(self) -> Iterator[Graph]:
        first = len(self.leaves)
        for outputs in without(self.outputs, 1):
            yield replace(self, outputs=outputs)
        last = max(self.outputs)
        if last < first + len(self.steps) - 1:
            yield replace(self, steps=self.steps[: max(last - first + 1, 1)])
        for i, step in enumerate(self.steps):
            for operand in step.operands:
                yield _bypassed(self, first + i, operand)
        for i, step in enumerate(self.steps):
            if not step.recorded:
                yield replace(self, steps=(*self.steps[:i], replace(step, recorded=True), *self.steps[i + 1 :]))
        for name in ("retain", "again"):
            if getattr(self, name):
                yield replace(self, **{name: False})
        if self.constant:
            yield replace(self, constant=())
        used = {i for step in self.steps for i in step.operands} | set(self.outputs)
        for i, values in enumerate(self.leaves):
            if i not in used and len(self.leaves) > 1:
                yield _forgotten(self, i)
            for style in ("ones", "integers"):
                if values.style not in ("ones", style):
                    yield replace(self, leaves=(*self.leaves[:i], replace(values, style=style), *self.leaves[i + 1 :]))


def _bypassed(graph: Graph, number: int, by: int) -> Graph:
    """The graph without one of its steps; what used it uses one of its operands."""

    def renamed(i: int) -> int:
        i = by if i == number else i
        return i - 1 if i > number else i

    position = number - len(graph.leaves)
    steps = [
        replace(step, operands=tuple(map(renamed, step.operands)))
        for i, step in enumerate(graph.steps)
        if i != position
    ]
    return replace(graph, steps=tuple(steps), outputs=tuple(dict.fromkeys(map(renamed, graph.outputs))))


def _forgotten(graph: Graph, leaf: int) -> Graph:
    """The graph without a leaf that nothing uses."""

    def renamed(i: int) -> int:
        return i - 1 if i > leaf else i

    return replace(
        graph,
        leaves=(*graph.leaves[:leaf], *graph.leaves[leaf + 1 :]),
        constant=tuple(renamed(i) for i in graph.constant if i != leaf),
        steps=tuple(replace(step, operands=tuple(map(renamed, step.operands))) for step in graph.steps),
        outputs=tuple(map(renamed, graph.outputs)),
    )


def draw(seed: int, number: int) -> Graph:
    """The graph with this number."""
    r = source(seed, "gradients", number)
    extents = [r.choice([1, 2, 3, 4]) for _ in range(3)]
    shapes: list[tuple[int, ...]] = []
    for _ in range(r.randint(1, 5)):
        rank = r.choice([0, 1, 2, 2, 2, 3])
        shapes.append(tuple(r.choice(extents) if r.random() > 0.2 else 1 for _ in range(rank)))
    leaves = tuple(
        Values(
            made,
            r.choice(["normal", "normal", "zeros", "integers"]) if r.random() < 0.2 else "normal",
            r.randrange(1 << 30),
        )
        for made in shapes
    )
    constant = tuple(i for i in range(len(leaves)) if r.random() < 0.15 and i)
    names, weights = list(OPERATIONS), [operation.weight for operation in OPERATIONS.values()]
    steps: list[Step] = []
    count = r.randint(3, 25)
    while len(steps) < count:
        name = r.choices(names, weights)[0]
        # Mostly what was made last, and now and then anything: that shares parts of the graph.
        operands = tuple(
            len(shapes) - 1 - min(int(r.expovariate(0.5)), len(shapes) - 1)
            if r.random() < 0.7
            else r.randrange(len(shapes))
            for _ in range(OPERATIONS[name].arity)
        )
        drawn = OPERATIONS[name].draw(r, [shapes[i] for i in operands])
        if drawn is None:
            continue
        options, made = drawn
        steps.append(Step(name, operands, options, r.random() > 0.04))
        shapes.append(made)
    used = {i for step in steps for i in step.operands}
    unused = [i for i in range(len(shapes)) if i not in used and i >= len(leaves)]
    return Graph(leaves, constant, tuple(steps), tuple(unused), r.random() < 0.15, r.random() < 0.15)


def run(case: Graph, backend: str) -> None:
    """Raises :class:`Disagreement` if a gradient is not what torch or central differences say."""
    device = netcl.get_backend(backend)
    dtype = "float64" if device.supports(netcl.float64) else "float32"
    values = [x.array() for x in case.leaves]
    weights = {i: np.random.default_rng(i).standard_normal(()) for i in case.outputs}
    gradients, frozen = _backward(case, values, weights, backend, dtype)
    times = (1 + case.retain) * (1 + case.again)
    differences = _Differences(case, values, weights, backend if dtype == "float64" else "numpy", frozen)
    if find_spec("torch"):
        expected = _torch_gradients(case, values, weights)
        _compare(gradients, expected, times, 1e-9 if dtype == "float64" else 3e-4, differences)
    if dtype == "float64":
        for i, g in enumerate(gradients):
            if g is not None:
                differences.check(i, g / times, np.random.default_rng(i).standard_normal(g.shape))


def _tensors(case: Graph, values: Sequence[Any], backend: str, dtype: str) -> list[Any]:
    return [
        netcl.asarray(x, dtype=dtype, device=backend, requires_grad=i not in case.constant)
        for i, x in enumerate(values)
    ]


def _evaluate(case: Graph, leaves: Sequence[Any], weights: dict[int, Any], frozen: dict[int, Any]) -> Any:
    """The weighted sum of the outputs; ``frozen`` has the values that are no longer computed, or takes them up."""
    made = list(leaves)
    for step in case.steps:
        function = OPERATIONS[step.name].netcl
        if step.recorded:
            made.append(function(*(made[i] for i in step.operands), step.options))
            continue
        number = len(made)
        if number not in frozen:
            with ag.no_grad():
                frozen[number] = function(*(made[i] for i in step.operands), step.options)
        made.append(frozen[number])
    total: Any = None
    for i in case.outputs:
        part = netcl.sum(made[i]) * float(weights[i])
        total = part if total is None else total + part
    return total


def _backward(
    case: Graph, values: Sequence[Any], weights: dict[int, Any], backend: str, dtype: str
) -> tuple[list[Any], dict[int, Any]]:
    leaves = _tensors(case, values, backend, dtype)
    frozen: dict[int, Any] = {}
    for _ in range(1 + case.again):
        with ag.Tape(retain=case.retain) as tape:
            total = _evaluate(case, leaves, weights, frozen)
        if total.node is not None:
            for _ in range(1 + case.retain):
                tape.backward(total)
    return [None if x.grad is None else x.grad.numpy() for x in leaves], frozen


@cache
def _quiet_torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


def _torch_gradients(case: Graph, values: Sequence[Any], weights: dict[int, Any]) -> list[Any]:
    torch = _quiet_torch()
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=i not in case.constant) for i, x in enumerate(values)]
    made = list(leaves)
    for step in case.steps:
        out = OPERATIONS[step.name].torch(*(made[i] for i in step.operands), step.options)
        made.append(out if step.recorded else out.detach())
    total = sum(made[i].sum() * float(weights[i]) for i in case.outputs)
    if total.requires_grad:
        total.backward()
    return [None if x.grad is None else x.grad.numpy() for x in leaves]


def _compare(
    gradients: Sequence[Any], expected: Sequence[Any], times: int, reach: float, differences: _Differences
) -> None:
    for i, (g, e) in enumerate(zip(gradients, expected, strict=True)):
        told = f"the gradient of leaf {i} is {_shown(g)} where torch has {_shown(None if e is None else times * e)}"
        if g is None or e is None:
            if (g is None) != (e is None) and (g if e is None else e).any():
                raise Disagreement("torch", told)
            continue
        scale = times * (1 + float(np.max(np.abs(np.nan_to_num(e)), initial=0.0)))
        if g.shape != e.shape:
            raise Disagreement("torch", told)
        apart = ~np.isclose(g, times * e, rtol=0, atol=reach * scale, equal_nan=True)
        # The deviation of equal numbers is rounding in torch, and its slope anything. Then differences decide.
        for place in zip(*np.nonzero(np.atleast_1d(apart)), strict=True):
            direction = np.zeros(np.atleast_1d(g).shape)
            direction[place] = 1.0
            if not differences.check(i, g / times, direction.reshape(g.shape)):
                raise Disagreement("torch", told)


class _Differences:
    """Central differences of a graph in float64."""

    def __init__(
        self, case: Graph, values: Sequence[Any], weights: dict[int, Any], backend: str, frozen: dict[int, Any]
    ) -> None:
        self._case, self._values, self._weights, self._backend = case, values, weights, backend
        self._frozen = {
            i: netcl.asarray(x.numpy(), dtype="float64", device=backend) if x.dtype.kind == "f" else x
            for i, x in frozen.items()
        }
        self._loss = self._at(values)

    def _at(self, values: Sequence[Any]) -> float:
        with ag.no_grad():
            leaves = _tensors(self._case, values, self._backend, "float64")
            return float(_evaluate(self._case, leaves, self._weights, dict(self._frozen)).item())

    def check(self, i: int, gradient: Any, direction: Any) -> bool:
        """Whether they could tell the slope of leaf ``i`` along a direction, and not only that there is a kink.

        Raises :class:`Disagreement` if the gradient has another.
        """
        if not math.isfinite(self._loss):
            return False
        known = float(np.sum(gradient * direction, where=direction != 0))
        slopes, kinks = [], []
        for h in (STEP, STEP / 4):
            ahead, behind = (
                self._at([*self._values[:i], self._values[i] + by * direction, *self._values[i + 1 :]])
                for by in (h, -h)
            )
            slopes.append((ahead - behind) / (2 * h))
            kinks.append(abs(ahead - 2 * self._loss + behind) / h)
        noise = 1e-15 * (1 + abs(self._loss)) / STEP
        # What differs between the sides shrinks with the step where there is a second derivative, and stays at a kink.
        smooth = kinks[1] < kinks[0] / 2 + 8 * noise and kinks[0] < 0.1
        reach = 1e-6 * (1 + abs(slopes[1])) + 8 * noise
        if not smooth or not abs(slopes[0] - slopes[1]) < reach:
            return False
        if not abs(known - slopes[1]) < 4 * reach:
            raise Disagreement(
                "differences", f"the slope of leaf {i} is {known!r} where central differences give {slopes[1]!r}"
            )
        return True


def _shown(x: Any) -> str:
    return "None" if x is None else f"{np.ravel(x)[:6].tolist()}"
