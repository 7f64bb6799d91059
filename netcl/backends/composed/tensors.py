"""Values of whole tensors over ``map``, ``reduce``, ``gather`` and ``scatter_add``: norms, ratios and the update.

The norms are those of chunks, added up by tensor. What belongs to a tensor then comes back to its chunks, where the
rows of the step table are too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache

from netcl.backends.base import CHUNK, Span, StepBlock, TensorMap, TensorRule, View
from netcl.backends.composed.flat import fill
from netcl.backends.composed.primitives import Primitives, column, piece, pieces, scratch
from netcl.backends.composed.step import (
    Columns,
    columns_of_chunks,
    needed,
    over_columns,
    rows_of_chunks,
    run_over_chunks,
)
from netcl.dtypes import DType, int64
from netcl.expression import (
    Expression,
    Node,
    build,
    equal,
    isfinite,
    nodes_of,
    rewrite,
    sqrt,
    trace,
    where,
)

BINS = 3
"""Sums of small, of middling and of large squares: see :func:`_binned`."""

_EDGES = {4: (40, 75, 84), 8: (400, 600, 700)}
"""By the bytes of a dtype, as powers of two: from where squares are large, and down from where small, and the factors
that bring both kinds to the middle."""


def tensors_within(tensors: TensorMap, chunk: int, n: int) -> tuple[int, int]:
    """The first tensor whose chunks ``n`` elements from a chunk on hold, and how many there are."""
    first = bisect_left(tensors.starts, chunk)
    return first, bisect_left(tensors.starts, chunk - -n // CHUNK) - first


def follow(
    primitives: Primitives,
    rule: TensorRule,
    p: Span,
    state: Sequence[Span],
    block: StepBlock,
    rows: Span,
    tensors: TensorMap,
    chunk: int,
) -> None:
    """Everything of ``tensor_update`` but its first pass."""
    if not p.size:
        return
    dtype, chunks = block.header.dtype, -(-p.size // CHUNK)
    first, count = tensors_within(tensors, chunk, p.size)
    of_chunk = scratch(primitives, chunks, int64)
    named = tensors.of_chunk.part(chunk, chunks)
    primitives.map(_less(named.dtype), [named.view()], [of_chunk.view()], [first])
    columns = columns_of_chunks(primitives, block, rows, p.size)
    inputs: list[View] = []
    if rule.measured:
        width = BINS * len(rule.measured)
        sums = _sums(primitives, rule, [p, *state], of_chunk, count, dtype)
        bins = rows_of_chunks(primitives, sums, count, of_chunk, p.size)
        inputs += [column(bins, i, width) for i in range(width)]
    inputs.append(rows_of_chunks(primitives, tensors.sizes.part(first, count), count, of_chunk, p.size).view())
    named_columns = [column(table, i, width) for table, i, width in _of(columns, _read(rule.ratio))]
    ratio = scratch(primitives, chunks, dtype)
    primitives.map(_ratio(rule.ratio, len(rule.measured)), [*inputs, *named_columns], [ratio.view()])
    columns["ratio"] = (ratio, 0, 1)
    update = over_columns(rule.update, dtype, scaled_gradient=False)
    run_over_chunks(primitives, update, needed(rule.update), p, state[-1], state[:-1], block, columns)


def _of(columns: Columns, names: Sequence[str]) -> list[tuple[Span, int, int]]:
    return [columns[name] for name in names]


@cache
def _less(dtype: DType) -> Expression:
    return trace(lambda x, first: x - first, (dtype,), (int64,), stored=(int64,))


def _sums(
    primitives: Primitives, rule: TensorRule, fields: Sequence[Span], of_chunk: Span, count: int, dtype: DType
) -> Span:
    """The bins of each norm of each tensor."""
    chunks, width = of_chunk.size, BINS * len(rule.measured)
    records = [scratch(primitives, chunks, dtype) for _ in range(2 * len(rule.measured))]
    n = fields[0].size
    for number, measured in enumerate(rule.measured):
        largest, total = records[2 * number : 2 * number + 2]
        used, magnitude, share = _magnitudes(measured, dtype)
        for start, shape in pieces(n):
            at, some = start // CHUNK, shape[0]
            inputs = [piece(fields[i], start, shape) for i in used]
            primitives.reduce("max", magnitude, inputs, (1,), largest.part(at, some).view())
            inputs.append(View(largest.buffer, largest.offset + at, shape, (1, 0)))
            primitives.reduce("sum", share, inputs, (1,), total.part(at, some).view())
    binned, sums = scratch(primitives, chunks * width, dtype), scratch(primitives, count * width, dtype)
    outputs = [column(binned, i, width) for i in range(width)]
    primitives.map(_binned(dtype, len(rule.measured)), [record.view() for record in records], outputs)
    fill(primitives, sums, 0.0)
    primitives.scatter_add(
        View(binned.buffer, 0, (1, chunks, width), (chunks * width, width, 1)),
        View(of_chunk.buffer, of_chunk.offset, (1, chunks, width), (0, 1, 0)),
        View(sums.buffer, 0, (1, count, width), (count * width, width, 1)),
    )
    return sums


@cache
def _magnitudes(measured: Expression, dtype: DType) -> tuple[tuple[int, ...], Expression, Expression]:
    """The inputs that are read, |x| of what is measured, and its square relative to the chunk's largest."""
    (x,) = measured.outputs
    used = sorted({int(node.value) for node in nodes_of([x]) if node.op == "input"})  # type: ignore[arg-type]

    def moved(node: Node) -> Node:
        is_input = node.op == "input"
        return Node("input", (), node.dtype, used.index(int(node.value))) if is_input else node  # type: ignore[arg-type]

    (x,) = rewrite([x], moved)
    inputs = tuple(measured.inputs[i] for i in used)
    largest = Node("input", (), dtype, len(used))
    edge, small, _ = _EDGES[dtype.itemsize]
    # What is divided by is a normal number, for some devices take the others as zeros.
    lift = where(largest < 2.0**-edge, 2.0**small, 1.0)
    divisor = largest * lift
    share = x * lift / where(equal(divisor, 0.0), 1.0, divisor)
    magnitude = build([abs(x)], inputs, stored=(dtype,), name="magnitude")
    return tuple(used), magnitude, build([share * share], (*inputs, dtype), stored=(dtype,), name="share")


@cache
def _binned(dtype: DType, count: int) -> Expression:
    """Squared norms of chunks, from their records, as terms that can be added: each in one of three bins.

    A bin holds squares of one range of size, multiplied into the middle of what the dtype holds, so that no sum
    overflows or underflows (J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector", 1978).
    """
    edge, small, large = _EDGES[dtype.itemsize]

    def terms(*records: Node) -> list[Node]:
        made: list[Node] = []
        for largest, total in zip(records[::2], records[1::2], strict=True):
            # Infinity stands for itself, and so does NaN.
            total = where(isfinite(largest), total, 1.0)
            is_small, is_large = largest < 2.0**-edge, ~(largest <= 2.0**edge)
            for inside, factor in (
                (is_small, 2.0**small),
                (~(is_small | is_large), 1.0),
                (is_large, 2.0**-large),
            ):
                scaled = where(inside, largest * factor, 0.0)
                made.append(where(inside, scaled * scaled * total, 0.0))
        return made

    return trace(terms, (dtype,) * (2 * count), stored=(dtype,) * (BINS * count))


def _norm(bins: Sequence[Node], size: int) -> Node:
    """The norm from its three bins: the smaller bins matter to the next larger alone."""
    small, middle, large = bins
    _, up, down = _EDGES[size]
    largest = sqrt(large + _twice(middle, -down)) * 2.0**down
    of_middle = sqrt(middle + _twice(small, -up))
    norm: Node = where(equal(large, 0.0), where(equal(middle, 0.0), sqrt(small) * 2.0**-up, of_middle), largest)
    return norm


def _twice(x: Node, exponent: int) -> Node:
    """``x`` times the square of a power of two that the dtype may not hold."""
    return x * 2.0**exponent * 2.0**exponent


@cache
def _read(ratio: Expression) -> tuple[str, ...]:
    """The hyper-parameters and counters that a ratio reads."""
    return tuple(sorted({str(node.value) for node in ratio.nodes() if node.op == "hyper"}))


@cache
def _ratio(ratio: Expression, norms: int) -> Expression:
    """The ratio of a tensor, of the bins of each norm, the size, and what :func:`_read` names."""
    dtype = ratio.stored[0]
    names = {name: BINS * norms + 1 + i for i, name in enumerate(_read(ratio))}

    def taken(place: int) -> Node:
        return Node("input", (), dtype, place)

    values = [_norm([taken(BINS * i + j) for j in range(BINS)], dtype.itemsize) for i in range(norms)]
    values.append(taken(BINS * norms))

    def given(node: Node) -> Node:
        if node.op == "hyper":
            return taken(names[str(node.value)])
        return values[int(node.value)] if node.op == "input" else node  # type: ignore[arg-type]

    outputs = rewrite(ratio.outputs, given)
    return build(outputs, (dtype,) * (BINS * norms + 1 + len(names)), stored=(dtype,), name="ratio")
