"""What a subscript means: its parts read, checked and laid over the axes of an array."""

from __future__ import annotations

from operator import index
from types import EllipsisType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from netcl.array import Array
from netcl.dtypes import bool_, int64
from netcl.errors import DTypeError, RangeError, ShapeError
from netcl.functional.dispatch import common_backend
from netcl.functional.host import from_host, to_number
from netcl.functional.searching import true_positions, unravel
from netcl.strides import broadcast_shapes
from netcl.validation import shown

Key: TypeAlias = Any
Place: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset of a view."""


def parts_of(x: Array, key: Key) -> tuple[Any, ...]:
    """The parts of a key: integers, slices, ``...``, None and Tensors of integers or bool on the device of ``x``.

    Lists and NumPy arrays become Tensors, 0-dimensional Tensors of integers become Python's, which **blocks**.
    """
    return tuple([_part_of(x, part) for part in (key if isinstance(key, tuple) else (key,))])


def _part_of(x: Array, part: Any) -> Any:
    if isinstance(part, Array):
        if part.dtype.kind not in "iub":
            raise IndexError(f"a Tensor of {part.dtype} is not a position; convert it with astype(netcl.int64)")
        if not part.ndim and part.dtype.kind != "b":
            return to_number(part)
        common_backend((x, part))
        return part
    if isinstance(part, bool | np.bool_):
        return from_host(type(x), np.asarray(part), x.backend, bool_)
    if isinstance(part, list | np.ndarray):
        return _listed_positions(x, part)
    return part


def _listed_positions(x: Array, part: Any) -> Any:
    try:
        values = np.asarray(part)
    except (ValueError, OverflowError, TypeError) as error:
        raise IndexError(f"{shown(part)} is not a list of positions: {error}; use integers or bool") from None
    if values.size == 0 and isinstance(part, list):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iub":
        raise IndexError(f"{shown(part)} holds no positions; use integers or bool")
    if values.ndim == 0 and values.dtype.kind != "b":
        return int(values)
    try:
        return from_host(type(x), values.copy(), x.backend, bool_ if values.dtype.kind == "b" else int64)
    except (RangeError, DTypeError) as error:
        raise IndexError(f"{shown(part)} holds a position out of range: {error}") from None


def is_advanced(part: Any) -> bool:
    """Whether a part is a Tensor that gathers: of bool, or of integers with at least one axis."""
    return isinstance(part, Array) and (part.ndim > 0 or part.dtype.kind == "b")


def completed(x: Array, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parts with the ellipsis, or what is missing at the end, written out as slices."""
    used = 0
    for part in parts:
        if part is not None and part is not Ellipsis:
            used += part.ndim if isinstance(part, Array) and part.dtype.kind == "b" else 1
    if used > x.ndim:
        raise IndexError(f"{used} positions for an array of shape {x.shape}, which has {x.ndim} axes")
    fill = (slice(None),) * (x.ndim - used)
    places = [place for place, part in enumerate(parts) if isinstance(part, EllipsisType)]
    if len(places) > 1:
        raise IndexError("a subscript may hold one ellipsis (...) only")
    return (*parts[: places[0]], *fill, *parts[places[0] + 1 :]) if places else (*parts, *fill)


def integer_place(x: Array, key: Key) -> Place | None:
    """What :func:`basic_place` gives for a key of nothing but valid Python integers; None for any other.

    Reading one element costs little more than the way to it, and most keys in loops are such.
    """
    parts = key if type(key) is tuple else (key,)
    shape, strides, offset = x.shape, x.strides, x.offset
    given = len(parts)
    if given > len(shape):
        return None
    for part, extent, stride in zip(parts, shape, strides, strict=False):
        if type(part) is not int or not -extent <= part < extent:
            return None
        offset += (part if part >= 0 else part + extent) * stride
    return shape[given:], strides[given:], offset


def basic_place(x: Array, full: tuple[Any, ...]) -> Place:
    """Where the elements lie that integers, slices and None select, one part for each axis."""
    shape, strides, offset = [], [], x.offset
    axis = 0
    for part in full:
        if part is None:
            shape.append(1)
            strides.append(0)
            continue
        extent, stride = x.shape[axis], x.strides[axis]
        if isinstance(part, slice):
            start, stop, step = _slice(part, extent)
            count = len(range(start, stop, step))
            shape.append(count)
            strides.append(stride * step)
            if count:
                offset += start * stride
        else:
            place = _integer(part)
            if not -extent <= place < extent:
                raise IndexError(f"index {place} is out of range for axis {axis} with {extent} elements")
            offset += (place % extent) * stride
        axis += 1
    return tuple(shape), tuple(strides), offset


def _slice(part: slice, extent: int) -> tuple[int, int, int]:
    try:
        return part.indices(extent)
    except (TypeError, ValueError) as error:
        raise IndexError(
            f"{shown(part)} is not a slice: {error}; use integers or None, and a step other than 0"
        ) from None


def _integer(part: Any) -> int:
    try:
        return index(part)
    except (TypeError, ValueError):
        raise IndexError(
            f"a {type(part).__name__} is not a position; use integers, slices, ..., None, and lists, NumPy arrays or "
            "Tensors of integers or bool"
        ) from None


class Selection(NamedTuple):
    """A key with Tensors, in two steps: a view of everything but what they select, and their positions in it.

    Attributes
    ----------
    basic : tuple
        Integers, slices and None, one for each axis; a full slice where a Tensor selects.
    axes : tuple of int
        The axes of that view along which Tensors select.
    start : int
        The axis of the result where the axes of the positions stand, in place of ``axes``.
    positions : tuple of Array
        A Tensor of integers for each of ``axes``.
    shape : tuple of int
        To which the positions broadcast.
    """

    basic: tuple[Any, ...]
    axes: tuple[int, ...]
    start: int
    positions: tuple[Any, ...]
    shape: tuple[int, ...]

    def order(self, ndim: int) -> tuple[int, ...]:
        """The axes of the view, with those along which Tensors select brought together at ``start``."""
        others = [axis for axis in range(ndim) if axis not in self.axes]
        return (*others[: self.start], *self.axes, *others[self.start :])


def selection(x: Array, given: tuple[Any, ...]) -> Selection:
    """What the parts of a key with Tensors select, as NumPy means it. **Blocks** if one of them is of bool.

    Integers beside Tensors count as Tensors. Where all of these stand side by side, the axes of the positions come in
    their place; else first, also if what stands between them is an ellipsis for no axis.
    """
    parts = _without_masks(x, completed(x, given))
    apart = [place for place, part in enumerate(given) if not isinstance(part, slice | EllipsisType | None)]
    basic: list[Any] = []
    axes: list[int] = []
    positions: list[Any] = []
    begun = False
    axis = start = 0
    for part in parts:
        if part is None or isinstance(part, slice):
            basic.append(part)
            axis += 1
            continue
        if not begun:
            start, begun = axis, True
        if is_advanced(part):
            axes.append(axis)
            positions.append(part)
            basic.append(slice(None))
            axis += 1
        else:
            basic.append(part)
    if apart[-1] - apart[0] + 1 != len(apart):
        start = 0
    try:
        shape = broadcast_shapes(*[array.shape for array in positions])
    except ShapeError as error:
        raise IndexError(f"the Tensors of a subscript must broadcast: {error}") from None
    return Selection(tuple(basic), tuple(axes), start, tuple(positions), shape)


def _without_masks(x: Array, full: tuple[Any, ...]) -> list[Any]:
    """The parts with each Tensor of bool replaced by the positions at which it is True, one for each of its axes."""
    parts: list[Any] = []
    axis = 0
    for part in full:
        if isinstance(part, Array) and part.dtype.kind == "b":
            check_mask(x, part, axis)
            if part.ndim == 0:
                raise IndexError("a bool without axes must be the only part of a subscript; use x[None] or x[:0]")
            parts += unravel(true_positions(part), part.shape)
            axis += part.ndim
            continue
        parts.append(part)
        axis += part is not None
    return parts


def lone_mask(full: tuple[Any, ...]) -> int | None:
    """The place of a Tensor of bool that has nothing but full slices beside it, or None."""
    places = [place for place, part in enumerate(full) if not (isinstance(part, slice) and part == slice(None))]
    alone = len(places) == 1 and isinstance(full[places[0]], Array) and full[places[0]].dtype.kind == "b"
    return places[0] if alone else None


def check_mask(x: Array, mask: Array, axis: int) -> None:
    """Refuse a mask without the shape of the axes of ``x`` from ``axis`` on. An extent of 0 fits any, as in NumPy."""
    axes = x.shape[axis : axis + mask.ndim]
    if len(axes) != mask.ndim or any(mine not in (0, theirs) for mine, theirs in zip(mask.shape, axes, strict=True)):
        raise IndexError(f"a mask of shape {mask.shape} does not fit axes {axes} of an array of shape {x.shape}")
