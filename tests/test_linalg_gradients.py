"""Gradients of netcl.linalg and netcl.fft: against torch's, complex ones too, and against central differences."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import linalg
from netcl.errors import TapeError
from tests.matrices import COMPLEX, DIFFERENTIABLE, FOURIER, POSITIVE, SYMMETRIC, TALL, draw
from tests.test_gradients import check_gradients

with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the parity extra is not installed")


def rng():
    return np.random.default_rng(11)


def gradients_of(function, values, seed_from):
    operands = [netcl.asarray(value, requires_grad=True, device="numpy") for value in values]
    with ag.Tape() as tape:
        out = function(*operands)
    seed = np.asarray(seed_from.normal(size=out.shape), out.dtype.name)
    tape.backward(out, seed=netcl.asarray(seed, device="numpy"))
    return out.numpy(), [x.grad.numpy() for x in operands], seed


def torch_gradients_of(function, values, seed):
    import torch

    operands = [torch.tensor(value, requires_grad=True) for value in values]
    out = function(torch, *operands)
    out.backward(torch.tensor(seed))
    return out.detach().numpy(), [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in operands]


@with_torch
@pytest.mark.parametrize("batch", [(), (2,), (2, 2)])
@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *FOURIER])
def test_gradients_are_torchs(name, batch):
    case = {**DIFFERENTIABLE, **FOURIER}[name]
    random = rng()
    values = [draw(random, kind, batch) for kind in case.kinds]
    got, grads, seed = gradients_of(case.function, values, random)
    want, wanted = torch_gradients_of(case.torch, values, seed)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)


def hermitian_signal(x, reverse):
    """Signals over four points of time, the first axis, whose spectra are Hermitian matrices."""
    return (x + reverse(x).mT) * 0.5


def signals(random, kinds):
    """Real signals whose spectra are complex matrices of the kinds."""
    found = []
    for kind in kinds:
        spectrum = draw(random, kind, (3,), complex_=True)
        spectrum[0], spectrum[2] = draw(random, kind), draw(random, kind)
        found.append(np.fft.irfft(spectrum, n=4, axis=0))
    return found


@with_torch
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients_are_torchs(name):
    case = COMPLEX[name]
    random = rng()
    values = signals(random, case.kinds)
    hermitian = case.kinds[0] in (POSITIVE, SYMMETRIC)

    def in_netcl(*xs):
        if hermitian:
            xs = [hermitian_signal(x, lambda y: y[netcl.asarray([0, 3, 2, 1], device="numpy")]) for x in xs]
        y = case.function(*[netcl.fft.rfft(x, axis=0) for x in xs])
        return netcl.fft.irfft(y, axis=0, n=4) if y.dtype.kind == "c" else y

    def in_torch(t, *xs):
        if hermitian:
            xs = [hermitian_signal(x, lambda y: y[[0, 3, 2, 1]]) for x in xs]
        y = case.torch(t, *[t.fft.rfft(x, dim=0) for x in xs])
        return t.fft.irfft(y, dim=0, n=4) if y.is_complex() else y

    got, grads, seed = gradients_of(in_netcl, values, random)
    want, wanted = torch_gradients_of(in_torch, values, seed)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    for one, other in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", [*DIFFERENTIABLE, *FOURIER])
def test_gradients_are_finite_differences(name):
    case = {**DIFFERENTIABLE, **FOURIER}[name]
    random = rng()
    with netcl.use_backend("numpy"):
        check_gradients(case.function, [draw(random, kind, (2,)) for kind in case.kinds], random)


@pytest.mark.parametrize(
    "name",
    [
        "inv",
        "solve",
        "cholesky",
        "det",
        "pinv tall",
        "qr Q tall",
        "svd U tall",
        "eigh vectors",
        "vector_norm 3",
        "cross",
    ],
)
def test_gradients_on_every_backend(name, backend):
    """In float32, against those of float64 on NumPy."""
    case = DIFFERENTIABLE[name]
    random = rng()
    values = [draw(random, kind, (2,)) for kind in case.kinds]
    _, wanted, seed = gradients_of(case.function, values, random)
    operands = [netcl.asarray(value, dtype="float32", requires_grad=True, device=backend.device) for value in values]
    with ag.Tape() as tape:
        out = case.function(*operands)
    tape.backward(out, seed=netcl.asarray(seed, dtype="float32", device=backend.device))
    for operand, want in zip(operands, wanted, strict=True):
        np.testing.assert_allclose(operand.grad.numpy(), want, rtol=5e-3, atol=5e-3 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["inv", "solve", "qr R tall", "svdvals", "det", "vector_norm 2", "eigvalsh"])
def test_gradients_of_sixteen_bits(name, dtype):
    case = DIFFERENTIABLE[name]
    random = rng()
    rounded = [netcl.asarray(draw(random, kind), dtype=dtype, device="numpy") for kind in case.kinds]
    _, wanted, seed = gradients_of(case.function, [x.numpy().astype("float64") for x in rounded], random)
    operands = [netcl.asarray(x, copy=True, requires_grad=True) for x in rounded]
    with ag.Tape() as tape:
        out = case.function(*operands)
    tape.backward(out, seed=netcl.asarray(seed, dtype="float32", device="numpy"))
    for operand, want in zip(operands, wanted, strict=True):
        assert operand.grad.dtype is getattr(netcl, dtype)
        np.testing.assert_allclose(operand.grad.numpy(), want, atol=0.1 * max(1.0, np.abs(want).max()))


def test_the_gradient_of_a_singular_determinant_is_that_of_its_cofactors():
    x = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 5.0]])
    cofactors = np.array([[20.0, -4.0, -4.0], [-10.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
    _, (grad,), seed = gradients_of(linalg.det, [x], rng())
    np.testing.assert_allclose(grad, cofactors * seed, atol=1e-12 * 20)
    _, (grad,), _ = gradients_of(linalg.det, [np.zeros((3, 3))], rng())
    np.testing.assert_array_equal(grad, np.zeros((3, 3)))
    _, (grad,), _ = gradients_of(lambda a: linalg.slogdet(a).logabsdet, [np.zeros((3, 3))], rng())
    assert np.isnan(grad).all()


def test_what_is_arbitrary_has_no_derivative():
    with netcl.use_backend("numpy"):
        for call, shape in (
            (lambda x: linalg.qr(x, mode="complete").Q, (4, 3)),
            (lambda x: linalg.svd(x).U, (4, 3)),
            (lambda x: linalg.svd(x).Vh, (3, 4)),
        ):
            x = netcl.asarray(rng().normal(size=shape), requires_grad=True)
            with ag.Tape() as tape:
                y = call(x)
            with pytest.raises(TapeError, match="has no derivative along the last"):
                tape.backward(y, seed=netcl.ones_like(y))


def test_a_factor_that_was_written_over_is_noticed():
    with netcl.use_backend("numpy"):
        x = netcl.asarray(draw(rng(), TALL), requires_grad=True)
        with ag.Tape() as tape:
            q, r = linalg.qr(x)
            loss = netcl.sum(q * q * q)
        r.detach()[...] = 0.0
        with pytest.raises(TapeError, match="changed in place"):
            tape.backward(loss)
