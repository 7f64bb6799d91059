"""Running results, sorting and writes by index, on the host: the operands are read and written whole. These block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.backends.base import Scalar, Span, View
from netcl.backends.composed.primitives import Primitives, scratch
from netcl.dtypes import DType, complex64, complex128, float32, float64
from netcl.expression import Expression, build, cast, conversion
from netcl.host_dtypes import STORAGE, stored_as, values_of
from netcl.host_sorting import sort_on_host
from netcl.strides import contiguous_strides

_JOIN = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
_WIDER = {float32: float64, complex64: complex128}


def scan(
    primitives: Primitives,
    op: str,
    expression: Expression,
    inputs: Sequence[View],
    axis: int,
    out: View,
    scalars: Sequence[Scalar],
) -> None:
    """The terms are computed on the device and joined on the host, in an accumulator at least as wide."""
    if 0 in out.shape:
        return
    (value,) = expression.outputs
    dtype = value.dtype if value.dtype.kind in "fc" or op in ("max", "min") else out.dtype.compute
    terms = build((cast(value, dtype),), expression.inputs, expression.scalars, (dtype,), expression.name)
    memory = _contiguous(primitives, out.shape, dtype)
    primitives.map(terms, inputs, (memory,), scalars)
    wide = STORAGE[_WIDER.get(dtype, dtype) if op == "sum" else dtype]
    found = _JOIN[op].accumulate(_read(primitives, memory), axis=axis, dtype=wide if op in ("sum", "prod") else None)
    _write(primitives, stored_as(found, out.dtype), out)


def sort(
    primitives: Primitives, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool
) -> None:
    """The elements in order, and where each stood."""
    if 0 in x.shape:
        return
    values = _read(primitives, x)
    ordered = None if out is None else np.empty_like(values)
    places = None if indices is None else np.empty(values.shape, np.int64)
    sort_on_host(values, x.dtype, axis, ordered, places, descending=descending)
    for view, host in ((out, ordered), (indices, places)):
        if view is not None:
            _write(primitives, host, view)


def scatter(primitives: Primitives, updates: View, indices: View, out: View) -> None:
    """The rows written in their order; ``gather`` reports an index out of range."""
    if 0 in updates.shape:
        return
    outer, extent, inner = out.shape
    row = _contiguous(primitives, (1, extent, 1), out.dtype)
    repeated = View(row.buffer, 0, (outer, extent, inner), (0, 1, 0))
    primitives.gather(repeated, indices, _contiguous(primitives, indices.shape, out.dtype))
    given = values_of(_read(primitives, indices), indices.dtype).astype(np.int64)
    index = np.where(given < 0, given + extent, given)
    inside = (index >= 0) & (index < extent)
    places = ((np.arange(outer)[:, None, None] * extent + index) * inner + np.arange(inner))[inside]
    values = _read(primitives, out)
    values.reshape(-1)[places] = _read(primitives, updates)[inside]  # over one axis NumPy writes in order
    _write(primitives, values, out)


def _contiguous(primitives: Primitives, shape: tuple[int, ...], dtype: DType) -> View:
    memory = scratch(primitives, math.prod(shape), dtype)
    return View(memory.buffer, 0, shape, contiguous_strides(shape))


def _read(primitives: Primitives, x: View) -> NDArray[Any]:
    copy = _contiguous(primitives, x.shape, x.dtype)
    primitives.map(conversion(x.dtype, x.dtype), (x,), (copy,))
    host: NDArray[Any] = primitives.download(Span(copy.buffer, 0, math.prod(x.shape)))
    return host.reshape(x.shape)


def _write(primitives: Primitives, host: Any, out: View) -> None:
    copy = _contiguous(primitives, out.shape, out.dtype)
    primitives.upload(np.ascontiguousarray(host).reshape(-1), Span(copy.buffer, 0, math.prod(out.shape)))
    primitives.map(conversion(out.dtype, out.dtype), (copy,), (out,))
