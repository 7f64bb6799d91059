"""Copies and pickles of optimizers, schedules and scalers go on bit for bit, or are refused with the remedy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import child_process, nn
from netcl.amp import GradScaler
from netcl.errors import NetclError
from netcl.optim import SGD, Adam, AdamW, CosineAnnealingLR, Optimizer, ReduceLROnPlateau, Rule, WarmupCosine
from tests.optimizers import EVERY, SHORT
from tests.snapshots import frozen, snapshot


def parameters(device, dtype="float32"):
    rng = np.random.default_rng(0)
    made = [netcl.asarray(rng.standard_normal(n), dtype=dtype, device=device) for n in (1500, 3)]
    for tensor in made:
        tensor.requires_grad = True
    return made


def train(optimizer, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = netcl.asarray(rng.standard_normal(p.shape), dtype=p.dtype, device=p.device)
        optimizer.step()


def values(optimizer):
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    return [frozen(p.astype("float32").numpy()) for p in tensors]


def pickled(x):
    return pickle.loads(pickle.dumps(x))


WAYS = pytest.mark.parametrize("way", [copy.deepcopy, pickled])


@pytest.mark.short(case=SHORT)
@WAYS
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_training_goes_on_bit_for_bit(case, way, backend):
    first = case.optimizer(parameters(backend.device), **case.options)
    train(first, 3)
    second = way(first)
    before = values(first)
    assert type(second) is type(first)
    assert values(second) == before
    assert frozen(second.state_dict()) == frozen(first.state_dict())
    train(second, 3, seed=2)
    assert values(first) == before
    train(first, 3, seed=2)
    assert values(second) == values(first)
    assert frozen(second.state_dict()) == frozen(first.state_dict())


@WAYS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_master_weights_come_along(dtype, way, backend):
    first = AdamW(parameters(backend.device, dtype), lr=1e-4)
    train(first, 3)
    second = way(first)
    for optimizer in (first, second):
        train(optimizer, 3, seed=2)
    assert frozen(second.state_dict()) == frozen(first.state_dict())


@WAYS
@pytest.mark.parametrize("order", [1, -1])
def test_a_model_and_its_optimizer_stay_together(order, way, backend):
    with netcl.use_backend(backend.device):
        model = nn.Sequential(nn.Linear(4, 8, generator=0), nn.ReLU(), nn.Linear(8, 2, generator=1))
        x, y = netcl.asarray(np.ones((5, 4), "float32")), netcl.zeros(5, dtype="int64")
    optimizer = Adam(model.named_parameters(), lr=0.01)
    schedule = WarmupCosine(optimizer, 2, 10)
    scaler = GradScaler(init_scale=8.0)

    def step(model, optimizer, schedule, scaler):
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(x), y)
        tape.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad()

    one = (model, optimizer, schedule, scaler)
    for _ in range(3):
        step(*one)
    two = way(one[::order])[::order]
    assert two[2].optimizer is two[1]
    assert [id(p) for p in two[0].parameters()] == [id(p) for p in two[1].param_groups[0]["params"]]
    for _ in range(3):
        step(*one)
        step(*two)
    assert frozen(two[0].state_dict()) == frozen(one[0].state_dict())
    for first, second in zip(one[1:], two[1:], strict=True):
        assert frozen(second.state_dict()) == frozen(first.state_dict())


def test_a_gradient_goes_along_with_a_deep_copy(backend):
    first = SGD(parameters(backend.device), momentum=0.5)
    for p in first.param_groups[0]["params"]:
        p.grad = netcl.ones(p.shape, device=p.device)
    second = copy.deepcopy(first)
    first.step()
    second.step()
    assert values(second) == values(first)


@WAYS
@pytest.mark.parametrize(
    "make",
    [lambda o: CosineAnnealingLR(o, 7), lambda o: WarmupCosine(o, 2, 9), lambda o: ReduceLROnPlateau(o, patience=0)],
)
def test_a_schedule_brings_its_optimizer(make, way):
    first = make(SGD(parameters("numpy"), lr=1.0))
    args = (1.0,) if isinstance(first, ReduceLROnPlateau) else ()
    for _ in range(3):
        first.step(*args)
    second = way(first)
    assert second.optimizer is not first.optimizer
    first.step(*args)
    second.step(*args)
    assert second.state_dict() == first.state_dict()
    assert second.get_last_lr() == first.get_last_lr() == [second.optimizer.lr]


def test_another_process_goes_on(tmp_path):
    optimizer = AdamW([("w", p) for p in parameters("numpy")[:1]], lr=0.01)
    train(optimizer, 3)
    (tmp_path / "optimizer").write_bytes(pickle.dumps(optimizer))
    program = (
        "import pathlib, pickle, netcl\n"
        "optimizer = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "p, = optimizer.param_groups[0]['params']\n"
        "p.grad = netcl.ones(p.shape, device=p.device)\n"
        "optimizer.step()\n"
        "print(p.numpy().tobytes().hex())\n"
    )
    found = child_process.run_python(program, str(tmp_path / "optimizer"), timeout=120)
    (p,) = optimizer.param_groups[0]["params"]
    p.grad = netcl.ones(p.shape, device=p.device)
    optimizer.step()
    assert found.output.strip() == p.numpy().tobytes().hex(), found.errors


def descend(p, g, s, h):
    return p - h.lr * g


def numbers(group):
    return {"lr": group["lr"]}


class Descent(Optimizer):
    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr}, Rule(descend, numbers))
        self.note = ["mine"]


class Nameless(Optimizer):
    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr}, Rule(lambda p, g, s, h: p - h.lr * g, lambda group: {"lr": group["lr"]}))


def test_optimizers_of_ones_own(backend):
    for kind, ways in ((Descent, (copy.deepcopy, pickled)), (Nameless, (copy.deepcopy,))):
        for way in ways:
            first = kind(parameters(backend.device))
            train(first, 1)
            second = way(first)
            assert getattr(second, "note", None) == getattr(first, "note", None)
            for optimizer in (first, second):
                train(optimizer, 2)
            assert values(second) == values(first)
    first = Nameless(parameters("numpy"))
    before = snapshot(first)
    with pytest.raises(NetclError, match=r"Nameless cannot be pickled.*state_dict\(\)"):
        pickle.dumps(first)
    assert snapshot(first) == before


def test_copies_that_would_be_wrong_are_refused():
    base = netcl.ones(4000, device="numpy")
    refused = [
        (SGD([np.ones(3, "float32")]), (copy.deepcopy, pickle.dumps, copy.copy)),
        (SGD([base[:2000], base[2000:]]), (copy.deepcopy, pickle.dumps, copy.copy)),
        (SGD(parameters("numpy")), (copy.copy,)),
    ]
    for optimizer, ways in refused:
        for way in ways:
            with pytest.raises(NetclError, match=r"state_dict\(\)"):
                way(optimizer)


def test_groups_copy_as_plain_dicts():
    optimizer = SGD(parameters("numpy"), lr=0.5)
    for made in (copy.copy(optimizer.param_groups[0]), copy.deepcopy(optimizer.param_groups)[0]):
        assert type(made) is dict
        made["lr"] = -1.0
    assert optimizer.lr == 0.5


@WAYS
def test_a_scaler_is_copied_between_steps(way, backend):
    w = netcl.ones(3, device=backend.device, requires_grad=True)
    optimizer, scaler = SGD([w]), GradScaler(init_scale=4.0, growth_interval=2)
    assert way(scaler).state_dict() == scaler.state_dict()
    for _ in range(3):
        w.grad = netcl.ones(3, device=backend.device)
        scaler.scale(netcl.sum(w))
        scaler.step(optimizer)
        with pytest.raises(NetclError, match=r"call update\(\) first"):
            way(scaler)
        scaler.update()
        second = way(scaler)
        assert second.state_dict() == scaler.state_dict()
    assert scaler.get_scale() == 8.0
    second.scale(netcl.sum(w))
    second.step(optimizer)
    second.update()
    assert (second.get_scale(), scaler.get_scale()) == (16.0, 8.0)
