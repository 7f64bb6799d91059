"""What fused_adam and fused_update have in common: exact bits, skipped steps, and kept launches."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl.backends.base import CHUNK, Span
from netcl.backends.opencl.device.bound_launch import KEPT_LAUNCHES
from tests.kernels.steps import Block, Model, Values, adam_oracle, adam_rule, check


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
