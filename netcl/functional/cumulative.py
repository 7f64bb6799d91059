"""Running sums and products along an axis, and differences, with their derivatives."""

from __future__ import annotations

from functools import cache
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.dtypes import DType, bool_
from netcl.errors import DTypeError, ShapeError
from netcl.functional.autocast import autocast_up
from netcl.functional.casting import assign, check_supported
from netcl.functional.dispatch import A, check_arrays, map_arrays
from netcl.functional.elementwise import not_equal, subtract
from netcl.functional.joining import concat, strided
from netcl.functional.reduction import summed_dtype
from netcl.functional.shape import broadcast_to, flip, normalize_axis
from netcl.validation import flag, integer

__all__ = ["cumulative_prod", "cumulative_sum", "diff"]


@cache
def _as_dtype(source: DType, target: DType) -> ex.Expression:
    return ex.build(
        (ex.cast(ex.Node("input", (), source.compute, 0), target),), (source,), (), (target,), "scan", summed=True
    )


def _scanned(op: str, x: A, axis: int, dtype: DType, include_initial: bool = False) -> A:
    """The running ``op`` along ``axis``, with its start value in front if so wanted. Not recorded."""
    extent = x.shape[axis]
    lead = int(include_initial)
    out = x.empty_like((*x.shape[:axis], extent + lead, *x.shape[axis + 1 :]), dtype)
    if lead:
        assign(_slice(out, axis, 0, 1), 0 if op == "sum" else 1)
    if x.size:
        target = _slice(out, axis, lead, extent)
        x.backend.scan(op, _as_dtype(x.dtype, dtype), (x.view(),), axis, target.view())
    return out


def _slice(x: A, axis: int, start: int, size: int) -> A:
    return x.restride((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.strides, x.offset + start * x.strides[axis])


def _checked(name: str, x: A, axis: int | None) -> int:
    check_arrays(name, x)
    if x.dtype.kind == "b":
        raise DTypeError(f"{name} does not take arrays of bool; convert them with astype() first")
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"{name} needs an axis for an array of shape {x.shape}; pass axis=")
        axis = 0
    return normalize_axis(axis, x.ndim)


def cumulative_sum(
    x: A, /, *, axis: int | None = None, dtype: DType | str | None = None, include_initial: bool = False
) -> A:
    """Running sums along an axis.

    y[i] = Σ x[0 … i]

    Parameters
    ----------
    x : Tensor of numbers
    axis : int, optional
        May be left out if ``x`` has one axis.
    dtype : DType, optional
        Of the result; by default int64 or uint64 for integers, else that of ``x``.
    include_initial : bool, default False
        Put the sum of no element, 0, in front.

    Returns
    -------
    Tensor
        Summed in a fixed order. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If there is no such axis.
    DTypeError
        If ``x`` is of bool.

    Examples
    --------
    >>> import netcl
    >>> netcl.cumulative_sum(netcl.asarray([1, 2, 3]), include_initial=True).tolist()
    [0, 1, 3, 6]
    """
    place = _checked("cumulative_sum", x, axis)
    lead = flag("include_initial", include_initial)
    x = autocast_up(x)
    target = summed_dtype(x, dtype)
    check_supported(x.backend, target)
    out = _scanned("sum", x, place, target, lead)

    def vjp(g: Any) -> Any:
        return _running_from_end(_slice(g, place, int(lead), x.shape[place]), place, x.dtype)

    if target.kind in "fc":
        tape.record(out, (x, vjp), name="cumulative_sum")
    return out


def _running_from_end(g: A, axis: int, dtype: DType) -> A:
    backwards = flip(g, axis=axis)
    return flip(_scanned("sum", backwards, axis, dtype), axis=axis)


def cumulative_prod(
    x: A, /, *, axis: int | None = None, dtype: DType | str | None = None, include_initial: bool = False
) -> A:
    """Running products along an axis.

    y[i] = Π x[0 … i]

    Parameters
    ----------
    x, axis, dtype
        As in :func:`cumulative_sum`.
    include_initial : bool, default False
        Put the product of no element, 1, in front.

    Examples
    --------
    >>> import netcl
    >>> netcl.cumulative_prod(netcl.asarray([1, 2, 3, 4])).tolist()
    [1, 2, 6, 24]
    """
    place = _checked("cumulative_prod", x, axis)
    lead = flag("include_initial", include_initial)
    x = autocast_up(x)
    target = summed_dtype(x, dtype)
    check_supported(x.backend, target)
    out = _scanned("prod", x, place, target, lead)
    if target.kind in "fc":
        tape.record(out, (x, lambda g: _prod_vjp(x, out, g, place, int(lead))), name="cumulative_prod")
    return out


def _prod_vjp(x: A, y: A, g: A, axis: int, lead: int) -> A:
    # Before the first zero dL/dx = Σ g·y / x over what follows; at it, the same of products that pass over it; behind
    # it, 0, for every product there holds a zero that is not x.
    extent, wide = x.shape[axis], x.dtype.compute
    y, g = _slice(y, axis, lead, extent), _slice(g, axis, lead, extent)
    zeros = _scanned("sum", map_arrays(_one_if_zero, x, dtype=wide), axis, wide)
    passing = _scanned("prod", map_arrays(_one_at_first, x, zeros, dtype=wide), axis, wide)
    ahead = _running_from_end(map_arrays(_times_conj, g, y, dtype=wide), axis, wide)
    across = _running_from_end(map_arrays(_times_conj_from_first, g, passing, zeros, dtype=wide), axis, wide)
    return map_arrays(_prod_derivative, x, zeros, ahead, across, dtype=x.dtype)


def _conj(x: Any) -> Any:
    return ex.apply("conj", x) if x.dtype.kind == "c" else x


def _one_if_zero(x: Any) -> Any:
    return ex.where(ex.equal(x, 0.0), 1.0, 0.0)


def _one_at_first(x: Any, zeros: Any) -> Any:
    return ex.where(ex.equal(x, 0.0) & ex.equal(zeros, 1.0), 1.0, x)


def _times_conj(g: Any, y: Any) -> Any:
    return g * _conj(y)


def _times_conj_from_first(g: Any, y: Any, zeros: Any) -> Any:
    return ex.where(ex.equal(zeros, 0.0), 0.0, g * _conj(y))


def _prod_derivative(x: Any, zeros: Any, ahead: Any, across: Any) -> Any:
    first = ex.equal(zeros, 1.0) & ex.equal(x, 0.0)
    return ex.where(ex.equal(zeros, 0.0), ahead / _conj(x), ex.where(first, across, 0.0))


def diff(x: A, /, *, axis: int = -1, n: int = 1, prepend: A | None = None, append: A | None = None) -> A:
    """Differences of neighbours along an axis.

    y[i] = x[i + 1] - x[i], n times over; of bool whether they differ

    Parameters
    ----------
    x : Tensor
        With at least one axis.
    axis : int, default -1
    n : int, default 1
        How often; 0 gives ``x`` itself, without what stands before and behind it.
    prepend, append : Tensor, optional
        What stands before and behind ``x`` along the axis; it broadcasts to the other axes.

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> import netcl
    >>> netcl.diff(netcl.asarray([1, 4, 9, 16])).tolist()
    [3, 5, 7]
    """
    check_arrays("diff", x)
    place = normalize_axis(axis, x.ndim)
    times = integer("n", n, least=0)
    if times == 0:
        return x
    parts = [_edge("prepend", x, prepend, place), x, _edge("append", x, append, place)]
    given = [part for part in parts if part is not None]
    y = x if len(given) == 1 else concat(given, axis=place)
    for _ in range(min(times, max(y.shape[place], 1))):  # then no element is left
        size = max(y.shape[place] - 1, 0)
        ahead = strided(y, place, min(1, y.shape[place]), size, 1)
        behind = strided(y, place, 0, size, 1)
        y = not_equal(ahead, behind) if y.dtype is bool_ else subtract(ahead, behind)
    return y


def _edge(name: str, x: A, edge: Any, axis: int) -> A | None:
    if edge is None:
        return None
    check_arrays("diff", edge)
    extent = edge.shape[axis - x.ndim] if edge.ndim >= x.ndim - axis else 1
    found: A = broadcast_to(edge, (*x.shape[:axis], extent, *x.shape[axis + 1 :]))
    return found
