"""Variance and standard deviation, with their derivatives: exact for constants, and safe from overflow.

Deviations are taken from an element before they are averaged: those of a constant are then exactly 0, where the
rounding of a mean would leave some. Halves of them do not overflow.
"""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.dtypes import DType
from netcl.functional.autocast import autocast_up
from netcl.functional.dispatch import A, identity, map_arrays, reduce_arrays, zeros_for
from netcl.functional.reduction import Axes, averaged, checked_axes, count_over, mean_dtype, restore_axes
from netcl.functional.shape import view_or_copy
from netcl.validation import real

__all__ = ["std", "var"]


def first_along(x: A, axes: tuple[int, ...]) -> A:
    """A view of one element for each result of a reduction over ``axes``."""
    shape = tuple([1 if axis in axes else extent for axis, extent in enumerate(x.shape)])
    return x.restride(shape, tuple([0 if axis in axes else stride for axis, stride in enumerate(x.strides)]), x.offset)


def _half_offset(x: Any, first: Any) -> Any:
    return 0.5 * x - 0.5 * first


def _part_of_offset(x: Any, first: Any, share: Any) -> Any:
    return _half_offset(x, first) * share


def _squared_deviation(x: Any, first: Any, center: Any) -> Any:
    deviation = _half_offset(x, first) - center
    if deviation.dtype.kind == "c":
        return ex.square(ex.real(deviation)) + ex.square(ex.imag(deviation))
    return ex.square(deviation)


def _of_nothing(x: A, axes: tuple[int, ...], dtype: DType, keepdims: bool, name: str) -> A:
    """NaN, the mean of no elements."""
    out = averaged(identity, x, axes=axes, n=0, dtype=dtype, keepdims=keepdims)
    tape.record(out, (x, lambda g: zeros_for(x)), name=name)
    return out


def var(x: A, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> A:
    """The variance over axes, in two passes.

    ``y = Σ |x - mean(x)|² / (n - correction)``

    Parameters
    ----------
    x : Tensor
    axis, keepdims
        As in ``sum``.
    correction : float, default 0.0
        1 for the unbiased estimate. A divisor of 0 or less gives NaN or infinity.

    Notes
    -----
    Of equal elements, whatever they are, it is exactly 0.

    Examples
    --------
    >>> import netcl
    >>> netcl.var(netcl.asarray([1.0, 2.0, 3.0]), correction=1).item()
    1.0
    """
    axes = checked_axes("var", x, axis, keepdims)
    correction = real("correction", correction)
    x = autocast_up(x)
    dtype = mean_dtype(x, "var")
    n = count_over(x, axes)
    operand = x if x.dtype is dtype else map_arrays(identity, x, dtype=dtype)
    if x.size == 0:
        return _of_nothing(operand, axes, dtype.part, keepdims, "var")
    first = first_along(operand, axes)
    center = reduce_arrays(
        "sum", _part_of_offset, operand, first, 1.0 / n, axes=axes, dtype=dtype.compute, keepdims=True
    )
    divisor = max(float(n - correction), 0.0)
    squares = (operand, first, center)
    out = averaged(_squared_deviation, *squares, axes=axes, n=divisor / 4.0, dtype=dtype.part, keepdims=keepdims)

    def vjp(g: Any) -> Any:
        factor = 4.0 / divisor if divisor else math.inf
        return map_arrays(_var_vjp, restore_axes(g, x.shape, axes), *squares, factor, dtype=x.dtype)

    tape.record(out, (x, vjp), name="var")
    return out


def _var_vjp(g: Any, x: Any, first: Any, center: Any, factor: Any) -> Any:
    return g * (_half_offset(x, first) - center) * factor


def std(x: A, /, *, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> A:
    """The standard deviation over axes, in three passes; its derivative is 0 where it is 0.

    y = sqrt(var(x))

    Parameters
    ----------
    x : Tensor
    axis, correction, keepdims
        As in ``var``.

    Notes
    -----
    Squares neither overflow nor vanish: every finite ``x`` has its deviation, though the variance may have none.

    Examples
    --------
    >>> import netcl
    >>> netcl.std(netcl.asarray([1.0, 3.0])).item()
    1.0
    """
    axes = checked_axes("std", x, axis, keepdims)
    correction = real("correction", correction)
    x = autocast_up(x)
    dtype = mean_dtype(x, "std", "buif")
    n = count_over(x, axes)
    operand = x if x.dtype is dtype else map_arrays(identity, x, dtype=dtype)
    if x.size == 0:
        return _of_nothing(operand, axes, dtype, keepdims, "std")
    first, compute = first_along(operand, axes), dtype.compute
    reach = reduce_arrays("max", _distance, operand, first, axes=axes, dtype=compute, keepdims=True)
    units = (operand, first, reach)
    center = reduce_arrays("sum", _part_of_unit, *units, 1.0 / n, axes=axes, dtype=compute, keepdims=True)
    squares = reduce_arrays("sum", _squared_unit, *units, center, axes=axes, dtype=compute, keepdims=True)
    divisor = max(float(n - correction), 0.0)
    out = map_arrays(_rooted, squares, reach, divisor, dtype=dtype)
    if not keepdims:
        out = view_or_copy(out, tuple([extent for axis, extent in enumerate(x.shape) if axis not in axes]))

    def vjp(g: Any) -> Any:
        wide = restore_axes(g, x.shape, axes)
        return map_arrays(_std_vjp, wide, *units, center, squares, divisor, dtype=x.dtype)

    tape.record(out, (x, vjp), name="std")
    return out


def _distance(x: Any, first: Any) -> Any:
    return ex.apply("abs", _half_offset(x, first))


def _unit(x: Any, first: Any, reach: Any) -> Any:
    offset = _half_offset(x, first)
    return ex.where(ex.equal(reach, 0.0), offset, offset / reach)


def _part_of_unit(x: Any, first: Any, reach: Any, share: Any) -> Any:
    return _unit(x, first, reach) * share


def _squared_unit(x: Any, first: Any, reach: Any, center: Any) -> Any:
    return ex.square(_unit(x, first, reach) - center)


def _rooted(squares: Any, reach: Any, divisor: Any) -> Any:
    return reach * (2.0 * ex.sqrt(squares / divisor))


def _std_vjp(g: Any, x: Any, first: Any, reach: Any, center: Any, squares: Any, divisor: Any) -> Any:
    root = ex.sqrt(squares / divisor)
    slope = (_unit(x, first, reach) - center) / (root * divisor)
    return ex.where(ex.equal(root, 0.0), 0.0, g * slope)
