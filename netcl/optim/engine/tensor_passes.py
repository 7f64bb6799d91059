"""TensorPasses: both passes of a rule with per-tensor values, for all tensors at once, and what comes between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from netcl.arena import Arena
from netcl.backends.base import CHUNK, COUNTERS, RECORDS, Backend, Span, TensorMap, TensorRule, View
from netcl.dtypes import DType, int64, uint16
from netcl.errors import HyperParameterError
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.shaped_state import Stored
from netcl.optim.engine.step_table import StepTable, counters_of
from netcl.optim.rule import Rule

MOST_TENSORS = 1 << 16
"""The number of a chunk's tensor is a uint16."""


class TensorTable:
    """What the tensors of a rule's ``between`` are, and what each tensor's step is, on the device. Takes all memory.

    Parameters
    ----------
    layout : Arena
    group_of : sequence of int
    groups : sequence of mapping
    columns : tuple of str
        Those of the step table.

    Attributes
    ----------
    layout : Arena
    group_of : sequence of int
        The group of each tensor.
    groups : sequence of mapping
        All groups of the optimizer.
    header : Span
        Of the step block, once :meth:`follow` was called: what says whether the step is skipped.
    """

    header: Span

    def __init__(
        self, layout: Arena, group_of: Sequence[int], groups: Sequence[Mapping[str, Any]], columns: tuple[str, ...]
    ) -> None:
        self.layout, self.group_of, self.groups = layout, group_of, groups
        self._columns = columns
        self._count, self._backend = len(layout.segments), layout.backend
        compute = layout.dtype.compute
        self._hyper = _take(self._backend, self._count * len(columns), compute)
        self._counters = _take(self._backend, self._count * len(COUNTERS), compute)
        self._row_of = _take(self._backend, self._count, int64)
        self._step: StepTable | None = None
        self._rows_seen: Any = None

    def follow(self, step: StepTable) -> None:
        """Be about the coming step of this table, before the first launch of which moves its slot."""
        self._step, self.header = step, step.block.header

    def gather(self) -> None:
        """Give each tensor the hyper-parameters and counters of its row: two launches. Does not block."""
        assert self._step is not None
        step, block = self._step, self._step.block
        if self._rows_seen is not step.row_of:
            self._backend.upload(step.row_of.astype(np.int64), self._row_of)
            self._rows_seen = step.row_of
        assert block.hyper is not None
        for source, out in ((block.hyper, self._hyper), (counters_of(block)[block.slot], self._counters)):
            width = out.size // self._count
            self._backend.gather(
                View(source.buffer, source.offset, (1, block.rows, width), (block.rows * width, width, 1)),
                View(self._row_of.buffer, self._row_of.offset, (1, self._count, width), (0, 1, 0)),
                View(out.buffer, out.offset, (1, self._count, width), (out.size, width, 1)),
            )

    def hyper(self, name: str) -> View:
        """A hyper-parameter of every tensor, as gathered."""
        return _column(self._hyper, self._columns.index(name), len(self._columns))

    def counter(self, name: str) -> View:
        """A counter of every tensor, as gathered."""
        return _column(self._counters, COUNTERS.index(name), len(COUNTERS))


@dataclass(slots=True)
class TensorPasses:
    """The update of one partition's tensors. :meth:`of` makes one, and takes all memory.

    Attributes
    ----------
    rule : TensorRule
    direction : Span
        ``u`` of every element.
    tensors : TensorMap
    table : TensorTable or None
        For what runs between the passes.
    """

    rule: TensorRule
    direction: Span
    tensors: TensorMap
    table: TensorTable | None = None
    _between: Any = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        layout: Arena,
        rule: Rule,
        columns: tuple[str, ...],
        group_of: Sequence[int],
        groups: Sequence[Mapping[str, Any]],
    ) -> TensorPasses:
        """The passes of a rule with ``per_tensor``.

        Parameters
        ----------
        layout : Arena
        rule : Rule
        columns : tuple of str
            Those of the rule in the step table.
        group_of : sequence of int
            The group of each parameter, in the order of the layout.
        groups : sequence of mapping
            All groups of the optimizer, as they are at each step.

        Raises
        ------
        HyperParameterError
            If there are more tensors than a map can name, or what runs between the passes has a field of the same name
            as the rule.
        """
        assert rule.per_tensor is not None
        if len(layout.segments) > MOST_TENSORS:
            raise HyperParameterError(
                f"a rule with per-tensor values takes at most {MOST_TENSORS} tensors of one device and dtype, got "
                f"{len(layout.segments)}; give the others an optimizer of their own"
            )
        made = cls(
            rule.tensor_rule(layout.dtype, layout.dtype, columns), layout.like(layout.dtype.compute), _map_of(layout)
        )
        if rule.per_tensor.between is not None:
            made.table = TensorTable(layout, group_of, groups, columns)
            made._between = rule.per_tensor.between(made.table)
            for each in made.stored:
                if each.name in rule.state:
                    raise HyperParameterError(
                        f"{each.name!r} names two state fields, one of them of whole tensors; give the other another "
                        "name"
                    )
        return made

    def prepare(self) -> None:
        """Take the memory that a step needs, if the hyper-parameters call for more than so far. Does not block."""
        if self._between is not None:
            self._between.prepare()

    @property
    def stored(self) -> Sequence[Stored]:
        """The state of what runs between the passes."""
        return getattr(self._between, "stored", ())

    def enqueue(self, backend: Backend, step: StepTable, operands: Sequence[Any], *, advance: bool) -> None:
        """All of a step, for each of ``operands``. Does not block."""
        if self.table is not None and operands:
            self.table.follow(step)
            for run in operands:
                p, g, state = run.parameters, run.gradients, run.state
                backend.fused_update(self.rule.direction, p, g, state, step.block, run.rows, advance=advance)
                advance = False
            self._between.run(self.direction)
        for run in operands:
            backend.tensor_update(
                self.rule,
                run.parameters,
                run.gradients if self.table is None else None,
                run.state,
                step.block,
                run.rows,
                self.tensors,
                chunk=run.offset // CHUNK,
                advance=advance,
            )
            advance = False


def _map_of(layout: Arena) -> TensorMap:
    """Where the arrays of a layout lie, on its device."""
    backend, compute = layout.backend, layout.dtype.compute
    chunks = [segment.chunks for segment in layout.segments]
    starts = [0, *accumulate(chunks)]
    of_chunk = np.repeat(np.arange(len(chunks)), chunks).astype(np.uint16)
    sizes = np.array([segment.size for segment in layout.segments], STORAGE[compute])
    return TensorMap(
        starts,
        _put(backend, np.array(starts, np.int64), int64),
        _put(backend, of_chunk, uint16),
        _put(backend, sizes, compute),
        _take(backend, RECORDS * (starts[-1] + len(chunks)), compute),
    )


def _put(backend: Backend, values: np.ndarray[Any, Any], dtype: DType) -> Span:
    made = _take(backend, values.size, dtype)
    backend.upload(values, made)
    return made


def _take(backend: Backend, size: int, dtype: DType) -> Span:
    return Span(backend.alloc(size, dtype), 0, size)


def _column(x: Span, index: int, width: int) -> View:
    return View(x.buffer, x.offset + index, (x.size // width,), (width,))
