"""Update rules of one's own as drawn trees of operators, for the trace and for the oracle alike.

A tree is a nested tuple: ``("add", a, b)``, or a leaf ``"p"``, ``"g"``, ``"s"``, ``"lr"``, ``"rate"`` or a number.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from netcl import expression as ex
from netcl.optim import Optimizer, Rule
from tests.fuzz import bounds
from tests.fuzz.bounds import Bounded

LEAVES = ("p", "g", "s")


def draw(r: random.Random, depth: int) -> Any:
    """A tree that is finite wherever its leaves are, and zero where they are: that is what padding asks for."""
    return ("multiply", r.choice(LEAVES), _factor(r, depth))


def _factor(r: random.Random, depth: int) -> Any:
    if depth <= 0 or r.random() < 0.2:
        return r.choice([*LEAVES, "rate", 0.5, -1.25, 2.0])
    name = r.choice(
        ["add", "subtract", "multiply", "over", "root", "sign", "abs", "maximum", "minimum", "where", "tanh", "decay"]
    )
    count = {"root": 1, "sign": 1, "abs": 1, "tanh": 1, "decay": 1, "where": 4}.get(name, 2)
    return (name, *(_factor(r, depth - 1) for _ in range(count)))


def optimizer(parameter: Any, memory: Any) -> type[Optimizer]:
    """``p ← p - lr·parameter``, ``s ← memory``."""

    def update(p: Any, g: Any, s: Any, h: Any) -> Any:
        leaves = {"p": p, "g": g, "s": s.memory, "rate": h.rate}
        return p - h.lr * traced(parameter, leaves), traced(memory, leaves)

    class Own(Optimizer):
        def __init__(self, params: Any, lr: float = 0.1, rate: float = 0.5, backend: Any = None) -> None:
            rule = Rule(update, lambda group: {"lr": group["lr"], "rate": group["rate"]}, state=("memory",))
            super().__init__(params, {"lr": lr, "rate": rate}, rule, backend=backend)

    return Own


def traced(tree: Any, leaves: dict[str, Any]) -> Any:
    """The tree over what a trace gives."""
    if not isinstance(tree, tuple):
        return leaves.get(tree, tree)
    name, *args = tree
    a, *rest = (traced(arg, leaves) for arg in args)
    # An operator over numbers alone is Python's business, not the trace's.
    a = a if not isinstance(a, float) else leaves["rate"] * 0.0 + a
    match name:
        case "add":
            return a + rest[0]
        case "subtract":
            return a - rest[0]
        case "multiply":
            return a * rest[0]
        case "over":
            return a / (abs(rest[0]) + 0.5)
        case "root":
            return ex.sqrt(abs(a))
        case "decay":
            return ex.exp(-abs(a))
        case "where":
            return ex.where(a > rest[0], rest[1], rest[2])
        case "sign" | "tanh":
            return getattr(ex, name)(a)
        case "abs":
            return abs(a)
    return getattr(ex, name)(a, rest[0])


def bounded(tree: Any, leaves: dict[str, Bounded]) -> Bounded:
    """The tree in float64 with its bounds."""
    if not isinstance(tree, tuple):
        return leaves[tree] if isinstance(tree, str) else Bounded(np.full((), tree), leaves["p"].format)
    name, *args = tree
    a, *rest = (bounded(arg, leaves) for arg in args)
    match name:
        case "add":
            return a + rest[0]
        case "subtract":
            return a - rest[0]
        case "multiply":
            return a * rest[0]
        case "over":
            return a / (abs(rest[0]) + 0.5)
        case "root":
            return abs(a).root()
        case "decay":
            return (-abs(a)).function(np.exp, 8, lambda x: np.exp(x))
        case "where":
            return bounds.where(a.greater(rest[0]), rest[1], rest[2], a.format)
        case "tanh":
            return a.function(np.tanh, 12, lambda x: np.ones_like(x))
        case "abs":
            return abs(a)
        case "sign":
            return a.sign()
    return getattr(a, name)(rest[0])
