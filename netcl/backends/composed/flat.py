"""``fill``, ``scale`` and ``axpy`` over ``map``, and memory on the host over ``upload`` and ``download``."""

from __future__ import annotations

from functools import cache
from typing import final

from netcl.backends.base import HostArray, Scalar, Span
from netcl.backends.composed.primitives import Primitives, spread
from netcl.dtypes import DType
from netcl.errors import ShapeError
from netcl.expression import Expression, cast, trace
from netcl.rounding import nearest


@cache
def _fill(x: DType) -> Expression:
    return trace(lambda x, a: a, (x,), (x,), stored=(x,))


@cache
def _scale(x: DType, a: DType | None) -> Expression:
    inputs, scalars = ((x,), (x,)) if a is None else ((x, a), ())
    return trace(lambda x, a: cast(a, x.dtype) * x, inputs, scalars, stored=(x,))


@cache
def _axpy(x: DType, y: DType, a: DType | None) -> Expression:
    inputs, scalars = ((x, y), (y,)) if a is None else ((x, y, a), ())
    return trace(lambda x, y, a: cast(a, y.dtype) * x + y, inputs, scalars, stored=(y,))


def fill(primitives: Primitives, x: Span, a: Scalar) -> None:
    """x ← a."""
    # A scalar arrives in the compute dtype, and must not be rounded twice.
    number = nearest(float(a), x.dtype) if x.dtype.kind == "f" else a  # type: ignore[arg-type]
    primitives.map(_fill(x.dtype), [x.view()], [x.view()], [number])


def scale(primitives: Primitives, a: Scalar | Span, x: Span) -> None:
    """x ← a·x."""
    if isinstance(a, Span):
        primitives.map(_scale(x.dtype, a.dtype), [x.view(), spread(a, (x.size,))], [x.view()])
    else:
        primitives.map(_scale(x.dtype, None), [x.view()], [x.view()], [a])


def axpy(primitives: Primitives, a: Scalar | Span, x: Span, y: Span) -> None:
    """y ← a·x + y."""
    if x.size != y.size:
        raise ShapeError(f"axpy adds spans of one size, got x of {x.size} and y of {y.size} elements")
    if isinstance(a, Span):
        primitives.map(_axpy(x.dtype, y.dtype, a.dtype), [x.view(), y.view(), spread(a, (x.size,))], [y.view()])
    else:
        primitives.map(_axpy(x.dtype, y.dtype, None), [x.view(), y.view()], [y.view()], [a])


@final
class ComposedMapping:
    """A copy for the host to work on. See :class:`~netcl.backends.base.HostMapping`."""

    def __init__(self, primitives: Primitives, x: Span) -> None:
        self._primitives, self._span = primitives, x
        self._host: HostArray | None = None

    def array(self) -> HostArray:
        if self._host is None:
            self._host = self._primitives.download(self._span)
        return self._host

    def ready(self) -> bool:
        return self._host is not None

    def release(self) -> None:
        if self._host is not None:
            self._primitives.upload(self._host, self._span)
