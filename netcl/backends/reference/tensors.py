"""Updates by values of whole tensors on any Array-API namespace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, final

import numpy as np

from netcl.backends.base import CHUNK, COUNTERS, HEADER, Span, StepBlock, TensorMap, TensorRule, View
from netcl.backends.composed.tensors import tensors_within
from netcl.backends.reference.evaluation import Evaluation
from netcl.backends.reference.memory import Memory
from netcl.backends.reference.update import NORM_BLOCK, UpdateCalls
from netcl.expression import Expression, Node, build, rewrite
from netcl.host_dtypes import STORAGE


@cache
def _over_columns(ratio: Expression) -> tuple[Expression, tuple[str, ...]]:
    """A ratio with its hyper-parameters as further inputs, and their names."""
    names = tuple(sorted({str(node.value) for node in ratio.nodes() if node.op == "hyper"}))
    count = len(ratio.inputs)

    def given(node: Node) -> Node:
        if node.op != "hyper":
            return node
        return Node("input", (), node.dtype, count + names.index(str(node.value)))

    inputs = (*ratio.inputs, *ratio.stored * len(names))
    return build(rewrite(ratio.outputs, given), inputs, stored=ratio.stored, name="ratio"), names


@final
class TensorCalls:
    """``tensor_update`` of :class:`~netcl.backends.base.UpdateOperations` over a namespace."""

    def __init__(self, memory: Memory, evaluation: Evaluation, update: UpdateCalls) -> None:
        self._memory = memory
        self._xp = memory.namespace.xp
        self._evaluation = evaluation
        self._update = update

    def tensor_update(
        self,
        rule: TensorRule,
        p: Span,
        g: Span | None,
        state: Sequence[Span],
        block: StepBlock,
        rows: Span,
        tensors: TensorMap,
        *,
        chunk: int,
        advance: bool,
    ) -> None:
        if g is not None:
            self._update.fused_update(rule.direction, p, g, state, block, rows, advance=advance)
        if self._memory.download(block.header)[HEADER.index("skip")] != 0 or not p.size:
            return
        first, count = tensors_within(tensors, chunk, p.size)
        starts = np.array(tensors.starts[first : first + count + 1]) - chunk
        kept = np.flatnonzero(np.diff(starts))  # those with elements
        starts = np.append(starts[kept], starts[-1])
        counters, hyper = self._update.tables(block)
        row = self._memory.download(rows)[starts[:-1]].astype(np.int64)
        tables = dict(zip(block.columns, hyper[row].T, strict=True)) | dict(zip(COUNTERS, counters[row].T, strict=True))
        norms = [self._norms(measured, [p, *state], starts[:-1]) for measured in rule.measured]
        sizes = self._memory.download(tensors.sizes.part(first, count))[kept]
        tables["ratio"] = self._ratios(rule.ratio, [*norms, sizes], tables)
        spans = [p, state[-1], *state[:-1]]
        for i in np.flatnonzero(tables["active"]):
            values = {name: column[i] for name, column in tables.items()} | {"gradient_factor": 1.0, "prescale": 1.0}
            self._update.update_run(
                rule.update, values, spans, int(starts[i]) * CHUNK, min(int(starts[i + 1]) * CHUNK, p.size)
            )

    def _ratios(self, ratio: Expression, given: Sequence[Any], tables: dict[str, Any]) -> Any:
        """The ratio of each tensor, of values of each."""
        expression, names = _over_columns(ratio)
        views = [self._put(values, ratio) for values in (*given, *(tables[name] for name in names))]
        with np.errstate(all="ignore"):
            found = self._evaluation.value(expression, views, ())
        return self._memory.namespace.to_host(self._xp.broadcast_to(found, views[0].shape))

    def _put(self, values: Any, ratio: Expression) -> View:
        (dtype,) = ratio.stored
        with np.errstate(over="ignore"):
            host = np.asarray(values).astype(STORAGE[dtype])
        made = Span(self._memory.alloc(host.size, dtype), 0, host.size)
        self._memory.upload(host, made)
        return made.view()

    def _norms(self, measured: Expression, spans: Sequence[Span], starts: Any) -> Any:
        """The norm of what is measured of each tensor, in float64."""
        size = spans[0].size
        records = []
        for start in range(0, size, NORM_BLOCK):
            views = [span.part(start, min(NORM_BLOCK, size - start)).view() for span in spans]
            with np.errstate(all="ignore"):
                records += self._records(self._evaluation.value(measured, views, ()))
        largest, total = (np.concatenate(each) for each in zip(*records, strict=True))
        scale = np.maximum.reduceat(largest, starts)
        own = np.repeat(scale, np.diff(np.append(starts, largest.size)))
        with np.errstate(all="ignore"):
            relative = np.where(largest == own, 1.0, largest / np.where(own == 0.0, 1.0, own))
            # A tensor with an infinity has that for its norm, and one with a NaN NaN.
            total = np.where(np.isfinite(own), total * relative**2, 1.0)
            return scale * np.sqrt(np.add.reduceat(total, starts))

    def _records(self, values: Any) -> list[tuple[Any, Any]]:
        """The largest magnitude of each chunk and the sum of squares relative to it: of whole chunks, and of a rest."""
        xp, to_host = self._xp, self._memory.namespace.to_host
        whole = values.shape[0] // CHUNK * CHUNK
        found = []
        for part in (values[:whole], values[whole:]):
            if part.shape[0]:
                sizes = xp.abs(xp.reshape(part, (-1, min(CHUNK, part.shape[0]))))
                largest = xp.max(sizes, axis=1)
                divisor = xp.where(xp.isfinite(largest) & (largest != 0), largest, xp.ones_like(largest))
                sizes = sizes / xp.reshape(divisor, (-1, 1))
                total = xp.sum(sizes * sizes, axis=1)
                found.append((to_host(largest).astype(np.float64), to_host(total).astype(np.float64)))
        return found
