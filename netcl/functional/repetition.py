"""Elements repeated, each as often as the others or by a count of its own."""

from __future__ import annotations

from typing import Any

from netcl import expression as ex
from netcl import validation
from netcl.array import Array
from netcl.dtypes import int64
from netcl.errors import ArgumentError, DTypeError, ShapeError
from netcl.functional.dispatch import A, check_arrays, common_backend, map_arrays, reduce_arrays, zeros_for
from netcl.functional.host import to_host
from netcl.functional.indexing import as_indices, take
from netcl.functional.shape import broadcast_to, expand_dims, normalize_axis, reshape

__all__ = ["repeat"]


def repeat(x: A, repeats: int | A, /, *, axis: int | None = None) -> A:
    """Repeat each element.

    Parameters
    ----------
    x : Tensor
    repeats : int or Tensor of integers
        How often; a vector of counts, one for each element along the axis (or one for all), **blocks**, for their sum
        decides the shape.
    axis : int or None
        None repeats the flattened array.

    Raises
    ------
    DTypeError
        If ``repeats`` is not of integers.
    ShapeError
        If there are not as many counts as elements.
    ArgumentError
        If a count is negative.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([1, 2])
    >>> netcl.repeat(x, 2).tolist(), netcl.repeat(x, netcl.asarray([0, 3])).tolist()
    ([1, 1, 2, 2], [2, 2, 2])
    """
    check_arrays("repeat", x)
    if not isinstance(repeats, Array):
        repeats = validation.integer("repeats", repeats, least=0, most=validation.LARGEST_EXTENT, error=DTypeError)
    if axis is None:
        return repeat(reshape(x, (-1,)), repeats, axis=0)
    axis = normalize_axis(axis, x.ndim)
    if isinstance(repeats, Array):
        return _by_counts(x, repeats, axis)
    shape = (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :])
    validation.extents("the shape of the result", shape)
    wide = broadcast_to(expand_dims(x, axis + 1), shape)
    return reshape(wide, (*x.shape[:axis], x.shape[axis] * repeats, *x.shape[axis + 1 :]))


def _by_counts(x: A, repeats: A, axis: int) -> A:
    counts = as_indices(repeats, "repeat")
    common_backend((x, counts))
    extent = x.shape[axis]
    if counts.ndim > 1 or (counts.size != 1 and counts.shape != (extent,)):
        raise ShapeError(
            f"repeat along axis {axis} of shape {x.shape} takes one count or {extent}, got shape {counts.shape}"
        )
    counts = map_arrays(_as_count, broadcast_to(reshape(counts, (counts.size,)), (extent,)), dtype=int64)
    if extent == 0:
        return take(x, counts, axis=axis)
    ends = counts.empty_like()
    counts.backend.scan("sum", ex.conversion(int64, int64), (counts.view(),), 0, ends.view())
    least, total = int(to_host(reduce_arrays("min", _as_count, counts, axes=(0,)))), int(to_host(ends)[-1])
    if least < 0:
        raise ArgumentError(f"repeat takes counts of at least 0, got {least}; clip them first")
    validation.extents("the shape of the result", (*x.shape[:axis], total, *x.shape[axis + 1 :]))
    # Element j of the result is the one behind all whose counts end at j or before.
    marks = zeros_for(ends, (total + 1,), int64)
    ones = zeros_for(ends, (1,), int64)
    ones.backend.fill(ones.span(), 1)
    lifted = [v.restride((1, extent, 1), (0, v.strides[0] if v is ends else 0, 0), v.offset) for v in (ones, ends)]
    marks.backend.scatter_add(
        lifted[0].view(), lifted[1].view(), marks.restride((1, total + 1, 1), (0, 1, 0), 0).view()
    )
    places = marks.empty_like((total,), int64)
    if total:
        kept = marks.restride((total,), (1,), 0)
        marks.backend.scan("sum", ex.conversion(int64, int64), (kept.view(),), 0, places.view())
    return take(x, places, axis=axis)


def _as_count(x: Any) -> Any:
    return x
