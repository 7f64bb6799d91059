"""Steps in the backward pass: the same numbers as from steps after it, and no two gradients at once."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.amp import GradScaler
from netcl.errors import ArgumentError, HyperParameterError, NetclError
from netcl.optim import LAMB, LBFGS, SGD, AdamW, ConstantLR, Lion, Muon, RMSprop, ScheduleFreeSGD

CASES = {
    "AdamW": (AdamW, {}),
    "SGD": (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "RMSprop": (RMSprop, {"centered": True}),
    "LAMB": (LAMB, {}),
    "Lion": (Lion, {}),
    "ScheduleFreeSGD": (ScheduleFreeSGD, {}),
    "8 bits": (AdamW, {"state_dtype": "8bit"}),
}

X = np.random.default_rng(0).normal(size=(16, 12)).astype("f4")
Y = np.arange(16) % 4


class Net(nn.Module):
    """Weights that several operations read, one of them as a constant, and one that none reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.tied = nn.Linear(12, 12, bias=False)
        self.last = nn.Linear(12, 4)
        self.unused = nn.Linear(2, 2)

    def __call__(self, x):
        x = netcl.tanh(self.first(x))
        x = self.tied(netcl.tanh(self.tied(x)))
        return self.last(x) + netcl.mean(self.last.weight.detach() * 0.5)


def made(cls, options, release=None, seed=0):
    netcl.manual_seed(seed)
    model = Net()
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim == 2]
    optimizer = cls(matrices if cls is Muon else model.named_parameters(), lr=0.02, **options)
    if release is not None:
        optimizer.release_gradients(**release)
    return model, optimizer


def passes(model, optimizer, count, step=None):
    for _ in range(count):
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(netcl.asarray(X)), netcl.asarray(Y))
        tape.backward(loss)
        if step is not None:
            step(optimizer)
            optimizer.zero_grad()


def weights(model):
    return {name: p.numpy() for name, p in model.named_parameters()}


@pytest.mark.short(name=("AdamW", "LAMB"))
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_steps_afterwards(backend, name):
    cls, options = CASES[name]
    with netcl.use_backend(backend):
        model, optimizer = made(cls, options)
        passes(model, optimizer, 4, lambda o: o.step())
        other, releasing = made(cls, options, {})
        passes(other, releasing, 4)
        expected, found = weights(model), weights(other)
        for each in expected:
            np.testing.assert_allclose(found[each], expected[each], rtol=1e-6, atol=1e-7, err_msg=each)
        assert all(p.grad is None for p in other.parameters())
        steps = {k: v["step"] for k, v in releasing.state_dict()["state"].items()}
        assert steps == {k: v["step"] for k, v in optimizer.state_dict()["state"].items()}
        assert set(steps.values()) == {0, 4}  # the unused layer takes no part


def test_a_parameter_is_not_written_while_the_backward_pass_reads_it():
    """In x @ w @ w the gradient of x needs w as it was, whatever order the derivatives come in."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 5)).astype("f4")
    found = []
    for release in (False, True):
        x, w = (netcl.asarray(values + i, requires_grad=True) for i in (0, 1))
        optimizer = SGD([w, x], lr=0.01)
        if release:
            optimizer.release_gradients()
        with ag.Tape() as tape:
            loss = netcl.sum(netcl.exp((x @ w @ w) * 0.01) * w * x)
        tape.backward(loss)
        if not release:
            optimizer.step()
        found.append((x.numpy(), w.numpy()))
    for expected, released in zip(*found, strict=True):
        np.testing.assert_array_equal(released, expected)


def test_the_norm_of_the_last_pass_clips(backend):
    """The first pass is not clipped; each later one by the norm of all gradients of the one before."""
    targets = [np.array([3.0, 4.0], "f4"), np.array([12.0], "f4")]
    with netcl.use_backend(backend):
        parameters = [netcl.zeros(t.size, requires_grad=True) for t in targets]
        optimizer = SGD(parameters, lr=0.25)
        optimizer.release_gradients(max_norm=1.0)
        expected, norm = [np.zeros_like(t) for t in targets], None
        for _ in range(4):
            with ag.Tape() as tape:
                losses = [netcl.sum((p - netcl.asarray(t)) ** 2) for p, t in zip(parameters, targets, strict=True)]
                loss = losses[0] + losses[1]
            tape.backward(loss)
            gradients = [2 * (p - t) for p, t in zip(expected, targets, strict=True)]
            factor = 1.0 if norm is None else min(1.0, 1.0 / norm)
            norm = float(np.sqrt(sum((g**2).sum() for g in gradients)))
            expected = [p - 0.25 * factor * g for p, g in zip(expected, gradients, strict=True)]
        for p, wanted in zip(parameters, expected, strict=True):
            np.testing.assert_allclose(p.numpy(), wanted, rtol=1e-5)


def test_gradients_never_pile_up(backend, monkeypatch):
    """What is in use when a gradient is complete: parameters, state, what the tape keeps, and few gradients."""
    pool = getattr(getattr(backend, "queue", None), "pool", None)
    if pool is None:
        pytest.skip("a backend that does not count its memory")
    layers, size = 8, 512 * 512 * 4
    in_use = []

    def largest(release):
        with netcl.use_backend(backend):
            model = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(layers)))
            optimizer = SGD(model.parameters(), lr=1e-3)
            if release:
                optimizer.release_gradients()
            gc.collect()
            before = pool.reserved - pool.unused
            del in_use[:]
            with ag.Tape() as tape:
                loss = netcl.sum(model(netcl.ones((2, 512))))
            tape.backward(loss)
            return before, max(in_use, default=0), pool.reserved - pool.unused

    from netcl.optim.engine.gradient_release import GradientRelease

    step = GradientRelease.gradient_ready

    def watched(self, leaf):
        in_use.append(pool.reserved - pool.unused)
        step(self, leaf)

    monkeypatch.setattr(GradientRelease, "gradient_ready", watched)
    before, most, _ = largest(release=True)
    assert len(in_use) == layers
    assert most - before < 3 * size  # the gradient, and what one operation takes beside it
    before_kept, _, after_kept = largest(release=False)
    assert after_kept <= before_kept + size  # the arena of all gradients was there before
    assert before_kept - before >= 0


def test_schedules_groups_and_checkpoints_go_on(tmp_path):
    def start(seed):
        netcl.manual_seed(seed)
        model = Net()
        groups = [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(model.parameters())]
        optimizer = AdamW(groups)
        optimizer.release_gradients(max_norm=2.0)
        return model, optimizer, ConstantLR(optimizer, factor=0.5, total_iters=3)

    model, optimizer, schedule = start(0)
    for _ in range(2):
        passes(model, optimizer, 1)
        schedule.step()
    netcl.save(tmp_path / "run", model=model, optimizer=optimizer, schedule=schedule)
    again, other, later = start(5)
    netcl.load(tmp_path / "run", model=again, optimizer=other, schedule=later)
    for name, array in weights(model).items():
        np.testing.assert_array_equal(weights(again)[name], array)
    assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
    passes(again, other, 1)
    assert {v["step"] for v in other.state_dict()["state"].values()} == {0, 3}


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_release_too(how):
    model, optimizer = made(AdamW, {}, {"max_norm": 1.0})
    passes(model, optimizer, 2)
    pair = model, optimizer
    other, copied = copy.deepcopy(pair) if how == "deepcopy" else pickle.loads(pickle.dumps(pair))
    passes(other, copied, 1)
    assert all(p.grad is None for p in other.parameters())
    assert {v["step"] for v in copied.state_dict()["state"].values()} == {0, 3}


def test_without_its_optimizer_a_parameter_keeps_its_gradient():
    w = netcl.ones(3, requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    optimizer.release_gradients(max_norm=1.0)
    partition = weakref.ref(optimizer.partitions[0])
    del optimizer
    gc.collect()
    assert partition() is None  # nor does the hook keep the state
    with ag.Tape() as tape:
        loss = netcl.sum(w * w)
    tape.backward(loss)
    assert w.tolist() == [1.0, 1.0, 1.0]
    assert w.grad.tolist() == [2.0, 2.0, 2.0]
    SGD([w], lr=0.25).release_gradients()  # of an optimizer that is gone at once
    optimizer = SGD([w], lr=0.25)
    optimizer.release_gradients()  # nobody waits any more
    with ag.Tape() as tape:
        loss = netcl.sum(w * w)
    tape.backward(loss)
    assert w.tolist() == [0.5, 0.5, 0.5]


def test_what_needs_all_gradients_is_refused():
    w = netcl.ones(3, requires_grad=True)
    optimizer = SGD([w], lr=0.1)
    optimizer.release_gradients()
    with pytest.raises(NetclError, match=r"step\(\) needs the gradients of all parameters"):
        optimizer.step()
    scaler = GradScaler()
    with ag.Tape():
        scaler.scale(netcl.sum(w))
    with pytest.raises(NetclError, match="needs the gradients of all parameters"):
        scaler.step(optimizer)
    with pytest.raises(NetclError, match=r"add_param_group\(\) needs"):
        optimizer.add_param_group({"params": [netcl.ones(2, requires_grad=True)]})
    with pytest.raises(NetclError, match="waited for already"):
        optimizer.release_gradients()
    with pytest.raises(NetclError, match="waited for already"):
        SGD([w], lr=0.1).release_gradients()
    with pytest.raises(NetclError, match="host arrays"):
        SGD([np.ones(3, "f4")]).release_gradients()
    with pytest.raises(NetclError, match="all gradients of a step together"):
        LBFGS([netcl.ones(2, requires_grad=True)]).release_gradients()
    for bad in (-1.0, float("nan"), "1", None, True):
        if bad is not None:
            with pytest.raises((HyperParameterError, ArgumentError)):
                SGD([netcl.ones(2, requires_grad=True)]).release_gradients(max_norm=bad)
    mixed = [netcl.ones(2, dtype=dtype, requires_grad=True, device="numpy") for dtype in ("float32", "float64")]
    with pytest.raises(HyperParameterError, match="takes one norm"):
        SGD(mixed).release_gradients(max_norm=1.0)
    assert all(p.grad_hook is None for p in mixed)
    assert w.tolist() == [1.0, 1.0, 1.0]
