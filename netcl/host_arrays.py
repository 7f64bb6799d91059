"""Arrays of other libraries, in whose own memory a device works: mapped for it while a step runs, and unmapped."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from netcl.array import Array, Storage
from netcl.backends.base import Backend, HostMapping, Span
from netcl.dtypes import BY_NAME, DType, as_dtype, bfloat16
from netcl.errors import DTypeError, ShapeError


def host_memory(x: Any, label: str) -> tuple[np.ndarray[Any, Any], DType]:
    """The memory of an array that lies on the host, as a NumPy array of its shape, and its dtype. Nothing is copied.

    Parameters
    ----------
    x : numpy.ndarray, torch.Tensor on the CPU, or any array with ``__dlpack__``
    label : str
        What a message calls it.

    Raises
    ------
    DTypeError
        If it is not such an array, or its elements are none that netcl knows.
    """
    if hasattr(x, "detach") and not isinstance(x, type):
        x = x.detach()
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise DTypeError(f"{label} is a masked array, whose mask would be lost; pass x.filled(value)")
        if not x.dtype.isnative:
            raise DTypeError(
                f"{label} has dtype {x.dtype.str!r}, the byte order of another machine, and cannot be worked on in "
                "place; pass x.astype(x.dtype.newbyteorder('='))"
            )
        if x.dtype.name not in BY_NAME:
            raise DTypeError(f"{label} has dtype {x.dtype}; convert it with astype() to one of {', '.join(BY_NAME)}")
        return x, as_dtype(x.dtype)
    if not hasattr(x, "__dlpack__") or isinstance(x, type):
        raise DTypeError(f"{label} is a {type(x).__name__}; pass a Tensor, or an array that offers __dlpack__")
    dtype = as_dtype(x.dtype)
    if dtype is bfloat16:  # DLPack knows it, NumPy does not: it travels as the integers of its bits
        x = x.view(array_api_compat.array_namespace(x).uint16)
    try:
        return np.from_dlpack(x), dtype
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DTypeError(f"{label} cannot be reached from the host without a copy ({error}); move it there") from error


class HostBackedArray:
    """One array of another library, and the device's view of it.

    The host owns the memory but between :meth:`map_for_device` and :meth:`unmap`. Where the device shares the host's
    memory nothing is copied.

    Parameters
    ----------
    backend : Backend
    host : numpy.ndarray
        Contiguous.
    dtype : DType

    Attributes
    ----------
    array : Array
        For the device.
    """

    def __init__(self, backend: Backend, host: np.ndarray[Any, Any], dtype: DType) -> None:
        self.host = host
        self._flat = host.reshape(-1)
        self._backend = backend
        self._shares = backend.device.shares_host_memory
        buffer = backend.wrap_host_memory(self._flat, dtype) if self._shares else backend.alloc(host.size, dtype)
        storage = Storage(backend, buffer, 0, host.size)
        storage.fixed = True
        self.array = Array(storage, host.shape)
        self._span = Span(buffer, 0, host.size)
        self._mapping: HostMapping | None = None
        if self._shares:
            self._mapping = backend.map_host(self._span)

    def is_over(self, host: np.ndarray[Any, Any]) -> bool:
        """Whether this stands for exactly this memory."""
        mine = self.host
        return (
            mine.ctypes.data == host.ctypes.data
            and mine.shape == host.shape
            and mine.dtype == host.dtype
            and mine.strides == host.strides
        )

    def map_for_device(self) -> None:
        """Let the device have the memory, with what the host wrote. Does not block on a device that shares memory."""
        if not self._shares:
            self._backend.upload(self._flat, self._span)
        elif self._mapping is not None:
            self._mapping.release()
            self._mapping = None

    def start_unmap(self) -> None:
        """Enqueue the return of the memory. Does not block."""
        if self._shares and self._mapping is None:
            self._mapping = self._backend.map_host(self._span)

    def unmap(self, *, written: bool) -> None:
        """Let the host have the memory, with what the device wrote if it did. **Blocks**."""
        self.start_unmap()
        if self._mapping is not None:
            self._mapping.array()
        elif written:
            self._flat[:] = self._backend.download(self._span)


def writable_memory(x: Any, label: str) -> tuple[np.ndarray[Any, Any], DType]:
    """As :func:`host_memory`, of an array that can be updated in place.

    Raises
    ------
    DTypeError
        If the array cannot be written to.
    ShapeError
        If it is not one run of memory.
    """
    host, dtype = host_memory(x, label)
    if not host.flags.writeable:
        raise DTypeError(f"{label} is read-only and cannot be updated in place; pass a writable copy of it")
    if not host.flags.c_contiguous:
        raise ShapeError(
            f"{label} has shape {host.shape} and byte strides {host.strides}, which is not one run of memory in "
            "row-major order; pass a contiguous array"
        )
    return host, dtype
