"""Sorting along an axis. Stable; NaN comes last in either direction."""

from __future__ import annotations

from netcl import tape
from netcl.dtypes import int64
from netcl.errors import DTypeError
from netcl.functional.dispatch import A, check_arrays
from netcl.functional.indexing import take_along_axis
from netcl.functional.shape import normalize_axis
from netcl.validation import flag

__all__ = ["argsort", "sort"]


def _checked(name: str, x: A, axis: int, descending: bool, stable: bool) -> tuple[int, bool]:
    check_arrays(name, x)
    if x.dtype.kind == "c":
        raise DTypeError(f"{name} does not take arrays of {x.dtype}, which have no order; sort abs(x) or real(x)")
    flag("stable", stable)
    return normalize_axis(axis, x.ndim), flag("descending", descending)


def argsort(x: A, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> A:
    """The positions (int64) that put the elements along an axis in order.

    Parameters
    ----------
    x : Tensor of real numbers or bool
    axis : int, default -1
    descending : bool, default False
        From the largest on; NaN comes last all the same.
    stable : bool, default True
        Equals always keep their order; False promises less and changes nothing.

    Returns
    -------
    Tensor
        Of the shape of ``x``. Enqueues; does not block.

    Raises
    ------
    AxisError
        If there is no such axis.
    DTypeError
        If ``x`` is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.argsort(netcl.asarray([3.0, 1.0, 2.0])).tolist()
    [1, 2, 0]
    """
    place, down = _checked("argsort", x, axis, descending, stable)
    out = x.empty_like(None, int64)
    if out.size:
        x.backend.sort(x.view(), place, None, out.view(), descending=down)
    return out


def sort(x: A, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> A:
    """The elements along an axis in order.

    Parameters
    ----------
    x, axis, descending, stable
        As in :func:`argsort`.

    Returns
    -------
    Tensor
        Of the shape and dtype of ``x``. Enqueues; on a CPU runtime a long axis is sorted in the memory that it shares
        with the host, which **blocks**, unless a tape is recording.

    Raises
    ------
    AxisError
        If there is no such axis.
    DTypeError
        If ``x`` is complex.

    Examples
    --------
    >>> import netcl
    >>> netcl.sort(netcl.asarray([[3, 1, 2], [0, 5, 4]]), descending=True).tolist()
    [[3, 2, 1], [5, 4, 0]]
    """
    place, down = _checked("sort", x, axis, descending, stable)
    if x.dtype.kind == "f" and tape.is_recording():
        return take_along_axis(x, argsort(x, axis=place, descending=down), axis=place)
    out = x.empty_like()
    if out.size:
        x.backend.sort(x.view(), place, out.view(), None, descending=down)
    return out
