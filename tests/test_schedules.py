"""Schedules against their closed forms, and the plateau's counting."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.errors import HyperParameterError, StateError
from netcl.optim import SGD, CosineAnnealingLR, ReduceLROnPlateau, WarmupCosine


def make(lr=0.1):
    a, b = (netcl.ones(1, backend="numpy") for _ in range(2))
    return SGD([{"params": a}, {"params": b, "lr": 1.0}], lr=lr)


@given(t_max=st.integers(1, 60), eta_min=st.floats(0, 0.05), epochs=st.integers(0, 130))
def test_cosine_annealing_is_its_closed_form(t_max, eta_min, epochs):
    optimizer = make()
    schedule = CosineAnnealingLR(optimizer, T_max=t_max, eta_min=eta_min)
    for _ in range(epochs):
        schedule.step()
    for group, base in zip(optimizer.param_groups, (0.1, 1.0), strict=True):
        expected = eta_min + (base - eta_min) * (1 + math.cos(math.pi * epochs / t_max)) / 2
        assert group["lr"] == pytest.approx(expected, abs=1e-15)


@given(warmup=st.integers(0, 30), decay=st.integers(1, 50), steps=st.integers(0, 100), start=st.floats(0, 1))
def test_warmup_cosine_is_its_closed_form(warmup, decay, steps, start):
    optimizer = make()
    schedule = WarmupCosine(optimizer, warmup, warmup + decay, eta_min=0.01, warmup_start=start)
    for _ in range(steps):
        schedule.step()
    if steps < warmup:
        expected = 0.1 * (start + (1 - start) * steps / warmup)
    elif steps >= warmup + decay:
        expected = 0.01
    else:
        expected = 0.01 + 0.09 * (1 + math.cos(math.pi * (steps - warmup) / decay)) / 2
    assert optimizer.lr == pytest.approx(expected, abs=1e-15)
    if steps == warmup:
        assert optimizer.lr == pytest.approx(0.1, abs=1e-15)


def test_resuming_gives_the_same_rates():
    first, second = make(), make()
    one, two = CosineAnnealingLR(first, 10), CosineAnnealingLR(second, 10)
    for _ in range(4):
        one.step()
    two.load_state_dict(one.state_dict())
    assert second.lr == first.lr
    with pytest.raises(StateError, match="lacks 'last_step'"):
        two.load_state_dict({})
    assert second.lr == first.lr


def run_plateau(metrics, **options):
    optimizer = make(lr=1.0)
    plateau = ReduceLROnPlateau(optimizer, **options)
    rates = []
    for metric in metrics:
        plateau.step(metric)
        rates.append(optimizer.lr)
    return rates


def test_plateau_counts_bad_measurements():
    assert run_plateau([1, 1, 1, 1, 1], patience=2) == [1, 1, 1, 0.5, 0.5]
    assert run_plateau([1, 2, 3, 4], mode="max", patience=0) == [1, 1, 1, 1]
    assert run_plateau([4, 3, 3, 3], mode="max", patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5]
    assert run_plateau([1, float("nan"), float("nan")], patience=1) == [1, 1, 0.5]


def test_plateau_thresholds():
    assert run_plateau([1.0, 0.95], threshold=0.1, patience=0) == [1, 0.5]
    assert run_plateau([1.0, 0.85], threshold=0.1, patience=0) == [1, 1]
    assert run_plateau([10.0, 9.5], threshold=0.1, threshold_mode="abs", patience=0) == [1, 1]
    # The margin is a share of |best|, so that a negative metric has to fall too.
    assert run_plateau([-1.0, -1.05], threshold=0.1, patience=0) == [1, 0.5]
    assert run_plateau([-1.0, -1.2], threshold=0.1, patience=0) == [1, 1]


def test_plateau_floor_and_eps():
    assert run_plateau([1, 1, 1, 1], patience=0, min_lr=0.3) == [1, 0.5, 0.3, 0.3]
    assert run_plateau([1, 1], patience=0, eps=0.6) == [1, 1]


def test_plateau_takes_a_tensor_and_resumes():
    optimizer = make(lr=1.0)
    plateau = ReduceLROnPlateau(optimizer, patience=0)
    plateau.step(netcl.asarray(1.0, backend="numpy"))
    plateau.step(netcl.asarray(1.0, backend="numpy"))
    other = make(lr=1.0)
    resumed = ReduceLROnPlateau(other, patience=0)
    resumed.load_state_dict(plateau.state_dict())
    assert (other.lr, resumed.best) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: CosineAnnealingLR(o, 0), "T_max must be at least 1, got 0"),
        (lambda o: CosineAnnealingLR(o, 2.5), "T_max must be a whole number"),
        (lambda o: WarmupCosine(o, 10, 10), "total_steps must exceed warmup_steps=10, got 10"),
        (lambda o: WarmupCosine(o, 1, 10, warmup_start=2.0), r"warmup_start must lie in \[0, 1\]"),
        (lambda o: ReduceLROnPlateau(o, mode="low"), 'mode must be "min" or "max", got \'low\''),
        (lambda o: ReduceLROnPlateau(o, factor=1.0), r"factor must lie in \(0, 1\), got 1.0"),
        (lambda o: ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode"),
        (lambda o: ReduceLROnPlateau(o).step("low"), "step takes the measured metric"),
        (lambda o: CosineAnnealingLR([o], 3), "takes an optimizer, got list"),
    ],
)
def test_bad_values_are_refused(build, message):
    optimizer = make()
    with pytest.raises(HyperParameterError, match=message):
        build(optimizer)
    assert optimizer.lr == 0.1
