"""The special functions against mpmath: values at hard and at random points, edges, derivatives, dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import expression as ex
from netcl import special
from netcl.errors import DeviceMismatchError, DTypeError, ShapeError
from tests.special_values import CASES, EDGES, FORMATS, NAN, expected, expected_slopes

UNITS, RELATIVE = 4.0, 1e-14
"""Allowed errors: of float32 in units in the last place, of float64 relative to the value."""

SLOPES = {"float32": 1e-5, "float64": 2e-12}
ELSEWHERE = ["erf", "logsumexp", "softmax", "log_softmax", "psi"]
"""Functions of the namespace that have their home, and their tests, in another module or under another name."""

SHORT = ["erf", "gammaln", "i0", "log_ndtr", "xlogy", "ndtri"]
"""For the OpenCL runtimes behind the first: one for each kind of approximation."""


def dtypes_of(backend):
    return ["float32", "float64"] if backend.device.float64 else ["float32"]


def tensors(operands, dtype, backend, **options):
    return [netcl.asarray(np.array(x, dtype), device=backend.device, copy=True, **options) for x in operands]


def test_every_function_has_values():
    assert sorted({*special.__all__} - {*ELSEWHERE} | {"erf"}) == sorted(CASES) == sorted(EDGES)
    assert special.erf is netcl.erf
    assert special.psi is special.digamma
    assert special.logsumexp is netcl.logsumexp
    assert special.softmax is netcl.functional.softmax


@pytest.mark.short(name=SHORT)
@pytest.mark.parametrize("name", CASES)
def test_values(name, backend):
    for dtype in dtypes_of(backend):
        points, values, rest, terms = expected(name, dtype)
        got = getattr(special, name)(*tensors(points, dtype, backend)).numpy()
        with np.errstate(all="ignore"):
            nearest = values.astype(dtype)
            error = np.abs((got.astype("float64") - values) - rest)
            scale = np.maximum(np.abs(values), terms)
            if dtype == "float32":
                allowed = UNITS * np.spacing(scale.astype(dtype)).astype("float64")
            else:
                allowed = np.maximum(RELATIVE * scale, UNITS * FORMATS[dtype].tiny)
        wrong = np.where(np.isfinite(nearest), ~(error <= allowed), got != nearest)
        assert not wrong.any(), [
            (*(float(x[i]) for x in points), float(got[i]), float(values[i])) for i in np.flatnonzero(wrong)[:5]
        ]


@pytest.mark.short(name=SHORT)
@pytest.mark.parametrize("name", EDGES)
def test_edges(name, backend):
    for dtype in dtypes_of(backend):
        *operands, values = np.array([*EDGES[name], (NAN,) * len(EDGES[name][0])]).T
        got = getattr(special, name)(*tensors(operands, dtype, backend)).numpy()
        np.testing.assert_allclose(got, values.astype(dtype), rtol=1e-6, atol=0)


@pytest.mark.short(name=SHORT)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, backend):
    for dtype in dtypes_of(backend) if backend.device.backend == "numpy" else ["float32"]:
        operands = tensors(CASES[name].slopes, dtype, backend, requires_grad=True)
        with ag.Tape() as tape:
            y = getattr(special, name)(*operands)
        tape.backward(y, seed=netcl.ones(y.shape, dtype=dtype, device=backend.device))
        for operand, slopes in zip(operands, expected_slopes(name, dtype), strict=True):
            np.testing.assert_allclose(operand.grad.numpy(), slopes, rtol=SLOPES[dtype], atol=0)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_torchs(name):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    peer = getattr(torch.special, name, None)
    if peer is None:
        assert name in ("betaln", "rel_entr")
        return
    values = [np.array(x) for x in CASES[name].slopes]
    # torch takes the slope of expit from a result that is 1, and log_ndtr's from an exponential that underflows.
    kept = np.abs(values[0]) < (50.0 if name in ("expit", "log_ndtr") else np.inf)
    theirs = [torch.tensor(x[kept], requires_grad=True) for x in values]
    peer(*theirs).sum().backward()
    for x, slopes in zip(theirs, expected_slopes(name, "float64"), strict=True):
        np.testing.assert_allclose(x.grad.numpy(), slopes[kept], rtol=1e-6)


@pytest.mark.parametrize("name", sorted({*CASES} - {"erf"}))
def test_float32_needs_no_float64(name):
    """On devices that have none; and the graph stays one that compiles in seconds."""
    expression = ex.trace(getattr(special, name).function, [netcl.float32] * len(CASES[name].slopes))
    nodes = expression.nodes()
    assert not any(node.dtype is netcl.float64 for node in nodes)
    assert len(nodes) < (700 if name == "betaln" else 250)


def test_dtypes(backend):
    with netcl.use_backend(backend):
        counts = netcl.asarray([1, 2, 5])
        assert special.gammaln(counts).dtype is netcl.float32
        np.testing.assert_allclose(special.gammaln(counts).numpy(), [0.0, 0.0, np.log(24.0)], rtol=1e-6)
        half = netcl.asarray([0.25, 0.5], dtype="float16")
        assert special.ndtri(half).dtype is netcl.float16
        np.testing.assert_array_equal(special.ndtri(half).numpy(), np.array([-0.67448975, 0.0], "float16"))
        assert special.xlogy(half, netcl.ones(2)).dtype is netcl.float32
        assert special.xlogy(half, 2.0).dtype is netcl.float16
        assert special.erfc(netcl.asarray([1.0], dtype="bfloat16")).dtype is netcl.bfloat16
        assert special.rel_entr(netcl.ones((3, 1)), netcl.ones(2)).shape == (3, 2)
        assert special.erfc(netcl.ones((0, 3))).shape == (0, 3)
    if backend.device.float64:
        wide = netcl.asarray([0.5], dtype="float64", device=backend.device)
        assert special.betaln(netcl.ones(1, device=backend.device), wide).dtype is netcl.float64


def test_second_operands_that_broadcast_get_the_sum():
    with netcl.use_backend("numpy"), ag.Tape() as tape:
        x, y = netcl.ones((2, 1), requires_grad=True), netcl.ones(3, requires_grad=True)
        z = special.xlogy(x, y)
    tape.backward(z, seed=netcl.ones((2, 3), device="numpy"))
    assert x.grad.tolist() == [[0.0], [0.0]]
    assert y.grad.tolist() == [2.0, 2.0, 2.0]


def test_operands_that_are_none_are_refused():
    with netcl.use_backend("numpy"):
        with pytest.raises(DTypeError, match="real operands, got an array of complex64"):
            special.gammaln(netcl.asarray([1j]))
        with pytest.raises(DTypeError, match="real operands, got an array of bool"):
            special.erfc(netcl.asarray([True]))
        with pytest.raises(DTypeError, match="takes Tensors"):
            special.erfc(0.5)
        with pytest.raises(DTypeError, match="at least one operand must be an array"):
            special.xlogy(1.0, 2.0)
        with pytest.raises(ShapeError):
            special.betaln(netcl.ones(2), netcl.ones(3))


def test_operands_of_two_devices_are_refused():
    other = next(name for name in netcl.available() if name != "numpy")
    with pytest.raises(DeviceMismatchError):
        special.xlogy(netcl.ones(2, device="numpy"), netcl.ones(2, device=other))
