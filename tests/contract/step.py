"""A step block with readable contents, for the contract suite."""

from __future__ import annotations

import math

import numpy as np
from operands import Operand

from netcl import dtypes
from netcl.backends.base import ADAM_COLUMNS, COUNT_BASE, COUNTERS, HEADER, StepBlock

DEFAULTS = {
    "active": 1.0, "sign": 1.0, "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "l2": 0.0, "decay": 0.0,
    "momentum": 0.9, "amsgrad": 1.0, "step": 1,
}  # fmt: skip


class Block:
    """A :class:`StepBlock` whose rows are given as dictionaries over :data:`DEFAULTS`."""

    def __init__(self, backend, rows=(), header=None, columns=ADAM_COLUMNS, dtype=dtypes.float32):
        self.backend, self.columns, self.dtype = backend, columns, dtype
        self.initial_header = {**dict.fromkeys(HEADER, 0.0), "multiplier": 0.5, "norm": 3.0, **(header or {})}
        self._header = Operand(backend, list(self.initial_header.values()), dtype)
        self.rows = [self._complete(row) for row in rows]
        self._hyper = Operand(backend, self._table(self.rows, columns), dtype) if rows else None
        counted = [self._counter(row) for row in self.rows]
        self._counters = [Operand(backend, self._table(counted, COUNTERS), dtype) for _ in range(2)] if rows else None
        self.step = StepBlock(
            header=self._header.span,
            columns=columns,
            hyper=self._hyper.span if self._hyper else None,
            counters=tuple(c.span for c in self._counters) if self._counters else None,
            rows=len(self.rows),
        )

    @staticmethod
    def _complete(row):
        row = {**DEFAULTS, **row}
        for beta in ("beta1", "beta2"):
            row.setdefault(f"one_minus_{beta}", 1 - row[beta])
            row.setdefault(f"log_{beta}", math.log(row[beta]))
        return row

    @staticmethod
    def _counter(row):
        corrections = {f"bias_correction{i}": -math.expm1(row["step"] * row[f"log_beta{i}"]) for i in (1, 2)}
        above, low = divmod(row["step"], COUNT_BASE)
        high, middle = divmod(above, COUNT_BASE)
        return {"step": row["step"], **corrections, "count_low": low, "count_middle": middle, "count_high": high}

    @staticmethod
    def _table(rows, columns):
        return [row[name] for row in rows for name in columns]

    def set(self, row, **values):
        """Write hyper-parameters, as the host does when they change."""
        self.rows[row] = {**self.rows[row], **values}
        host = np.array(self._table(self.rows, self.columns), self.dtype.name)
        self.backend.upload(host, self._hyper.span)

    def write_counters(self, slot):
        counted = [self._counter(row) for row in self.rows]
        host = np.array(self._table(counted, COUNTERS), self.dtype.name)
        self.backend.upload(host, self.step.counters[slot])

    def header(self):
        return dict(zip(HEADER, self._header.values.tolist(), strict=True))

    def counters(self, slot):
        values = self._counters[slot].values.reshape(-1, len(COUNTERS)).tolist()
        return [dict(zip(COUNTERS, row, strict=True)) for row in values]
