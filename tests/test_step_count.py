"""The number of steps, exact as far as 64 bits reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.amp import GradScaler
from netcl.backends.base import COUNT_BASE
from netcl.expression import where
from netcl.optim import Adam, Optimizer, Rule
from netcl.optim.engine.checkpoint import Entry

EDGES = [0, COUNT_BASE - 2, 2**24 - 2, 2**24, 2**31 - 1, 2**32 - 1, COUNT_BASE**2 - 2, 2**53, 2**53 + 1, 2**63 - 5]


def variable(values, backend, dtype="float32"):
    return netcl.asarray(np.asarray(values, dtype), device=backend.device, requires_grad=True)


def go_on_from(optimizer, steps):
    """Take the counts as a checkpoint brings them."""
    for partition in optimizer.partitions:
        fields = partition.read_state()
        partition.prepared_state(
            {id(p): Entry(step, fields[id(p)][1]) for p, step in zip(partition.parameters, steps, strict=True)}
        )()


def counts(optimizer):
    return [entry["step"] for entry in optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("start", EDGES)
def test_counts_on_exactly(start, dtype, backend):
    if not backend.supports(netcl.float64) and dtype == "float64":
        dtype = "bfloat16"
    w, inactive = variable([1.0], backend, dtype), variable([1.0], backend, dtype)
    optimizer = Adam([w, inactive], lr=1e-3)
    go_on_from(optimizer, [start, start])
    assert counts(optimizer) == [start, start]
    w.grad = variable([1.0], backend, dtype)
    for taken in range(1, 5):  # which gives the one that is skipped a row of its own
        optimizer.step(max_norm=1.0 if taken % 2 else None)
        assert counts(optimizer) == [start + taken, start]
    go_on_from(optimizer, counts(optimizer))
    inactive.grad = variable([1.0], backend, dtype)
    optimizer.step()
    assert counts(optimizer) == [start + 5, start + 1]


@pytest.mark.parametrize("start", [2**24 - 1, 2**53])
def test_a_skipped_step_does_not_count(start, backend):
    w = variable([1.0], backend)
    optimizer, scaler = Adam([w], lr=1e-3), GradScaler(init_scale=1.0)
    scaler.scale(netcl.ones(1, device=backend.device))
    go_on_from(optimizer, [start])
    for gradient, expected in ((1.0, 1), (math.inf, 1), (1.0, 2)):
        w.grad = variable([gradient], backend)
        scaler.step(optimizer)
        scaler.update()
        assert counts(optimizer) == [start + expected]


class Told(Optimizer):
    """Writes the number of the step, as a rule is told it, over the parameter."""

    def __init__(self, params):
        rule = Rule(lambda p, g, s, h: where(g == 0.0, p, h.step), lambda group: {"lr": group["lr"]})
        super().__init__(params, {"lr": 0.0}, rule)


@pytest.mark.parametrize("start", EDGES)
def test_a_rule_is_told_the_nearest_number(start, backend):
    w = variable([1.0], backend)
    optimizer = Told([w])
    go_on_from(optimizer, [start])
    w.grad = variable([1.0], backend)
    for taken in range(1, 4):
        optimizer.step()
        assert w.item() == float(np.uint64(start + taken).astype(np.float32))


@given(start=st.integers(0, 2**63 - 2), beta=st.sampled_from([0.9, 0.999, 1.0 - 2.0**-20, 1.0 - 2.0**-40]))
def test_the_bias_correction_belongs_to_the_count(start, beta, backend):
    """A step along constant averages of 1 moves by lr·(1/c1) / sqrt(1/c2), whatever the number of the step."""
    w = variable([0.0], backend)
    optimizer = Adam([w], lr=1.0, betas=(0.0, beta), eps=0.0)
    partition = optimizer.partitions[0]
    partition.prepared_state(
        {id(w): Entry(start, {name: np.ones(1, "float32") for name in ("exp_avg", "exp_avg_sq")})}
    )()
    w.grad = variable([1.0], backend)
    for taken in (1, 2):
        before = w.item()
        optimizer.step()
        correction = -math.expm1((start + taken) * math.log(beta))
        assert before - w.item() == pytest.approx(math.sqrt(correction), rel=2e-6)
