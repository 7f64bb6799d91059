"""Operands of an optimizer step in the middle of their buffers, step blocks, and Adam in float64."""

from __future__ import annotations

import math

import numpy as np

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, Span, StepBlock
from netcl.expression import Node

EPS = {dtypes.float16: 2.0**-11, dtypes.bfloat16: 2.0**-8, dtypes.float32: 2.0**-24, dtypes.float64: 2.0**-53}
ADAM = {
    "active": 1.0, "sign": 1.0, "lr": 0.01, "beta1": 0.9, "one_minus_beta1": 0.1, "beta2": 0.999,
    "one_minus_beta2": 0.001, "eps": 1e-8, "l2": 0.0, "decay": 0.0, "log_beta1": math.log(0.9),
    "log_beta2": math.log(0.999), "amsgrad": 1.0,
}  # fmt: skip
CANARY = 5


def encode(values, dtype):
    values = np.asarray(values, np.float64)
    if dtype is not dtypes.bfloat16:
        with np.errstate(over="ignore"):
            return values.astype(dtype.name)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def decode(stored, dtype):
    if dtype is dtypes.bfloat16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


class Values:
    """Elements in the middle of a buffer, with canaries around them."""

    def __init__(self, runtime, values, dtype=dtypes.float32, offset=3):
        stored = np.asarray(values, np.uint16) if dtype is dtypes.uint16 else encode(values, dtype)
        self.backend, self.dtype = runtime, dtype
        self.before = np.full(offset + stored.size + CANARY, 77, stored.dtype)
        self.before[offset : offset + stored.size] = stored
        self.inside = slice(offset, offset + stored.size)
        self.buffer = runtime.alloc(self.before.size, dtype)
        runtime.upload(self.before, Span(self.buffer, 0, self.before.size))
        self.span = Span(self.buffer, offset, stored.size)

    @property
    def given(self):
        return decode(self.before[self.inside], self.dtype)

    def stored(self):
        now = self.backend.download(Span(self.buffer, 0, self.before.size))
        outside = np.delete(np.arange(now.size), np.r_[self.inside])
        np.testing.assert_array_equal(now[outside], self.before[outside], "canaries changed")
        return now[self.inside]

    def values(self):
        return decode(self.stored(), self.dtype)

    def bytes(self):
        return self.stored().tobytes()

    def unchanged(self):
        return self.bytes() == self.before[self.inside].tobytes()


class Block:
    """A step block over rows that are given as dictionaries over :data:`ADAM`."""

    def __init__(self, runtime, rows=({},), dtype=dtypes.float32, columns=ADAM_COLUMNS, steps=None, **header):
        self.rows = [{**ADAM, **row} for row in rows]
        self.steps = steps or [1] * len(self.rows)
        values = {**dict.fromkeys(HEADER, 0.0), "multiplier": 1.0, **header}
        made = []

        def put(numbers):
            made.append(Values(runtime, numbers, dtype))
            return made[-1].span

        self.step = StepBlock.allocate(put, columns, self.rows, steps=self.steps, header=values)
        self.header, self.hyper, *self.counters = made

    def read_header(self):
        return dict(zip(HEADER, self.header.values().tolist(), strict=True))

    def read_steps(self, slot):
        return self.counters[slot].values().reshape(-1, len(COUNTERS))[:, 0].tolist()


class Model:
    def __init__(self, runtime, n, dtype=dtypes.float32, fields=2, rows=None, seed=0):
        rng = np.random.default_rng(seed)
        self.p = Values(runtime, rng.standard_normal(n), dtype, offset=3)
        self.g = Values(runtime, rng.standard_normal(n), dtype, offset=1)
        self.state = [Values(runtime, rng.random(n), dtype.compute, offset=2 + i) for i in range(fields)]
        self.rows = Values(runtime, np.zeros(-(-n // CHUNK)) if rows is None else rows, dtypes.uint16)
        self.changing = [self.p, *self.state]

    def adam(self, runtime, block, advance=False):
        spans = [field.span for field in self.state] + [None] * (3 - len(self.state))
        runtime.fused_adam(self.p.span, self.g.span, *spans, block.step, self.rows.span, advance=advance)

    def update(self, runtime, rule, block, advance=False):
        state = [field.span for field in self.state]
        runtime.fused_update(rule, self.p.span, self.g.span, state, block.step, self.rows.span, advance=advance)

    def bytes(self):
        return [values.bytes() for values in self.changing]


def hyper(name, dtype=dtypes.float32):
    return Node("hyper", (), dtype, name)


def adam_rule(dtype=dtypes.float32):
    """Adam as an optimizer author would write it."""
    h = {name: hyper(name, dtype.compute) for name in (*ADAM_COLUMNS, *COUNTERS)}

    def adam(p, g, m, v):
        g = g + h["l2"] * p
        m = h["beta1"] * m + h["one_minus_beta1"] * g
        v = h["beta2"] * v + h["one_minus_beta2"] * (g * g)
        step = (m / h["bias_correction1"]) / (ex.sqrt(v / h["bias_correction2"]) + h["eps"])
        return p - h["lr"] * (step + h["decay"] * p), m, v

    state = (dtype.compute,) * 2
    return ex.trace(adam, (dtype, dtype, *state), stored=(dtype, *state))


def adam_oracle(row, step, multiplier, p, g, m, v, v_max=None):
    """The formulas of D. P. Kingma and J. Ba with either decay, in float64."""
    g = multiplier * row["sign"] * g + row["l2"] * p
    m = row["beta1"] * m + row["one_minus_beta1"] * g
    v = row["beta2"] * v + row["one_minus_beta2"] * g * g
    largest = v if v_max is None else np.maximum(v, v_max)
    c1, c2 = -math.expm1(step * row["log_beta1"]), -math.expm1(step * row["log_beta2"])
    p = p - row["lr"] * ((m / c1) / (np.sqrt(largest / c2) + row["eps"]) + row["decay"] * p)
    return [p, m, v] if v_max is None else [p, m, v, largest]


def check(changing, expected, where=slice(None)):
    for values, wanted in zip(changing, expected, strict=True):
        tolerance = 8 * EPS[values.dtype]
        np.testing.assert_allclose(values.values()[where], wanted[where], rtol=tolerance, atol=tolerance)
