"""Operations that move or rename axes and elements. Views cost nothing: they share the storage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from netcl import tape, validation
from netcl.errors import ArgumentError, AxisError, ShapeError
from netcl.functional.casting import assign
from netcl.functional.dispatch import (
    A,
    broadcast_view,
    check_arrays,
    contiguous,
    identity,
    map_arrays,
    sum_to_shape,
)
from netcl.strides import broadcast_shapes as common_shape
from netcl.strides import contiguous_strides, reshaped_strides

__all__ = [
    "broadcast_arrays", "broadcast_shapes", "broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis",
    "permute_dims", "reshape", "squeeze",
]  # fmt: skip


def normalize_axis(axis: int, ndim: int) -> int:
    """``axis`` counted from the front.

    Raises
    ------
    AxisError
        If there is no such axis.
    ArgumentError
        If it is not an integer.
    """
    return validation.axis("axis", axis, ndim)


def normalize_axes(axes: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """``axes`` sorted and counted from the front; None stands for all of them."""
    return tuple(range(ndim)) if axes is None else tuple(sorted(validation.axes("axis", axes, ndim)))


def _resolved(shape: int | Sequence[int], size: int) -> tuple[int, ...]:
    wanted = validation.extents("shape", shape, free=True)
    if wanted.count(-1) == 1:
        rest = math.prod(extent for extent in wanted if extent != -1)
        if rest and size % rest == 0:
            wanted = tuple(size // rest if extent == -1 else extent for extent in wanted)
    if -1 in wanted or math.prod(wanted) != size:
        raise ShapeError(
            f"{size} elements do not fit the shape {wanted}; the product of the extents must be {size}, "
            "and at most one extent may be -1"
        )
    return wanted


def view_or_copy(x: A, shape: tuple[int, ...]) -> A:
    """``x`` with another shape, as a view where its strides allow it, else as a copy. Not recorded."""
    if x.shape == shape:
        return x
    strides = reshaped_strides(x.shape, x.strides, shape)
    if strides is not None:
        return x.restride(shape, strides, x.offset)
    copy = map_arrays(identity, x)
    return copy.restride(shape, contiguous_strides(shape), 0)


def reshape(x: A, /, shape: int | Sequence[int], *, copy: bool | None = None) -> A:
    """Give the same elements, in row-major order, another shape.

    Parameters
    ----------
    x : Tensor
    shape : int or sequence of int
        One extent may be -1: whatever is left.
    copy : bool, optional
        None makes a view where the strides allow it and a copy otherwise; True always copies; False refuses to.

    Returns
    -------
    Tensor
        A view that shares memory with ``x``, or a copy. Does not block.

    Raises
    ------
    ShapeError
        If the number of elements differs.
    ArgumentError
        If ``copy=False`` and the elements cannot be viewed so.

    Examples
    --------
    >>> import netcl
    >>> netcl.reshape(netcl.arange(6), (2, -1)).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    check_arrays("reshape", x)
    copy = None if copy is None else validation.flag("copy", copy)
    target = _resolved(shape, x.size)
    if copy is None and target == x.shape:
        out = x.restride(x.shape, x.strides, x.offset)
    elif copy:
        duplicate = map_arrays(identity, x)
        out = duplicate.restride(target, contiguous_strides(target), 0)
    elif copy is False and reshaped_strides(x.shape, x.strides, target) is None:
        raise ArgumentError(
            f"an array of shape {x.shape} and strides {x.strides} cannot be viewed as {target} without a copy; "
            "pass copy=None"
        )
    else:
        out = view_or_copy(x, target)
    tape.record(out, (x, lambda g: view_or_copy(g, x.shape)), name="reshape")
    return out


def permute_dims(x: A, /, axes: Sequence[int]) -> A:
    """Put the axes into another order, as a view.

    Parameters
    ----------
    x : Tensor
    axes : sequence of int
        Axis i of the result is axis ``axes[i]`` of ``x``.

    Raises
    ------
    ShapeError
        If ``axes`` is not a permutation.

    Examples
    --------
    >>> import netcl
    >>> netcl.permute_dims(netcl.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    check_arrays("permute_dims", x)
    order = validation.axes("axes", axes, x.ndim)
    if len(order) != x.ndim:
        raise AxisError(f"axes must name each of the {x.ndim} axes exactly once, got {validation.shown(axes)}")
    out = _permuted(x, order)
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    tape.record(out, (x, lambda g: _permuted(g, inverse)), name="permute_dims")
    return out


def _permuted(x: A, order: Sequence[int]) -> A:
    return x.restride(tuple([x.shape[i] for i in order]), tuple([x.strides[i] for i in order]), x.offset)


def matrix_transpose(x: A, /) -> A:
    """Exchange the last two axes, as a view.

    Raises
    ------
    ShapeError
        If ``x`` has fewer than two axes.

    Examples
    --------
    >>> import netcl
    >>> netcl.matrix_transpose(netcl.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """
    check_arrays("matrix_transpose", x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose needs at least two axes, got shape {x.shape}; use permute_dims")
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def moveaxis(x: A, source: int | Sequence[int], destination: int | Sequence[int], /) -> A:
    """Move axes to new positions, as a view; the others keep their order.

    Parameters
    ----------
    x : Tensor
    source, destination : int or sequence of int
        Where each axis is and where it goes.

    Raises
    ------
    ShapeError
        If the two differ in length or name an axis twice.

    Examples
    --------
    >>> import netcl
    >>> netcl.moveaxis(netcl.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    check_arrays("moveaxis", x)
    start = validation.axes("source", source, x.ndim)
    end = validation.axes("destination", destination, x.ndim)
    if len(start) != len(end):
        raise AxisError(f"source {source} and destination {destination} must name as many axes")
    order = [axis for axis in range(x.ndim) if axis not in start]
    for position, axis in sorted(zip(end, start, strict=True)):
        order.insert(position, axis)
    return permute_dims(x, order)


def expand_dims(x: A, /, axis: int | Sequence[int] = 0) -> A:
    """Insert axes of extent 1, as a view.

    Parameters
    ----------
    x : Tensor
    axis : int or sequence of int, default 0
        Where the new axes stand in the result.

    Raises
    ------
    ShapeError
        If a position is out of range.

    Examples
    --------
    >>> import netcl
    >>> netcl.expand_dims(netcl.zeros((2, 3)), axis=1).shape
    (2, 1, 3)
    """
    check_arrays("expand_dims", x)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    places = validation.axes("axis", axis, x.ndim + count)
    rest = iter(x.shape)
    return reshape(x, tuple(1 if position in places else next(rest) for position in range(x.ndim + count)))


def squeeze(x: A, /, axis: int | Sequence[int]) -> A:
    """Remove axes of extent 1, as a view.

    Parameters
    ----------
    x : Tensor
    axis : int or sequence of int

    Raises
    ------
    ShapeError
        If an axis does not have extent 1.

    Examples
    --------
    >>> import netcl
    >>> netcl.squeeze(netcl.zeros((2, 1, 3)), axis=1).shape
    (2, 3)
    """
    check_arrays("squeeze", x)
    places = validation.axes("axis", axis, x.ndim)
    for place in places:
        if x.shape[place] != 1:
            raise ShapeError(f"only axes of extent 1 can be squeezed; axis {place} of shape {x.shape} is none")
    return reshape(x, tuple(extent for position, extent in enumerate(x.shape) if position not in places))


def broadcast_to(x: A, /, shape: Sequence[int]) -> A:
    """Repeat ``x`` to ``shape``, as a view that repeats nothing in memory.

    Parameters
    ----------
    x : Tensor
    shape : sequence of int

    Raises
    ------
    ShapeError
        If ``x`` does not broadcast to it.

    Examples
    --------
    >>> import netcl
    >>> netcl.broadcast_to(netcl.asarray([1, 2]), (2, 2)).tolist()
    [[1, 2], [1, 2]]
    """
    check_arrays("broadcast_to", x)
    target = validation.extents("shape", shape)
    if common_shape(x.shape, target) != target:
        raise ShapeError(f"shape {x.shape} does not broadcast to {target}; extents must be 1 or equal from the right")
    view = broadcast_view(x, target)
    out = x.restride(target, view.strides, x.offset)
    tape.record(out, (x, lambda g: sum_to_shape(x, identity, g)), name="broadcast_to")
    return out


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape to which arrays of these shapes broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import netcl
    >>> netcl.broadcast_shapes((3, 1), (2,))
    (3, 2)
    """
    return common_shape(*[validation.extents("shape", shape) for shape in shapes])


def broadcast_arrays(*arrays: A) -> tuple[A, ...]:
    """Every array repeated, as a view, to their common shape.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import netcl
    >>> [x.shape for x in netcl.broadcast_arrays(netcl.zeros((3, 1)), netcl.zeros(2))]
    [(3, 2), (3, 2)]
    """
    check_arrays("broadcast_arrays", *arrays)
    shape = validation.extents("the common shape", common_shape(*[x.shape for x in arrays]))
    return tuple([broadcast_to(x, shape) for x in arrays])


def flip(x: A, /, *, axis: int | Sequence[int] | None = None) -> A:
    """Reverse the order of elements along axes, as a view.

    Examples
    --------
    >>> import netcl
    >>> netcl.flip(netcl.asarray([1, 2, 3])).tolist()
    [3, 2, 1]
    """
    check_arrays("flip", x)
    axes = normalize_axes(axis, x.ndim)
    out = _flipped(x, axes)
    tape.record(out, (x, lambda g: _flipped(g, axes)), name="flip")
    return out


def _flipped(x: A, axes: tuple[int, ...]) -> A:
    if x.size == 0:
        return x.restride(x.shape, x.strides, x.offset)
    strides = tuple([-stride if axis in axes else stride for axis, stride in enumerate(x.strides)])
    offset = x.offset + sum((x.shape[axis] - 1) * x.strides[axis] for axis in axes)
    return x.restride(x.shape, strides, offset)


def padded(x: A, before: Sequence[int], after: Sequence[int], value: float) -> A:
    """``x`` surrounded by ``value``: so many elements before and after it along each axis. Not recorded."""
    if not any(before) and not any(after):
        return contiguous(x)
    shape = tuple([a + n + b for a, n, b in zip(before, x.shape, after, strict=True)])
    out = x.empty_like(shape)
    if out.size:
        out.backend.fill(out.span(), value)
    assign(interior(out, before, x.shape), x)
    return out


def interior(x: A, before: Sequence[int], shape: tuple[int, ...]) -> A:
    """The view of ``shape`` that starts at position ``before``. Not recorded."""
    offset = x.offset + sum(start * stride for start, stride in zip(before, x.strides, strict=True))
    return x.restride(shape, x.strides, offset)
