"""Traced expressions as Python that a reader follows, and that gives the same expression when it is traced again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from netcl import expression
from netcl.expression import Node, nodes_of

INFIX = {
    "less": ("<", 1), "less_equal": ("<=", 1), "greater": (">", 1), "greater_equal": (">=", 1), "equal": ("==", 1),
    "not_equal": ("!=", 1), "add": ("+", 2), "subtract": ("-", 2), "multiply": ("*", 3), "divide": ("/", 3),
}  # fmt: skip
"""How an operator is written between its operands, and how tightly it binds; comparisons do not chain."""

NEGATIVE, ATOM = 4, 5


def python_text(outputs: Sequence[Node], names: Mapping[tuple[str, int | str], str]) -> tuple[list[str], list[str]]:
    """Assignments of whatever is used more than once, and the outputs in terms of them.

    Parameters
    ----------
    outputs : sequence of Node
    names : mapping
        What ``(op, value)`` of each leaf is called, such as ``{("input", 0): "p", ("hyper", "lr"): "h.lr"}``.

    Examples
    --------
    >>> from netcl.dtypes import float32
    >>> from netcl.expression import sqrt, trace
    >>> from netcl.expression_text import python_text
    >>> e = trace(lambda x, y: (d := x - (y - 1.0)) / sqrt(d), (float32, float32))
    >>> python_text(e.outputs, {("input", 0): "x", ("input", 1): "y"})
    (['t0 = x - (y - 1.0)'], ['t0 / sqrt(t0)'])
    """
    nodes = nodes_of(outputs)
    uses = Counter(id(arg) for node in nodes for arg in node.args) + Counter(map(id, outputs))
    written: dict[int, tuple[str, int]] = {}
    lines: list[str] = []
    for node in nodes:
        text, binds = _text(node, [written[id(arg)] for arg in node.args], names)
        if node.args and uses[id(node)] > 1:
            name = f"t{len(lines)}"
            lines.append(f"{name} = {text}")
            text, binds = name, ATOM
        written[id(node)] = text, binds
    return lines, [written[id(output)][0] for output in outputs]


def _text(node: Node, args: Sequence[tuple[str, int]], names: Mapping[tuple[str, int | str], str]) -> tuple[str, int]:
    """A node as text, and how tightly its outermost operator binds."""
    if node.op == "constant":
        return _number(node.value)
    if not args:
        assert isinstance(node.value, int | str)
        return names[node.op, node.value], ATOM
    if node.op in INFIX:
        sign, binds = INFIX[node.op]
        (left, left_binds), (right, right_binds) = args
        # Left to right among equals; a comparison within a comparison is set apart on both sides.
        left = f"({left})" if left_binds < binds or (binds == left_binds == 1) else left
        right = f"({right})" if right_binds <= binds else right
        return f"{left} {sign} {right}", binds
    if node.op == "negative":
        ((operand, binds),) = args
        return f"-({operand})" if binds <= NEGATIVE else f"-{operand}", NEGATIVE
    given = ", ".join(text for text, _ in args)
    if node.op == "cast":
        return f"cast({given}, {node.dtype})", ATOM
    if node.op in ("abs", "narrow") or callable(getattr(expression, node.op, None)):
        return f"{node.op}({given})", ATOM
    return f"apply({node.op!r}, {given})", ATOM


def _number(value: object) -> tuple[str, int]:
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})", ATOM
    text = repr(value)
    return text, NEGATIVE if text.startswith("-") else ATOM
