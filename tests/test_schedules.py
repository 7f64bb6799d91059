"""Schedules against their closed forms, and the plateau's counting."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.errors import ArgumentError, HyperParameterError, StateError
from netcl.optim import SGD, CosineAnnealingLR, ReduceLROnPlateau, WarmupCosine
from netcl.optim.schedules import Schedule
from tests.snapshots import snapshot


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
    with pytest.raises(StateError, match="lacks 'schedule'"):
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
        (lambda o: CosineAnnealingLR(o, 0), "T_max must be an integer of at least 1 .*, got 0"),
        (lambda o: CosineAnnealingLR(o, 2.5), "T_max must be an integer of at least 1 .*, got 2.5"),
        (lambda o: WarmupCosine(o, 10, 10), "total_steps must exceed warmup_steps=10, got 10"),
        (
            lambda o: WarmupCosine(o, 1, 10, warmup_start=2.0),
            "warmup_start .* at least 0 and at most 1, got 2.0",
        ),
        (lambda o: ReduceLROnPlateau(o, mode="low"), "mode must be one of 'min', 'max', got 'low'"),
        (
            lambda o: ReduceLROnPlateau(o, factor=1.0),
            "factor must .*greater than 0 and less than 1, got 1.0",
        ),
        (lambda o: ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode"),
        (lambda o: ReduceLROnPlateau(o).step("low"), "step takes the measured metric"),
        (lambda o: CosineAnnealingLR([o], 3), "takes an optimizer, got \\[SGD"),
    ],
)
def test_bad_values_are_refused(build, message):
    optimizer = make()
    with pytest.raises(HyperParameterError, match=message):
        build(optimizer)
    assert optimizer.lr == 0.1


KINDS = {
    "cosine": lambda o: CosineAnnealingLR(o, 10, eta_min=0.01),
    "warmup": lambda o: WarmupCosine(o, 3, 20, eta_min=0.01, warmup_start=0.1),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=0, cooldown=1),
}
EVERY_KIND = pytest.mark.parametrize("make_schedule", KINDS.values(), ids=KINDS)


def advance(schedule, steps=1):
    for _ in range(steps):
        schedule.step(*((1.0,) if isinstance(schedule, ReduceLROnPlateau) else ()))


def weight():
    return netcl.ones(1, backend="numpy", requires_grad=True)


def single(lr=0.1):
    return SGD([weight()], lr=lr)


@EVERY_KIND
@given(
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    rates=st.lists(st.floats(1e-3, 10.0), min_size=1, max_size=3),
    late=st.booleans(),
)
def test_a_run_with_added_groups_resumes(make_schedule, before, after, rates, late):
    """Into a schedule that was built over all groups, or over the first one and then got the others."""
    optimizer = single(lr=0.5)
    schedule = make_schedule(optimizer)
    advance(schedule, before)
    for rate in rates:
        optimizer.add_param_group({"params": [weight()], "lr": rate})
    advance(schedule, after)
    saved = optimizer.state_dict(), schedule.state_dict()

    again = single(lr=0.125)
    resumed = make_schedule(again) if late else None
    for _ in rates:
        again.add_param_group({"params": [weight()]})
    resumed = resumed or make_schedule(again)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for _ in range(4):
        assert resumed.get_last_lr() == schedule.get_last_lr()
        assert resumed.state_dict() == schedule.state_dict()
        advance(schedule)
        advance(resumed)


def test_added_groups_start_from_their_own_rate():
    optimizer = single(lr=1.0)
    schedule = CosineAnnealingLR(optimizer, 10)
    advance(schedule, 3)
    optimizer.add_param_group({"params": [weight()], "lr": 0.5})
    assert schedule.get_last_lr()[1] == 0.5
    advance(schedule)
    factor = (1 + math.cos(math.pi * 0.4)) / 2
    assert schedule.get_last_lr() == pytest.approx([factor, 0.5 * factor])
    assert schedule.base_lrs == [group["initial_lr"] for group in optimizer.param_groups] == [1.0, 0.5]


def test_a_second_schedule_starts_from_the_first_rate():
    optimizer = single(lr=1.0)
    first = CosineAnnealingLR(optimizer, 10)
    advance(first, 5)
    second = WarmupCosine(optimizer, 0, 10)
    assert (second.base_lrs, optimizer.lr) == ([1.0], pytest.approx(0.5))
    first.detach()
    assert (second.base_lrs, optimizer.lr) == ([1.0], 1.0)
    with pytest.raises(ArgumentError, match="detached"):
        first.step()


@EVERY_KIND
def test_a_state_brings_its_settings(make_schedule):
    schedule = make_schedule(single(lr=1.0))
    advance(schedule, 4)
    other = type(schedule)(single(lr=1.0), *({CosineAnnealingLR: (77,), WarmupCosine: (5, 50)}.get(type(schedule), ())))
    other.load_state_dict(schedule.state_dict())
    advance(schedule, 3)
    advance(other, 3)
    assert other.state_dict() == schedule.state_dict()
    assert other.get_last_lr() == schedule.get_last_lr()


@pytest.mark.parametrize(
    ("make_schedule", "old"),
    [
        (KINDS["cosine"], {"last_step": 4, "base_lrs": [0.5]}),
        (KINDS["warmup"], {"last_step": 4, "base_lrs": [0.5]}),
        (KINDS["plateau"], {"best": 1.0, "num_bad_epochs": 0, "cooldown_counter": 1, "lrs": [0.25]}),
    ],
)
def test_states_of_before_they_said_their_kind(make_schedule, old):
    schedule = make_schedule(single(lr=1.0))
    made_since = {"lrs", "factors"}
    settings = {name: value for name, value in schedule.state_dict().items() if name not in {*old, *made_since}}
    schedule.load_state_dict(old)
    state = schedule.state_dict()
    assert {name: value for name, value in state.items() if name in {*settings, *old}} == {**settings, **old}
    expected = old.get("lrs") or [schedule.lr_at(4, 0.5)]
    assert schedule.get_last_lr() == state["lrs"] == expected


BAD_COUNTS = [None, "1", "x", True, -1, 1.5, math.nan, math.inf, 2**63, [1]]
BAD_RATES = [
    None,
    "x",
    0.1,
    {},
    [],
    [0.1, 0.1, 0.1],
    ["0.1", 0.1],
    [True, 0.1],
    [math.nan, 0.1],
    [0.1, -0.1],
    [None, 0.1],
]
BAD_NUMBERS = [None, "0.1", True, math.nan, -1.0, [0.1], 1e39]
BAD_TEXTS = [None, 5, "x", True, ["min"]]


def misfits(state):
    """For each entry of a state, what it cannot be."""
    for name, value in state.items():
        if name == "best":
            bad = [None, "1", True, math.nan, [1.0]]
        elif isinstance(value, str):
            bad = BAD_TEXTS
        elif isinstance(value, list):
            bad = BAD_RATES
        else:
            bad = BAD_COUNTS if isinstance(value, int) else BAD_NUMBERS
        yield from ({**state, name: each} for each in bad)
        yield {key: each for key, each in state.items() if key != name}
    yield {**state, "surplus": 1}
    yield from ({}, None, 5, "x", [state])


@EVERY_KIND
def test_no_misfit_changes_anything(make_schedule):
    optimizer = SGD([{"params": [weight()]}, {"params": [weight()], "lr": 0.5}], lr=1.0)
    schedule = make_schedule(optimizer)
    advance(schedule, 3)
    state = schedule.state_dict()
    others = [make_other(SGD([weight(), weight()])).state_dict() for make_other in KINDS.values()]
    foreign = [other for other in others if other["schedule"] != state["schedule"]]
    advance(schedule, 2)
    before, tried = snapshot(optimizer, schedule), 0
    for bad in (*misfits(state), *foreign):
        with pytest.raises(StateError):
            schedule.load_state_dict(bad)
        assert snapshot(optimizer, schedule) == before, bad
        tried += 1
    assert tried > 30
    schedule.load_state_dict(state)
    assert schedule.state_dict() == state


def test_settings_that_do_not_go_together_are_refused():
    schedule = KINDS["warmup"](single())
    before = schedule.state_dict()
    with pytest.raises(StateError, match="total_steps must exceed warmup_steps=20, got 20"):
        schedule.load_state_dict({**before, "warmup_steps": 20})
    assert schedule.state_dict() == before


class Steep(Schedule):
    def lr_at(self, step, base_lr):
        return base_lr * (2.0 - step)


def test_a_rate_that_is_refused_leaves_the_count():
    optimizer = SGD([{"params": [weight()], "lr": 0.0}, {"params": [weight()]}], lr=1.0)
    schedule = Steep(optimizer)
    advance(schedule, 2)
    before = snapshot(optimizer, schedule)
    with pytest.raises(HyperParameterError, match="lr must be a number, at least 0"):
        schedule.step()
    with pytest.raises(StateError, match="lr must be a number, at least 0"):
        schedule.load_state_dict({**schedule.state_dict(), "last_step": 3})
    assert snapshot(optimizer, schedule) == before
