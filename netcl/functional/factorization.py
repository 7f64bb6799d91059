"""Factorizations of matrices, through LAPACK by way of NumPy on the host, each with its derivative beside it.

All of them, and their derivatives, **block**: see :mod:`netcl.functional.host_compute`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.errors import TapeError
from netcl.functional.complex_gradients import gradient_of
from netcl.functional.dispatch import A, zeros_for
from netcl.functional.elementwise import add, divide, multiply, subtract
from netcl.functional.host_compute import compute_on_host, real_of
from netcl.functional.joining import concat
from netcl.functional.linalg import product
from netcl.functional.matrices import (
    adjoint,
    check_matrices,
    check_square,
    columns,
    diagonal_view,
    kept,
    on_diagonal,
    products,
    record_each,
    rows,
    triangle,
    twice_hermitian,
    wide,
)
from netcl.validation import flag, one_of

__all__ = ["cholesky", "qr", "svd", "svdvals"]

DIVERGED = "look for NaN, infinities or very large numbers in it"
"""What to do where LAPACK does not converge."""


class QRResult(NamedTuple, Generic[A]):
    """What :func:`qr` returns."""

    Q: A
    R: A


class SVDResult(NamedTuple, Generic[A]):
    """What :func:`svd` returns."""

    U: A
    S: A
    Vh: A


def inverse_on_host(name: str, x: A) -> A:
    """The inverse of each matrix. Not recorded. **Blocks**."""
    remedy = "add to its diagonal, or use pinv, which takes any matrix"
    return compute_on_host(name, np.linalg.inv, [x], [x.dtype], remedy)[0]


# -- Cholesky ---------------------------------------------------------------------------------------------------------


def cholesky(x: A, /, *, upper: bool = False) -> A:
    """The Cholesky factor of each positive definite matrix. **Blocks**.

    x = L · Lᴴ, or Uᴴ · U

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        Symmetric, or Hermitian if it is complex; only the lower triangle is read. 16-bit floats are computed in
        float32.
    upper : bool, default False
        Return U instead of L.

    Returns
    -------
    Tensor of shape (..., n, n)
        Triangular, of the dtype of ``x`` and on its device.

    Raises
    ------
    LinAlgError
        If a matrix is not positive definite.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative needs the inverse of the factor, so it blocks too. It is symmetric, as torch's is.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.cholesky(netcl.asarray([[4.0, 2.0], [2.0, 5.0]])).tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    check_square("cholesky", x)
    upper = flag("upper", upper)
    (out,) = compute_on_host(
        "cholesky", partial(_cholesky, upper), [x], [x.dtype], "add a positive number to its diagonal"
    )

    def vjp(g: A) -> A:
        factor, g = wide(out), wide(g)
        if upper:
            factor, g = adjoint(factor), adjoint(g)
        inverse = inverse_on_host("cholesky", factor)
        middle = triangle(product(adjoint(factor), g), lower=True, halved=True)
        return gradient_of(x, multiply(twice_hermitian(products(adjoint(inverse), middle, inverse)), 0.5))

    tape.record(out, (x, vjp), name="cholesky")
    return out


def _cholesky(upper: bool, x: NDArray[Any]) -> NDArray[Any]:
    lower = np.linalg.cholesky(x)
    return np.conj(np.swapaxes(lower, -1, -2)) if upper else lower


# -- QR ---------------------------------------------------------------------------------------------------------------


def qr(x: A, /, *, mode: str = "reduced") -> QRResult[A]:
    """An orthonormal basis of the columns of each matrix, and their coordinates in it. **Blocks**.

    x = Q · R

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        16-bit floats are computed in float32.
    mode : {"reduced", "complete"}, default "reduced"
        "reduced" gives Q of shape (..., m, k) and R of shape (..., k, n), with k = min(m, n); "complete" (..., m, m)
        and (..., m, n).

    Returns
    -------
    QRResult
        A named tuple of ``Q``, whose columns are orthonormal, and ``R``, which is upper triangular. As in LAPACK, the
        diagonal of R may be negative.

    Raises
    ------
    ArgumentError
        For any other ``mode``.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    Derivatives exist where the first k columns are independent, and for "complete" where m ≤ n: the rest of a basis is
    arbitrary. They block too.

    Examples
    --------
    >>> import netcl
    >>> q, r = netcl.linalg.qr(netcl.asarray([[0.0, 2.0], [3.0, 4.0]]))
    >>> netcl.round(q @ r).tolist()
    [[0.0, 2.0], [3.0, 4.0]]
    """
    check_matrices("qr", x)
    one_of("mode", mode, ("reduced", "complete"))
    q, r = compute_on_host("qr", partial(_qr, mode), [x], [x.dtype] * 2, DIVERGED)
    extra = q.shape[-1] > r.shape[-1]

    def from_q(g: A) -> A:
        _refuse_arbitrary(extra, "qr", 'the last columns of Q; use mode="reduced"')
        return gradient_of(x, _qr_vjp(x, wide(q), wide(r), wide(g), None))

    def from_r(g: A) -> A:
        return gradient_of(x, _qr_vjp(x, wide(thin_q), wide(thin_r), None, wide(viewed_rows(g))))

    count = min(x.shape[-2:])

    def viewed_rows(y: A) -> A:
        return y.restride((*y.shape[:-2], min(count, y.shape[-2]), y.shape[-1]), y.strides, y.offset)

    thin_q, thin_r = q.restride((*q.shape[:-1], count), q.strides, q.offset), viewed_rows(r)
    record_each(x, (q, r), (from_q, from_r), "qr")
    return QRResult(q, r)


def _qr(mode: Any, x: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(np.linalg.qr(x, mode=mode))


def _refuse_arbitrary(arbitrary: bool, name: str, what: str) -> None:
    if arbitrary:
        raise TapeError(f"{name} has no derivative along {what}: any other orthonormal vectors would do as well")


def _qr_vjp(x: A, q: A, r: A, g_q: A | None, g_r: A | None) -> A:
    count, total = r.shape[-2:]
    if total == count:
        return _tall_qr_vjp(q, r, g_q, g_r)
    # The first columns alone decide Q; the others are Q · R₂, so they pass on what arrives at R₂.
    head, _ = _split_columns(r, count)
    if g_r is None:
        first = _tall_qr_vjp(q, head, g_q, None)
        return _joined(first, zeros_for(wide(_split_columns(x, count)[1])))
    g_head, g_tail = _split_columns(g_r, count)
    through = product(wide(_split_columns(x, count)[1]), adjoint(g_tail))
    first = _tall_qr_vjp(q, head, through if g_q is None else add(g_q, through), g_head)
    return _joined(first, product(q, g_tail))


def _split_columns(x: A, count: int) -> tuple[A, A]:
    rest = (*x.shape[:-1], x.shape[-1] - count)
    return (
        x.restride((*x.shape[:-1], count), x.strides, x.offset),
        x.restride(rest, x.strides, x.offset + count * x.strides[-1]),
    )


def _joined(left: A, right: A) -> A:
    return concat([left, right], axis=-1)


def _tall_qr_vjp(q: A, r: A, g_q: A | None, g_r: A | None) -> A:
    """(gQ + Q · sym(triu(gR Rᴴ - Qᴴ gQ))) R⁻ᴴ, sym(M) = M + Mᴴ with the real part of the diagonal of M."""
    middle = zeros_for(r) if g_r is None else product(g_r, adjoint(r))
    if g_q is not None:
        middle = subtract(middle, product(adjoint(q), g_q))
    inner = product(q, twice_hermitian(triangle(middle, lower=False, halved=True)))
    whole: A = inner if g_q is None else add(inner, g_q)
    return product(whole, adjoint(inverse_on_host("the derivative of qr", r)))


# -- singular values --------------------------------------------------------------------------------------------------


def svd(x: A, /, *, full_matrices: bool = True) -> SVDResult[A]:
    """The singular value decomposition of each matrix. **Blocks**.

    x = U · diag(S) · Vh

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        16-bit floats are computed in float32.
    full_matrices : bool, default True
        Give U of shape (..., m, m) and Vh of shape (..., n, n); with False (..., m, k) and (..., k, n), where
        k = min(m, n).

    Returns
    -------
    SVDResult
        A named tuple of ``U``, ``S`` (real, of shape (..., k), falling) and ``Vh``.

    Raises
    ------
    LinAlgError
        If it does not converge.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    S is differentiable wherever its values differ from each other and from 0. U and Vh are as well, up to signs (or
    phases) that a loss must not depend on, and without the columns and rows that ``full_matrices`` adds to them.
    Derivatives do not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.svd(netcl.asarray([[3.0, 0.0], [0.0, 4.0]])).S.tolist()
    [4.0, 3.0]
    """
    check_matrices("svd", x)
    full = flag("full_matrices", full_matrices)
    u, s, vh = compute_on_host(
        "svd", lambda a: tuple(np.linalg.svd(a, full_matrices=full)), [x], [x.dtype, real_of(x.dtype), x.dtype],
        DIVERGED,
    )  # fmt: skip
    count = min(x.shape[-2:])
    more_u, more_v = u.shape[-1] > count, vh.shape[-2] > count
    thin_u = u.restride((*u.shape[:-1], count), u.strides, u.offset)
    thin_v = vh.restride((*vh.shape[:-2], count, vh.shape[-1]), vh.strides, vh.offset)
    remedy = "; pass full_matrices=False"

    def from_u(g: A) -> A:
        _refuse_arbitrary(more_u, "svd", f"the last columns of U{remedy}")
        return gradient_of(x, _left_vectors_vjp(wide(thin_u), wide(s), wide(thin_v), wide(g)))

    def from_s(g: A) -> A:
        return gradient_of(x, product(multiply(wide(thin_u), rows(wide(g))), wide(thin_v)))

    def from_vh(g: A) -> A:
        _refuse_arbitrary(more_v, "svd", f"the last rows of Vh{remedy}")
        left, right = adjoint(wide(thin_v)), adjoint(wide(thin_u))  # the decomposition of xᴴ
        return gradient_of(x, adjoint(_left_vectors_vjp(left, wide(s), right, adjoint(wide(g)), phases=False)))

    record_each(x, (u, s, vh), (from_u, from_s, from_vh), "svd")
    return SVDResult(u, s, vh)


def _left_vectors_vjp(u: A, s: A, vh: A, g: A, *, phases: bool = True) -> A:
    """U ((Uᴴg - gᴴU) / E) S Vh + (1 - U Uᴴ) g S⁻¹ Vh, E[i, j] = S[j]² - S[i]², with 1 on the diagonal.

    Of complex arrays also U diag(i · Im(Uᴴg) / S) Vh, once for U and Vh together.
    """
    count = s.shape[-1]
    inner = product(adjoint(u), g)
    squares = multiply(s, s)
    gaps = kept(subtract(rows(squares), columns(squares)), ~np.eye(count, dtype=bool), 1.0)
    skew = subtract(inner, adjoint(inner))
    turned = multiply(divide(kept(skew, ~np.eye(count, dtype=bool)), gaps), rows(s))
    if phases and u.dtype.kind == "c":
        phase = divide(multiply(diagonal_view(skew), 0.5), s)
        turned = add(turned, on_diagonal(phase, turned.shape))
    within: A = products(u, turned, vh)
    if u.shape[-2] == count:
        return within
    out: A = add(within, product(divide(subtract(g, product(u, inner)), rows(s)), vh))
    return out


def svdvals(x: A, /) -> A:
    """The singular values of each matrix, falling. **Blocks**.

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        16-bit floats are computed in float32.

    Returns
    -------
    Tensor of shape (..., min(m, n))
        Real.

    Raises
    ------
    LinAlgError
        If it does not converge.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative needs the singular vectors, so it blocks too.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.svdvals(netcl.asarray([[3.0, 0.0], [0.0, 4.0]])).tolist()
    [4.0, 3.0]
    """
    check_matrices("svdvals", x)
    (out,) = compute_on_host("svdvals", lambda a: np.linalg.svd(a, compute_uv=False), [x], [real_of(x.dtype)], DIVERGED)

    def vjp(g: A) -> A:
        wanted = wide(x)
        u, _, vh = compute_on_host(
            "svdvals", lambda a: tuple(np.linalg.svd(a, full_matrices=False)), [wanted],
            [wanted.dtype, real_of(wanted.dtype), wanted.dtype], DIVERGED,
        )  # fmt: skip
        return gradient_of(x, product(multiply(u, rows(wide(g))), vh))

    tape.record(out, (x, vjp), name="svdvals")
    return out
