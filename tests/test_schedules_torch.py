"""Every schedule against torch's of the same name: 300 steps, sequences and chains, and resuming."""

from __future__ import annotations

import math

import pytest

import netcl
from netcl import optim
from netcl.optim import SGD, Adam

torch = pytest.importorskip("torch")

# The peers' parameters have no gradients, so that no step would do anything.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning")

STEPS = 300
SCHEDULES = {
    "constant": ("ConstantLR", {"factor": 0.3, "total_iters": 40}),
    "constant by default": ("ConstantLR", {}),
    "linear": ("LinearLR", {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 130}),
    "linear by default": ("LinearLR", {}),
    "step": ("StepLR", {"step_size": 30, "gamma": 0.7}),
    "multistep": ("MultiStepLR", {"milestones": [200, 20, 20, 131], "gamma": 0.3}),
    "exponential": ("ExponentialLR", {"gamma": 0.98}),
    "polynomial": ("PolynomialLR", {"total_iters": 310, "power": 1.7}),
    "polynomial to 0": ("PolynomialLR", {"total_iters": 100, "power": 2.0}),
    "lambda": ("LambdaLR", {"lr_lambda": lambda step: 0.99**step * (2 + math.sin(step))}),
    "lambdas": ("LambdaLR", {"lr_lambda": [lambda step: 0.95**step, lambda step: 1 / (1 + step)]}),
    "multiplicative": ("MultiplicativeLR", {"lr_lambda": lambda step: 0.97 + 0.02 * math.cos(step)}),
    "cosine": ("CosineAnnealingLR", {"T_max": 301, "eta_min": 0.003}),
    "restarts": ("CosineAnnealingWarmRestarts", {"T_0": 17, "eta_min": 0.003}),
    "longer restarts": ("CosineAnnealingWarmRestarts", {"T_0": 9, "T_mult": 3, "eta_min": 0.003}),
    "triangular": ("CyclicLR", {"base_lr": [0.01, 0.02], "max_lr": [0.1, 0.3], "step_size_up": 13}),
    "triangular2": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 16, "step_size_down": 48, "mode": "triangular2"},
    ),
    "exp_range": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 20, "mode": "exp_range", "gamma": 0.99},
    ),
    "scale_fn": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 20, "scale_fn": lambda cycle: 1 / cycle},
    ),
    "cyclic rate alone": ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7, "cycle_momentum": False}),
    "one cycle": ("OneCycleLR", {"max_lr": [0.5, 0.7], "total_steps": 301}),
    "one cycle of lines": (
        "OneCycleLR",
        {"max_lr": 0.5, "epochs": 7, "steps_per_epoch": 44, "pct_start": 0.4, "anneal_strategy": "linear"},
    ),
    "one cycle in three": ("OneCycleLR", {"max_lr": 0.5, "total_steps": 301, "three_phase": True, "div_factor": 10.0}),
    "averaging": ("SWALR", {"swa_lr": 0.05, "anneal_epochs": 60}),
    "averaging by lines": ("SWALR", {"swa_lr": [0.05, 0.4], "anneal_epochs": 30, "anneal_strategy": "linear"}),
    "averaging at once": ("SWALR", {"swa_lr": 0.05, "anneal_epochs": 0}),
}
EVERY = pytest.mark.parametrize("name", SCHEDULES)


def ours(kind=SGD):
    def weight():
        return netcl.ones(1, device="numpy", requires_grad=True)

    options = {"momentum": 0.9} if kind is SGD else {}
    return kind([{"params": [weight()]}, {"params": [weight()], "lr": 1.0}], lr=0.1, **options)


def theirs(kind=SGD):
    weights = [torch.ones(1, requires_grad=True) for _ in range(2)]
    groups = [{"params": weights[:1]}, {"params": weights[1:], "lr": 1.0}]
    peer = torch.optim.SGD(groups, lr=0.1, momentum=0.9) if kind is SGD else torch.optim.Adam(groups, lr=0.1)
    return peer


def ours_of(name, optimizer):
    kind, options = SCHEDULES[name]
    return getattr(optim, kind)(optimizer, **options)


def theirs_of(name, optimizer):
    kind, options = SCHEDULES[name]
    module = torch.optim.swa_utils if kind == "SWALR" else torch.optim.lr_scheduler
    return getattr(module, kind)(optimizer, **options)


def settings(optimizer):
    """Learning rates, and momenta or betas."""
    groups = optimizer.param_groups
    return [float(g["lr"]) for g in groups] + [
        float(g["momentum"] if "momentum" in g else g["betas"][0]) for g in groups
    ]


def same(optimizer, peer, step, absolute=0.0):
    assert settings(optimizer) == pytest.approx(settings(peer), rel=1e-12, abs=absolute), step


@EVERY
def test_as_torchs_and_resumed_from_every_tenth_step(name):
    optimizer, peer = ours(), theirs()
    schedule, other = ours_of(name, optimizer), theirs_of(name, peer)
    resumed = []
    for step in range(STEPS + 1):
        same(optimizer, peer, step)
        for again, second in resumed:
            assert settings(again) == settings(optimizer), step
            second.step()
        if step % 10 == 0:
            again = ours()
            again.load_state_dict(optimizer.state_dict())
            second = ours_of(name, again)
            second.load_state_dict(schedule.state_dict())
            assert (settings(again), second.state_dict()) == (settings(optimizer), schedule.state_dict())
            second.step()
            resumed = [*resumed[-1:], (again, second)]
        schedule.step()
        if step < STEPS:
            other.step()


@pytest.mark.parametrize("name", ["triangular", "one cycle", "one cycle in three"])
def test_beta1_is_cycled(name):
    optimizer, peer = ours(Adam), theirs(Adam)
    schedule, other = ours_of(name, optimizer), theirs_of(name, peer)
    for step in range(STEPS):
        same(optimizer, peer, step)
        schedule.step()
        other.step()
    assert optimizer.param_groups[0]["betas"][1] == 0.999


# Of the others torch overwrites what those before made, or adds what only holds alone.
MULTIPLY = ["constant", "linear", "step", "multistep", "exponential", "polynomial", "multiplicative"]
CHAINS = [["constant", "exponential"], ["linear", "step", "multistep"], MULTIPLY]


@pytest.mark.parametrize("names", CHAINS, ids=" ".join)
@pytest.mark.parametrize("chained", [False, True])
def test_together(names, chained):
    optimizer, peer = ours(), theirs()
    schedules = [ours_of(name, optimizer) for name in names]
    others = [theirs_of(name, peer) for name in names]
    if chained:
        schedules = [optim.ChainedScheduler(schedules)]
        others = [torch.optim.lr_scheduler.ChainedScheduler(others)]
    for step in range(STEPS):
        same(optimizer, peer, step)
        if step % 10 == 0:
            again = ours()
            second = [ours_of(name, again) for name in names]
            second = [optim.ChainedScheduler(second)] if chained else second
            for new, old in zip(second, schedules, strict=True):
                new.load_state_dict(old.state_dict())
            for each in (*second, *schedules):
                each.step()
            assert settings(again) == settings(optimizer)
        else:
            for each in schedules:
                each.step()
        for each in others:
            each.step()


SEQUENCES = [
    (["linear by default", "cosine"], [30]),
    (["linear", "exponential", "step"], [50, 170]),
    (["constant", "polynomial to 0", "restarts"], [40, 180]),
    (["step", "lambda"], [100]),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize(("names", "milestones"), SEQUENCES)
def test_one_after_the_other(names, milestones):
    optimizer, peer = ours(), theirs()

    def sequence(opt):
        return optim.SequentialLR(opt, [ours_of(name, opt) for name in names], milestones)

    schedule = sequence(optimizer)
    other = torch.optim.lr_scheduler.SequentialLR(peer, [theirs_of(name, peer) for name in names], milestones)
    for step in range(STEPS):
        same(optimizer, peer, step)
        schedule.step()
        other.step()
        if step % 10 == 0:
            again = ours()
            second = sequence(again)
            second.load_state_dict(schedule.state_dict())
            assert settings(again) == settings(optimizer)
            assert second.preview(20) == schedule.preview(20)


def test_minimal_rates_of_groups():
    optimizer, peer = ours(), theirs()
    plateau = optim.ReduceLROnPlateau(optimizer, factor=0.3, patience=1, min_lr=[0.002, 0.05])
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, factor=0.3, patience=1, min_lr=[0.002, 0.05])
    for step in range(40):
        plateau.step(1.0)
        other.step(1.0)
        same(optimizer, peer, step)
    assert plateau.get_last_lr() == [0.002, 0.05]
