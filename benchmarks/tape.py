"""Operations on the tape: forward and backward of each kind, and what recording itself costs."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag

from .common import RUNTIMES, SHORT, normal, require

ROWS = 8 if SHORT else 256


def conv2d(t: SimpleNamespace) -> Any:
    return ag.sum(ag.conv2d(t.images, t.filters, padding=1))


# Each takes what operands() gives and returns a loss.
OPERATIONS = {
    "add with broadcasting": lambda t: ag.sum(t.x + t.bias),
    "matmul": lambda t: ag.sum(ag.matmul(t.x, t.weight)),
    "exp": lambda t: ag.sum(ag.exp(t.x)),
    "reshape and transpose": lambda t: ag.sum(ag.reshape(t.x.T, (-1,)) * 2.0),
    "rows by index": lambda t: ag.sum(ag.take(t.x, t.labels, axis=0)),
    "layer_norm": lambda t: ag.sum(ag.layer_norm(t.x, (256,))),
    "cross_entropy": lambda t: ag.cross_entropy(t.x, t.labels),
    "conv2d": conv2d,
}


@lru_cache(maxsize=1)
def operands(runtime: str) -> SimpleNamespace:
    backend = require(runtime)

    def tensor(*shape: int) -> Any:
        return netcl.asarray(normal(*shape), device=backend.device, requires_grad=True)

    return SimpleNamespace(
        backend=backend,
        x=tensor(ROWS, 256),
        weight=tensor(256, 256),
        bias=tensor(256),
        images=tensor(8, 8, 16, 16),
        filters=tensor(8, 8, 3, 3),
        labels=netcl.asarray(np.arange(ROWS) % 8, device=backend.device),
        small=tensor(8),
    )


class TapeOperations:
    """Forward and backward of one operation, without and with the record."""

    params = (RUNTIMES, tuple(OPERATIONS))
    param_names = ("runtime", "operation")
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, operation: str) -> None:
        self.o = operands(runtime)

    def time_forward(self, runtime: str, operation: str) -> None:
        OPERATIONS[operation](self.o)
        self.o.backend.synchronize()

    def time_forward_and_backward(self, runtime: str, operation: str) -> None:
        with ag.Tape() as tape:
            loss = OPERATIONS[operation](self.o)
        tape.backward(loss)
        self.o.backend.synchronize()


class Recording:
    """A chain of a hundred additions of eight elements: nothing but overhead."""

    params = (RUNTIMES,)
    param_names = ("runtime",)
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str) -> None:
        self.o = operands(runtime)

    def time_hundred_additions(self, runtime: str) -> None:
        with ag.Tape() as tape:
            y = self.o.small
            for _ in range(100):
                y = y + 1.0
            loss = ag.sum(y)
        tape.backward(loss)
        self.o.backend.synchronize()
