"""What the optimizers of the family show besides: launches, long resumes, optax's trajectories, averages."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import netcl
from netcl import optim
from netcl.amp import GradScaler
from netcl.errors import HyperParameterError, NetclError
from netcl.optim import (
    LAMB,
    LARS,
    SGD,
    AdaBelief,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    Lion,
    NAdam,
    RAdam,
    RMSProp,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from tests.optimizers import EVERY, FAMILY, SHORT, adan_oracle


def variable(values, backend, dtype="float32"):
    return netcl.asarray(np.asarray(values, dtype), device=backend.device, copy=True, requires_grad=True)


def counted(backend):
    return getattr(backend, "launches", 0)


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_forty_steps_are_twenty_and_twenty(case, backend):
    rng = np.random.default_rng(2)
    start, gradients = rng.standard_normal(1100), rng.standard_normal((40, 1100)).astype("float32")

    def taken(w, optimizer, gradients):
        for gradient in gradients:
            w.grad = netcl.asarray(gradient, device=backend.device)
            optimizer.step()
        return w.numpy()

    straight, first = variable(start, backend), variable(start, backend)
    whole = taken(straight, case.optimizer([straight], **case.options), gradients)
    optimizer = case.optimizer([first], **case.options)
    second = variable(taken(first, optimizer, gradients[:20]), backend)
    resumed = case.optimizer([second], **case.options)
    resumed.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert np.array_equal(taken(second, resumed, gradients[20:]), whole)


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", FAMILY, ids=str)
def test_one_launch_for_any_number_of_tensors_and_groups(case, backend):
    for count, groups in ((1, 1), (200, 1), (10, 10), (200, 10)):
        tensors = [netcl.ones(3, device=backend.device, requires_grad=True) for _ in range(count)]
        for tensor in tensors:
            tensor.grad = netcl.ones(3, device=backend.device)
        made = [{"params": tensors[i::groups], "lr": 1e-3 * (i + 1)} for i in range(groups)]
        optimizer = case.optimizer(made, **case.options)
        for _ in range(2):
            before = counted(backend)
            optimizer.step()
        assert counted(backend) - before == hasattr(backend, "launches")


# What optax 0.2.8 prints in the docstring of each: 14 at the start of sum(x**2) from (1, 2, 3), and after each step.
# Where defaults differ, optax's are given. Its Rprop takes a step that moves nothing first.
LIKE_CONSTANT = {"momentum_decay": 1e6}
OPTAX = {
    "sgd": (SGD, {"lr": 0.003}, [13.8, 13.7, 13.5, 13.3, 13.2]),
    "adam": (Adam, {"lr": 0.003}, [14.0, 13.9, 13.9, 13.9, 13.8]),
    "adamw": (AdamW, {"lr": 0.003, "weight_decay": 1e-4}, [14.0, 13.9, 13.9, 13.9, 13.8]),
    "amsgrad": (Adam, {"lr": 0.003, "amsgrad": True}, [14.0, 13.9, 13.9, 13.9, 13.8]),
    "nadam": (NAdam, {"lr": 0.003, **LIKE_CONSTANT}, [13.9, 13.9, 13.9, 13.8, 13.8]),
    "nadamw": (
        NAdam,
        {"lr": 0.003, "weight_decay": 1e-4, "decoupled_weight_decay": True, **LIKE_CONSTANT},
        [13.9, 13.9, 13.9, 13.8, 13.8],
    ),
    "adagrad": (
        Adagrad,
        {"lr": 1.0, "initial_accumulator_value": 0.1, "eps": 1e-7},
        [5.01, 2.40, 1.25, 0.686, 0.385],
    ),
    "adadelta": (Adadelta, {"lr": 10.0}, [13.6, 13.2, 12.9, 12.5, 12.1]),
    "adamax": (Adamax, {"lr": 0.003}, [14.0, 13.9, 13.9, 13.9, 13.8]),
    "rmsprop": (RMSProp, {"lr": 0.003, "alpha": 0.9}, [13.9, 13.8, 13.7, 13.7, 13.6]),
    "radam": (RAdam, {"lr": 0.003}, [13.8, 13.7, 13.5, 13.3, 13.2]),
    "rprop": (Rprop, {"lr": 0.003}, [14.0, 14.0, 13.9, 13.9, 13.8]),
    "lamb": (LAMB, {"lr": 0.003}, [13.9, 13.8, 13.8, 13.7, 13.6]),
    "lars": (LARS, {"lr": 0.003, "joint_norm": True}, [14.0, 14.0, 14.0, 14.0, 14.0]),
    "adafactor": (Adafactor, {"lr": 0.003}, [13.9, 13.8, 13.8, 13.7, 13.6]),
    "lion": (Lion, {"lr": 0.003, "weight_decay": 1e-3}, [14.0, 13.9, 13.9, 13.9, 13.8]),
    "adabelief": (AdaBelief, {"lr": 0.003}, [14.0, 13.9, 13.9, 13.8, 13.8]),
    "schedule_free_sgd": (ScheduleFreeSGD, {}, [14.0, 1.75e-14, 0.996, 0.806, 0.241]),
    "schedule_free_adamw": (ScheduleFreeAdamW, {"lr": 1.0}, [5.0, 3.05, 1.73, 0.894, 0.413]),
}
# The same runs in full, of those whose own rounding in float32 is smaller.
OPTAX_DIGITS = {
    "lion": [13.963942527770996, 13.927940368652344, 13.891990661621094, 13.856096267700195, 13.820255279541016],
    "adabelief": [13.960033416748047, 13.918095588684082, 13.874171257019043, 13.828259468078613, 13.780360221862793],
}


def descent(cls, options):
    w = netcl.asarray(np.array([1.0, 2.0, 3.0]), device="numpy", requires_grad=True)
    optimizer, found = cls([w], **options), []
    for _ in range(5):
        w.grad = 2.0 * w
        optimizer.step()
        averages = isinstance(optimizer, ScheduleFreeSGD | ScheduleFreeAdamW)
        if averages:
            optimizer.eval()
        found.append(float(np.sum(w.numpy() ** 2)))
        if averages:
            optimizer.train()
    return found


@pytest.mark.parametrize("name", OPTAX)
def test_the_trajectories_of_optax(name):
    """To the digits that are printed. At a minimum of 0 what is left is rounding."""
    cls, options, expected = OPTAX[name]
    found = descent(cls, options)
    printed = [float(f"{x:.2E}") for x in ([14.0, *found[:-1]] if name == "rprop" else found)]
    assert printed == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if name in OPTAX_DIGITS:
        assert found == pytest.approx(OPTAX_DIGITS[name], rel=1e-6)


def test_where_optax_departs_from_adan():
    """It has 1 - beta2 for the factor that paper and authors' code have as beta2; nothing else differs."""
    theta, step, found = np.array([1.0, 2.0, 3.0]), adan_oracle(lr=0.1, ahead=1 - 0.92), []
    for _ in range(5):
        theta = step(theta, 2 * theta)
        found.append(float(np.sum(theta**2)))
    optax = [12.829998970031738, 11.720708847045898, 10.672304153442383, 9.684951782226562, 8.758719444274902]
    assert found == pytest.approx(optax, rel=1e-6)
    assert descent(Adan, {"lr": 0.1})[1:] != pytest.approx(optax[1:], rel=1e-4)


@pytest.mark.parametrize("steps", [1, 5, 6, 400, 5000, 10**6])
@pytest.mark.parametrize("beta2", [0.9, 0.999, 0.9999])
def test_rectification_keeps_its_digits(beta2, steps, backend):
    """In float32, where the terms of the length of the average cancel."""
    w = variable([1.0], backend)
    optimizer = RAdam([w], lr=0.5, betas=(0.0, beta2))
    state = optimizer.state_dict()
    state["state"][0].update(step=steps - 1, exp_avg_sq=np.full(1, 0.25, "float32"))
    optimizer.load_state_dict(state)
    w.grad = variable([0.5], backend)
    optimizer.step()
    length = 2 / (1 - beta2) - 1 - 2 * steps * beta2**steps / -np.expm1(steps * np.log(beta2))
    longest, expected = 2 / (1 - beta2) - 1, 0.5
    if length > 5:
        r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        expected *= r * np.sqrt(-np.expm1(steps * np.log(beta2))) / 0.5
    assert 1.0 - w.item() == pytest.approx(0.5 * expected, rel=1e-5, abs=1e-7)


def test_start_values_are_a_group_s_own(backend):
    """Also of a parameter whose first step comes later."""
    a, b, c = (variable([1.0], backend) for _ in range(3))
    optimizer = Adagrad([{"params": [a]}, {"params": [b, c], "initial_accumulator_value": 3.0}], lr=1.0)
    sizes = Rprop([{"params": [variable([1.0], backend)]}, {"params": [variable([1.0], backend)], "lr": 0.5}], lr=0.1)
    for step in range(2):
        a.grad, b.grad = variable([1.0], backend), variable([1.0], backend)
        c.grad = variable([1.0], backend) if step else None
        optimizer.step()
    total = [float(entry["sum"].item()) for entry in optimizer.state_dict()["state"].values()]
    assert total == [2.0, 5.0, 4.0]
    for group in sizes.param_groups:
        group["params"][0].grad = variable([2.0], backend)
    sizes.step()
    moved = [1.0 - group["params"][0].item() for group in sizes.param_groups]
    assert moved == pytest.approx([0.1, 0.5], rel=1e-6)


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", FAMILY, ids=str)
def test_zero_gradients_make_no_nan(case, backend):
    w = variable([1.0, 0.0], backend)
    optimizer = case.optimizer([w], **case.options)
    for _ in range(3):
        w.grad = variable([0.0, 0.0], backend)
        optimizer.step()
    assert np.isfinite(w.numpy()).all()
    assert all(np.isfinite(field).all() for field in optimizer.state_dict()["state"][0].values())


def test_tiny_gradients_have_a_sign(backend):
    """Their product would be 0 in float32."""
    w = variable([0.0], backend)
    optimizer = Rprop([w], lr=0.5)
    for gradient in (1e-30, 1e-30, -1e-30):
        w.grad = variable([gradient], backend)
        optimizer.step()
    assert optimizer.state_dict()["state"][0]["step_size"].tolist() == pytest.approx([0.5 * 1.2 * 0.5])


# -- Averages ----------------------------------------------------------------------------------------------------------

AVERAGING = pytest.mark.parametrize("case", [case for case in FAMILY if "Free" in case.optimizer.__name__], ids=str)


def steps(optimizer, tensors, rng, oracles=(), thetas=()):
    for i, tensor in enumerate(tensors):
        gradient = rng.standard_normal(tensor.shape).astype("float32")
        tensor.grad = netcl.astype(netcl.asarray(gradient, device=tensor.device), tensor.dtype)
        if oracles:
            thetas[i] = oracles[i](thetas[i], gradient.astype("float64"))
    optimizer.step()


@AVERAGING
def test_evaluation_is_at_the_average(case, backend):
    """Of tensors, of one that has not moved, and of a view; two groups with their own options."""
    rng = np.random.default_rng(5)
    values = [rng.standard_normal(n).astype("float32") for n in (1500, 7, 1030, 5)]
    shelf = netcl.asarray(np.concatenate([values[2], values[2]]), device=backend.device, copy=True)
    tensors = [variable(values[0], backend), variable(values[1], backend), shelf[1030:], variable(values[3], backend)]
    tensors[2].requires_grad = True
    name, other = ("momentum", 0.5) if case.optimizer is ScheduleFreeSGD else ("betas", (0.5, 0.999))
    optimizer = case.optimizer([{"params": tensors[:2]}, {"params": tensors[2:], name: other}], **case.options)
    optimizer.eval()
    optimizer.train()
    oracles = [case.oracle(), case.oracle(), type(case)(case.optimizer, {**case.options, name: other}).oracle()]
    thetas = [x.astype("float64") for x in values[:3]]
    for _ in range(2):
        for _ in range(5):
            steps(optimizer, tensors[:3], rng, oracles, thetas)
        at = [tensor.numpy() for tensor in tensors]
        before = tensors[0].version if hasattr(tensors[0], "version") else None
        optimizer.eval()
        optimizer.eval()
        averages = [oracle.average for oracle in oracles]
        for tensor, average in zip(tensors, averages, strict=False):
            np.testing.assert_allclose(tensor.numpy(), average, rtol=2e-5, atol=2e-6)
        assert np.array_equal(tensors[3].numpy(), values[3])
        assert before is None or tensors[0].version > before
        optimizer.train()
        for tensor, value in zip(tensors, at, strict=True):
            np.testing.assert_allclose(tensor.numpy(), value, rtol=1e-5, atol=1e-6)
    assert np.array_equal(shelf.numpy()[:1030], values[2])


@AVERAGING
def test_no_step_in_evaluation(case, backend):
    w = variable([1.0, 2.0], backend)
    optimizer, scaler = case.optimizer([w], **case.options), GradScaler()
    scaler.scale(netcl.ones((), device=backend.device))
    steps(optimizer, [w], np.random.default_rng(0))
    optimizer.eval()
    at = w.numpy()
    for step in (optimizer.step, lambda: scaler.step(optimizer), lambda: scaler.unscale_(optimizer)):
        with pytest.raises(NetclError, match=r"call train\(\) on the optimizer before the next step"):
            step()
    with pytest.raises(HyperParameterError, match="train_mode"):
        optimizer.param_groups[0]["train_mode"] = True
    assert np.array_equal(w.numpy(), at)
    optimizer.train()
    optimizer.step()


@AVERAGING
def test_a_checkpoint_knows_where_its_parameters_are(case, backend):
    rng = np.random.default_rng(3)
    first = variable(rng.standard_normal(1100), backend)
    optimizer = case.optimizer([first], **case.options)
    for _ in range(4):
        steps(optimizer, [first], rng)
    optimizer.eval()
    second = variable(first.numpy(), backend)
    resumed = case.optimizer([second], **case.options)
    resumed.load_state_dict(optimizer.state_dict())
    for each, w in ((optimizer, first), (resumed, second)):
        each.train()
        steps(each, [w], np.random.default_rng(4))
    assert np.array_equal(first.numpy(), second.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_averages_of_short_parameters_come_from_their_masters(dtype, backend):
    start = np.random.default_rng(7).standard_normal(1100)
    w = netcl.astype(variable(start, backend), dtype)
    w.requires_grad = True
    long = variable(netcl.astype(w, "float32").numpy(), backend)
    pairs = [(ScheduleFreeSGD([x], lr=0.01), x) for x in (w, long)]
    for _ in range(5):
        for optimizer, x in pairs:
            gradient = netcl.astype(variable(np.random.default_rng(9).standard_normal(1100), backend), dtype)
            x.grad = netcl.astype(gradient, x.dtype)
            optimizer.step()
    for optimizer, _ in pairs:
        optimizer.eval()
    expected = netcl.astype(netcl.astype(long, dtype), "float32").numpy()
    assert np.mean(netcl.astype(w, "float32").numpy() != expected) < 0.01
    for optimizer, _ in pairs:
        optimizer.train()
    np.testing.assert_allclose(pairs[0][0].state_dict()["state"][0]["master"], long.numpy(), rtol=1e-5, atol=1e-6)


def test_averages_of_host_arrays(backend):
    plain = [np.ones(5, np.float32), np.full(1030, 2.0, np.float32)]
    tensors = [variable(x, backend) for x in plain]
    ours, theirs = ScheduleFreeSGD(plain, lr=0.1, backend=backend), ScheduleFreeSGD(tensors, lr=0.1)
    rng = np.random.default_rng(1)
    for _ in range(3):
        grads = [rng.standard_normal(x.shape).astype("float32") for x in plain]
        for tensor, grad in zip(tensors, grads, strict=True):
            tensor.grad = netcl.asarray(grad, device=backend.device)
        ours.step(grads=grads)
        theirs.step()
    for mode in ("eval", "train"):
        for optimizer in (ours, theirs):
            getattr(optimizer, mode)()
        assert all(np.array_equal(x, tensor.numpy()) for x, tensor in zip(plain, tensors, strict=True))


def test_a_falling_rate_weighs_less():
    """As in the paper; the weights of the authors' code keep the largest rate."""
    w = netcl.asarray(np.array([1.0]), device="numpy", requires_grad=True)
    optimizer = ScheduleFreeSGD([w], lr=1.0)
    z = x = 1.0
    total = 0.0
    for lr in (1.0, 0.5, 0.1):
        optimizer.lr = lr
        w.grad = netcl.asarray(np.array([0.25]), device="numpy")
        optimizer.step()
        z -= lr * 0.25
        total += lr**2
        x += lr**2 / total * (z - x)
    assert w.item() == pytest.approx(0.1 * z + 0.9 * x, rel=1e-12)


def test_the_second_spelling():
    assert optim.RMSprop is optim.RMSProp
