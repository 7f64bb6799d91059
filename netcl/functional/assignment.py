"""Subscripts that are written to, ``x[key] = value``, and operators in place. Refused where the tape would not know."""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.errors import DTypeError, ShapeError, TapeError
from netcl.functional.casting import assign, check_castable
from netcl.functional.dispatch import (
    Operand,
    broadcast_view,
    check_in_place,
    common_backend,
    identity,
    map_arrays,
    map_in_place,
    map_into,
    stored_value,
)
from netcl.functional.elementwise import check_operands
from netcl.functional.indexing import merged_positions
from netcl.functional.keys import (
    Key,
    Selection,
    basic_place,
    check_mask,
    completed,
    is_advanced,
    lone_mask,
    parts_of,
    selection,
)
from netcl.functional.linalg import matmul
from netcl.functional.searching import true_positions
from netcl.functional.shape import view_or_copy
from netcl.strides import contiguous_strides, reshaped_strides
from netcl.validation import number, shown


def setitem(x: Array, key: Key, value: Operand, /) -> None:
    """Write ``value``, cast and broadcast, over selected elements of ``x``.

    Of several values for one place the last stays; ``netcl.functional.scatter_add`` adds them. Does not block, unless
    a mask meets more than one value: then the number of places where it is True decides whether the value fits.

    Parameters
    ----------
    x : Tensor
    key
        As for reading.
    value : Tensor or Python number

    Raises
    ------
    TapeError
        If ``x`` was recorded by a tape, or requires a gradient while one is recording.
    IndexError
        If a position is out of range; for integer Tensors, from the next call that blocks.
    ShapeError
        If ``value`` does not broadcast to the selection.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.zeros(4)
    >>> x[1:3] = 5.0
    >>> x[[0, -1]] = netcl.asarray([1.0, 2.0])
    >>> x.tolist()
    [1.0, 5.0, 5.0, 2.0]
    """
    check_writable(x)
    if not isinstance(value, Array):
        value = _one_number(value)
    parts = parts_of(x, key)
    full = completed(x, parts)
    if any(is_advanced(part) for part in full):
        with tape.no_grad():
            _set_advanced(x, parts, full, value)
    else:
        target = x.restride(*basic_place(x, full))
        assign(target, _fitting(target, value))
    x.storage.version += 1


def _one_number(value: Any) -> Any:
    if getattr(value, "shape", ()) != () or isinstance(value, list | tuple):
        raise DTypeError(f"x[key] = value takes a number or a Tensor, got {shown(value)}; use netcl.asarray(value)")
    return number("the value of x[key] = value", value, error=DTypeError)


def _broadcasts(value: Array, shape: tuple[int, ...]) -> Array:
    """``value`` without leading axes that ``shape`` does not have; refused if it does not broadcast to it."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value.restride(value.shape[1:], value.strides[1:], value.offset)
    lead = shape[len(shape) - value.ndim :]
    fits = value.ndim <= len(shape) and all(mine in (1, theirs) for mine, theirs in zip(value.shape, lead, strict=True))
    if not fits:
        raise ShapeError(f"a value of shape {value.shape} does not broadcast to the selection of shape {shape}")
    return value


def _fitting(target: Array, value: Operand) -> Operand:
    """``value`` with the shape of the target, copied if the write could overtake the read."""
    if not isinstance(value, Array):
        return value
    common_backend((target, value))
    return copy_if_overlapping(target, _broadcasts(value, target.shape))


def copy_if_overlapping(target: Array, value: Array) -> Array:
    """``value`` itself, or a copy if it shares memory with the target in another order."""
    if value.storage is not target.storage:
        return value
    if (value.shape, value.strides, value.offset) == (target.shape, target.strides, target.offset):
        return value
    return map_arrays(identity, value)


def _set_advanced(x: Array, parts: tuple[Any, ...], full: tuple[Any, ...], value: Operand) -> None:
    place = lone_mask(full)
    if place is not None and (full[place].ndim == 0 or not isinstance(value, Array) or value.size == 1):
        _set_masked(x, full[place], place, value)
        return
    chosen = selection(x, parts)
    view = x.restride(*basic_place(x, chosen.basic))
    order = chosen.order(view.ndim)
    view = view.restride(tuple([view.shape[i] for i in order]), tuple([view.strides[i] for i in order]), view.offset)
    _scatter(view, chosen, value)


def _scatter(view: Array, chosen: Selection, value: Operand) -> None:
    """``view``[…, positions, …] ← ``value``; the axes that the positions select along start at ``chosen.start``."""
    start, stop = chosen.start, chosen.start + len(chosen.axes)
    before, extents, after = view.shape[:start], view.shape[start:stop], view.shape[stop:]
    selected = (*before, *chosen.shape, *after)
    source = _as_source(view, value, selected)
    if math.prod(selected) == 0:
        return
    if 0 in extents:
        raise IndexError(f"positions along axes of extents {extents}, which have no elements; check the size first")
    positions = merged_positions(chosen.positions, extents)
    outer, count, inner = math.prod(before), math.prod(chosen.shape), math.prod(after)
    folded = (outer, math.prod(extents), inner)
    strides = reshaped_strides(view.shape, view.strides, folded)
    if strides is None:  # no three strides tell where the elements lie: written in a copy, and that over the view
        copy = map_arrays(identity, view)
        target = copy.restride(folded, contiguous_strides(folded), 0)
    else:
        target = view.restride(folded, strides, view.offset)
    updates = view_or_copy(source, (outer, count, inner))
    flat = view_or_copy(positions, (count,))
    indices = flat.restride((outer, count, inner), (0, flat.strides[0], 0), flat.offset)
    target.backend.scatter(updates.view(), indices.view(), target.view())
    if strides is None:
        map_into(view, identity, target.restride(view.shape, contiguous_strides(view.shape), 0))


def _as_source(view: Array, value: Operand, shape: tuple[int, ...]) -> Array:
    """``value`` as an array of ``shape`` and the dtype of ``view`` that does not share memory with it."""
    if not isinstance(value, Array):
        one = view.empty_like(())
        assign(one, value)
        return one.restride(shape, (0,) * len(shape), 0)
    common_backend((view, value))
    check_castable(value.dtype, view.dtype)
    value = _broadcasts(value, shape)
    if value.dtype is not view.dtype or value.storage is view.storage:
        value = map_arrays(identity, value, dtype=view.dtype)
    return value.restride(shape, broadcast_view(value, shape).strides, value.offset)


def _where_set(old: Any, mask: Any, value: Any) -> Any:
    return ex.where(mask, value, old)


def _set_masked(x: Array, mask: Array, axis: int, value: Operand) -> None:
    """One value wherever a mask over the axes of ``x`` from ``axis`` on is True, in one pass."""
    check_mask(x, mask, axis)
    if mask.size == 0:
        return
    if mask.ndim == 0 and isinstance(value, Array) and value.size == 0:  # for no element, or for the one selection
        _broadcasts(value, (*x.shape[:axis], true_positions(mask).size, *x.shape[axis:]))
        return
    more = x.ndim - axis - mask.ndim
    wide = mask.restride(
        (*(1,) * axis, *mask.shape, *(1,) * more), (*(0,) * axis, *mask.strides, *(0,) * more), mask.offset
    )
    if isinstance(value, Array):
        common_backend((x, value))
        check_castable(value.dtype, x.dtype)
        target = x.shape if mask.ndim == 0 else ()
        value = copy_if_overlapping(x, _broadcasts(value, target) if target else value.restride((), (), value.offset))
    else:
        value = stored_value(value, x.dtype)
    map_into(x, _where_set, x, wide, value)


def check_writable(x: Array) -> None:
    """Refuse to change an array in place where the tape would not know."""
    if x.node is not None and x.node.operands:
        raise TapeError(
            "this array was recorded by a tape, which may need its values: write out of place (x = x + y), "
            "or to a copy of it"
        )
    if x.requires_grad and tape.is_recording():
        raise TapeError(
            "this array requires a gradient and a tape is recording, which cannot follow a write in place: "
            "write out of place, or inside no_grad()"
        )


def write_matmul(x: Array, other: Array) -> None:
    """``x`` ← x @ other in place."""
    check_writable(x)
    with tape.no_grad():
        result = matmul(x, other)
    check_in_place(x, result.shape, result.dtype)
    map_into(x, identity, result)
    x.storage.version += 1


def write_result(operation: Any, x: Array, other: Operand) -> None:
    """``x`` ← operation(x, other) in place, for the operators ``+=`` and the like."""
    check_writable(x)
    check_operands(operation, x, other)
    if isinstance(other, Array):
        other = copy_if_overlapping(x, other)
    map_in_place(x, operation.function, other)
    x.storage.version += 1
