"""Orthogonalization: Newton-Schulz iterations on the directions of all matrices, batched over equal shapes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from netcl.backends.base import Backend, Span, View
from netcl.dtypes import DType
from netcl.expression import Expression, Node, equal, sqrt, trace, where
from netcl.optim.engine.shape_batch import ShapeBatch, by_shape, contiguous
from netcl.optim.engine.tensor_passes import TensorTable

HYPER = ("ns_coefficients", "ns_steps", "eps", "adjust_lr_fn")
"""What the iterations of a group depend on."""


def adjustment(shape: tuple[int, ...], how: str | None) -> float:
    """What the orthogonal direction of a matrix is multiplied by."""
    rows, columns = shape
    if how == "match_rms_adamw":
        return float(0.2 * max(rows, columns) ** 0.5)
    return float(max(1.0, rows / columns) ** 0.5)


class Orthogonalization:
    """Replaces each matrix by one whose singular values are near 1. See :class:`~netcl.optim.Muon`.

    Parameters
    ----------
    table : TensorTable
    """

    def __init__(self, table: TensorTable) -> None:
        self._table = table
        self._backend: Backend = table.layout.backend
        self._dtype: DType = table.layout.dtype.compute
        self._asked: tuple[Any, ...] = ()
        self._batches: list[tuple[ShapeBatch, _Workspace, tuple[Any, ...]]] = []
        self.prepare()

    def prepare(self) -> None:
        """Take the memory that the groups call for, if they call for other batches than so far. Does not block."""
        asked = tuple(tuple(group[name] for name in HYPER) for group in self._table.groups)
        if asked == self._asked:
            return
        layout, apart = self._table.layout, [asked[number] for number in self._table.group_of]
        batches = []
        for (_, hyper), members in by_shape(layout, apart).items():
            batch = ShapeBatch(layout, self._dtype, members)
            assert isinstance(hyper, tuple)
            batches.append((batch, _Workspace(self._backend, self._dtype, len(batch), batch.shape), hyper))
        self._asked, self._batches = asked, batches

    def run(self, u: Span) -> None:
        """Replace the direction of every matrix. Does not block."""
        for batch, workspace, ((a, b, c), steps, eps, how) in self._batches:
            view = batch.load(u)
            workspace.normalize(view, eps)
            for _ in range(steps):
                workspace.iterate(a, b, c)
            workspace.finish(view, adjustment(batch.shape, how))
            batch.store(u)


class _Workspace:
    """The memory of one batch: matrices (n, k, m) with k <= m, products (n, k, k), and a value of each."""

    def __init__(self, backend: Backend, dtype: DType, count: int, shape: tuple[int, ...]) -> None:
        def take(size: int) -> Span:
            return Span(backend.alloc(size, dtype), 0, size)

        self._backend, self._dtype = backend, dtype
        short, long = min(shape), max(shape)
        self._transposed = shape[0] > shape[1]
        full, square = (count, short, long), (count, short, short)
        self._x, self._product = (contiguous(take(count * short * long), full) for _ in range(2))
        self._gram, self._update = (contiguous(take(count * short * short), square) for _ in range(2))
        self._largest, self._total = (take(count).view() for _ in range(2))

    def _oriented(self, x: View) -> View:
        """The view with its rows along the shorter side."""
        if not self._transposed:
            return x
        (n, rows, columns), (a, b, c) = x.shape, x.strides
        return View(x.buffer, x.offset, (n, columns, rows), (a, c, b))

    def normalize(self, view: View, eps: float) -> None:
        """x ← each matrix divided by its Frobenius norm, or by eps if that is larger."""
        backend, dtype = self._backend, self._dtype
        view, n = self._oriented(view), view.shape[0]
        backend.reduce("max", _absolute(dtype), [view], (1, 2), self._largest)
        spread = [View(x.buffer, x.offset, view.shape, (1, 0, 0)) for x in (self._largest, self._total)]
        assert self._total.shape == (n,)
        backend.reduce("sum", _share(dtype), [view, spread[0]], (1, 2), self._total)
        backend.map(_normalized(dtype), [view, *spread], [self._x], [eps])

    def iterate(self, a: float, b: float, c: float) -> None:
        """x ← a·x + (b·A + c·A²)·x with A = x·xᵀ."""
        backend, dtype = self._backend, self._dtype
        (n, short, long), (batch, row, column) = self._x.shape, self._x.strides
        turned = View(self._x.buffer, self._x.offset, (n, long, short), (batch, column, row))
        backend.batched_matmul(self._x, turned, self._gram)
        backend.batched_matmul(self._gram, self._gram, self._update)
        backend.map(_combined(dtype), [self._gram, self._update], [self._update], [b, c])
        backend.batched_matmul(self._update, self._x, self._product)
        backend.map(_combined(dtype), [self._x, self._product], [self._x], [a, 1.0])

    def finish(self, view: View, factor: float) -> None:
        """Write x times a factor to where the directions were."""
        self._backend.map(_scaled(self._dtype), [self._x], [self._oriented(view)], [factor])


@lru_cache(maxsize=8)
def _absolute(dtype: DType) -> Expression:
    return trace(lambda x: abs(x), (dtype,))


@lru_cache(maxsize=8)
def _share(dtype: DType) -> Expression:
    """The square of x relative to the largest of its matrix."""

    def share(x: Node, largest: Node) -> Node:
        relative = x / where(equal(largest, 0.0), 1.0, largest)
        return relative * relative

    return trace(share, (dtype, dtype))


@lru_cache(maxsize=8)
def _normalized(dtype: DType) -> Expression:
    def normalized(x: Node, largest: Node, total: Node, eps: Node) -> Node:
        root = sqrt(total)
        result: Node = where(largest * root <= eps, x / eps, x / largest / root)
        return result

    return trace(normalized, (dtype,) * 3, (dtype,))


@lru_cache(maxsize=8)
def _combined(dtype: DType) -> Expression:
    return trace(lambda x, y, a, b: a * x + b * y, (dtype, dtype), (dtype, dtype))


@lru_cache(maxsize=8)
def _scaled(dtype: DType) -> Expression:
    return trace(lambda x, a: a * x, (dtype,), (dtype,))
