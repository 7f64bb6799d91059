"""Parameters in 16 bits without float32 copies, and state in 16, 8 and 4 bits: training goes as it does in full."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.amp import GradScaler
from netcl.backends import get_backend
from netcl.backends.base import BlockSpan
from netcl.errors import HyperParameterError, StateError
from netcl.optim import (
    LAMB,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
)

STATE = ["bfloat16", "8bit", "4bit"]

CASES = {
    "AdamW": (AdamW, {}),
    "AdamW-amsgrad": (AdamW, {"amsgrad": True}),
    "SGD": (SGD, {"momentum": 0.9, "lr": 1e-2}),
    "Lion": (Lion, {"lr": 1e-3}),
    "Adam": (Adam, {"weight_decay": 0.1}),
    "RMSprop": (RMSprop, {"momentum": 0.9}),
    "Adagrad": (Adagrad, {"initial_accumulator_value": 0.5}),
    "Adadelta": (Adadelta, {"lr": 1.0}),
    "Adamax": (Adamax, {}),
    "NAdam": (NAdam, {}),
    "RAdam": (RAdam, {}),
    "Adan": (Adan, {}),
    "AdaBelief": (AdaBelief, {}),
    "ScheduleFreeAdamW": (ScheduleFreeAdamW, {}),
}

NAMED = ("AdamW", "SGD", "Lion")
"""Those that further runtimes run."""


def tensor(values, backend, dtype="float32", requires_grad=True):
    x = netcl.astype(netcl.asarray(np.asarray(values, "float32"), device=backend.device), dtype)
    x.requires_grad = requires_grad
    return x


def wide(x):
    return netcl.astype(x, "float32").numpy()


def stepped(optimizer, p, steps, seed=0, dtype="float32", mean=1.0):
    """Steps with gradients that are the same for every parameter of these dtypes."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        g = rng.standard_normal(p.shape) * np.linspace(0.01, 1, p.size).reshape(p.shape) + mean
        p.grad = tensor(g, p.backend, dtype, requires_grad=False)
        optimizer.step()


# -- 16-bit parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["kahan", "stochastic"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_steps_are_not_lost(backend, dtype, rounding):
    """At 1.0 with a rate of 1e-3 a bfloat16 does not move by itself; both roundings follow float32 within 1 %."""
    full = tensor(np.ones(4096), backend)
    stepped(AdamW([full], lr=1e-3), full, 100)
    narrow = tensor(np.ones(4096), backend, dtype)
    optimizer = AdamW([narrow], lr=1e-3, rounding=rounding)
    stepped(optimizer, narrow, 100, dtype=dtype)
    found, wanted = wide(narrow), full.numpy()
    assert abs(found.mean() / wanted.mean() - 1) < 2e-3
    # Each rounding to one of two neighbours adds to the distance; what Kahan's sum keeps does not.
    assert np.abs(found - wanted).max() < (5e-3 if rounding == "kahan" else 0.1)
    assert "master" not in optimizer.state[narrow]
    stuck = tensor(np.ones(4096), backend, "bfloat16")
    stepped(AdamW([stuck], lr=1e-3, master_weights=False), stuck, 100, dtype="bfloat16")
    np.testing.assert_array_equal(wide(stuck), 1.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_expected_error_is_zero(backend, dtype):
    """Over a million draws the mean is that of the exact result, within three standard errors."""
    n, share = 1 << 20, 0.3
    gap = 2.0 ** (-7 if dtype == "bfloat16" else -10)
    p = tensor(np.ones(n), backend, dtype)
    optimizer = SGD([p], lr=share, rounding="stochastic")
    p.grad = tensor(np.full(n, -gap), backend, dtype, requires_grad=False)
    optimizer.step()
    found = wide(p)
    assert set(np.unique(found)) == {1.0, np.float32(1 + gap)}
    error = (found.astype("f8") - 1).mean() - share * gap
    assert abs(error) < 3 * gap * np.sqrt(share * (1 - share) / n)
    # Neighbours do not go together, nor does one step with the next.
    up = found > 1
    for lag in (1, 2, 8, 1024):
        agreement = (up[lag:] & up[:-lag]).mean()
        assert abs(agreement - share**2) < 5 * share / np.sqrt(n)
    p[...] = 1.0
    optimizer.step()
    assert abs(((wide(p) > 1) & up).mean() - share**2) < 5 * share / np.sqrt(n)


def drawn_bits(backend, seed, start=0):
    p = tensor(np.linspace(-3, 3, 5000), backend, "bfloat16")
    optimizer = SGD([p], lr=2.0**-6, momentum=0.5, rounding="stochastic", state_dtype="bfloat16", rounding_seed=seed)
    rng = np.random.default_rng(1)
    for _ in range(4):
        # Short numbers, so that float32 holds every result exactly on every device.
        g = rng.integers(-8, 9, p.shape) / 4
        p.grad = tensor(g, backend, "bfloat16", requires_grad=False)
        optimizer.step()
    return wide(p), optimizer.state_dict()["state"][0]["momentum_buffer"]


def test_one_seed_gives_the_same_bits_on_every_backend(backend):
    p, v = drawn_bits(backend, 7)
    expected, wanted = drawn_bits(get_backend("numpy"), 7)
    np.testing.assert_array_equal(p, expected)
    np.testing.assert_array_equal(v, wanted)
    assert not np.array_equal(drawn_bits(backend, 8)[0], p)
    assert not np.array_equal(drawn_bits(backend, 7 + (1 << 16))[0], p)


def test_a_parameter_written_from_outside_is_not_compensated(backend):
    p = tensor(np.ones(2000), backend, "bfloat16")
    optimizer = SGD([p], lr=1e-3, rounding="kahan")
    stepped(optimizer, p, 3, dtype="bfloat16")
    assert np.abs(optimizer.state_dict()["state"][0]["compensation"]).max() > 1e-3
    p[...] = 1e-4
    stepped(optimizer, p, 1, dtype="bfloat16", seed=9)
    expected = tensor(np.full(2000, 1e-4), backend, "bfloat16")
    stepped(SGD([expected], lr=1e-3, rounding="kahan"), expected, 1, dtype="bfloat16", seed=9)
    np.testing.assert_array_equal(wide(p), wide(expected))


def test_groups_may_round_in_different_ways_in_one_launch(backend):
    roundings = [{"rounding": "kahan"}, {"rounding": "stochastic"}, {}, {"master_weights": False}]
    parameters = [tensor(np.ones(1500), backend, "bfloat16") for _ in roundings]
    groups = [{"params": [p], **how} for p, how in zip(parameters, roundings, strict=True)]
    optimizer = AdamW(groups, lr=1e-3)
    alone = [tensor(np.ones(1500), backend, "bfloat16") for _ in roundings]
    alone_by = [AdamW([p], lr=1e-3, **how) for p, how in zip(alone, roundings, strict=True)]
    rng = np.random.default_rng(0)
    for _ in range(20):
        g = rng.standard_normal(1500) + 1
        for p in (*parameters, *alone):
            p.grad = tensor(g, backend, "bfloat16", requires_grad=False)
        optimizer.step()
        for each in alone_by:
            each.step()
    for number, (p, single) in enumerate(zip(parameters, alone, strict=True)):
        if roundings[number].get("rounding") == "stochastic":  # other elements of the arena, other bits
            assert abs(wide(p).mean() - wide(single).mean()) < 1e-3
        else:
            np.testing.assert_array_equal(wide(p), wide(single))
    assert len(optimizer.partitions) == 1


# -- state in fewer bits ---------------------------------------------------------------------------------------------


def in_one_format(row):
    """On OpenCL, AdamW has its state in every format, and other optimizers in turn in one."""
    formats = list(STATE)
    return row["name"] == "AdamW" or formats[list(CASES).index(row["name"]) % len(formats)] == row["state_dtype"]


@pytest.mark.compiled(rows=in_one_format)
@pytest.mark.parametrize("state_dtype", STATE)
@pytest.mark.parametrize("name", CASES)
def test_training_goes_as_with_state_in_full(backend, name, state_dtype):
    cls, options = CASES[name]
    full, p = (tensor(np.linspace(-1, 1, 3000), backend) for _ in range(2))
    start = p.numpy()
    for x, more in ((full, {}), (p, {"state_dtype": state_dtype})):
        stepped(cls([x], **options, **more), x, 30, mean=0.5)
    moved = np.abs(full.numpy() - start).mean()
    error = np.abs(full.numpy() - p.numpy()).mean() / moved
    assert error < {"bfloat16": 0.02, "8bit": 0.05, "4bit": 0.5}[state_dtype], error


@pytest.mark.parametrize("name", NAMED)
def test_a_step_of_8_bits_errs_within_the_published_bounds(backend, name):
    """Mean 6e-5 and relative mean 1.6e-3 from the step of a full optimizer, which goes on from the same state."""
    cls, options = CASES[name]
    options = {**options, "lr": 1e-3}
    rng = np.random.default_rng(0)
    values = rng.standard_normal(4096) * 0.1
    full, p = (tensor(values, backend) for _ in range(2))
    reference, optimizer = cls([full], **options), cls([p], **options, state_dtype="8bit")
    errors, relative = [], []
    for _ in range(20):
        g = rng.standard_normal(4096) * 0.1
        for x in (full, p):
            x.grad = tensor(g, backend, requires_grad=False)
        reference.step()
        optimizer.step()
        error = np.abs(full.numpy() - p.numpy())
        errors.append(error.mean())
        relative.append((error / (np.abs(full.numpy()) + 1e-9)).mean())
        p[...] = full
        state = reference.state_dict()
        state["param_groups"][0]["state_dtype"] = "8bit"
        optimizer.load_state_dict(state)
    assert np.mean(errors) < 6e-5
    assert np.mean(relative) < 1.6e-3


def bytes_of_state(optimizer):
    """Bytes of all fields, for each element of the arenas."""
    total = size = 0
    for partition in optimizer.partitions:
        size += partition.arena.layout.size
        for field in partition.fields.spans.values():
            spans = (field.codes, field.scales) if isinstance(field, BlockSpan) else (field,)
            total += sum(span.size * span.dtype.itemsize for span in spans)
    return total / size


@pytest.mark.parametrize(
    ("dtype", "options", "most"),
    [
        ("float32", {}, 8.0),
        ("float32", {"state_dtype": "bfloat16"}, 4.0),
        ("float32", {"state_dtype": "8bit"}, 2.1),
        ("float32", {"state_dtype": "4bit"}, 1.1),
        ("bfloat16", {"rounding": "kahan", "state_dtype": "8bit"}, 4.1),
        ("bfloat16", {"rounding": "stochastic", "state_dtype": "8bit"}, 2.1),
    ],
)
def test_bytes_per_parameter_and_one_launch(backend, dtype, options, most):
    p, q = (tensor(np.ones(n), backend, dtype) for n in (100_000, 5000))
    optimizer = AdamW([p, q], **options)
    assert bytes_of_state(optimizer) <= most
    for _ in range(2):
        for x in (p, q):
            x.grad = tensor(np.ones(x.shape), backend, dtype, requires_grad=False)
        optimizer.step()
    if hasattr(backend, "launches"):
        launches, blocking = backend.launches, backend.blocking
        optimizer.step()
        assert (backend.launches - launches, backend.blocking - blocking) == (1, 0)


@pytest.mark.compiled(rows=in_one_format)
@pytest.mark.parametrize("state_dtype", STATE)
@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_bit_for_bit(backend, name, state_dtype, tmp_path):
    """From plain data and from a file; 16-bit parameters rounded at random."""
    cls, options = CASES[name]
    options = {**options, "state_dtype": state_dtype, "rounding": "stochastic"}

    def made():
        p = tensor(np.linspace(-1, 1, 1300), backend, "bfloat16")
        return p, cls([("w", p)], **options)

    straight, optimizer = made()
    stepped(optimizer, straight, 6, dtype="bfloat16")
    netcl.save(tmp_path / "run.safetensors", optimizer=optimizer)
    saved, values = optimizer.state_dict(), wide(straight)
    stepped(optimizer, straight, 6, dtype="bfloat16", seed=5)
    for load in (lambda o: o.load_state_dict(saved), lambda o: netcl.load(tmp_path / "run.safetensors", optimizer=o)):
        p, again = made()
        p[...] = tensor(values, backend, "bfloat16")
        load(again)
        stepped(again, p, 6, dtype="bfloat16", seed=5)
        np.testing.assert_array_equal(wide(p), wide(straight))


@pytest.mark.parametrize("before", [None, *STATE])
@pytest.mark.parametrize("after", [None, *STATE])
def test_a_checkpoint_fits_whatever_its_state_was_kept_in(backend, before, after):
    p = tensor(np.ones(700), backend)
    optimizer = AdamW([p], state_dtype=before)
    stepped(optimizer, p, 3)
    state = optimizer.state_dict()
    other = AdamW([tensor(p.numpy(), backend)], state_dtype=after)
    other.load_state_dict(state)
    assert other.param_groups[0]["state_dtype"] == after
    found = other.state_dict()["state"][0]
    tolerance = {None: 0.0, "bfloat16": 2.0**-8, "8bit": 0.2, "4bit": 20.0}[after if before != after else None]
    for field in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(found[field], state["state"][0][field], rtol=tolerance)
        assert found[field].dtype == np.float32


def test_groups_and_late_groups_of_several_formats(backend):
    """As each of them alone; the norm is taken of all of them, and a skipped step changes none."""
    kinds = [None, "8bit", "bfloat16"]
    parameters = [tensor(np.linspace(-1, 1, n), backend) for n in (1000, 1300, 257)]
    optimizer = AdamW([{"params": [parameters[0]]}, {"params": [parameters[1]], "state_dtype": "8bit"}])
    late = tensor(np.linspace(-1, 1, 257), backend)
    optimizer.add_param_group({"params": [parameters[2]], "state_dtype": "bfloat16"})
    optimizer.add_param_group({"params": [late], "state_dtype": "8bit"})
    assert len(optimizer.partitions) == 3
    alone = [tensor(p.numpy(), backend) for p in parameters]
    single = [AdamW([p], state_dtype=kind) for p, kind in zip(alone, kinds, strict=True)]
    scaler = GradScaler(init_scale=4.0, device=backend.device)
    for step in range(4):
        for i, p in enumerate((*parameters, late, *alone)):
            g = np.full(p.shape, np.nan if step == 2 and i < 4 else 0.3 * (1 + i % 3))
            p.grad = tensor(g * (4.0 if i < 4 else 1.0), backend, requires_grad=False)
        scaler.step(optimizer)
        scaler.update(4.0)
        if step != 2:
            for each in single:
                each.step()
    for p, expected, kind in zip(parameters, alone, kinds, strict=True):
        # The bits that a bfloat16 is rounded by are those of its place.
        np.testing.assert_allclose(p.numpy(), expected.numpy(), rtol=1e-6, atol=1e-3 if kind == "bfloat16" else 1e-7)
    np.testing.assert_array_equal(parameters[2].shape, late.shape)
    for p in (*parameters, late):
        p.grad = tensor(np.ones(p.shape), backend, requires_grad=False)
    optimizer.step(max_norm=1.0)


def test_state_that_comes_late_is_kept_in_few_bits(backend):
    p = tensor(np.ones(600), backend)
    optimizer = SGD([p], lr=0.1, state_dtype="8bit")
    stepped(optimizer, p, 1)
    optimizer.param_groups[0]["momentum"] = 0.9
    stepped(optimizer, p, 2)
    (field,) = optimizer.partitions[0].fields.spans.values()
    assert isinstance(field, BlockSpan)
    state = optimizer.state[p]["momentum_buffer"]
    assert state.dtype is netcl.float32
    assert state.shape == (600,)
    np.testing.assert_allclose(state.numpy(), optimizer.state_dict()["state"][0]["momentum_buffer"])


def test_host_arrays_of_any_size(backend):
    sizes = (1, 255, 1000, 1025)
    values = [np.linspace(-1, 1, n, dtype="f4") for n in sizes]
    given = [x.copy() for x in values]
    optimizer = AdamW(given, state_dtype="8bit", backend=backend)
    tensors = [tensor(x, backend) for x in values]
    on_device = AdamW(tensors, state_dtype="8bit")
    for _ in range(3):
        optimizer.step(grads=[np.ones_like(x) for x in given])
        for x in tensors:
            x.grad = tensor(np.ones(x.shape), backend, requires_grad=False)
        on_device.step()
    for found, expected in zip(given, tensors, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


# -- refusals --------------------------------------------------------------------------------------------------------

REFUSED = {
    "unknown rounding": ({"rounding": "up"}, "rounding must be one of 'nearest', 'kahan', 'stochastic', got 'up'"),
    "rounding as a flag": ({"rounding": True}, "rounding must be one of"),
    "unknown state": ({"state_dtype": "int8"}, "state_dtype must be one of None, 'bfloat16', '8bit', '4bit'"),
    "a number of bits": ({"state_dtype": 8}, "state_dtype must be one of"),
    "a seed below zero": ({"rounding_seed": -1}, "rounding_seed"),
    "a seed of 33 bits": ({"rounding_seed": 1 << 32}, "rounding_seed must be below"),
    "a fraction as seed": ({"rounding_seed": 0.5}, "rounding_seed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_an_option_may_not_be(case):
    options, message = REFUSED[case]
    with pytest.raises(HyperParameterError, match=message):
        AdamW([netcl.ones(2, requires_grad=True)], **options)


@pytest.mark.parametrize(
    ("cls", "options", "dtype", "message"),
    [
        (LAMB, {"state_dtype": "8bit"}, "float32", "rules of one pass"),
        (Muon, {"rounding": "kahan"}, "bfloat16", "rules of one pass"),
        (Rprop, {"state_dtype": "8bit"}, "float32", "names none"),
        (AdamW, {"state_dtype": "8bit"}, "float64", "computed with in float32"),
    ],
)
def test_rules_that_have_no_such_state(cls, options, dtype, message):
    p = netcl.ones((4, 4), dtype=dtype, requires_grad=True, device="numpy")
    with pytest.raises(HyperParameterError, match=message):
        cls([p], **options)


def test_the_storage_of_state_is_chosen_when_a_group_is_made():
    optimizer = AdamW([netcl.ones(2, requires_grad=True)])
    with pytest.raises(HyperParameterError, match="state_dtype of a parameter group is chosen when it is made"):
        optimizer.param_groups[0]["state_dtype"] = "8bit"


def test_without_state_there_is_nothing_to_keep_narrowly():
    p = netcl.ones(3, requires_grad=True)
    p.grad = netcl.ones(3)
    SGD([p], lr=0.5, state_dtype="8bit").step()
    assert p.tolist() == [0.5, 0.5, 0.5]


def test_a_negative_second_moment_is_refused_in_any_format():
    p = netcl.ones(3, requires_grad=True)
    optimizer = AdamW([p], state_dtype="8bit")
    state = optimizer.state_dict()
    state["state"][0]["exp_avg_sq"] = np.full(3, -1.0, "f4")
    with pytest.raises(StateError, match="never negative"):
        optimizer.load_state_dict(state)
