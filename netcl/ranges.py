"""New Tensors of evenly spaced numbers. None of these functions blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.creation import backend_for, number_of
from netcl.dtypes import DEFAULT_COMPLEX, DEFAULT_FLOAT, DEFAULT_INT, DType, as_dtype, int64, uint64
from netcl.errors import ArgumentError
from netcl.functional import host
from netcl.functional.dispatch import INTEGER_RANGE, out_of_range
from netcl.tensor import Tensor
from netcl.validation import extent, extents, flag, real

__all__ = ["arange", "linspace"]


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
) -> Tensor:
    """Evenly spaced numbers from ``start`` up to but without ``stop``.

    A number in a 0-dimensional Tensor is read, which **blocks**; no gradient goes to it.

    Parameters
    ----------
    start : int or float
        The first number, or the end if ``stop`` is left out (then they start at 0).
    stop : int or float, optional
    step : int or float, default 1
    dtype : DType or str, optional
        By default int64 if all three are ints, else float32.
    device, backend
        As in :func:`asarray`.

    Raises
    ------
    ArgumentError
        If ``step`` is 0, or a number is not finite.
    RangeError
        If the dtype cannot hold an element.

    Examples
    --------
    >>> import netcl
    >>> netcl.arange(1, 7, 2).tolist()
    [1, 3, 5]
    """
    first, last = (0, start) if stop is None else (start, stop)
    first, last, step = _bound("start", first), _bound("stop", last), _bound("step", step)
    if step == 0:
        raise ArgumentError("the step of arange must not be 0")
    whole = isinstance(first, int) and isinstance(last, int) and isinstance(step, int)
    kind = as_dtype(dtype) if dtype is not None else DEFAULT_INT if whole else DEFAULT_FLOAT
    place = backend_for(device, backend)
    if whole:
        count = max(-((first - last) // step), 0)
    else:
        ratio = (float(last) - float(first)) / float(step)
        if not math.isfinite(ratio):
            raise ArgumentError(f"arange from {first} to {last} in steps of {step} has no number of elements")
        count = max(math.ceil(ratio), 0)
    (count,) = extents("the size of arange", (count,))
    places = host.made_on_host(np.arange, count)
    if not whole:
        values: NDArray[Any] = np.float64(first) + places * np.float64(step)
    else:
        values = _whole_numbers(int(first), int(step), places)
    return host.from_host(Tensor, values, place, kind)


def _bound(name: str, value: Any) -> int | float:
    found: int | float = number_of(name, value)
    real(name, found)
    return found


def _whole_numbers(first: int, step: int, places: NDArray[np.int64]) -> NDArray[Any]:
    """first + step · places as int64 or uint64, whichever holds all of them."""
    ends = (first, first + step * max(len(places) - 1, 0))
    for dtype in (int64, uint64):
        low, high = INTEGER_RANGE[dtype.name]
        if low <= min(ends) and max(ends) <= high:
            unsigned = np.uint64(first % 2**64) + places.astype(np.uint64) * np.uint64(step % 2**64)
            return unsigned.view(dtype.name)  # modulo 2**64, where what cannot be held meanwhile does no harm
    # int64 is what was meant, unless only uint64 reaches that far.
    low, high = INTEGER_RANGE["int64"]
    if min(ends) < low or max(ends) < 2**64:
        raise out_of_range(min(ends) if min(ends) < low else max(ends), int64)
    raise out_of_range(max(ends), uint64)


def _end(name: str, value: Any) -> float | complex:
    found = number_of(name, value)
    return found if isinstance(found, complex) else float(_bound(name, found))


def linspace(
    start: complex,
    stop: complex,
    /,
    num: int,
    *,
    dtype: DType | str | None = None,
    device: object = None,
    backend: str | None = None,
    endpoint: bool = True,
) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``.

    A number in a 0-dimensional Tensor is read, which **blocks**; no gradient goes to it.

    Parameters
    ----------
    start, stop : float or complex
    num : int
    dtype : DType or str, default float32, or complex64 where an end is complex
    device, backend
        As in :func:`asarray`.
    endpoint : bool, default True
        Whether ``stop`` is among them.

    Examples
    --------
    >>> import netcl
    >>> netcl.linspace(0.0, 1.0, 5).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    first, last = _end("start", start), _end("stop", stop)
    own = DEFAULT_COMPLEX if isinstance(first, complex) or isinstance(last, complex) else DEFAULT_FLOAT
    kind = own if dtype is None else as_dtype(dtype)
    place = backend_for(device, backend)
    count = extent("num", num)
    values = host.made_on_host(np.linspace, first, last, count, endpoint=flag("endpoint", endpoint))
    return host.from_host(Tensor, values, place, kind)
