"""Values and gradients where a function has no ordinary derivative: a table for every differentiable function."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
import netcl.functional as F
from netcl import nn
from netcl.errors import LinAlgError
from tests.matrices import FOURIER
from tests.singular_arrays import ARRAYS, MAKERS, MODULES, MOVES, NO_DERIVATIVE, REFUSED
from tests.singular_points import ELEMENTWISE as ORDINARY
from tests.singular_points import INF, NAN
from tests.singular_special import SPECIAL

ELEMENTWISE = {**ORDINARY, **SPECIAL}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
with_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the parity extra is not installed")


def gradients(function, values, seed, backend, dtype):
    """The value of a function, and the gradient along each operand."""
    operands = [
        netcl.asarray(np.asarray(value, dtype), device=backend.device, requires_grad=True, copy=True)
        for value in values
    ]
    with netcl.use_backend(backend), ag.Tape() as tape:
        out = function(*operands)
    start = np.array(np.broadcast_to(np.asarray(seed, out.dtype.name), out.shape))
    tape.backward(out, seed=netcl.asarray(start, device=backend.device))
    return out.numpy(), [operand.grad.numpy() for operand in operands]


def torch_gradients(function, values, seed, dtype):
    import torch

    operands = [torch.tensor(np.asarray(value, dtype), requires_grad=True) for value in values]
    out = function(torch, *operands)
    if out is None:
        return None
    out.backward(torch.tensor(np.array(np.broadcast_to(seed, out.shape)), dtype=out.dtype))
    return out.detach().numpy(), [x.grad.numpy() for x in operands]


def close(got, want, dtype, where=True):
    """Assert equality up to rounding, of infinities and NaN too; zeros may have either sign."""
    got, want = np.broadcast_arrays(np.asarray(got, "float64"), np.asarray(want, "float64"))
    with np.errstate(invalid="ignore"):
        tiny = 1e-6 if dtype == "float32" else 1e-14
        same = np.isclose(got, want, rtol=TOLERANCE[dtype], atol=0, equal_nan=True)
        same |= (want == 0) & (np.abs(got) <= tiny) | ~np.asarray(where)
    assert same.all(), f"\ngot  {got[~same]}\nwant {want[~same]}\nat {np.argwhere(~same).tolist()}"


def columns(case):
    """The points of an elementwise case as arrays: operands, gradients coming in, values, gradients, agreeing."""
    points = case.points
    values = np.array([point.x for point in points]).T
    derivatives = np.array([point.d for point in points]).T
    agree = np.array([not point.why for point in points])
    return values, np.array([point.g for point in points]), np.array([p.y for p in points]), derivatives, agree


def dtypes_of(backend):
    """float64 where it costs no kernels."""
    return ("float64", "float32") if backend.device.backend == "numpy" else ("float32",)


SOME = {
    "abs", "sign", "sqrt", "rsqrt", "exp", "expm1", "log", "log1p", "sin", "tan", "asin", "acosh", "tanh", "atanh",
    "erf", "round", "sigmoid", "gelu", "clip", "x ** 0.5", "x % 3", "multiply", "divide", "pow", "atan2", "hypot",
    "logaddexp", "maximum", "where", "log behind where", "erfinv", "gammaln", "i0", "xlogy",
}  # fmt: skip
"""For OpenCL one function or two of each kind: what NumPy's graphs have in all of them, made of operators that
test_map.py tries on every runtime at the same places.
"""

SHORT = {"abs", "sqrt", "log1p", "acosh", "gelu", "clip", "divide", "pow", "maximum", "log behind where", "xlogy"}
"""The same for the OpenCL runtimes behind the first."""

VARIANTS = (
    "of rows", "with correction", "smoothed", "summed", "of images", "of order", "with padding", "matrix_power",
    "linear", "vecdot", "tensordot", "outer", "eigh of", "nll_loss",
)  # fmt: skip
"""Array cases, by parts of their names, whose kernels OpenCL has met in another case."""


@pytest.mark.compiled(name=SOME)
@pytest.mark.short(name=SHORT)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, backend):
    case = ELEMENTWISE[name]
    values, seed, y, derivatives, _ = columns(case)
    for dtype in dtypes_of(backend):
        got, grads = gradients(case.function, values, seed, backend, dtype)
        close(got, y, dtype)
        for grad, derivative in zip(grads, derivatives, strict=True):
            close(grad, derivative, dtype)


@with_torch
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_is_torchs(name, dtype):
    case = ELEMENTWISE[name]
    values, seed, y, derivatives, agree = columns(case)
    found = torch_gradients(case.torch, values.astype(dtype), seed, dtype)
    if found is None:
        return
    close(found[0], y, dtype, agree)
    for grad, derivative in zip(found[1], derivatives, strict=True):
        close(grad, derivative, dtype, agree)


@pytest.mark.compiled(rows=lambda row: not any(variant in row["name"] for variant in VARIANTS))
@pytest.mark.short(rows=lambda row: list(ARRAYS).index(row["name"]) % 4 == 0)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, backend):
    case = ARRAYS[name]
    for dtype in dtypes_of(backend):
        got, grads = gradients(case.function, case.operands, case.seed, backend, dtype)
        close(got, case.value, dtype)
        for grad, want in zip(grads, case.gradients, strict=True):
            close(grad, want, dtype)


@with_torch
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", [name for name, case in ARRAYS.items() if not case.why])
def test_arrays_are_torchs(name, dtype):
    case = ARRAYS[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*degrees of freedom is <= 0")
        value, grads = torch_gradients(case.torch, case.operands, case.seed, dtype)
    close(value, case.value, dtype)
    for grad, want in zip(grads, case.gradients, strict=True):
        close(grad, want, dtype)


@pytest.mark.parametrize("name", MOVES)
def test_moved_elements_may_be_anything(name):
    function, arrivals = MOVES[name]
    with netcl.use_backend("numpy"):
        x = netcl.asarray([[NAN, INF, -INF], [0.0, -0.0, 1e38]], requires_grad=True)
        with ag.Tape() as tape:
            y = function(x)
        tape.backward(y, seed=netcl.ones(y.shape))
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(arrivals, (2, 3)))


def covered():
    """The functions that have points."""
    names = {name for name in ELEMENTWISE if " " not in name} | set(MOVES)
    names |= {name for case in ARRAYS.values() for name in case.covers}
    names |= {name.partition(" ")[0] for name in FOURIER}  # linear, and compared with torch's elsewhere
    return names | {"clip", "pow"} | set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_factors_is_refused(name):
    function, matrix = REFUSED[name]
    x = netcl.asarray(matrix, requires_grad=True, device="numpy")
    with pytest.raises(LinAlgError, match=name), ag.Tape() as tape:  # noqa: PT012 - either of the two may raise
        y = function(x)
        tape.backward(y, seed=netcl.ones(y.shape, device="numpy"))


def test_every_public_function_has_points():
    public = {*ag.__all__, *netcl.linalg.__all__}
    public |= {name for name in netcl.__all__ if callable(getattr(netcl, name)) and not name.startswith("_")}
    without = {name for name in public if not isinstance(getattr(netcl, name, None), netcl.DType)}
    without -= covered() | NO_DERIVATIVE | MAKERS
    assert without == set(), "give these points in tests/singular_points.py or tests/singular_arrays.py"


def test_every_method_has_points():
    methods = {name for name, value in vars(netcl.Tensor).items() if name[0] != "_" and callable(value)}
    readers = {"item", "numpy", "tolist", "detach"}
    assert methods - readers - {"to_device", "argmax"} <= covered(), "a method is the function of its name"


def test_every_module_has_points():
    modules = {getattr(nn, name) for name in nn.__all__} - {nn.Module, nn.Sequential, nn.init}
    assert modules == set(MODULES), "say in MODULES which function each module calls"
    assert set(MODULES.values()) <= covered()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_is_never_hidden(name):
    """Where the value is NaN some gradient is not 0: a step on it shows."""
    values, seed, y, derivatives, _ = columns(ELEMENTWISE[name])
    hidden = (seed == 1.0) & np.isnan(y) & np.all(derivatives == 0.0, axis=0)
    assert not hidden.any(), values[:, hidden]
    assert np.isnan(values).any(), "a function needs a point that is NaN"


@pytest.mark.short(rows=lambda row: row["rows"] == 2)
@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize(
    "loss",
    [
        lambda y: F.cross_entropy(y, netcl.full(y.shape[0], -100)),
        lambda y: F.cross_entropy(y, netcl.full(y.shape[0], -100), label_smoothing=0.1),
        lambda y: F.cross_entropy(y[:0], y[:0]),
        lambda y: F.nll_loss(F.log_softmax(y), netcl.full(y.shape[0], -100)),
        lambda y: F.mse_loss(y[:0], netcl.zeros((0, 3))),
        lambda y: netcl.mean(y[:0]),
        lambda y: netcl.var(y[:0]),
        lambda y: netcl.std(y[:0]),
    ],
)
def test_a_batch_of_nothing_moves_no_weight(loss, rows, backend):
    """Neither no rows nor rows of padding alone; the loss may be NaN."""
    with netcl.use_backend(backend):
        weight, bias = netcl.ones((2, 3), requires_grad=True), netcl.zeros(3, requires_grad=True)
        with ag.Tape() as tape:
            y = loss(F.layer_norm(netcl.ones((rows, 2)) @ weight + bias, 3))
        tape.backward(y)
        assert weight.grad.tolist() == [[0.0] * 3] * 2
        assert bias.grad.tolist() == [0.0] * 3
