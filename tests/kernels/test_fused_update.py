"""fused_update on OpenCL, in both forms: traced rules in every storage, and what a rule does not have."""

import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import COUNTERS, ROW
from tests.kernels.steps import EPS, Block, Model, adam_oracle, adam_rule, check, hyper


@pytest.mark.parametrize("dtype", EPS, ids=str)
def test_a_rule_in_every_storage(runtime, dtype):
    if not runtime.supports(dtype):
        pytest.skip(f"{runtime.device} does not compute with {dtype}")
    block = Block(runtime, [{"decay": 0.1, "lr": 0.1}], dtype.compute)
    model = Model(runtime, 1234, dtype)
    given_values = [values.given for values in (model.p, model.g, *model.state)]
    model.update(runtime, adam_rule(dtype), block)
    check(model.changing, adam_oracle(block.rows[0], 1, 1.0, *given_values))


def test_a_rule_without_decay_rates_keeps_its_corrections(runtime):
    f = dtypes.float32
    descent = ex.trace(lambda p, g: p - hyper("lr") * g, (f, f), stored=(f,))
    block = Block(runtime, [{}], columns=(*ROW, "lr"), steps=[3])
    model = Model(runtime, 10, fields=0)
    model.update(runtime, descent, block, advance=True)
    before, after = (dict(zip(COUNTERS, counters.values().tolist(), strict=True)) for counters in block.counters)
    assert after == {**before, "step": 4.0, "count_low": 4.0}
