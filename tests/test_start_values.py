"""State fields that start at another number than zero."""

from __future__ import annotations

import copy
import inspect
import math

import numpy as np
import pytest

import netcl
from netcl.errors import ArgumentError, HyperParameterError
from netcl.expression import sqrt
from netcl.optim import Optimizer, Rule

START = 0.125


def adagrad(p, g, s, h):
    total = s.sum + g * g
    return p - h.lr * g / sqrt(total), total


def descent(p, g, s, h):
    return (p - h.lr * g,)


def rate(group):
    return {"lr": group["lr"]}


ADAGRAD, DESCENT = Rule(adagrad, rate, {"sum": START}), Rule(descent, rate)


def choose(groups):
    return ADAGRAD if any(group["adaptive"] for group in groups) else DESCENT


class Adagrad(Optimizer):
    """J. Duchi et al., 2011.

    **common
    """

    def __init__(self, params, lr=0.5, adaptive=True, **common):
        super().__init__(params, {"lr": lr, "adaptive": adaptive}, choose, common=common)


def variable(size, backend, dtype="float32"):
    made = netcl.zeros(size, dtype=dtype, device=backend.device, requires_grad=True)
    made.grad = netcl.full(size, 2.0, dtype=dtype, device=backend.device)
    return made


def sums(optimizer):
    return [float(entry["sum"].max()) for entry in optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("max_norm", [None, 1e9])
def test_steps_go_on_from_the_start(dtype, max_norm, backend):
    if not backend.supports(netcl.dtypes.BY_NAME[dtype]):
        pytest.skip(f"{backend.device} does not compute in {dtype}")
    tensors = [variable(size, backend, dtype) for size in (3, 1025)]
    optimizer = Adagrad(tensors)
    assert sums(optimizer) == [START, START]
    optimizer.step(max_norm=max_norm)
    assert sums(optimizer) == [START + 4.0] * 2
    for tensor in tensors:
        moved = tensor.astype("float64").numpy()
        np.testing.assert_allclose(moved, -1.0 / math.sqrt(START + 4.0), rtol=4e-3 if "16" in dtype else 1e-6)
    assert math.isfinite(float(netcl.optim.clip_grad_norm_device(tensors, 1.0)))  # nothing is wrong in the padding


def test_state_that_comes_late_starts_there(backend):
    w = variable(3, backend)
    optimizer = Adagrad([w], adaptive=False)
    optimizer.step()
    assert "sum" not in optimizer.state_dict()["state"][0]
    optimizer.param_groups[0]["adaptive"] = True
    assert sums(optimizer) == [START]
    optimizer.step()
    assert sums(optimizer) == [START + 4.0]


def test_a_group_that_comes_later_starts_there(backend):
    first, second = variable(3, backend), variable(2000, backend)
    optimizer = Adagrad([first])
    optimizer.step()
    optimizer.add_param_group({"params": [second]})
    assert sums(optimizer) == [START + 4.0, START]
    optimizer.step()
    assert sums(optimizer) == [START + 8.0, START + 4.0]


def test_a_group_that_comes_after_its_state_went_out_of_use_starts_there(backend):
    first, second = variable(3, backend), variable(5, backend)
    optimizer = Adagrad([first])
    optimizer.step()
    optimizer.param_groups[0]["adaptive"] = False
    optimizer.add_param_group({"params": [second], "adaptive": False})
    optimizer.step()
    optimizer.param_groups[1]["adaptive"] = True
    assert sums(optimizer) == [START + 4.0, START]


def test_what_a_checkpoint_lacks_starts_there(backend):
    first, second = variable(3, backend), variable(2, backend)
    optimizer = Adagrad([{"params": [first]}, {"params": [second], "adaptive": False}])
    optimizer.step()
    state = optimizer.state_dict()
    del state["state"][1]["sum"]
    optimizer.load_state_dict(state)
    assert sums(optimizer) == [START + 4.0, START]


def test_checkpoints_and_copies_go_on(backend):
    w = variable(3, backend)
    optimizer = Adagrad([w])
    optimizer.step()
    other = Adagrad([variable(3, backend)])
    other.load_state_dict(optimizer.state_dict())
    assert sums(other) == [START + 4.0]
    tensors, copied = copy.deepcopy(([w], optimizer))
    tensors[0].grad = netcl.full(3, 2.0, device=backend.device)
    copied.step()
    assert (sums(copied), sums(optimizer)) == ([START + 8.0], [START + 4.0])


def test_starts_are_checked():
    with pytest.raises(HyperParameterError, match="the start of sum must be a number"):
        Rule(adagrad, rate, {"sum": "0"})
    with pytest.raises(HyperParameterError, match="the start of sum"):
        Rule(adagrad, rate, {"sum": math.nan})
    with pytest.raises(ArgumentError, match="a number for each of 1 field"):
        Rule(adagrad, rate, ("sum",), starts=(1.0, 2.0))
    with pytest.raises(ArgumentError, match=r"a tuple of names .* or a dict"):
        Rule(adagrad, rate, 5)


def test_an_optimizer_of_ones_own_takes_the_common_options():
    names = [*inspect.signature(Adagrad).parameters]
    assert names[:5] == ["params", "lr", "adaptive", "maximize", "master_weights"]
    assert names[5:-4] == ["rounding", "state_dtype", "rounding_seed", "backend"]
    assert names[-4:] == ["foreach", "fused", "capturable", "differentiable"]  # torch's, without effect
    assert "maximize : bool, default False" in Adagrad.__doc__
    assert "**common" not in Adagrad.__doc__
    w = netcl.zeros(3, requires_grad=True)
    w.grad = netcl.ones(3)
    optimizer = Adagrad([w], maximize=True)
    optimizer.step()
    assert (optimizer.param_groups[0]["maximize"], w.numpy()[0] > 0) == (True, True)
    with pytest.raises(TypeError, match=r"Adagrad\.__init__\(\) got an unexpected keyword argument 'fuse'"):
        Adagrad([w], fuse=True)
    with pytest.raises(HyperParameterError, match="maximize"):
        Adagrad([w], maximize=1)
