"""The calls of the backend protocol that Tensor and autograd are made of. Every call is waited for."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from netcl.dtypes import float32, int64, uint32
from netcl.expression import exp, trace

from .common import BUFFERS, RUNTIMES, SHORT, matrix, normal, require, spread

COLUMNS = 100
PRODUCTS = (32,) if SHORT else (128, 512)


def shifted_exp(x: Any, y: Any) -> Any:
    return exp(x) + y


@lru_cache(maxsize=1)
def operands(runtime: str, buffer: str) -> SimpleNamespace:
    """Matrices of a hundred columns, and what belongs to their rows."""
    n, dtype = BUFFERS[buffer]
    backend = require(runtime, dtype)
    rows = n // COLUMNS
    labels = np.random.default_rng(0).integers(0, COLUMNS, rows)
    values = normal(n)

    def rows_of(*shape: int) -> Any:
        return matrix(spread(backend, np.zeros(int(np.prod(shape)), np.float32), dtype), *shape)

    order = spread(backend, np.random.default_rng(1).permutation(rows), int64)
    return SimpleNamespace(
        backend=backend,
        map=trace(shifted_exp, (dtype, dtype), stored=(dtype,)),
        sum=trace(lambda x: x, (dtype,), stored=(dtype,)),
        x=matrix(spread(backend, values, dtype), rows, COLUMNS),
        y=matrix(spread(backend, values[::-1], dtype), rows, COLUMNS),
        out=rows_of(rows, COLUMNS),
        per_row=rows_of(rows),
        labels=matrix(spread(backend, labels, int64), rows),
        best=matrix(spread(backend, np.zeros(rows, np.int64), int64), rows),
        # Whole rows are gathered: (outer, count, inner) with the indices broadcast over the inner axis.
        source=rows_of(1, rows, COLUMNS),
        indices=_broadcast(matrix(order, 1, rows, 1), COLUMNS),
        gathered=rows_of(1, rows, COLUMNS),
        words=matrix(spread(backend, np.zeros(n, np.uint32), uint32), n),
    )


def _broadcast(view: Any, inner: int) -> Any:
    return type(view)(view.buffer, view.offset, (*view.shape[:-1], inner), (*view.strides[:-1], 0))


class ArrayCalls:
    """The calls on matrices of a hundred columns."""

    params = (RUNTIMES, tuple(BUFFERS))
    param_names = ("runtime", "buffer")
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, buffer: str) -> None:
        self.o = operands(runtime, buffer)

    def time_map(self, runtime: str, buffer: str) -> None:
        self.o.backend.map(self.o.map, (self.o.x, self.o.y), (self.o.out,))
        self.o.backend.synchronize()

    def time_reduce_rows(self, runtime: str, buffer: str) -> None:
        self.o.backend.reduce("sum", self.o.sum, (self.o.x,), (1,), self.o.per_row)
        self.o.backend.synchronize()

    def time_arg_reduce(self, runtime: str, buffer: str) -> None:
        self.o.backend.arg_reduce("argmax", self.o.x, 1, self.o.best)
        self.o.backend.synchronize()

    def time_gather(self, runtime: str, buffer: str) -> None:
        self.o.backend.gather(self.o.source, self.o.indices, self.o.gathered)
        self.o.backend.synchronize()

    def time_scatter_add(self, runtime: str, buffer: str) -> None:
        self.o.backend.scatter_add(self.o.gathered, self.o.indices, self.o.source)
        self.o.backend.synchronize()

    def time_softmax(self, runtime: str, buffer: str) -> None:
        self.o.backend.softmax(self.o.x, self.o.out, log=False)
        self.o.backend.synchronize()

    def time_softmax_cross_entropy(self, runtime: str, buffer: str) -> None:
        o = self.o
        o.backend.softmax_cross_entropy(o.x, o.labels, o.per_row, o.out, 0.0, -100)
        o.backend.synchronize()

    def time_random_bits(self, runtime: str, buffer: str) -> None:
        self.o.backend.random_bits(self.o.words, 0, 0)
        self.o.backend.synchronize()


@lru_cache(maxsize=1)
def products(runtime: str, n: int) -> SimpleNamespace:
    backend = require(runtime)
    a, b, out = (matrix(spread(backend, normal(n * n), float32), 1, n, n) for _ in range(3))
    return SimpleNamespace(backend=backend, a=a, b=b, out=out)


class BatchedMatmul:
    """The product of two square matrices."""

    params = (RUNTIMES, PRODUCTS)
    param_names = ("runtime", "n")
    warmup_time = 0.3
    rounds = 1
    timeout = 120
    version = "74a31e7b67cd21051c01f79ac811e03525b29ed3d55065f79223aab891b7c4af"

    def setup(self, runtime: str, n: int) -> None:
        self.o = products(runtime, n)

    def time_batched_matmul(self, runtime: str, n: int) -> None:
        self.o.backend.batched_matmul(self.o.a, self.o.b, self.o.out)
        self.o.backend.synchronize()
