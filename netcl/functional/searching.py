"""Where elements are: positions of what is True, and places in what is sorted. On the device; one number is read."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from netcl import expression as ex
from netcl.array import Array
from netcl.backends.base import View
from netcl.dtypes import DType, bool_, int64, promote, promote_scalar
from netcl.errors import DTypeError, ShapeError
from netcl.functional.dispatch import (
    A,
    check_arrays,
    common_backend,
    contiguous,
    identity,
    map_arrays,
    stored_value,
)
from netcl.functional.host import to_host
from netcl.functional.indexing import take
from netcl.functional.joining import concat
from netcl.functional.shape import reshape, view_or_copy
from netcl.validation import one_of

__all__ = ["nonzero", "searchsorted"]


def true_positions(mask: A) -> A:
    """Where ``mask`` is nonzero: row-major positions (int64) in order. **Blocks**: their number decides the shape."""
    n = mask.size
    if n == 0:
        return mask.empty_like((0,), int64)
    flags = _flat(mask if mask.dtype is bool_ else map_arrays(_truth, mask, dtype=bool_))
    counts = running_count(flags)
    found = int(to_host(counts.restride((1,), (1,), counts.offset + n - 1))[0])
    out = mask.empty_like((found + 1,), int64)  # what is False goes to the last element, which is cut off
    if found:
        targets = map_arrays(_target, flags, counts, found, dtype=int64)
        scatter_flat(places(mask, n), targets, out)
    return out.restride((found,), (1,), 0)


def running_count(flags: A) -> A:
    """How many elements of a vector are nonzero up to and with each one, as int64. Not recorded."""
    out = flags.empty_like(None, int64)
    if out.size:
        out.backend.scan("sum", _counted(flags.dtype), (flags.view(),), 0, out.view())
    return out


def places(x: A, n: int) -> A:
    """0, 1, …, n - 1 as int64, on the device of ``x``. Not recorded."""
    out = x.empty_like((n,), int64)
    if n:
        one = out.empty_like((1,), int64)
        out.backend.fill(one.span(), 1)
        source = View(one.storage.buffer, one.storage.offset, (n,), (0,))
        out.backend.scan("sum", ex.conversion(int64, int64), (source,), 0, out.view())
        return map_arrays(_minus_one, out)
    return out


def scatter_flat(updates: Array, indices: Array, out: Array) -> None:
    """out[indices[j]] ← updates[j], for vectors; the last of several to one place stays."""
    if updates.size:
        lift = [x.restride((1, x.size, 1), (0, x.strides[0], 0), x.offset) for x in (updates, indices, out)]
        out.backend.scatter(lift[0].view(), lift[1].view(), lift[2].view())


def _flat(x: A) -> A:
    return view_or_copy(x, (x.size,))


@cache
def _counted(dtype: DType) -> ex.Expression:
    return ex.trace(lambda x: ex.where(ex.not_equal(x, 0), ex.constant(1, int64), ex.constant(0, int64)), (dtype,))


def _truth(x: Any) -> Any:
    return ex.cast(x, bool_)


def _target(flag: Any, count: Any, found: Any) -> Any:
    return ex.where(flag, count - 1, found)


def _minus_one(x: Any) -> Any:
    return x - 1


def unravel(positions: A, shape: tuple[int, ...]) -> list[A]:
    """Row-major positions in an array of ``shape`` as one vector of positions for each axis. Not recorded."""
    if len(shape) == 1:
        return [positions]
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return [
        map_arrays(_along, positions, max(step, 1), max(extent, 1)) for step, extent in zip(steps, shape, strict=True)
    ]


def _along(position: Any, step: Any, extent: Any) -> Any:
    return ex.apply("remainder", ex.apply("floor_divide", position, step), extent)


def nonzero(x: A, /) -> tuple[A, ...]:
    """The positions of nonzero elements, in row-major order. **Blocks**: their number decides the shape.

    Parameters
    ----------
    x : Tensor
        With at least one axis.

    Returns
    -------
    tuple of Tensor
        A vector of int64 for each axis.

    Raises
    ------
    ShapeError
        If ``x`` has no axis.

    Examples
    --------
    >>> import netcl
    >>> [axis.tolist() for axis in netcl.nonzero(netcl.asarray([[0, 3], [4, 0]]))]
    [[0, 1], [1, 0]]
    """
    check_arrays("nonzero", x)
    if x.ndim == 0:
        raise ShapeError("nonzero takes an array with at least one axis, got shape (); use reshape(x, (1,)) first")
    return tuple(unravel(true_positions(x), x.shape))


def searchsorted(x1: A, x2: A, /, *, side: str = "left", sorter: A | None = None) -> A:
    """Where elements would be inserted into a sorted vector, so that it stays sorted.

    ``x1[i - 1] < x2 <= x1[i]`` for side "left", ``x1[i - 1] <= x2 < x1[i]`` for "right"

    Parameters
    ----------
    x1 : Tensor
        A vector of real numbers in ascending order (with NaN last), or one that ``sorter`` puts into it.
    x2 : Tensor or Python number
        Of any shape.
    side : {"left", "right"}, default "left"
        Before or behind what is equal.
    sorter : Tensor of integers, optional
        The order of ``x1``, such as ``argsort(x1)``.

    Returns
    -------
    Tensor
        int64, of the shape of ``x2``. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If ``x1`` is not a vector, or ``sorter`` not of its length.
    DTypeError
        If an operand is not of real numbers.

    Notes
    -----
    Both are sorted together, stably; the elements of ``x1`` in front of each of ``x2`` are counted.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([1.0, 2.0, 2.0, 3.0])
    >>> netcl.searchsorted(x, netcl.asarray([2.0, 5.0])).tolist()
    [1, 4]
    >>> netcl.searchsorted(x, netcl.asarray([2.0, 5.0]), side="right").tolist()
    [3, 4]
    """
    check_arrays("searchsorted", x1)
    one_of("side", side, ("left", "right"))
    if isinstance(x2, bool | int | float):
        x2 = number_beside(x1, x2)
    check_arrays("searchsorted", x2)
    for x in (x1, x2):
        if x.dtype.kind not in "iuf":
            raise DTypeError(f"searchsorted takes real numbers, got {x.dtype}; convert them with astype() first")
    common_backend((x1, x2))
    if x1.ndim != 1:
        raise ShapeError(f"searchsorted looks in a vector, got shape {x1.shape}; search row by row")
    if sorter is not None:
        check_arrays("searchsorted", sorter)
        if sorter.shape != x1.shape:
            raise ShapeError(f"sorter must have the shape of x1, {x1.shape}, got {sorter.shape}")
        x1 = take(x1, sorter, axis=0)
    dtype = promote(x1.dtype, x2.dtype)
    known, wanted = (map_arrays(identity, x, dtype=dtype) for x in (x1, reshape(x2, (-1,))))
    return reshape(sorted_places(known, wanted, right=side == "right"), x2.shape)


def number_beside(x: A, number: Any) -> A:
    """A Python number as an array without axes on the device of ``x``, of the dtype that it has beside ``x``."""
    out = x.empty_like((), promote_scalar(x.dtype, number))
    out.backend.fill(out.span(), stored_value(number, out.dtype))
    return out


def sorted_places(known: A, wanted: A, *, right: bool) -> A:
    """For each element of ``wanted`` how many of the sorted ``known`` come before it. Vectors of one dtype."""
    n, m = known.size, wanted.size
    out = wanted.empty_like((m,), int64)
    if m == 0:
        return out
    both = concat([known, wanted] if right else [wanted, known])
    order = both.empty_like(None, int64)
    both.backend.sort(both.view(), 0, None, order.view(), descending=False)
    low, high = (0, n) if right else (m, m + n)  # where the known ones stand in ``both``
    before = running_count(map_arrays(_is_between, order, low, high))
    targets = map_arrays(_wanted_place, order, low, high, 0 if not right else n, m, dtype=int64)
    room = out.empty_like((m + 1,), int64)  # the counts of the known ones themselves go to the last element
    scatter_flat(before, targets, room)
    return contiguous(room.restride((m,), (1,), 0))


def _is_between(x: Any, low: Any, high: Any) -> Any:
    return (x >= low) & (x < high)


def _wanted_place(x: Any, low: Any, high: Any, first: Any, m: Any) -> Any:
    return ex.where(_is_between(x, low, high), m, x - first)
