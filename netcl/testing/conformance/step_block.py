"""A step block with readable contents, for the conformance suite."""

from __future__ import annotations

import math

import numpy as np

from netcl import dtypes
from netcl.backends.base import ADAM_COLUMNS, COUNTERS, HEADER, StepBlock, counter_row
from netcl.testing.conformance.operands import Operand

DEFAULTS = {
    "active": 1.0, "sign": 1.0, "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "l2": 0.0, "decay": 0.0,
    "momentum": 0.9, "amsgrad": 1.0, "step": 1,
}  # fmt: skip


class Block:
    """A :class:`StepBlock` whose rows are given as dictionaries over :data:`DEFAULTS`."""

    def __init__(self, backend, rows=(), header=None, columns=ADAM_COLUMNS, dtype=dtypes.float32):
        self.backend, self.columns, self.dtype = backend, columns, dtype
        self.initial_header = {**dict.fromkeys(HEADER, 0.0), "multiplier": 0.5, "norm": 3.0, **(header or {})}
        self.rows = [self._complete(row) for row in rows]
        made = []

        def put(numbers):
            made.append(Operand(backend, numbers, dtype))
            return made[-1].span

        steps = [row["step"] for row in self.rows]
        self.step = StepBlock.allocate(put, columns, self.rows, steps=steps, header=self.initial_header)
        self._header, self._hyper, *self._counters = made if rows else [*made, None]
        if rows:
            self.write_counters(1)

    @staticmethod
    def _complete(row):
        row = {**DEFAULTS, **row}
        for beta in ("beta1", "beta2"):
            row.setdefault(f"one_minus_{beta}", 1 - row[beta])
            row.setdefault(f"log_{beta}", math.log(row[beta]))
        return row

    @staticmethod
    def _table(rows, columns):
        return [row[name] for row in rows for name in columns]

    def set(self, row, **values):
        """Write hyper-parameters, as the host does when they change."""
        self.rows[row] = {**self.rows[row], **values}
        host = np.array(self._table(self.rows, self.columns), self.dtype.name)
        self.backend.upload(host, self._hyper.span)

    def write_counters(self, slot):
        host = np.array([counter_row(row["step"], row) for row in self.rows], self.dtype.name).reshape(-1)
        self.backend.upload(host, self.step.counters[slot])

    def header(self):
        return dict(zip(HEADER, self._header.values.tolist(), strict=True))

    def counters(self, slot):
        values = self._counters[slot].values.reshape(-1, len(COUNTERS)).tolist()
        return [dict(zip(COUNTERS, row, strict=True)) for row in values]
