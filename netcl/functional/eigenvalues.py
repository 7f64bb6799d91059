"""Eigenvalues and eigenvectors, through LAPACK by way of NumPy on the host, with their derivatives.

All of them **block**: see :mod:`netcl.functional.host_compute`.
"""

from __future__ import annotations

from typing import Generic, NamedTuple

import numpy as np

from netcl import tape
from netcl.functional.complex_gradients import gradient_of, real_part
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import A
from netcl.functional.elementwise import divide, multiply, subtract
from netcl.functional.factorization import DIVERGED, inverse_on_host
from netcl.functional.host_compute import complex_of, compute_on_host, real_of
from netcl.functional.linalg import product
from netcl.functional.matrices import (
    adjoint,
    check_square,
    columns,
    diagonal_view,
    kept,
    on_diagonal,
    products,
    record_each,
    rows,
    wide,
)

__all__ = ["eig", "eigh", "eigvals", "eigvalsh"]


class EigResult(NamedTuple, Generic[A]):
    """What :func:`eig` returns."""

    eigenvalues: A
    eigenvectors: A


class EighResult(NamedTuple, Generic[A]):
    """What :func:`eigh` returns."""

    eigenvalues: A
    eigenvectors: A


def eigh(x: A, /) -> EighResult[A]:
    """The eigenvalues and eigenvectors of each symmetric or Hermitian matrix. **Blocks**.

    x = V · diag(w) · Vᴴ

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        Only the lower triangle is read. 16-bit floats are computed in float32.

    Returns
    -------
    EighResult
        A named tuple of ``eigenvalues``, real, of shape (..., n), rising, and ``eigenvectors``, the columns of matrices
        of shape (..., n, n).

    Raises
    ------
    LinAlgError
        If it does not converge.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    Derivatives take ``x`` for symmetric, and do not block. Those of eigenvectors exist where eigenvalues differ, up to
    signs (or phases) that a loss must not depend on.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.eigh(netcl.asarray([[2.0, 0.0], [0.0, 1.0]])).eigenvalues.tolist()
    [1.0, 2.0]
    """
    check_square("eigh", x)
    w, v = compute_on_host("eigh", lambda a: tuple(np.linalg.eigh(a)), [x], [real_of(x.dtype), x.dtype], DIVERGED)

    def from_values(g: A) -> A:
        return gradient_of(x, _eigenvalues_vjp(wide(v), wide(g)))

    def from_vectors(g: A) -> A:
        basis, values = wide(v), wide(w)
        gaps = subtract(rows(values), columns(values))
        apart = ~np.eye(values.shape[-1], dtype=bool)
        inner = product(adjoint(basis), wide(g))
        skew = multiply(subtract(inner, adjoint(inner)), 0.5)  # the rest would leave the symmetric matrices
        inner = divide(kept(skew, apart), kept(gaps, apart, 1.0))
        return gradient_of(x, products(basis, inner, adjoint(basis)))

    record_each(x, (w, v), (from_values, from_vectors), "eigh")
    return EighResult(w, v)


def _eigenvalues_vjp(v: A, g: A) -> A:
    scaled: A = multiply(v, rows(g))
    return product(scaled, adjoint(v))


def eigvalsh(x: A, /) -> A:
    """The eigenvalues of each symmetric or Hermitian matrix, rising. **Blocks**.

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        Only the lower triangle is read. 16-bit floats are computed in float32.

    Returns
    -------
    Tensor of shape (..., n)
        Real.

    Raises
    ------
    LinAlgError
        If it does not converge.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative needs the eigenvectors, so it blocks too. It takes ``x`` for symmetric.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.eigvalsh(netcl.asarray([[2.0, 0.0], [0.0, 1.0]])).tolist()
    [1.0, 2.0]
    """
    check_square("eigvalsh", x)
    (out,) = compute_on_host("eigvalsh", np.linalg.eigvalsh, [x], [real_of(x.dtype)], DIVERGED)

    def vjp(g: A) -> A:
        wanted = wide(x)
        (v,) = compute_on_host("eigvalsh", lambda a: np.linalg.eigh(a)[1], [wanted], [wanted.dtype], DIVERGED)
        return gradient_of(x, _eigenvalues_vjp(v, wide(g)))

    tape.record(out, (x, vjp), name="eigvalsh")
    return out


def eig(x: A, /) -> EigResult[A]:
    """The eigenvalues and eigenvectors of each square matrix. **Blocks**.

    x · V = V · diag(w)

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        Real or complex, of any structure; :func:`eigh` is better for symmetric ones.

    Returns
    -------
    EigResult
        A named tuple of ``eigenvalues``, of shape (..., n), and ``eigenvectors``, the columns of matrices of shape
        (..., n, n), of length 1. Both are complex, whatever ``x`` is.

    Raises
    ------
    LinAlgError
        If it does not converge.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating, or the device does not compute in complex numbers.

    Notes
    -----
    Derivatives exist where eigenvalues differ, those of eigenvectors up to phases that a loss must not depend on. They
    block too.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.eig(netcl.asarray([[0.0, 1.0], [-1.0, 0.0]])).eigenvalues.tolist()
    [1j, -1j]
    """
    check_square("eig", x)
    dtype = complex_of(x.dtype)
    w, v = compute_on_host("eig", lambda a: tuple(np.linalg.eig(a)), [x], [dtype, dtype], DIVERGED)

    def from_values(g: A) -> A:
        return gradient_of(x, _general_vjp(v, on_diagonal(g, v.shape)))

    def from_vectors(g: A) -> A:
        inner = product(adjoint(v), g)
        lengths = real_part(diagonal_view(inner))
        inner = subtract(inner, product(adjoint(v), multiply(v, rows(lengths))))
        apart = ~np.eye(w.shape[-1], dtype=bool)
        gaps = kept(conjugated(subtract(rows(w), columns(w))), apart, 1.0)
        return gradient_of(x, _general_vjp(v, divide(kept(inner, apart), gaps)))

    record_each(x, (w, v), (from_values, from_vectors), "eig")
    return EigResult(w, v)


def _general_vjp(v: A, inner: A) -> A:
    """V⁻ᴴ · inner · Vᴴ."""
    return products(adjoint(inverse_on_host("the derivative of eig", v)), inner, adjoint(v))


def eigvals(x: A, /) -> A:
    """The eigenvalues of each square matrix. **Blocks**.

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        Real or complex, of any structure; :func:`eigvalsh` is better for symmetric ones.

    Returns
    -------
    Tensor of shape (..., n)
        Complex, whatever ``x`` is.

    Raises
    ------
    LinAlgError
        If it does not converge.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating, or the device does not compute in complex numbers.

    Notes
    -----
    The derivative needs the eigenvectors, so it blocks too.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.eigvals(netcl.asarray([[0.0, 1.0], [-1.0, 0.0]])).tolist()
    [1j, -1j]
    """
    check_square("eigvals", x)
    dtype = complex_of(x.dtype)
    (out,) = compute_on_host("eigvals", np.linalg.eigvals, [x], [dtype], DIVERGED)

    def vjp(g: A) -> A:
        (v,) = compute_on_host("eigvals", lambda a: np.linalg.eig(a)[1], [x], [dtype], DIVERGED)
        return gradient_of(x, _general_vjp(v, on_diagonal(g, v.shape)))

    tape.record(out, (x, vjp), name="eigvals")
    return out
