"""What the Array API has in its linear-algebra extension alone, ``netcl.linalg``, and is arithmetic on the device."""

from __future__ import annotations

from typing import Any

from netcl import tape
from netcl.array import Array
from netcl.dtypes import DType, promote
from netcl.errors import AxisError, DTypeError, ShapeError
from netcl.functional.complex_gradients import gradient_of
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import A, check_arrays, common_backend, identity, map_into, sum_to_shape
from netcl.functional.elementwise import multiply
from netcl.functional.matrices import diagonal_view, on_diagonal
from netcl.functional.reduction import sum as total
from netcl.functional.shape import normalize_axis, reshape
from netcl.strides import broadcast_shapes
from netcl.validation import integer

__all__ = ["cross", "diagonal", "outer", "trace"]


def outer(x1: A, x2: A, /) -> A:
    """The products of all pairs of elements of two vectors.

    y[i, j] = x1[i] · x2[j]

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.outer(netcl.asarray([1, 2]), netcl.asarray([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    check_arrays("outer", x1, x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ShapeError(f"outer takes two vectors, got shapes {x1.shape} and {x2.shape}; reshape them to (-1,)")
    return multiply(reshape(x1, (x1.size, 1)), x2)


def _check_stack(name: str, x: Array) -> None:
    check_arrays(name, x)
    if x.ndim < 2:
        raise ShapeError(f"{name} takes matrices, of at least two axes, got shape {x.shape}; reshape it first")


def diagonal(x: A, /, *, offset: int = 0) -> A:
    """A diagonal of each matrix, as a view.

    y[..., i] = x[..., i, i + offset]

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
    offset : int, default 0
        Positive above the main diagonal, negative below it.

    Returns
    -------
    Tensor of shape (..., k)
        Shares memory with ``x``. Does not block.

    Raises
    ------
    ShapeError
        If ``x`` has fewer than two axes.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.diagonal(netcl.asarray([[1, 2], [3, 4]])).tolist()
    [1, 4]
    """
    _check_stack("diagonal", x)
    out = diagonal_view(x, offset)
    tape.record(out, (x, lambda g: on_diagonal(g, x.shape, offset)), name="diagonal")
    return out


def trace(x: A, /, *, offset: int = 0, dtype: DType | str | None = None) -> A:
    """The sum of a diagonal of each matrix.

    y[...] = Σ x[..., i, i + offset]

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
    offset : int, default 0
        As in :func:`diagonal`.
    dtype : DType, optional
        Of the result, as in :func:`netcl.sum`.

    Returns
    -------
    Tensor of shape (...)
        Enqueues; does not block.

    Raises
    ------
    ShapeError
        If ``x`` has fewer than two axes.
    DTypeError
        If ``x`` is of bools.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.trace(netcl.asarray([[1, 2], [3, 4]])).item()
    5
    """
    _check_stack("trace", x)
    _numeric("trace", x)
    return total(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def _numeric(name: str, x: Array) -> None:
    if x.dtype.kind == "b":
        raise DTypeError(f"{name} does not take arrays of bool; convert them with astype() first")


def cross(x1: A, x2: A, /, *, axis: int = -1) -> A:
    """The vector perpendicular to each pair of vectors in space.

    y₁ = x1₂ · x2₃ - x1₃ · x2₂, and so on in turn

    Parameters
    ----------
    x1, x2 : Tensor
        Their shapes broadcast, but for the axis, whose extent is 3 in both.
    axis : int, default -1
        Counted from the end: -1 is the last.

    Returns
    -------
    Tensor
        Of the promoted dtype. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the extent is not 3, or the shapes do not broadcast.
    AxisError
        If the axis is out of range, or not negative.
    DTypeError
        If an operand is of bools.
    DeviceMismatchError
        If the operands are on different devices.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.cross(netcl.asarray([1, 0, 0]), netcl.asarray([0, 1, 0])).tolist()
    [0, 0, 1]
    """
    check_arrays("cross", x1, x2)
    if integer("axis", axis) >= 0:
        raise AxisError(f"cross counts its axis from the end, as shapes broadcast: it must be negative, got {axis}")
    for x in (x1, x2):
        _numeric("cross", x)
        if x.shape[normalize_axis(axis, x.ndim)] != 3:
            raise ShapeError(f"cross of shapes {x1.shape} and {x2.shape}: axis {axis} must have extent 3 in both")
    common_backend([x1, x2])
    out = _crossed(x1, x2, axis)
    tape.record(
        out,
        (x1, lambda g: sum_to_shape(x1, identity, gradient_of(x1, _crossed(conjugated(x2), g, axis)))),
        (x2, lambda g: sum_to_shape(x2, identity, gradient_of(x2, _crossed(g, conjugated(x1), axis)))),
        name="cross",
    )
    return out


def _crossed(x1: A, x2: A, axis: int) -> A:
    out = x1.empty_like(broadcast_shapes(x1.shape, x2.shape), promote(x1.dtype, x2.dtype))
    a, b = ([_component(x, axis, i) for i in range(3)] for x in (x1, x2))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        map_into(_component(out, axis, i), _difference_of_products, a[j], b[k], a[k], b[j])
    return out


def _component(x: A, axis: int, index: int) -> A:
    place = x.ndim + axis
    shape, strides = list(x.shape), list(x.strides)
    start = x.offset + index * strides[place]
    del shape[place], strides[place]
    return x.restride(tuple(shape), tuple(strides), start)


def _difference_of_products(a: Any, b: Any, c: Any, d: Any) -> Any:
    return a * b - c * d
