"""Bad arguments of optimizers, clipping, schedules and mixed precision: refused by netcl, and nothing is changed."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import netcl
from netcl.amp import GradScaler, autocast
from netcl.errors import NetclError
from netcl.expression import sqrt
from netcl.optim import (
    ASGD,
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
    CosineAnnealingLR,
    Lion,
    Momentum,
    NAdam,
    Optimizer,
    RAdam,
    ReduceLROnPlateau,
    RMSProp,
    Rprop,
    Rule,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    WarmupCosine,
    clip_grad_norm,
    clip_grad_norm_device,
    clip_grad_value,
)
from tests.snapshots import snapshot

NAN, INF = math.nan, math.inf
NO_NUMBER = [
    None,
    "0.1",
    "x",
    b"1",
    True,
    np.True_,
    NAN,
    1j,
    [0.1],
    (1,),
    {},
    np.ones(2),
    np.array(NAN),
    object(),
    "nan",
]
NO_FLAG = [None, 0, 1, 2, "yes", "True", NAN, [True], np.ones(2, bool), object()]
NO_COUNT = [None, "3", True, 1.5, NAN, INF, -1, [3], 1j, np.ones(2, int), 2**70, object()]
NOT_NEGATIVE = [*NO_NUMBER, -1, -1e-9, INF, -INF, 1e39, float("1e400"), np.float64(-1.0)]
FRACTION = [*NO_NUMBER, -0.1, 1, 1.0, 1.5, INF, np.float32(1.0)]
PAIR = [
    None,
    0.9,
    "ab",
    (),
    (0.9,),
    (0.9, 0.99, 0.999),
    ("0.9", 0.9),
    (NAN, 0.9),
    (0.9, 1.0),
    (True, 0.9),
    {0.9: 0.99, 1: 2},
    {0.9, 0.99},
    np.ones(3),
]
REAL = [*NO_NUMBER, INF, -INF, 1e39]
TEXT = [None, 5, "x", True, ["min"], b"min"]
SHARED = {"lr": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE, "maximize": NO_FLAG, "master_weights": NO_FLAG}
WITHOUT_DECAY = {name: bad for name, bad in SHARED.items() if name != "weight_decay"}
ADAMS = {"betas": PAIR, "eps": NOT_NEGATIVE, "decoupled_weight_decay": NO_FLAG}
AVERAGES = {"warmup_steps": NO_COUNT, "r": NOT_NEGATIVE, "weight_lr_power": NOT_NEGATIVE}
NO_THREE = [bad for bad in PAIR if not isinstance(bad, tuple | np.ndarray) or len(bad) != 3]
NO_PAIR = [bad for bad in PAIR if bad is not PAIR[8]]  # 1 is a size

HYPER = {
    SGD: {**SHARED, "momentum": NOT_NEGATIVE, "dampening": REAL, "nesterov": [*NO_FLAG, True]},
    Momentum: {**SHARED, "momentum": NOT_NEGATIVE, "nesterov": NO_FLAG},
    Adam: {**SHARED, "betas": PAIR, "eps": NOT_NEGATIVE, "amsgrad": NO_FLAG},
    AdamW: {**SHARED, "betas": PAIR, "eps": NOT_NEGATIVE, "amsgrad": NO_FLAG},
    Adagrad: {**SHARED, "lr_decay": NOT_NEGATIVE, "initial_accumulator_value": NOT_NEGATIVE, "eps": NOT_NEGATIVE},
    Adadelta: {**SHARED, "rho": FRACTION, "eps": NOT_NEGATIVE},
    Adamax: {**SHARED, "betas": PAIR, "eps": NOT_NEGATIVE},
    NAdam: {**SHARED, **ADAMS, "momentum_decay": NOT_NEGATIVE},
    RAdam: {**SHARED, **ADAMS},
    ASGD: {**SHARED, "lambd": NOT_NEGATIVE, "alpha": NOT_NEGATIVE, "t0": NOT_NEGATIVE},
    Rprop: {**WITHOUT_DECAY, "etas": [*PAIR, (0.0, 1.2), (1.0, 1.2), (0.5, 1.0)], "step_sizes": [*NO_PAIR, (1.0, 0.5)]},
    Lion: {**SHARED, "betas": PAIR},
    Adan: {**SHARED, "betas": [*NO_THREE, (0.9, 0.9), (0.9, 0.9, 1.0)], "eps": NOT_NEGATIVE, "no_prox": NO_FLAG},
    AdaBelief: {**SHARED, **ADAMS, "eps_root": NOT_NEGATIVE},
    ScheduleFreeSGD: {**SHARED, **AVERAGES, "momentum": [*FRACTION, 0.0]},
    ScheduleFreeAdamW: {**SHARED, **AVERAGES, "betas": [*PAIR, (0.0, 0.9)], "eps": NOT_NEGATIVE},
    LAMB: {**SHARED, "betas": PAIR, "eps": NOT_NEGATIVE},
    LARS: {
        **SHARED,
        "momentum": NOT_NEGATIVE,
        "trust_coefficient": NOT_NEGATIVE,
        "eps": NOT_NEGATIVE,
        "nesterov": NO_FLAG,
        "joint_norm": NO_FLAG,
    },
    Adafactor: {**SHARED, "d": NOT_NEGATIVE, "eps": [None, 1e-3, "x", (1.0,), (-1.0, 1.0), (None, None)]},
    RMSProp: {**SHARED, "alpha": FRACTION, "eps": NOT_NEGATIVE, "momentum": NOT_NEGATIVE, "centered": NO_FLAG},
}
HYPER_CASES = [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind in HYPER for name in HYPER[kind]]


def tensors():
    made = [netcl.asarray(np.arange(n, dtype="float32"), device="numpy", copy=True) for n in (3, 2)]
    for tensor in made:
        tensor.requires_grad = True
        tensor.grad = netcl.ones(tensor.shape, device="numpy")
    return made


def refused(watched, call, *args, **kwargs):
    """The error of a call, which must be netcl's own, with nothing changed in an optimizer and what goes with it."""
    given = f"{call}{args}{kwargs}"
    before = snapshot(*watched)
    try:
        call(*args, **kwargs)
    except NetclError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"{given} ended in {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{given} was accepted")
    assert snapshot(*watched) == before, f"{given} was refused after something had changed"
    assert len(said) > 20
    return said


@pytest.mark.parametrize(("kind", "name"), HYPER_CASES)
def test_hyper_parameters(kind, name):
    """In the constructor, for a group, for an added group, assigned in each way."""
    optimizer = kind([{"params": tensors()[:1]}, {"params": tensors()[:1]}])
    watched, group, w = [optimizer], optimizer.param_groups[1], tensors()
    for bad in HYPER[kind][name]:
        said = refused(watched, kind, w, **{name: bad})
        assert name in said or name[:-1] in said
        refused(watched, kind, [{"params": w, name: bad}])
        refused(watched, optimizer.add_param_group, {"params": w, name: bad})
        refused(watched, group.__setitem__, name, bad)
        refused(watched, group.update, {name: bad})
        refused(watched, group.update, [("weight_decay", 0.5), (name, bad)])
        refused(watched, group.__ior__, {"maximize": True, name: bad})
        if name == "lr":
            refused(watched, setattr, optimizer, "lr", bad)
    assert all(p.grad_buffer is None for p in w)


NUMBERS = [1, 0.5, np.float32(0.5), np.int64(1), np.array(0.5), Fraction(1, 2), netcl.asarray(0.5, device="numpy")]


@pytest.mark.parametrize("good", NUMBERS, ids=repr)
def test_every_kind_of_number_is_a_number(good):
    optimizer = SGD(tensors(), lr=good)
    optimizer.param_groups[0]["weight_decay"] = good
    assert optimizer.param_groups[0]["weight_decay"] == optimizer.lr == float(good)
    assert type(optimizer.lr) is float


w = tensors()
INTEGERS = netcl.asarray([1, 2], device="numpy")
PARAMS = [
    None, 5, 0.5, True, "abc", b"abc", object(), len, {}, [], (), {"params": w}, {"weight": w[0]}, w[0], np.ones(2),
    np.float32(1.0), np.array(1.0), iter([1, 2]), range(3), ["abc"], [None], [5], [w], [(w[0], w[1])], [("a", 5)],
    [(5, w[0])], [("a", w[0], 1)], [("a", w[0]), ("a", w[1])], [np.float32(1.0)], [np.ones(2, int)],
    [np.ones(2, complex)], [np.ones((2, 2))[:, 0]], [np.array(["a"])], [INTEGERS], [INTEGERS > 1], [w[0], np.ones(2)],
    [w[0], {"params": [w[1]]}], [{"params": [w[0]]}, w[1]], [{"params": [w[0]]}, {"params": [w[0]]}], [w[0], w[0]],
    [type(w[0])], w[0].numpy,
]  # fmt: skip
GROUPS = [
    None, 5, "abc", [], {}, w, {"lr": 0.1}, {"params": None}, {"params": 5}, {"params": "abc"}, {"params": []},
    {"params": {}}, {"params": [5]}, {"params": w, "rate": 1}, {"params": w, 5: 1}, {"params": w, None: 1},
    {"params": w, "name": 5}, {"params": w, "initial_lr": -1.0}, {"params": w, "initial_lr": "x"},
    {"params": [("a", w[0]), ("a", w[1])]},
]  # fmt: skip


def test_params_and_groups():
    watched = [SGD(tensors())]
    for bad in PARAMS:
        refused(watched, SGD, bad)
        refused(watched, AdamW, bad)
    for bad in GROUPS:
        refused(watched, watched[0].add_param_group, bad)
        if bad and isinstance(bad, dict):
            refused(watched, SGD, [bad])
    for bad in (5, [1], object(), 0.5, "nonsense"):
        refused(watched, SGD, w, backend=bad)
        refused(watched, SGD, [np.ones(2)], backend=bad)


def test_groups_keep_what_they_have():
    optimizer = Adam(tensors())
    watched, group = [optimizer], optimizer.param_groups[0]
    for name, value in (
        ("rate", 1), (5, 1), ("params", []), ("names", []), ("name", 5), ("initial_lr", "x"), ("amsgrad", 1),
    ):  # fmt: skip
        refused(watched, group.__setitem__, name, value)
    refused(watched, group.setdefault, "rate", 1)
    refused(watched, group.update, 5)
    refused(watched, group.update, [1, 2])
    for call, *args in ((group.__delitem__, "lr"), (group.pop, "lr"), (group.popitem,), (group.clear,)):
        refused(watched, call, *args)
    group["name"], group["initial_lr"] = "all", 1
    assert (group.pop("name"), group.setdefault("initial_lr", 3.0), group.pop("other", 7)) == ("all", 1.0, 7)


MAX_NORM = [*NO_NUMBER[1:], -1.0, -INF]
NO_GRADS = [5, "abc", 0.5, {}, len, [], [1, 2], ["a", "b"], [None], np.ones(2, "float32"), [np.ones(2), np.ones(3)]]


def test_steps():
    optimizer, scaler = SGD(tensors(), lr=0.5), GradScaler()
    scaler.scale(netcl.ones(1, device="numpy"))
    plain = SGD([np.ones(3, "float32"), np.ones(2, "float32")], backend="numpy")
    called = []
    for bad in MAX_NORM:
        refused([optimizer], optimizer.step, lambda: called.append(1), max_norm=bad)
        refused([optimizer, scaler], scaler.step, optimizer, max_norm=bad)
    for bad in (5, "x", True, [], optimizer):
        refused([optimizer], optimizer.step, bad)
    refused([plain], plain.step, lambda: called.append(1), grads=5)
    for bad in NO_GRADS:
        refused([plain], plain.step, grads=bad)
        refused([optimizer], optimizer.step, grads=bad)
    for bad in NO_FLAG:
        refused([optimizer], optimizer.zero_grad, bad)
    assert called == []


NO_PARAMETERS = [None, 5, "abc", {}, {"a": 1}, [5], [None], [np.ones(2)], len, [tensors()], np.float32(1.0), ["abc"]]


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_norm_device, clip_grad_value])
def test_clipping(clip):
    held = tensors()
    watched, by_value = [SGD(held)], clip is clip_grad_value
    for bad in NO_PARAMETERS:
        refused(watched, clip, bad, 1.0)
    for bad in [*NO_NUMBER, -1.0, -INF, *([0] if by_value else [])]:
        refused(watched, clip, held, bad)
    for bad in [] if by_value else [*NO_NUMBER, -1.0, 0, 0.0, -INF]:
        refused(watched, clip, held, 1.0, bad)
    for bad in [] if by_value else NO_FLAG:
        refused(watched, clip, held, 1.0, error_if_nonfinite=bad)


SCHEDULES = {
    CosineAnnealingLR: ({"T_max": 10}, {"T_max": [*NO_COUNT, 0], "eta_min": NOT_NEGATIVE}),
    WarmupCosine: (
        {"warmup_steps": 2, "total_steps": 10},
        {
            "warmup_steps": [*NO_COUNT, 10, 11],
            "total_steps": [*NO_COUNT, 0, 2, 1],
            "eta_min": NOT_NEGATIVE,
            "warmup_start": [*NO_NUMBER, -0.1, 1.5, INF],
        },
    ),
    ReduceLROnPlateau: (
        {},
        {
            "mode": TEXT,
            "factor": [*FRACTION, 0, 0.0],
            "patience": NO_COUNT,
            "threshold": NOT_NEGATIVE,
            "threshold_mode": TEXT,
            "cooldown": NO_COUNT,
            "min_lr": [
                *(bad for bad in NOT_NEGATIVE if not isinstance(bad, list | tuple)),
                [],
                [0.1, 0.1],
                ["x"],
                [-0.1],
            ],
            "eps": NOT_NEGATIVE,
        },
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules(kind):
    good, table = SCHEDULES[kind]
    optimizer = SGD(tensors(), lr=0.5)
    for name, values in table.items():
        for bad in values:
            assert name in refused([optimizer], kind, optimizer, **{**good, name: bad})
    without = Mine(tensors(), {"rate": 0.1}, Rule(halve, lambda group: {"lr": group["rate"]}))
    for bad in (None, 5, "x", [optimizer], SGD, optimizer.param_groups, GradScaler(), without):
        refused([optimizer], kind, bad, **good)
    schedule = kind(optimizer, **good)
    metrics = [None, "x", "0.5", True, [1.0], np.ones(2), np.array([NAN, 1.0]), 1j, {}, optimizer]
    for bad in metrics if kind is ReduceLROnPlateau else [0, 1.5, "x", True, NAN]:
        refused([optimizer, schedule], schedule.step, bad)


NOT_NORMAL = [0, -1.0, INF, -INF, 1e39, 1e38, 2.0**126 * 1.01, 1e-39, 1e-40, 1e-46, 1e-300, np.float64(1e39)]
SCALES = [*NO_NUMBER, *NOT_NORMAL]
SCALER = {
    "init_scale": [*SCALES, 0.5],
    "growth_factor": [*NO_NUMBER, 1, 0.5, 0, -2.0, INF, 1e39, 1.0 + 1e-9],
    "backoff_factor": [*NO_NUMBER, 0, 1, 1.5, -0.5, INF, 1.0 - 1e-9, 1e-46],
    "growth_interval": [*NO_COUNT, 0, 1.0, 2**24 + 1],
    "enabled": NO_FLAG,
    "min_scale": [*SCALES, 65537.0],
}
LOADED = {
    "scale": [*SCALES, 0.5],
    **{name: SCALER[name] for name in ("growth_factor", "backoff_factor", "growth_interval")},
    "min_scale": [*SCALES, 1e6],
    "growth_tracker": [*NO_COUNT, 2.0, 2**24 + 1],
    "steps_skipped": [*NO_COUNT, 2.0, 2**24 + 1],
}
NO_OPTIMIZER = [None, 5, "x", [], SGD, len, object()]
NO_OUTPUTS = [None, 5, 0.5, "x", [], {}, [5], (None,), np.ones(2, "float32"), INTEGERS, INTEGERS > 1]


@pytest.mark.parametrize("used", [False, True])
def test_the_scaler(used):
    optimizer, scaler, off = SGD(tensors()), GradScaler(), GradScaler(enabled=False)
    watched = [optimizer, scaler]
    if used:
        scaler.scale(netcl.ones(1, device="numpy"))
        scaler.step(optimizer)
        scaler.update()
    for name, values in SCALER.items():
        for bad in values:
            refused(watched, GradScaler, **{name: bad})
    for bad in [*SCALES[1:], 0.5]:
        refused(watched, scaler.update, bad)
    state = scaler.state_dict()
    for name, values in LOADED.items():
        for bad in values:
            refused(watched, scaler.load_state_dict, {**state, name: bad})
        if name not in ("min_scale", "steps_skipped"):  # torch's scalers have neither
            refused(watched, scaler.load_state_dict, {key: value for key, value in state.items() if key != name})
    for bad in (None, 5, "x", [], {}, [state], {**state, "surplus": 1}):
        refused(watched, scaler.load_state_dict, bad)
    for one in (scaler, off):
        for bad in NO_OUTPUTS:
            refused(watched, one.scale, bad)
        for bad in [*NO_OPTIMIZER, scaler]:
            refused(watched, one.step, bad)
            refused(watched, one.unscale_, bad)


@pytest.mark.parametrize("scale", [2.0**-126, 2.0**126, 1, np.float32(3.0), 65536])
def test_a_scale_at_the_edge_recovers(scale):
    """Where a scale is accepted, an overflow lowers it to the floor at most, and what it scales comes back."""
    w = netcl.zeros(1, device="numpy", requires_grad=True)
    optimizer = SGD([w], lr=1.0)
    scaler = GradScaler(scale, growth_interval=1, min_scale=min(1.0, float(scale)))
    for value in (1.0, NAN, 1.0, 1.0):
        w.grad = netcl.full((1,), value, device="numpy") * scaler.get_scale()
        scaler.scale(netcl.ones(1, device="numpy"))
        scaler.step(optimizer)
        scaler.update()
        assert 2.0**-126 <= scaler.get_scale() <= 2.0**126
    assert (w.item(), scaler.steps_skipped) == (-3.0, 1)


def test_autocast():
    watched = [SGD(tensors())]
    for bad in (5, None, "x", "float32", "int16", True, [1], netcl.float64, object()):
        refused(watched, autocast, bad)
    for bad in NO_FLAG:
        refused(watched, autocast, enabled=bad)


def halve(p, g, s, h):
    return p - h.lr * sqrt(g)


def numbers(group):
    return {"lr": group["lr"]}


def test_rules():
    watched = [SGD(tensors())]
    for bad in (None, 5, "x", [], {}):
        refused(watched, Rule, bad, numbers)
        refused(watched, Rule, halve, bad)
    for bad in (None, 5, "exp_avg", [5], [None], ["a b"], [""], ["step"], ("m", "m"), {"m"}, ["1m"]):
        refused(watched, Rule, halve, numbers, bad)
    for bad in NO_FLAG:
        refused(watched, Rule, halve, numbers, (), bad)
    assert Rule(halve, numbers, ["m"]).state == ("m",)


class Mine(Optimizer):
    def __init__(self, params, defaults=None, rule=None, check=None, check_group=None):
        super().__init__(params, defaults, rule, check, check_group)


PIECES = [
    {"defaults": None}, {"defaults": 5}, {"defaults": {5: 1}}, {"defaults": {"lr": 0.1, "name": "x"}},
    {"defaults": {"params": []}}, {"rule": None}, {"rule": 5}, {"rule": "x"}, {"rule": lambda groups: None},
    {"rule": lambda groups: 5}, {"check": 5}, {"check": {"lr": 5}}, {"check_group": 5},
    {"rule": Rule(halve, lambda group: 5)}, {"rule": Rule(halve, lambda group: {"lr": "x"})},
    {"rule": Rule(halve, lambda group: {"lr": NAN})}, {"rule": Rule(halve, lambda group: {5: 1.0})},
    {"rule": Rule(halve, lambda group: {"lr": group["rate"]})}, {"rule": Rule(halve, lambda: {})},
]  # fmt: skip


@pytest.mark.parametrize("given", PIECES)
def test_pieces_of_ones_own_optimizer(given):
    whole = {"defaults": {"lr": 0.1, "size": 1}, "rule": Rule(halve, numbers), **given}
    refused([SGD(tensors())], Mine, tensors(), **whole)


def within(name, value):
    if not 0 < value < 3:
        raise netcl.errors.HyperParameterError(f"{name} must lie between 0 and 3, got {value!r}")
    return value


def test_hyper_parameters_of_ones_own_optimizer():
    """Checked by their author's function, or by what the rule makes of them."""
    rule = Rule(halve, lambda group: {"lr": group["lr"], "size": group["size"], "free": group["free"] * 1.0})
    optimizer = Mine(tensors(), {"lr": 0.1, "size": 1, "free": 2.0}, rule, {"size": within})
    for name in ("size", "free"):
        for bad in ("x", None, {}, [1], NAN, object(), np.ones(2)):
            refused([optimizer], optimizer.param_groups[0].__setitem__, name, bad)
