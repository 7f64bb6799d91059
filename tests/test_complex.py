"""Complex Tensors: what the functions of the namespace make of them, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.errors import DTypeError, TapeError
from netcl.functional import elementwise

# Names, and a disc around a point in which they are smooth.
HOLOMORPHIC = {
    **dict.fromkeys(("exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh"), 0.2),
    **dict.fromkeys(("square", "negative", "positive"), 1j),
    **dict.fromkeys(("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "acosh"), 1.5 + 0.5j),
    **dict.fromkeys(("asin", "acos", "atan", "asinh", "atanh"), 0.1 - 0.2j),
}  # fmt: skip
FUNCTIONS = {
    **{name: (getattr(netcl, name), (centre,)) for name, centre in HOLOMORPHIC.items()},
    "real": (netcl.real, (0,)), "imag": (netcl.imag, (0,)), "conj": (netcl.conj, (0,)), "abs": (netcl.abs, (1 + 1j,)),
    "sign": (netcl.sign, (1 - 1j,)), "round": (netcl.round, (0.1 + 0.1j,)),
    "add": (netcl.add, (0, 0)), "subtract": (netcl.subtract, (0, 0)), "multiply": (netcl.multiply, (0, 0)),
    "divide": (netcl.divide, (0, 2j)), "pow": (netcl.pow, (1.5, 0.5)),
    "scalars": (lambda z: 2.0 / z - (1j - z) * 3, (2,)),
    "where": (lambda z, w: netcl.where(netcl.real(z) > 0, z, w * w), (0, 0)),
    "sum": (lambda z: netcl.sum(z, axis=1), (0,)), "prod": (lambda z: netcl.prod(z, axis=1), (1,)),
    "mean": (netcl.mean, (0,)), "var": (lambda z: netcl.var(z, axis=0, correction=1), (0,)),
    "matmul": (lambda z, w: z @ w.mT, (0, 0)), "vecdot": (netcl.vecdot, (0, 0)),
    "astype": (lambda z: netcl.astype(z, netcl.complex128) * 1j, (0,)),
}  # fmt: skip


def some(rng, *shape):
    return rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_that_of_both_parts(name):
    """∂L/∂x + j ∂L/∂y, by central differences of a real combination of all parts of the outputs."""
    function, centres = FUNCTIONS[name]
    rng = np.random.default_rng(3)
    with netcl.use_backend("numpy"):
        values = [centre + 0.4 * some(rng, 2, 3) for centre in centres]
        operands = [netcl.asarray(value, requires_grad=True) for value in values]
        with ag.Tape() as tape:
            out = function(*operands)
        weights = some(rng, *out.shape)
        if out.dtype.kind == "f":
            weights = weights.real
        tape.backward(out, seed=netcl.asarray(weights))

        def loss(position, moved):
            changed = [netcl.asarray(moved if i == position else value) for i, value in enumerate(values)]
            return float(np.sum((np.conj(weights) * function(*changed).numpy()).real))

        for position, (operand, value) in enumerate(zip(operands, values, strict=True)):
            numeric = np.zeros(value.shape, complex)
            for place in np.ndindex(*value.shape):
                for step in (1e-6, 1e-6j):
                    ahead, behind = value.copy(), value.copy()
                    ahead[place] += step
                    behind[place] -= step
                    slope = (loss(position, ahead) - loss(position, behind)) / 2e-6
                    numeric[place] += slope * (step / 1e-6)
            assert operand.grad.dtype is netcl.complex128
            np.testing.assert_allclose(operand.grad.numpy(), numeric, rtol=2e-5, atol=2e-7)


def test_the_gradient_of_a_real_array_is_real():
    with netcl.use_backend("numpy"):
        x = netcl.asarray([1.0, 2.0], dtype="float64", requires_grad=True)
        z = netcl.asarray([1 + 2j, 3 - 1j], dtype="complex128", requires_grad=True)
        with ag.Tape() as tape:
            loss = netcl.sum(netcl.square(netcl.abs(x * z + 1j * x)))
        tape.backward(loss)
        expected = 2 * x.numpy() * np.abs(z.numpy() + 1j) ** 2
        assert x.grad.dtype is netcl.float64
        np.testing.assert_allclose(x.grad.numpy(), expected)
        np.testing.assert_allclose(z.grad.numpy(), 2 * x.numpy() ** 2 * (z.numpy() + 1j))


def test_gradients_at_zero():
    with netcl.use_backend("numpy"):
        z = netcl.asarray([0j], requires_grad=True)
        for function in (netcl.abs, lambda v: netcl.real(netcl.sign(v)), lambda v: netcl.real(v**2.0)):
            with ag.Tape() as tape:
                loss = netcl.sum(function(z))
            z.grad = None
            tape.backward(loss)
            assert z.grad.tolist() == [0j]


def test_a_complex_output_needs_a_seed():
    z = netcl.asarray([1j], requires_grad=True)
    with ag.Tape() as tape:
        loss = netcl.sum(z * z)
    with pytest.raises(TapeError, match="a complex output needs a seed"):
        tape.backward(loss)


def test_gradients_on_every_device(backend):
    """A least-squares problem in complex numbers, through matmul, conj, abs, mean and divide."""
    rng = np.random.default_rng(4)
    a, b, w = some(rng, 8, 3), some(rng, 8, 2), some(rng, 3, 2)
    with netcl.use_backend(backend):
        left, right = (netcl.asarray(v, dtype="complex64") for v in (a, b))
        weight = netcl.asarray(w, dtype="complex64", requires_grad=True)
        with ag.Tape() as tape:
            rest = left @ weight - right
            loss = netcl.mean(netcl.real(netcl.conj(rest) * rest)) + netcl.mean(netcl.abs(weight) / 2)
        tape.backward(loss)
        expected = 2 * a.conj().T @ (a @ w - b) / 16 + w / np.abs(w) / 12
        np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_functions_of_the_namespace(backend):
    rng = np.random.default_rng(5)
    a, b = some(rng, 4, 5).astype("c8"), some(rng, 4, 5).astype("c8")
    with netcl.use_backend(backend):
        x, y = netcl.asarray(a), netcl.asarray(b)
        close = {"rtol": 1e-5, "atol": 1e-6}
        for found, expected in (
            (netcl.real(x), a.real), (netcl.imag(x), a.imag), (netcl.conj(x), a.conj()), (netcl.abs(x), np.abs(a)),
            (netcl.sign(x), a / np.abs(a)), (netcl.mean(x, axis=0), a.mean(0)), (netcl.var(x, axis=1), a.var(1)),
            (netcl.vecdot(x, y), np.sum(a.conj() * b, axis=1)), (x @ y.mT, a @ b.T),
            (netcl.tensordot(x, y, axes=([0], [0])), np.tensordot(a, b, axes=([0], [0]))), (netcl.sum(x), a.sum()),
            (x * 2.0 + 1j, a * 2 + 1j), (netcl.where(netcl.real(x) > 0, x, 0.0), np.where(a.real > 0, a, 0)),
            (x[:, ::2].mT, a[:, ::2].T), (x[netcl.asarray([2, 0])], a[[2, 0]]), (netcl.astype(x, "complex128"), a),
            (netcl.concat([x, y]), np.concatenate([a, b])), (netcl.full((2,), 1 - 2j), np.full(2, 1 - 2j)),
        ):  # fmt: skip
            np.testing.assert_allclose(found.numpy(), expected, **close)
        assert netcl.any(x * 0.0).item() is False
        assert netcl.count_nonzero(netcl.asarray([0j, 1j, complex(0.0, -0.0)])).item() == 1
        assert netcl.asarray(1j).item() == 1j
        assert netcl.var(x).dtype is netcl.float32
        assert netcl.mean(x).dtype is netcl.complex64
        assert netcl.real(netcl.asarray([1, 2])).tolist() == [1, 2]
        assert netcl.imag(netcl.asarray([1.5, 2.0])).tolist() == [0.0, 0.0]
        x *= 2.0
        np.testing.assert_allclose(x.numpy(), a * 2)


def test_linspace_of_complex_ends(backend):
    with netcl.use_backend(backend):
        found = netcl.linspace(0, 2 + 4j, 3)
        assert found.dtype is netcl.complex64
        assert found.tolist() == [0j, 1 + 2j, 2 + 4j]
        assert netcl.linspace(1j, 0.0, 2, endpoint=False, dtype="complex128").tolist() == [1j, 0.5j]
        with pytest.raises(DTypeError, match="complex128 does not convert to float32"):
            netcl.linspace(0, 1j, 3, dtype="float32")


def test_a_real_number_does_not_become_complex_first(backend):
    with netcl.use_backend(backend):
        z = netcl.asarray([complex(math.inf, 1.0), complex(1.0, -0.0)])
        doubled, moved = (z * 2.0).tolist(), (1.0 + z).tolist()
    assert doubled == [complex(math.inf, 2.0), 2 - 0j]
    assert [math.copysign(1.0, value.imag) for value in (doubled[1], moved[1])] == [-1.0, -1.0]


def test_what_orders_complex_numbers_is_refused():
    z = netcl.asarray([1j])
    for name in ("less", "maximum", "atan2", "remainder"):
        with pytest.raises(DTypeError, match=f"{name} takes real operands"):
            getattr(elementwise, name)(z, z)
    for name in ("max", "argmin", "std"):
        with pytest.raises(DTypeError, match="does not take arrays of complex64"):
            getattr(netcl, name)(z)
    for name in ("real", "imag", "conj"):
        with pytest.raises(DTypeError, match="takes numeric operands, got an array of bool"):
            getattr(netcl, name)(netcl.asarray([True]))
