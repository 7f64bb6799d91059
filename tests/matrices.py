"""Functions of matrices that have a gradient, in netcl and in torch, and matrices to try them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import netcl
from netcl import fft, linalg

GENERAL, SYMMETRIC, POSITIVE, TALL, WIDE, TIME = "general", "symmetric", "positive", "tall", "wide", "time"
BATCH = (2, 1)


def draw(rng: np.random.Generator, kind: str, batch: tuple[int, ...] = (), *, complex_: bool = False) -> np.ndarray:
    """Matrices of a kind, far from singular and with eigenvalues and singular values that differ."""
    shape = {TALL: (4, 3), WIDE: (2, 4), TIME: (3, 6)}.get(kind, (3, 3))
    x = rng.normal(size=(*batch, *shape))
    if complex_:
        x = x + 1j * rng.normal(size=x.shape)
    if kind == SYMMETRIC:
        x = x + np.conj(np.swapaxes(x, -1, -2)) + np.diag([0.0, 3.0, 7.0])
    if kind == POSITIVE:
        x = x @ np.conj(np.swapaxes(x, -1, -2)) + 0.5 * np.eye(3)
    if kind == GENERAL:
        x = x + np.diag([2.0, 4.0, 7.0])
    return x


def transposed(x: Any) -> Any:
    """The matrices that ``x`` lies in, as any library has them."""
    return x.mT if hasattr(x, "mT") else np.swapaxes(x, -1, -2)


def symmetrized(x: Any) -> Any:
    """A symmetric matrix, of which every element of ``x`` decides a part."""
    return (x + transposed(x)) * 0.5


@dataclass(frozen=True)
class Matrices:
    """A function of matrices in netcl and in torch, whose module is the first argument, and kinds of operands."""

    function: Callable[..., Any]
    torch: Callable[..., Any]
    kinds: tuple[str, ...] = (GENERAL,)


def _vectors_free_of_signs(q: Any) -> Any:
    """What a basis says whatever the signs of its vectors are."""
    return q[..., :, None, :] * q[..., None, :, :]


DIFFERENTIABLE: dict[str, Matrices] = {
    "inv": Matrices(linalg.inv, lambda t, x: t.linalg.inv(x)),
    "solve": Matrices(linalg.solve, lambda t, a, b: t.linalg.solve(a, b), (GENERAL, GENERAL)),
    "solve of a vector": Matrices(
        lambda a, b: linalg.solve(a, b.reshape((-1, 3))[0]),
        lambda t, a, b: t.linalg.solve(a, b.reshape((-1, 3))[0][:, None])[..., 0], (GENERAL, GENERAL),
    ),
    "cholesky": Matrices(
        lambda x: linalg.cholesky(symmetrized(x)), lambda t, x: t.linalg.cholesky(symmetrized(x)), (POSITIVE,)
    ),
    "cholesky upper": Matrices(
        lambda x: linalg.cholesky(symmetrized(x), upper=True),
        lambda t, x: t.linalg.cholesky(symmetrized(x), upper=True), (POSITIVE,),
    ),
    "det": Matrices(linalg.det, lambda t, x: t.linalg.det(x)),
    "slogdet": Matrices(lambda x: linalg.slogdet(x).logabsdet, lambda t, x: t.linalg.slogdet(x)[1]),
    "pinv": Matrices(linalg.pinv, lambda t, x: t.linalg.pinv(x)),
    "pinv tall": Matrices(linalg.pinv, lambda t, x: t.linalg.pinv(x), (TALL,)),
    "pinv wide": Matrices(linalg.pinv, lambda t, x: t.linalg.pinv(x), (WIDE,)),
    "matrix_power": Matrices(lambda x: linalg.matrix_power(x, 5), lambda t, x: t.linalg.matrix_power(x, 5)),
    "matrix_power 0": Matrices(lambda x: linalg.matrix_power(x, 0), lambda t, x: t.linalg.matrix_power(x, 0)),
    "matrix_power 1": Matrices(lambda x: linalg.matrix_power(x, 1), lambda t, x: t.linalg.matrix_power(x, 1)),
    "matrix_power -2": Matrices(lambda x: linalg.matrix_power(x, -2), lambda t, x: t.linalg.matrix_power(x, -2)),
    "qr Q": Matrices(lambda x: linalg.qr(x).Q, lambda t, x: t.linalg.qr(x)[0]),
    "qr Q tall": Matrices(lambda x: linalg.qr(x).Q, lambda t, x: t.linalg.qr(x)[0], (TALL,)),
    "qr R tall": Matrices(lambda x: linalg.qr(x).R, lambda t, x: t.linalg.qr(x)[1], (TALL,)),
    "qr R of complete": Matrices(
        lambda x: linalg.qr(x, mode="complete").R[..., :3, :], lambda t, x: t.linalg.qr(x)[1], (TALL,)
    ),
    "qr Q wide": Matrices(lambda x: linalg.qr(x).Q, lambda t, x: t.linalg.qr(x)[0], (WIDE,)),
    "qr R wide": Matrices(lambda x: linalg.qr(x, mode="complete").R, lambda t, x: t.linalg.qr(x)[1], (WIDE,)),
    "qr of both": Matrices(
        lambda x: linalg.qr(x).Q * linalg.matrix_transpose(linalg.qr(x).R),
        lambda t, x: t.linalg.qr(x)[0] * t.linalg.qr(x)[1].mT,
    ),
    "svdvals": Matrices(linalg.svdvals, lambda t, x: t.linalg.svdvals(x)),
    "svd S tall": Matrices(lambda x: linalg.svd(x).S, lambda t, x: t.linalg.svdvals(x), (TALL,)),
    "svd U": Matrices(
        lambda x: _vectors_free_of_signs(linalg.svd(x).U), lambda t, x: _vectors_free_of_signs(t.linalg.svd(x)[0])
    ),
    "svd U tall": Matrices(
        lambda x: _vectors_free_of_signs(linalg.svd(x, full_matrices=False).U),
        lambda t, x: _vectors_free_of_signs(t.linalg.svd(x, full_matrices=False)[0]), (TALL,),
    ),
    "svd Vh wide": Matrices(
        lambda x: _vectors_free_of_signs(linalg.svd(x, full_matrices=False).Vh.mT),
        lambda t, x: _vectors_free_of_signs(t.linalg.svd(x, full_matrices=False)[2].mT), (WIDE,),
    ),
    "svd Vh tall": Matrices(
        lambda x: _vectors_free_of_signs(linalg.svd(x).Vh.mT),
        lambda t, x: _vectors_free_of_signs(t.linalg.svd(x, full_matrices=False)[2].mT), (TALL,),
    ),
    "eigvalsh": Matrices(
        lambda x: linalg.eigvalsh(symmetrized(x)), lambda t, x: t.linalg.eigvalsh(symmetrized(x)), (SYMMETRIC,)
    ),
    "eigh values": Matrices(
        lambda x: linalg.eigh(symmetrized(x)).eigenvalues, lambda t, x: t.linalg.eigh(symmetrized(x))[0], (SYMMETRIC,)
    ),
    "eigh vectors": Matrices(
        lambda x: _vectors_free_of_signs(linalg.eigh(symmetrized(x)).eigenvectors),
        lambda t, x: _vectors_free_of_signs(t.linalg.eigh(symmetrized(x))[1]), (SYMMETRIC,),
    ),
    "diagonal": Matrices(
        lambda x: linalg.diagonal(x, offset=1), lambda t, x: t.diagonal(x, 1, -2, -1), (WIDE,)
    ),
    "trace": Matrices(
        lambda x: linalg.trace(x, offset=-1), lambda t, x: t.diagonal(x, -1, -2, -1).sum(-1), (TALL,)
    ),
    "cross": Matrices(linalg.cross, lambda t, a, b: t.linalg.cross(a, b), (GENERAL, GENERAL)),
    "cross of columns": Matrices(
        lambda a, b: linalg.cross(a, b[..., :1], axis=-2),
        lambda t, a, b: t.linalg.cross(a, b[..., :1].expand_as(a), dim=-2), (GENERAL, GENERAL),
    ),
    **{
        f"matrix_norm {order}": Matrices(
            lambda x, order=order: linalg.matrix_norm(x, ord=order),
            lambda t, x, order=order: t.linalg.matrix_norm(x, ord=order), (kind,),
        )
        for order, kind in (
            ("fro", TALL), ("nuc", WIDE), (1, TALL), (-1, WIDE), (2, TALL), (-2, WIDE), (np.inf, GENERAL),
            (-np.inf, TALL),
        )
    },
    **{
        f"vector_norm {order}": Matrices(
            lambda x, order=order: linalg.vector_norm(x, axis=(-1, -2), keepdims=True, ord=order),
            lambda t, x, order=order: t.linalg.vector_norm(x, dim=(-1, -2), keepdim=True, ord=order), (TALL,),
        )
        for order in (0, 1, 2, 3, 0.5, -1, -2.5, np.inf, -np.inf)
    },
    "vector_norm of all": Matrices(linalg.vector_norm, lambda t, x: t.linalg.vector_norm(x)),
}  # fmt: skip

COMPLEX: dict[str, Matrices] = {
    "inv": Matrices(linalg.inv, lambda t, x: t.linalg.inv(x)),
    "solve": Matrices(linalg.solve, lambda t, a, b: t.linalg.solve(a, b), (GENERAL, GENERAL)),
    "cholesky": Matrices(linalg.cholesky, lambda t, x: t.linalg.cholesky(x), (POSITIVE,)),
    "cholesky upper": Matrices(
        lambda x: linalg.cholesky(x, upper=True), lambda t, x: t.linalg.cholesky(x, upper=True), (POSITIVE,)
    ),
    "det": Matrices(linalg.det, lambda t, x: t.linalg.det(x)),
    "slogdet sign": Matrices(lambda x: linalg.slogdet(x).sign, lambda t, x: t.linalg.slogdet(x)[0]),
    "slogdet logabsdet": Matrices(lambda x: linalg.slogdet(x).logabsdet, lambda t, x: t.linalg.slogdet(x)[1]),
    "pinv tall": Matrices(linalg.pinv, lambda t, x: t.linalg.pinv(x), (TALL,)),
    "pinv wide": Matrices(linalg.pinv, lambda t, x: t.linalg.pinv(x), (WIDE,)),
    "qr Q tall": Matrices(lambda x: linalg.qr(x).Q, lambda t, x: t.linalg.qr(x)[0], (TALL,)),
    "qr R tall": Matrices(lambda x: linalg.qr(x).R, lambda t, x: t.linalg.qr(x)[1], (TALL,)),
    "qr Q wide": Matrices(lambda x: linalg.qr(x).Q, lambda t, x: t.linalg.qr(x)[0], (WIDE,)),
    "qr R wide": Matrices(lambda x: linalg.qr(x).R, lambda t, x: t.linalg.qr(x)[1], (WIDE,)),
    "svdvals": Matrices(linalg.svdvals, lambda t, x: t.linalg.svdvals(x)),
    "svd S": Matrices(lambda x: linalg.svd(x).S, lambda t, x: t.linalg.svdvals(x), (WIDE,)),
    "svd U": Matrices(
        lambda x: netcl.abs(linalg.svd(x, full_matrices=False).U),
        lambda t, x: t.abs(t.linalg.svd(x, full_matrices=False)[0]), (TALL,),
    ),
    "svd Vh": Matrices(
        lambda x: netcl.abs(linalg.svd(x, full_matrices=False).Vh),
        lambda t, x: t.abs(t.linalg.svd(x, full_matrices=False)[2]), (WIDE,),
    ),
    "eigvalsh": Matrices(linalg.eigvalsh, lambda t, x: t.linalg.eigvalsh(x), (SYMMETRIC,)),
    "eigh values": Matrices(lambda x: linalg.eigh(x).eigenvalues, lambda t, x: t.linalg.eigh(x)[0], (SYMMETRIC,)),
    "eigh vectors": Matrices(
        lambda x: netcl.abs(linalg.eigh(x).eigenvectors), lambda t, x: t.abs(t.linalg.eigh(x)[1]), (SYMMETRIC,)
    ),
    "eigvals": Matrices(linalg.eigvals, lambda t, x: t.linalg.eigvals(x)),
    "eig values": Matrices(lambda x: linalg.eig(x).eigenvalues, lambda t, x: t.linalg.eig(x)[0]),
    "eig vectors": Matrices(
        lambda x: netcl.abs(linalg.eig(x).eigenvectors), lambda t, x: t.abs(t.linalg.eig(x)[1])
    ),
    "diagonal": Matrices(linalg.diagonal, lambda t, x: t.diagonal(x, 0, -2, -1), (WIDE,)),
    "trace": Matrices(linalg.trace, lambda t, x: t.diagonal(x, 0, -2, -1).sum(-1), (TALL,)),
    "cross": Matrices(linalg.cross, lambda t, a, b: t.linalg.cross(a, b), (GENERAL, GENERAL)),
    "matrix_norm nuc": Matrices(
        lambda x: linalg.matrix_norm(x, ord="nuc"), lambda t, x: t.linalg.matrix_norm(x, ord="nuc"), (TALL,)
    ),
    "matrix_norm 1": Matrices(
        lambda x: linalg.matrix_norm(x, ord=1), lambda t, x: t.linalg.matrix_norm(x, ord=1), (TALL,)
    ),
    **{
        f"vector_norm {order}": Matrices(
            lambda x, order=order: linalg.vector_norm(x, axis=-1, ord=order),
            lambda t, x, order=order: t.linalg.vector_norm(x, dim=-1, ord=order), (TALL,),
        )
        for order in (1, 2, 3, -1, np.inf, -np.inf)
    },
    "fft": Matrices(fft.fft, lambda t, x: t.fft.fft(x), (TIME,)),
    "ifftn": Matrices(
        lambda x: fft.ifftn(x, s=(2, 7), axes=(-2, -1)), lambda t, x: t.fft.ifftn(x, s=(2, 7), dim=(-2, -1)), (TIME,)
    ),
    "irfft": Matrices(lambda x: fft.irfft(x, n=6), lambda t, x: t.fft.irfft(x, n=6), (TIME,)),
    "hfft": Matrices(lambda x: fft.hfft(x, n=7), lambda t, x: t.fft.hfft(x, n=7), (TIME,)),
    "irfftn": Matrices(
        lambda x: fft.irfftn(x, s=(3, 9), axes=(-2, -1)), lambda t, x: t.fft.irfftn(x, s=(3, 9), dim=(-2, -1)), (TIME,)
    ),
}  # fmt: skip
"""Of complex matrices, which a test makes of real ones, so that only real leaves need a gradient."""

NORMS = ("backward", "ortho", "forward")


def _there_and_back(x: Any, library: Any, **options: Any) -> Any:
    """Of real numbers, real ones by way of complex ones, so that complex gradients are met on the way."""
    return library.irfft(library.ifft(library.fft(library.rfft(x, n=8), **options), **options) * 1.0, n=5)


FOURIER: dict[str, Matrices] = {
    "rfft": Matrices(lambda x: fft.irfft(fft.rfft(x)), lambda t, x: t.fft.irfft(t.fft.rfft(x)), (TIME,)),
    "rfft odd": Matrices(
        lambda x: netcl.abs(fft.rfft(x, n=5, axis=-1)), lambda t, x: t.abs(t.fft.rfft(x, n=5)), (TIME,)
    ),
    "rfft padded": Matrices(
        lambda x: netcl.abs(fft.rfft(x, n=9, axis=-2, norm="ortho")),
        lambda t, x: t.abs(t.fft.rfft(x, n=9, dim=-2, norm="ortho")), (TIME,),
    ),
    "fft": Matrices(lambda x: netcl.abs(fft.fft(x, n=4)), lambda t, x: t.abs(t.fft.fft(x, n=4)), (TIME,)),
    "ifft": Matrices(lambda x: netcl.abs(fft.ifft(x, axis=-2)), lambda t, x: t.abs(t.fft.ifft(x, dim=-2)), (TIME,)),
    "irfft of real": Matrices(lambda x: fft.irfft(x, n=7), lambda t, x: t.fft.irfft(x, n=7), (TIME,)),
    "hfft": Matrices(lambda x: fft.hfft(fft.fft(x), n=7), lambda t, x: t.fft.hfft(t.fft.fft(x), n=7), (TIME,)),
    "ihfft": Matrices(lambda x: fft.hfft(fft.ihfft(x)), lambda t, x: t.fft.hfft(t.fft.ihfft(x)), (TIME,)),
    "fftn": Matrices(
        lambda x: netcl.abs(fft.fftn(x, axes=(-2, -1))), lambda t, x: t.abs(t.fft.fftn(x, dim=(-2, -1))), (TIME,)
    ),
    "ifftn": Matrices(
        lambda x: netcl.abs(fft.ifftn(x, s=(2, 7))), lambda t, x: t.abs(t.fft.ifftn(x, s=(2, 7))), (TIME,)
    ),
    "rfftn": Matrices(
        lambda x: netcl.abs(fft.rfftn(x, s=(4, 5), axes=(-1, -2))),
        lambda t, x: t.abs(t.fft.rfftn(x, s=(4, 5), dim=(-1, -2))), (TIME,),
    ),
    "irfftn": Matrices(
        lambda x: fft.irfftn(fft.fftn(x, axes=(-2, -1)), s=(4, 7), axes=(-2, -1)),
        lambda t, x: t.fft.irfftn(t.fft.fftn(x, dim=(-2, -1)), s=(4, 7), dim=(-2, -1)), (TIME,),
    ),
    **{
        f"there and back {norm}": Matrices(
            lambda x, norm=norm: _there_and_back(x, fft, norm=norm),
            lambda t, x, norm=norm: _there_and_back(x, t.fft, norm=norm), (TIME,),
        )
        for norm in NORMS
    },
    "fftshift": Matrices(lambda x: fft.fftshift(x), lambda t, x: t.fft.fftshift(x), (TIME,)),
    "ifftshift": Matrices(
        lambda x: fft.ifftshift(x, axes=-1), lambda t, x: t.fft.ifftshift(x, dim=-1), (TIME,)
    ),
}  # fmt: skip
