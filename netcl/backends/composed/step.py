"""The optimizers' operations over ``map``, ``reduce`` and ``gather``: norms, the decision of a step, and updates.

Nothing waits for the device. What a row of the step table says reaches the elements of its chunks through a ``gather``
of whole rows, one for each chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

import numpy as np

from netcl import update_rules
from netcl.backends.base import (
    ADAM_COLUMNS,
    CHUNK,
    COUNT_BASE,
    COUNTERS,
    SHIFT,
    BlockSpan,
    Span,
    StepBlock,
    View,
    header_entry,
)
from netcl.backends.composed.flat import fill
from netcl.backends.composed.primitives import Primitives, column, of_chunks, piece, pieces, point, scratch, spread
from netcl.dtypes import DType, float32, int32, int64
from netcl.expression import (
    Expression,
    Node,
    Operand,
    apply,
    build,
    cast,
    conversion,
    equal,
    expm1,
    isfinite,
    isnan,
    sqrt,
    trace,
    where,
)
from netcl.quantization import dequantize, quantize


def norm_partials(n: int) -> int:
    """One record for whole chunks and one for the rest."""
    return max(1, len(pieces(n)))


@cache
def _magnitude(x: DType, record: DType, multiplier: DType | None, mapped: bool, ord: float | None) -> Expression:
    """|x·multiplier| where its chunk is active; with ``ord``, relative to the scale and to that power."""

    def magnitude(x: Node, *others: Node) -> Node:
        rest = list(others)
        value = cast(x, record)
        value = abs(value if multiplier is None else value * cast(rest.pop(0), record))
        if mapped:
            value = where(rest.pop(0) != 0.0, value, 0.0)
        return value if ord is None else _power(value / rest.pop(0), ord)

    factors = () if multiplier is None else (multiplier,)
    return trace(magnitude, (x, *factors, *(record,) * (mapped + (ord is not None))), stored=(record,))


def _power(x: Node, ord: float) -> Node:
    return x if ord == 1 else x * x if ord == 2 else x**ord


@cache
def _record(dtype: DType) -> Expression:
    """The sum of a record where its scale is NaN, infinite or zero, by which nothing can be divided."""

    def corrected(scale: Node, total: Node) -> Node:
        total = where(equal(scale, 0.0), 0.0, total)
        return where(isfinite(scale), total, where(isnan(scale), scale, 1.0))

    return trace(corrected, (dtype, dtype), stored=(dtype,))


def norm_reduce(
    primitives: Primitives,
    x: Span,
    partials: Span,
    ord: float,
    multiplier: Span | None,
    rows: Span | None,
    block: StepBlock | None,
) -> None:
    """The maximum, and then the sum of the powers relative to it."""
    dtype, hyper = partials.dtype, None if block is None else block.hyper
    table = None
    if rows is not None and block is not None and hyper is not None:
        table = rows_of_chunks(primitives, hyper, block.rows, rows, x.size)
    if not x.size:
        fill(primitives, partials.part(0, 2), 0.0)
    for i, (start, shape) in enumerate(pieces(x.size)):
        scale, total = partials.element(2 * i), partials.element(2 * i + 1)
        inputs = [piece(x, start, shape)]
        if multiplier is not None:
            inputs.append(spread(multiplier, shape))
        if table is not None and block is not None:
            inputs.append(of_chunks(table, block.columns.index("active"), len(block.columns), start, shape))
        given = (x.dtype, dtype, None if multiplier is None else multiplier.dtype, table is not None)
        primitives.reduce("max", _magnitude(*given, None), inputs, (0, 1), point(scale))
        if math.isinf(ord):
            fill(primitives, total, 0.0)
        else:
            inputs.append(spread(scale, shape))
            primitives.reduce("sum", _magnitude(*given, ord), inputs, (0, 1), point(total))
        primitives.map(_record(dtype), [scale.view(), total.view()], [total.view()])


def rows_of_chunks(primitives: Primitives, table: Span, count: int, rows: Span, n: int) -> Span:
    """The row of a table that each of the chunks of ``n`` elements has, one after the other."""
    chunks, columns = -(-n // CHUNK), table.size // count
    rows = rows.part(0, chunks)
    index, out = scratch(primitives, chunks, int64), scratch(primitives, chunks * columns, table.dtype)
    primitives.map(conversion(rows.dtype, int64), [rows.view()], [index.view()])
    primitives.gather(
        View(table.buffer, table.offset, (1, count, columns), (table.size, columns, 1)),
        View(index.buffer, index.offset, (1, chunks, columns), (0, 1, 0)),
        View(out.buffer, out.offset, (1, chunks, columns), (out.size, columns, 1)),
    )
    return out


@cache
def _weighted(dtype: DType, ord: float) -> Expression:
    """The sum of a record relative to the largest scale of all."""

    def weighted(scale: Node, total: Node, largest: Node) -> Node:
        if math.isinf(ord):
            return total
        smaller = where(isfinite(largest), total * _power(scale / largest, ord), 0.0)
        return where(equal(scale, largest), total, where(isnan(total), total, smaller))

    return trace(weighted, (dtype,) * 3)


LEAST = {4: 2.0**-126, 8: 2.0**-1022}
"""The least normal number, by the bytes of a dtype."""

LARGE = {4: 2.0**7, 8: 2.0**60}
"""Up to here a maximal norm can be multiplied by 2^shift."""


@cache
def _decision(dtype: DType, ord: float, scaled: bool) -> Expression:
    """What the header says, in the order of :data:`DECIDED`, from the scale and the sum of all gradients."""
    size = dtype.itemsize
    large = 2.0 ** SHIFT[size]

    def decision(scale: Node, total: Node, *others: Node) -> tuple[Operand, ...]:
        *loss_scale, max_norm = others
        root = where(isnan(total), total, 1.0)
        if not math.isinf(ord):
            rooted = total if ord == 1 else sqrt(total) if ord == 2 else total ** (1.0 / ord)
            root = where(equal(scale, 0.0) | apply("isinf", scale), root, rooted)
        finite = isfinite(scale) & isfinite(total)
        carried: Operand = 1.0
        if scaled:
            carried, finite = cast(loss_scale[0], dtype), finite & equal(loss_scale[1], 0.0)
            scale = scale / carried
        share = max_norm / scale
        clips = finite & (scale != 0.0) & (share < root)
        multiplier = where(clips, share / root, 1.0) / carried
        tiny = (multiplier < LEAST[size]) & ~(clips & equal(max_norm, 0.0))
        shifted = where(max_norm > LARGE[size], share * large, max_norm * large / scale) / root
        multiplier = where(tiny, where(clips, shifted, large) / carried, multiplier)
        nonfinite = where(finite, 0.0, 1.0)
        return (
            scale * root,
            scale,
            root,
            nonfinite,
            multiplier,
            where(tiny, SHIFT[size], 0),
            nonfinite if scaled else 0.0,
        )

    return trace(decision, (dtype, dtype, *(float32,) * (2 * scaled)), (dtype,), stored=(dtype,) * len(DECIDED))


DECIDED = ("norm", "norm_scale", "norm_root", "nonfinite", "multiplier", "shift", "skip")


def prepare_step(
    primitives: Primitives,
    block: StepBlock,
    partials: Span | None,
    ord: float,
    max_norm: float,
    loss_scale: Span | None,
) -> None:
    """Reductions over the records, one map that decides, and the counters."""
    if partials is None:
        for name, value in (("multiplier", 1.0), ("shift", 0.0), ("skip", 0.0)):
            fill(primitives, header_entry(block.header, name), value)
    else:
        scale, total = _combined(primitives, partials, ord)
        inputs = [scale.view(), total.view()]
        if loss_scale is not None:
            inputs += [loss_scale.element(i).view() for i in (0, 1)]
        outputs = [header_entry(block.header, name).view() for name in DECIDED]
        expression = _decision(block.header.dtype, ord, loss_scale is not None)
        primitives.map(expression, inputs, outputs, (max_norm,))
    if block.rows:
        _renew(primitives, block)
        advance(primitives, block)


def _combined(primitives: Primitives, partials: Span, ord: float) -> tuple[Span, Span]:
    """The largest scale of all records, and the sum relative to it."""
    dtype, count = partials.dtype, partials.size // 2
    scale, total = (scratch(primitives, 1, dtype) for _ in range(2))
    if count == 0:
        fill(primitives, scale, 0.0)
        fill(primitives, total, 0.0)
    else:
        scales, sums = (column(partials, i, 2) for i in (0, 1))
        primitives.reduce("max", conversion(dtype, dtype), [scales], (0,), point(scale))
        records = [scales, sums, spread(scale, (count,))]
        primitives.reduce("sum", _weighted(dtype, ord), records, (0,), point(total))
    return scale, total


def _logs(block: StepBlock) -> dict[int, View]:
    """The logarithm of each beta whose bias correction is kept, by the correction's place among the counters."""
    assert block.hyper is not None
    columns = {COUNTERS.index(f"bias_correction{i}"): f"log_beta{i}" for i in (1, 2)}
    return {place: _hyper(block, name) for place, name in columns.items() if name in block.columns}


def _hyper(block: StepBlock, name: str) -> View:
    assert block.hyper is not None
    return column(block.hyper, block.columns.index(name), len(block.columns))


@cache
def _correction(dtype: DType) -> Expression:
    return trace(lambda step, log_beta: -expm1(step * log_beta), (dtype, dtype))


def _renew(primitives: Primitives, block: StepBlock) -> None:
    """Bias corrections of the coming step, from the betas as they are now."""
    assert block.counters is not None
    now = block.counters[block.slot]
    for place, log_beta in _logs(block).items():
        views = [column(now, i, len(COUNTERS)) for i in (0, place)]
        primitives.map(_correction(now.dtype), [views[0], log_beta], [views[1]])


@cache
def _advanced(dtype: DType, places: tuple[int, ...]) -> Expression:
    """The counters of the next step where a row moves, else those of this one."""

    def advanced(active: Node, skip: Node, *others: Node) -> list[Node]:
        now, logs = others[: len(COUNTERS)], dict(zip(places, others[len(COUNTERS) :], strict=True))
        following = dict(zip(COUNTERS, now, strict=True))
        carry: Node | None = None
        number: Node | None = None
        for place, digit in enumerate(("count_low", "count_middle", "count_high")):
            value = following[digit] + (1.0 if carry is None else where(carry, 1.0, 0.0))
            carry = equal(value, float(COUNT_BASE))
            following[digit] = value = where(carry, 0.0, value) if place < 2 else value
            # Integers round once on their way to a float; a sum of the digits as floats would round twice.
            part = cast(value, int64) * COUNT_BASE**place
            number = part if number is None else number + part
        assert number is not None
        following["step"] = cast(number, dtype)
        for place, log_beta in logs.items():
            following[COUNTERS[place]] = -expm1(following["step"] * log_beta)
        moves = (active != 0.0) & equal(skip, 0.0)
        return [where(moves, following[name], old) for name, old in zip(COUNTERS, now, strict=True)]

    count = 2 + len(COUNTERS) + len(places)
    return trace(advanced, (dtype,) * count, stored=(dtype,) * len(COUNTERS))


def advance(primitives: Primitives, block: StepBlock) -> None:
    """Write the counters of the step after the coming one to the other slot."""
    assert block.counters is not None
    now, following = block.counters[block.slot], block.counters[1 - block.slot]
    logs = _logs(block)
    old, new = ([column(x, i, len(COUNTERS)) for i in range(len(COUNTERS))] for x in (now, following))
    skip = spread(header_entry(block.header, "skip"), (block.rows,))
    primitives.map(_advanced(now.dtype, tuple(logs)), [_hyper(block, "active"), skip, *old, *logs.values()], new)


@cache
def adam_rule(
    p: DType,
    g: DType,
    state: tuple[DType, ...],
    *,
    l2: bool | None = None,
    decay: bool | None = None,
    keeps: bool | None = None,
) -> Expression:
    """The rule that ``fused_adam`` runs, with AMSGrad if there are three fields of state.

    ``l2``, ``decay`` and ``keeps`` say what the row asks for, where that is known; else the row itself says so.
    """
    names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    inputs = (p, g, *state)
    parameter, gradient, *fields = (Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs))
    s = SimpleNamespace(**dict(zip(names, fields, strict=False)))
    h = SimpleNamespace(**{name: Node("hyper", (), p.compute, name) for name in (*ADAM_COLUMNS, *COUNTERS)})
    if len(state) == 2:
        outputs = update_rules.adam(parameter, gradient, s, h, l2=l2, decay=decay)
    else:
        outputs = update_rules.amsgrad(parameter, gradient, s, h, l2=l2, decay=decay, keeps=keeps)
    return build(outputs, inputs, (), (p, *state), name="adam")


@cache
def needed(rule: Expression) -> tuple[str, ...]:
    """The hyper-parameters and counters that an update reads of each row."""
    named = {str(node.value) for node in rule.nodes() if node.op == "hyper"}
    return ("active", "sign", *sorted(named - {"active", "sign"}))


READ = ("skip", "multiplier", "shift")
"""What an update reads of the header."""


@cache
def over_columns(rule: Expression, dtype: DType, *, scaled_gradient: bool = True) -> Expression:
    """The rule with its hyper-parameters as inputs, behind its own, then :data:`READ`; what does not move stays."""
    names = (*needed(rule), *READ)
    count, moving = len(rule.inputs), len(rule.stored)
    given = {name: Node("input", (), dtype.compute, count + i) for i, name in enumerate(names)}
    gradient = rule.inputs[1].compute
    scaled = Node("input", (), gradient, 1)
    if scaled_gradient:
        prescale = where(given["shift"] != 0.0, 2.0 ** -SHIFT[dtype.itemsize], 1.0)
        scaled = scaled * cast(prescale, gradient) * cast(given["multiplier"] * given["sign"], gradient)

    def replaced(node: Node) -> Node:
        if node.op == "hyper":
            return cast(given[str(node.value)], node.dtype)
        return scaled if node.op == "input" and node.value == 1 else node

    moves = (given["active"] != 0.0) & equal(given["skip"], 0.0)
    old = [Node("input", (), rule.inputs[i].compute, i) for i in (0, *range(2, moving + 1))]
    new = rule.rewrite(replaced).outputs
    outputs = [where(moves, value, stays) for value, stays in zip(new, old, strict=True)]
    return build(outputs, (*rule.inputs, *(dtype,) * len(names)), (), rule.stored, name=rule.name)


def fused_update(
    primitives: Primitives,
    rule: Expression,
    p: Span,
    g: Span,
    state: Sequence[Span | BlockSpan],
    block: StepBlock,
    rows: Span,
) -> None:
    """One map over whole chunks, and one over the rest. What is kept in blocks is widened before, and written after."""
    if not p.size:
        return
    blocks = [(x, scratch(primitives, x.size, x.dtype)) for x in state if isinstance(x, BlockSpan)]
    for x, numbers in blocks:
        dequantize(primitives, x, numbers)
    widened = iter([numbers for _, numbers in blocks])
    fields = [next(widened) if isinstance(x, BlockSpan) else x for x in state]
    if len(rule.inputs) > len(fields) + 2:
        fields.append(_numbers(primitives, rows.offset * CHUNK, p.size))
    columns = columns_of_chunks(primitives, block, rows, p.size)
    run_over_chunks(primitives, over_columns(rule, block.header.dtype), needed(rule), p, g, fields, block, columns)
    for x, numbers in blocks:
        quantize(primitives, numbers, x)


def _numbers(primitives: Primitives, first: int, n: int) -> Span:
    """The numbers of elements, modulo 2^32."""
    numbers = scratch(primitives, n, int32)
    primitives.upload(np.arange(first, first + n, dtype=np.int64).astype(np.int32), numbers)
    return numbers


Columns = dict[str, tuple[Span, int, int]]
"""A table with a row for each chunk, the place of a value in its rows, and their length, by the value's name."""


def columns_of_chunks(primitives: Primitives, block: StepBlock, rows: Span, n: int) -> Columns:
    """What the rows of a step block say of each of the chunks of ``n`` elements."""
    assert block.hyper is not None
    assert block.counters is not None
    found: Columns = {}
    for table, names in ((block.hyper, block.columns), (block.counters[block.slot], COUNTERS)):
        own = rows_of_chunks(primitives, table, block.rows, rows, n)
        found |= {name: (own, i, len(names)) for i, name in enumerate(names)}
    return found


def run_over_chunks(
    primitives: Primitives,
    expression: Expression,
    names: Sequence[str],
    p: Span,
    g: Span,
    state: Sequence[Span],
    block: StepBlock,
    columns: Columns,
) -> None:
    """An expression of :func:`over_columns`, which reads ``names`` of each chunk."""
    for start, shape in pieces(p.size):
        fields = [piece(x, start, shape) for x in (p, g, *state)]
        read = [of_chunks(*columns[name], start, shape) for name in names]
        header = [spread(header_entry(block.header, name), shape) for name in READ]
        outputs = [fields[0], *fields[2 : 1 + len(expression.stored)]]
        primitives.map(expression, [*fields, *read, *header], outputs)
