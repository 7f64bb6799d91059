"""FactoredMoments: second moments of matrices as a row times a column, batched over equal shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from netcl.backends.base import Backend, Span, View, header_entry
from netcl.dtypes import DType
from netcl.expression import Expression, Node, equal, maximum, sqrt, trace, where
from netcl.optim.engine.shape_batch import ShapeBatch, by_shape, contiguous
from netcl.optim.engine.shaped_state import Stored
from netcl.optim.engine.tensor_passes import TensorTable

WIDTH = 3
"""Of a tensor's row: whether it moves, the weight of this step's squares, and eps1."""

Shape = tuple[int, ...]


def factored_fields(shape: Shape) -> Mapping[str, Shape]:
    """The state of a tensor: two factors of the last two axes, or for vectors and scalars every element."""
    if len(shape) < 2:
        return {"variance": shape}
    return {"row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}


class FactoredMoments:
    """Divides each direction by the root of its factored second moment. See :class:`~netcl.optim.Adafactor`.

    Parameters
    ----------
    table : TensorTable

    Attributes
    ----------
    stored : list of Stored
        The moments.
    """

    def __init__(self, table: TensorTable) -> None:
        self._table = table
        layout = table.layout
        self._backend: Backend = layout.backend
        self._dtype: DType = layout.dtype.compute
        self._own_eps = 2.0 ** -_DIGITS[layout.dtype.name]
        self._rows = self._take((len(layout.segments), WIDTH))
        self._batches: list[_Moments] = []
        self.stored: list[Stored] = []
        for members in by_shape(layout, [None] * len(layout.segments)).values():
            batch = ShapeBatch(layout, self._dtype, members)
            made = _Moments(batch, self._take, self._backend, self._dtype)
            self._batches.append(made)
            self.stored += made.stored

    def _take(self, shape: Shape) -> Span:
        size = math.prod(shape)
        made = Span(self._backend.alloc(size, self._dtype), 0, size)
        self._backend.fill(made, 0)
        return made

    def prepare(self) -> None:
        """Nothing: all memory was taken at first."""

    def run(self, u: Span) -> None:
        """Move the moments on, and divide. Where a tensor does not move, its moments stay. Does not block."""
        table, count = self._table, len(self._table.layout.segments)
        table.gather()
        skip = header_entry(table.header, "skip")
        inputs = [
            table.hyper("active"),
            View(skip.buffer, skip.offset, (count,), (0,)),
            table.counter("step"),
            table.hyper("beta2_decay"),
            table.hyper("eps1"),
        ]
        outputs = [View(self._rows.buffer, i, (count,), (WIDTH,)) for i in range(WIDTH)]
        self._backend.map(_weights(self._dtype), inputs, outputs, [self._own_eps])
        for each in self._batches:
            each.run(u, self._rows)


_DIGITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
"""The spacing of a dtype's numbers at 1, as a power of two."""


class _Moments:
    """The moments of the tensors of one shape."""

    def __init__(self, batch: ShapeBatch, take: Any, backend: Backend, dtype: DType) -> None:
        self._batch, self._backend, self._dtype = batch, backend, dtype
        self._count = len(batch)
        self._row = take((self._count, WIDTH))
        shapes = factored_fields(batch.shape)
        spans = {name: take((self._count, *shape)) for name, shape in shapes.items()}
        self.stored = [Stored(name, batch.members, shapes[name], span) for name, span in spans.items()]
        self._views = {name: contiguous(span, (self._count, *shapes[name])) for name, span in spans.items()}
        if "row_var" in spans:
            self._sums = {name: contiguous(take(view.shape), view.shape) for name, view in self._views.items()}
            lead = (self._count, *batch.shape[:-2])
            self._mean = contiguous(take(lead), lead)

    def run(self, u: Span, rows: Span) -> None:
        backend, dtype = self._backend, self._dtype
        view = self._batch.load(u)
        self._batch.rows(rows, WIDTH, self._row)
        if "variance" in self._views:
            outputs = [self._views["variance"], view]
            backend.map(_elementwise(dtype), [*outputs, *self._of_tensors(view.shape)], outputs)
        else:
            self._factored(view)
        self._batch.store(u)

    def _of_tensors(self, shape: Shape) -> list[View]:
        """Moves, weight and eps1, each spread over the elements of its tensor."""
        strides = (WIDTH, *(0,) * (len(shape) - 1))
        return [View(self._row.buffer, self._row.offset + i, shape, strides) for i in range(WIDTH)]

    def _factored(self, view: View) -> None:
        backend, dtype = self._backend, self._dtype
        last = len(view.shape) - 1
        for name, axis in (("row_var", last), ("col_var", last - 1)):
            moment, total = self._views[name], self._sums[name]
            backend.reduce("sum", _square(dtype), [view], (axis,), _without(total, axis))
            moves, weight, _ = self._of_tensors(moment.shape)
            backend.map(_moved(dtype), [moment, total, moves, weight], [moment], [1.0 / view.shape[axis]])
        row, col = self._views["row_var"], self._views["col_var"]
        backend.reduce("sum", _same(dtype), [_without(row, last)], (last - 1,), self._mean)
        mean = View(self._mean.buffer, self._mean.offset, view.shape, (*self._mean.strides, 0, 0))
        spread = [
            View(row.buffer, row.offset, view.shape, (*row.strides[:-1], 0)),
            View(col.buffer, col.offset, view.shape, (*col.strides[:-2], 0, col.strides[-1])),
        ]
        eps = self._of_tensors(view.shape)[2]
        backend.map(_divided(dtype), [view, *spread, mean, eps], [view], [1.0 / view.shape[-2]])


def _without(x: View, axis: int) -> View:
    """A view without an axis of one element."""
    return View(x.buffer, x.offset, _drop(x.shape, axis), _drop(x.strides, axis))


def _drop(x: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*x[:axis], *x[axis + 1 :])


@lru_cache(maxsize=8)
def _weights(dtype: DType) -> Expression:
    def weights(active: Node, skip: Node, step: Node, decay: Node, eps: Node, own: Node) -> list[Node]:
        return [where(equal(skip, 0.0), active, 0.0), step**decay, where(eps < 0.0, own, eps)]

    return trace(weights, (dtype,) * 5, (dtype,), stored=(dtype,) * WIDTH)


@lru_cache(maxsize=8)
def _square(dtype: DType) -> Expression:
    return trace(lambda x: x * x, (dtype,))


@lru_cache(maxsize=8)
def _same(dtype: DType) -> Expression:
    return trace(lambda x: x, (dtype,))


@lru_cache(maxsize=8)
def _moved(dtype: DType) -> Expression:
    """The moment, moved towards the mean of this step's squares by their weight."""

    def moved(moment: Node, total: Node, moves: Node, weight: Node, share: Node) -> Node:
        result: Node = where(moves != 0.0, moment + weight * (total * share - moment), moment)
        return result

    return trace(moved, (dtype,) * 4, (dtype,))


def _quotient(u: Node, root: Node, eps: Node) -> Node:
    divisor = maximum(root, eps)
    quotient: Node = where(equal(divisor, 0.0), 0.0, u / where(equal(divisor, 0.0), 1.0, divisor))
    return quotient


@lru_cache(maxsize=8)
def _elementwise(dtype: DType) -> Expression:
    def divided(moment: Node, u: Node, moves: Node, weight: Node, eps: Node) -> tuple[Node, Node]:
        moment = where(moves != 0.0, moment + weight * (u * u - moment), moment)
        return moment, _quotient(u, sqrt(moment), eps)

    return trace(divided, (dtype,) * 5, stored=(dtype,) * 2)


@lru_cache(maxsize=8)
def _divided(dtype: DType) -> Expression:
    """The direction over the root of row times column, relative to the mean of the rows."""

    def divided(u: Node, row: Node, col: Node, total: Node, eps: Node, share: Node) -> Node:
        mean = maximum(total * share, eps)
        # The row first, for a product of two small moments would underflow.
        relative = row / where(equal(mean, 0.0), 1.0, mean)
        return _quotient(u, sqrt(relative * col), eps)

    return trace(divided, (dtype,) * 5, (dtype,))
