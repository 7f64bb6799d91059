"""StepTable: which parameters take which steps, with which hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netcl.backends.base import COUNT_BASE, COUNTERS, ROW, Backend, Span, StepBlock, counter_row
from netcl.dtypes import DType, uint16
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.group import ParameterGroup
from netcl.optim.rule import Rule


@dataclass(slots=True)
class ParameterSet:
    """A row of the table: parameters of one group that have taken the same steps, by their position in the arena."""

    group: int
    members: set[int]
    active: bool = True


class StepTable:
    """The table that one launch reads: a row of hyper-parameters and counters for each group and step count.

    Parameters
    ----------
    backend : Backend
    compute : DType
        The dtype of the step block.
    rule : Rule
    columns : tuple of str
        Those of the rule.
    groups : sequence of ParameterGroup
        All groups of the optimizer, as they are at each step.
    group_of : sequence of int
        The group of each parameter.
    chunks : sequence of int
        How many chunks each parameter has in the arena.

    Attributes
    ----------
    block : StepBlock
    chunk_to_row : Span
        One uint16 for each chunk: its row.
    row_of : numpy.ndarray
        The row of each parameter; another array after every change.
    """

    def __init__(
        self,
        backend: Backend,
        compute: DType,
        rule: Rule,
        columns: tuple[str, ...],
        groups: Sequence[ParameterGroup],
        group_of: Sequence[int],
        chunks: Sequence[int],
    ) -> None:
        self._backend = backend
        self._compute = compute
        self._rule = rule
        self._groups = groups
        self._group_of = group_of
        self._chunks = chunks
        self.columns = columns
        self._host_dtype = STORAGE[compute]
        self._rows = [
            ParameterSet(number, {i for i, group in enumerate(group_of) if group == number})
            for number in sorted(set(group_of))
        ]
        self.chunk_to_row = Span(backend.alloc(sum(chunks), uint16), 0, sum(chunks))
        self.block = self._new_block(max(8, 2 * len(self._rows)))
        self._table: np.ndarray[Any, Any] = np.zeros(0)
        self._versions: list[int] = []
        self._upload_map()

    @property
    def any_active(self) -> bool:
        """Whether any parameter has a gradient."""
        return True in [row.active for row in self._rows]  # no generator, at every step

    def take_over(self, earlier: StepTable, position: Mapping[int, int]) -> None:
        """Go on from the step counts of fewer parameters; ``position`` says where each of those is now."""
        rows = [ParameterSet(row.group, {position[i] for i in row.members}) for row in earlier._rows]
        known = set().union(*(row.members for row in rows))
        self._rows = rows + [ParameterSet(row.group, row.members - known) for row in self._rows if row.members - known]
        self.block = self._continued(earlier.block, max(8, 2 * len(self._rows), earlier.block.rows))
        self._upload_map()

    def with_rule(self, columns: tuple[str, ...]) -> StepBlock:
        """A block with the columns of another rule, which continues these counters; for :meth:`adopt`."""
        return self.block if columns == self.columns else self._continued(self.block, self.block.rows, columns)

    def adopt(self, rule: Rule, columns: tuple[str, ...], block: StepBlock) -> None:
        """Follow another rule from now on."""
        self._rule, self.columns, self.block = rule, columns, block
        self._table, self._versions = np.zeros(0), []

    def _new_block(self, rows: int, columns: tuple[str, ...] | None = None) -> StepBlock:
        def put(numbers: list[float]) -> Span:
            made = Span(self._backend.alloc(len(numbers), self._compute), 0, len(numbers))
            self._backend.upload(np.array(numbers, self._host_dtype), made)
            return made

        return StepBlock.allocate(put, self.columns if columns is None else columns, [{}] * rows)

    def _upload_map(self) -> None:
        row_of = np.zeros(len(self._chunks), np.uint16)
        for number, row in enumerate(self._rows):
            row_of[list(row.members)] = number
        self.row_of = row_of
        self._backend.upload(np.repeat(row_of, self._chunks), self.chunk_to_row)

    def split(self, active: set[int]) -> None:
        """Give parameters that take different steps from now on rows of their own, each with the steps so far."""
        before = [row.active for row in self._rows]
        parted = [number for number, row in enumerate(self._rows) if row.members & active and not row.members <= active]
        # What takes memory, and may find none, comes before any row is changed.
        self._grow(len(self._rows) + len(parted))
        for number in parted:
            row = self._rows[number]
            self._copy_counters(number, len(self._rows))
            self._rows.append(ParameterSet(row.group, row.members - active, active=False))
            row.members = row.members & active
        for row in self._rows:
            row.active = bool(row.members & active)
        if parted:
            self._upload_map()
        if before != [row.active for row in self._rows]:
            self._versions = []

    def _grow(self, rows: int) -> None:
        if rows > self.block.rows:
            self.block = self._continued(self.block, max(8, 2 * rows))
            self._table = np.zeros(0)

    def _continued(self, old: StepBlock, rows: int, columns: tuple[str, ...] | None = None) -> StepBlock:
        """A block of at least as many rows, which continues the counters of an old one."""
        block = self._new_block(rows, columns)
        block.slot = old.slot
        for source, target in zip(counters_of(old), counters_of(block), strict=True):
            used = target.part(0, source.size)
            self._backend.fill(used, 0)
            self._backend.axpy(1, source, used)
        return block

    def _copy_counters(self, source: int, target: int) -> None:
        width = len(COUNTERS)
        for slot in counters_of(self.block):
            copy = slot.part(target * width, width)
            self._backend.fill(copy, 0)
            self._backend.axpy(1, slot.part(source * width, width), copy)

    def write(self, workers: int, *, decided: bool) -> bool:
        """Send the hyper-parameters to the device if any of them changed. Does not block.

        ``workers`` is how many gradients were summed; ``decided`` says that the coming step was decided already, for
        the rows that were active then. Returns whether what was prepared for that step is out of date.
        """
        versions = [workers, *(group.version for group in self._groups)]
        if versions == self._versions:
            return False
        hyper = {number: self._rule.hyper(self._groups[number]) for number in {row.group for row in self._rows}}
        names = self.columns[len(ROW) :]
        table = np.array(
            [
                [
                    float(row.active),
                    (-1.0 if self._groups[row.group].get("maximize") else 1.0) / workers,
                    *(hyper[row.group][name] for name in names),
                ]
                for row in self._rows
            ],
            self._host_dtype,
        )
        self._versions = versions
        known = self._table
        if np.array_equal(table, known):
            return False
        assert self.block.hyper is not None
        self._backend.upload(table.reshape(-1), self.block.hyper.part(0, table.size))
        self._table = table
        # The bias corrections of this step are there already, made with the decay rates of then.
        deciding = [i for i, name in enumerate(self.columns) if name.startswith("log_beta")]
        deciding += [self.columns.index("active")] if decided else []
        return table.shape != known.shape or not np.array_equal(table[:, deciding], known[:, deciding])

    def steps(self) -> dict[int, int]:
        """How many steps each parameter has taken. **Blocks**."""
        counters = self._backend.download(counters_of(self.block)[self.block.slot]).reshape(-1, len(COUNTERS))
        taken: dict[int, int] = {}
        for row, counter in zip(self._rows, counters, strict=False):
            low, middle, high = (int(digit) for digit in counter[_DIGITS])
            taken |= dict.fromkeys(row.members, low + COUNT_BASE * (middle + COUNT_BASE * high) - 1)
        return taken

    def block_for(self, steps: Sequence[int]) -> StepBlock:
        """A block that continues from these step counts, one for each parameter; for :meth:`restore`."""
        return self._new_block(max(8, 2 * len(self._by_step(steps))))

    def restore(self, steps: Sequence[int], block: StepBlock) -> None:
        """Go on from these step counts, in a block of :meth:`block_for`. Does not block."""
        rows = self._by_step(steps)
        self._rows = [ParameterSet(group, members) for (group, _), members in rows.items()]
        self.block = block
        taken = [step for _, step in rows]
        counters = _counters(taken + [0] * (block.rows - len(taken)), self._host_dtype)
        for slot in counters_of(block):
            self._backend.upload(counters.reshape(-1), slot)
        self._upload_map()
        self._table, self._versions = np.zeros(0), []

    def _by_step(self, steps: Sequence[int]) -> dict[tuple[int, int], set[int]]:
        rows: dict[tuple[int, int], set[int]] = {}
        for i, (group, step) in enumerate(zip(self._group_of, steps, strict=True)):
            rows.setdefault((group, step), set()).add(i)
        return rows


_DIGITS = [COUNTERS.index(f"count_{digit}") for digit in ("low", "middle", "high")]


def _counters(taken: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """Counter rows of parameters that have taken so many steps."""
    counters = np.array([counter_row(step + 1, {}) for step in taken], dtype)
    # Rounds once, as it does on a device.
    counters[:, COUNTERS.index("step")] = np.array([step + 1 for step in taken], np.uint64).astype(dtype)
    return counters


def counters_of(block: StepBlock) -> tuple[Span, Span]:
    """The counters for this step and for the next, as long as the block has rows."""
    assert block.counters is not None
    return block.counters
