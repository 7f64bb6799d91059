"""autocast and the loss scaler."""

from __future__ import annotations

import math

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.amp import GradScaler, autocast
from netcl.errors import DTypeError, HyperParameterError, NetclError, StateError
from netcl.optim import SGD, AdamW, AMPGradScaler, clip_grad_norm
from tests.optimizers import EVERY, SHORT

HALVES = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


def parameter(values, backend, grad=None):
    tensor = netcl.asarray(np.asarray(values, "float32"), device=backend.device, copy=True, requires_grad=True)
    if grad is not None:
        tensor.grad = netcl.asarray(np.asarray(grad, "float32"), device=backend.device)
    return tensor


def scaled_backward(scaler, w, coefficients):
    """Gradients of ``Σ w·coefficients``, carrying the loss scale; the loss is scaled after the tape's block."""
    with ag.Tape() as tape:
        loss = netcl.sum(w * netcl.asarray(np.asarray(coefficients, "float32"), device=w.device))
    tape.backward(scaler.scale(loss))


@HALVES
def test_products_are_lowered_and_the_rest_is_not(dtype, backend):
    x = netcl.ones((4, 3), device=backend.device)
    weight = netcl.ones((2, 3), device=backend.device, requires_grad=True)
    with ag.Tape() as tape, autocast(dtype):
        product = netcl.matmul(x, netcl.matrix_transpose(weight))
        linear = ag.linear(x, weight)
        outcomes = [netcl.sum(product), netcl.mean(product), ag.softmax(product), ag.mse_loss(product, linear)]
        with autocast(enabled=False):
            assert netcl.matmul(x, netcl.matrix_transpose(weight)).dtype is netcl.float32
        loss = ag.cross_entropy(linear, netcl.zeros(4, dtype=netcl.int64, device=backend.device))
    assert product.dtype is linear.dtype is getattr(netcl, dtype)
    assert {outcome.dtype for outcome in (*outcomes, loss)} == {netcl.float32}
    tape.backward(loss)
    assert weight.grad.dtype is netcl.float32
    np.testing.assert_allclose(weight.grad.numpy(), [[-0.5] * 3, [0.5] * 3], rtol=1e-2)
    assert netcl.matmul(x, netcl.matrix_transpose(weight)).dtype is netcl.float32


@HALVES
def test_convolutions_are_lowered(dtype, backend):
    images = netcl.ones((2, 1, 4, 4), device=backend.device, requires_grad=True)
    weight, bias = (netcl.ones(shape, device=backend.device, requires_grad=True) for shape in ((3, 1, 2, 2), (3,)))
    with ag.Tape() as tape, autocast(dtype):
        out = netcl.functional.conv2d(images, weight, bias)
    assert out.dtype is getattr(netcl, dtype)
    tape.backward(out, seed=netcl.ones(out.shape, dtype=dtype, device=backend.device))
    assert {x.grad.dtype for x in (images, weight, bias)} == {netcl.float32}
    assert weight.grad.tolist() == [[[[18.0, 18.0], [18.0, 18.0]]]] * 3
    assert bias.grad.tolist() == [18.0] * 3
    assert images.grad.numpy()[0, 0].tolist() == [[3, 6, 6, 3], [6, 12, 12, 6], [6, 12, 12, 6], [3, 6, 6, 3]]


@HALVES
def test_gradients_of_float32_weights_round_once(dtype, backend):
    """A sum over a batch keeps what 16 bits would lose, so that it may also be added up in parts."""
    x = netcl.ones((2049, 1), device=backend.device)
    weight, bias = (netcl.ones(shape, device=backend.device, requires_grad=True) for shape in ((1, 1), (1,)))
    other = netcl.ones((1, 1), device=backend.device, requires_grad=True)
    with ag.Tape() as tape, autocast(dtype):
        out = ag.linear(x, weight, bias) + netcl.matmul(x, other)
    tape.backward(out, seed=netcl.ones(out.shape, dtype=dtype, device=backend.device))
    assert [p.grad.item() for p in (weight, bias, other)] == [2049.0] * 3


def test_sums_of_products_are_float32(backend):
    """A float16 accumulator would stop at 2048."""
    row = netcl.ones((1, 5000), device=backend.device)
    with autocast():
        assert netcl.matmul(row, netcl.matrix_transpose(row)).item() == 5000.0


def test_autocast_leaves_float64_alone():
    x = netcl.ones((2, 2), dtype=netcl.float64, backend="numpy")
    with autocast():
        assert netcl.matmul(x, x).dtype is netcl.float64


def test_autocast_takes_sixteen_bits_only():
    with pytest.raises(DTypeError, match="autocast takes float16 or bfloat16, got float32"):
        autocast("float32")


def test_a_scaled_step_is_the_step(backend):
    plain, scaled = parameter([1.0, -2.0], backend), parameter([1.0, -2.0], backend)
    one, two, scaler = AdamW([plain], lr=0.1), AdamW([scaled], lr=0.1), GradScaler(init_scale=1024.0)
    for coefficients in ([0.5, 3.0], [-1.0, 0.25]):
        plain.grad = parameter(coefficients, backend)
        one.step()
        scaled_backward(scaler, scaled, coefficients)
        assert scaled.grad.numpy().tolist() == [1024 * c for c in coefficients]
        scaler.step(two)
        scaler.update()
        two.zero_grad()
    assert np.array_equal(plain.numpy(), scaled.numpy())


@pytest.mark.compiled(rows=lambda row: math.isnan(row["bad"]) == (EVERY.index(row["case"]) % 2 == 0))
@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", EVERY, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_skipped_step_changes_no_byte(case, bad, backend):
    rng = np.random.default_rng(8)
    tensors = [parameter(rng.standard_normal(n), backend) for n in (1500, 3)]
    optimizer, scaler = case.optimizer(tensors, **case.options), GradScaler(init_scale=8.0)

    def step(spoiled):
        for tensor in tensors:
            coefficients = rng.standard_normal(tensor.size)
            if spoiled and tensor.size == 3:
                coefficients[1] = bad
            scaled_backward(scaler, tensor, coefficients)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    def everything():
        state = optimizer.state_dict()["state"]
        return [
            *(tensor.numpy().tobytes() for tensor in tensors),
            *(np.asarray(value).tobytes() for entry in state.values() for value in entry.values()),
        ]

    step(False)
    before = everything()
    step(True)
    assert everything() == before
    assert (scaler.get_scale(), scaler.steps_skipped) == (4.0, 1)
    step(False)
    assert everything() != before


def test_a_skipped_first_step_leaves_the_next_one_first(backend):
    skipped, fresh = parameter([1.0], backend), parameter([1.0], backend)
    one, two, scaler = AdamW([skipped], lr=0.1), AdamW([fresh], lr=0.1), GradScaler(init_scale=2.0)
    for coefficient in (math.inf, 3.0):
        scaled_backward(scaler, skipped, [coefficient])
        scaler.step(one)
        scaler.update()
        one.zero_grad()
    fresh.grad = parameter([3.0], backend)
    two.step()
    assert skipped.item() == fresh.item()
    # A plain step after a skipped one is not skipped.
    scaled_backward(scaler, skipped, [math.nan])
    scaler.step(one)
    skipped.grad = parameter([3.0], backend)
    one.step()
    two.step()
    assert skipped.item() == fresh.item()


def test_growth_backoff_and_floor(backend):
    w = parameter([0.0], backend)
    optimizer = SGD([w], lr=0.0)
    scaler = GradScaler(init_scale=4.0, growth_interval=2, min_scale=2.0)
    scales = []
    for coefficient in (1, 1, 1, math.inf, 1, 1, math.nan, math.nan, math.nan):
        scaled_backward(scaler, w, [coefficient])
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        scales.append(scaler.get_scale())
    assert scales == [4, 8, 8, 4, 4, 8, 4, 2, 2]
    assert scaler.steps_skipped == 4


def test_the_scale_does_not_grow_beyond_what_float32_inverts(backend):
    w = parameter([0.0], backend)
    optimizer, scaler = SGD([w], lr=0.0), GradScaler(init_scale=2.0**126, growth_interval=1)
    scaled_backward(scaler, w, [0.0])
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**126


def test_clipping_sees_unscaled_gradients(backend):
    folded, unscaled = parameter([0.0, 0.0], backend), parameter([0.0, 0.0], backend)
    one, two = SGD([folded], lr=1.0), SGD([unscaled], lr=1.0)
    first, second = GradScaler(), GradScaler()
    scaled_backward(first, folded, [3.0, 4.0])
    first.step(one, max_norm=1.0)
    first.update()
    scaled_backward(second, unscaled, [3.0, 4.0])
    second.unscale_(two)
    assert unscaled.grad.numpy().tolist() == [3.0, 4.0]
    assert clip_grad_norm([unscaled], 1.0) == 5.0
    second.step(two)
    second.update()
    assert folded.numpy() == pytest.approx([-0.6, -0.8])
    assert unscaled.numpy() == pytest.approx([-0.6, -0.8])


def test_unscaling_finds_what_clipping_would_hide(backend):
    w = parameter([1.0], backend)
    optimizer, scaler = SGD([w], lr=1.0), GradScaler(init_scale=2.0)
    scaled_backward(scaler, w, [math.inf])
    scaler.unscale_(optimizer)
    w.grad = parameter([1.0], backend)
    scaler.step(optimizer)
    scaler.update()
    assert (w.item(), scaler.get_scale()) == (1.0, 1.0)


def test_several_optimizers_decide_each_for_itself(backend):
    a, b = parameter([1.0], backend), parameter([1.0], backend)
    one, two, scaler = SGD([a], lr=0.5), SGD([b], lr=0.5), GradScaler(init_scale=4.0)
    scaled_backward(scaler, a, [1.0])
    scaled_backward(scaler, b, [math.nan])
    scaler.step(one)
    scaler.step(two)
    scaler.update()
    assert (a.item(), b.item(), scaler.get_scale(), scaler.steps_skipped) == (0.5, 1.0, 2.0, 1)


def test_accumulation(backend):
    w = parameter([0.0], backend)
    optimizer, scaler = SGD([w], lr=1.0), GradScaler(init_scale=16.0)
    for coefficient in (1.0, 2.0):
        scaled_backward(scaler, w, [coefficient])
    scaler.step(optimizer)
    assert w.item() == -3.0


def test_parameters_of_several_dtypes_skip_together():
    a = netcl.asarray(np.ones(2), backend="numpy", requires_grad=True)
    b = netcl.asarray(np.ones(2, "float32"), backend="numpy", requires_grad=True)
    optimizer, scaler = SGD([a, b], lr=1.0), GradScaler(init_scale=2.0)
    scaled_backward(scaler, b, [1.0, math.inf])
    a.grad = netcl.ones(2, dtype=netcl.float64, backend="numpy")
    scaler.step(optimizer)
    assert (a.numpy().tolist(), b.numpy().tolist()) == ([1, 1], [1, 1])


def test_disabled_is_transparent(backend):
    w = parameter([1.0], backend)
    optimizer, scaler = SGD([w], lr=0.5), GradScaler(enabled=False)
    scaled_backward(scaler, w, [1.0])
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert (w.item(), scaler.get_scale(), scaler.state_dict()) == (0.5, 1.0, {})


def test_resuming_and_taking_over_from_torch(backend):
    scaler = GradScaler(init_scale=32.0, growth_interval=2)
    w = parameter([1.0], backend)
    optimizer = SGD([w], lr=0.5)
    scaled_backward(scaler, w, [1.0])
    scaler.step(optimizer)
    scaler.update()
    resumed = GradScaler()
    resumed.load_state_dict(scaler.state_dict())
    assert resumed.state_dict() == scaler.state_dict()
    torch_state = {
        "scale": 8.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 10,
        "_growth_tracker": 3,
    }
    scaler.load_state_dict(torch_state)
    assert (scaler.get_scale(), scaler.state_dict()["growth_tracker"]) == (8.0, 3)
    with pytest.raises(StateError, match="lacks 'scale'"):
        scaler.load_state_dict({})
    assert scaler.get_scale() == 8.0


def test_calls_out_of_order_are_refused(backend):
    w = parameter([1.0], backend)
    optimizer, scaler = SGD([w], lr=0.5), GradScaler()
    with pytest.raises(NetclError, match="no loss has been scaled yet"):
        scaler.step(optimizer)
    scaled_backward(scaler, w, [1.0])
    with pytest.raises(NetclError, match="found no step since the last call"):
        scaler.update()
    scaler.step(optimizer)
    with pytest.raises(NetclError, match="already called for this optimizer"):
        scaler.step(optimizer)
    with pytest.raises(NetclError, match="already called for this optimizer"):
        scaler.unscale_(optimizer)
    scaler.update()


@pytest.mark.parametrize(
    "options",
    [
        {"init_scale": 0.0},
        {"init_scale": math.inf},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"growth_interval": 0},
        {"min_scale": 0.0},
    ],
    ids=str,
)
def test_bad_values_are_refused(options):
    with pytest.raises(HyperParameterError, match=next(iter(options))):
        GradScaler(**options)


def test_the_specification_names_the_scaler():
    assert AMPGradScaler is GradScaler


@HALVES
def test_training_in_half_precision_learns(dtype, backend):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((256, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int64")
    with netcl.use_backend(backend.device):
        model = nn.Sequential(nn.Linear(8, 32, generator=0), nn.ReLU(), nn.Linear(32, 2, generator=1))
        optimizer, scaler = AdamW(model.parameters(), lr=0.02), GradScaler()
        inputs, labels = netcl.asarray(x), netcl.asarray(y)
        losses = []
        for _ in range(60):
            with ag.Tape() as tape, autocast(dtype):
                loss = ag.cross_entropy(model(inputs), labels)
            tape.backward(scaler.scale(loss))
            scaler.step(optimizer, max_norm=1.0)
            scaler.update()
            optimizer.zero_grad()
            losses.append(loss)
    assert losses[-1].item() < 0.4 * losses[0].item()
