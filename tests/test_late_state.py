"""Hyper-parameters that need state, given after the optimizer was built or to some groups alone."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.errors import HyperParameterError
from netcl.optim import SGD, Adam, AdamW, Momentum, Optimizer, RMSProp, Rule, clip_grad_norm_device
from tests.optimizers import adam_oracle, rmsprop_oracle, sgd_oracle

CHANGES = {
    "SGD: momentum": (SGD, sgd_oracle, {"lr": 0.1}, {"momentum": 0.9}),
    "SGD: momentum and dampening": (SGD, sgd_oracle, {"lr": 0.1}, {"momentum": 0.9, "dampening": 0.5}),
    "SGD: nesterov": (SGD, sgd_oracle, {"lr": 0.1, "weight_decay": 0.1}, {"momentum": 0.5, "nesterov": True}),
    "Momentum": (Momentum, sgd_oracle, {"lr": 0.1, "momentum": 0.0}, {"momentum": 0.9}),
    "RMSProp: momentum": (RMSProp, rmsprop_oracle, {"lr": 0.1}, {"momentum": 0.9}),
}
OF_A_GROUP = {
    **CHANGES,
    "RMSProp: centered": (RMSProp, rmsprop_oracle, {"lr": 0.1}, {"centered": True}),
    "RMSProp: both": (RMSProp, rmsprop_oracle, {"lr": 0.1}, {"centered": True, "momentum": 0.9}),
    "Adam: amsgrad": (Adam, adam_oracle, {"lr": 0.1, "betas": (0.5, 0.6)}, {"amsgrad": True}),
    "AdamW: amsgrad": (
        AdamW,
        lambda **options: adam_oracle(**options, decoupled=True),
        {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.1},
        {"amsgrad": True},
    ),
}


def variable(values, backend):
    return netcl.asarray(np.asarray(values, "float32"), device=backend.device, requires_grad=True)


class Pair:
    """A tensor, and the oracle that it is to follow."""

    def __init__(self, oracle, backend, seed, **options):
        self.rng = np.random.default_rng(seed)
        self.values = self.rng.standard_normal(1100).astype("float32").astype("float64")
        self.tensor = variable(self.values, backend)
        self.oracle = oracle(**options)

    def give_gradient(self):
        gradient = (self.rng.standard_normal(1100) * self.rng.uniform(0.1, 2.0)).astype("float32")
        self.tensor.grad = variable(gradient, netcl.get_backend(self.tensor.device))
        self.values = self.oracle(self.values, gradient.astype("float64"))

    def check(self):
        np.testing.assert_allclose(self.tensor.numpy(), self.values, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("change", CHANGES)
def test_an_assignment_takes_effect_at_the_next_step(change, backend):
    """State starts as it does in a new optimizer, which the oracle of the steps from then on is."""
    cls, oracle, options, late = CHANGES[change]
    pair = Pair(oracle, backend, 1, **options)
    optimizer = cls([pair.tensor], **options)
    blocking = getattr(backend, "blocking", 0)
    for _ in range(3 if cls is not RMSProp else 0):  # whose averages would go on
        pair.give_gradient()
        optimizer.step()
    optimizer.param_groups[0].update(late)
    pair.oracle = oracle(**{**options, **late})
    for _ in range(4):
        pair.give_gradient()
        optimizer.step()
    assert getattr(backend, "blocking", 0) == blocking
    pair.check()
    for name, value in late.items():
        assert f"{name}={value}" in repr(optimizer)


@pytest.mark.parametrize("change", OF_A_GROUP)
def test_each_group_follows_its_own_rule(change, backend):
    cls, oracle, options, special = OF_A_GROUP[change]
    plain, other = Pair(oracle, backend, 1, **options), Pair(oracle, backend, 2, **{**options, **special})
    optimizer = cls([{"params": [plain.tensor]}, {"params": [other.tensor], **special}], **options)
    for _ in range(4):
        plain.give_gradient()
        other.give_gradient()
        optimizer.step()
    plain.check()
    other.check()


@pytest.mark.parametrize("change", OF_A_GROUP)
def test_an_added_group_may_bring_state(change, backend):
    cls, oracle, options, special = OF_A_GROUP[change]
    plain, other = Pair(oracle, backend, 1, **options), Pair(oracle, backend, 2, **{**options, **special})
    optimizer = cls([plain.tensor], **options)
    for step in range(5):
        if step == 2:
            optimizer.add_param_group({"params": [other.tensor], **special})
        plain.give_gradient()
        if step >= 2:
            other.give_gradient()
        optimizer.step()
    plain.check()
    other.check()
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [5, 3]


@pytest.mark.parametrize("change", [name for name, (cls, *_) in CHANGES.items() if cls is not RMSProp])
def test_a_group_that_takes_up_momentum_later_starts_from_nothing(change, backend):
    """Also where another group has had it all along, so that there is memory for it."""
    cls, oracle, options, late = CHANGES[change]
    with_it, later = Pair(oracle, backend, 1, **{**options, **late}), Pair(oracle, backend, 2, **options)
    optimizer = cls([{"params": [with_it.tensor], **late}, {"params": [later.tensor]}], **options)
    for step in range(6):
        if step == 3:
            optimizer.param_groups[1].update(late)
            later.oracle = oracle(**{**options, **late})
        with_it.give_gradient()
        later.give_gradient()
        optimizer.step()
    with_it.check()
    later.check()


def test_momentum_that_pauses_goes_on_from_its_velocity(backend):
    w = variable([0.0], backend)
    optimizer = SGD([w], lr=1.0, momentum=0.5)
    found = []
    for momentum in (0.5, 0.0, 0.5):
        optimizer.param_groups[0]["momentum"] = momentum
        w.grad = variable([1.0], backend)
        optimizer.step()
        found.append(w.item())
    assert found == [-1.0, -2.0, -3.5]
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].tolist() == [1.5]


def test_the_step_count_and_a_pending_factor_go_on(backend):
    w = variable([0.0, 0.0], backend)
    optimizer = RMSProp([w], lr=0.1, alpha=0.5, eps=0.0)
    for momentum in (0.0, 0.0, 0.9):
        w.grad = variable([3.0, 4.0], backend)
        norm = clip_grad_norm_device([w], 1.0)
        optimizer.param_groups[0]["momentum"] = momentum
        optimizer.step()
        np.testing.assert_allclose(w.grad.numpy(), [0.6, 0.8], rtol=1e-6)
        assert float(norm) == 5.0
    state = optimizer.state_dict()["state"][0]
    assert state["step"] == 3
    np.testing.assert_allclose(state["square_avg"], 0.875 * np.array([0.36, 0.64]), rtol=1e-6)


def heavy(p, g, s, h):
    speed = h.keep * s.speed + g
    return p - h.lr * speed, speed


def light(p, g, s, h):
    return p - h.lr * g


class Chosen(Optimizer):
    """A rule of a user's own that depends on the groups."""

    def __init__(self, params, lr=1.0, keep=0.0):
        rules = Rule(light, lambda group: {"lr": group["lr"]}), Rule(heavy, self.columns, ("speed",))
        super().__init__(params, {"lr": lr, "keep": keep}, lambda groups: rules[any(g["keep"] > 0 for g in groups)])

    @staticmethod
    def columns(group):
        if group["keep"] >= 1:
            raise HyperParameterError(f"keep must be below 1, got {group['keep']}")
        return {"lr": group["lr"], "keep": group["keep"]}


def test_a_users_rule_is_chosen_anew(backend):
    w = variable([0.0], backend)
    optimizer = Chosen([w])
    for keep in (0.0, 0.5, 0.5):
        optimizer.param_groups[0]["keep"] = keep
        w.grad = variable([1.0], backend)
        optimizer.step()
    assert w.item() == -3.5
    with pytest.raises(HyperParameterError, match="keep must be below 1, got 2"):
        optimizer.param_groups[0].update(keep=2.0)
    optimizer.step()
    assert w.item() == -3.5 - 1.75


def test_a_learning_rate_alone_changes_neither_rule_nor_memory(backend, monkeypatch):
    w = variable([0.0], backend)
    optimizer = RMSProp([w], momentum=0.5)
    w.grad = variable([1.0], backend)
    optimizer.step()
    optimizer.step()
    monkeypatch.setattr(backend, "alloc", lambda n, dtype: pytest.fail("memory was asked for"))
    for step in range(5):
        optimizer.lr = 0.1 * step
        optimizer.step()


@pytest.mark.parametrize(
    ("cls", "name"), [(SGD, "learning_rate"), (Adam, "momentum"), (RMSProp, "betas"), (AdamW, "amsgrd")]
)
def test_a_name_that_a_group_does_not_have_is_refused(cls, name, backend):
    group = cls([variable([1.0], backend)], lr=0.1).param_groups[0]
    before = dict(group)
    with pytest.raises(HyperParameterError, match=f"{name}.* lr"):
        group[name] = 0.5
    with pytest.raises(HyperParameterError, match=f"{name}.* lr"):
        group.update({"lr": 0.2, name: 0.5})
    assert dict(group) == before
    group["initial_lr"] = 0.1


@pytest.mark.parametrize(("cls", "name"), [(Adam, "amsgrad"), (AdamW, "amsgrad"), (RMSProp, "centered")])
def test_another_kind_of_average_is_chosen_with_its_group(cls, name, backend):
    """One that began in the middle of a run would be of neither algorithm; a group added later has its own."""
    optimizer = cls([variable([1.0, 2.0], backend)], lr=0.1)
    group = optimizer.param_groups[0]
    for assign in (lambda: group.__setitem__(name, True), lambda: group.update({"lr": 0.2, name: True})):
        with pytest.raises(HyperParameterError, match=f"{name} .*chosen when it is made.*True.*add_param_group"):
            assign()
    assert (group["lr"], group[name]) == (0.1, False)
    group[name] = False
    optimizer.add_param_group({"params": [variable([1.0], backend)], name: True})
    with pytest.raises(HyperParameterError, match=f"{name} .*chosen when it is made"):
        optimizer.param_groups[1][name] = False
    assert [group[name] for group in optimizer.param_groups] == [False, True]
    with pytest.raises(HyperParameterError, match=f"{name} must be True or False"):
        optimizer.add_param_group({"params": [variable([1.0], backend)], name: "yes"})
