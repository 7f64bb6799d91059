"""Subscripts that are read: ``x[key]``. Basic ones make views; positions gather; masks read how many are True."""

from __future__ import annotations

import math
from typing import Any

from netcl import tape
from netcl.array import Array
from netcl.functional.casting import assign
from netcl.functional.dispatch import A, zeros_for
from netcl.functional.indexing import select
from netcl.functional.keys import (
    Key,
    basic_place,
    check_mask,
    completed,
    integer_place,
    is_advanced,
    lone_mask,
    parts_of,
    selection,
)
from netcl.functional.searching import true_positions
from netcl.functional.shape import permute_dims, reshape


def getitem(x: A, key: Key, /) -> A:
    """Select elements by a subscript, with NumPy's meaning.

    Integers, slices, ``...`` and None make a view that shares memory with ``x``. Integer Tensors, NumPy arrays and
    lists gather: they broadcast against each other and against integers beside them, and the axes of their positions
    come in their place if they stand side by side, else first. Those of bool select where they are True; they **block**
    because the number of such places decides the shape.

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
    >>> x[[1, 0], [2, 0]].tolist(), x[x > 4].tolist(), x[:, [2, 0, 2]].tolist()
    ([6, 1], [5, 6], [[3, 1, 3], [6, 4, 6]])
    """
    place = integer_place(x, key)
    if place is not None and not tape.is_recording():
        return x.restride(*place)
    parts = parts_of(x, key)
    full = completed(x, parts)
    if any(is_advanced(part) for part in full):
        return _advanced(x, parts, full)
    out = x.restride(*basic_place(x, full))
    if tape.is_recording():
        tape.record(out, (x, lambda g: _put_back(x, full, g)), name="getitem")
    return out


def _put_back(x: A, full: tuple[Any, ...], g: A) -> A:
    total = zeros_for(x)
    assign(total.restride(*basic_place(total, full)), g)
    return total


def _advanced(x: A, parts: tuple[Any, ...], full: tuple[Any, ...]) -> A:
    place = lone_mask(full)
    if place is not None:
        return _masked(x, full[place], place)
    chosen = selection(x, parts)
    view = getitem(x, chosen.basic)
    order = chosen.order(view.ndim)
    if order != tuple(range(view.ndim)):
        view = permute_dims(view, order)
    return select(view, chosen.positions, chosen.start)


def _masked(x: A, mask: Array, axis: int) -> A:
    check_mask(x, mask, axis)
    if mask.ndim == 0:
        one = getitem(x, None)
        return one if true_positions(mask).size else getitem(one, slice(0, 0))
    if mask.shape != x.shape[axis : axis + mask.ndim]:  # an extent of 0 where x has more
        return x.empty_like((*x.shape[:axis], 0, *x.shape[axis + mask.ndim :]))
    folded = reshape(x, (*x.shape[:axis], math.prod(mask.shape), *x.shape[axis + mask.ndim :]))
    return select(folded, (true_positions(mask),), axis)
