"""Functions under torch's names that the Array API writes with ``asarray(copy=True)``, ``reshape`` and subscripts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from netcl import tape, validation
from netcl.errors import ShapeError
from netcl.functional.dispatch import A, check_arrays, identity, map_arrays
from netcl.functional.joining import strided
from netcl.functional.shape import normalize_axis, reshape

__all__ = ["clone", "flatten", "split"]


def clone(x: A, /) -> A:
    """A contiguous copy with memory of its own, recorded by the tape.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.clone(netcl.asarray([1, 2])).tolist()
    [1, 2]
    """
    check_arrays("clone", x)
    out = map_arrays(identity, x)
    tape.record(out, (x, lambda g: g), name="clone")
    return out


def flatten(x: A, /, start_axis: int = 0, end_axis: int = -1) -> A:
    """Merge the axes from ``start_axis`` to ``end_axis`` into one.

    Parameters
    ----------
    x : Tensor
    start_axis, end_axis : int, default 0 and -1
        The first and the last axis to merge.

    Raises
    ------
    ShapeError
        If there is no such axis.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.flatten(netcl.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    check_arrays("flatten", x)
    if x.ndim == 0:
        validation.axis("start_axis", start_axis, 1), validation.axis("end_axis", end_axis, 1)
        return reshape(x, (1,))
    start = validation.axis("start_axis", start_axis, x.ndim)
    end = validation.axis("end_axis", end_axis, x.ndim)
    if end < start:
        raise ShapeError(f"end_axis ({end_axis}) lies before start_axis ({start_axis}); exchange them")
    return reshape(x, (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


def split(x: A, size: int | Sequence[int], /, *, axis: int = 0) -> tuple[A, ...]:
    """Views of consecutive parts of ``x`` along an axis.

    Parameters
    ----------
    x : Tensor
    size : int or sequence of int
        The extent of each part (the last may be smaller), or the extents of all parts.
    axis : int, default 0

    Raises
    ------
    ShapeError
        If the extents do not add up.

    Examples
    --------
    >>> import netcl
    >>> [part.tolist() for part in netcl.functional.split(netcl.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    check_arrays("split", x)
    axis = normalize_axis(axis, x.ndim)
    extent = x.shape[axis]
    if not isinstance(size, tuple | list):
        size = validation.extent("the size of a part", size, least=1)
        sizes = [min(size, extent - start) for start in range(0, extent, size)]
    else:
        sizes = [validation.extent("the size of a part", part) for part in size]
        if sum(sizes) != extent:
            raise ShapeError(f"parts of {sizes} do not add up to the {extent} elements of axis {axis}")
    parts = []
    start = 0
    for part in sizes:
        parts.append(strided(x, axis, start, part, 1))
        start += part
    return tuple(parts)
