"""FlatVectors: all parameters of one device and dtype as one vector, as L-BFGS computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from netcl.backends.base import Scalar, Span, View
from netcl.dtypes import DType
from netcl.expression import Expression, conversion, trace
from netcl.host_dtypes import STORAGE
from netcl.optim.engine.partition import Partition


class FlatVectors:
    """Vectors in the layout of a partition's arena, whose padding holds zeros.

    Parameters
    ----------
    partition : Partition
    """

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.backend, self.dtype = partition.backend, partition.dtype
        self._layout = partition.arena.layout
        self._numbers = Span(self.backend.alloc(4, self.dtype), 0, 4)

    def new(self) -> Span:
        """A vector of zeros."""
        return self._layout.like(self.dtype)

    def gradient(self) -> Span:
        """A copy of the gradients as they are; zero where a parameter has none. Does not block."""
        partition = self._partition
        partition.arena.check()
        partition.gather_gradients()
        partition.pending.apply()
        g = self.copy(partition.arena.gradients)
        for segment in self._layout.segments:
            if segment.array.gradient is None and segment.size:
                self.backend.fill(g.part(segment.offset, segment.size), 0)
        return g

    def parameters(self) -> Span:
        """A copy of the parameters. Does not block."""
        x = self.new()
        same = conversion(self.dtype, self.dtype)
        self._layout.gather()
        for run in self._layout.runs:
            self.backend.map(same, [run.parameters.view()], [run.within(x).view()])
        return x

    def move(self, x: Span, t: float, d: Span) -> None:
        """parameters ← x + t·d. Does not block."""
        self._layout.gather()
        for run in self._layout.runs:
            inputs = [run.within(x).view(), run.within(d).view()]
            self.backend.map(_sum(self.dtype), inputs, [run.parameters.view()], [1.0, t])
        self._partition.arena.count_step()

    def restore(self, x: Span) -> None:
        """parameters ← x. Does not block."""
        same = conversion(self.dtype, self.dtype)
        self._layout.gather()
        for run in self._layout.runs:
            self.backend.map(same, [run.within(x).view()], [run.parameters.view()])
        self._partition.arena.count_step()

    def copy(self, x: Span) -> Span:
        """The same numbers in memory of their own. Does not block."""
        made = Span(self.backend.alloc(x.size, self.dtype), 0, x.size)
        self.backend.map(conversion(self.dtype, self.dtype), [x.view()], [made.view()])
        return made

    def combined(self, a: Scalar, x: Span, b: Scalar, y: Span, out: Span | None = None) -> Span:
        """a·x + b·y. Does not block."""
        out = Span(self.backend.alloc(x.size, self.dtype), 0, x.size) if out is None else out
        self.backend.map(_sum(self.dtype), [x.view(), y.view()], [out.view()], [a, b])
        return out

    def add_share(self, x: Span, factor: float, numbers: Sequence[Span], y: Span) -> None:
        """x ← x + factor·(first - second)·y, of one or two numbers on the device. Does not block."""
        spread = [View(each.buffer, each.offset, (x.size,), (0,)) for each in numbers]
        self.backend.map(_share(self.dtype, len(numbers)), [x.view(), y.view(), *spread], [x.view()], [factor])

    def dot(self, x: Span, y: Span) -> Span:
        """x·y, left on the device. One reduction. Does not block."""
        out = Span(self.backend.alloc(1, self.dtype), 0, 1)
        self.backend.reduce("sum", _product(self.dtype), [x.view(), y.view()], (0,), _point(out))
        return out

    def numbers(self, *asked: tuple[str, Span] | tuple[str, Span, Span]) -> list[float]:
        """Reductions of vectors, read together: ("dot", x, y), ("largest", x) or ("sum", x) of |x|. **Blocks**."""
        for i, (kind, x, *others) in enumerate(asked):
            out = _point(self._numbers.element(i))
            if kind == "dot":
                views = [x.view(), *(other.view() for other in others)]
                self.backend.reduce("sum", _product(self.dtype), views, (0,), out)
            else:
                op = "max" if kind == "largest" else "sum"
                self.backend.reduce(op, _absolute(self.dtype), [x.view()], (0,), out)
        return [float(value) for value in self.backend.download(self._numbers)[: len(asked)]]

    def read(self, x: Span, order: Sequence[Any]) -> np.ndarray[Any, Any]:
        """A vector without padding, parameter after parameter in this order. **Blocks**."""
        host = self.backend.download(x)
        where = {id(segment.array): segment for segment in self._layout.segments}
        pieces = [host[where[id(p)].offset :][: where[id(p)].size] for p in order]
        return np.concatenate(pieces) if pieces else host[:0]

    def written(self, values: np.ndarray[Any, Any], order: Sequence[Any]) -> Span:
        """A vector from what :meth:`read` returned. Does not block."""
        host = np.zeros(self._layout.size, STORAGE[self.dtype])
        where, start = {id(segment.array): segment for segment in self._layout.segments}, 0
        for p in order:
            segment = where[id(p)]
            host[segment.offset : segment.offset + segment.size] = values[start : start + segment.size]
            start += segment.size
        made = Span(self.backend.alloc(host.size, self.dtype), 0, host.size)
        self.backend.upload(host, made)
        return made


def _point(x: Span) -> View:
    return View(x.buffer, x.offset, (), ())


@lru_cache(maxsize=4)
def _sum(dtype: DType) -> Expression:
    return trace(lambda x, y, a, b: a * x + b * y, (dtype, dtype), (dtype, dtype))


@lru_cache(maxsize=8)
def _share(dtype: DType, count: int) -> Expression:
    def share(x: Any, y: Any, *rest: Any) -> Any:
        *numbers, factor = rest
        number = numbers[0] if count == 1 else numbers[0] - numbers[1]
        return x + factor * number * y

    return trace(share, (dtype,) * (2 + count), (dtype,))


@lru_cache(maxsize=4)
def _product(dtype: DType) -> Expression:
    return trace(lambda x, y: x * y, (dtype, dtype))


@lru_cache(maxsize=4)
def _absolute(dtype: DType) -> Expression:
    return trace(lambda x: abs(x), (dtype,))
