"""Checkpoints of optimizers: adopted whole, bit for bit, or refused by name before anything is changed."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.errors import StateError
from netcl.expression import sign
from netcl.optim import SGD, Adam, AdamW, CosineAnnealingLR, Momentum, Optimizer, RMSProp, Rule
from tests.optimizers import CASES, EVERY, FAMILY, SHORT
from tests.snapshots import at, frozen, paths, snapshot

SIZES = (1500, 3)


def tensors(device, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    made = [netcl.asarray(rng.standard_normal(n).astype(dtype), device=device, copy=True) for n in SIZES]
    for tensor in made:
        tensor.requires_grad = True
    return made


def train(optimizer, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                values = rng.standard_normal(p.shape).astype(str(p.dtype))
                p.grad = netcl.asarray(values, device=p.device)
        optimizer.step()


def values(optimizer):
    return [frozen(p.numpy()) for group in optimizer.param_groups for p in group["params"]]


def named(made):
    return [(f"w{i}", w) for i, w in enumerate(made)]


def told(state):
    """A checkpoint to compare; room that an optimizer has for fields which it does not use is not a part of it."""
    entries = [
        {name: value for name, value in entry.items() if np.any(value) or name == "step"}
        for entry in state["state"].values()
    ]
    return frozen({**state, "state": entries})


def trained(case, device="numpy", steps=3, **options):
    optimizer = case.optimizer(named(tensors(device)), **{**case.options, **options})
    train(optimizer, steps)
    return optimizer


@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_an_optimizer_with_the_defaults_adopts_the_whole(case, backend):
    """Hyper-parameters and the state that they call for come with the checkpoint; only amsgrad has to agree."""
    first = trained(case, backend.device)
    copies = [netcl.asarray(p.numpy(), device=backend.device, copy=True) for p in first.param_groups[0]["params"]]
    kept = {name: value for name, value in case.options.items() if name == "amsgrad"}
    second = case.optimizer(named(copies), **kept)
    second.load_state_dict(first.state_dict())
    assert told(second.state_dict()) == told(first.state_dict())
    for optimizer in (first, second):
        train(optimizer, 3, seed=2)
    assert values(second) == values(first)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_checkpoint_without_its_kind_still_loads(case):
    """As netcl wrote it before: no kind, and amsgrad and centered told by the state alone."""
    first = trained(case)
    old = first.state_dict()
    del old["optimizer"]
    for group in old["param_groups"]:
        for name in ("amsgrad", "centered"):
            group.pop(name, None)
    second = case.optimizer(named(tensors("numpy")), **case.options)
    second.load_state_dict(old)
    assert told(second.state_dict()) == told(first.state_dict())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_state_after_a_switch_was_turned_off(case):
    """What an optimizer itself wrote loads again, whatever its hyper-parameters are by then."""
    first = trained(case)
    off = {"momentum": 0.0, "nesterov": False}
    first.param_groups[0].update({name: value for name, value in off.items() if name in first.param_groups[0]})
    train(first, 2)
    kept = {name: value for name, value in case.options.items() if name == "amsgrad"}
    second = case.optimizer(named(tensors("numpy")), **kept)
    second.load_state_dict(first.state_dict())
    assert told(second.state_dict()) == told(first.state_dict())


def test_state_that_was_asked_for_and_not_yet_used(backend):
    first = SGD(tensors(backend.device), lr=0.1)
    first.param_groups[0]["momentum"] = 0.9
    second = SGD(tensors(backend.device))
    second.load_state_dict(first.state_dict())
    for optimizer in (first, second):
        train(optimizer, 2)
    assert values(second) == values(first)


KINDS = [
    lambda p: SGD(p, momentum=0.9),
    lambda p: Adam(p),
    lambda p: AdamW(p),
    lambda p: RMSProp(p, momentum=0.9),
    lambda p: Signed(p),
]


def signed(p, g, s, h):
    exp_avg = h.beta * s.exp_avg + g
    return p - h.lr * sign(exp_avg), exp_avg


class Signed(Optimizer):
    def __init__(self, params, lr=0.1, beta=0.9):
        rule = Rule(signed, lambda group: {"lr": group["lr"], "beta": group["beta"]}, ("exp_avg",))
        super().__init__(params, {"lr": lr, "beta": beta}, rule)


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(range(len(KINDS)), 2)))
def test_another_kind_is_refused(source, target):
    first, second = KINDS[source](tensors("numpy")), KINDS[target](tensors("numpy"))
    train(first, 2)
    before = snapshot(second)
    with pytest.raises(StateError, match=f"is of the optimizer .* cannot be loaded into {type(second).__name__}"):
        second.load_state_dict(first.state_dict())
    assert snapshot(second) == before


def test_momentum_and_subclasses_are_of_one_kind():
    class Mine(AdamW):
        pass

    for source, target in ((SGD, Momentum), (Momentum, SGD), (Mine, AdamW), (AdamW, Mine)):
        first, second = source(tensors("numpy")), target(tensors("numpy"))
        train(first, 1)
        second.load_state_dict(first.state_dict())
        assert told(second.state_dict()) == told(first.state_dict())


def test_amsgrad_has_to_agree():
    for source, target in itertools.permutations((True, False)):
        first, second = Adam(tensors("numpy"), amsgrad=source), Adam(tensors("numpy"), amsgrad=target)
        with pytest.raises(StateError, match=f"build the optimizer with amsgrad={source}"):
            second.load_state_dict(first.state_dict())


NAN, INF = math.nan, math.inf
NO_COUNTS = [None, -1, -5.0, 1.5, NAN, INF, True, "3", "x", [1], np.ones(1), np.ones(2), 2**63, 1e30, 1j, {}, object()]
NO_NUMBERS = [None, "0.1", True, NAN, INF, -1.0, 1e39, [0.1], np.ones(2), {}, 1j]
NO_FLAGS = [None, "yes", 1, 0.0, NAN, [True]]
NO_PAIRS = [
    None,
    0.9,
    "ab",
    (0.9,),
    (0.9, 0.99, 0.999),
    (0.9, 1.0),
    (NAN, 0.9),
    ("a", "b"),
    {0.9: 1, 0.99: 2},
    (True, 0.9),
]
NO_ARRAYS = [None, "x", 1.0, [1.0], np.ones(7, "float32"), np.ones((3, 1), "float32"), np.array(None), {}]
NEVER_NEGATIVE = (
    "exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "square_avg", "sum", "acc_delta", "exp_inf", "step_size",
    "weight_sum",
)  # fmt: skip
NO_INDICES = [None, -1, 1.5, "0", True, NAN, 9, 2**70, [0]]


def misfits(state):
    """What each entry of a checkpoint cannot be: (path, value) for all of them, in pairs."""
    for path in paths(state):
        value, name = at(state, path), path[-1]
        if name == "step":
            yield from ((path, bad) for bad in NO_COUNTS)
        elif isinstance(value, np.ndarray):
            yield from ((path, bad) for bad in NO_ARRAYS)
            yield path, value.astype("float64")
            yield path, value.astype("int32")
            yield path, value.astype("complex64")
            if name in NEVER_NEGATIVE:
                yield path, np.where(np.arange(value.size) == value.size - 1, np.float32(-1e-8), value)
        elif name == "betas":
            yield from ((path, bad) for bad in NO_PAIRS if len(value) == 2 or bad != (0.9, 0.99, 0.999))
        elif isinstance(value, bool):
            yield from ((path, bad) for bad in NO_FLAGS)
        elif isinstance(value, float):
            yield from ((path, bad) for bad in NO_NUMBERS if name != "dampening" or bad is not NO_NUMBERS[5])
        elif name in (
            "warmup_steps",
            "rounding_seed",
        ):  # a hyper-parameter, which may be given as an array of one number
            yield from ((path, bad) for bad in NO_COUNTS if not isinstance(bad, np.ndarray))
        elif isinstance(value, int):
            yield from ((path, bad) for bad in NO_INDICES)
            yield path, value ^ 1
        else:
            yield from ((path, bad) for bad in (None, 5, "x", NAN, [None], {"x": 1}, {-1: {}}) if bad is not value)
        if isinstance(value, dict):
            yield (*path, "surplus"), np.ones(3, "float32")
            yield (*path, 5), 1.0
    yield ("surplus",), 1


def spoiled(state, path, value):
    made = copy.deepcopy(state)
    at(made, path[:-1])[path[-1]] = value
    return made


MISFITTED = [case for case in CASES if case.options not in ({}, {"maximize": True})][::2] + FAMILY


@pytest.mark.parametrize("case", MISFITTED, ids=str)
def test_no_misfit_changes_anything(case):
    optimizer = trained(case)
    state = optimizer.state_dict()
    train(optimizer, 1)
    before, tried = snapshot(optimizer), 0
    states = [(spoiled(state, path, value), path, value) for path, value in misfits(state)]
    for path in paths(state):
        # Of older checkpoints nothing is asked that they had not.
        if path != ("optimizer",) and path[-1] not in ("param_names", "rounding", "rounding_seed", "state_dtype"):
            states.append((copy.deepcopy(state), path, "missing"))
            del at(states[-1][0], path[:-1])[path[-1]]
    for bad, path, value in states:
        with pytest.raises(StateError):  # noqa: PT012
            optimizer.load_state_dict(bad)
            pytest.fail(f"{value!r} was taken for {path}")
        assert snapshot(optimizer) == before, (path, value)
        tried += 1
    assert tried > 100
    optimizer.load_state_dict(state)


@pytest.mark.parametrize("state", [None, 5, "x", [], {}, {"state": {}}, {"param_groups": []}, np.ones(3)], ids=repr)
def test_what_is_no_checkpoint(state):
    optimizer = SGD(tensors("numpy"))
    with pytest.raises(StateError):
        optimizer.load_state_dict(state)


def test_what_a_blow_up_left_loads_again():
    optimizer = trained(CASES[9])
    for p in optimizer.param_groups[0]["params"]:
        p.grad = netcl.full(p.shape, INF, dtype=p.dtype, device=p.device)
    optimizer.step()
    state = optimizer.state_dict()
    assert not np.isfinite(state["state"][0]["exp_avg_sq"]).all()
    optimizer.load_state_dict(state)
    assert frozen(optimizer.state_dict()) == frozen(state)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=2))
def test_step_counts_come_back(steps):
    optimizer = Adam(tensors("numpy"))
    state = optimizer.state_dict()
    for index, step in enumerate(steps):
        state["state"][index]["step"] = step
    optimizer.load_state_dict(state)
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == steps


@pytest.mark.parametrize(
    "form", [float, np.int64, np.float32, np.asarray, lambda n: np.array(n, "float32"), netcl.asarray]
)
def test_a_step_count_may_come_as_any_whole_number(form):
    optimizer = Adam(tensors("numpy"))
    state = optimizer.state_dict()
    state["state"][0]["step"] = form(7)
    optimizer.load_state_dict(state)
    assert optimizer.state_dict()["state"][0]["step"] == 7


def test_json_keys_and_tensors_load(backend):
    first, second = (SGD(tensors(backend.device), momentum=0.9) for _ in range(2))
    train(first, 2)
    state = first.state_dict()
    for entry in state["state"].values():
        entry["momentum_buffer"] = netcl.asarray(entry["momentum_buffer"], device=backend.device)
    state["state"] = {str(index): entry for index, entry in state["state"].items()}
    second.load_state_dict(state)
    assert told(second.state_dict()) == told(first.state_dict())
    state["state"][0] = state["state"]["0"]
    with pytest.raises(StateError, match="parameter 0 twice"):
        second.load_state_dict(state)


@pytest.mark.parametrize("kind", [SGD, Momentum])
def test_the_velocity_is_read_by_its_former_name(kind, backend):
    first, second = (kind(tensors(backend.device), momentum=0.9) for _ in range(2))
    train(first, 2)
    state = first.state_dict()
    for entry in state["state"].values():
        entry["velocity"] = entry.pop("momentum_buffer")
    second.load_state_dict(state)
    assert told(second.state_dict()) == told(first.state_dict())
    state["state"][0]["momentum_buffer"] = state["state"][0]["velocity"]
    with pytest.raises(StateError, match="has momentum_buffer twice in the checkpoint"):
        second.load_state_dict(state)


def test_the_velocity_of_torch_is_read(backend):
    """Whose SGD counts no steps, and has the first velocity None."""
    optimizer = SGD(tensors(backend.device), momentum=0.5)
    velocity = np.asarray(optimizer.state_dict()["state"][0]["momentum_buffer"]) + 3.0
    group = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "params": [0, 1]}
    optimizer.load_state_dict(
        {"state": {0: {"momentum_buffer": velocity}, 1: {"momentum_buffer": None}}, "param_groups": [group]}
    )
    state = optimizer.state_dict()
    assert np.array_equal(state["state"][0]["momentum_buffer"], velocity)
    assert not state["state"][1]["momentum_buffer"].any()
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_no_other_optimizer_reads_the_former_name():
    optimizer = RMSProp(tensors("numpy"), momentum=0.9)
    state = optimizer.state_dict()
    state["state"][0]["velocity"] = state["state"][0].pop("momentum_buffer")
    with pytest.raises(StateError, match="the field 'velocity' in the checkpoint"):
        optimizer.load_state_dict(state)


def test_groups_keep_names_and_initial_rates():
    first = SGD([{"params": tensors("numpy"), "name": "all"}], lr=0.1)
    CosineAnnealingLR(first, 4).step()
    second = SGD(tensors("numpy"))
    second.load_state_dict(first.state_dict())
    assert (second.param_groups[0]["name"], second.param_groups[0]["initial_lr"]) == ("all", 0.1)
    assert second.lr == first.lr


def test_a_group_without_momentum_brings_no_velocity():
    """In torch's checkpoints only the parameters of groups that use a field have it."""
    a, b = tensors("numpy")
    optimizer = SGD([{"params": [a], "momentum": 0.9}, {"params": [b]}], lr=0.1)
    train(optimizer, 2)
    state = optimizer.state_dict()
    del state["state"][1]["momentum_buffer"]
    optimizer.load_state_dict(state)
    assert not optimizer.state_dict()["state"][1]["momentum_buffer"].any()
    del state["state"][0]["momentum_buffer"]
    with pytest.raises(StateError, match="parameter 0 of group 0 lacks the field 'momentum_buffer'"):
        optimizer.load_state_dict(state)


def test_running_out_of_memory_changes_nothing(monkeypatch):
    """Whichever allocation fails, hyper-parameters, parameters and state are those of before."""
    first = SGD(tensors("numpy") + tensors("numpy", 3, "float64"), momentum=0.9)
    train(first, 2)
    state = first.state_dict()
    second = SGD(tensors("numpy", 5) + tensors("numpy", 6, "float64"), lr=0.3)
    train(second, 2)
    backend = netcl.get_backend("numpy")
    before, allocate, finished = snapshot(second), backend.alloc, False
    for allowed in itertools.count():
        left = iter(range(allowed))

        def alloc(n, dtype, left=left):
            if next(left, None) is None:
                raise netcl.errors.DeviceMemoryError("full")
            return allocate(n, dtype)

        monkeypatch.setattr(backend, "alloc", alloc, raising=False)
        try:
            second.load_state_dict(state)
            finished = True
        except netcl.errors.DeviceMemoryError:
            pass
        monkeypatch.undo()
        if finished:
            break
        after = snapshot(second)
        for entry in after[0]["state"].values():
            # Room for the velocity may have been made; there is none in it.
            velocity = entry.pop("momentum_buffer", None)
            assert velocity is None or not any(velocity[2])
        assert after == before
    assert allowed > 4
    assert frozen(second.state_dict()) == frozen(state)


def test_host_arrays_that_were_skipped_continue_after_loading(backend):
    plain = [np.ones(3, "float32"), np.ones(2, "float32")]
    optimizer = Adam(plain, backend=backend)
    optimizer.step(grads=[np.ones(3, "float32"), None])
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step(grads=[np.ones(3, "float32"), None])
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [2, 0]
