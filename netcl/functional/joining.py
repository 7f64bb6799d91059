"""Operations that join, cut and repeat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netcl import tape, validation
from netcl.array import Array
from netcl.dtypes import promote
from netcl.errors import ShapeError
from netcl.functional.casting import assign
from netcl.functional.dispatch import A, check_arrays, common_backend, identity, listed_arrays, sum_to_shape, zeros_for
from netcl.functional.shape import broadcast_to, expand_dims, normalize_axis, reshape, squeeze

__all__ = ["concat", "roll", "stack", "tile", "unstack"]


def _part(x: A, axis: int, start: int, size: int) -> A:
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return x.restride(shape, x.strides, x.offset + start * x.strides[axis])


def concat(arrays: Sequence[A], /, *, axis: int | None = 0) -> A:
    """Join arrays along an axis.

    Parameters
    ----------
    arrays : sequence of Tensor
        Of shapes that are equal except along ``axis``.
    axis : int or None, default 0
        None joins the flattened arrays.

    Raises
    ------
    ShapeError
        If there is no array or the shapes do not fit.
    DeviceMismatchError
        If the arrays are on different devices.

    Examples
    --------
    >>> import netcl
    >>> netcl.concat([netcl.asarray([1, 2]), netcl.asarray([3])]).tolist()
    [1, 2, 3]
    """
    parts = listed_arrays("concat", arrays)
    if not parts:
        raise ShapeError("concat needs at least one array, got none")
    if axis is None:
        parts = [reshape(part, (-1,)) for part in parts]
        axis = 0
    common_backend(parts)
    first = parts[0]
    axis = normalize_axis(axis, first.ndim)
    dtype = first.dtype
    for part in parts[1:]:
        dtype = promote(dtype, part.dtype)
        same = part.ndim == first.ndim and all(part.shape[i] == first.shape[i] for i in range(first.ndim) if i != axis)
        if not same:
            raise ShapeError(
                f"shapes {first.shape} and {part.shape} do not join along axis {axis}; all other extents must be equal"
            )
    total = sum(part.shape[axis] for part in parts)
    out = first.empty_like((*first.shape[:axis], total, *first.shape[axis + 1 :]), dtype)
    entries = []
    start = 0
    for part in parts:
        size = part.shape[axis]
        assign(_part(out, axis, start, size), part)
        entries.append((part, _take_part(part, axis, start, size)))
        start += size
    tape.record(out, *entries, name="concat")
    return out


def _take_part(x: Array, axis: int, start: int, size: int) -> tape.VJP:
    return lambda g: sum_to_shape(x, identity, _part(g, axis, start, size))


def stack(arrays: Sequence[A], /, *, axis: int = 0) -> A:
    """Join arrays of one shape along a new axis.

    Parameters
    ----------
    arrays : sequence of Tensor
    axis : int, default 0
        Where the new axis stands in the result.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Examples
    --------
    >>> import netcl
    >>> netcl.stack([netcl.asarray([1, 2]), netcl.asarray([3, 4])], axis=1).tolist()
    [[1, 3], [2, 4]]
    """
    parts = listed_arrays("stack", arrays)
    shapes = {x.shape for x in parts}
    if len(shapes) != 1:
        raise ShapeError(f"stack takes one or more arrays of one shape, got shapes {sorted(shapes)}")
    return concat([expand_dims(x, normalize_axis(axis, x.ndim + 1)) for x in parts], axis=axis)


def unstack(x: A, /, *, axis: int = 0) -> tuple[A, ...]:
    """Views of ``x`` at each position along an axis.

    Examples
    --------
    >>> import netcl
    >>> [part.tolist() for part in netcl.unstack(netcl.asarray([[1, 2], [3, 4]]), axis=1)]
    [[1, 3], [2, 4]]
    """
    check_arrays("unstack", x)
    axis = normalize_axis(axis, x.ndim)
    return tuple([squeeze(strided(x, axis, place, 1, 1), axis) for place in range(x.shape[axis])])


def strided(x: A, axis: int, start: int, size: int, step: int) -> A:
    """The view of ``size`` elements along ``axis``, from ``start`` on, ``step`` apart."""
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    strides = (*x.strides[:axis], x.strides[axis] * step, *x.strides[axis + 1 :])
    offset = x.offset + (start * x.strides[axis] if size else 0)
    out = x.restride(shape, strides, offset)

    def vjp(g: Any) -> Any:
        total = zeros_for(x, dtype=g.dtype)
        assign(strided(total, axis, start, size, step), g)
        return total

    tape.record(out, (x, vjp), name="slice")
    return out


def roll(x: A, /, shift: int | Sequence[int], *, axis: int | Sequence[int] | None = None) -> A:
    """Move elements along axes; those that leave at the end come in at the start.

    Parameters
    ----------
    x : Tensor
    shift : int or sequence of int
        Places to move, one for each axis.
    axis : int, sequence of int or None
        None rolls the flattened array.

    Raises
    ------
    ShapeError
        If shifts and axes differ in number.

    Examples
    --------
    >>> import netcl
    >>> netcl.roll(netcl.asarray([1, 2, 3]), 1).tolist()
    [3, 1, 2]
    """
    check_arrays("roll", x)
    several = isinstance(shift, tuple | list)
    moves = [validation.integer("shift", each) for each in (shift if isinstance(shift, tuple | list) else (shift,))]
    if axis is None:
        if several:
            raise ShapeError(f"roll of the flattened array takes one shift, got {moves}; name the axes")
        return reshape(roll(reshape(x, (-1,)), shift, axis=0), x.shape)
    axes: list[Any] = list(axis) if isinstance(axis, tuple | list) else [axis]
    shifts = moves if several else moves * len(axes)
    if len(axes) != len(shifts):
        raise ShapeError(f"roll takes one shift for each axis, got {len(shifts)} shifts and {len(axes)} axes")
    out = x
    for places, each in zip(shifts, axes, strict=True):
        each = normalize_axis(each, x.ndim)
        extent = x.shape[each]
        cut = -places % extent if extent else 0
        out = concat([strided(out, each, cut, extent - cut, 1), strided(out, each, 0, cut, 1)], axis=each)
    return out


def tile(x: A, repetitions: Sequence[int], /) -> A:
    """Lay copies of ``x`` side by side.

    Parameters
    ----------
    x : Tensor
    repetitions : sequence of int
        How often along each axis, aligned at the last one.

    Examples
    --------
    >>> import netcl
    >>> netcl.tile(netcl.asarray([1, 2]), (2,)).tolist()
    [1, 2, 1, 2]
    """
    check_arrays("tile", x)
    times = validation.extents("repetitions", repetitions)
    rank = max(len(times), x.ndim)
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - x.ndim) + x.shape
    validation.extents("the shape of the result", [a * b for a, b in zip(times, shape, strict=True)])
    spread = reshape(x, tuple(extent for n in shape for extent in (1, n)))
    spread = broadcast_to(spread, tuple(extent for pair in zip(times, shape, strict=True) for extent in pair))
    return reshape(spread, tuple(a * b for a, b in zip(times, shape, strict=True)))
