"""Elementwise operations of three operands, with their derivatives: a choice between two, and an interval."""

from __future__ import annotations

from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import promote, promote_scalar
from netcl.errors import DTypeError
from netcl.functional.dispatch import (
    A,
    Derivative,
    Function,
    Operand,
    check_arrays,
    map_arrays,
    record_elementwise,
    sum_to_shape,
)
from netcl.functional.elementwise import as_stored, check_kind, positive
from netcl.validation import shown

__all__ = ["clip", "where"]

_WHERE = (None, Derivative(lambda g, x1: ex.where(x1, g, 0.0)), Derivative(lambda g, x1: ex.where(x1, 0.0, g)))


def where(condition: A, x1: Operand, x2: Operand, /) -> A:
    """Take elements of ``x1`` where ``condition`` holds, else of ``x2``.

    Parameters
    ----------
    condition : Tensor of bool
    x1, x2 : Tensor or Python number
        The three broadcast. Gradients of what is not taken are 0.

    Raises
    ------
    DTypeError
        If the condition is not boolean.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([-1.0, 2.0])
    >>> netcl.where(x > 0, x, 0.0).tolist()
    [0.0, 2.0]
    """
    if not isinstance(condition, Array) or condition.dtype.kind != "b":
        got = condition.dtype if isinstance(condition, Array) else shown(condition)
        raise DTypeError(f"where takes a condition of bool, got {got}; compare it with 0 first")
    x1, x2 = as_stored(x1, x2), as_stored(x2, x1)
    out = map_arrays(ex.where, condition, x1, x2)
    record_elementwise(out, (condition, x1, x2), _WHERE, "where")
    return out


def _clip_both(x: Any, low: Any, high: Any) -> Any:
    return ex.minimum(ex.maximum(x, low), high)


_CLIP: dict[tuple[bool, bool], tuple[Function, Function]] = {
    (True, True): (_clip_both, lambda g, x, low, high: ex.where((x < low) | (x > high), 0.0, g)),
    (True, False): (ex.maximum, lambda g, x, low: ex.where(x < low, 0.0, g)),
    (False, True): (ex.minimum, lambda g, x, high: ex.where(x > high, 0.0, g)),
}


def clip(x: A, /, min: Operand | None = None, max: Operand | None = None) -> A:
    """Limit each element to an interval.

    y = minimum(maximum(x, min), max), of the dtype of x

    Parameters
    ----------
    x : Tensor
    min, max : Tensor, Python number or None
        The ends, which broadcast with ``x``; ``None`` leaves that side open. Gradients reach ``x`` alone.

    Raises
    ------
    DTypeError
        If an end would widen ``x``.

    Examples
    --------
    >>> import netcl
    >>> netcl.clip(netcl.asarray([-3.0, 0.5, 3.0]), -1.0, 1.0).tolist()
    [-1.0, 0.5, 1.0]
    """
    check_arrays("clip", x)
    for operand in (x, min, max):
        if operand is not None:
            check_kind("clip", operand, "real")
    ends = [end for end in (min, max) if end is not None]
    if not ends:
        return positive(x)
    for end in ends:
        needed = promote(x.dtype, end.dtype) if isinstance(end, Array) else promote_scalar(x.dtype, end)
        if needed is not x.dtype:
            raise DTypeError(f"clip keeps the dtype of x, {x.dtype}, but an end needs {needed}; cast x with astype()")
    ends = [as_stored(end, x) for end in ends]
    forward, derivative = _CLIP[min is not None, max is not None]
    out = map_arrays(forward, x, *ends, dtype=x.dtype)
    tape.record(out, (x, lambda g: sum_to_shape(x, derivative, g, x, *ends)), name="clip")
    return out
