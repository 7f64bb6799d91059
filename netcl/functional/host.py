"""The ways between host memory and arrays. Reading blocks; writing does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.array import Array, Storage
from netcl.backends.base import Backend, Span
from netcl.dtypes import (
    DEFAULT_COMPLEX,
    DEFAULT_FLOAT,
    DEFAULT_INT,
    DType,
    as_dtype,
    bfloat16,
    bool_,
    promote,
    promote_scalar,
    uint64,
)
from netcl.errors import DeviceMemoryError, DTypeError, NetclError, RangeError, ShapeError
from netcl.functional.casting import check_supported
from netcl.functional.dispatch import INTEGER_RANGE, contiguous, out_of_range
from netcl.host_dtypes import STORAGE, values_of
from netcl.rounding import bfloat16_bits

A = TypeVar("A", bound=Array)


def to_host(x: Array) -> NDArray[Any]:
    """The elements as a new NumPy array of the storage dtype; bfloat16 as the uint16 of its bits. **Blocks**."""
    if x.size == 0:
        return np.empty(x.shape, STORAGE[x.dtype])
    flat: NDArray[Any] = x.backend.download(contiguous(x).span())
    return flat.reshape(x.shape)


def to_numpy(x: Array) -> NDArray[Any]:
    """The elements as a new NumPy array; bfloat16 as float32 of the same values. **Blocks**."""
    return values_of(to_host(x), x.dtype)


def to_number(x: Array) -> Any:
    """The only element of an array of one as a Python number. **Blocks**."""
    storage = x.storage
    if storage.pending is not None:
        storage.pending.apply()
    stored = storage.backend.download(Span(storage.buffer, storage.offset + x.offset, 1))
    return values_of(stored, storage.dtype).item()


def from_host(cls: type[A], host: NDArray[Any], backend: Backend, dtype: DType) -> A:
    """A new array with the elements of ``host``, which must not be changed afterwards. Does not block.

    Converts on the host, rounding once. See :func:`stored` for what is refused.
    """
    check_supported(backend, dtype)
    return from_stored(cls, stored(host, dtype), backend, dtype)


def from_stored(cls: type[A], host: NDArray[Any], backend: Backend, dtype: DType) -> A:
    """A new array of elements as :func:`to_host` gives them, which must not be changed afterwards. Does not block."""
    storage = Storage.empty(backend, math.prod(host.shape), dtype)
    if host.size:
        backend.upload(host, storage.span())
    return cls(storage, host.shape)


def stored(host: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """The elements of a NumPy array as ``dtype`` stores them, in row-major order; ``host`` itself if it is that.

    Raises
    ------
    RangeError
        If an integer dtype cannot hold an element.
    DTypeError
        If it is integer and an element is a fraction or no number, or real and the elements are complex.
    """
    if host.dtype.kind == "c" and dtype.kind in "fiu":
        raise DTypeError(f"{host.dtype} does not convert to {dtype}; take the real part or the absolute value first")
    if dtype is bfloat16:
        bits: NDArray[Any] = np.ascontiguousarray(bfloat16_bits(host)).reshape(host.shape)
        return bits
    if dtype.kind in "iu" and host.dtype.kind in "iuf" and host.size:
        _check_range(host, dtype)
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(host, dtype=STORAGE[dtype]).reshape(host.shape)


def _check_range(host: NDArray[Any], dtype: DType) -> None:
    if host.dtype.kind != "f" and np.can_cast(host.dtype, STORAGE[dtype]):
        return
    low, high = INTEGER_RANGE[dtype.name]
    if host.dtype.kind == "f":
        # high itself may be no float64, but what lies above it, a power of two, is one.
        fits = (host >= float(low)) & (host < float(high + 1))
        whole = host == np.trunc(host)
        if not (fits & whole).all():
            first = host[~(fits & whole)][0].item()
            if math.isfinite(first) and first != int(first):
                raise DTypeError(f"{first!r} is not a value of {dtype}; round it first, or cast with astype()")
            raise out_of_range(first, dtype)
    else:
        least, most = int(host.min()), int(host.max())
        if least < low or most > high:
            raise out_of_range(least if least < low else most, dtype)


def made_on_host(function: Callable[..., Any], *arguments: Any, **named: Any) -> NDArray[Any]:
    """What a function of NumPy makes; refused as on a device if it does not fit into memory."""
    try:
        values: NDArray[Any] = function(*arguments, **named)
    except (MemoryError, ValueError, OverflowError) as error:
        raise DeviceMemoryError(f"an array of these extents does not fit into the host's memory: {error}") from error
    return values


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
    return as_dtype(dtype.newbyteorder("="))


_DEEPEST = 64
"""How many axes NumPy can have, and so how deep a nested sequence may be."""


def read_values(obj: Any) -> tuple[NDArray[Any], DType]:
    """``obj`` as a NumPy array in this machine's byte order, and the dtype it would have by itself.

    The array may share memory with ``obj``, unless that is a number or a sequence.
    """
    if isinstance(obj, np.ndarray | np.generic):
        return _read_array(obj)
    if not isinstance(obj, bool | int | float | complex | list | tuple | range):
        return _read_array(_exported(obj))
    leaf = _first_leaf(obj)
    common = None
    if isinstance(leaf, Array) or _holds_tensors(obj):
        found: list[Any] = []
        obj, leaf = _read_tensors(obj, found), None
        common = _common_dtype(found)
    try:
        values = np.asarray(obj)
    except NetclError:
        raise
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise ShapeError(f"this nested sequence is not an array: {error}; all rows need the same length") from error
    if values.dtype.kind == "O" and isinstance(leaf, int):
        raise RangeError("this sequence holds integers that neither int64 nor uint64 can hold; pass floats")
    if values.dtype.kind not in "biufc":
        raise DTypeError(f"this sequence holds more than numbers (NumPy reads it as {values.dtype}); convert it first")
    if isinstance(leaf, np.generic | np.ndarray):
        return _read_array(values)
    if values.dtype.kind == "f" and isinstance(leaf, int) and (np.abs(values) >= 2.0**63).any():
        values = _large_integers(obj, values)
    if common is not None:
        return values, common
    own = {"b": bool_, "i": DEFAULT_INT, "u": uint64, "f": DEFAULT_FLOAT, "c": DEFAULT_COMPLEX}
    return values, DEFAULT_FLOAT if values.size == 0 else own[values.dtype.kind]


def _large_integers(obj: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Integers beyond int64 as uint64, which NumPy reads as floats where others stand beside them."""
    exact = np.asarray(obj, object)
    if not all(isinstance(each, int) for each in exact.ravel()):
        return values
    if min(exact.ravel()) < 0:
        raise RangeError("this sequence holds negative integers and such as only uint64 can hold; pass floats")
    return exact.astype(np.uint64)


def _read_array(obj: Any) -> tuple[NDArray[Any], DType]:
    if isinstance(obj, np.ma.MaskedArray):
        raise DTypeError("a masked array would lose its mask; pass x.filled(value), and the mask separately")
    values = np.asarray(obj)
    if values.dtype.name == "bfloat16":
        return values.astype(np.float32), bfloat16
    own = host_dtype(values)
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("=")), own


def _exported(obj: Any) -> Any:
    """What another library's object offers as a NumPy array."""
    try:
        if hasattr(obj, "__dlpack__"):
            return np.from_dlpack(obj)
        if hasattr(obj, "__array__") or hasattr(obj, "__array_interface__") or _has_buffer(obj):
            return np.asarray(obj)
    except NetclError:
        raise
    except Exception as error:  # whatever another library raises is a reason, and not netcl's own error
        raise DTypeError(
            f"a {type(obj).__name__} cannot be read on the host ({error}); move or convert it to a NumPy array first"
        ) from error
    raise DTypeError(
        f"a {type(obj).__name__} holds no numbers that netcl can read; pass a number, a nested list, a NumPy "
        "array, a Tensor, or an object with __dlpack__"
    )


def _has_buffer(obj: Any) -> bool:
    if isinstance(obj, bytes):  # NumPy reads it as a string
        return False
    try:
        memoryview(obj)
    except TypeError:
        return False
    return True


def _first_leaf(obj: Any) -> Any:
    for _ in range(_DEEPEST + 1):
        if not isinstance(obj, list | tuple) or not obj:
            return None if isinstance(obj, list | tuple) else obj
        obj = obj[0]
    raise ShapeError(f"this sequence is nested more than {_DEEPEST} deep, or holds itself; an array has fewer axes")


def _holds_tensors(obj: Any) -> bool:
    """Whether a Tensor stands anywhere in a nested sequence."""
    if not isinstance(obj, list | tuple):
        return False
    kinds = set(map(type, obj))
    if any(issubclass(kind, Array) for kind in kinds):
        return True
    return any(issubclass(kind, list | tuple) for kind in kinds) and any(map(_holds_tensors, obj))


def _read_tensors(obj: Any, found: list[Any], depth: int = 0) -> Any:
    """A nested sequence with Python numbers for its Tensors; dtypes and other numbers are added to ``found``."""
    if depth > _DEEPEST:
        raise ShapeError(f"this sequence is nested more than {_DEEPEST} deep, or holds itself; an array has fewer axes")
    if isinstance(obj, list | tuple):
        return [_read_tensors(part, found, depth + 1) for part in obj]
    if isinstance(obj, Array):
        found.append(obj.dtype)
        return to_numpy(obj).tolist()
    if isinstance(obj, np.generic | np.ndarray):
        found.append(host_dtype(np.asarray(obj)))
    elif isinstance(obj, bool | int | float | complex):
        found.append(obj)
    return obj


def _common_dtype(found: list[Any]) -> DType:
    """What arrays of such dtypes and Python numbers give in one operation."""
    common: DType = reduce(promote, [each for each in found if isinstance(each, DType)])
    numbers = {type(each): each for each in found if not isinstance(each, DType)}
    return reduce(promote_scalar, numbers.values(), common)
