"""Norms of vectors and matrices, with their derivatives. Neither overflow nor underflow on the way to one."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.errors import ArgumentError, ShapeError
from netcl.functional.autocast import autocast_up
from netcl.functional.complex_gradients import gradient_of
from netcl.functional.dispatch import A, Function, check_arrays, map_arrays, reduce_arrays, zeros_for
from netcl.functional.elementwise import abs as magnitude
from netcl.functional.factorization import svdvals
from netcl.functional.host_compute import check_floating, real_of
from netcl.functional.matrices import check_matrices
from netcl.functional.reduction import Axes, checked_axes, count_over, restore_axes
from netcl.functional.reduction import max as largest
from netcl.functional.reduction import min as smallest
from netcl.functional.reduction import sum as total
from netcl.functional.shape import reshape, view_or_copy
from netcl.validation import flag, number, shown

__all__ = ["matrix_norm", "vector_norm"]

_MATRIX_ORDERS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


def matrix_norm(x: A, /, *, keepdims: bool = False, ord: float | str | None = "fro") -> A:
    """A norm of each matrix.

    =========  ====================================================
    ord        y
    =========  ====================================================
    "fro"      sqrt(Σ abs(x)²); None means it too
    "nuc"      the sum of the singular values
    1, -1      the largest, smallest sum of magnitudes of a column
    inf, -inf  the largest, smallest sum of magnitudes of a row
    2, -2      the largest, smallest singular value
    =========  ====================================================

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        Floating. 16-bit floats are computed in float32 and rounded at the end.
    keepdims : bool, default False
        Keep the last two axes, with extent 1.
    ord : {"fro", "nuc", 1, -1, 2, -2, inf, -inf}, default "fro"

    Returns
    -------
    Tensor of shape (...)
        Real. Those of singular values **block**, as :func:`svdvals` does; the others do not.

    Raises
    ------
    ArgumentError
        For any other ``ord``.
    ShapeError
        If ``x`` has fewer than two axes, or there is nothing of which to take the largest or smallest.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[3.0, -4.0], [0.0, 0.0]])
    >>> netcl.linalg.matrix_norm(x).item(), netcl.linalg.matrix_norm(x, ord=1).item()
    (5.0, 4.0)
    """
    check_matrices("matrix_norm", x)
    keepdims = flag("keepdims", keepdims)
    wanted = "fro" if ord is None else ord
    if not isinstance(wanted, str) and not isinstance(wanted, bool):
        wanted = number("ord", wanted)  # type: ignore[assignment]
    if isinstance(wanted, bool) or wanted not in _MATRIX_ORDERS:
        raise ArgumentError(
            f"ord of a matrix norm must be one of {', '.join(map(repr, _MATRIX_ORDERS))}, got {shown(ord)}"
        )
    if wanted == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if isinstance(wanted, str) or abs(wanted) == 2:
        values = svdvals(x)
        combine = total if wanted == "nuc" else largest if wanted == 2 else smallest
        y: A = combine(values, axis=-1)
        return reshape(y, (*y.shape, 1, 1)) if keepdims else y
    axis = -2 if abs(wanted) == 1 else -1
    sums: A = total(magnitude(x), axis=axis, keepdims=True)
    return (largest if wanted > 0 else smallest)(sums, axis=(-2, -1), keepdims=keepdims)


def vector_norm(x: A, /, *, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> A:
    """A p-norm of the elements over axes, taken as one vector.

    y = (Σ abs(x)^p)^(1/p); the largest abs(x) for p = inf, the smallest for -inf, how many are not 0 for p = 0

    Parameters
    ----------
    x : Tensor
        Floating. 16-bit floats are computed in float32 and rounded at the end.
    axis : int, sequence of int or None
        The axes of the vectors; None takes all.
    keepdims : bool, default False
        Keep reduced axes with extent 1.
    ord : float, default 2
        p, any number but NaN.

    Returns
    -------
    Tensor
        Real. Enqueues; does not block.

    Raises
    ------
    ArgumentError
        If ``ord`` is no number.
    ShapeError
        If there is no such axis, or a norm with p < 0 or p = inf is taken of no elements.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    No finite input overflows or underflows on the way. The derivative at 0 is 0; equal largest (smallest) elements
    share the gradient.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.vector_norm(netcl.asarray([3.0, -4.0])).item()
    5.0
    >>> netcl.linalg.vector_norm(netcl.asarray([[3.0, -4.0], [1.0, 1.0]]), axis=1, ord=1).tolist()
    [7.0, 2.0]
    """
    check_arrays("vector_norm", x)
    check_floating("vector_norm", x)
    axes = checked_axes("vector_norm", x, axis, keepdims)
    p = _order(ord)
    x = autocast_up(x)
    dtype = real_of(x.dtype)
    if (p < 0 or p == math.inf) and count_over(x, axes) == 0:
        raise ShapeError(f"a norm with ord={ord} over no elements has no value: shape {x.shape}, axes {axes}")
    if p == 0 or x.size == 0:
        out = reduce_arrays("sum", _one_if_nonzero, x, axes=axes, dtype=dtype, keepdims=True)
    elif math.isinf(p):
        out = reduce_arrays("min" if p < 0 else "max", _magnitude, x, axes=axes, dtype=dtype, keepdims=True)
    else:
        wide = dtype.compute
        peak = reduce_arrays("min" if p < 0 else "max", _magnitude, x, axes=axes, dtype=wide, keepdims=True)
        sums = reduce_arrays("sum", _power_of(p), x, peak, axes=axes, dtype=wide, keepdims=True)
        out = map_arrays(_root_of(p), sums, peak, dtype=dtype)
    y: A = out if keepdims else view_or_copy(out, tuple([n for i, n in enumerate(x.shape) if i not in axes]))
    if p == 0:
        tape.record(y, (x, lambda g: zeros_for(x)), name="vector_norm")
    else:
        whole = restore_axes(y, x.shape, axes)
        tape.record(y, (x, lambda g: _norm_vjp(x, whole, restore_axes(g, x.shape, axes), axes, p)), name="vector_norm")
    return y


def _order(ord: Any) -> float:
    value = number("ord", ord)
    if isinstance(value, bool | complex) or value != value:
        raise ArgumentError(f"ord of a norm must be a real number, or infinite, got {shown(ord)}")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"ord of a norm must be a real number, or infinite, got {shown(ord)}; pass inf") from None


def _magnitude(x: Any) -> Any:
    return ex.apply("abs", x)


def _one_if_nonzero(x: Any) -> Any:
    return ex.where(ex.equal(x, 0.0), 0.0, 1.0)


def _scale(peak: Any) -> Any:
    """What magnitudes are divided by: 1 where that is 0 or not finite."""
    return ex.where((peak > 0.0) & (peak < math.inf), peak, 1.0)


@cache
def _power_of(p: float) -> Function:
    def power(x: Any, peak: Any) -> Any:
        ratio = _magnitude(x) / _scale(peak)
        return ratio if p == 1 else ratio * ratio if p == 2 else ratio**p

    return power


@cache
def _root_of(p: float) -> Function:
    def root(sums: Any, peak: Any) -> Any:
        return _scale(peak) * (sums if p == 1 else ex.apply("sqrt", sums) if p == 2 else sums ** (1.0 / p))

    return root


def _norm_vjp(x: A, y: A, g: A, axes: tuple[int, ...], p: float) -> A:
    if math.isinf(p):
        ties = reduce_arrays("sum", _is_extreme, x, y, axes=axes, dtype=y.dtype.compute, keepdims=True)
        return gradient_of(x, map_arrays(_share_of_extreme, g, x, y, ties))
    return gradient_of(x, map_arrays(_derivative_of(p), g, x, y, dtype=x.dtype))


def _is_extreme(x: Any, y: Any) -> Any:
    return ex.where(ex.equal(_magnitude(x), y), 1.0, 0.0)


def _share_of_extreme(g: Any, x: Any, y: Any, ties: Any) -> Any:
    return ex.where(ex.equal(_magnitude(x), y), g, 0.0) / ties * ex.sign(x)


@cache
def _derivative_of(p: float) -> Function:
    def derivative(g: Any, x: Any, y: Any) -> Any:
        direction = g * ex.sign(x)
        if p == 1:
            return direction
        ratio = _magnitude(x) / ex.where(ex.equal(y, 0.0), 1.0, y)
        shared = direction * (ratio if p == 2 else ratio ** (p - 1.0))
        return ex.where(ex.equal(x, 0.0) & ex.equal(y, y), 0.0, shared)

    return derivative
