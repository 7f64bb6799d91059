"""TensorPasses: what a rule with per-tensor values does after its first pass, for all tensors at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from netcl.arena import Arena
from netcl.backends.base import CHUNK, COUNTERS, Backend, Span, StepBlock, View, header_entry
from netcl.dtypes import DType, int64, uint16
from netcl.errors import HyperParameterError
from netcl.expression import (
    Expression,
    Node,
    build,
    cast,
    constant,
    equal,
    isfinite,
    nodes_of,
    rewrite,
    rounded,
    sqrt,
    trace,
    where,
)
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.shaped_state import Stored
from netcl.optim.engine.step_table import StepTable, counters_of
from netcl.optim.rule import OF_TENSORS, RATIO, Rule

MOST_TENSORS = 1 << 16
"""A row map names rows by uint16."""

BINS = 3
"""Sums of small, of middling and of large squares: see :func:`_binned`."""

_EDGES = {4: (40, 75, 84), 8: (400, 600, 700)}
"""By the bytes of a dtype, as powers of two: from where squares are large, and down from where small, and the factors
that bring both kinds to the middle."""


@dataclass(slots=True)
class Measured:
    """One launch's piece of a field whose norms are taken, by whole chunks and a rest."""

    values: Span
    master: Span | None
    chunk: int

    def pieces(self) -> Iterator[tuple[int, int, tuple[int, int]]]:
        """(first element, first chunk, shape) of each piece."""
        whole, rest = divmod(self.values.size, CHUNK)
        if whole:
            yield 0, self.chunk, (whole, CHUNK)
        if rest:
            yield whole * CHUNK, self.chunk + whole, (1, rest)


@dataclass(slots=True)
class TensorTable:
    """What each tensor's step is, on the device and on the host, for the second pass and for a rule's ``between``.

    Attributes
    ----------
    layout : Arena
    group_of : sequence of int
        The group of each tensor.
    groups : sequence of mapping
        All groups of the optimizer.
    block : StepBlock
        A row for each tensor: the hyper-parameters of its row of the step block, its counters, and its ratio.
    header : Span
        Of the step block: what says whether the step is skipped.
    """

    layout: Arena
    group_of: Sequence[int]
    groups: Sequence[Mapping[str, Any]]
    block: StepBlock
    header: Span
    rows_seen: Any = field(default=None, repr=False)

    def hyper(self, name: str) -> View:
        """A hyper-parameter of every tensor."""
        assert self.block.hyper is not None
        return _column(self.block.hyper, self.block.columns.index(name), len(self.block.columns))

    def counter(self, name: str) -> View:
        """A counter of every tensor."""
        assert self.block.counters is not None
        return _column(self.block.counters[0], COUNTERS.index(name), len(COUNTERS))


class TensorPasses:
    """The norms, the ratios and the second pass of one partition's tensors. Making one takes all memory.

    Parameters
    ----------
    layout : Arena
    compute : DType
    rule : Rule
        With ``per_tensor``.
    columns : tuple of str
        Those of the rule in the step table.
    group_of : sequence of int
        The group of each parameter, in the order of the layout.
    groups : sequence of mapping
        All groups of the optimizer, as they are at each step.

    Attributes
    ----------
    direction : Span
        ``u`` of every element.

    Raises
    ------
    HyperParameterError
        If there are more tensors than a row map can name.
    """

    def __init__(
        self,
        layout: Arena,
        compute: DType,
        rule: Rule,
        columns: tuple[str, ...],
        group_of: Sequence[int],
        groups: Sequence[Mapping[str, Any]],
    ) -> None:
        assert rule.per_tensor is not None
        backend, count, chunks = layout.backend, len(layout.segments), layout.chunks
        if count > MOST_TENSORS:
            raise HyperParameterError(
                f"a rule with per-tensor values takes at most {MOST_TENSORS} tensors of one device and dtype, got "
                f"{count}; give the others an optimizer of their own"
            )
        self._backend, self._compute, self._columns = backend, compute, columns
        self._expression = rule.second_expression(layout.dtype, columns)
        self._ratio, self._read = _ratio(rule, compute, columns)
        self._measured = [name for name in ("p", "u") if f".{name}" in self._read]
        self._counted = any(name in COUNTERS for name in self._read) or rule.per_tensor.between is not None
        self._master = tuple(rule.state).index("master") if "master" in rule.state else None
        self.direction = layout.like(compute)

        def put(numbers: list[float]) -> Span:
            made = Span(backend.alloc(len(numbers), compute), 0, len(numbers))
            backend.upload(np.array(numbers, STORAGE[compute]), made)
            return made

        block = StepBlock.allocate(put, (*columns, RATIO), [{}] * count)
        self.table = TensorTable(layout, group_of, groups, block, block.header)
        self._tensor_to_row = Span(backend.alloc(count, int64), 0, count)
        numbers = np.repeat(np.arange(count), [segment.chunks for segment in layout.segments])
        self._chunk_to_tensor = Span(backend.alloc(chunks, uint16), 0, chunks)
        backend.upload(numbers.astype(np.uint16), self._chunk_to_tensor)
        self._index = Span(backend.alloc(chunks, int64), 0, chunks)
        backend.upload(numbers.astype(np.int64), self._index)
        self._sizes = put([float(segment.size) for segment in layout.segments])
        width = BINS * len(self._measured)
        self._records = {name: (_zeros(backend, compute, chunks), _zeros(backend, compute, chunks)) for name in "pu"}
        self._binned = _zeros(backend, compute, chunks * width)
        self._sums = _zeros(backend, compute, count * width)
        self._between = None if rule.per_tensor.between is None else rule.per_tensor.between(self.table)

    def prepare(self) -> None:
        """Take the memory that a step needs, if the hyper-parameters call for more than so far. Does not block."""
        if self._between is not None:
            self._between.prepare()

    @property
    def stored(self) -> Sequence[Stored]:
        """The state of what runs between the passes."""
        return getattr(self._between, "stored", ())

    def rows(self, offset: int, size: int) -> Span:
        """The tensor of each chunk of these elements of the layout."""
        return self._chunk_to_tensor.part(offset // CHUNK, -(-size // CHUNK))

    def enqueue(self, table: StepTable, header: Span, slot: int, operands: Sequence[Any]) -> None:
        """All that comes after the first pass. Does not block.

        ``slot`` is that of the coming step's counters; the first pass may have written the other.
        """
        self.table.header = header
        self._gather_rows(table, slot)
        if self._between is not None:
            self._between.run(self.direction)
        self._take_norms(operands)
        self._make_ratios(header)
        block = self.table.block
        for run in operands:
            u = self.direction.part(run.offset, run.parameters.size)
            rows = self.rows(run.offset, run.parameters.size)
            state = run.state[:-1]
            self._backend.fused_update(self._expression, run.parameters, u, state, block, rows, advance=False)

    def _gather_rows(self, table: StepTable, slot: int) -> None:
        """Give each tensor the hyper-parameters, and if they are read the counters, of its row of the step table."""
        if self.table.rows_seen is not table.row_of:
            self._backend.upload(table.row_of.astype(np.int64), self._tensor_to_row)
            self.table.rows_seen = table.row_of
        block, source = self.table.block, table.block
        assert block.hyper is not None
        assert source.hyper is not None
        assert block.counters is not None
        self._gather(source.hyper, len(self._columns), source.rows, block.hyper, len(block.columns))
        if self._counted:
            width = len(COUNTERS)
            self._gather(counters_of(source)[slot], width, source.rows, block.counters[0], width)

    def _gather(self, x: Span, width: int, rows: int, out: Span, out_width: int) -> None:
        count, index = self._tensor_to_row.size, self._tensor_to_row
        self._backend.gather(
            View(x.buffer, x.offset, (1, rows, width), (rows * width, width, 1)),
            View(index.buffer, index.offset, (1, count, width), (0, 1, 0)),
            View(out.buffer, out.offset, (1, count, width), (count * out_width, out_width, 1)),
        )

    def _take_norms(self, operands: Sequence[Any]) -> None:
        """A record for each chunk, and from these the sums of each tensor."""
        if not self._measured or not self._index.size:
            return
        for name in self._measured:
            largest, total = self._records[name]
            for run in operands:
                for start, chunk, shape in self._measured_of(name, run).pieces():
                    self._reduce(name, run, start, shape, largest.part(chunk, shape[0]), total.part(chunk, shape[0]))
        records = [each.view() for name in self._measured for each in self._records[name]]
        width = BINS * len(self._measured)
        columns = [_column(self._binned, i, width) for i in range(width)]
        self._backend.map(_binned(self._compute, len(self._measured)), records, columns)
        self._backend.fill(self._sums, 0)
        chunks, count = self._index.size, self._tensor_to_row.size
        self._backend.scatter_add(
            View(self._binned.buffer, 0, (1, chunks, width), (chunks * width, width, 1)),
            View(self._index.buffer, 0, (1, chunks, width), (0, 1, 0)),
            View(self._sums.buffer, 0, (1, count, width), (count * width, width, 1)),
        )

    def _measured_of(self, name: str, run: Any) -> Measured:
        if name == "u":
            return Measured(self.direction.part(run.offset, run.parameters.size), None, run.offset // CHUNK)
        master = None if self._master is None else run.state[self._master]
        return Measured(run.parameters, master, run.offset // CHUNK)

    def _reduce(self, name: str, run: Any, start: int, shape: tuple[int, int], largest: Span, total: Span) -> None:
        measured = self._measured_of(name, run)
        fields = [measured.values] if measured.master is None else [measured.values, measured.master]
        inputs = [View(x.buffer, x.offset + start, shape, (CHUNK, 1)) for x in fields]
        dtypes = tuple(x.dtype for x in fields)
        self._backend.reduce("max", _magnitude(dtypes, None), inputs, (1,), largest.view())
        inputs.append(View(largest.buffer, largest.offset, shape, (1, 0)))
        self._backend.reduce("sum", _magnitude(dtypes, self._compute), inputs, (1,), total.view())

    def _make_ratios(self, header: Span) -> None:
        """Write each tensor's ratio; none is active where the step is skipped, and the sign is in the direction."""
        table, count = self.table, self._tensor_to_row.size
        width = BINS * len(self._measured)
        inputs = [table.hyper("active"), _spread(header_entry(header, "skip"), count)]
        inputs += [_column(self._sums, i, width) for i in range(width)]
        for name in self._read:
            if name == ".size":
                inputs.append(self._sizes.view())
            elif not name.startswith("."):
                inputs.append(table.counter(name) if name in COUNTERS else table.hyper(name))
        outputs = [table.hyper(name) for name in ("active", "sign", RATIO)]
        self._backend.map(self._ratio, inputs, outputs)


def _zeros(backend: Backend, dtype: DType, size: int) -> Span:
    made = Span(backend.alloc(size, dtype), 0, size)
    backend.fill(made, 0)
    return made


def _column(x: Span, index: int, width: int) -> View:
    return View(x.buffer, x.offset + index, (x.size // width,), (width,))


def _spread(x: Span, size: int) -> View:
    return View(x.buffer, x.offset, (size,), (0,))


@lru_cache(maxsize=64)
def _magnitude(dtypes: tuple[DType, ...], total: DType | None) -> Expression:
    """|x|, or for a sum its square relative to the chunk's largest.

    The parameter is its master weight wherever that rounds to it.
    """
    compute = dtypes[0].compute

    def magnitude(x: Node, *others: Node) -> Node:
        rest = list(others)
        if len(dtypes) > 1:
            master = rest.pop(0)
            x = where(equal(rounded(master, dtypes[0]), x), master, x)
        if total is None:
            return abs(x)
        largest = rest.pop(0)
        edge, small, _ = _EDGES[compute.itemsize]
        # What is divided by is a normal number, for some devices take the others as zeros.
        lift = where(largest < 2.0**-edge, 2.0**small, 1.0)
        divisor = largest * lift
        share = x * lift / where(equal(divisor, 0.0), 1.0, divisor)
        return share * share

    largest = () if total is None else (compute,)
    return trace(magnitude, (*dtypes, *largest), stored=(compute,))


@lru_cache(maxsize=16)
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


def _norm(small: Node, middle: Node, large: Node, size: int) -> Node:
    """The norm from its three bins: the smaller bins matter to the next larger alone."""
    _, up, down = _EDGES[size]
    largest = sqrt(large + _twice(middle, -down)) * 2.0**down
    of_middle = sqrt(middle + _twice(small, -up))
    norm: Node = where(equal(large, 0.0), where(equal(middle, 0.0), sqrt(small) * 2.0**-up, of_middle), largest)
    return norm


def _twice(x: Node, exponent: int) -> Node:
    """``x`` times the square of a power of two that the dtype may not hold."""
    return x * 2.0**exponent * 2.0**exponent


def _ratio(rule: Rule, compute: DType, columns: tuple[str, ...]) -> tuple[Expression, list[str]]:
    """Active, sign and ratio of a tensor, and the names of what is read for it, in the order of the inputs.

    Inputs: active, skip, the bins of each norm that is read, and what else is.
    """
    root = rule.ratio_of(compute, columns)
    found = {str(node.value) for node in nodes_of([root]) if node.op == "hyper"}
    read = [f".{name}" for name in OF_TENSORS if f".{name}" in found]
    read += sorted(name for name in found if not name.startswith("."))
    count = 0

    def taken() -> Node:
        nonlocal count
        count += 1
        return Node("input", (), compute, count - 1)

    active, skip = taken(), taken()
    given: dict[str, Node] = {}
    for name in (".p", ".u"):
        if name in read:
            given[name] = _norm(taken(), taken(), taken(), compute.itemsize)
    for name in read:
        if name not in given:
            given[name] = taken()
    (made,) = rewrite([root], lambda node: given[str(node.value)] if node.op == "hyper" else node)
    moves = where(equal(skip, 0.0), active, 0.0)
    outputs = [moves, constant(1.0, compute), cast(made, compute)]
    return build(outputs, (compute,) * count, stored=(compute,) * 3, name="ratio"), read
