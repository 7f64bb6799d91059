"""netcl.linalg: values against NumPy, shapes and dtypes against array-api-strict, gradients against torch."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

import netcl
from netcl import linalg
from netcl.errors import (
    ArgumentError,
    AxisError,
    DeviceMismatchError,
    DTypeError,
    LinAlgError,
    ShapeError,
)
from tests.matrices import GENERAL, POSITIVE, SYMMETRIC, TALL, WIDE, draw

with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the parity extra is not installed")
BATCHES = [(), (2,), (2, 3)]
TOLERANCE = {
    "float32": 2e-4,
    "float64": 1e-10,
    "complex64": 2e-4,
    "complex128": 1e-10,
    "float16": 2e-2,
    "bfloat16": 1e-1,
}


def rng():
    return np.random.default_rng(11)


def dtypes_of(backend):
    """All on NumPy; on others the narrow ones, for each is a set of kernels."""
    names = ("float32", "float64", "complex64", "complex128")[:: 1 if backend.device.backend == "numpy" else 2]
    return [name for name in names if backend.supports(getattr(netcl, name))]


def on(backend, x, dtype=None):
    return netcl.asarray(x, device=backend.device, dtype=dtype)


def close(got, want, dtype):
    assert isinstance(got, netcl.Tensor)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        np.asarray(got.numpy()), want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max(initial=0.0))
    )


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def columns_of(*factors):
    """The product of factors, which is the same whatever signs the vectors in them have."""
    out = factors[0]
    for factor in factors[1:]:
        out = out @ factor
    return out


EXACT = {
    "inv": (GENERAL, linalg.inv, np.linalg.inv),
    "det": (GENERAL, linalg.det, np.linalg.det),
    "cholesky": (POSITIVE, linalg.cholesky, np.linalg.cholesky),
    "cholesky upper": (POSITIVE, lambda x: linalg.cholesky(x, upper=True), lambda x: adjoint(np.linalg.cholesky(x))),
    "svdvals": (TALL, linalg.svdvals, lambda x: np.linalg.svd(x, compute_uv=False)),
    "eigvalsh": (SYMMETRIC, linalg.eigvalsh, np.linalg.eigvalsh),
    "pinv": (TALL, linalg.pinv, np.linalg.pinv),
    "pinv wide": (WIDE, linalg.pinv, np.linalg.pinv),
    "slogdet sign": (GENERAL, lambda x: linalg.slogdet(x).sign, lambda x: np.linalg.slogdet(x).sign),
    "slogdet logabsdet": (GENERAL, lambda x: linalg.slogdet(x).logabsdet, lambda x: np.linalg.slogdet(x).logabsdet),
    "trace": (WIDE, lambda x: linalg.trace(x, offset=1), lambda x: np.trace(x, 1, -2, -1)),
    "diagonal": (WIDE, lambda x: linalg.diagonal(x, offset=1), lambda x: np.diagonal(x, 1, -2, -1)),
    "diagonal below": (TALL, lambda x: linalg.diagonal(x, offset=-2), lambda x: np.diagonal(x, -2, -2, -1)),
    "diagonal beyond": (TALL, lambda x: linalg.diagonal(x, offset=9), lambda x: np.diagonal(x, 9, -2, -1)),
    **{
        f"matrix_power {n}": (
            GENERAL, lambda x, n=n: linalg.matrix_power(x, n), lambda x, n=n: np.linalg.matrix_power(x, n)
        )
        for n in (-2, -1, 0, 1, 2, 5)
    },
    **{
        f"matrix_norm {order}": (
            TALL, lambda x, order=order: linalg.matrix_norm(x, ord=order),
            lambda x, order=order: np.linalg.norm(x, order, (-2, -1)),
        )
        for order in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
    },
    "matrix_norm None": (TALL, lambda x: linalg.matrix_norm(x, ord=None), lambda x: np.linalg.norm(x, "fro", (-2, -1))),
    "matrix_norm kept": (
        WIDE, lambda x: linalg.matrix_norm(x, ord="nuc", keepdims=True),
        lambda x: np.linalg.norm(x, "nuc", (-2, -1), keepdims=True),
    ),
    **{
        f"vector_norm {order}": (
            TALL, lambda x, order=order: linalg.vector_norm(x, axis=-1, ord=order),
            lambda x, order=order: np.linalg.norm(x, order, -1),
        )
        for order in (0, 1, 2, 3, 0.5, -1, -2.5, math.inf, -math.inf)
    },
    "vector_norm of all": (TALL, linalg.vector_norm, lambda x: np.linalg.norm(x.ravel())),
    "vector_norm of two axes": (
        TALL, lambda x: linalg.vector_norm(x, axis=(-1, -2), ord=3, keepdims=True),
        lambda x: np.sum(np.abs(x) ** 3, axis=(-1, -2), keepdims=True) ** (1 / 3),
    ),
    # Factors are unique but for signs: what they are factors of is compared.
    "qr": (TALL, lambda x: columns_of(*linalg.qr(x)), lambda x: x),
    "qr Q": (TALL, lambda x: magnitudes(linalg.qr(x).Q), lambda x: np.abs(np.linalg.qr(x).Q)),
    "qr wide": (WIDE, lambda x: magnitudes(linalg.qr(x).R), lambda x: np.abs(np.linalg.qr(x).R)),
    "qr complete": (TALL, lambda x: columns_of(*linalg.qr(x, mode="complete")), lambda x: x),
    "svd": (
        TALL, lambda x: rebuilt(linalg.svd(x, full_matrices=False)), lambda x: x,
    ),
    "svd of full matrices": (WIDE, lambda x: magnitudes(linalg.svd(x).U), lambda x: np.abs(np.linalg.svd(x).U)),
    "svd S": (WIDE, lambda x: linalg.svd(x).S, lambda x: np.linalg.svd(x).S),
    "eigh": (
        SYMMETRIC, lambda x: magnitudes(linalg.eigh(x).eigenvectors), lambda x: np.abs(np.linalg.eigh(x).eigenvectors)
    ),
    "eigh values": (SYMMETRIC, lambda x: linalg.eigh(x).eigenvalues, lambda x: np.linalg.eigh(x).eigenvalues),
    "matrix_transpose": (WIDE, linalg.matrix_transpose, lambda x: np.swapaxes(x, -1, -2)),
}  # fmt: skip
"""By name: the kind of matrices, netcl's function and what it must give."""


def magnitudes(x):
    return netcl.abs(x)


def rebuilt(result):
    u, s, vh = result
    return netcl.multiply(u, s[..., None, :]) @ vh


@pytest.mark.short(name=[
    "inv", "det", "cholesky", "eigvalsh", "pinv wide", "diagonal below", "matrix_power -2", "matrix_norm nuc",
    "matrix_norm -inf", "vector_norm 3", "qr", "svd",
])  # fmt: skip
@pytest.mark.parametrize("name", EXACT)
def test_values_are_those_of_float64(name, backend):
    kind, function, expected = EXACT[name]
    for dtype in dtypes_of(backend):
        for batch in BATCHES if backend.device.backend == "numpy" else BATCHES[-1:]:
            x = draw(rng(), kind, batch, complex_=dtype.startswith("complex")).astype(dtype)
            wide = x.astype("complex128" if x.dtype.kind == "c" else "float64")
            got = function(on(backend, x))
            assert str(got.device) == str(backend.device)
            close(got, expected(wide), dtype)


@pytest.mark.parametrize("batches", [((), ()), ((2,), ()), ((), (2,)), ((2, 1), (3,))])
def test_solve_broadcasts(batches, backend):
    for dtype in dtypes_of(backend):
        complex_ = dtype.startswith("complex")
        a = draw(rng(), GENERAL, batches[0], complex_=complex_).astype(dtype)
        b = draw(rng(), WIDE, batches[1], complex_=complex_).astype(dtype)
        b = np.concatenate([b, b[..., :1, :] + 1], axis=-2)
        close(linalg.solve(on(backend, a), on(backend, b)), np.linalg.solve(a, b), dtype)
        vector = b.reshape((-1, 3))[0]
        close(linalg.solve(on(backend, a), on(backend, vector)), np.linalg.solve(a, vector[:, None])[..., 0], dtype)


def test_cross_broadcasts(backend):
    for dtype in [*dtypes_of(backend), "int32"]:
        a, b = (rng().normal(size=shape) * 9 for shape in ((2, 1, 3), (4, 3)))
        a, b = a.astype(dtype), b.astype(dtype)
        close(linalg.cross(on(backend, a), on(backend, b)), np.cross(a, b), dtype if dtype != "int32" else "float64")
        got = linalg.cross(on(backend, np.moveaxis(a, -1, -2)), on(backend, b.T), axis=-2)
        close(got, np.cross(np.moveaxis(a, -1, -2), b.T, axis=-2), dtype if dtype != "int32" else "float64")


def test_eigenvalues_of_any_matrix():
    with netcl.use_backend("numpy"):
        for complex_ in (False, True):
            x = draw(rng(), GENERAL, (2,), complex_=complex_)
            w, v = linalg.eig(netcl.asarray(x))
            assert w.dtype is v.dtype is netcl.complex128
            np.testing.assert_allclose(x @ v.numpy(), v.numpy() * w.numpy()[..., None, :], atol=1e-12)
            np.testing.assert_allclose(linalg.eigvals(netcl.asarray(x)).numpy(), np.linalg.eigvals(x), atol=1e-12)


def test_a_device_without_complex_numbers_says_so(backend):
    x = on(backend, np.eye(2), "float32")
    if backend.supports(netcl.complex64):
        assert linalg.eigvals(x).dtype is netcl.complex64
    else:
        with pytest.raises(DTypeError, match="cannot compute in complex64"):
            linalg.eigvals(x)


@pytest.mark.short(name=["inv", "vector_norm 2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["inv", "svdvals", "eigvalsh", "qr", "matrix_norm nuc", "vector_norm 2", "det"])
def test_sixteen_bits_are_computed_in_float32(name, dtype, backend):
    kind, function, expected = EXACT[name]
    x = on(backend, draw(rng(), kind), dtype)
    got = function(x)
    assert got.dtype is getattr(netcl, dtype)
    close(got, expected(x.numpy().astype("float64")), dtype)
    if name == "inv":  # rounded once: the float32 result as the dtype has it
        once = netcl.astype(linalg.inv(netcl.astype(x, "float32")), dtype)
        np.testing.assert_array_equal(got.numpy(), once.numpy())


def test_a_diagonal_is_a_view(backend):
    x = on(backend, np.arange(6.0).reshape(2, 3))
    d = linalg.diagonal(x, offset=1)
    assert d.storage is x.storage
    d[...] = 9.0
    assert x.tolist() == [[0.0, 9.0, 2.0], [3.0, 4.0, 9.0]]


def test_views_are_read_where_they_lie(backend):
    base = draw(rng(), GENERAL, (4,)).astype("float32")
    x = on(backend, base)
    for view, plain in (
        (x.mT, np.swapaxes(base, -1, -2)),
        (x[::2], base[::2]),
        (x[1], base[1]),
        (x[:, ::-1], base[:, ::-1]),
    ):
        close(linalg.inv(view), np.linalg.inv(plain), "float32")
    close(linalg.solve(x, x), np.broadcast_to(np.eye(3), (4, 3, 3)), "float32")  # one buffer, twice
    close(linalg.solve(x, x.mT), np.linalg.solve(base, np.swapaxes(base, -1, -2)), "float32")
    np.testing.assert_array_equal(x.numpy(), base)


# -- tolerances -------------------------------------------------------------------------------------------------------


def graded(backend, dtype="float32"):
    """Two matrices whose singular values are 1, 1e-2 and 1e-4."""
    u = np.linalg.qr(draw(rng(), GENERAL)).Q
    return on(backend, np.stack([u * [1.0, 1e-2, 1e-4]] * 2), dtype)


def test_ranks(backend):
    x = graded(backend)
    assert linalg.matrix_rank(x).tolist() == [3, 3]
    assert linalg.matrix_rank(x).dtype is netcl.int64
    assert linalg.matrix_rank(x, rtol=1e-3).tolist() == [2, 2]
    assert linalg.matrix_rank(x, rtol=on(backend, [0.1, 1e-3], "float32")).tolist() == [1, 2]
    assert linalg.matrix_rank(x, rtol=on(backend, [0.1], "float32")).tolist() == [1, 1]
    assert linalg.matrix_rank(on(backend, np.zeros((2, 3), "float32"))).item() == 0
    assert linalg.matrix_rank(on(backend, np.zeros((4, 0, 3), "float32"))).tolist() == [0] * 4
    with pytest.raises(ArgumentError, match="rtol must be a number"):
        linalg.matrix_rank(x, rtol=-1.0)
    with pytest.raises(ShapeError, match="broadcast to the batch"):
        linalg.matrix_rank(x, rtol=on(backend, np.ones(3), "float32"))
    with pytest.raises(DTypeError, match="real floating"):
        linalg.matrix_rank(x, rtol=on(backend, [1, 2]))


def test_pseudo_inverses_cut_small_values_off(backend):
    x = graded(backend)
    for rtol in (0.1, 1e-3):
        close(linalg.pinv(x, rtol=rtol), np.linalg.pinv(x.numpy(), rtol), "float32")
    got = linalg.pinv(x, rtol=on(backend, [0.1, 1e-3], "float32"))
    close(got, np.stack([np.linalg.pinv(x.numpy()[i], rtol) for i, rtol in enumerate((0.1, 1e-3))]), "float32")


# -- norms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 3, 1.5, -2])
def test_norms_neither_overflow_nor_vanish(order, backend):
    for scale in (1e30, 1e-30):
        x = np.array([3.0, -4.0, 1.0], "float32") * np.float32(scale)
        want = np.linalg.norm(x.astype("float64"), order)
        got = linalg.vector_norm(on(backend, x), ord=order).item()
        assert got == pytest.approx(want, rel=1e-5)
    assert linalg.vector_norm(on(backend, np.array([1.0, -np.inf], "float32"))).item() == np.inf
    assert math.isnan(linalg.vector_norm(on(backend, np.array([1.0, np.nan], "float32"))).item())


def test_norms_of_nothing(backend):
    empty = on(backend, np.zeros((0, 3), "float32"))
    assert linalg.vector_norm(empty).item() == 0.0
    assert linalg.vector_norm(empty, axis=0).tolist() == [0.0] * 3
    assert linalg.vector_norm(empty, axis=1, ord=-1).shape == (0,)
    assert linalg.matrix_norm(empty).item() == linalg.matrix_norm(empty, ord="nuc").item() == 0.0
    for order in (math.inf, -1):
        with pytest.raises(ShapeError, match="no elements"):
            linalg.vector_norm(empty, ord=order)
    with pytest.raises(ShapeError):
        linalg.matrix_norm(on(backend, np.zeros((3, 0), "float32")), ord=1)


# -- shapes and dtypes, as array-api-strict has them ------------------------------------------------------------------

STRICT = {
    "cholesky": (POSITIVE, {}), "det": (GENERAL, {}), "eigh": (SYMMETRIC, {}), "eigvalsh": (SYMMETRIC, {}),
    "eig": (GENERAL, {}), "eigvals": (GENERAL, {}), "inv": (GENERAL, {}), "pinv": (WIDE, {}), "slogdet": (GENERAL, {}),
    "qr": (TALL, {}), "qr complete": (TALL, {"mode": "complete"}), "svd": (WIDE, {}),
    "svd thin": (TALL, {"full_matrices": False}), "svdvals": (WIDE, {}), "matrix_rank": (TALL, {}),
    "matrix_norm": (TALL, {"keepdims": True}), "vector_norm": (TALL, {"axis": (0, -1), "keepdims": True}),
    "trace": (TALL, {"offset": 1}), "diagonal": (WIDE, {}), "matrix_transpose": (WIDE, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", STRICT)
def test_shapes_and_dtypes_are_the_standards(name):
    import array_api_strict as strict

    strict.set_array_api_strict_flags(api_version="2025.12")
    kind, options = STRICT[name]
    function = name.partition(" ")[0]
    with netcl.use_backend("numpy"):
        for dtype in ("float32", "float64", "complex64", "complex128"):
            for batch in BATCHES:
                x = draw(rng(), kind, batch, complex_=dtype.startswith("complex")).astype(dtype)
                got = getattr(linalg, function)(netcl.asarray(x), **options)
                want = getattr(strict.linalg, function)(strict.asarray(x), **options)
                assert getattr(got, "_fields", ()) == getattr(want, "_fields", ())
                for one, other in zip(*[(y if isinstance(y, tuple) else (y,)) for y in (got, want)], strict=True):
                    assert (one.shape, f"array_api_strict.{one.dtype}") == (other.shape, str(other.dtype))


def test_every_name_of_the_standard_is_there():
    import array_api_strict as strict

    wanted = {"eig", "eigvals", *strict.linalg.__all__}
    assert len(wanted) == 25
    assert wanted <= set(linalg.__all__)


@pytest.mark.parametrize(
    "name", ["inv", "det", "cholesky", "eigh", "eigvalsh", "svd", "qr", "pinv", "slogdet", "svdvals"]
)
def test_matrices_without_elements(name, backend):
    for shape in ((0, 0), (2, 0, 0), (0, 3, 3)):
        x = netcl.zeros(shape, device=backend.device)
        got = getattr(linalg, name)(x)
        want = getattr(np.linalg, name, None)
        want = np.linalg.svd(x.numpy(), compute_uv=False) if want is None else want(x.numpy())
        for one, other in zip(*[(y if isinstance(y, tuple) else (y,)) for y in (got, want)], strict=True):
            assert one.shape == other.shape
            np.testing.assert_array_equal(one.numpy(), other)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_singular_matrices_are_an_error_of_netcl_and_of_numpy(backend):
    x = on(backend, np.ones((2, 2), "float32"))
    for call in (
        lambda: linalg.inv(x), lambda: linalg.solve(x, x), lambda: linalg.cholesky(-x),
        lambda: linalg.matrix_power(x, -1),
    ):  # fmt: skip
        with pytest.raises(LinAlgError, match=r"of shape \(2, 2\).*; (add|use)") as found:
            call()
        assert isinstance(found.value, np.linalg.LinAlgError)
        assert isinstance(found.value, ValueError)
    with pytest.raises(LinAlgError, match=r"svd of shape .* did not converge; look for NaN"):
        linalg.svd(x * math.nan)
    assert linalg.det(x).item() == 0.0
    assert linalg.slogdet(x).logabsdet.item() == -math.inf


@pytest.mark.parametrize(
    "name", ["inv", "det", "cholesky", "eigh", "eigvalsh", "eig", "eigvals", "slogdet", "matrix_power", "solve"]
)
def test_other_than_square_floating_matrices_are_refused(name):
    extra = {"matrix_power": (2,), "solve": (netcl.ones(3, device="numpy"),)}.get(name, ())
    with netcl.use_backend("numpy"):
        function = getattr(linalg, name)
        with pytest.raises(ShapeError, match=rf"{name} takes square matrices, got shape \(2, 3\)"):
            function(netcl.ones((2, 3)), *extra)
        with pytest.raises(ShapeError, match="at least two axes"):
            function(netcl.ones(3), *extra)
        with pytest.raises(
            DTypeError, match=rf"{name} takes floating arrays, got one of int64; convert it with astype"
        ):
            function(netcl.eye(3, dtype="int64"), *extra)


def test_what_does_not_fit_is_refused():
    with netcl.use_backend("numpy"):
        x = netcl.eye(3)
        for call, error, words in (
            (lambda: linalg.solve(x, netcl.ones(2)), ShapeError, "a vector of 3 elements or matrices of 3 rows"),
            (lambda: linalg.solve(x, netcl.ones((3, 2), dtype="int64")), DTypeError, "floating"),
            (lambda: linalg.solve(x, netcl.ones((3, 2), device="toy")), DeviceMismatchError, "different devices"),
            (lambda: linalg.qr(x, mode="r"), ArgumentError, "mode must be one of 'reduced', 'complete'"),
            (lambda: linalg.matrix_norm(x, ord=3), ArgumentError, "one of 'fro', 'nuc'"),
            (lambda: linalg.matrix_norm(x, ord="inf"), ArgumentError, "one of 'fro', 'nuc'"),
            (lambda: linalg.matrix_norm(x, ord=True), ArgumentError, "one of 'fro', 'nuc'"),
            (lambda: linalg.vector_norm(x, ord=math.nan), ArgumentError, "ord of a norm must be a real number"),
            (lambda: linalg.vector_norm(x, axis=2), AxisError, "axis must lie in"),
            (lambda: linalg.vector_norm(netcl.arange(3)), DTypeError, "astype"),
            (lambda: linalg.cross(x[:2, :2], x[:2, :2]), ShapeError, "extent 3 in both"),
            (lambda: linalg.cross(x, x, axis=1), AxisError, "must be negative"),
            (lambda: linalg.trace(x > 0), DTypeError, "bool"),
            (lambda: linalg.diagonal(x[0]), ShapeError, "at least two axes"),
            (lambda: linalg.matrix_power(x, 0.5), ArgumentError, "n must be an integer"),
            (lambda: linalg.cholesky(x, upper=1), ArgumentError, "upper must be True or False"),
        ):  # fmt: skip
            with pytest.raises(error, match=words):
                call()
