"""A traced update rule as the defines that ``kernels/fused_update.cl`` takes, and whether it fits its operands."""

from __future__ import annotations

from collections.abc import Sequence

from netcl.backends.base import COUNTERS, Span
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.writer import statements
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Expression, Node, constant


def check_rule(rule: Expression, fields: Sequence[Span], columns: Sequence[str]) -> None:
    """Refuse a rule whose arrays are not ``fields``, or which reads what is neither a column nor a counter.

    Raises
    ------
    ShapeError
    DTypeError
    HyperParameterError
    """
    if len(rule.inputs) != len(fields) or len(rule.stored) != len(fields) - 1 or rule.scalars:
        raise ShapeError(
            f"the rule {rule.name} takes {len(rule.inputs)} arrays and gives {len(rule.stored)}; with "
            f"{len(fields) - 2} state field(s) it must take (p, g, *state), give (p, *state) and have no scalars"
        )
    stored = (fields[0], *fields[2:])
    expected = [*zip(rule.inputs, fields, strict=True), *zip(rule.stored, stored, strict=True)]
    for dtype, span in expected:
        if dtype is not span.dtype:
            raise DTypeError(f"the rule {rule.name} was traced for {dtype} where it is given {span.dtype}")
    for name in hyper_names(rule):
        if name not in columns and name not in COUNTERS:
            raise HyperParameterError(
                f"the rule {rule.name} reads the hyper-parameter {name!r}, which is neither a column of the step block "
                f"({', '.join(columns)}) nor a counter ({', '.join(COUNTERS)})"
            )


def hyper_names(rule: Expression) -> list[str]:
    """The hyper-parameters that a rule reads, operands before what is made of them."""
    return list(dict.fromkeys(str(node.value) for node in rule.nodes() if node.op == "hyper"))


def with_reciprocals(rule: Expression) -> Expression:
    """The rule with ``x / h`` as ``x * (1 / h)`` where only x differs between elements.

    The reciprocal is computed once for a chunk. A division per element costs more than its share of memory traffic;
    the product differs from it by at most one more rounding.
    """
    uniform: set[int] = set()

    def multiplied(node: Node) -> Node:
        if node.op in ("hyper", "constant") or (node.args and all(id(arg) in uniform for arg in node.args)):
            uniform.add(id(node))
        elif node.op == "divide" and id(node.args[1]) in uniform and node.args[1].op != "constant":
            reciprocal = Node("divide", (constant(1.0, node.dtype), node.args[1]), node.dtype)
            return Node("multiply", (node.args[0], reciprocal), node.dtype)
        return node

    return rule.rewrite(multiplied)


def rule_text(rule: Expression, columns: Sequence[str], width: int) -> str:
    """What ``fused_update.cl`` is given of a rule. C names are made up: a state field may be called ``half``."""
    rule = with_reciprocals(rule)
    states = range(len(rule.inputs) - 2)
    hyper = hyper_names(rule)
    names: dict[tuple[str, int | str], str] = {("input", 0): "p", ("input", 1): "g"}
    names |= {("input", i + 2): f"s{i}" for i in states}
    names |= {("hyper", name): f"h.h{i}" for i, name in enumerate(hyper)}
    lines, outputs = statements(rule, names, width)
    lines += [
        f"const real_vector next_{target} = {output};"
        for target, output in zip(("p", *(f"s{i}" for i in states)), outputs, strict=True)
    ]
    places = {"COLUMN_VALUES": list(columns), "COUNTER_VALUES": list(COUNTERS)}
    owner = {name: "COLUMN_VALUES" if name in columns else "COUNTER_VALUES" for name in hyper}
    macros = {
        macro: " ".join(f"VALUE(h{i}, {place.index(name)})" for i, name in enumerate(hyper) if owner[name] == macro)
        for macro, place in places.items()
    }
    fields = " ".join(f"FIELD({TAG[rule.inputs[i + 2]]}, s{i})" for i in states)
    return "\n".join(
        [
            f"#define STATE(FIELD) {fields}",
            *(f"#define {macro}(VALUE) {values}" for macro, values in macros.items()),
            "#define RULE \\",
            " \\\n".join(f"    {line}" for line in lines),
        ]
    )
