"""Schedules multiply, whatever hyper-parameter they are of, and count what they are told to count."""

from __future__ import annotations

import copy
import math

import pytest

import netcl
from netcl.amp import GradScaler
from netcl.errors import ArgumentError, HyperParameterError, StateError
from netcl.optim import (
    SGD,
    SWALR,
    AdamW,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupStableDecay,
    plot_schedule,
)
from netcl.optim.engine.group import read


def weight():
    return netcl.ones(1, device="numpy", requires_grad=True)


def single(lr=1.0, **options):
    return SGD([weight()], lr=lr, **options)


def cosine(step, length=10):
    return (1 + math.cos(math.pi * step / length)) / 2


def test_a_reduction_survives_the_next_step():
    optimizer = single()
    schedule, plateau = CosineAnnealingLR(optimizer, 10), ReduceLROnPlateau(optimizer, patience=0)
    for step in range(1, 8):
        schedule.step()
        plateau.step(1.0)
        assert optimizer.lr == pytest.approx(cosine(step) * 0.5 ** (step - 1), rel=1e-12)


@pytest.mark.parametrize("hyper", ["weight_decay", "beta2"])
def test_a_plateau_reduces_another_hyper_parameter(hyper):
    """Together with a schedule of the same, and as its state says in another optimizer."""

    def run():
        optimizer = AdamW([weight()], lr=0.5, weight_decay=0.5, betas=(0.9, 0.5))
        return (
            optimizer,
            ExponentialLR(optimizer, 0.5, hyper=hyper),
            ReduceLROnPlateau(optimizer, patience=0, hyper=hyper),
        )

    (optimizer, schedule, plateau), (other, second, resumed) = run(), run()
    plateau.step(1.0)
    plateau.step(1.0)
    schedule.step()
    assert read(optimizer.param_groups[0], hyper) == plateau.get_last_lr()[0] == 0.125
    assert optimizer.lr == 0.5
    other.load_state_dict(optimizer.state_dict())
    second.load_state_dict(schedule.state_dict())
    resumed.load_state_dict(plateau.state_dict())
    for one, watched in ((schedule, plateau), (second, resumed)):
        one.step()
        watched.step(1.0)
    assert read(other.param_groups[0], hyper) == read(optimizer.param_groups[0], hyper) == 0.5 * 0.5**4
    of_rates = ReduceLROnPlateau(run()[0])
    for taker, state in ((of_rates, plateau.state_dict()), (plateau, of_rates.state_dict())):
        with pytest.raises(StateError, match="build it with hyper="):
            taker.load_state_dict(state)
    plateau.detach()
    assert read(optimizer.param_groups[0], hyper) == 0.125


@pytest.mark.parametrize("hyper", ["lr", "weight_decay", "beta2"])
def test_an_assigned_value_rescales_the_base(hyper):
    optimizer = AdamW([weight()], lr=0.5, weight_decay=0.5, betas=(0.9, 0.5))
    group = optimizer.param_groups[0]
    schedule = ExponentialLR(optimizer, 0.5, hyper=hyper)
    schedule.step()
    assert read(group, hyper) == 0.25
    if hyper == "beta2":
        group["betas"] = (0.9, 0.125)
    else:
        group[hyper] = 0.125
    assert (read(group, hyper), schedule.base_lrs) == (0.125, [0.25])
    schedule.step()
    assert read(group, hyper) == 0.0625
    again = AdamW([weight()])
    second = ExponentialLR(again, 0.5, hyper=hyper)
    again.load_state_dict(optimizer.state_dict())
    second.load_state_dict(schedule.state_dict())
    assert second.state_dict() == schedule.state_dict()
    with pytest.raises(StateError, match="build it with hyper="):
        ExponentialLR(AdamW([weight()]), 0.5, hyper="eps").load_state_dict(schedule.state_dict())


def test_an_assignment_where_the_factor_is_0():
    optimizer = single()
    schedule = WarmupStableDecay(optimizer, 2, 2, 2)
    optimizer.lr = 0.5
    schedule.step()
    assert optimizer.lr == 0.25


def test_an_assigned_rate_is_resumed_with_its_bits():
    optimizer = single(0.1)
    schedule = CosineAnnealingLR(optimizer, 10, eta_min=0.01)
    for _ in range(3):
        schedule.step()
    optimizer.lr = 0.07
    again = single(0.3)
    second = CosineAnnealingLR(again, 10)
    second.load_state_dict(schedule.state_dict())
    assert again.lr == 0.07
    schedule.step()
    second.step()
    assert again.lr == optimizer.lr


def test_without_a_schedule_the_assigned_rate_is_the_base():
    first = single()
    schedule = CosineAnnealingLR(first, 10)
    for _ in range(5):
        schedule.step()
    second = single()
    second.load_state_dict(first.state_dict())
    assert CosineAnnealingLR(second, 10).base_lrs == [1.0]
    third = single()
    third.load_state_dict(first.state_dict())
    third.lr = 0.25
    assert CosineAnnealingLR(third, 10).base_lrs == [0.25]


def test_averaging_goes_on_from_what_the_others_make():
    optimizer = single()
    schedule = StepLR(optimizer, 2, 0.5)
    averaging = SWALR(optimizer, swa_lr=0.125, anneal_epochs=2, anneal_strategy="linear")
    for _ in range(2):
        schedule.step()
    rates = [optimizer.lr]
    for _ in range(3):
        averaging.step()
        rates.append(optimizer.lr)
    assert rates == [0.5, 0.3125, 0.125, 0.125]


def test_last_epoch_goes_on():
    first = single()
    schedule = CosineAnnealingLR(first, 10)
    for _ in range(4):
        schedule.step()
    second = single()
    with pytest.raises(HyperParameterError, match="initial_lr"):
        CosineAnnealingLR(second, 10, last_epoch=3)
    second.load_state_dict(first.state_dict())
    resumed = CosineAnnealingLR(second, 10, last_epoch=3)
    assert (second.lr, resumed.last_epoch) == (first.lr, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda o: CyclicLR(o, 0.5, 0.25), "max_lr must be at least base_lr=0.5, got 0.25"),
        (lambda o: CyclicLR(o, [0.1, 0.2], 0.25), "base_lr must have one value for each of 1"),
        (lambda o: OneCycleLR(o, 0.5), "total_steps must be an integer"),
        (lambda o: LambdaLR(o, []), "lr_lambda must be a function"),
        (lambda o: LambdaLR(o, lambda step: -1.0), r"lr_lambda\(0\) must be a number"),
        (lambda o: StepLR(o, 2, hyper="gamma"), "sets the gamma of each parameter group"),
        (lambda o: StepLR(o, 2, hyper="nesterov"), "have False, which is no number"),
        (lambda o: StepLR(o, 2, scaler=5), "scaler must be a GradScaler"),
        (lambda o: SequentialLR(o, [StepLR(o, 2)], [3]), "milestones must have one step fewer"),
        (lambda o: SequentialLR(o, [StepLR(o, 2), StepLR(o, 3)], [0]), "each be at least 1"),
        (lambda o: SequentialLR(o, [ReduceLROnPlateau(o)], []), "goes beside them"),
        (lambda o: ChainedScheduler([StepLR(o, 2), StepLR(single(), 2)]), "of another optimizer"),
        (lambda o: ChainedScheduler([StepLR(o, 2)] * 2), "part of another schedule"),
        (lambda o: plot_schedule(ReduceLROnPlateau(o), 3), "depends on a metric"),
    ],
)
def test_bad_values_are_refused(build, message):
    optimizer = single()
    with pytest.raises(HyperParameterError, match=message):
        build(optimizer)
    assert optimizer.lr == 1.0


def test_momentum_has_to_be_there():
    optimizer = AdamW([weight()])
    OneCycleLR(optimizer, 0.5, 10)
    assert optimizer.param_groups[0]["betas"][0] == 0.95


def test_parts_are_stepped_by_their_whole():
    optimizer = single()
    parts = [ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)]
    whole = ChainedScheduler(parts)
    for call in (parts[0].step, parts[0].detach, lambda: parts[1].load_state_dict({}), lambda: parts[0].preview(1)):
        with pytest.raises(ArgumentError, match="ChainedScheduler that this"):
            call()
    optimizer.add_param_group({"params": [weight()], "lr": 0.25})
    whole.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.0625]
    second = ChainedScheduler([ConstantLR(o := single(), 0.5, 2), ExponentialLR(o, 0.25)])
    with pytest.raises(StateError, match="the state has 2 parameter group"):
        second.load_state_dict(whole.state_dict())
    assert o.lr == 0.5


def test_a_list_of_values_refuses_a_further_group():
    optimizer = single()
    schedule = MultiplicativeLR(optimizer, [lambda step: 0.5])
    optimizer.add_param_group({"params": [weight()]})
    with pytest.raises(HyperParameterError, match="lr_lambda must have one value for each of 2"):
        schedule.step()
    assert (optimizer.lr, schedule.last_step) == (1.0, 0)


def test_copies_multiply_as_well():
    optimizer = single(0.1)
    schedules = [CosineAnnealingLR(optimizer, 10), StepLR(optimizer, 3, 0.7), ReduceLROnPlateau(optimizer, patience=0)]
    for _ in range(4):
        schedules[0].step()
        schedules[2].step(1.0)
    again, *copies = copy.deepcopy((optimizer, *reversed(schedules)))[::1]
    for one, other in zip(schedules, reversed(copies), strict=True):
        args = (2.0,) if isinstance(one, ReduceLROnPlateau) else ()
        one.step(*args)
        other.step(*args)
        assert (again.lr, other.state_dict()) == (optimizer.lr, one.state_dict())


def test_skipped_steps_do_not_count():
    p = weight()
    optimizer, scaler = SGD([p], lr=1.0), GradScaler(init_scale=8.0)
    schedule = ExponentialLR(optimizer, 0.5, scaler=scaler)
    lagging = StepLR(optimizer, 100, scaler=scaler, read_every=3)
    counts = []
    for gradient in (1.0, math.inf, 1.0, math.nan, 1.0, 1.0):
        scaler.scale(netcl.ones(1, device="numpy"))
        p.grad = netcl.asarray([gradient], dtype="float32", device="numpy")
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        lagging.step()
        counts.append((schedule.last_step, lagging.last_step))
    assert counts == [(1, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 4)]
    assert optimizer.lr == 0.5**4


def test_a_picture_has_the_numbers():
    pytest.importorskip("matplotlib")
    optimizer = SGD([{"params": [weight()], "name": "first"}, {"params": [weight()]}], lr=1.0)
    schedule = StepLR(optimizer, 2, 0.5)
    rates, axes = plot_schedule(schedule, 5)
    assert rates == schedule.preview(5) == [[1.0, 1.0, 0.5, 0.5, 0.25, 0.25]] * 2
    assert [list(line.get_ydata()) for line in axes.lines] == rates
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "group 1"]
    assert plot_schedule(schedule, 1, ax=axes)[1] is axes
