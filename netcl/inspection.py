"""Questions about dtypes and about what netcl can do: the Array API's inspection functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from netcl.array import Array
from netcl.backends import devices as device_statuses
from netcl.backends import get_backend
from netcl.backends.base import Device
from netcl.dtypes import (
    ALL,
    DEFAULT_COMPLEX,
    DEFAULT_FLOAT,
    DEFAULT_INT,
    DType,
    as_dtype,
    bfloat16,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    promote,
    promote_scalar,
)
from netcl.errors import ArgumentError, DTypeError
from netcl.validation import one_of

__all__ = ["__array_namespace_info__", "can_cast", "finfo", "iinfo", "isdtype", "result_type"]

_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of an operation between these arrays, dtypes and Python numbers.

    Parameters
    ----------
    arrays_and_dtypes : Tensor, DType or Python number
        At least one that is not a number. Numbers never widen an array.

    Raises
    ------
    DTypeError
        If there is no common dtype.
    ArgumentError
        If there are numbers alone.

    Examples
    --------
    >>> import netcl
    >>> netcl.result_type(netcl.float16, netcl.int32, 1.0)
    netcl.float16
    """
    numbers = [item for item in arrays_and_dtypes if isinstance(item, bool | int | float | complex)]
    known = [
        item.dtype if isinstance(item, Array) else item
        for item in arrays_and_dtypes
        if not isinstance(item, bool | int | float | complex)
    ]
    if not known:
        raise ArgumentError("result_type needs at least one array or dtype, got Python numbers only; pass a dtype too")
    result = as_dtype(known[0])
    for dtype in known[1:]:
        result = promote(result, as_dtype(dtype))
    for number in numbers:
        result = promote(result, promote_scalar(result, number))
    return result


def can_cast(from_: Array | DType, to: DType, /) -> bool:
    """Whether promotion may turn one dtype into another.

    Examples
    --------
    >>> import netcl
    >>> netcl.can_cast(netcl.int32, netcl.int64), netcl.can_cast(netcl.float64, netcl.float32)
    (True, False)
    """
    source = from_.dtype if isinstance(from_, Array) else as_dtype(from_)
    target = as_dtype(to)
    try:
        return promote(source, target) is target
    except DTypeError:
        return False


@dataclass(frozen=True, slots=True)
class FloatInfo:
    """What :func:`finfo` tells."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True, slots=True)
class IntInfo:
    """What :func:`iinfo` tells."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: Any, /) -> FloatInfo:
    """Limits of a floating dtype; of its real parts for a complex one.

    Raises
    ------
    DTypeError
        If the dtype is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.finfo(netcl.float16).max, netcl.finfo(netcl.bfloat16).eps
    (65504.0, 0.0078125)
    """
    dtype = type.dtype if isinstance(type, Array) else as_dtype(type)
    if dtype.kind not in "fc":
        raise DTypeError(f"finfo takes a floating dtype, got {dtype}; use iinfo for integers")
    if dtype is bfloat16:
        largest = float((2.0 - 2.0**-7) * 2.0**127)
        return FloatInfo(16, 2.0**-7, largest, -largest, 2.0**-126, dtype)
    real = {complex64: float32, complex128: float64}.get(dtype, dtype)
    found: Any = np.finfo(real.name)
    limits = (float(found.eps), float(found.max), float(found.min), float(found.smallest_normal))
    return FloatInfo(int(found.bits), *limits, real)


def iinfo(type: Any, /) -> IntInfo:
    """Limits of an integer dtype.

    Raises
    ------
    DTypeError
        If the dtype is not an integer one.

    Examples
    --------
    >>> import netcl
    >>> netcl.iinfo(netcl.int8).max
    127
    """
    dtype = type.dtype if isinstance(type, Array) else as_dtype(type)
    if dtype.kind not in "iu":
        raise DTypeError(f"iinfo takes an integer dtype, got {dtype}; use finfo for floating ones")
    found = np.iinfo(dtype.name)
    return IntInfo(int(found.bits), int(found.max), int(found.min), dtype)


def isdtype(dtype: DType, kind: DType | str | tuple[DType | str, ...]) -> bool:
    """Whether a dtype is of a kind.

    Parameters
    ----------
    dtype : DType
    kind : DType, str or tuple of them
        A dtype, or one of "bool", "signed integer", "unsigned integer", "integral", "real floating",
        "complex floating", "numeric"; of a tuple, any.

    Raises
    ------
    DTypeError
        For any other kind.

    Examples
    --------
    >>> import netcl
    >>> netcl.isdtype(netcl.bfloat16, "real floating")
    True
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if isinstance(kind, str):
        one_of("kind", kind, _KINDS, error=DTypeError)
        return as_dtype(dtype).kind in _KINDS[kind]
    return as_dtype(dtype) is as_dtype(kind)


class NamespaceInfo:
    """What ``netcl.__array_namespace_info__()`` returns.

    Examples
    --------
    >>> import netcl
    >>> info = netcl.__array_namespace_info__()
    >>> info.default_dtypes(device="numpy")["real floating"], info.capabilities()["boolean indexing"]
    (netcl.float32, True)
    """

    def capabilities(self) -> dict[str, Any]:
        """What the standard leaves to the library."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> Device:
        """Where new arrays are put."""
        return get_backend(None).device

    def devices(self) -> tuple[Device, ...]:
        """Every device that computes."""
        return tuple([status.device for status in device_statuses() if status.healthy])

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """What Python numbers become, the same on every device."""
        get_backend(device)
        return {
            "real floating": DEFAULT_FLOAT,
            "complex floating": DEFAULT_COMPLEX,
            "integral": DEFAULT_INT,
            "indexing": DEFAULT_INT,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The dtypes of the standard that a device computes in, by name. float16 and bfloat16 are none of those."""
        backend = get_backend(device)
        listed = [dtype for dtype in ALL if dtype not in (float16, bfloat16) and backend.supports(dtype)]
        return {dtype.name: dtype for dtype in listed if kind is None or isdtype(dtype, kind)}


def __array_namespace_info__() -> NamespaceInfo:
    """What netcl can do, as the Array API standard asks.

    Examples
    --------
    >>> import netcl
    >>> sorted(netcl.__array_namespace_info__().dtypes(device="numpy", kind="bool"))
    ['bool']
    """
    return NamespaceInfo()
