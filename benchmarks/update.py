"""The calls of the seam that an optimizer step is made of, on float32. Every call is waited for."""

from __future__ import annotations

import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, Span, StepBlock
from netcl.dtypes import DType, float32, uint16

from .common import RUNTIMES, SIZES, require

BETAS = (0.9, 0.999)
HYPER = {
    "active": 1.0, "sign": 1.0, "lr": 1e-3, "beta1": BETAS[0], "one_minus_beta1": 1.0 - BETAS[0], "beta2": BETAS[1],
    "one_minus_beta2": 1.0 - BETAS[1], "eps": 1e-8, "l2": 0.0, "decay": 0.01, "log_beta1": math.log(BETAS[0]),
    "log_beta2": math.log(BETAS[1]),
}  # fmt: skip


def spread(backend: Any, values: np.ndarray, dtype: DType) -> Span:
    out = Span(backend.alloc(values.size, dtype), 0, values.size)
    backend.upload(values, out)
    return out


@lru_cache(maxsize=1)
def operands(runtime: str, n: int) -> SimpleNamespace:
    """Buffers for one runtime and size, kept from one sample to the next."""
    backend = require(runtime)
    random = np.random.default_rng(0)
    values = random.standard_normal(n, dtype=np.float32)
    counters = np.array([1.0, *(-math.expm1(math.log(beta)) for beta in BETAS), 0.0], np.float32)
    header = np.zeros(len(HEADER), np.float32)
    header[HEADER.index("multiplier")] = 1.0
    block = StepBlock(
        header=spread(backend, header, float32),
        columns=ADAM_COLUMNS,
        hyper=spread(backend, np.array([HYPER[name] for name in ADAM_COLUMNS], np.float32), float32),
        counters=(spread(backend, counters, float32), spread(backend, np.zeros(len(COUNTERS), np.float32), float32)),
        rows=1,
    )
    found = SimpleNamespace(
        backend=backend,
        x=spread(backend, values, float32),
        y=spread(backend, values[::-1].copy(), float32),
        first=spread(backend, np.zeros(n, np.float32), float32),
        second=spread(backend, np.zeros(n, np.float32), float32),
        partials=spread(backend, np.zeros(2 * backend.norm_partials(n), np.float32), float32),
        block=block,
        rows=spread(backend, np.zeros(-(-n // CHUNK), np.uint16), uint16),
    )
    backend.synchronize()
    return found


class UpdateCalls:
    """fill, scale, axpy, norm_reduce with prepare_step, and fused_adam."""

    params = (RUNTIMES, SIZES)
    param_names = ("runtime", "n")
    warmup_time = 0.3
    timeout = 120

    def setup(self, runtime: str, n: int) -> None:
        self.o = operands(runtime, n)

    def time_fill(self, runtime: str, n: int) -> None:
        self.o.backend.fill(self.o.first, 0.0)
        self.o.backend.synchronize()

    def time_scale(self, runtime: str, n: int) -> None:
        self.o.backend.scale(1.0000001, self.o.x)
        self.o.backend.synchronize()

    def time_axpy(self, runtime: str, n: int) -> None:
        self.o.backend.axpy(1e-6, self.o.x, self.o.y)
        self.o.backend.synchronize()

    def time_norm_reduce(self, runtime: str, n: int) -> None:
        self.o.backend.norm_reduce(self.o.x, self.o.partials, 2.0)
        self.o.backend.synchronize()

    def time_fused_adam(self, runtime: str, n: int) -> None:
        o = self.o
        o.backend.fused_adam(o.y, o.x, o.first, o.second, None, o.block, o.rows, advance=True)
        o.block.slot = 1 - o.block.slot
        o.backend.synchronize()
