"""norm_reduce and prepare_step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import CHUNK, Span
from netcl.testing.conformance.operands import FLOATS, Operand, zeros
from netcl.testing.conformance.step_block import Block

ORDERS = (1.0, 2.0, 3.5, math.inf)
SHORT = ORDERS[1:]


def partials_of(backend, xs, ord, dtype=dtypes.float32, **options):
    """The records of several operands, adjacent, as one norm over all of them needs them."""
    counts = [backend.norm_partials(x.span.size) for x in xs]
    partials = zeros(backend, 2 * sum(counts), dtype)
    start = partials.start
    for x, count in zip(xs, counts, strict=True):
        backend.norm_reduce(x.span, Span(partials.buffer, start, 2 * count), ord, **options)
        start += 2 * count
    return partials


def norm_of(backend, xs, ord, dtype=dtypes.float32, max_norm=math.inf, loss_scale=None, **options):
    """The header after the norm of ``xs`` was prepared."""
    block = Block(backend, dtype=dtype)
    partials = partials_of(backend, xs, ord, dtype, **options)
    backend.prepare_step(block.step, partials.span, ord=ord, max_norm=max_norm, loss_scale=loss_scale)
    return block.header()


def expected_norm(values, ord):
    values = np.abs(np.concatenate([np.ravel(v) for v in values])).astype(np.longdouble)
    if values.size == 0:
        return 0.0
    return float(values.max() if math.isinf(ord) else (values**ord).sum() ** (1 / np.longdouble(ord)))


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 9, 1023, 1025, 65537, 200_003])
def test_norm_of_any_size(backend, n, ord):
    rng = np.random.default_rng(n)
    x = Operand(backend, rng.standard_normal(n), dtypes.float32, offset=n % 5)
    header = norm_of(backend, [x], ord)
    assert header["norm"] == pytest.approx(expected_norm([x.given], ord), rel=2e-6)
    assert header["nonfinite"] == 0
    assert header["multiplier"] == 1
    assert x.unchanged()


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ord", ORDERS)
def test_norm_of_several_operands(backend, dtype, ord):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    rng = np.random.default_rng(0)
    xs = [Operand(backend, size * rng.standard_normal(n), dtype) for size, n in ((1, 100), (1e-3, 3000), (50, 1))]
    header = norm_of(backend, xs, ord, dtype.compute)
    rel = 1e-12 if dtype is dtypes.float64 else 2e-6
    assert header["norm"] == pytest.approx(expected_norm([x.given for x in xs], ord), rel=rel)
    assert header["norm_scale"] * header["norm_root"] == pytest.approx(header["norm"], rel=rel)


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("size", [1e30, 3e38, 1e-30, 1e-38, 1e-44])
def test_no_finite_gradient_overflows_or_underflows(backend, size, ord):
    if size < 1e-38 and not keeps_subnormals(backend):
        size = 1.5e-38
    x = Operand(backend, [size, -size, 0.0, size, size], dtypes.float32)
    header = norm_of(backend, [x], ord, max_norm=1.0)
    norm = expected_norm([x.given], ord)
    assert header["nonfinite"] == 0
    assert float(header["norm_scale"]) * float(header["norm_root"]) == pytest.approx(norm, rel=1e-5)
    assert float(header["multiplier"]) * 2.0 ** -header["shift"] == pytest.approx(min(1.0, 1.0 / norm), rel=1e-5)


def keeps_subnormals(backend):
    x = Operand(backend, [1e-40], dtypes.float32)
    backend.scale(1.0, x.span)
    return x.values[0] != 0


def test_zero_norm(backend):
    header = norm_of(backend, [zeros(backend, 1000, dtypes.float32)], 2.0, max_norm=1.0)
    assert (header["norm"], header["nonfinite"], header["multiplier"]) == (0, 0, 1)


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("n", [3, 5000])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite(backend, bad, n, ord):
    values = np.ones(n)
    values[n // 2] = bad
    header = norm_of(backend, [Operand(backend, values, dtypes.float32)], ord, max_norm=1.0)
    assert header["nonfinite"] != 0
    assert header["multiplier"] == 1
    np.testing.assert_equal(float(header["norm"]), abs(bad))


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_nan_beside_infinity_is_nan(backend, ord):
    x = Operand(backend, [1.0, math.inf, math.nan, math.inf], dtypes.float32)
    header = norm_of(backend, [x], ord)
    assert math.isnan(header["norm"])
    assert header["nonfinite"] != 0


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_the_same_bits_on_every_run(backend, ord):
    x = Operand(backend, np.random.default_rng(1).standard_normal(100_001), dtypes.float32)
    runs = {partials_of(backend, [x], ord).stored.tobytes() for _ in range(3)}
    assert len(runs) == 1


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_multiplier_comes_before_the_power(backend, ord):
    x = Operand(backend, [3e38, -1e38, 2e38], dtypes.float32)
    multiplier = Operand(backend, [2.0**-20], dtypes.float32)
    header = norm_of(backend, [x], ord, multiplier=multiplier.span)
    assert header["norm"] == pytest.approx(expected_norm([x.given * 2.0**-20], ord), rel=1e-5)


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_inactive_rows_count_as_zero(backend, ord):
    n = 5 * CHUNK + 100
    values = np.random.default_rng(2).standard_normal(n)
    map_of_rows = np.array([0, 1, 1, 0, 2, 1])
    inactive = np.repeat(map_of_rows, CHUNK)[:n] == 1
    values[inactive] = math.nan
    block = Block(backend, rows=[{}, {"active": 0}, {}])
    rows = Operand(backend, map_of_rows, dtypes.uint16)
    x = Operand(backend, values, dtypes.float32)
    header = norm_of(backend, [x], ord, rows=rows.span, block=block.step)
    assert header["norm"] == pytest.approx(expected_norm([x.given[~inactive]], ord), rel=2e-6)


@pytest.mark.parametrize("max_norm", [0.0, 1e-6, 1.0, 4.999999, 5.0, 5.000001, 1e30, math.inf])
def test_the_clip_factor_is_exact(backend, max_norm):
    header = norm_of(backend, [Operand(backend, [3.0, 0.0, -4.0], dtypes.float32)], 2.0, max_norm=max_norm)
    assert header["norm"] == pytest.approx(5.0, rel=2e-7)
    assert header["multiplier"] == pytest.approx(min(1.0, max_norm / float(header["norm"])), rel=3e-7)
    if max_norm >= 5.000001:
        assert header["multiplier"] == 1


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40))
def test_norm_of_anything_finite(backend, values):
    values = [0.0 if abs(v) < 1e-37 else v for v in values]  # a device may flush subnormal numbers
    x = Operand(backend, values, dtypes.float32)
    header = norm_of(backend, [x], 2.0)
    norm = float(header["norm_scale"]) * float(header["norm_root"])
    assert norm == pytest.approx(expected_norm([x.given], 2.0), rel=1e-5)
    assert header["nonfinite"] == 0


@pytest.mark.parametrize("ord", [2.0, math.inf])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_norm_of_nothing_is_zero(backend, ord, scaled):
    carried = Operand(backend, [4.0, 0.0], dtypes.float32)
    header = norm_of(backend, [], ord, max_norm=1.0, loss_scale=carried.span if scaled else None)
    assert (header["norm"], header["nonfinite"], header["skip"]) == (0, 0, 0)
    assert header["multiplier"] == (0.25 if scaled else 1)


def test_without_partials_only_the_multiplier_is_set(backend):
    block = Block(backend)
    backend.prepare_step(block.step)
    expected = {**block.initial_header, "multiplier": 1}
    assert block.header() == expected


def test_the_rest_of_the_header_is_left_alone(backend):
    block = Block(backend, header={"reserved": 7.0})
    x = Operand(backend, [1.0], dtypes.float32)
    backend.prepare_step(block.step, partials_of(backend, [x], 2.0).span)
    header = block.header()
    assert header["reserved"] == 7.0


@pytest.mark.parametrize("max_norm", [0.01, 1.0, math.inf])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
def test_a_loss_scale_is_divided_out(backend, dtype, max_norm):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    carried = Operand(backend, [1024.0, 0.0], dtypes.float32)
    x = Operand(backend, [3.0 * 1024, -4.0 * 1024], dtype)
    header = norm_of(backend, [x], 2.0, dtype, max_norm=max_norm, loss_scale=carried.span)
    assert header["norm"] == pytest.approx(5.0, rel=1e-6)
    assert header["norm_scale"] * header["norm_root"] == pytest.approx(5.0, rel=1e-6)
    assert header["multiplier"] == pytest.approx(min(1.0, max_norm / 5.0) / 1024, rel=1e-6)
    assert (header["skip"], header["nonfinite"]) == (0, 0)
    assert carried.unchanged()


@pytest.mark.parametrize(("value", "found"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, 1.0)])
def test_a_step_with_a_loss_scale_is_skipped_if_any_gradient_is_not_finite(backend, value, found):
    x = Operand(backend, [1.0, value], dtypes.float32)
    carried = Operand(backend, [8.0, found], dtypes.float32)
    header = norm_of(backend, [x], 2.0, max_norm=1.0, loss_scale=carried.span)
    assert header["skip"] != 0
    assert header["nonfinite"] != 0


@pytest.mark.parametrize("partials", [False, True])
def test_without_a_loss_scale_nothing_is_skipped(backend, partials):
    block = Block(backend, header={"skip": 1.0})
    x = Operand(backend, [math.nan], dtypes.float32)
    backend.prepare_step(block.step, partials_of(backend, [x], 2.0).span if partials else None)
    assert block.header()["skip"] == 0


@pytest.mark.parametrize("skip", [False, True])
def test_counters_advance_for_active_rows(backend, skip):
    rows = [{"step": 1}, {"step": 10, "active": 0}, {"step": 100_000}]
    block = Block(backend, rows=rows)
    for count in block.step.counters:
        backend.fill(Span(count.buffer, count.offset, count.size), 77.0)
    block.write_counters(0)
    x = Operand(backend, [math.inf if skip else 1.0], dtypes.float32)
    carried = Operand(backend, [2.0, 0.0], dtypes.float32)
    backend.prepare_step(block.step, partials_of(backend, [x], 2.0).span, loss_scale=carried.span)
    for row, initial in enumerate(rows):
        now, following = block.counters(0)[row], block.counters(1)[row]
        moved = 0 if skip or initial.get("active") == 0 else 1
        assert now["step"] == initial["step"]
        assert following["step"] == initial["step"] + moved
        check_corrections(now)
        check_corrections(following)


def check_corrections(counter):
    for name, beta in (("bias_correction1", 0.9), ("bias_correction2", 0.999)):
        assert counter[name] == pytest.approx(-math.expm1(counter["step"] * math.log(beta)), rel=1e-6)


def test_the_slot_says_which_counters_are_now(backend):
    block = Block(backend, rows=[{"step": 4}])
    backend.prepare_step(block.step)
    block.step.slot = 1
    backend.prepare_step(block.step)
    assert block.counters(1)[0]["step"] == 5
    assert block.counters(0)[0]["step"] == 6


def test_changed_betas_renew_the_coming_step(backend):
    block = Block(backend, rows=[{"step": 3}])
    block.set(0, log_beta1=math.log(0.5))
    backend.prepare_step(block.step)
    assert block.counters(0)[0]["bias_correction1"] == pytest.approx(1 - 0.5**3, rel=1e-6)
    assert block.counters(1)[0]["bias_correction1"] == pytest.approx(1 - 0.5**4, rel=1e-6)
