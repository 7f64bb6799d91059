"""fused_adam on OpenCL, in both forms: every variant and storage, in float64's arithmetic."""

import math

import pytest

from netcl.backends.base import CHUNK
from tests.kernels.steps import EPS, Block, Model, adam_oracle, check

VARIANTS = {
    "plain": {},
    "l2": {"l2": 0.1},
    "decoupled": {"decay": 0.1},
    "maximize": {"sign": -1.0},
    "no-memory": {"beta1": 0.0, "one_minus_beta1": 1.0, "log_beta1": -math.inf},
}


@pytest.mark.parametrize("fields", [2, 3], ids=["adam", "amsgrad"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n", [1, 9, CHUNK - 1, 2 * CHUNK, 3 * CHUNK + 13])
def test_adam(runtime, n, variant, fields):
    block = Block(runtime, [VARIANTS[variant]], steps=[7], multiplier=0.25)
    model = Model(runtime, n, fields=fields)
    given_values = [values.given for values in (model.p, model.g, *model.state)]
    model.adam(runtime, block)
    check(model.changing, adam_oracle(block.rows[0], 7, 0.25, *given_values))
    assert model.g.unchanged()
    assert block.hyper.unchanged()
    assert block.counters[0].unchanged()
    assert block.counters[1].unchanged()


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_adam_in_every_storage(runtime, dtype):
    if not runtime.supports(dtype):
        pytest.skip(f"{runtime.device} does not compute with {dtype}")
    block = Block(runtime, [{"decay": 0.1, "lr": 0.1}], dtype.compute)
    model = Model(runtime, 1234, dtype)
    given_values = [values.given for values in (model.p, model.g, *model.state)]
    model.adam(runtime, block)
    check(model.changing, adam_oracle(block.rows[0], 1, 1.0, *given_values))
