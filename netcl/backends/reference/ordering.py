"""Running results, sorting and scattered writes: over NumPy, and over any namespace of the standard."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import View
from netcl.backends.reference.numpy_operators import strided
from netcl.dtypes import DType, bool_, complex64, complex128, float32, float64
from netcl.host_sorting import sort_on_host
from netcl.strides import contiguous_strides

_JOINED = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
_CUMULATIVE = {"sum": "cumulative_sum", "prod": "cumulative_prod"}
_WIDER = {float32: float64, complex64: complex128}


def _accumulator(namespace: Any, op: str, dtype: DType, stored: DType) -> DType:
    """What sums and products are formed in: NumPy adds one by one, so that float32 would lose digits."""
    if dtype.kind not in "fc":
        return stored.compute
    wider = _WIDER.get(dtype, dtype) if op == "sum" else dtype
    return wider if namespace.supports(wider) else dtype


@final
class NumpyOrdering:
    """Over NumPy's arrays."""

    def __init__(self, namespace: Any) -> None:
        self._namespace = namespace

    def scan(self, op: str, value: Any, dtype: DType, axis: int, stored: DType) -> Any:
        """Running ``op`` along ``axis`` of ``value``, whose elements are of ``dtype``, for an output of ``stored``."""
        join, namespace = getattr(np, _JOINED[op]), self._namespace
        if op in _CUMULATIVE:
            return join.accumulate(value, axis=axis, dtype=namespace.native(_accumulator(namespace, op, dtype, stored)))
        return join.accumulate(value, axis=axis)

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        """See :class:`~netcl.backends.base.ArrayOperations`."""
        targets = [None if view is None else _array(view) for view in (out, indices)]
        sort_on_host(_array(x), x.dtype, axis, *targets, descending=descending)

    def scatter(self, updates: View, index: Any, out: View) -> None:
        """out[o, index[o, c, i], i] ← updates[o, c, i], in the order of c; indices count from the front."""
        _write(out.buffer.array, out.offset, out.strides, index, _array(updates))  # type: ignore[attr-defined]


@final
class StandardOrdering:
    """The same with the functions of the standard."""

    def __init__(self, namespace: Any) -> None:
        self._namespace = namespace

    def scan(self, op: str, value: Any, dtype: DType, axis: int, stored: DType) -> Any:
        """As :meth:`NumpyOrdering.scan`."""
        namespace, xp = self._namespace, self._namespace.xp
        if op in _CUMULATIVE:
            dtype = _accumulator(namespace, op, dtype, stored)
            cumulative = getattr(xp, _CUMULATIVE[op], None)
            if cumulative is not None and dtype is not bool_:
                return cumulative(value, axis=axis, dtype=namespace.native(dtype))
            value = xp.astype(value, namespace.native(dtype))
        # The standard has no running maximum: after step k each element is joined with the 2**k before it.
        join, step = namespace.operator(_JOINED[op], dtype, dtype), 1
        while step < value.shape[axis]:
            joined = join(value[_along(axis, step, None)], value[_along(axis, None, -step)], None)
            value = xp.concat([value[_along(axis, None, step)], joined], axis=axis)
            step *= 2
        return value

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        """See :class:`~netcl.backends.base.ArrayOperations`."""
        namespace, xp = self._namespace, self._namespace.xp
        stored = namespace.read(x)
        key = namespace.widen(stored, x.dtype)
        if x.dtype is bool_:
            key = xp.astype(xp.logical_not(key) if descending else key, xp.uint8)
        elif x.dtype.kind != "f":
            key = xp.bitwise_invert(key) if descending else key
        else:
            key = 0.0 - key if descending else key + 0.0  # which turns -0.0 into 0.0
        places = xp.astype(xp.argsort(key, axis=axis, stable=True), xp.int64)
        if out is not None:
            namespace.write(out, xp.take_along_axis(stored, places, axis=axis))
        if indices is not None:
            namespace.write(indices, places)

    def scatter(self, updates: View, index: Any, out: View) -> None:
        """As :meth:`NumpyOrdering.scatter`. The standard has no such function, so the host does it."""
        namespace = self._namespace
        host = namespace.to_host(namespace.read(out)).reshape(-1)
        values = namespace.to_host(namespace.read(updates))
        _write(host, 0, contiguous_strides(out.shape), namespace.to_host(index), values)
        namespace.write(out, namespace.xp.reshape(namespace.from_host(host, out.dtype), out.shape))


def _along(axis: int, start: int | None, stop: int | None) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, slice(start, stop), ...)


def _write(memory: Any, offset: int, strides: tuple[int, ...], index: Any, updates: Any) -> None:
    outer, _, inner = updates.shape
    places = offset + np.arange(outer)[:, None, None] * strides[0] + index * strides[1] + np.arange(inner) * strides[2]
    # Over one axis NumPy writes in order, over several in that of the index's memory.
    memory[places.reshape(-1)] = updates.reshape(-1)


def _array(x: View) -> Any:
    return strided(x.buffer.array, x.offset, x.shape, x.strides)  # type: ignore[attr-defined]
