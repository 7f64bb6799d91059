"""Step blocks and row maps that do not fit are refused, and kernels lay a block out as the backend protocol does."""

import numpy as np
import pytest

from netcl import dtypes
from netcl.backends.base import ADAM_COLUMNS, COUNTERS, HEADER, ROW, Span, StepBlock
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from tests.kernels.steps import Block, Model, Values, adam_rule


def refuse(error, message, runtime, block, model, act):
    launches = runtime.launches
    with pytest.raises(error, match=message):
        act()
    assert runtime.launches == launches
    assert all(values.unchanged() for values in (*model.changing, block.header, *block.counters))


def test_refusals_change_nothing(runtime):
    block, model = Block(runtime), Model(runtime, 1500)
    short, rule = Model(runtime, 1499), adam_rule()
    p, g, rows = model.p.span, model.g.span, model.rows.span
    m, v = (values.span for values in model.state)
    half = Model(runtime, 1500, dtypes.float16)
    plain = Block(runtime, columns=(*ROW, "lr"))
    records = Values(runtime, np.zeros(1))

    def adam(p=p, g=g, m=m, v=v, block=block, rows=rows):
        runtime.fused_adam(p, g, m, v, None, block.step, rows, advance=True)

    def update(p=p, g=g, state=(m, v), block=block, rule=rule):
        runtime.fused_update(rule, p, g, state, block.step, rows, advance=True)

    def empty():
        runtime.fused_adam(p, g, m, v, None, StepBlock(block.header.span, ADAM_COLUMNS), rows, advance=True)

    cases = [
        (ShapeError, "of one size, got 1500, 1499, 1500, 1500", lambda: adam(g=short.g.span)),
        (ShapeError, "row map of 1500 elements is 2 entries", lambda: adam(rows=Span(rows.buffer, rows.offset, 1))),
        (ShapeError, "row map .* of float32", lambda: adam(rows=m)),
        (ShapeError, "needs a step block with rows", empty),
        (HyperParameterError, "fused_adam reads the columns active, sign, lr", lambda: adam(block=plain)),
        (HyperParameterError, "reads the hyper-parameter '.*', which is neither", lambda: update(block=plain)),
        (ShapeError, "takes 4 arrays and gives 3; with 1 state", lambda: update(state=(m,))),
        (DTypeError, "traced for float32 where it is given float16", lambda: update(p=half.p.span)),
        (ShapeError, "1 records of 2 values, got room for 1", lambda: runtime.norm_reduce(g, records.span, 2.0)),
        (ShapeError, "pass block= with rows=", lambda: runtime.norm_reduce(g, m, 2.0, rows=rows)),
        (HyperParameterError, "positive or infinite, got -1", lambda: runtime.norm_reduce(g, m, -1.0)),
        (HyperParameterError, "positive or infinite, got 0", lambda: runtime.prepare_step(block.step, m, ord=0.0)),
        (DTypeError, "takes floating-point elements", lambda: runtime.norm_reduce(rows, m, 2.0)),
    ]
    for error, message, act in cases:
        refuse(error, message, runtime, block, model, act)


def test_a_block_that_is_too_small_is_refused(runtime):
    block, model = Block(runtime), Model(runtime, 10)
    block.step.rows = 2
    with pytest.raises(ShapeError, match="hyper of a step block with 2 rows needs 26 values, got 13"):
        model.adam(runtime, block)
    with pytest.raises(ShapeError, match="needs 26 values"):
        runtime.prepare_step(block.step)
    block.step.hyper = None
    with pytest.raises(ShapeError, match="needs hyper and counters"):
        runtime.prepare_step(block.step)


def test_a_block_of_another_width_is_refused(runtime):
    if not runtime.supports(dtypes.float64):
        pytest.skip(f"{runtime.device} does not compute with float64")
    block, model = Block(runtime, dtype=dtypes.float64), Model(runtime, 10)
    with pytest.raises(DTypeError, match="computed in float32, but the step is computed in float64"):
        model.adam(runtime, block)


@pytest.mark.parametrize(
    ("enumeration", "names"),
    [("header", HEADER), ("counter", COUNTERS), ("column", ADAM_COLUMNS)],
)
def test_kernels_and_protocol_lay_a_block_out_alike(enumeration, names):
    from netcl.backends.opencl.device.program import source

    text = source("step.clh").split(f"enum {enumeration} {{")[1].split("}")[0]
    found = [name.strip().lower() for name in text.split(",")]
    found = [name.removeprefix("header_").removeprefix("counter_") for name in found if name != "counter_count"]
    assert found == list(names)
