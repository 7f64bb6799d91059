"""Conversion between dtypes, and writing over an array."""

from __future__ import annotations

from typing import Any

from netcl import tape
from netcl.array import Array
from netcl.backends.base import Device
from netcl.dtypes import DType, as_dtype
from netcl.errors import DTypeError
from netcl.functional.dispatch import (
    A,
    Operand,
    check_arrays,
    identity,
    map_arrays,
    map_into,
    stored_value,
    sum_to_shape,
)
from netcl.validation import flag, shown

__all__ = ["astype"]


def astype(x: A, dtype: DType | str, /, *, copy: bool = True, device: object = None) -> A:
    """Convert the elements to another dtype.

    Parameters
    ----------
    x : Tensor
    dtype : DType or str
    copy : bool, default True
        With False, ``x`` itself is returned when it has the dtype already.
    device : optional
        Only the device of ``x`` itself; use ``to(device)`` to move.

    Raises
    ------
    DTypeError
        If the dtype does not exist or the device cannot compute in it.

    Examples
    --------
    >>> import netcl
    >>> netcl.astype(netcl.asarray([1.7, -1.7]), netcl.int32).tolist()
    [1, -1]
    """
    check_arrays("astype", x)
    target = as_dtype(dtype)
    copy = flag("copy", copy)
    if device is not None and not (isinstance(device, str | Device) and str(device) == str(x.device)):
        raise DTypeError(f"astype does not move arrays from {x.device} to {shown(device)}; use to(device) first")
    if target is x.dtype and not copy:
        return x
    check_supported(x.backend, target)
    check_castable(x.dtype, target)
    out = map_arrays(identity, x, dtype=target)
    if target.kind in "fc":
        tape.record(out, (x, tape.VJPWithOut(lambda g, into: sum_to_shape(x, identity, g, out=into))), name="astype")
    return out


def check_castable(source: DType, target: DType) -> None:
    """Refuse to drop imaginary parts."""
    if source.kind == "c" and target.kind in "fiu":
        raise DTypeError(f"{source} does not convert to {target}; take the real part or abs(x) first")


def check_supported(backend: Any, dtype: DType) -> None:
    """Refuse a dtype that the device cannot compute in."""
    if not backend.supports(dtype):
        device = backend.device
        remedy = "float32" if dtype.kind == "f" else "complex64" if dtype.kind == "c" else "int64"
        raise DTypeError(
            f"{device} ({device.name}) cannot compute in {dtype}; pass dtype=netcl.{remedy}, or use backend='numpy'"
        )


def assign(out: Array, value: Operand) -> None:
    """Write ``value``, cast and broadcast, over the elements of ``out``. Not recorded."""
    if isinstance(value, Array):
        check_castable(value.dtype, out.dtype)
        map_into(out, identity, value)
        return
    number = stored_value(value, out.dtype)
    if out.is_contiguous:
        if out.size:
            out.backend.fill(out.span(), number)
    else:
        map_into(out, _second, out, number)


def _second(x: Any, value: Any) -> Any:
    return value
