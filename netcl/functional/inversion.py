"""Linear systems, inverses and determinants, through LAPACK by way of NumPy on the host, with their derivatives.

What is computed there **blocks**: see :mod:`netcl.functional.host_compute`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.array import Array
from netcl.dtypes import DType, bfloat16, int64, promote
from netcl.errors import DTypeError, ShapeError
from netcl.functional.complex_gradients import gradient_of
from netcl.functional.complex_parts import conjugated
from netcl.functional.dispatch import A, check_arrays, common_backend
from netcl.functional.elementwise import add, multiply, negative, positive, subtract
from netcl.functional.factorization import inverse_on_host
from netcl.functional.host_compute import check_floating, compute_on_host, real_of
from netcl.functional.linalg import matched, matmul, product
from netcl.functional.matrices import adjoint, check_matrices, check_square, columns, identity_like, products, wide
from netcl.functional.shape import view_or_copy
from netcl.host_dtypes import STORAGE
from netcl.strides import broadcast_shapes
from netcl.validation import integer, real

__all__ = ["det", "inv", "matrix_power", "matrix_rank", "pinv", "slogdet", "solve"]

_UNSOUND = "look for NaN or infinities in it"

Tolerance: TypeAlias = "float | Array | None"


class SlogdetResult(NamedTuple, Generic[A]):
    """What :func:`slogdet` returns."""

    sign: A
    logabsdet: A


def inv(x: A, /) -> A:
    """The inverse of each square matrix. **Blocks**.

    y · x = x · y = 1

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        16-bit floats are computed in float32.

    Returns
    -------
    Tensor of shape (..., n, n)
        On the device of ``x``.

    Raises
    ------
    LinAlgError
        If a matrix is singular.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative does not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.inv(netcl.asarray([[2.0, 0.0], [0.0, 4.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    check_square("inv", x)
    out = inverse_on_host("inv", x)

    def vjp(g: A) -> A:
        other = adjoint(wide(out))
        return gradient_of(x, negative(products(other, wide(g), other)))

    tape.record(out, (x, vjp), name="inv")
    return out


def solve(x1: A, x2: A, /) -> A:
    """The solution of each system of linear equations. **Blocks**.

    x1 · y = x2

    Parameters
    ----------
    x1 : Tensor of shape (..., n, n)
        The coefficients. 16-bit floats are computed in float32.
    x2 : Tensor of shape (n,) or (..., n, k)
        One vector, or matrices of k columns; their leading axes broadcast with those of ``x1``.

    Returns
    -------
    Tensor of shape (..., n) or (..., n, k)
        Of the promoted dtype.

    Raises
    ------
    LinAlgError
        If a matrix is singular.
    ShapeError
        If the shapes do not fit.
    DTypeError
        If an operand is not floating.
    DeviceMismatchError
        If the operands are on different devices.

    Notes
    -----
    The derivative solves another system, and blocks too.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.solve(netcl.asarray([[2.0, 0.0], [0.0, 4.0]]), netcl.asarray([2.0, 2.0])).tolist()
    [1.0, 0.5]
    """
    check_square("solve", x1)
    check_arrays("solve", x2)
    check_floating("solve", x2)
    if x2.ndim == 0 or x2.shape[-1 if x2.ndim == 1 else -2] != x1.shape[-1]:
        raise ShapeError(
            f"solve of shapes {x1.shape} and {x2.shape}: the right-hand side must be a vector of {x1.shape[-1]} "
            f"elements or matrices of {x1.shape[-1]} rows"
        )
    common_backend([x1, x2])
    dtype = promote(x1.dtype, x2.dtype)
    right = columns(x2) if x2.ndim == 1 else x2
    batch = broadcast_shapes(x1.shape[:-2], right.shape[:-2])
    whole = _solved(x1, right, dtype)
    out = view_or_copy(whole, whole.shape[:-1]) if x2.ndim == 1 else whole

    def backward(g: A) -> A:
        return _solved(adjoint(wide(x1)), view_or_copy(wide(g), (*batch, *right.shape[-2:])), dtype.compute)

    def to_left(g: A) -> A:
        return gradient_of(x1, matched(x1, negative(product(backward(g), adjoint(wide(whole))))))

    def to_right(g: A) -> A:
        return view_or_copy(gradient_of(x2, matched(right, backward(g))), x2.shape)

    tape.record(out, (x1, to_left), (x2, to_right), name="solve")
    return out


def _solved(a: A, b: A, dtype: DType) -> A:
    return compute_on_host("solve", np.linalg.solve, [a, b], [dtype], "use pinv(x1) @ x2, which takes any matrix")[0]


def det(x: A, /) -> A:
    """The determinant of each square matrix. **Blocks**.

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        16-bit floats are computed in float32.

    Returns
    -------
    Tensor of shape (...)

    Raises
    ------
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative is the cofactors', so it is right for singular matrices too. It blocks.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.det(netcl.asarray([[2.0, 0.0], [0.0, 4.0]])).item()
    8.0
    """
    check_square("det", x)
    (out,) = compute_on_host("det", np.linalg.det, [x], [x.dtype])

    def vjp(g: A) -> A:
        (cofactors,) = compute_on_host("det", _cofactors, [x], [x.dtype.compute], "the derivative of det needs an svd")
        return gradient_of(x, multiply(cofactors, columns(columns(wide(g)))))

    tape.record(out, (x, vjp), name="det")
    return out


def _cofactors(x: NDArray[Any]) -> NDArray[Any]:
    """The conjugate of the determinant's derivative: of U S Vh it is conj(det U · det Vh) · U · (Π of other S) · Vh."""
    if x.shape[-1] == 0:
        return np.zeros_like(x)
    finite = np.isfinite(x).all(axis=(-2, -1), keepdims=True)
    u, s, vh = np.linalg.svd(np.where(finite, x, 0))
    others = np.stack([np.prod(np.delete(s, i, axis=-1), axis=-1) for i in range(s.shape[-1])], axis=-1)
    sign = np.conj(np.linalg.det(u) * np.linalg.det(vh))
    return np.where(finite, sign[..., None, None] * ((u * others[..., None, :]) @ vh), np.nan)


def slogdet(x: A, /) -> SlogdetResult[A]:
    """The sign and the logarithm of the absolute value of the determinant of each square matrix. **Blocks**.

    det(x) = sign · exp(logabsdet)

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
        16-bit floats are computed in float32.

    Returns
    -------
    SlogdetResult
        A named tuple of ``sign``, which is 0, 1 or -1, of complex matrices a number of magnitude 1; and of
        ``logabsdet``, which is real, and -inf for singular matrices.

    Raises
    ------
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Notes
    -----
    The derivative needs the inverse, and blocks too. For singular matrices it is NaN.

    Examples
    --------
    >>> import netcl
    >>> sign, logabsdet = netcl.linalg.slogdet(netcl.asarray([[-1.0, 0.0], [0.0, 1.0]]))
    >>> sign.item(), logabsdet.item()
    (-1.0, 0.0)
    """
    check_square("slogdet", x)
    sign, logabsdet = compute_on_host(
        "slogdet", lambda a: tuple(np.linalg.slogdet(a)), [x], [x.dtype, real_of(x.dtype)]
    )

    def scaled(factor: Any) -> A:
        (inverse,) = compute_on_host("slogdet", _inverse_or_nan, [x], [x.dtype.compute])
        return gradient_of(x, multiply(adjoint(inverse), columns(columns(factor))))

    def from_sign(g: A) -> A:
        if g.dtype.kind != "c":
            return scaled(multiply(wide(g), 0.0))
        turned = multiply(conjugated(g), sign)  # its imaginary part is what a change of the phase does
        return scaled(multiply(subtract(conjugated(turned), turned), 0.5))

    record_pair = ((sign, from_sign), (logabsdet, lambda g: scaled(wide(g))))
    for out, vjp in record_pair:
        tape.record(out, (x, vjp), name="slogdet")
    return SlogdetResult(sign, logabsdet)


def _inverse_or_nan(x: NDArray[Any]) -> NDArray[Any]:
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError:
        if x.ndim == 2:
            return np.full_like(x, np.nan)
        return np.stack([_inverse_or_nan(each) for each in x])


def pinv(x: A, /, *, rtol: Tolerance = None) -> A:
    """The Moore-Penrose inverse of each matrix. **Blocks**.

    y · x · y = y, x · y · x = x, and both products are Hermitian

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        16-bit floats are computed in float32.
    rtol : float or Tensor, optional
        Singular values of at most ``rtol`` times the largest count as 0. A Tensor has one for each matrix and
        broadcasts with the leading axes of ``x``. By default max(m, n) times the distance from 1 to the next number of
        the dtype.

    Returns
    -------
    Tensor of shape (..., n, m)

    Raises
    ------
    LinAlgError
        If the singular value decomposition does not converge.
    DTypeError
        If ``x`` is not floating.
    ArgumentError
        If ``rtol`` is negative or not finite.

    Notes
    -----
    The derivative takes the rank for constant, and does not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.pinv(netcl.asarray([[2.0, 0.0], [0.0, 0.0]])).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    check_matrices("pinv", x)
    tolerance = _tolerances("pinv", x, rtol)
    if isinstance(tolerance, float):
        (out,) = compute_on_host("pinv", partial(_pinv, rtol=tolerance), [x], [x.dtype], _UNSOUND)
    else:
        (out,) = compute_on_host("pinv", _pinv, [x, tolerance], [x.dtype], _UNSOUND)

    def vjp(g: A) -> A:
        a, p = wide(x), wide(out)
        against, pt = adjoint(wide(g)), adjoint(p)
        first = negative(products(pt, wide(g), pt))
        second = products(against, p, pt)
        second = subtract(second, products(a, p, second))
        third = products(pt, p, against)
        third = subtract(third, products(third, p, a))
        return gradient_of(x, add(add(first, second), third))

    tape.record(out, (x, vjp), name="pinv")
    return out


def _pinv(x: NDArray[Any], rtol: Any) -> NDArray[Any]:
    if x.size == 0:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    return np.linalg.pinv(x, np.broadcast_to(rtol, x.shape[:-2]))


def _epsilon(dtype: DType) -> float:
    return 2.0**-7 if dtype is bfloat16 else float(np.finfo(STORAGE[dtype]).eps)


def _tolerances(name: str, x: A, rtol: Any) -> Any:
    """A float, or an array that broadcasts with the batch of ``x``."""
    if rtol is None:
        return max(x.shape[-2:]) * _epsilon(x.dtype)
    if not isinstance(rtol, Array):
        return real("rtol", rtol, least=0.0)
    common_backend([x, rtol])
    if rtol.dtype.kind != "f":
        raise DTypeError(
            f"rtol of {name} must be real floating, got an array of {rtol.dtype}; convert it with astype()"
        )
    batch = x.shape[:-2]
    if any(one not in (1, other) for one, other in zip(rtol.shape[::-1], batch[::-1], strict=False)) or rtol.ndim > len(
        batch
    ):
        raise ShapeError(f"rtol of {name} must broadcast to the batch {batch}, got shape {rtol.shape}")
    return rtol


def matrix_rank(x: A, /, *, rtol: Tolerance = None) -> A:
    """How many singular values of each matrix are not 0. **Blocks**.

    Parameters
    ----------
    x : Tensor of shape (..., m, n)
        16-bit floats are computed in float32.
    rtol : float or Tensor, optional
        As in :func:`pinv`.

    Returns
    -------
    Tensor of shape (...)
        int64.

    Raises
    ------
    LinAlgError
        If the singular value decomposition does not converge.
    DTypeError
        If ``x`` is not floating.
    ArgumentError
        If ``rtol`` is negative or not finite.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.matrix_rank(netcl.asarray([[1.0, 2.0], [2.0, 4.0]])).item()
    1
    """
    check_matrices("matrix_rank", x)
    tolerance = _tolerances("matrix_rank", x, rtol)
    if isinstance(tolerance, float):
        (out,) = compute_on_host("matrix_rank", partial(_rank, rtol=tolerance), [x], [int64], _UNSOUND)
    else:
        (out,) = compute_on_host("matrix_rank", _rank, [x, tolerance], [int64], _UNSOUND)
    return out


def _rank(x: NDArray[Any], rtol: Any) -> NDArray[Any]:
    values = np.linalg.svd(x, compute_uv=False)
    largest = values.max(axis=-1, keepdims=True, initial=0.0)
    return np.asarray(np.count_nonzero(values > largest * np.asarray(rtol)[..., None], axis=-1))


def matrix_power(x: A, n: int, /) -> A:
    """Each square matrix to an integer power, by repeated squaring.

    y = x · x · … · x, of its inverse if ``n`` is negative

    Parameters
    ----------
    x : Tensor of shape (..., n, n)
    n : int
        The identity for 0. A negative power **blocks**, as :func:`inv` does; others do not.

    Raises
    ------
    LinAlgError
        If ``n`` is negative and a matrix is singular.
    ShapeError
        If the matrices are not square.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.matrix_power(netcl.asarray([[2.0, 0.0], [0.0, 1.0]]), 3).tolist()
    [[8.0, 0.0], [0.0, 1.0]]
    """
    check_square("matrix_power", x)
    left = integer("n", n)
    if left == 0:
        out = identity_like(x)
        tape.record(out, (x, lambda g: multiply(g, 0.0)), name="matrix_power")
        return out
    square = inv(x) if left < 0 else x
    left = abs(left)
    power: A | None = None
    while True:
        if left & 1:
            power = square if power is None else matmul(power, square)
        left >>= 1
        if not left:
            return positive(x) if power is x else power  # type: ignore[return-value]
        square = matmul(square, square)
