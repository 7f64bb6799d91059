"""DLPack, both ways. What leaves is host memory; where the backend's memory is the host's, it is that memory itself."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from netcl.array import Array, Storage
from netcl.backends import dlpack_device_type
from netcl.backends.base import CPU_DEVICE, Backend
from netcl.dtypes import DType, bfloat16
from netcl.errors import ArgumentError, DTypeError
from netcl.functional import host
from netcl.functional.casting import check_supported
from netcl.host_dtypes import STORAGE

A = TypeVar("A", bound=Array)


def is_host_memory(backend: Backend) -> bool:
    """Whether the host may read and write a buffer of this backend at any time, where it lies."""
    return backend.device.shares_host_memory and dlpack_device_type(backend.device) == CPU_DEVICE


def export(x: Array, copy: bool | None, max_version: tuple[int, int] | None) -> Any:
    """A DLPack capsule of the elements in host memory. **Blocks**, unless it is the array's own memory.

    With ``copy=False`` that may also be memory which a device shares with the host: it is the consumer's for as long as
    what was made of the capsule lives, and the array must not be used meanwhile.

    Raises
    ------
    BufferError
        If ``copy=False`` and the elements are not in host memory, or the dtype is one that NumPy cannot export.
    """
    if x.dtype is bfloat16:
        raise BufferError("NumPy cannot export bfloat16; convert with astype(netcl.float32) first")
    if is_host_memory(x.backend) if copy is None else not copy and x.device.shares_host_memory:
        values = _in_place(x)
    elif copy is False:
        raise BufferError(f"{x.device} exports a copy in host memory; pass copy=None or copy=True")
    else:
        values = host.to_host(x)
    return values.__dlpack__() if max_version is None else values.__dlpack__(max_version=max_version)


def _in_place(x: Array) -> NDArray[Any]:
    """The elements where they lie, mapped for the host until nothing refers to them any more."""
    if x.size == 0:
        return np.empty(x.shape, STORAGE[x.dtype])
    span = x.storage.span()
    mapping = x.backend.map_host(span)
    memory = mapping.array()
    if not is_host_memory(x.backend):
        weakref.finalize(memory, mapping.release).atexit = False
    item = memory.itemsize
    strides = tuple([stride * item for stride in x.strides])
    return np.ndarray(x.shape, memory.dtype, memory, x.offset * item, strides)


def imported(cls: type[A], source: Any, backend: Backend, copy: bool | None) -> A:
    """What another library exports, on ``backend``: its own memory where that can be, unless ``copy`` asks for one.

    Raises
    ------
    DTypeError
        If the source cannot be read on the host, or its dtype has no counterpart.
    ArgumentError
        If ``copy=False`` and a copy is needed.
    """
    values = _read(source)
    dtype = host.host_dtype(values)
    check_supported(backend, dtype)
    reason = _why_copied(values, dtype, backend, copy)
    if not reason:
        storage = Storage(backend, backend.wrap_host_memory(values.reshape(-1), dtype), 0, values.size)
        storage.fixed = True
        return cls(storage, values.shape)
    if copy is False:
        raise ArgumentError(
            f"a {type(source).__name__} cannot become a Tensor without a copy: {reason}; pass copy=None"
        )
    return host.from_host(cls, np.array(values), backend, dtype)


def _why_copied(values: NDArray[Any], dtype: DType, backend: Backend, copy: bool | None) -> str:
    """Why the memory of ``values`` is not taken as it is; empty if it is."""
    if copy:
        return "copy=True"
    if not backend.device.shares_host_memory:
        return f"{backend.device} has memory of its own"
    if copy is None and not is_host_memory(backend):
        return f"on {backend.device} the host must not touch the array while it is in use"
    if not values.flags.c_contiguous or not values.flags.aligned or values.dtype != STORAGE[dtype]:
        return "its elements are not one aligned row-major run"
    return "" if values.flags.writeable else "it is read-only"


def _read(source: Any) -> NDArray[Any]:
    if isinstance(source, np.ndarray):
        return source if source.dtype.isnative else source.astype(source.dtype.newbyteorder("="))
    try:
        return np.from_dlpack(source)
    except Exception as first:  # whatever another library raises is a reason
        try:
            return np.from_dlpack(source, device="cpu")
        except Exception:
            raise DTypeError(
                f"a {type(source).__name__} cannot be read on the host ({first}); move it there, or convert it to a "
                "NumPy array first"
            ) from first
