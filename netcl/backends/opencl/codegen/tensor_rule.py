"""A rule with values of whole tensors as the text that ``tensor_direction.cl`` and ``tensor_update.cl`` take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from netcl.backends.base import COUNTERS, Span, TensorRule
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.codegen.update_rule import (
    check_rule,
    hyper_names,
    value_macros,
    with_reciprocals,
)
from netcl.backends.opencl.codegen.writer import Names, statements
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Expression, Node, nodes_of

MOST_NORMS = 2
"""How many norms the scratch of a :class:`~netcl.backends.base.TensorMap` has room for."""

Text = tuple[str, ...]


def check_tensor_rule(rule: TensorRule, p: Span, g: Span | None, state: Sequence[Span], columns: Sequence[str]) -> None:
    """Refuse a rule whose arrays are not these, or which reads what is neither a column nor a counter.

    Raises
    ------
    ShapeError
    DTypeError
    HyperParameterError
    """
    if not state:
        raise ShapeError("the state of a tensor rule ends with the direction, got no state")
    compute = p.dtype.compute
    if g is not None:
        check_rule(rule.direction, (p, g, *state), columns)
    check_rule(rule.update, (p, state[-1], *state[:-1]), (*columns, "ratio"))
    inputs = (p.dtype, *(span.dtype for span in state))
    if len(rule.measured) > MOST_NORMS or any(
        each.inputs != inputs or len(each.outputs) != 1 for each in rule.measured
    ):
        raise ShapeError(
            f"a tensor rule has at most {MOST_NORMS} values measured, each one of the parameter and the state, got "
            f"{len(rule.measured)} of {[len(each.inputs) for each in rule.measured]} arrays"
        )
    ratio = rule.ratio
    if ratio.inputs != (compute,) * (len(rule.measured) + 1) or ratio.stored != (compute,):
        raise ShapeError(
            f"a ratio takes {len(rule.measured)} norm(s) and the number of elements, got {len(ratio.inputs)} inputs"
        )
    for each in (*rule.measured, ratio):
        if each.outputs[0].dtype is not compute:
            raise DTypeError(f"{each.name} must be computed in {compute}, got {each.outputs[0].dtype}")
    for name in hyper_names(ratio):
        if name not in columns and name not in COUNTERS:
            raise HyperParameterError(
                f"the ratio reads the hyper-parameter {name!r}, which is neither a column of the step block "
                f"({', '.join(columns)}) nor a counter ({', '.join(COUNTERS)})"
            )


def changed(rule: Expression) -> list[int]:
    """The outputs of a rule that are not the input of the same place, p and the state."""
    return [i for i, node in enumerate(rule.outputs) if not (node.op == "input" and node.value == (i + 1 if i else 0))]


def _inputs(nodes: Iterable[Node]) -> set[int]:
    return {int(node.value) for node in nodes_of(list(nodes)) if node.op == "input"}  # type: ignore[arg-type]


def _fields(macro: str, names: Collection[str], tags: dict[str, str]) -> str:
    """Fields in the order of ``tags``."""
    return f"#define {macro}(FIELD) {' '.join(f'FIELD({tag}, {name})' for name, tag in tags.items() if name in names)}"


def _text(macro: str, lines: Sequence[str]) -> str:
    return f"#define {macro} " + " ".join(f"\\\n    {line}" for line in lines)


def _results(targets: Sequence[str], values: Sequence[str]) -> list[str]:
    return [f"const real_vector {target} = {value};" for target, value in zip(targets, values, strict=True)]


def _tags(state: Sequence[Span]) -> dict[str, str]:
    return {"p": "P", "g": "G"} | {f"s{i}": TAG[span.dtype] for i, span in enumerate(state)}


def _common(rule: TensorRule, tags: dict[str, str], hyper: Sequence[str], columns: Sequence[str]) -> list[str]:
    fields = [name for name in tags if name not in ("p", "g")]
    norms = " ".join(f"NORM({i}, n{i})" for i in range(len(rule.measured)))
    return [_fields("STATE", fields, tags), f"#define NORMS(NORM) {norms}", *value_macros(hyper, columns)]


def direction_text(rule: TensorRule, state: Sequence[Span], columns: Sequence[str], width: int, *, moves: bool) -> str:
    """What ``tensor_direction.cl`` is given. Unless it ``moves`` there is a direction, and only norms are taken."""
    tags = _tags(state)
    first = with_reciprocals(rule.direction)
    moved = changed(first) if moves else []
    hyper = hyper_names(first) if moves else []
    places = ["p", *(f"s{i}" for i in range(len(state)))]  # of the outputs, and of what the norms are made of
    names: dict[tuple[str, int | str], str] = {("input", 0): "p", ("input", 1): "scaled"}
    names |= {("input", i + 1): place for i, place in enumerate(places) if i}
    names |= {("hyper", name): f"h.h{i}" for i, name in enumerate(hyper)}
    read: set[str] = set()
    lines: list[str] = []
    if moves:
        read = {"p" if i == 0 else "g" if i == 1 else places[i - 1] for i in _inputs(first.outputs[i] for i in moved)}
        if "g" in read:
            lines.append("const real_vector scaled = h.gradient_factor * (h.prescale * g);")
        written, values = statements(first, names, width)
        lines += written + _results([f"next_{places[i]}" for i in moved], [values[i] for i in moved])
    looked = {places[i] for i in _inputs(each.outputs[0] for each in rule.measured)}
    stored = [places[i] for i in moved]
    after: Names = {("input", i): f"next_{place}" if place in stored else place for i, place in enumerate(places)}
    kept: Names = {("input", i): place for i, place in enumerate(places)}
    return "\n".join(
        [
            *_common(rule, tags, hyper, columns),
            _fields("READ", read | (looked - set(stored)), tags),
            _fields("WRITTEN", stored, tags),
            _fields("MEASURED", looked, tags),
            _text("RULE", lines),
            _text("MEASURE_NEXT", _measured(rule, after, width)),
            _text("MEASURE", _measured(rule, kept, width)),
        ]
    )


def _measured(rule: TensorRule, names: Names, width: int) -> list[str]:
    lines: list[str] = []
    for i, each in enumerate(rule.measured):
        written, values = statements(each, names, width, f"m{i}_")
        lines += written + _results([f"measured_n{i}"], values)
    return lines


def update_text(rule: TensorRule, state: Sequence[Span], columns: Sequence[str], width: int) -> str:
    """What ``tensor_update.cl`` is given."""
    tags = _tags(state)
    second = with_reciprocals(rule.update)
    moved = changed(second)
    hyper = [name for name in dict.fromkeys((*hyper_names(second), *hyper_names(rule.ratio))) if name != "ratio"]
    places = ["p", f"s{len(state) - 1}", *(f"s{i}" for i in range(len(state) - 1))]  # of the inputs
    of_hyper: dict[tuple[str, int | str], str] = {("hyper", name): f"h.h{i}" for i, name in enumerate(hyper)}
    norms = {("input", i): f"n{i}" for i in range(len(rule.measured))} | {("input", len(rule.measured)): "size"}
    ratio, (found,) = statements(rule.ratio, of_hyper | norms, 1, "r")
    names = of_hyper | {("input", i): place for i, place in enumerate(places)} | {("hyper", "ratio"): "ratio"}
    lines, values = statements(second, names, width)
    targets = ["p", *places[2:]]
    lines += _results([f"next_{targets[i]}" for i in moved], [values[i] for i in moved])
    return "\n".join(
        [
            *_common(rule, tags, hyper, columns),
            _fields("READ", {places[i] for i in _inputs(second.outputs[i] for i in moved)}, tags),
            _fields("WRITTEN", [targets[i] for i in moved], tags),
            _text("RATIO", [*ratio, f"const real ratio = {found};"]),
            _text("RULE", lines),
        ]
    )
