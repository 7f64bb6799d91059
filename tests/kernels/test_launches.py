"""How many kernels a step enqueues and how often training waits, by the counters of the backend."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.optim import SGD, AdamW, WarmupCosine, clip_grad_norm_device
from tests.optimizers import EVERY, SHORT

pytestmark = pytest.mark.short(opencl=())  # what the host does, for which one runtime is enough

STEPS = 20


def parameters(opencl, count, size=10):
    tensors = [netcl.ones(size, device=opencl.device, requires_grad=True) for _ in range(count)]
    for tensor in tensors:
        tensor.grad = netcl.ones(size, device=opencl.device)
    return tensors


def launches(opencl, optimizer, **options):
    """Of one step in the steady state, and how often it blocked."""
    # The first step makes the bias corrections; a plain one after a clipped one resets the factor.
    for _ in range(2):
        optimizer.step(**options)
    before = opencl.launches, opencl.blocking
    optimizer.step(**options)
    return opencl.launches - before[0], opencl.blocking - before[1]


@pytest.mark.parametrize("groups", [1, 10])
@pytest.mark.parametrize("count", [1, 10, 1000])
def test_launches_do_not_grow_with_the_model(count, groups, opencl):
    tensors = parameters(opencl, count)
    optimizer = AdamW([{"params": tensors[i::groups], "lr": 1e-3 * (i + 1)} for i in range(min(groups, count))])
    assert launches(opencl, optimizer) == (1, 0)
    assert launches(opencl, optimizer, max_norm=1.0) == (3, 0)
    assert launches(opencl, optimizer) == (1, 0)


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_every_optimizer_is_one_launch(case, opencl):
    optimizer = case.optimizer(parameters(opencl, 3, 1500), **case.options)
    assert launches(opencl, optimizer) == (1, 0)
    assert launches(opencl, optimizer, max_norm=1.0) == (3, 0)


def test_added_groups_join_the_launch(opencl):
    tensors = parameters(opencl, 12)
    optimizer = AdamW(tensors[:3])
    before = opencl.blocking
    for tensor in tensors[3:]:
        optimizer.step()
        optimizer.add_param_group({"params": [tensor], "lr": 0.01})
    assert opencl.blocking == before
    assert len(optimizer.param_groups) == 10
    assert launches(opencl, optimizer) == (1, 0)
    assert launches(opencl, optimizer, max_norm=1.0) == (3, 0)


def test_clipping_beforehand_is_three_launches_too(opencl):
    tensors = parameters(opencl, 20)
    optimizer = AdamW(tensors)
    for _ in range(3):
        before = opencl.launches, opencl.blocking
        clip_grad_norm_device(tensors, max_norm=1.0)
        optimizer.step()
        counts = opencl.launches - before[0], opencl.blocking - before[1]
        optimizer.zero_grad(set_to_none=False)
    assert counts == (3, 0)


def test_gradients_forgotten_one_by_one_cost_no_launch(opencl):
    """As ``model.zero_grad()`` does it: the factor that was left for a step does not reach the next gradients."""
    w = netcl.ones(5, device=opencl.device, requires_grad=True)
    optimizer = SGD([w], lr=1.0)
    for _ in range(3):
        with ag.Tape() as tape:
            loss = netcl.sum(w * 2.0)
        before = opencl.launches
        tape.backward(loss)
        backward = opencl.launches - before
        assert w.grad.tolist() == [2.0] * 5
        norm = clip_grad_norm_device([w], max_norm=1.0)
        optimizer.step()
        w.grad = None
    assert float(norm) == pytest.approx(20.0**0.5)
    assert backward == 2  # the seed, and the product


def test_a_mean_over_workers_costs_no_launch(opencl):
    tensors = parameters(opencl, 20)
    optimizer = AdamW(tensors)
    for partition in optimizer.partitions:
        partition.average(4)
    assert launches(opencl, optimizer) == (1, 0)
    assert launches(opencl, optimizer, max_norm=1.0) == (3, 0)


def test_master_weights_cost_no_launch(opencl):
    tensors = [netcl.ones(100, dtype="bfloat16", device=opencl.device, requires_grad=True) for _ in range(4)]
    for tensor in tensors:
        tensor.grad = netcl.ones(100, dtype="bfloat16", device=opencl.device)
    optimizer = AdamW([{"params": tensors[:2]}, {"params": tensors[2:], "master_weights": False}])
    assert launches(opencl, optimizer) == (1, 0)
    assert launches(opencl, optimizer, max_norm=1.0) == (3, 0)


def test_inactive_parameters_cost_no_launch(opencl):
    tensors = parameters(opencl, 20)
    optimizer = AdamW(tensors)
    for tensor in tensors[::2]:
        tensor.grad = None
    assert launches(opencl, optimizer) == (1, 0)


def test_a_schedule_costs_no_launch(opencl):
    optimizer = AdamW(parameters(opencl, 3))
    optimizer.step()
    before = opencl.launches, opencl.blocking
    for step in range(STEPS):
        optimizer.lr = 1e-3 * (step + 1)
        optimizer.step()
    assert (opencl.launches - before[0], opencl.blocking - before[1]) == (STEPS, 0)


def test_clearing_gradients_is_one_fill_or_none(opencl):
    optimizer = SGD(parameters(opencl, 100))
    before = opencl.launches
    optimizer.zero_grad(set_to_none=False)
    assert opencl.launches == before + 1
    optimizer.zero_grad()
    assert opencl.launches == before + 1


@pytest.mark.parametrize("folded", [True, False], ids=["step(max_norm)", "clip_grad_norm_device"])
def test_training_waits_for_nothing(folded, opencl):
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)).to(str(opencl.device))
    optimizer = AdamW([{"params": model.parameters()}], lr=0.01)
    schedule = WarmupCosine(optimizer, warmup_steps=5, total_steps=STEPS)
    batches = [
        (
            netcl.asarray(rng.standard_normal((8, 20), dtype=np.float32), device=opencl.device),
            netcl.asarray(rng.integers(0, 4, 8), device=opencl.device),
        )
        for _ in range(STEPS)
    ]
    before = opencl.blocking
    for x, y in batches:
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(x), y)
        tape.backward(loss)
        if folded:
            optimizer.step(max_norm=1.0)
        else:
            clip_grad_norm_device(model.parameters(), max_norm=1.0)
            optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    assert opencl.blocking == before
    loss.item()
    assert opencl.blocking == before + 1


def test_the_gradient_of_pooled_images_is_one_launch(opencl):
    x = netcl.ones((2, 3, 8, 8), device=opencl.device, requires_grad=True)
    with ag.Tape() as tape:
        y = ag.max_pool2d(x, 2)
    before = opencl.launches
    tape.backward(y, seed=y)
    assert opencl.launches == before + 1
