"""Memory of the reference backend: buffers, what travels to and from the host, and elements read and written."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from netcl.backends.base import HostArray, Span, View
from netcl.backends.reference.buffers import ReferenceBuffer, python_number
from netcl.backends.reference.namespace import AnyNamespace
from netcl.dtypes import DType
from netcl.errors import ShapeError


@final
class ReferenceMapping:
    """Elements that the host works on: in place where the namespace's arrays are the host's own."""

    def __init__(self, namespace: AnyNamespace, x: Span) -> None:
        self._namespace, self._span = namespace, x
        self._host = namespace.map_host(_elements(x))

    def array(self) -> HostArray:
        return self._host

    def ready(self) -> bool:
        return True

    def release(self) -> None:
        self._namespace.unmap_host(self._host, self._span)


@final
class Memory:
    """Buffers over a namespace. The first six calls are the protocol's."""

    def __init__(self, namespace: AnyNamespace) -> None:
        self.namespace = namespace
        self.view = namespace.read
        self.store = namespace.write

    def alloc(self, n: int, dtype: DType) -> ReferenceBuffer:
        return ReferenceBuffer(self.namespace.empty(n, dtype), n, dtype)

    def upload(self, host: HostArray, out: Span) -> None:
        host = np.asarray(host).reshape(-1)
        if host.size != out.size:
            raise ShapeError(f"upload of {host.size} elements to a span of {out.size}; both must have the same size")
        _array(out)[out.offset : out.offset + out.size] = self.namespace.from_host(host, out.dtype)

    def download(self, x: Span) -> HostArray:
        return self.namespace.to_host(_elements(x))

    def synchronize(self) -> None:
        """Nothing is ever under way: calls return when they have taken effect."""

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> ReferenceBuffer:
        """A buffer over the memory of a host array. See :class:`~netcl.backends.base.HostOperations`."""
        return ReferenceBuffer(host.reshape(-1), host.size, dtype)

    def map_host(self, x: Span) -> ReferenceMapping:
        """See :class:`~netcl.backends.base.HostOperations`."""
        return ReferenceMapping(self.namespace, x)

    def widened(self, x: Span) -> Any:
        """The elements of a span in their compute dtype."""
        return self.namespace.widen(_elements(x), x.dtype)

    def number(self, x: Span) -> Any:
        """The first element of a span as a Python number."""
        return python_number(self.widened(x)[0], x.dtype)

    def load(self, x: View) -> Any:
        """The elements of a view in their compute dtype."""
        return self.namespace.widen(self.view(x), x.dtype)


def _array(x: Span) -> Any:
    return x.buffer.array  # type: ignore[attr-defined]


def _elements(x: Span) -> Any:
    """The stored elements of a span, as the namespace's array."""
    return _array(x)[x.offset : x.offset + x.size]
