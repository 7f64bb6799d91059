"""Conversion between dtypes, and writing over an array."""

from __future__ import annotations

from typing import Any

from netcl import tape
from netcl.array import Array
from netcl.dtypes import DType, as_dtype
from netcl.errors import DTypeError
from netcl.functional.launch import A, Operand, identity, mapped, mapped_into, pull, scalar_value


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
    target = as_dtype(dtype)
    if device is not None and device != x.device and str(device) != str(x.device):
        raise DTypeError(f"astype does not move arrays from {x.device} to {device}; use to(device) first")
    if target is x.dtype and not copy:
        return x
    check_supported(x.backend, target)
    if x.dtype.kind == "c" and target.kind in "fiu":
        raise DTypeError(f"{x.dtype} does not convert to {target}; take real(x) or abs(x) first")
    out: A = mapped(identity, x, dtype=target)
    if target.kind in "fc":
        tape.record(out, (x, tape.Into(lambda g, into: pull(x, identity, g, out=into))), name="astype")
    return out


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
        mapped_into(out, identity, value)
    elif out.is_contiguous:
        if out.size:
            out.backend.fill(out.span(), scalar_value(value, out.dtype))
    else:
        mapped_into(out, _second, out, value)


def _second(x: Any, value: Any) -> Any:
    return value
