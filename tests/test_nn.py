"""Layers, losses and initialisers: values, gradients, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.errors import BackendError, DTypeError, HyperParameterError, ShapeError
from netcl.nn import init

FLOAT64 = {"device": "numpy", "dtype": "float64"}


def layers(features: int, seed: int) -> list[nn.Module]:
    """Every layer that maps (..., features) floats to floats, in float64 on NumPy."""
    return [
        nn.Linear(features, 3, **FLOAT64, generator=seed),
        nn.Linear(features, 1, bias=False, **FLOAT64, generator=seed),
        nn.LayerNorm(features, **FLOAT64),
        nn.LayerNorm(features, bias=False, **FLOAT64),
        nn.LayerNorm(features, elementwise_affine=False, **FLOAT64),
        nn.ReLU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Dropout(0.4, generator=netcl.random.Generator(seed)),
        nn.Sequential(nn.Linear(features, 4, **FLOAT64, generator=seed), nn.Tanh(), nn.Linear(4, 2, **FLOAT64)),
    ]


def kind(layer: nn.Module) -> str:
    return repr(layer).replace("\n", "").replace(" ", "")[:40]


# ---- gradients


def value(layer: nn.Module, x: netcl.Tensor, weights: np.ndarray) -> netcl.Tensor:
    if isinstance(layer, nn.Dropout):
        layer.generator.manual_seed(5)  # the same mask at every evaluation
    y = layer(x)
    return netcl.sum(y * netcl.asarray(weights[: y.size].reshape(y.shape), device="numpy"))


def finite_difference(function, tensor: netcl.Tensor, step: float = 1e-5) -> np.ndarray:
    """The derivative of ``function()`` by each element of ``tensor``, from central differences."""
    start = tensor.numpy()
    slopes = np.zeros(start.size)
    for i in range(start.size):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved.reshape(-1)[i] += sign * step
            tensor[...] = netcl.asarray(moved, device="numpy")
            sides.append(function())
        slopes[i] = (sides[0] - sides[1]) / (2 * step)
    tensor[...] = netcl.asarray(start, device="numpy")
    return slopes.reshape(start.shape)


@pytest.mark.parametrize("position", range(len(layers(2, 0))), ids=[kind(layer) for layer in layers(2, 0)])
@given(rows=st.integers(1, 3), inner=st.integers(1, 3), features=st.integers(2, 4), seed=st.integers(0, 99))
def test_gradients_match_finite_differences(position, rows, inner, features, seed):
    layer = layers(features, seed)[position]
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, inner, features))
    values += np.sign(values) * 1e-3  # away from the kink of ReLU
    x = netcl.asarray(values, device="numpy", requires_grad=True)
    weights = rng.normal(size=rows * inner * max(features, 3))
    for parameter in layer.parameters():
        init.normal_(parameter, generator=seed)
    with ag.Tape() as tape:
        loss = value(layer, x, weights)
    tape.backward(loss)
    for tensor in (x, *layer.parameters()):
        found = tensor.grad.numpy()
        tensor.requires_grad = False
        expected = finite_difference(lambda: value(layer, x, weights).item(), tensor)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        tensor.requires_grad = True


def test_embedding_gradient_counts_repeated_rows():
    layer = nn.Embedding(5, 2, **FLOAT64, generator=0)
    with ag.Tape() as tape:
        loss = netcl.sum(layer(netcl.asarray([[1, 1], [4, 1]], device="numpy")))
    tape.backward(loss)
    assert layer.weight.grad.numpy().tolist() == [[0, 0], [3, 3], [0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("layer", [
    nn.Conv2d(2, 3, 3, padding=1, **FLOAT64, generator=0),
    nn.Conv2d(2, 2, (2, 3), stride=2, bias=False, **FLOAT64, generator=0),
    nn.Conv2d(2, 1, 2, dilation=2, **FLOAT64, generator=0),
    nn.MaxPool2d(2),
    nn.MaxPool2d((3, 2), stride=(1, 2), padding=1),
], ids=kind)  # fmt: skip
def test_image_layer_gradients_match_finite_differences(layer):
    rng = np.random.default_rng(0)
    x = netcl.asarray(rng.normal(size=(2, 2, 5, 4)), device="numpy", requires_grad=True)
    weights = rng.normal(size=400)
    with ag.Tape() as tape:
        loss = value(layer, x, weights)
    tape.backward(loss)
    for tensor in (x, *layer.parameters()):
        found = tensor.grad.numpy()
        tensor.requires_grad = False
        expected = finite_difference(lambda: value(layer, x, weights).item(), tensor)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        tensor.requires_grad = True


# ---- values and shapes


def test_linear_is_the_affine_map(backend):
    layer = nn.Linear(4, 3, device=backend, generator=0)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    expected = x @ layer.weight.numpy().T + layer.bias.numpy()
    np.testing.assert_allclose(layer(netcl.asarray(x, device=backend)).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        layer(netcl.asarray(x[0, 0], device=backend)).numpy(), expected[0, 0], rtol=1e-5, atol=1e-6
    )


def test_linear_gradients_agree_with_numpy(backend):
    layer = nn.Linear(7, 5, device=backend, generator=0)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(6, 7)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)
    source = netcl.asarray(x, device=backend, requires_grad=True)
    with ag.Tape() as tape:
        y = layer(source)
    tape.backward(y, netcl.asarray(g, device=backend))
    for found, expected in [
        (source.grad, g @ layer.weight.numpy()), (layer.weight.grad, g.T @ x), (layer.bias.grad, g.sum(0)),
    ]:  # fmt: skip
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_convolution_is_the_sum_over_windows(backend):
    layer = nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(0, 1), device=backend, generator=0)
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 5)).astype(np.float32)
    around = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (2, 3), axis=(2, 3))[:, :, :, ::2]
    expected = np.einsum("bcijuv,ocuv->boij", windows, layer.weight.numpy()) + layer.bias.numpy()[:, None, None]
    y = layer(netcl.asarray(x, device=backend))
    assert y.shape == expected.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-5)
    pooled = nn.MaxPool2d(2)(netcl.asarray(x, device=backend)).numpy()
    np.testing.assert_array_equal(pooled, x[:, :, :, :4].reshape(2, 2, 2, 2, 2, 2).max((3, 5)))


def test_layer_norm_normalises(backend):
    x = np.random.default_rng(0).normal(3, 5, size=(4, 2, 6)).astype(np.float32)
    y = nn.LayerNorm((2, 6), device=backend)(netcl.asarray(x, device=backend)).numpy().reshape(4, -1)
    np.testing.assert_allclose(y.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(1), 1, atol=1e-5)


def test_flatten_joins_axes(backend):
    x = netcl.reshape(netcl.arange(24, device=backend), (2, 3, 4))
    assert nn.Flatten()(x).shape == (2, 12)
    assert nn.Flatten(0)(x).numpy().tolist() == list(range(24))
    assert nn.Flatten(0, 1)(x).shape == (6, 4)
    with pytest.raises(ShapeError, match=r"Flatten\(start_dim=2, end_dim=1\) needs axes in that order"):
        nn.Flatten(2, 1)(x)


def test_activations_have_known_values(backend):
    x = netcl.asarray([-1.0, 0.0, 2.0], device=backend)
    for layer, expected in [
        (nn.ReLU(), [0, 0, 2]),
        (nn.Tanh(), np.tanh([-1, 0, 2])),
        (nn.Sigmoid(), [1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2))]),
        (nn.GELU(), [-0.15865525, 0, 1.95449974]),
        (nn.GELU("tanh"), [-0.15880801, 0, 1.95459769]),
    ]:
        np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-7)


def test_losses_are_the_functions(backend):
    logits = netcl.asarray([[1.0, 2.0, 0.5], [0.0, 0.0, 3.0]], device=backend)
    labels = netcl.asarray([1, -100], device=backend)
    rows = -np.log(np.exp([2.0]) / np.exp([1.0, 2.0, 0.5]).sum())
    assert nn.CrossEntropyLoss()(logits, labels).item() == pytest.approx(rows[0], rel=1e-5)
    assert nn.CrossEntropyLoss("none")(logits, labels).numpy() == pytest.approx([rows[0], 0.0], rel=1e-5)
    smooth = nn.CrossEntropyLoss("sum", ignore_index=1, label_smoothing=1.0)
    assert smooth(logits, netcl.asarray([1, 0], device=backend)).item() == pytest.approx(
        np.log(np.exp([0, 0, 3.0]).sum()) - 1.0, rel=1e-5
    )
    a, b = netcl.asarray([1.0, 3.0], device=backend), netcl.asarray([0.0, 1.0], device=backend)
    assert [nn.MSELoss(r)(a, b).numpy().tolist() for r in ("mean", "sum", "none")] == [2.5, 5.0, [1.0, 4.0]]


# ---- dropout


def test_dropout_keeps_the_expectation_and_repeats(backend):
    x = netcl.ones(20_000, device=backend)
    layer = nn.Dropout(0.3)
    netcl.random.manual_seed(11)
    first = layer(x).numpy()
    second = layer(x).numpy()
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((first == 0).mean() - 0.3) < 0.02
    assert (first != second).any()
    netcl.random.manual_seed(11)
    np.testing.assert_array_equal(layer(x).numpy(), first)
    reference = nn.Dropout(0.3, generator=netcl.random.Generator(11))(netcl.ones(20_000, device="numpy"))
    np.testing.assert_array_equal(first, reference.numpy())
    assert layer.eval()(x) is x


# ---- initialisers


def draws() -> dict[str, object]:
    return {
        "uniform_": lambda t, g: init.uniform_(t, -2, 3, generator=g),
        "normal_": lambda t, g: init.normal_(t, 1, 2, generator=g),
        "trunc_normal_": lambda t, g: init.trunc_normal_(t, generator=g),
        "xavier_uniform_": lambda t, g: init.xavier_uniform_(t, generator=g),
        "xavier_normal_": lambda t, g: init.xavier_normal_(t, generator=g),
        "kaiming_uniform_": lambda t, g: init.kaiming_uniform_(t, nonlinearity="relu", generator=g),
        "kaiming_normal_": lambda t, g: init.kaiming_normal_(t, mode="fan_out", generator=g),
    }


SPREAD = {  # of a (60, 50) weight
    "uniform_": 5 / math.sqrt(12), "normal_": 2.0, "trunc_normal_": 0.8796,
    "xavier_uniform_": math.sqrt(2 / 110), "xavier_normal_": math.sqrt(2 / 110),
    "kaiming_uniform_": math.sqrt(2 / 50), "kaiming_normal_": math.sqrt(2 / 60),
}  # fmt: skip


@pytest.mark.parametrize("name", SPREAD)
def test_initialiser_spread_and_seed(name, backend):
    draw = draws()[name]
    found = draw(netcl.empty((60, 50), device=backend), 7).numpy()
    assert found.std() == pytest.approx(SPREAD[name], rel=0.05)
    np.testing.assert_array_equal(found, draw(netcl.empty((60, 50), device="numpy"), 7).numpy())
    assert (found != draw(netcl.empty((60, 50), device=backend), 8).numpy()).any()


def test_trunc_normal_stays_inside():
    values = init.trunc_normal_(netcl.empty(5000, device="numpy"), 0.5, 1, 0, 1, generator=0).numpy()
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() <= 1


def test_initialisers_fill_every_float(backend):
    for dtype in ("float16", "bfloat16"):
        tensor = init.uniform_(netcl.empty(100, dtype=dtype, device=backend), generator=0)
        exact = init.uniform_(netcl.empty(100, device="numpy"), generator=0)
        np.testing.assert_allclose(tensor.numpy(), exact.numpy(), rtol=2**-8)
    assert init.ones_(netcl.empty(3, device=backend)).numpy().tolist() == [1, 1, 1]
    assert init.zeros_(netcl.empty(3, device=backend)).numpy().tolist() == [0, 0, 0]


def build_all(backend) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 4, device=backend), nn.LayerNorm(4, device=backend), nn.Linear(4, 3, bias=False, device=backend),
        nn.Embedding(6, 2, device=backend),
    )  # fmt: skip


def test_initial_weights_are_the_same_everywhere(backend):
    netcl.random.manual_seed(3)
    here = build_all(backend).state_dict()
    again = build_all(backend).state_dict()
    netcl.random.manual_seed(3)
    for name, array in build_all("numpy").state_dict().items():
        np.testing.assert_array_equal(here[name], array)
    assert (here["0.weight"] != again["0.weight"]).any()


def test_linear_starts_within_torch_bounds():
    layer = nn.Linear(16, 1000, device="numpy", generator=0)
    for tensor in (layer.weight, layer.bias):
        assert 0.24 < np.abs(tensor.numpy()).max() <= 0.25
    assert layer.weight.shape == (1000, 16)
    assert not np.array_equal(layer.weight.numpy()[:, 0], layer.bias.numpy())


@pytest.mark.parametrize(
    ("make", "error", "complaint"),
    [
        (lambda: init.calculate_gain("swish"), HyperParameterError, "nonlinearity must be one of .* got 'swish'"),
        (lambda: init.kaiming_normal_(netcl.empty((2, 2)), mode="fan"), HyperParameterError, "'fan_out', got 'fan'"),
        (lambda: init.xavier_uniform_(netcl.empty(3)), ShapeError, r"shape \(out, in, \.\.\.\) .* got \(3,\)"),
        (lambda: init.trunc_normal_(netcl.empty(3), a=9, b=10), HyperParameterError, r"got \[9.0, 10.0\]"),
        (lambda: init.normal_(netcl.empty(3, dtype="int32")), DTypeError, "fill floating tensors, got int32"),
        (lambda: nn.Linear(0, 3), HyperParameterError, "in_features must be an integer of at least 1 .* got 0"),
        (lambda: nn.Linear(3, 3, dtype="int64"), DTypeError, "parameters are floating, got dtype int64"),
        (lambda: nn.Linear(3, 3, device="nosuch"), BackendError, "nosuch"),
        (lambda: nn.Conv2d(1, 0, 3), HyperParameterError, "out_channels must be an integer of at least 1 .* got 0"),
        (lambda: nn.Conv2d(1, 1, (3, 0)), HyperParameterError, r"kernel_size must be .* at least 1 .* got 0"),
        (lambda: nn.MaxPool2d(2, padding=-1), HyperParameterError, "padding must be .* at least 0 .* got -1"),
        (lambda: nn.Embedding(4, -1), HyperParameterError, "embedding_dim must be an integer of at least 1 .* got -1"),
        (lambda: nn.LayerNorm((3, 0)), HyperParameterError, r"extents of at least 1, got \(3, 0\)"),
        (lambda: nn.LayerNorm(3, eps=0.0), HyperParameterError, "eps must be a number, .*greater than 0, got 0.0"),
        (lambda: nn.Dropout(1.5), HyperParameterError, "p must be a number, at least 0 and at most 1, got 1.5"),
        (lambda: nn.GELU("erf"), HyperParameterError, "one of 'none', 'tanh', got 'erf'"),
        (lambda: nn.CrossEntropyLoss("avg"), HyperParameterError, "one of 'mean', 'sum', 'none', got 'avg'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), HyperParameterError, "at least 0 and at most 1, got 2"),
        (lambda: nn.MSELoss("avg"), HyperParameterError, "one of 'mean', 'sum', 'none', got 'avg'"),
        (lambda: nn.Sequential([nn.ReLU()]), TypeError, r"argument 0 is \[ReLU\(\)\]; unpack a list"),
        (lambda: nn.Module()(1), NotImplementedError, r"Module has no forward\(\)"),
    ],
)  # fmt: skip
def test_refusals(make, error, complaint):
    with netcl.use_backend("numpy"), pytest.raises(error, match=complaint):
        make()
