"""The parts and the conjugate of complex numbers, with their derivatives.

The gradient of a real number L with respect to a complex z = x + yj is ∂L/∂x + j ∂L/∂y, as in torch: a step against it
makes L smaller.
"""

from __future__ import annotations

from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.errors import DTypeError
from netcl.functional.dispatch import A, check_arrays, identity, map_arrays, sum_to_shape

__all__ = ["conj", "imag", "real"]


def _check(name: str, x: Any) -> None:
    check_arrays(name, x)
    if x.dtype.kind == "b":
        raise DTypeError(f"{name} takes numeric operands, got an array of {x.dtype}; convert it with astype() first")


def real(x: A, /) -> A:
    """The real part of each element; a copy of an array that is real.

    Parameters
    ----------
    x : Tensor

    Returns
    -------
    Tensor
        float32 for complex64, float64 for complex128. Enqueues; does not block.

    Raises
    ------
    DTypeError
        If ``x`` is boolean.

    Examples
    --------
    >>> import netcl
    >>> netcl.real(netcl.asarray([1 + 2j, 3j])).tolist()
    [1.0, 0.0]
    """
    _check("real", x)
    out: A = map_arrays(ex.real, x)
    if x.dtype.kind in "fc":
        tape.record(out, (x, tape.VJPWithOut(lambda g, into: sum_to_shape(x, identity, g, out=into))), name="real")
    return out


def imag(x: A, /) -> A:
    """The imaginary part of each element; zeros for an array that is real.

    Parameters
    ----------
    x : Tensor

    Returns
    -------
    Tensor
        float32 for complex64, float64 for complex128. Enqueues; does not block.

    Raises
    ------
    DTypeError
        If ``x`` is boolean.

    Examples
    --------
    >>> import netcl
    >>> netcl.imag(netcl.asarray([1 + 2j, 3j])).tolist()
    [2.0, 3.0]
    """
    _check("imag", x)
    out: A = map_arrays(ex.imag, x)
    if x.dtype.kind in "fc":
        tape.record(out, (x, tape.VJPWithOut(lambda g, into: sum_to_shape(x, _along_imag, g, out=into))), name="imag")
    return out


def _along_imag(g: Any) -> Any:
    return ex.apply("complex", 0.0, g)


def conj(x: A, /) -> A:
    """The complex conjugate of each element; a copy of an array that is real.

    Parameters
    ----------
    x : Tensor

    Returns
    -------
    Tensor
        Of the dtype of ``x``. Enqueues; does not block.

    Raises
    ------
    DTypeError
        If ``x`` is boolean.

    Examples
    --------
    >>> import netcl
    >>> netcl.conj(netcl.asarray([1 + 2j, 3j])).tolist()
    [(1-2j), -3j]
    """
    _check("conj", x)
    out: A = map_arrays(ex.conj, x)
    if x.dtype.kind in "fc":
        tape.record(out, (x, tape.VJPWithOut(lambda g, into: sum_to_shape(x, ex.conj, g, out=into))), name="conj")
    return out


def conjugated(x: A) -> A:
    """The conjugate of ``x``, which is ``x`` itself where that is real. Not recorded."""
    return map_arrays(ex.conj, x) if x.dtype.kind == "c" else x
