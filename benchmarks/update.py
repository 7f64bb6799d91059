"""The calls of the backend protocol that an optimizer step is made of. Every call is waited for."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from netcl.backends.base import ADAM_COLUMNS, CHUNK, ROW, StepBlock
from netcl.dtypes import DType, uint16
from netcl.expression import sign
from netcl.host_dtypes import stored_as
from netcl.optim import Rule
from netcl.update_rules import adam_numbers

from .common import BUFFERS, RUNTIMES, normal, require, spread

HYPER = {"active": 1.0, "sign": 1.0, **adam_numbers(1e-3, (0.9, 0.999), 1e-8, decay=0.01)}
SIGN_COLUMNS = (*ROW, "lr")


def sign_descent(p: Any, g: Any, s: Any, h: Any) -> Any:
    return p - h.lr * sign(g)


def step_block(backend: Any, columns: tuple[str, ...], compute: DType) -> StepBlock:
    """A block of one row, before the first step."""
    return StepBlock.allocate(lambda numbers: spread(backend, np.array(numbers), compute), columns, [HYPER])


@lru_cache(maxsize=1)
def operands(runtime: str, buffer: str) -> SimpleNamespace:
    """Buffers for one runtime, size and dtype, kept from one sample to the next."""
    n, dtype = BUFFERS[buffer]
    backend = require(runtime, dtype)
    values, zeros = normal(n), np.zeros(n, np.float32)
    compute: DType = dtype.compute
    rule = Rule(sign_descent, lambda group: {"lr": group["lr"]})
    found = SimpleNamespace(
        backend=backend,
        host=stored_as(zeros, compute),
        x=spread(backend, values, dtype),
        y=spread(backend, values[::-1], dtype),
        first=spread(backend, zeros, compute),
        second=spread(backend, zeros, compute),
        partials=spread(backend, np.zeros(2 * backend.norm_partials(n), np.float32), compute),
        block=step_block(backend, ADAM_COLUMNS, compute),
        plain=step_block(backend, SIGN_COLUMNS, compute),
        rule=rule.expression(dtype, dtype, SIGN_COLUMNS),
        rows=spread(backend, np.zeros(-(-n // CHUNK), np.uint16), uint16),
    )
    backend.norm_reduce(found.x, found.partials, 2.0)
    backend.synchronize()
    return found


class UpdateCalls:
    """The calls that optimizers, clipping and loss scaling see."""

    params = (RUNTIMES, tuple(BUFFERS))
    param_names = ("runtime", "buffer")
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, buffer: str) -> None:
        self.o = operands(runtime, buffer)

    def time_upload(self, runtime: str, buffer: str) -> None:
        self.o.backend.upload(self.o.host, self.o.first)
        self.o.backend.synchronize()

    def time_download(self, runtime: str, buffer: str) -> None:
        self.o.backend.download(self.o.x)

    def time_fill(self, runtime: str, buffer: str) -> None:
        self.o.backend.fill(self.o.first, 0.0)
        self.o.backend.synchronize()

    def time_scale(self, runtime: str, buffer: str) -> None:
        self.o.backend.scale(1.0000001, self.o.x)
        self.o.backend.synchronize()

    def time_axpy(self, runtime: str, buffer: str) -> None:
        self.o.backend.axpy(1e-6, self.o.x, self.o.y)
        self.o.backend.synchronize()

    def time_norm_reduce(self, runtime: str, buffer: str) -> None:
        self.o.backend.norm_reduce(self.o.x, self.o.partials, 2.0)
        self.o.backend.synchronize()

    def time_prepare_step(self, runtime: str, buffer: str) -> None:
        o = self.o
        o.backend.prepare_step(o.block, o.partials, max_norm=1.0)
        o.block.slot = 1 - o.block.slot
        o.backend.synchronize()

    def time_fused_adam(self, runtime: str, buffer: str) -> None:
        o = self.o
        o.backend.fused_adam(o.y, o.x, o.first, o.second, None, o.block, o.rows, advance=True)
        o.block.slot = 1 - o.block.slot
        o.backend.synchronize()

    def time_fused_update(self, runtime: str, buffer: str) -> None:
        o = self.o
        o.backend.fused_update(o.rule, o.y, o.x, (), o.plain, o.rows, advance=True)
        o.plain.slot = 1 - o.plain.slot
        o.backend.synchronize()
