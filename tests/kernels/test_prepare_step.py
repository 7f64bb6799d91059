"""prepare_step on OpenCL, in both forms: norms and clip factors of any size, and the coming step's counters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl.backends.base import COUNTERS
from tests.kernels.norms import ORDERS, SHORT, factor, norm_of, norm_oracle, product, records_of
from tests.kernels.steps import Block, Model, Values


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("sizes", [(1e30,), (3.4e38,), (1e-30,), (1e-38,), (1e30, 1e-30), (2.0**41,), (2.0**-41,)])
def test_no_finite_norm_overflows_or_underflows(runtime, sizes, ord):
    rng = np.random.default_rng(0)
    xs = [Values(runtime, size * rng.uniform(-1, 1, 300)) for size in sizes]
    header = norm_of(runtime, xs, ord, max_norm=1.0)
    expected = norm_oracle(np.concatenate([x.given for x in xs]), ord)
    np.testing.assert_allclose(product(header), expected, rtol=4e-6)
    assert header["nonfinite"] == 0
    np.testing.assert_allclose(factor(header), min(1.0, float(1 / expected)), rtol=4e-6)


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("place", [0, 1000, 40_000])
@pytest.mark.parametrize(
    ("bad", "norm"), [([math.inf], math.inf), ([math.nan], math.nan), ([-math.inf, math.nan], math.nan)]
)
def test_what_is_not_finite_is_seen(runtime, ord, place, bad, norm):
    values = np.ones(50_000)
    values[place : place + len(bad)] = bad
    header = norm_of(runtime, [Values(runtime, values)], ord, max_norm=1.0)
    np.testing.assert_equal(header["norm"], norm)
    assert (header["nonfinite"], header["multiplier"]) == (1, 1)


@settings(max_examples=15)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), max_size=50),
    st.sampled_from(ORDERS),
    st.floats(1e-3, 1e3),
)
def test_norm_and_clip_of_anything_finite(forms, values, ord, max_norm):
    expected = norm_oracle(np.float32(values), ord)
    for runtime in forms.values():
        header = norm_of(runtime, [Values(runtime, values)], ord, max_norm=max_norm)
        np.testing.assert_allclose(product(header), expected, rtol=1e-5)
        clip = 1.0 if expected == 0 else min(1.0, float(max_norm / expected))
        np.testing.assert_allclose(factor(header), clip, rtol=1e-5)


@pytest.mark.parametrize("max_norm", [5.0, 5.0000005, 1e30, math.inf])
def test_a_norm_within_bounds_is_left_exactly(runtime, max_norm):
    header = norm_of(runtime, [Values(runtime, [3.0, -4.0])], 2.0, max_norm=max_norm)
    assert (header["norm"], header["multiplier"]) == (5, 1)


def test_a_changed_bound_reaches_a_kept_launch(runtime):
    x = Values(runtime, [3.0, -4.0])
    records, block = records_of(runtime, [x], 2.0), Block(runtime)
    for max_norm in (1.0, 2.5, 1.0, math.inf):
        runtime.prepare_step(block.step, records.span, max_norm=max_norm)
        assert block.read_header()["multiplier"] == pytest.approx(min(1.0, max_norm / 5), rel=1e-6)


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
