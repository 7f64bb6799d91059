"""The doors between host memory and arrays. Reading blocks; writing does not."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.array import Array, Storage
from netcl.backends.base import Backend
from netcl.dtypes import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype, bfloat16, bool_, complex64, float32
from netcl.errors import DTypeError, ShapeError
from netcl.functional.casting import check_supported
from netcl.functional.launch import contiguous, identity, mapped

A = TypeVar("A", bound=Array)


def to_host(x: Array) -> NDArray[Any]:
    """The elements as a new NumPy array of the storage dtype; bfloat16 as the uint16 of its bits. **Blocks**."""
    if x.size == 0:
        return np.empty(x.shape, storage_dtype(x.dtype))
    flat: NDArray[Any] = x.backend.download(contiguous(x).span())
    return flat.reshape(x.shape)


def to_numpy(x: Array) -> NDArray[Any]:
    """The elements as a new NumPy array; bfloat16 as float32 of the same values. **Blocks**."""
    host = to_host(x)
    if x.dtype is bfloat16:
        return (host.astype(np.uint32) << 16).view(np.float32)
    return host


@cache
def storage_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype in which elements travel."""
    return np.dtype("uint16" if dtype is bfloat16 else dtype.name)


def from_host(cls: type[A], host: NDArray[Any], backend: Backend, dtype: DType) -> A:
    """A new array with the elements of ``host``, which must not be changed afterwards. Does not block.

    Converts on the host, except to bfloat16, which the device rounds.
    """
    check_supported(backend, dtype)
    if dtype is bfloat16 and host.dtype != np.uint16:
        wide = from_host(cls, host, backend, float32)
        return mapped(identity, wide, dtype=bfloat16)  # type: ignore[no-any-return]
    host = np.ascontiguousarray(host, dtype=storage_dtype(dtype)).reshape(host.shape)
    storage = Storage.empty(backend, math.prod(host.shape), dtype)
    if host.size:
        backend.upload(host, storage.span())
    return cls(storage, host.shape)


def moved(x: A, backend: Backend) -> A:
    """``x`` on another device, through the host; **blocks** unless it is there already."""
    if backend is x.backend:
        return x
    check_supported(backend, x.dtype)
    storage = Storage.empty(backend, x.size, x.dtype)
    if x.size:
        backend.upload(to_host(x), storage.span())
    out = type(x)(storage, x.shape)
    source = x.backend
    tape.record(out, (x, lambda g: moved(g, source)), name="to")
    return out


def host_dtype(host: NDArray[Any]) -> DType:
    """The netcl dtype of a NumPy array."""
    return _counterpart(host.dtype)


@cache
def _counterpart(dtype: np.dtype[Any]) -> DType:
    if dtype.kind not in "biufc":
        raise DTypeError(f"a NumPy array of dtype {dtype} has no counterpart; convert it to a number dtype first")
    return as_dtype(dtype)


def read_values(obj: Any) -> tuple[NDArray[Any], DType]:
    """``obj`` as a NumPy array, and the dtype it would have by itself."""
    if isinstance(obj, np.ndarray | np.generic):
        values = np.asarray(obj)
        if values.dtype.name == "bfloat16":
            return values.astype(np.float32), bfloat16
        return values, host_dtype(values)
    if not isinstance(obj, bool | int | float | complex | list | tuple | range):
        if hasattr(obj, "__dlpack__"):
            values = np.from_dlpack(obj)
            return values, host_dtype(values)
        if hasattr(obj, "__array__") or hasattr(obj, "__array_interface__") or _has_buffer(obj):
            return read_values(np.asarray(obj))
        raise DTypeError(
            f"a {type(obj).__name__} holds no numbers that netcl can read; pass a number, a nested list, a NumPy "
            "array, a Tensor, or an object with __dlpack__"
        )
    leaf = _first_leaf(obj)
    if isinstance(leaf, Array):
        obj, leaf = _read_tensors(obj), None
    try:
        values = np.asarray(obj)
    except (ValueError, OverflowError) as error:
        raise ShapeError(f"this nested sequence is no array: {error}; all rows need the same length") from error
    if values.dtype.kind not in "biufc":
        raise DTypeError(f"this sequence holds more than numbers (NumPy reads it as {values.dtype}); convert it first")
    if isinstance(leaf, np.generic | np.ndarray):
        return values, host_dtype(values)
    own = {"b": bool_, "i": DEFAULT_INT, "u": host_dtype(values), "f": DEFAULT_FLOAT, "c": complex64}
    return values, DEFAULT_FLOAT if values.size == 0 else own[values.dtype.kind]


def _has_buffer(obj: Any) -> bool:
    try:
        memoryview(obj)
    except TypeError:
        return False
    return True


def _first_leaf(obj: Any) -> Any:
    while isinstance(obj, list | tuple):
        if not obj:
            return None
        obj = obj[0]
    return obj


def _read_tensors(obj: Any) -> Any:
    if isinstance(obj, list | tuple):
        return [_read_tensors(part) for part in obj]
    return to_numpy(obj).tolist() if isinstance(obj, Array) else obj
