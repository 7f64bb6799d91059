"""The fused updates on OpenCL: both forms of each kernel, exact bits, kept launches, refusals."""

import gc
import math
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, ROW, Span, StepBlock
from netcl.backends.opencl.codegen.update_rule import with_reciprocals
from netcl.backends.opencl.ops.update import KEPT_LAUNCHES
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from tests.kernels.steps import EPS, Block, Model, Values, adam_oracle, adam_rule, check, hyper

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
    by_rule = Model(runtime, 1234, dtype)
    by_rule.update(runtime, adam_rule(dtype), block)
    check(by_rule.changing, adam_oracle(block.rows[0], 1, 1.0, *given_values))


@settings(max_examples=10)
@given(n=st.integers(1, 5 * CHUNK), seed=st.integers(0, 99), amsgrad=st.booleans())
def test_both_forms_give_the_same_bits(forms, n, seed, amsgrad):
    rng = np.random.default_rng(seed)
    map_of_rows = rng.integers(0, 3, -(-n // CHUNK))
    found = []
    for runtime in forms.values():
        block = Block(runtime, [{"decay": 0.1}, {"active": 0.0}, {"l2": 0.1, "lr": 0.3}], steps=[1, 5, 9])
        model = Model(runtime, n, fields=3 if amsgrad else 2, rows=map_of_rows, seed=seed)
        model.adam(runtime, block, advance=True)
        by_rule = Model(runtime, n, rows=map_of_rows, seed=seed)
        by_rule.update(runtime, adam_rule(), block)
        inactive = np.repeat(map_of_rows, CHUNK)[:n] == 1
        for values in (*model.changing, *by_rule.changing):
            np.testing.assert_array_equal(values.values()[inactive], values.given[inactive])
        found.append([*model.bytes(), *by_rule.bytes(), block.counters[1].bytes()])
    assert found[0] == found[1]


@settings(max_examples=10)
@given(n=st.integers(2, 3 * CHUNK), data=st.data())
def test_the_same_bits_however_a_span_is_cut(forms, n, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=4)))
    for runtime in forms.values():
        block = Block(runtime, [{"decay": 0.1, "l2": 0.01}])
        whole, cut, cut_rule = (Model(runtime, n) for _ in range(3))
        whole.adam(runtime, block)
        state = [values.span for values in cut.state]
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
            p, g, m, v = (
                Span(span.buffer, span.offset + start, stop - start) for span in (cut.p.span, cut.g.span, *state)
            )
            rows = Span(cut.rows.buffer, cut.rows.span.offset, -(-(stop - start) // CHUNK))
            runtime.fused_adam(p, g, m, v, None, block.step, rows, advance=False)
        assert cut.bytes() == whole.bytes()
        whole_rule = Model(runtime, n)
        whole_rule.update(runtime, adam_rule(), block)
        for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
            p, g, m, v = (
                Span(values.buffer, values.span.offset + start, stop - start)
                for values in (cut_rule.p, cut_rule.g, *cut_rule.state)
            )
            rows = Span(cut_rule.rows.buffer, cut_rule.rows.span.offset, -(-(stop - start) // CHUNK))
            runtime.fused_update(adam_rule(), p, g, [m, v], block.step, rows, advance=False)
        assert cut_rule.bytes() == whole_rule.bytes()


@pytest.mark.parametrize("advance", [False, True])
@pytest.mark.parametrize("call", ["adam", "update"])
def test_skip_changes_no_byte(runtime, call, advance):
    block = Block(runtime, [{}, {}], steps=[4, 6], skip=1.0)
    model = Model(runtime, 2 * CHUNK + 1, rows=[0, 1, 1])
    if call == "adam":
        model.adam(runtime, block, advance)
    else:
        model.update(runtime, adam_rule(), block, advance)
    assert all(values.unchanged() for values in model.changing)
    assert block.header.unchanged()
    assert block.counters[0].unchanged()
    expected = block.counters[0].bytes() if advance else block.counters[1].before[block.counters[1].inside].tobytes()
    assert block.counters[1].bytes() == expected


@pytest.mark.parametrize("count", [1, 3, 700])
@pytest.mark.parametrize("prepared", [False, True])
def test_counters_of_many_rows_advance(runtime, count, prepared):
    rows = [{"active": float(i % 3 != 1), "log_beta1": math.log(0.5 + i / 2000)} for i in range(count)]
    steps = [1 + i * i for i in range(count)]
    block = Block(runtime, rows, steps=steps)
    model = Model(runtime, 5)
    if prepared:
        runtime.prepare_step(block.step)
        model.adam(runtime, block)
    else:
        model.adam(runtime, block, advance=True)
    assert block.read_steps(0) == steps
    moved = [step + (i % 3 != 1) for i, step in enumerate(steps)]
    assert block.read_steps(1) == moved
    corrections = block.counters[1].values().reshape(-1, len(COUNTERS))[:, 1:3]
    logs = np.array([[row["log_beta1"], row["log_beta2"]] for row in block.rows])
    np.testing.assert_allclose(corrections, -np.expm1(np.array(moved)[:, None] * logs), rtol=1e-6)


def test_a_rule_without_decay_rates_keeps_its_corrections(runtime):
    f = dtypes.float32
    descent = ex.trace(lambda p, g: p - hyper("lr") * g, (f, f), stored=(f,))
    block = Block(runtime, [{}], columns=(*ROW, "lr"), steps=[3])
    model = Model(runtime, 10, fields=0)
    model.update(runtime, descent, block, advance=True)
    before, after = (dict(zip(COUNTERS, counters.values().tolist(), strict=True)) for counters in block.counters)
    assert after == {**before, "step": 4.0, "count_low": 4.0}


# -- kept launches -----------------------------------------------------------------------------------------------------


def test_a_step_is_three_launches_that_are_made_once(runtime):
    block, model = Block(runtime), Model(runtime, 3000)
    records = Values(runtime, np.zeros(2 * runtime.norm_partials(3000)))

    def step():
        runtime.norm_reduce(model.g.span, records.span, 2.0, rows=model.rows.span, block=block.step)
        runtime.prepare_step(block.step, records.span, max_norm=1.0)
        model.adam(runtime, block)
        block.step.slot ^= 1

    step()
    step()
    kept, launches, blocking = dict(block.step.bound), runtime.launches, runtime.blocking
    for _ in range(4):
        step()
    assert runtime.launches - launches == 12
    assert runtime.blocking == blocking
    assert {key: id(launch) for key, launch in block.step.bound.items()} == {
        key: id(launch) for key, launch in kept.items()
    }
    assert block.read_steps(block.step.slot) == [7]


def test_a_moved_gradient_is_followed_and_the_old_one_freed(runtime):
    block, model = Block(runtime), Model(runtime, 500)
    model.adam(runtime, block)
    old = weakref.ref(model.g.buffer)
    given_values = [values.values() for values in model.changing]
    model.g = Values(runtime, np.full(500, 0.25))
    gc.collect()
    assert old() is None, "a kept launch holds a gradient alive"
    model.adam(runtime, block)
    p, m, v = given_values
    check(model.changing, adam_oracle(block.rows[0], 1, 1.0, p, model.g.given, m, v))
    assert len(block.step.bound) == 1


def test_launches_kept_for_passing_spans_are_few(runtime):
    block, model = Block(runtime), Model(runtime, 2 * KEPT_LAUNCHES)
    m, v = (values.span for values in model.state)
    for start in range(KEPT_LAUNCHES + 10):
        p, g, first, second = (Span(s.buffer, s.offset + start, 1) for s in (model.p.span, model.g.span, m, v))
        runtime.fused_adam(p, g, first, second, None, block.step, model.rows.span, advance=False)
    assert len(block.step.bound) <= KEPT_LAUNCHES


# -- refusals ----------------------------------------------------------------------------------------------------------


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


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("enumeration", "names"),
    [("header", HEADER), ("counter", COUNTERS), ("column", ADAM_COLUMNS)],
)
def test_kernels_and_seam_lay_a_block_out_alike(enumeration, names):
    from netcl.backends.opencl.device.program import source

    text = source("step.clh").split(f"enum {enumeration} {{")[1].split("}")[0]
    found = [name.strip().lower() for name in text.split(",")]
    found = [name.removeprefix("header_").removeprefix("counter_") for name in found if name != "counters"]
    assert found == list(names)


def divisions(rule):
    return [node for node in rule.nodes() if node.op == "divide"]


def test_a_rule_divides_by_a_hyper_parameter_once_for_a_chunk():
    rule = adam_rule()
    rewritten = with_reciprocals(rule)
    assert len(divisions(rule)) == 3
    by_element = [node for node in divisions(rewritten) if node.args[0].op != "constant"]
    assert len(by_element) == 1, "only the division by the root is one per element"
    assert (rewritten.inputs, rewritten.stored) == (rule.inputs, rule.stored)


def test_a_rule_of_many_operations_is_rewritten():
    def long(p, g):
        for _ in range(3000):
            p = p - g / hyper("lr")
        return p

    rule = ex.trace(long, (dtypes.float32,) * 2, stored=(dtypes.float32,))
    assert all(node.args[0].op == "constant" for node in divisions(with_reciprocals(rule)))
