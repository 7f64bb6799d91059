"""float16 and bfloat16 parameters that are the rounded copy of float32 ones."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.amp import GradScaler
from netcl.optim import SGD, AdamW, NAdam, Rprop, ScheduleFreeAdamW
from tests.optimizers import CASES, FAMILY, SHORT

DTYPES = ["float16", "bfloat16"]
SOME = CASES + [
    case for case in FAMILY if case.optimizer in (NAdam, Rprop, ScheduleFreeAdamW)
]  # a kernel for each dtype


def sixteen_bits(values, dtype, backend, requires_grad=True):
    x = netcl.astype(netcl.asarray(np.asarray(values, "float32"), device=backend.device), dtype)
    x.requires_grad = requires_grad
    return x


def wide(x):
    return netcl.astype(x, "float32").numpy()


def rounded(values, dtype):
    """The nearest values of a 16-bit dtype, from float64."""
    if dtype == "float16":
        return values.astype("float16").astype("float32")
    bits = values.astype("float32").view("uint32")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("uint32").view("float32")


@pytest.mark.compiled(rows=lambda row: (SOME.index(row["case"]) + DTYPES.index(row["dtype"])) % 2 == 0)
@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_parameter_is_the_rounded_float32_one(case, dtype, backend):
    """As a float32 parameter with the same gradients, rounded: so it moves however small the steps are."""
    rng = np.random.default_rng(3)
    start = wide(sixteen_bits(rng.standard_normal(1100), dtype, backend))
    short = sixteen_bits(start, dtype, backend)
    long = netcl.asarray(start, device=backend.device, requires_grad=True)
    optimizers = [case.optimizer([x], **case.options) for x in (short, long)]
    for _ in range(12):
        short.grad = sixteen_bits(rng.standard_normal(1100), dtype, backend, requires_grad=False)
        long.grad = netcl.astype(short.grad, "float32")
        for optimizer in optimizers:
            optimizer.step()
    expected = rounded(long.numpy(), dtype)
    # The hand-written Adam of float32 may differ from the traced one in the last bit, and so round differently.
    np.testing.assert_allclose(wide(short), expected, rtol=2.0**-7 if dtype == "bfloat16" else 2.0**-10)
    assert np.mean(wide(short) != expected) < 0.005
    assert not np.array_equal(wide(short), start)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_group_may_do_without(dtype, backend):
    kept, plain = (sixteen_bits([1.0], dtype, backend) for _ in range(2))
    optimizer = SGD([{"params": [kept]}, {"params": [plain], "master_weights": False}], lr=1e-4)
    for _ in range(100):
        kept.grad, plain.grad = (sixteen_bits([1.0], dtype, backend, requires_grad=False) for _ in range(2))
        optimizer.step()
    assert wide(kept).item() == pytest.approx(0.99, abs=2.0**-8)
    assert wide(plain).item() == 1.0
    assert len(optimizer.partitions) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rule_continues_from_what_was_written_outside(dtype, backend):
    w = sixteen_bits([1.0, 1.0, 300.0], dtype, backend)
    optimizer = SGD([w], lr=2.0**-14)
    w.grad = sixteen_bits([1.0, 1.0, 1.0], dtype, backend, requires_grad=False)
    optimizer.step()
    before = wide(w)
    w[1] = 8.0
    w[2] = 0.001
    optimizer.step()
    state = optimizer.state_dict()["state"][0]["master"]
    start = wide(sixteen_bits([0.001], dtype, backend)).item()
    np.testing.assert_allclose(state, [1.0 - 2.0**-13, 8.0 - 2.0**-14, start - 2.0**-14], rtol=1e-7)
    assert wide(w)[0] == before[0]


def test_what_a_sixteen_bit_parameter_cannot_hold(backend):
    w = sixteen_bits([65000.0, float("nan"), 1.0], "float16", backend)
    optimizer = SGD([w], lr=1.0)
    for gradient in (-1000.0, 2000.0):
        w.grad = sixteen_bits([gradient, 1.0, 0.0], "float16", backend, requires_grad=False)
        optimizer.step()
        if gradient < 0.0:
            assert wide(w)[0] == np.inf
    # The copy went past the largest float16 and came back.
    assert wide(w)[0] == np.float16(64000.0)
    assert np.isnan(wide(w)[1])
    assert wide(w)[2] == 1.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("saved", ["whole", "without master weights"])
def test_resuming(dtype, saved, backend):
    rng = np.random.default_rng(2)
    start = rng.standard_normal(40)
    gradients = [rng.standard_normal(40) for _ in range(8)]

    def train(w, optimizer, steps):
        for gradient in steps:
            w.grad = sixteen_bits(gradient, dtype, backend, requires_grad=False)
            optimizer.step()

    w = sixteen_bits(start, dtype, backend)
    optimizer = AdamW([w], lr=1e-3)
    train(w, optimizer, gradients[:4])
    state = optimizer.state_dict()
    assert state["state"][0]["master"].dtype == np.float32
    if saved != "whole":
        del state["state"][0]["master"]
    resumed = sixteen_bits(wide(w), dtype, backend)
    again = AdamW([resumed], lr=1e-3)
    again.load_state_dict(state)
    train(w, optimizer, gradients[4:])
    train(resumed, again, gradients[4:])
    if saved == "whole":
        assert np.array_equal(wide(resumed), wide(w))
        assert np.array_equal(optimizer.state_dict()["state"][0]["master"], again.state_dict()["state"][0]["master"])
    else:
        np.testing.assert_allclose(wide(resumed), wide(w), rtol=2.0**-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_skipped_step_changes_no_byte(dtype, backend):
    w = sixteen_bits([1.0, 2.0], dtype, backend)
    optimizer, scaler = AdamW([w], lr=0.1), GradScaler(init_scale=4.0)
    scaler.scale(netcl.ones(1, device=backend.device))

    def step(values):
        w.grad = sixteen_bits(values, dtype, backend, requires_grad=False)
        scaler.step(optimizer)
        scaler.update()
        state = optimizer.state_dict()["state"][0]
        return wide(w).tobytes(), [np.asarray(x).tobytes() for x in state.values()]

    before = step([4.0, 8.0])
    assert step([float("inf"), 8.0]) == before
    assert step([4.0, 8.0]) != before


def test_adding_a_group_with_master_weights(backend):
    first, second = (sixteen_bits([1.0], "bfloat16", backend) for _ in range(2))
    optimizer = SGD([first], lr=1e-4, momentum=0.5, master_weights=False)
    first.grad = sixteen_bits([1.0], "bfloat16", backend, requires_grad=False)
    optimizer.step()
    optimizer.add_param_group({"params": [second], "master_weights": True})
    for _ in range(100):
        second.grad = sixteen_bits([1.0], "bfloat16", backend, requires_grad=False)
        optimizer.step()
    assert wide(first).item() == 1.0
    assert wide(second).item() < 0.985


def test_master_weights_may_be_asked_for_later(backend):
    w = sixteen_bits([1.0], "bfloat16", backend)
    optimizer = SGD([w], lr=1e-4, momentum=0.5, master_weights=False)
    w.grad = sixteen_bits([1.0], "bfloat16", backend, requires_grad=False)
    for _ in range(10):
        optimizer.step()
    assert wide(w).item() == 1.0
    optimizer.param_groups[0]["master_weights"] = True
    for _ in range(60):
        optimizer.step()
    assert wide(w).item() == pytest.approx(1.0 - 60 * 2e-4, abs=2.0**-9)
    optimizer.param_groups[0]["master_weights"] = False
    before = wide(w).item()
    optimizer.step()
    assert wide(w).item() == before


def test_wider_parameters_have_no_copy(backend):
    w = netcl.ones(3, device=backend.device, requires_grad=True)
    assert "master" not in AdamW([w]).state_dict()["state"][0]
