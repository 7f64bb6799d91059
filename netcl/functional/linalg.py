"""Products of matrices and vectors over any number of batch axes, each with its derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.backends.base import View
from netcl.dtypes import DType, promote
from netcl.errors import AxisError, DTypeError, ShapeError
from netcl.functional.autocast import autocast_down
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import (
    A,
    broadcast_view,
    can_write_to,
    check_arrays,
    common_backend,
    identity,
    map_arrays,
    reduce_arrays,
    sum_to_shape,
    zeros_for,
)
from netcl.functional.reduction import restore_axes
from netcl.functional.shape import normalize_axis, permute_dims, reshape, view_or_copy
from netcl.strides import broadcast_shapes, reshaped_strides
from netcl.validation import axes as named_axes
from netcl.validation import integer, shown

__all__ = ["matmul", "tensordot", "vecdot"]


def _numeric(x: Array, name: str) -> None:
    if x.dtype.kind == "b":
        raise DTypeError(f"{name} does not take arrays of bool; convert them with astype() first")


def swapped(x: A) -> A:
    """The last two axes exchanged, as a view. Not recorded."""
    return x.restride(
        (*x.shape[:-2], x.shape[-1], x.shape[-2]), (*x.strides[:-2], x.strides[-1], x.strides[-2]), x.offset
    )


def _three_axes(x: A, batch: tuple[int, ...]) -> View:
    """Where ``x`` lies as (batch, rows, columns), copied if its batch axes are no single stride."""
    if not batch:
        view = x.view()
        return View(view.buffer, view.offset, (1, *x.shape), (0, *x.strides))
    view = broadcast_view(x, (*batch, *x.shape[-2:]))
    shape = (math.prod(batch), *x.shape[-2:])
    lead = reshaped_strides(batch, view.strides[:-2], shape[:1])
    if lead is not None:
        return View(view.buffer, view.offset, shape, (*lead, *view.strides[-2:]))
    copy = map_arrays(identity, x.restride(view.shape, view.strides, x.offset))
    view, step = copy.view(), math.prod(shape[1:])
    return View(view.buffer, view.offset, shape, (step, shape[2], 1))


def product(a: A, b: A, out: Any = None, dtype: DType | None = None) -> A:
    """Σ_k a[…, m, k]·b[…, k, n] of arrays with at least two axes each, in ``out`` where that fits. Not recorded."""
    common = promote(a.dtype, b.dtype)
    a = a if a.dtype is common else map_arrays(identity, a, dtype=common)
    b = b if b.dtype is common else map_arrays(identity, b, dtype=common)
    if dtype is None or common.kind == "c":
        dtype = common
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2], b.shape[-1]
    if a.shape[-1] == 0:
        return zeros_for(a, (*batch, rows, columns), dtype)
    usable = can_write_to(out, (*batch, rows, columns), dtype) and out.is_contiguous
    y: A = out if usable else a.empty_like((*batch, rows, columns), dtype)
    if y.size == 0:
        return y
    if b.ndim == 2 and a.ndim > 2:
        folded = reshaped_strides(a.shape[:-1], a.strides[:-1], (a.size // a.shape[-1],))
        if folded is not None:  # one matrix for the whole batch: one tall product
            tall = (1, a.size // a.shape[-1], a.shape[-1])
            left, target = a.view(), y.view()
            left = View(left.buffer, left.offset, tall, (0, *folded, a.strides[-1]))
            target = View(target.buffer, target.offset, (1, tall[1], columns), (0, columns, 1))
            a.backend.batched_matmul(left, _three_axes(b, ()), target)
            return y
    target = y.view()
    target = View(target.buffer, target.offset, (math.prod(batch), rows, columns), (rows * columns, columns, 1))
    a.backend.batched_matmul(_three_axes(a, batch), _three_axes(b, batch), target)
    return y


def matched(x: A, g: A, out: Any = None) -> A:
    """``g`` summed over the batch axes along which ``x`` was repeated, with the dtype of ``x``."""
    lead = g.ndim - x.ndim
    axes = tuple([i for i in range(g.ndim - 2) if i < lead or (x.shape[i - lead] == 1 and g.shape[i] != 1)])
    if axes:
        g = view_or_copy(reduce_arrays("sum", identity, g, axes=axes, dtype=x.dtype), x.shape)
    return g if g.dtype is x.dtype else map_arrays(identity, g, dtype=x.dtype, out=out)


def _left_vjp(x: A, b: A, g: A, out: Any) -> A:
    return matched(x, product(g, swapped(conjugated(b)), out, x.dtype), out)


def _right_vjp(a: A, x: A, g: A, out: Any) -> A:
    a = conjugated(a)
    if x.ndim == 2 and a.ndim > 2:  # sum over the batch within the product
        rows = math.prod(a.shape[:-1])
        tall = product(
            swapped(view_or_copy(a, (rows, a.shape[-1]))), view_or_copy(g, (rows, g.shape[-1])), out, x.dtype
        )
        return matched(x, tall, out)
    return matched(x, product(swapped(a), g, out, x.dtype), out)


def matmul(x1: A, x2: A, /) -> A:
    """The matrix product.

    y[…, m, n] = Σ_k x1[…, m, k] · x2[…, k, n]

    Parameters
    ----------
    x1, x2 : Tensor
        With two axes or more; the leading ones broadcast. A vector counts as a row on the left and as a column
        on the right, and that axis is not in the result.

    Returns
    -------
    Tensor
        Accumulated in float32 or wider. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the inner extents differ or an operand is 0-dimensional.
    DeviceMismatchError
        If the operands are on different devices.

    Examples
    --------
    >>> import netcl
    >>> a = netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> netcl.matmul(a, netcl.asarray([1.0, 1.0])).tolist()
    [3.0, 7.0]
    """
    for x in (x1, x2):
        check_arrays("matmul", x)
        _numeric(x, "matmul")
    if x1.ndim == 0 or x2.ndim == 0:
        raise ShapeError(f"matmul needs at least one axis each, got shapes {x1.shape} and {x2.shape}; use x1 * x2")
    if x1.ndim == 1 or x2.ndim == 1:
        return _with_vector(x1, x2)
    if x1.shape[-1] != x2.shape[-2]:
        raise _inner_extents(x1, x2, x1.shape[-1], x2.shape[-2])
    common_backend((x1, x2))
    a, b = autocast_down(x1), autocast_down(x2)
    out = product(a, b)
    if out.dtype.kind in "fc":
        left = tape.VJPWithOut(lambda g, into: _left_vjp(x1, b, g, into))
        right = tape.VJPWithOut(lambda g, into: _right_vjp(a, x2, g, into))
        tape.record(out, (x1, left), (x2, right), name="matmul")
    return out


def _inner_extents(x1: Array, x2: Array, left: int, right: int) -> ShapeError:
    return ShapeError(f"matmul of shapes {x1.shape} and {x2.shape}: the inner extents {left} and {right} must be equal")


def _with_vector(x1: A, x2: A) -> A:
    a = reshape(x1, (1, x1.size)) if x1.ndim == 1 else x1
    b = reshape(x2, (x2.size, 1)) if x2.ndim == 1 else x2
    if a.shape[-1] != b.shape[-2]:
        raise _inner_extents(x1, x2, a.shape[-1], b.shape[-2])
    y = matmul(a, b)
    shape = y.shape[: -1 if x2.ndim == 1 else None]
    if x1.ndim == 1:
        shape = shape[:-1] if x2.ndim == 1 else (*shape[:-2], shape[-1])
    return reshape(y, shape)


def vecdot(x1: A, x2: A, /, *, axis: int = -1) -> A:
    """The dot product of vectors along an axis.

    y = Σ conj(x1) · x2

    Parameters
    ----------
    x1, x2 : Tensor
        Their shapes broadcast; the axis has the same extent in both.
    axis : int, default -1
        Counted from the end: -1 is the last.

    Raises
    ------
    ShapeError
        If the extents differ.

    Examples
    --------
    >>> import netcl
    >>> netcl.vecdot(netcl.asarray([1.0, 2.0]), netcl.asarray([3.0, 4.0])).item()
    11.0
    """
    check_arrays("vecdot", x1, x2)
    if integer("axis", axis) >= 0:
        raise AxisError(f"vecdot counts its axis from the end, as shapes broadcast: it must be negative, got {axis}")
    first, second = (x.shape[normalize_axis(axis, x.ndim)] for x in (x1, x2))
    if first != second:
        raise ShapeError(f"vecdot of shapes {x1.shape} and {x2.shape}: axis {axis} must have the same extent in both")
    for x in (x1, x2):
        _numeric(x, "vecdot")
    shape = broadcast_shapes(x1.shape, x2.shape)
    place = len(shape) + axis
    # In one launch, so that products of 16-bit elements are not rounded before they are added up.
    out = reduce_arrays("sum", _conj_product, x1, x2, axes=(place,), dtype=promote(x1.dtype, x2.dtype))

    def toward(x: A, other: A, function: Any) -> tape.VJP:
        def vjp(g: A, into: Any) -> Any:
            g = restore_axes(g, shape, (place,))
            strides = tuple([0 if i == place else stride for i, stride in enumerate(g.strides)])
            return sum_to_shape(x, function, g.restride(shape, strides, g.offset), other, out=into)

        return tape.VJPWithOut(vjp)

    tape.record(out, (x1, toward(x1, x2, _conj_product)), (x2, toward(x2, x1, _product)), name="vecdot")
    return out


def _product(x: Any, y: Any) -> Any:
    return x * y


def _conj_product(x: Any, y: Any) -> Any:
    return ex.conj(x) * y


def tensordot(x1: A, x2: A, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> A:
    """Contract several axes of two arrays.

    Parameters
    ----------
    x1, x2 : Tensor
    axes : int or pair of sequences of int, default 2
        The last ``axes`` of x1 with the first of x2, or the axes of each, in order.

    Raises
    ------
    ShapeError
        If extents of contracted axes differ.

    Examples
    --------
    >>> import netcl
    >>> netcl.tensordot(netcl.ones((2, 3)), netcl.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    check_arrays("tensordot", x1, x2)
    if isinstance(axes, tuple | list):
        if len(axes) != 2:
            raise AxisError(f"axes of tensordot must be a number or a pair of sequences, got {shown(axes)}")
        left, right = (
            list(found) for found in (named_axes("axes[0]", axes[0], x1.ndim), named_axes("axes[1]", axes[1], x2.ndim))
        )
    else:
        count = integer("axes", axes, least=0, error=AxisError)
        if count > min(x1.ndim, x2.ndim):
            raise AxisError(f"tensordot of shapes {x1.shape} and {x2.shape} cannot contract {count} axes")
        left, right = list(range(x1.ndim - count, x1.ndim)), list(range(count))
    if [x1.shape[i] for i in left] != [x2.shape[i] for i in right]:
        raise ShapeError(f"tensordot of shapes {x1.shape} and {x2.shape}: axes {left} and {right} differ in extent")
    rest1 = [i for i in range(x1.ndim) if i not in left]
    rest2 = [i for i in range(x2.ndim) if i not in right]
    inner = math.prod([x1.shape[i] for i in left])
    rows, columns = math.prod([x1.shape[i] for i in rest1]), math.prod([x2.shape[i] for i in rest2])
    a = reshape(permute_dims(x1, [*rest1, *left]), (rows, inner))
    b = reshape(permute_dims(x2, [*right, *rest2]), (inner, columns))
    return reshape(matmul(a, b), (*[x1.shape[i] for i in rest1], *[x2.shape[i] for i in rest2]))
