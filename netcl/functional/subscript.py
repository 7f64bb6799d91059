"""Subscripts: ``x[key]`` and ``x[key] = value``. Basic ones make views; integer arrays gather; masks read the host."""

from __future__ import annotations

from operator import index
from types import EllipsisType
from typing import Any, TypeAlias

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import int64
from netcl.errors import DTypeError, ShapeError, TapeError
from netcl.functional.casting import assign, check_castable
from netcl.functional.dispatch import (
    A,
    Operand,
    check_in_place,
    common_backend,
    identity,
    map_arrays,
    map_in_place,
    map_into,
    stored_value,
    zeros_for,
)
from netcl.functional.elementwise import check_operands
from netcl.functional.host import from_host, to_host
from netcl.functional.indexing import select
from netcl.functional.linalg import matmul
from netcl.functional.shape import reshape
from netcl.validation import number, shown

Key: TypeAlias = Any
Place: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides and offset of a view."""


def basic_place(x: Array, key: tuple[Any, ...]) -> Place:
    """Where the elements lie that a key of integers, slices, ``...`` and None selects."""
    shape, strides, offset = [], [], x.offset
    axis = 0
    for part in _completed(x, key):
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
    if isinstance(part, bool):
        raise IndexError(f"{part} is not a position; use an integer, a slice, ..., None or an integer Tensor")
    try:
        return index(part)
    except (TypeError, ValueError):
        raise IndexError(
            f"a {type(part).__name__} is not a position; use integers, slices, ..., None, Tensors of integers or bool"
        ) from None


def _completed(x: Array, key: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key with its ellipsis, or what is missing at its end, written out as slices."""
    used = 0
    for part in key:
        if part is not None and part is not Ellipsis:
            used += part.ndim if isinstance(part, Array) and part.dtype.kind == "b" else 1
    if used > x.ndim:
        raise IndexError(f"{used} positions for an array of shape {x.shape}, which has {x.ndim} axes")
    fill = (slice(None),) * (x.ndim - used)
    places = [place for place, part in enumerate(key) if isinstance(part, EllipsisType)]
    if len(places) > 1:
        raise IndexError("a subscript may hold one ellipsis (...) only")
    return (*key[: places[0]], *fill, *key[places[0] + 1 :]) if places else (*key, *fill)


def getitem(x: A, key: Key, /) -> A:
    """Select elements by a subscript.

    Integers, slices, ``...`` and None make a view that shares memory with ``x``. Adjacent integer Tensors gather, one
    for each axis, and broadcast against each other. A bool Tensor selects the positions where it is True: it **blocks**
    because the number of them decides the shape.

    Raises
    ------
    IndexError
        If a position is out of range; for integer Tensors, from the next call that blocks.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[1, 2, 3], [4, 5, 6]])
    >>> x[1, ::-1].tolist(), x[..., None, 0].tolist()
    ([6, 5, 4], [[1], [4]])
    >>> x[netcl.asarray([1, 0]), netcl.asarray([2, 0])].tolist(), x[x > 4].tolist()
    ([6, 1], [5, 6])
    """
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if isinstance(part, Array) and not (part.ndim == 0 and part.dtype.kind in "iu"):
            return _advanced(x, parts)
        if isinstance(part, list):
            raise IndexError("a list is not a position; use netcl.asarray(list)")
    out = x.restride(*basic_place(x, parts))
    if tape.is_recording():
        tape.record(out, (x, lambda g: _put_back(x, parts, g)), name="getitem")
    return out


def _put_back(x: A, key: tuple[Any, ...], g: A) -> A:
    total = zeros_for(x)
    assign(total.restride(*basic_place(total, key)), g)
    return total


def _advanced(x: A, key: tuple[Any, ...]) -> A:
    full = _completed(x, key)
    arrays = [place for place, part in enumerate(full) if isinstance(part, Array)]
    if any(full[place].dtype.kind == "b" for place in arrays):
        if len(arrays) > 1:
            raise IndexError("a bool Tensor must be the only Tensor in a subscript; combine masks with & first")
        return _masked(x, full, arrays[0])
    # Beside Tensors an integer stands for an array of its value, as in NumPy; without them NumPy reorders the axes.
    integers = [place for place, part in enumerate(full) if part is not None and not isinstance(part, slice | Array)]
    chosen = sorted(arrays + integers)
    if chosen[-1] - chosen[0] + 1 != len(chosen):
        raise IndexError(
            "Tensors and integers in one subscript must stand side by side; bring the axes together with moveaxis()"
        )
    basic = tuple([slice(None) if isinstance(part, Array) else part for part in full])
    rest: A = getitem(x, basic)
    return select(rest, tuple([full[place] for place in arrays]), chosen[0])


def _masked(x: A, full: tuple[Any, ...], place: int) -> A:
    mask = full[place]
    common_backend((x, mask))
    before = full[:place]
    if any(part is not None and part != slice(None) for part in (*before, *full[place + 1 :])) or None in before:
        raise IndexError("a bool Tensor in a subscript goes with full slices only; apply the other positions first")
    axes = x.shape[place : place + mask.ndim]
    if mask.shape != axes:
        raise IndexError(f"a mask of shape {mask.shape} does not fit axes {axes} of an array of shape {x.shape}")
    folded = reshape(x, (*x.shape[:place], mask.size, *x.shape[place + mask.ndim :]))
    chosen = to_host(mask).reshape(-1).nonzero()[0]
    return select(folded, (from_host(type(x), chosen, x.backend, int64),), place)


def setitem(x: Array, key: Key, value: Operand, /) -> None:
    """Write ``value``, cast and broadcast, over selected elements of ``x``. Does not block.

    Parameters
    ----------
    x : Tensor
    key
        Integers, slices, ``...`` and None, or one bool Tensor whose shape starts that of ``x``.
    value : Tensor or Python number

    Raises
    ------
    TapeError
        If ``x`` was recorded by a tape, or requires a gradient while one is recording.
    IndexError
        If a position is out of range, or the key holds integer Tensors.
    ShapeError
        If ``value`` does not broadcast to the selection.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.zeros(4)
    >>> x[1:3] = 5.0
    >>> x.tolist()
    [0.0, 5.0, 5.0, 0.0]
    """
    check_writable(x)
    if not isinstance(value, Array):
        value = _one_number(value)
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, Array) and (part.ndim or part.dtype.kind == "b") for part in parts):
        _set_masked(x, parts, value)
        return
    target = x.restride(*basic_place(x, parts))
    assign(target, _fitting(target, value))
    x.storage.version += 1


def _one_number(value: Any) -> Any:
    if getattr(value, "shape", ()) != () or isinstance(value, list | tuple):
        raise DTypeError(f"x[key] = value takes a number or a Tensor, got {shown(value)}; use netcl.asarray(value)")
    return number("the value of x[key] = value", value, error=DTypeError)


def _fitting(target: Array, value: Operand) -> Operand:
    """``value`` with the shape of the target, copied if the write could overtake the read."""
    if not isinstance(value, Array):
        return value
    while value.ndim > target.ndim and value.shape[0] == 1:
        value = value.restride(value.shape[1:], value.strides[1:], value.offset)
    lead = target.shape[target.ndim - value.ndim :]
    fits = value.ndim <= target.ndim and all(
        mine in (1, theirs) for mine, theirs in zip(value.shape, lead, strict=True)
    )
    if not fits:
        raise ShapeError(f"a value of shape {value.shape} does not broadcast to the selection of shape {target.shape}")
    return copy_if_overlapping(target, value)


def copy_if_overlapping(target: Array, value: Array) -> Array:
    """``value`` itself, or a copy if it shares memory with the target in another order."""
    if value.storage is not target.storage:
        return value
    if (value.shape, value.strides, value.offset) == (target.shape, target.strides, target.offset):
        return value
    return map_arrays(identity, value)


def _where_set(old: Any, mask: Any, value: Any) -> Any:
    return ex.where(mask, value, old)


def _set_masked(x: Array, key: tuple[Any, ...], value: Operand) -> None:
    mask = key[0]
    if len(key) != 1 or not isinstance(mask, Array) or mask.dtype.kind != "b":
        raise IndexError(
            "a subscript that is written to takes integers, slices, ..., None or one bool Tensor; "
            "for integer Tensors use where() or take()"
        )
    if mask.shape != x.shape[: mask.ndim]:
        raise IndexError(f"a mask of shape {mask.shape} does not fit an array of shape {x.shape}")
    if isinstance(value, Array) and value.size != 1:
        raise ShapeError(f"a masked write takes one value, got shape {value.shape}; use where(mask, value, x)")
    more = x.ndim - mask.ndim
    wide = mask.restride((*mask.shape, *(1,) * more), (*mask.strides, *(0,) * more), mask.offset)
    if isinstance(value, Array):
        check_castable(value.dtype, x.dtype)
        value = copy_if_overlapping(x, value.restride((), (), value.offset))
    else:
        value = stored_value(value, x.dtype)
    map_into(x, _where_set, x, wide, value)
    x.storage.version += 1


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
    """``x`` ← operation(x, other) in place, for ``+=`` and the other operators of its kind."""
    check_writable(x)
    check_operands(operation, x, other)
    if isinstance(other, Array):
        other = copy_if_overlapping(x, other)
    map_in_place(x, operation.function, other)
    x.storage.version += 1
