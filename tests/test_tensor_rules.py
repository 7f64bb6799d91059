"""Optimizers with norms, products or factors of whole tensors: the papers' formulas, and what every step promises."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import netcl
from netcl.amp import GradScaler
from netcl.errors import ArgumentError, HyperParameterError, StateError, TraceError
from netcl.expression import sqrt
from netcl.optim import LAMB, LARS, SGD, Adafactor, AveragedParameters, Muon, Optimizer, PerTensor, Rule
from tests.tensor_rules import CASES, Case

ONE_EACH = [Case(LAMB, {"weight_decay": 0.1}), Case(LARS, {"nesterov": True}), Case(Muon), Case(Adafactor)]

SHORT = [CASES[1], CASES[7]]
"""For the OpenCL runtimes behind the first: a norm of each tensor, and products of matrices."""


def of_one_dtype(row):
    """Each optimizer with one of the 16-bit dtypes, and each dtype with two."""
    return (ONE_EACH.index(row["case"]) % 2 == 0) == (row["dtype"] == "float16")


def tensors(values, backend, dtype="float32"):
    kind = getattr(netcl, dtype)
    return [netcl.asarray(x, device=backend.device, dtype=kind, copy=True, requires_grad=True) for x in values]


def give(parameters, gradients):
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = None if g is None else netcl.asarray(g, device=p.device, dtype=p.dtype)


def drawn(shapes, seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def error(found, expected):
    return np.linalg.norm(found.numpy() - expected) / max(np.linalg.norm(expected), 1e-300)


def farthest(case, backend, dtype, steps):
    """The largest relative distance of any tensor from its oracle."""
    start = drawn(case.shapes, 0, dtype)
    parameters = tensors(start, backend, dtype)
    halves = [{"params": parameters[::2]}, {"params": parameters[1::2]}]
    optimizer = case.optimizer(halves, **case.options)
    expected, oracles = [x.astype("float64") for x in start], [case.oracle(dtype) for _ in start]
    for step in range(steps):
        gradients = drawn(case.shapes, step + 1, dtype)
        give(parameters, gradients)
        optimizer.step()
        steps_of = zip(oracles, expected, gradients, strict=True)
        expected = [oracle(x, g.astype("float64")) if x.size else x for oracle, x, g in steps_of]
    return max(error(p, x) for p, x in zip(parameters, expected, strict=True) if x.size)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float64_on_numpy(case):
    assert farthest(case, netcl.get_backend("numpy"), "float64", 50) <= 1e-12


@pytest.mark.compiled(case=[*CASES[1::2], CASES[2], CASES[6], CASES[10]])
@pytest.mark.short(case=SHORT)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case, backend):
    assert farthest(case, backend, "float32", 20) <= 1e-5


@pytest.mark.parametrize("cls", [LAMB, LARS])
@pytest.mark.parametrize("size", [1e-30, 1e-42, 1e30])
def test_norms_of_numbers_whose_squares_float32_does_not_hold(cls, size, backend):
    """The step is relative to the tensor, whatever its size; another tensor has another."""
    start = [np.full(3000, size, "float32"), np.full(2, 1.0, "float32")]
    parameters = tensors(start, backend)
    give(parameters, [np.full(3000, 1.0, "float32"), np.full(2, size, "float32")])
    options = {"eps": 0.0} if cls is LAMB else {"trust_coefficient": 1.0}
    cls(parameters, lr=0.5, **options).step()
    for p, x in list(zip(parameters, start, strict=True))[: 1 if cls is LAMB or size == 1e-42 else 2]:
        if size != 1e-42 or x[0] == 1.0:  # a device may take such numbers as zeros
            np.testing.assert_allclose(p.numpy(), 0.5 * x, rtol=1e-5)
        assert np.isfinite(p.numpy()).all()


def test_a_tensor_or_direction_of_zeros_steps_at_the_learning_rate(backend):
    (p,) = tensors([np.zeros(3, "float32")], backend)
    give([p], [np.ones(3, "float32")])
    LAMB([p], lr=0.5, eps=0.0).step()
    np.testing.assert_allclose(p.numpy(), -0.5, rtol=1e-6)
    (p,) = tensors([np.ones(3, "float32")], backend)
    give([p], [np.zeros(3, "float32")])
    LARS([p], lr=0.5).step()
    np.testing.assert_array_equal(p.numpy(), 1.0)


def state_of(optimizer):
    return {
        (i, name): np.asarray(value)
        for i, fields in optimizer.state_dict()["state"].items()
        for name, value in fields.items()
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key], err_msg=str(key))


@pytest.mark.short(case=[ONE_EACH[0], ONE_EACH[2]])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_a_skipped_step_changes_nothing_and_the_next_goes_on(case, backend):
    start = drawn(case.shapes, 0)
    parameters, plain = tensors(start, backend), tensors(start, backend)
    optimizer, other = case.optimizer(parameters, **case.options), case.optimizer(plain, **case.options)
    for each in (optimizer, other):
        AveragedParameters(each)
    scaler = GradScaler(init_scale=4.0, growth_interval=1000)
    for step in range(3):
        gradients = drawn(case.shapes, step + 1)
        if step == 1:
            held = [p.numpy() for p in parameters], state_of(optimizer)
            give(parameters, [g * np.inf for g in gradients])
            scaler.scale(netcl.ones((), device=backend.device))
            scaler.step(optimizer)
            scaler.update()
            for p, x in zip(parameters, held[0], strict=True):
                np.testing.assert_array_equal(p.numpy(), x)
            assert_same(held[1], state_of(optimizer))
            continue
        give(plain, gradients)
        other.step()
        give(parameters, [g * np.float32(scaler.get_scale()) for g in gradients])
        scaler.scale(netcl.ones((), device=backend.device))
        scaler.step(optimizer)
        scaler.update()
    for p, q in zip(parameters, plain, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert_same(state_of(optimizer), state_of(other))


@pytest.mark.short(case=[ONE_EACH[0], ONE_EACH[2]])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_forty_steps_are_twenty_and_twenty(case, backend):
    start = drawn(case.shapes, 0)
    straight, first = tensors(start, backend), tensors(start, backend)
    one, two = case.optimizer(straight, **case.options), case.optimizer(first, **case.options)
    for each in (one, two):
        AveragedParameters(each)
    for step in range(40):
        if step == 20:
            saved = pickle.loads(pickle.dumps(two.state_dict()))
            first = tensors([p.numpy() for p in first], backend)
            two = case.optimizer(first, **case.options)
            AveragedParameters(two)
            two.load_state_dict(saved)
        for parameters, optimizer in ((straight, one), (first, two)):
            give(parameters, drawn(case.shapes, step + 1))
            optimizer.step()
    for p, q in zip(straight, first, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert_same(state_of(one), state_of(two))


@pytest.mark.short(case=[ONE_EACH[0], ONE_EACH[2]])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_max_norm_is_a_clipping_before(case, backend):
    start, gradients = drawn(case.shapes, 0), drawn(case.shapes, 1)
    total = float(np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients)))
    ours, scaled = tensors(start, backend), tensors(start, backend)
    give(ours, gradients)
    give(scaled, [g * np.float32(0.5 / total) for g in gradients])
    case.optimizer(ours, **case.options).step(max_norm=0.5)
    case.optimizer(scaled, **case.options).step()
    for p, q in zip(ours, scaled, strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.short(case=[ONE_EACH[0], ONE_EACH[2]])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_a_missing_gradient_a_late_group_and_a_changed_rate(case, backend):
    shapes = case.shapes
    start, expected = drawn(shapes, 0), [x.astype("float64") for x in drawn(shapes, 0)]
    parameters, oracles = tensors(start, backend), [case.oracle("float32") for _ in shapes]
    optimizer = case.optimizer(parameters[:-2], **case.options)
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": parameters[-2:]})
        there = [i for i in range(len(shapes)) if (step >= 2 or i < len(shapes) - 2) and (i, step) != (1, 1)]
        gradients = drawn(shapes, step + 1)
        give(parameters, [g if i in there else None for i, g in enumerate(gradients)])
        optimizer.step()
        for i in there:
            if expected[i].size:
                expected[i] = oracles[i](expected[i], gradients[i].astype("float64"))
    for p, x in zip(parameters, expected, strict=True):
        if x.size:
            assert error(p, x) <= 1e-5


@pytest.mark.compiled(rows=of_one_dtype)
@pytest.mark.short(case=ONE_EACH[:1])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_sixteen_bit_parameters_follow_their_master_weights(case, dtype, backend):
    shapes = case.shapes[:2]
    # Numbers and gradients that 16 bits hold.
    rounded = [np.round(x * 16) / 16 for x in drawn(shapes, 0)]
    narrow, wide = tensors(rounded, backend, dtype), tensors(rounded, backend)
    options = {**case.options, **({"eps": (1e-7, 1e-3)} if case.optimizer is Adafactor else {})}
    one, two = case.optimizer(narrow, **options), case.optimizer(wide, **options)
    for each in (one, two):
        AveragedParameters(each)
    for step in range(3):
        gradients = [np.round(g * 8) / 8 for g in drawn(shapes, step + 1)]
        for parameters, optimizer in ((narrow, one), (wide, two)):
            give(parameters, gradients)
            optimizer.step()
    for i, q in enumerate(wide):
        np.testing.assert_allclose(state_of(one)[i, "master"], q.numpy(), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(state_of(one)[i, "swa"], state_of(two)[i, "swa"], rtol=1e-6, atol=1e-7)


@pytest.mark.short(case=[ONE_EACH[0], ONE_EACH[2]])
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_host_arrays(case, backend):
    start, gradients = drawn(case.shapes, 0), drawn(case.shapes, 1)
    host, device = [x.copy() for x in start], tensors(start, backend)
    give(device, gradients)
    case.optimizer(host, **case.options, backend=backend.device).step(grads=gradients)
    case.optimizer(device, **case.options).step()
    for x, p in zip(host, device, strict=True):
        np.testing.assert_allclose(x, p.numpy(), rtol=1e-6, atol=1e-7)


def test_muon_takes_matrices_alone():
    with pytest.raises(HyperParameterError, match=r"parameter 1 of a group has shape \(3,\)"):
        Muon([netcl.ones((2, 2), requires_grad=True), netcl.ones(3, requires_grad=True)])


def test_a_factor_of_another_shape_is_refused():
    (p,) = tensors([np.ones((2, 3), "float32")], netcl.get_backend("numpy"))
    saved = Adafactor([p]).state_dict()
    saved["state"][0]["row_var"] = np.ones((2, 3), "float32")
    with pytest.raises(StateError, match=r"row_var of shape \(2, 3\).*shape \(2, 1\)"):
        Adafactor([p]).load_state_dict(saved)


def unit_direction(p, g, s, h):
    return g


def unit_ratio(n, h):
    return h.lr / n.u


def unit(p, u, s, h):
    return p - h.ratio * u


def rates(group):
    return {"lr": group["lr"]}


class NormalizedSGD(Optimizer):
    """A rule of one's own with a norm."""

    def __init__(self, params, lr, rule=Rule(unit, rates, per_tensor=PerTensor(unit_direction, unit_ratio))):  # noqa: B008
        super().__init__(params, {"lr": lr}, rule)


def test_a_rule_of_ones_own(backend):
    (p,) = tensors([np.zeros(2, "float32")], backend)
    give([p], [np.array([3.0, 4.0], "float32")])
    optimizer = NormalizedSGD([p], 1.0)
    optimizer.step()
    np.testing.assert_allclose(p.numpy(), [-0.6, -0.8], rtol=1e-6)
    if backend.device.backend == "numpy":
        assert "h.ratio * u" in optimizer.source()


def test_what_lies_behind_a_tensor_stays_out_of_its_norms(backend):
    """Padding is zero, of which this rule makes 0/0 in its first pass and 0·inf in its second."""

    def direction(p, g, s, h):
        v = s.v + g * g
        return g / sqrt(v), v

    def ratio(n, h):
        return 0.0 * n.p + n.u / h.nothing

    def update(p, u, s, h):
        return p / (1.0 + h.ratio * abs(u)), s.v

    rule = Rule(update, lambda group: {"nothing": 0.0}, ("v",), per_tensor=PerTensor(direction, ratio))
    parameters = tensors([np.ones(5, "float32"), np.ones((30, 50), "float32")], backend)
    optimizer = NormalizedSGD(parameters, 1.0, rule)
    for _ in range(2):
        give(parameters, [np.ones(p.shape, "float32") for p in parameters])
        optimizer.step()
    for p in parameters:
        np.testing.assert_array_equal(p.numpy(), 0.0)


@pytest.mark.parametrize(
    ("made", "kind", "told"),
    [
        (lambda: PerTensor(None, unit_ratio), ArgumentError, "direction of a PerTensor"),
        (lambda: Rule(unit, rates, per_tensor=unit_ratio), ArgumentError, "per_tensor must be a PerTensor"),
        (lambda: PerTensor(unit_direction, lambda n, h: n.q), TraceError, "n.q is not a value of a tensor"),
        (lambda: PerTensor(unit_direction, lambda n, h: None), TraceError, "must return one real number"),
        (lambda: PerTensor(lambda p, g, s, h: (g, g), unit_ratio), TraceError, "1 value"),
    ],
)
def test_what_an_author_gets_wrong(made, kind, told):
    with pytest.raises(kind, match=told):
        NormalizedSGD([netcl.ones(2, requires_grad=True)], 1.0, Rule(unit, rates, per_tensor=made()))


def test_another_optimizer_reads_nothing_of_it():
    (p,) = tensors([np.ones(2, "float32")], netcl.get_backend("numpy"))
    assert list(SGD([p]).state_dict()["state"][0]) == ["step"]
