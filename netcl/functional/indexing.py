"""Reading elements by integer indices: take, take_along_axis, embedding. Indices are checked on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.backends.base import View
from netcl.dtypes import int32, int64, uint64
from netcl.errors import DTypeError, ShapeError
from netcl.functional.dispatch import A, check_arrays, common_backend, contiguous, identity, map_arrays, zeros_for
from netcl.functional.shape import broadcast_to, normalize_axis, reshape, view_or_copy
from netcl.strides import broadcast_shapes
from netcl.validation import shown

__all__ = ["take", "take_along_axis"]


def as_indices(indices: Any, name: str) -> Any:
    """``indices`` as an int32 or int64 array."""
    if not isinstance(indices, Array):
        raise DTypeError(f"{name} takes indices as a Tensor of integers, got {shown(indices)}; use netcl.asarray()")
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"{name} takes integer indices, got {indices.dtype}; convert them with astype(netcl.int64)")
    if indices.dtype in (int32, int64):
        return indices
    if indices.dtype is uint64:
        return map_arrays(_within_int64, indices, dtype=int64)
    return map_arrays(identity, indices, dtype=int64)


def _within_int64(index: Any) -> Any:
    """Beyond int64 an index would come back as a negative one, which counts from the end."""
    return ex.where(index >= _FAR, _FAR, index)


def _gathered(x: Array, indices: View, axis: int, shape: tuple[int, ...]) -> Any:
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    out = x.empty_like(shape)
    if out.size:
        folded = view_or_copy(x, (outer, x.shape[axis], inner))
        target = (outer, indices.shape[1], inner)
        x.backend.gather(folded.view(), indices, out.restride(target, _rows(target), 0).view())
    return out


def _scattered(x: Array, indices: View, axis: int, g: Array) -> Any:
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    out = zeros_for(x)
    if g.size:
        updates = view_or_copy(g, (outer, indices.shape[1], inner))
        if updates.dtype is not x.dtype:
            updates = map_arrays(identity, updates, dtype=x.dtype)
        target = (outer, x.shape[axis], inner)
        x.backend.scatter_add(updates.view(), indices, out.restride(target, _rows(target), 0).view())
    return out


def _rows(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return (shape[1] * shape[2], shape[2], 1)


def take(x: A, indices: Array, /, *, axis: int | None = None) -> A:
    """Take elements along an axis by index.

    y[…, j, …] = x[…, indices[j], …]

    Parameters
    ----------
    x : Tensor
    indices : Tensor of integers
        Of any shape, which replaces the axis; negative ones count from the end. One out of range is reported at the
        next call that blocks.
    axis : int, optional
        May be left out if ``x`` has one axis.

    Raises
    ------
    DTypeError
        If the indices are not integers.
    ShapeError
        If there is no such axis.
    IndexError
        From a later call that blocks, if an index is out of range.

    Examples
    --------
    >>> import netcl
    >>> netcl.take(netcl.asarray([1.0, 2.0, 3.0]), netcl.asarray([2, -3])).tolist()
    [3.0, 1.0]
    """
    check_arrays("take", x)
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"take needs an axis for an array of shape {x.shape}; pass axis=")
        axis = 0
    axis = normalize_axis(axis, x.ndim)
    chosen = as_indices(indices, "take")
    common_backend((x, chosen))
    if x.shape[axis] == 0 and chosen.size:
        raise IndexError(f"take from axis {axis} of shape {x.shape}, which has no elements; check the size first")
    flat = view_or_copy(chosen, (chosen.size,))
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])

    def where_indices_lie() -> View:
        view = flat.view()
        return View(view.buffer, view.offset, (outer, flat.size, inner), (0, flat.strides[0], 0))

    shape = (*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])
    out: A = _gathered(x, where_indices_lie(), axis, shape)
    tape.record(out, (x, lambda g: _scattered(x, where_indices_lie(), axis, g)), name="take")
    return out


def take_along_axis(x: A, indices: Array, /, *, axis: int = -1) -> A:
    """Take one element for each index, at the index's own place along the other axes.

    y[i, j] = x[i, indices[i, j]] for two axes and axis = -1

    Parameters
    ----------
    x : Tensor
    indices : Tensor of integers
        With as many axes as ``x``; the others broadcast.
    axis : int, default -1

    Raises
    ------
    DTypeError
        If the indices are not integers.
    ShapeError
        If the shapes do not fit.
    IndexError
        From a later call that blocks, if an index is out of range.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> netcl.take_along_axis(x, netcl.asarray([[1], [0]]), axis=1).tolist()
    [[2.0], [3.0]]
    """
    check_arrays("take_along_axis", x)
    axis = normalize_axis(axis, x.ndim)
    chosen = as_indices(indices, "take_along_axis")
    common_backend((x, chosen))
    if chosen.ndim != x.ndim:
        raise ShapeError(
            f"take_along_axis of shape {x.shape} needs indices with {x.ndim} axes, got shape {chosen.shape}"
        )
    own, places_for = ((*shape[:axis], 1, *shape[axis + 1 :]) for shape in (x.shape, chosen.shape))
    others = broadcast_shapes(own, places_for)
    source = broadcast_to(x, (*others[:axis], x.shape[axis], *others[axis + 1 :]))
    shape = (*others[:axis], chosen.shape[axis], *others[axis + 1 :])
    if x.shape[axis] == 0 and math.prod(shape):
        raise IndexError(f"take_along_axis from axis {axis} of shape {x.shape}, which has no elements")
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    with tape.no_grad():
        places = view_or_copy(contiguous(broadcast_to(chosen, shape)), (outer, shape[axis], inner))
    out: A = _gathered(source, places.view(), axis, shape)
    tape.record(out, (source, lambda g: _scattered(source, places.view(), axis, g)), name="take_along_axis")
    return out


def select(x: A, indices: tuple[Array, ...], start: int) -> A:
    """``x`` indexed by integer arrays, which broadcast, along the axes from ``start`` on."""
    if len(indices) == 1:
        return take(x, indices[0], axis=start)
    extents = x.shape[start : start + len(indices)]
    positions = merged_positions(indices, extents)
    folded = reshape(x, (*x.shape[:start], math.prod(extents), *x.shape[start + len(extents) :]))
    return take(folded, positions, axis=start)


def merged_positions(indices: Sequence[Array], extents: tuple[int, ...]) -> Any:
    """Positions along several axes as row-major positions along one of all their elements. Not recorded.

    Where one is out of range, so is the result.
    """
    if len(indices) == 1:
        return as_indices(indices[0], "indexing")
    chosen = [_as_int64(array) for array in indices]
    common_backend(chosen)
    flat = map_arrays(_wrapped, chosen[0], extents[0], dtype=int64)
    for array, extent in zip(chosen[1:], extents[1:], strict=True):
        flat = map_arrays(_next_place, flat, array, extent, dtype=int64)
    return flat


def _as_int64(indices: Array) -> Array:
    # Positions of several axes, and what marks them as out of range, need not fit the dtype of one axis's.
    chosen: Array = as_indices(indices, "indexing")
    return chosen if chosen.dtype is int64 else map_arrays(identity, chosen, dtype=int64)


_FAR = 2**62  # beyond every axis: marks a place whose index is out of range, so that gather reports it


def _wrapped(index: Any, extent: Any) -> Any:
    inside = (index >= -extent) & (index < extent)
    return ex.where(inside, ex.where(index < 0, index + extent, index), _FAR)


def _next_place(place: Any, index: Any, extent: Any) -> Any:
    inner = _wrapped(index, extent)
    return ex.where((place >= _FAR) | (inner >= _FAR), _FAR, place * extent + inner)
