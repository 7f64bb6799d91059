"""Averages of parameters and slow weights, against their formulas in float64, in the launches of the step."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import netcl
from netcl.errors import HyperParameterError, NetclError, StateError
from netcl.optim import (
    LAMB,
    LARS,
    LBFGS,
    SGD,
    Adafactor,
    Adam,
    AdamW,
    AveragedParameters,
    Lookahead,
    Muon,
    zero_nans,
)
from tests import tensor_rules
from tests.optimizers import Case, adamw_oracle, sgd_oracle
from tests.tensor_rules import lamb_oracle

KINDS = {
    "mean": {},
    "mean of some": {"start": 2, "every": 3},
    "moving": {"decay": 0.9},
    "moving, warmed up": {"decay": 0.99, "warmup": True, "every": 2, "start": 1},
}


CASES = [
    Case(AdamW, {"lr": 0.1}),
    tensor_rules.Case(LAMB, {"lr": 0.05, "weight_decay": 0.1}),
    tensor_rules.Case(LARS, {"lr": 0.1, "trust_coefficient": 0.1, "nesterov": True}),
    tensor_rules.Case(Muon, {"lr": 0.02}),
    tensor_rules.Case(Adafactor, {"lr": 0.1, "eps": (1e-7, 1e-3)}),
]


def of_each_kind(row):
    """Of a mean and of a moving average a kernel for each rule, and of AdamW all."""
    return row["case"] in CASES[:1] or (row["case"] in CASES[1:3] and row["kind"] in list(KINDS)[1:3])


def averaged(average, theta, step, decay=None, start=0, every=1, warmup=False):
    """The average after a step; written from the definitions of P. Izmailov et al., 2018, and of an EMA."""
    taken, rest = divmod(step - start, every)
    if step - start <= every:
        return theta
    if rest:
        return average
    weight = 1.0 / taken if decay is None else 1.0 - decay
    if warmup:
        weight = max(weight, 1.0 - (taken - 1 + 1) / (taken - 1 + 10))
    return average + weight * (theta - average)


def parameters(backend, sizes=(1100, 3), dtype="float32"):
    rng = np.random.default_rng(4)
    return [
        netcl.asarray(rng.standard_normal(size), dtype=dtype, device=backend.device, requires_grad=True)
        for size in sizes
    ]


def give_gradients(tensors, step):
    rng = np.random.default_rng(100 + step)
    for p in tensors:
        p.grad = netcl.asarray(rng.standard_normal(p.shape), dtype=p.dtype, device=p.device)


@pytest.mark.compiled(rows=of_each_kind)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_average_follows_its_formula(case, kind, backend):
    """And the parameters theirs, both in float64: from the third step on, and where one has no gradient for once."""
    tensors = parameters(backend, ((11, 100), (3, 1)))
    optimizer = case.optimizer(tensors, **case.options)
    expected, oracles = [p.numpy().astype(float) for p in tensors], [case.oracle() for _ in tensors]
    for step in range(1, 11):
        if step == 3:
            averages, means = AveragedParameters(optimizer, **KINDS[kind]), list(expected)
        give_gradients(tensors, step)
        if step == 6:
            tensors[1].grad = None
        for i, p in enumerate(tensors):
            if p.grad is not None:
                expected[i] = oracles[i](expected[i], p.grad.numpy().astype(float))
                if step >= 3:
                    counted = step - 2 - (i == 1 and step > 6)
                    means[i] = averaged(means[i], expected[i], counted, **KINDS[kind])
        optimizer.step()
    for p, x, mean in zip(tensors, expected, means, strict=True):
        np.testing.assert_allclose(p.numpy(), x, rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(optimizer.state[p][averages.name].numpy(), mean, rtol=2e-5, atol=1e-5)
    assert averages.n_averaged == (8 - KINDS[kind].get("start", 0)) // KINDS[kind].get("every", 1)


@pytest.mark.parametrize("cls", [SGD, LAMB])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_average_is_that_of_the_master_weights(dtype, cls):
    with netcl.use_backend("numpy"):
        (p,) = parameters(netcl.get_backend(), (5,), dtype)
        optimizer = cls([p], lr=1e-4)
        AveragedParameters(optimizer, 0.5)
        for step in range(4):
            give_gradients([p], step)
            optimizer.step()
            state = optimizer.state[p]
            theta = (state.get("master", p)).numpy().astype(float)
            average = theta if step == 0 else average + 0.5 * (theta - average)  # noqa: F821
        np.testing.assert_allclose(state["ema"].numpy(), average, rtol=1e-6)
        assert str(state["ema"].dtype) == ("float64" if dtype == "float64" else "float32")


def test_lookahead_follows_its_formula(backend):
    """M. R. Zhang et al., 2019, around plain descent, around AdamW and around LAMB."""
    for cls, oracle in ((SGD, sgd_oracle), (AdamW, adamw_oracle), (LAMB, lamb_oracle)):
        tensors = parameters(backend)
        values = [p.numpy().astype(float) for p in tensors]
        slow, fast = list(values), [oracle(lr=0.1) for _ in tensors]
        optimizer = Lookahead(cls(tensors, lr=0.1), k=3, alpha=0.25)
        for step in range(1, 8):
            give_gradients(tensors, step)
            gradients = [p.grad.numpy().astype(float) for p in tensors]
            values = [rule(x, g) for rule, x, g in zip(fast, values, gradients, strict=True)]
            if step % 3 == 0:
                slow = [s + 0.25 * (x - s) for s, x in zip(slow, values, strict=True)]
                values = list(slow)
            optimizer.step()
        for p, x in zip(tensors, values, strict=True):
            np.testing.assert_allclose(p.numpy(), x, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize(("cls", "expected"), [(Adam, 1), (LAMB, 2), (LARS, 2)])
def test_all_of_them_take_no_launch_more(cls, expected, backend):
    if not hasattr(backend, "launches"):
        pytest.skip("a backend without launches to count")
    tensors = parameters(backend, (1100, 3, 40))
    optimizer = zero_nans(Lookahead(cls([{"params": [p]} for p in tensors])))
    AveragedParameters(optimizer, 0.9)
    AveragedParameters(optimizer)
    for step in range(3):
        give_gradients(tensors, step)
        optimizer.step()
        give_gradients(tensors, step)
        optimizer._engine._ready(None)  # moves the gradients in, which were given from elsewhere
        launches, blocking = backend.launches, backend.blocking
        optimizer.step()
        assert (backend.launches - launches, backend.blocking - blocking) == (expected, 0)


def test_parameters_hold_averages_within_a_block(backend):
    tensors = parameters(backend)
    optimizer = SGD(tensors, lr=0.1)
    averages = AveragedParameters(optimizer)
    with averages.applied():  # before any step they are the parameters
        np.testing.assert_array_equal(tensors[1].numpy(), optimizer.state[tensors[1]]["swa"].numpy())
    for step in range(3):
        give_gradients(tensors, step)
        optimizer.step()
    before = [p.numpy().copy() for p in tensors]
    with pytest.raises(ZeroDivisionError), averages.applied():  # noqa: PT012
        for p in tensors:
            np.testing.assert_array_equal(p.numpy(), optimizer.state[p]["swa"].numpy())
        for call in (optimizer.step, averages.adopt, averages.restart):
            with pytest.raises(NetclError, match="hold averages"):
                call()
        with pytest.raises(NetclError, match="hold averages"), averages.applied():
            pass
        raise ZeroDivisionError
    for p, values in zip(tensors, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), values)
    averages.adopt()
    for p in tensors:
        np.testing.assert_array_equal(p.numpy(), optimizer.state[p]["swa"].numpy())
    optimizer.step()
    averages.restart()
    np.testing.assert_array_equal(tensors[1].numpy(), optimizer.state[tensors[1]]["swa"].numpy())


def made(tensors, cls):
    optimizer = Lookahead(cls(tensors, lr=0.05), k=3)
    return optimizer, AveragedParameters(optimizer, 0.9, start=2, every=2)


@pytest.mark.parametrize("cls", [AdamW, LAMB])
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_training_goes_on_bit_for_bit(way, cls, backend):
    tensors = parameters(backend)
    optimizer, averages = made(tensors, cls)
    for step in range(5):
        give_gradients(tensors, step)
        optimizer.step()
    if way == "state_dict":
        others = [netcl.asarray(p.numpy(), device=p.device, requires_grad=True) for p in tensors]
        other, mean = made(others, cls)
        other.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    elif way == "deepcopy":
        others, other, mean = copy.deepcopy((tensors, optimizer, averages))
    else:
        others, other, mean = pickle.loads(pickle.dumps((tensors, optimizer, averages)))
    for step in range(5, 10):
        give_gradients(tensors, step)
        give_gradients(others, step)
        optimizer.step()
        other.step()
    assert mean.n_averaged == averages.n_averaged == 4
    for p, q in zip(tensors, others, strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()
        assert {n: x.numpy().tobytes() for n, x in optimizer.state[p].items()} == {
            n: x.numpy().tobytes() for n, x in other.state[q].items()
        }


@pytest.mark.parametrize("cls", [SGD, LARS])
def test_what_comes_later_starts_as_the_parameters(cls, backend):
    first, second, third = parameters(backend, (4, 3, 2))
    optimizer = cls([first], lr=0.1)
    give_gradients([first], 0)
    optimizer.step()
    averages = AveragedParameters(optimizer)
    assert optimizer.param_groups[0]["swa_start"] == 1
    optimizer.add_param_group({"params": [second], "swa_every": 2})
    for p in (first, second):
        np.testing.assert_array_equal(optimizer.state[p]["swa"].numpy(), p.numpy())
    theirs = cls([{"params": [first]}, {"params": [second]}])
    with pytest.raises(StateError, match="swa"):
        theirs.load_state_dict(optimizer.state_dict())
    for bad in ({"name": "swa"}, {"decay": 1.0}, {"warmup": True}, {"every": 0}, {"name": "a b"}):
        with pytest.raises(HyperParameterError):
            AveragedParameters(optimizer, **bad)
    with pytest.raises(HyperParameterError, match="another library"):
        AveragedParameters(cls([np.ones(2, "float32")]))
    assert averages.n_averaged == 0
    del third


def test_what_has_no_place_for_an_average_is_refused():
    with netcl.use_backend("numpy"):
        matrix, vector = parameters(netcl.get_backend(), ((2, 3), 4))
        with pytest.raises(HyperParameterError, match=r"LBFGS moves along lines.*got Averaging; use another"):
            AveragedParameters(LBFGS([vector]))
        optimizer = Adafactor([matrix])
        with pytest.raises(HyperParameterError, match="'row_var' names two state fields"):
            AveragedParameters(optimizer, name="row_var")
        AveragedParameters(optimizer, name="variance")
        with pytest.raises(HyperParameterError, match="'variance' names two state fields"):
            optimizer.add_param_group({"params": [vector]})
        give_gradients([matrix], 0)
        optimizer.step()
        assert list(optimizer.state_dict()["state"][0]) == ["step", "variance", "row_var", "col_var"]
