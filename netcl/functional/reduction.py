"""Reductions over axes, with their derivatives. All keep a fixed order, so the same input gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype, bool_, int64, uint64
from netcl.errors import DTypeError, ShapeError
from netcl.functional.autocast import autocast_up
from netcl.functional.casting import check_supported
from netcl.functional.dispatch import A, Function, check_arrays, identity, map_arrays, reduce_arrays
from netcl.functional.shape import normalize_axes, normalize_axis, reshape, view_or_copy
from netcl.validation import flag

__all__ = ["all", "any", "argmax", "argmin", "count_nonzero", "logsumexp", "max", "mean", "min", "prod", "sum"]

Axes: TypeAlias = int | Sequence[int] | None


def restore_axes(g: A, shape: tuple[int, ...], axes: tuple[int, ...]) -> A:
    """The gradient of a reduction with its axes put back, each of extent 1. Not recorded."""
    if g.ndim == len(shape):
        return g
    strides = iter(g.strides)
    kept = tuple([1 if axis in axes else extent for axis, extent in enumerate(shape)])
    return g.restride(kept, tuple([0 if axis in axes else next(strides) for axis in range(len(shape))]), g.offset)


def broadcast_grad(x: Array, g: A, axes: tuple[int, ...]) -> A:
    """The gradient of a sum: ``g`` repeated to the shape of ``x``, as a view."""
    g = restore_axes(g, x.shape, axes)
    strides = tuple([0 if axis in axes else stride for axis, stride in enumerate(g.strides)])
    out = g.restride(x.shape, strides, g.offset)
    return out if g.dtype is x.dtype else map_arrays(identity, out, dtype=x.dtype)


def summed_dtype(x: Array, dtype: DType | str | None) -> DType:
    """The standard's: integers are summed in the widest integer of their kind."""
    if dtype is not None:
        return as_dtype(dtype)
    return {"b": DEFAULT_INT, "i": int64, "u": uint64}.get(x.dtype.kind, x.dtype)


def checked_axes(name: str, x: Any, axis: Axes, keepdims: bool) -> tuple[int, ...]:
    """The axes to reduce, sorted; what every reduction asks of its arguments."""
    if not isinstance(x, Array):
        check_arrays(name, x)
    if type(keepdims) is not bool:
        flag("keepdims", keepdims)
    return normalize_axes(axis, x.ndim)


def _check(x: Array, name: str, kinds: str = "uifc") -> None:
    if x.dtype.kind not in kinds:
        raise DTypeError(f"{name} does not take arrays of {x.dtype}; convert it with astype() first")


def sum(x: A, /, *, axis: Axes = None, dtype: DType | str | None = None, keepdims: bool = False) -> A:
    """Add up elements over axes.

    y = Σ x

    Parameters
    ----------
    x : Tensor
    axis : int, sequence of int or None
        The axes to reduce; None takes all.
    dtype : DType, optional
        Of the result, and of the additions where it is wider; by default int64 or uint64 for integers, else that of x.
    keepdims : bool, default False
        Keep reduced axes with extent 1.

    Returns
    -------
    Tensor
        Enqueues; does not block.

    Raises
    ------
    ShapeError
        If there is no such axis.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[1, 2], [3, 4]])
    >>> netcl.sum(x, axis=0).tolist(), netcl.sum(x).item()
    ([4, 6], 10)
    """
    axes = checked_axes("sum", x, axis, keepdims)
    x = autocast_up(x)
    target = summed_dtype(x, dtype)
    check_supported(x.backend, target)
    out: A = _total(x, axes, target, keepdims)
    if target.kind in "fc":
        tape.record(out, (x, lambda g: broadcast_grad(x, g, axes)), name="sum")
    return out


@cache
def _widened(dtype: DType) -> Any:
    return lambda x: ex.cast(x, dtype)


def _total(x: A, axes: tuple[int, ...], target: DType, keepdims: bool) -> Any:
    return reduce_arrays("sum", _widened(target), x, axes=axes, dtype=target, keepdims=keepdims)


def prod(x: A, /, *, axis: Axes = None, dtype: DType | str | None = None, keepdims: bool = False) -> A:
    """Multiply elements over axes.

    y = Π x

    Parameters
    ----------
    x : Tensor
    axis, dtype, keepdims
        As in ``sum``.

    Examples
    --------
    >>> import netcl
    >>> netcl.prod(netcl.asarray([2, 3, 4])).item()
    24
    """
    axes = checked_axes("prod", x, axis, keepdims)
    x = autocast_up(x)
    target = summed_dtype(x, dtype)
    check_supported(x.backend, target)
    out = reduce_arrays("prod", _widened(target), x, axes=axes, dtype=target, keepdims=keepdims)
    if target.kind in "fc":
        tape.record(out, (x, lambda g: _prod_vjp(x, g, axes)), name="prod")
    return out


def _prod_vjp(x: A, g: A, axes: tuple[int, ...]) -> A:
    # The product of the others: that of all ordinary elements / x, while zeros and infinities are counted.
    ordinary = reduce_arrays("prod", _ordinary, x, axes=axes, dtype=x.dtype.compute, keepdims=True)
    counted = x.dtype.compute.part
    zeros = reduce_arrays("sum", _is_zero, x, axes=axes, dtype=counted, keepdims=True)
    infinities = reduce_arrays("sum", _is_infinite, x, axes=axes, dtype=counted, keepdims=True)
    return map_arrays(_prod_others, restore_axes(g, x.shape, axes), x, ordinary, zeros, infinities, dtype=x.dtype)


def _ordinary(x: Any) -> Any:
    """1 for a zero, the sign of an infinity, else x."""
    if x.dtype.kind == "c":
        return ex.where(ex.equal(x, 0.0), 1.0, x)
    return ex.where(ex.equal(x, 0.0), 1.0, ex.where(ex.apply("isinf", x), ex.sign(x), x))


def _is_zero(x: Any) -> Any:
    return ex.where(ex.equal(x, 0.0), 1.0, 0.0)


def _is_infinite(x: Any) -> Any:
    return ex.where(ex.apply("isinf", x), 1.0, 0.0)


def _prod_others(g: Any, x: Any, ordinary: Any, zeros: Any, infinities: Any) -> Any:
    product = ordinary / _ordinary(x)
    # A zero among the others takes even what has overflowed, but no NaN.
    vanishes = (zeros - _is_zero(x) > 0.0) & ex.equal(product, product)
    product = ex.where(vanishes, 0.0, product)
    return g * ex.conj(product) * ex.where(infinities - _is_infinite(x) > 0.0, math.inf, 1.0)


def count_over(x: Array, axes: tuple[int, ...]) -> int:
    """How many elements each result of a reduction is made from."""
    return math.prod([x.shape[axis] for axis in axes])


def mean_dtype(x: Array, name: str, kinds: str = "buifc") -> DType:
    """The dtype of a mean: that of ``x``, or float32 for integers."""
    _check(x, name, kinds)
    return x.dtype if x.dtype.kind in "fc" else DEFAULT_FLOAT


def _divided(x: Any, n: Any) -> Any:
    return x / n


def _scaled(x: Any, factor: Any) -> Any:
    return x * factor


def averaged(
    function: Function, first: A, /, *others: A, axes: tuple[int, ...], n: float, dtype: DType, keepdims: bool
) -> A:
    """Σ function / n. One launch where 1/n is exact in binary, else two. Not recorded."""
    power_of_two = n > 0 and math.frexp(n)[0] == 0.5
    if power_of_two:
        if function is identity:
            return reduce_arrays("sum", _scaled, first, *others, 1.0 / n, axes=axes, dtype=dtype, keepdims=keepdims)
        total = reduce_arrays("sum", function, first, *others, axes=axes, dtype=dtype.compute, keepdims=keepdims)
        return map_arrays(_scaled, total, 1.0 / n, dtype=dtype)
    total = reduce_arrays("sum", function, first, *others, axes=axes, dtype=dtype.compute, keepdims=keepdims)
    return map_arrays(_divided, total, n, dtype=dtype)


def mean(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """Average elements over axes.

    y = (Σ x) / n

    Parameters
    ----------
    x : Tensor
        Integers give float32.
    axis, keepdims
        As in ``sum``. Over no elements the mean is NaN.

    Examples
    --------
    >>> import netcl
    >>> netcl.mean(netcl.asarray([1.0, 2.0, 6.0])).item()
    3.0
    """
    axes = checked_axes("mean", x, axis, keepdims)
    x = autocast_up(x)
    n = count_over(x, axes)
    dtype = mean_dtype(x, "mean")
    operand = x if x.dtype is dtype else map_arrays(identity, x, dtype=dtype)
    out = averaged(identity, operand, axes=axes, n=n, dtype=dtype, keepdims=keepdims)
    tape.record(out, (x, lambda g: _mean_vjp(x, g, axes, n)), name="mean")
    return out


def _mean_vjp(x: A, g: A, axes: tuple[int, ...], n: int) -> A:
    scaled = map_arrays(_scaled, g, 1.0 / max_of(n, 1), dtype=x.dtype)
    return broadcast_grad(x, scaled, axes)


def max_of(a: int | float, b: int | float) -> Any:
    """The larger Python number (``max`` is the array function here)."""
    return a if a > b else b


def _extremum(op: str, x: A, axis: Axes, keepdims: bool) -> A:
    axes = checked_axes(op, x, axis, keepdims)
    _check(x, op, "uif")
    if x.size == 0 and count_over(x, axes) == 0:
        raise ShapeError(f"{op} over no elements has no value: shape {x.shape}, axes {axes}; check the size first")
    out = reduce_arrays(op, identity, x, axes=axes, keepdims=keepdims)

    def vjp(g: Any) -> Any:
        best = restore_axes(out, x.shape, axes)
        ties = reduce_arrays("sum", _is_best, x, best, axes=axes, keepdims=True)
        return map_arrays(_share_of_best, restore_axes(g, x.shape, axes), x, best, ties, dtype=x.dtype)

    if x.dtype.kind == "f":
        tape.record(out, (x, vjp), name=op)
    return out


def _is_best(x: Any, best: Any) -> Any:
    return ex.where(ex.equal(x, best), 1.0, 0.0)


def _share_of_best(g: Any, x: Any, best: Any, ties: Any) -> Any:
    # Nothing equals a best that is NaN: then every share is 0 / 0, so that the NaN shows in the gradient too.
    return ex.where(ex.equal(x, best), g, 0.0) / ties


def max(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """The largest element over axes; NaN if there is one, and then the gradient too. Equals share the gradient.

    Parameters
    ----------
    x : Tensor
    axis, keepdims
        As in ``sum``.

    Raises
    ------
    ShapeError
        Over no elements.

    Examples
    --------
    >>> import netcl
    >>> netcl.max(netcl.asarray([[1.0, 5.0], [4.0, 2.0]]), axis=1).tolist()
    [5.0, 4.0]
    """
    return _extremum("max", x, axis, keepdims)


def min(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """The smallest element over axes; NaN if there is one, and then the gradient too. Equals share the gradient.

    Parameters
    ----------
    x : Tensor
    axis, keepdims
        As in ``sum``.

    Raises
    ------
    ShapeError
        Over no elements.

    Examples
    --------
    >>> import netcl
    >>> netcl.min(netcl.asarray([3, 1, 2])).item()
    1
    """
    return _extremum("min", x, axis, keepdims)


def _truth(x: Any) -> Any:
    return ex.cast(x, bool_)


def all(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """Whether every element over the axes is nonzero; True over none.

    Examples
    --------
    >>> import netcl
    >>> netcl.all(netcl.asarray([True, False])).item()
    False
    """
    axes = checked_axes("all", x, axis, keepdims)
    return reduce_arrays("all", _truth, x, axes=axes, dtype=bool_, keepdims=keepdims)


def any(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """Whether some element over the axes is nonzero; False over none.

    Examples
    --------
    >>> import netcl
    >>> netcl.any(netcl.asarray([True, False])).item()
    True
    """
    axes = checked_axes("any", x, axis, keepdims)
    return reduce_arrays("any", _truth, x, axes=axes, dtype=bool_, keepdims=keepdims)


def count_nonzero(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """How many elements over the axes are nonzero, as int64.

    Examples
    --------
    >>> import netcl
    >>> netcl.count_nonzero(netcl.asarray([0, 2, 3])).item()
    2
    """
    axes = checked_axes("count_nonzero", x, axis, keepdims)
    return reduce_arrays("sum", _one_if_true, x, axes=axes, dtype=int64, keepdims=keepdims)


def _one_if_true(x: Any) -> Any:
    return ex.cast(ex.cast(x, bool_), int64)


def _arg(op: str, x: A, axis: int | None, keepdims: bool) -> A:
    checked_axes(op, x, None, keepdims)
    _check(x, op, "uif")
    shape = x.shape
    if axis is None:
        x, place = reshape(x, (-1,)), 0
        kept: tuple[int, ...] = (1,) * len(shape)
    else:
        place = normalize_axis(axis, x.ndim)
        kept = (*shape[:place], 1, *shape[place + 1 :])
    if x.shape[place] == 0:
        raise ShapeError(f"{op} over no elements has no value: shape {shape}, axis {axis}; check the size first")
    out = x.empty_like((*x.shape[:place], *x.shape[place + 1 :]), int64)
    if out.size:
        x.backend.arg_reduce(op, x.view(), place, out.view())
    return reshape(out, kept) if keepdims else out


def argmax(x: A, /, *, axis: int | None = None, keepdims: bool = False) -> A:
    """The index (int64) of the first largest element along an axis; a NaN counts as the largest.

    Parameters
    ----------
    x : Tensor
    axis : int or None
        None searches the flattened array.
    keepdims : bool, default False

    Raises
    ------
    ShapeError
        Over no elements.

    Examples
    --------
    >>> import netcl
    >>> netcl.argmax(netcl.asarray([[1.0, 5.0], [4.0, 2.0]]), axis=1).tolist()
    [1, 0]
    """
    return _arg("argmax", x, axis, keepdims)


def argmin(x: A, /, *, axis: int | None = None, keepdims: bool = False) -> A:
    """The index (int64) of the first smallest element along an axis; a NaN counts as the smallest.

    Parameters
    ----------
    x : Tensor
    axis, keepdims
        As in ``argmax``.

    Raises
    ------
    ShapeError
        Over no elements.

    Examples
    --------
    >>> import netcl
    >>> netcl.argmin(netcl.asarray([3, 1, 2])).item()
    1
    """
    return _arg("argmin", x, axis, keepdims)


def logsumexp(x: A, /, *, axis: Axes = None, keepdims: bool = False) -> A:
    """The logarithm of the sum of exponentials over axes, without overflow.

    y = m + log(Σ exp(x - m)), m = max(x)

    Parameters
    ----------
    x : Tensor of a floating dtype
    axis, keepdims
        As in ``sum``.

    Raises
    ------
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.logsumexp(netcl.asarray([1000.0, -1000.0])).item()
    1000.0
    """
    axes = checked_axes("logsumexp", x, axis, keepdims)
    _check(x, "logsumexp", "f")
    x = autocast_up(x)
    if count_over(x, axes) == 0:
        raise ShapeError(f"logsumexp over no elements has no value: shape {x.shape}, axes {axes}; check the size first")
    peak = reduce_arrays("max", identity, x, axes=axes, keepdims=True)
    total = reduce_arrays("sum", _shifted_exp, x, peak, axes=axes, dtype=x.dtype.compute, keepdims=True)
    out = map_arrays(_log_plus, total, peak, dtype=x.dtype)
    if not keepdims:
        out = view_or_copy(out, tuple([extent for axis, extent in enumerate(x.shape) if axis not in axes]))

    def vjp(g: Any) -> Any:
        return map_arrays(_weighted, restore_axes(g, x.shape, axes), x, peak, total, dtype=x.dtype)

    tape.record(out, (x, vjp), name="logsumexp")
    return out


def _shifted_exp(x: Any, peak: Any) -> Any:
    # The difference of equal infinities is NaN.
    return ex.where(ex.equal(x, peak), 1.0, ex.exp(x - peak))


def _log_plus(total: Any, peak: Any) -> Any:
    return ex.log(total) + peak


def _weighted(g: Any, x: Any, peak: Any, total: Any) -> Any:
    # Not exp(x - y): the result has lost what x and the peak differ by where they are large.
    return g * _shifted_exp(x, peak) / total
