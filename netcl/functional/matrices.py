"""What functions of matrices have in common: checks of their arguments, adjoints, triangles and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.array import Array
from netcl.dtypes import bool_
from netcl.errors import ShapeError
from netcl.functional.casting import assign
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import A, check_arrays, identity, map_arrays, zeros_for
from netcl.functional.elementwise import add, multiply
from netcl.functional.host import from_host
from netcl.functional.host_compute import check_floating
from netcl.functional.linalg import product, swapped
from netcl.functional.shape import view_or_copy
from netcl.functional.ternary import where
from netcl.validation import integer


def check_matrices(name: str, *arrays: Array) -> None:
    """Refuse what is not a floating matrix or a batch of them."""
    check_arrays(name, *arrays)
    check_floating(name, *arrays)
    for x in arrays:
        if x.ndim < 2:
            raise ShapeError(f"{name} takes matrices, of at least two axes, got shape {x.shape}; reshape it first")


def check_square(name: str, *arrays: Array) -> None:
    """Refuse what is not a floating square matrix or a batch of them."""
    check_matrices(name, *arrays)
    for x in arrays:
        if x.shape[-1] != x.shape[-2]:
            raise ShapeError(
                f"{name} takes square matrices, got shape {x.shape}; its last two extents must be equal (pinv, qr and "
                "svd take any)"
            )


def wide(x: A) -> A:
    """``x`` in its compute dtype, for derivatives of several steps. Not recorded."""
    return x if x.dtype.compute is x.dtype else map_arrays(identity, x, dtype=x.dtype.compute)


def adjoint(x: A) -> A:
    """The conjugate transpose of each matrix: a view if it is real. Not recorded."""
    return conjugated(swapped(x))


def products(first: A, *others: A) -> A:
    """The product of several matrices, from the left. Not recorded."""
    for x in others:
        first = product(first, x)
    return first


def rows(vector: A) -> A:
    """The vectors along the last axis as matrices of one row, which scale the columns of others."""
    return view_or_copy(vector, (*vector.shape[:-1], 1, vector.shape[-1]))


def columns(vector: A) -> A:
    """The vectors along the last axis as matrices of one column, which scale the rows of others."""
    return view_or_copy(vector, (*vector.shape, 1))


def kept(x: A, mask: NDArray[np.bool_], other: float = 0.0) -> A:
    """``x`` where ``mask`` is set, else ``other``."""
    return where(from_host(type(x), mask, x.backend, bool_), x, other)


def triangle(x: A, *, lower: bool, halved: bool = False) -> A:
    """The lower or upper triangle of square matrices, with half of the diagonal if so said."""
    mask = np.tri(x.shape[-1], dtype=bool)
    found = kept(x, mask if lower else mask.T)
    if not halved:
        return found
    return multiply(found, from_host(type(x), 1.0 - 0.5 * np.eye(x.shape[-1]), x.backend, x.dtype))


def twice_hermitian(x: A) -> A:
    """Each matrix plus its conjugate transpose."""
    return add(x, adjoint(x))


def diagonal_shape(shape: tuple[int, ...], offset: int) -> tuple[int, int, int]:
    """How many elements a diagonal has, and the row and the column of its first one."""
    offset = max(-shape[-2], min(integer("offset", offset), shape[-1]))
    row, column = max(-offset, 0), max(offset, 0)
    return min(shape[-2] - row, shape[-1] - column), row, column


def diagonal_view(x: A, offset: int = 0) -> A:
    """The diagonal of each matrix, as a view. Not recorded."""
    count, row, column = diagonal_shape(x.shape, offset)
    start = x.offset + row * x.strides[-2] + column * x.strides[-1] if count else x.offset
    return x.restride((*x.shape[:-2], count), (*x.strides[:-2], x.strides[-2] + x.strides[-1]), start)


def on_diagonal(x: A, shape: tuple[int, ...], offset: int = 0) -> A:
    """Matrices of ``shape`` that hold the elements of ``x`` on a diagonal, else zeros. Not recorded."""
    out = zeros_for(x, shape)
    assign(diagonal_view(out, offset), x)
    return out


def identity_like(x: A) -> A:
    """Identity matrices of the shape of ``x``."""
    unit = from_host(type(x), np.eye(x.shape[-1]), x.backend, x.dtype)
    out = x.empty_like()
    assign(out, unit)
    return out


def record_each(x: A, outputs: Sequence[A], derivatives: Sequence[tape.VJP], name: str) -> None:
    """Give the tape one operation for each output, whose gradients add up. A write to any of them is noticed."""
    if not tape.is_recording():
        return
    for out, vjp in zip(outputs, derivatives, strict=True):
        others: list[Any] = [(y.restride(y.shape, y.strides, y.offset), vjp) for y in outputs if y is not out]
        tape.record(out, (x, vjp), *others, name=name)
