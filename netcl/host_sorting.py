"""Sorting in the host's memory as the backend protocol has it: stable, NaN last, -0.0 equal to 0.0.

NumPy's default sort uses the processor's vectors and is many times as fast as its stable one, but neither keeps the
order of equals nor tells zeros apart. Values alone need no more than a repair of these; for places, the key and the
place are packed into one integer, so that no two are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.dtypes import DType

PLACES = 1 << 32
"""Places that fit beside a key of 32 bits."""

_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

_INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}
"""The bits of infinity; a NaN is what lies above it but for the sign."""


def infinity_bits(dtype: DType) -> int:
    """The bits of a floating dtype's infinity."""
    return _INFINITY[dtype.name]


def sort_on_host(
    x: NDArray[Any],
    dtype: DType,
    axis: int,
    out: NDArray[Any] | None,
    indices: NDArray[Any] | None,
    *,
    descending: bool,
) -> None:
    """out ← the elements of ``x`` in order along ``axis``, indices ← where each stood.

    Parameters
    ----------
    x, out : numpy.ndarray
        Elements of ``dtype`` as they travel, with any strides. They may be the same memory.
    indices : numpy.ndarray
        int64. Either output may be None.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.dtypes import float32
    >>> from netcl.host_sorting import sort_on_host
    >>> x, places = np.array([2.0, np.nan, 3.0, 2.0], np.float32), np.empty(4, np.int64)
    >>> sort_on_host(x, float32, 0, x, places, descending=True)
    >>> x, places
    (array([ 3.,  2.,  2., nan], dtype=float32), array([2, 0, 3, 1]))
    """
    rows = np.moveaxis(x, axis, -1)
    target = None if out is None else np.moveaxis(out, axis, -1)
    if target is not None and indices is None and not (dtype.kind == "f" and dtype.itemsize == 2):
        _sort_values(rows, target, descending=descending)
        return
    places = _order(_keys(rows, dtype, descending=descending))
    if target is not None:
        target[...] = np.take_along_axis(rows, places, -1)
    if indices is not None:
        np.moveaxis(indices, axis, -1)[...] = places


def _sort_values(rows: NDArray[Any], target: NDArray[Any], *, descending: bool) -> None:
    floating = rows.dtype.kind == "f"
    if floating and np.may_share_memory(rows, target):
        rows = rows.copy()
    # What turns the order round, and back.
    turn = np.negative if floating else np.invert
    if descending:
        turn(rows, out=target)
    else:
        np.copyto(target, rows)
    target.sort(axis=-1, kind="stable" if rows.itemsize <= 2 else None)
    if descending:
        turn(target, out=target)
    if floating and target.size:
        # Vectors mix up what compares equal but is not the same.
        zeros = rows == 0
        if np.signbit(rows[zeros]).any():
            target[target == 0] = rows[zeros]
        if np.isnan(target[..., -1]).any():
            target[np.isnan(target)] = rows[np.isnan(rows)]


def _keys(rows: NDArray[Any], dtype: DType, *, descending: bool) -> NDArray[Any]:
    """Unsigned integers in the order that is wanted of ``rows``."""
    unsigned = _UNSIGNED[rows.itemsize]
    bits = rows.view(unsigned)
    sign = unsigned(1 << 8 * rows.itemsize - 1)
    if dtype.kind != "f":
        keys = bits ^ sign if dtype.kind == "i" else bits
        return ~keys if descending else keys
    negative = bits >= sign
    keys = np.where(negative, ~bits, bits | sign)
    keys += bits == sign  # -0.0 is 0.0
    if descending:
        np.invert(keys, out=keys)
    nan = (bits & ~sign) > unsigned(infinity_bits(dtype))
    if nan.any():
        keys[nan] = ~unsigned(0)
    return keys


def _order(keys: NDArray[Any]) -> NDArray[np.intp]:
    """The places of unsigned keys in stable order along the last axis."""
    count = keys.shape[-1]
    if keys.itemsize < 4 or count > PLACES:
        return np.argsort(keys, axis=-1, kind="stable")
    if keys.itemsize == 8:
        low = _order((keys & np.uint64(PLACES - 1)).astype(np.uint32))
        high = _order(np.take_along_axis((keys >> np.uint64(32)).astype(np.uint32), low, -1))
        return np.take_along_axis(low, high, -1)
    packed = keys.astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= np.arange(count, dtype=np.uint64)
    packed.sort(axis=-1)
    packed &= np.uint64(PLACES - 1)
    return packed.view(np.int64)
