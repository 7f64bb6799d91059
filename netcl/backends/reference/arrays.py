"""The array operations on any Array-API namespace: what Tensor and autograd are written against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import Scalar, View
from netcl.backends.reference.evaluation import Evaluation
from netcl.backends.reference.memory import Memory
from netcl.backends.reference.special import random_words
from netcl.dtypes import bool_, float32, float64, uint32
from netcl.expression import Expression


@final
class ArrayCalls:
    """:class:`~netcl.backends.base.ArrayOperations` over a namespace, but for ``map``."""

    def __init__(self, memory: Memory, evaluation: Evaluation) -> None:
        self._namespace = memory.namespace
        self._view, self._load, self._store = memory.view, memory.load, memory.store
        self._value = evaluation.value

    def reduce(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        function = self._namespace.reduction(op)
        with np.errstate(all="ignore"):
            value = self._value(expression, inputs, scalars)
            if op in ("any", "all", "max", "min"):
                value = function(value, axis=axes) if axes else value
            else:
                value = function(value, axis=axes, dtype=self._accumulator(op, expression, axes, inputs, out))
            self._store(out, value)

    def _accumulator(
        self, op: str, expression: Expression, axes: tuple[int, ...], inputs: Sequence[View], out: View
    ) -> Any:
        dtype = expression.outputs[0].dtype
        if dtype is bool_ or dtype.kind in "iu":
            dtype = out.dtype.compute
        # NumPy adds pairwise along the innermost axis alone; anywhere else float32 would lose digits with every row.
        pairwise = axes == tuple(range(len(inputs[0].shape) - len(axes), len(inputs[0].shape)))
        if op == "sum" and dtype is float32 and not pairwise and self._namespace.supports(float64):
            dtype = float64
        return self._namespace.native(dtype)

    def scan(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        with np.errstate(all="ignore"):
            value = self._value(expression, inputs, scalars)
            self._store(out, self._namespace.ordering.scan(op, value, expression.outputs[0].dtype, axis, out.dtype))

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        self._namespace.ordering.sort(x, axis, out, indices, descending=descending)

    def arg_reduce(self, op: str, x: View, axis: int, out: View) -> None:
        self._store(out, self._namespace.arg_reduce(op, self._load(x), axis))

    def batched_matmul(self, a: View, b: View, out: View) -> None:
        if math.prod(out.shape) == 0:
            return
        with np.errstate(all="ignore"):
            self._namespace.matmul(self._load(a), self._load(b), out)

    def gather(self, x: View, indices: View, out: View) -> None:
        xp = self._namespace.xp
        if math.prod(out.shape) == 0:
            return
        values = self._view(x)
        if _one_per_row(indices):
            index = self._checked(self._row_indices(indices), x.shape[1])
            taken = xp.take(values, index, axis=1)
        else:
            index = self._checked(self._view(indices), x.shape[1])
            taken = xp.take_along_axis(values, index, axis=1)
        self._store(out, self._namespace.widen(taken, x.dtype))

    def scatter_add(self, updates: View, indices: View, out: View) -> None:
        if math.prod(updates.shape) == 0:
            return
        index = self._checked(self._view(indices), out.shape[1])
        with np.errstate(all="ignore"):
            self._store(out, self._namespace.scatter_add(self._load(out), index, self._load(updates)))

    def scatter(self, updates: View, indices: View, out: View) -> None:
        if math.prod(updates.shape):
            index = self._checked(self._view(indices), out.shape[1])
            self._namespace.ordering.scatter(updates, index, out)

    def _row_indices(self, indices: View) -> Any:
        return self._view(View(indices.buffer, indices.offset, indices.shape[1:2], indices.strides[1:2]))

    def _checked(self, index: Any, extent: int) -> Any:
        """Indices counted from the front, as int64."""
        xp = self._namespace.xp
        low, high = int(xp.min(index)), int(xp.max(index))
        if low < -extent or high >= extent:
            worst = high if high >= extent else low
            raise IndexError(
                f"index {worst} is out of range: indices must lie in [{-extent}, {extent}) along this axis"
            )
        index = xp.astype(index, self._namespace.xp.int64)
        return index if low >= 0 else xp.where(index < 0, index + extent, index)

    def softmax(self, x: View, out: View, *, log: bool) -> None:
        if math.prod(x.shape) == 0:
            return
        xp = self._namespace.xp
        with np.errstate(all="ignore"):
            shifted, exponentials, total = self._exponentials(x)
            self._store(out, shifted - xp.log(total) if log else exponentials / total)

    def _exponentials(self, x: View) -> tuple[Any, Any, Any]:
        """x - max(x), its exponential, and the sum of that, along the last axis."""
        xp, value = self._namespace.xp, self._load(x)
        shifted = value - xp.max(value, axis=1, keepdims=True)
        exponentials = xp.exp(shifted)
        return shifted, exponentials, xp.sum(exponentials, axis=1, keepdims=True)

    def softmax_cross_entropy(
        self, logits: View, labels: View, loss: View, gradient: View | None, label_smoothing: float, ignore_index: int
    ) -> None:
        rows, classes = logits.shape
        if rows == 0:
            return
        xp, eps = self._namespace.xp, label_smoothing
        label = xp.astype(self._view(labels), xp.int64)
        used = label != ignore_index
        every = bool(xp.all(used))
        picked = label if every else xp.where(used, label, label * 0)
        low, high = int(xp.min(picked)), int(xp.max(picked))
        if low < 0 or high >= classes:
            raise IndexError(
                f"label {high if high >= classes else low} is out of range: labels must lie in [0, {classes}) or equal "
                f"ignore_index={ignore_index}"
            )
        hit = xp.arange(classes, dtype=xp.int64, device=self._namespace.place)[None, :] == picked[:, None]
        with np.errstate(all="ignore"):
            shifted, exponentials, total = self._exponentials(logits)
            log_total = xp.log(total)[:, 0]
            value = (1.0 - eps) * (log_total - xp.sum(xp.where(hit, shifted, xp.zeros_like(shifted)), axis=1))
            if eps:
                value = value + eps * (log_total - xp.mean(shifted, axis=1))
            self._store(loss, value if every else xp.where(used, value, xp.zeros_like(value)))
            if gradient is not None:
                slope = exponentials / total
                if eps:
                    slope = slope - eps / classes
                slope = xp.where(hit, slope - (1.0 - eps), slope)
                self._store(gradient, slope if every else xp.where(used[:, None], slope, xp.zeros_like(slope)))

    def random_bits(self, out: View, seed: int, offset: int) -> None:
        words = random_words(math.prod(out.shape), seed, offset)
        self._store(out, self._namespace.xp.reshape(self._namespace.from_host(words, uint32), out.shape))


def _one_per_row(indices: View) -> bool:
    """Whether the indices depend on the middle axis alone."""
    return all(indices.shape[axis] == 1 or indices.strides[axis] == 0 for axis in (0, 2))
