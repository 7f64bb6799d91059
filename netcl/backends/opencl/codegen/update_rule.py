"""A traced update rule as the defines that ``kernels/fused_update.cl`` takes, and whether it fits its operands."""

from __future__ import annotations

from collections.abc import Sequence

from netcl.backends.base import COUNTERS, BlockFormat, BlockSpan, Span
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.writer import statements
from netcl.dtypes import bfloat16, int32
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Expression, Node, constant
from netcl.quantization import UPPER, code_lines, is_dynamic, share_lines, top_code, top_edge, upper_edges


def is_numbered(rule: Expression) -> bool:
    """Whether a rule reads the elements' numbers, which are one more input, an int32."""
    return len(rule.inputs) == len(rule.stored) + 2 and rule.inputs[-1] is int32


def check_rule(rule: Expression, fields: Sequence[Span | BlockSpan], columns: Sequence[str]) -> None:
    """Refuse a rule whose arrays are not ``fields``, or which reads what is neither a column nor a counter.

    Raises
    ------
    ShapeError
    DTypeError
    HyperParameterError
    """
    inputs = rule.inputs[:-1] if is_numbered(rule) else rule.inputs
    if len(inputs) != len(fields) or len(rule.stored) != len(fields) - 1 or rule.scalars:
        raise ShapeError(
            f"the rule {rule.name} takes {len(inputs)} arrays and gives {len(rule.stored)}; with "
            f"{len(fields) - 2} state field(s) it must take (p, g, *state), give (p, *state) and have no scalars"
        )
    stored = (fields[0], *fields[2:])
    expected = [*zip(inputs, fields, strict=True), *zip(rule.stored, stored, strict=True)]
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


def value_macros(hyper: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Where the hyper-parameters that a rule reads stand in its rows: as ``h.h0`` the first of them."""
    places = {"COLUMN_VALUES": list(columns), "COUNTER_VALUES": list(COUNTERS)}
    owner = {name: "COLUMN_VALUES" if name in columns else "COUNTER_VALUES" for name in hyper}
    macros = {
        macro: " ".join(f"VALUE(h{i}, {place.index(name)})" for i, name in enumerate(hyper) if owner[name] == macro)
        for macro, place in places.items()
    }
    return [f"#define {macro}(VALUE) {values}" for macro, values in macros.items()]


def stored_tag(rule: Expression, output: int) -> str:
    """The tag of what an output is stored in, and loaded from: of numbers rounded already, one that does not round."""
    rounded = rule.outputs[output].op == "stochastic_bfloat16" and rule.stored[output] is bfloat16
    return f"exact_{TAG[bfloat16]}" if rounded else TAG[rule.stored[output]]


def rule_text(
    rule: Expression, columns: Sequence[str], width: int, formats: Sequence[BlockFormat | None] | None = None
) -> str:
    """What ``fused_update.cl`` is given of a rule. C names are made up: a state field may be called ``half``.

    ``formats`` are those of the state fields, for ``block_update.cl``, where some are kept in blocks of few bits.
    """
    rule = with_reciprocals(rule)
    states = range(len(rule.stored) - 1)
    formats = [None for _ in states] if formats is None else formats
    hyper = hyper_names(rule)
    names: dict[tuple[str, int | str], str] = {("input", 0): "p", ("input", 1): "g"}
    names |= {("input", i + 2): f"s{i}" for i in states}
    names |= {("input", len(states) + 2): "number"}
    names |= {("hyper", name): f"h.h{i}" for i, name in enumerate(hyper)}
    lines, outputs = statements(rule, names, width)
    lines += [
        f"const real_vector next_{target} = {output};"
        for target, output in zip(("p", *(f"s{i}" for i in states)), outputs, strict=True)
    ]
    fields = " ".join(f"FIELD({stored_tag(rule, i + 1)}, s{i})" for i in states if formats[i] is None)
    blocks = [(i, format) for i, format in enumerate(formats) if format is not None]
    of_blocks = " ".join(f"FIELD({format.bits}, s{i})" for i, format in blocks)
    return "\n".join(
        [
            f"#define STATE(FIELD) {fields}",
            f"#define NUMBERED {int(is_numbered(rule))}",
            *([f"#define BLOCKS(FIELD) {of_blocks}"] if blocks else []),
            *(line for i, format in blocks for line in _codes_text(i, format)),
            *value_macros(hyper, columns),
            "#define RULE \\",
            " \\\n".join(f"    {line}" for line in lines),
        ]
    )


def _codes_text(field: int, format: BlockFormat) -> list[str]:
    """The lines that ``block_update.cl`` is given of a format. See :mod:`netcl.quantization`."""
    made = [f"#define SIGNED_s{field} {int(format.signed)}", f"#define DYNAMIC_s{field} {int(is_dynamic(format))}"]
    if is_dynamic(format):
        for macro, lines in (("SHARE_LINES", share_lines(format)), ("CODE_LINES", code_lines(format))):
            for part, some in (("UPPER", lines[-UPPER:]), ("LOWER", lines[:-UPPER])):
                text = " ".join(f"LINE({slope!r}f, {shift!r}f)" for slope, shift in some)
                made.append(f"#define {part}_{macro}_s{field}(LINE) {text}")
        code, share = upper_edges(format)
        made += [f"#define LEAST_UPPER_CODE_s{field} {code:.0f}", f"#define LEAST_UPPER_SHARE_s{field} {share!r}f"]
        made += [f"#define TOP_s{field} {top_code(format):.0f}", f"#define TOP_EDGE_s{field} {top_edge(format)!r}f"]
    return made
