"""norm_reduce and prepare_step on OpenCL, in both forms, against NumPy's widest arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import CHUNK, Span
from netcl.errors import DTypeError
from tests.kernels.steps import EPS, Block, Values

PIECE = {True: 16384, False: 4096}  # elements per record on CPUs and on GPUs
ORDERS = (0.5, 1.0, 2.0, 3.0, 7.5, math.inf)


def records_of(runtime, xs, ord, dtype=None, **options):
    counts = [runtime.norm_partials(x.span.size) for x in xs]
    records = Values(runtime, np.zeros(2 * sum(counts)), dtype or xs[0].dtype.compute)
    start = records.span.offset
    for x, count in zip(xs, counts, strict=True):
        runtime.norm_reduce(x.span, Span(records.buffer, start, 2 * count), ord, **options)
        start += 2 * count
    return records


def norm_of(runtime, xs, ord, dtype=None, max_norm=math.inf, **options):
    records = records_of(runtime, xs, ord, dtype, **options)
    block = Block(runtime, dtype=records.dtype)
    runtime.prepare_step(block.step, records.span, ord=ord, max_norm=max_norm)
    return block.read_header()


def norm_oracle(values, ord):
    values = np.abs(np.asarray(values, np.longdouble))
    if not values.size or not values.max():
        return np.longdouble(0)
    if math.isinf(ord):
        return values.max()
    return values.max() * ((values / values.max()) ** ord).sum() ** (1 / np.longdouble(ord))


def factor(header):
    return header["multiplier"] * 2.0 ** -header["shift"]


def product(header):
    return np.longdouble(header["norm_scale"]) * np.longdouble(header["norm_root"])


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 5, 8, 31, 33, CHUNK + 1, PIECE[False], PIECE[True] + 1, 3 * PIECE[True] + 1029])
def test_norm_of_any_size(runtime, n, ord):
    x = Values(runtime, np.random.default_rng(n).standard_normal(n), offset=n % 7)
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=4e-6 if ord == 0.5 else 1e-6)
    assert x.unchanged()


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


@pytest.mark.parametrize("ord", ORDERS)
def test_norm_of_subnormal_numbers(runtime, ord):
    x = Values(runtime, [1e-40, -3e-42, 2e-39, 0.0])
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=1e-6)


@pytest.mark.parametrize("dtype", EPS, ids=str)
@pytest.mark.parametrize("records", [dtypes.float32, dtypes.float64], ids=lambda dtype: f"in-{dtype}")
def test_norm_of_every_storage(runtime, dtype, records):
    if not (runtime.supports(dtype) and runtime.supports(records)):
        pytest.skip(f"{runtime.device} does not compute with {dtype} or {records}")
    x = Values(runtime, np.random.default_rng(0).standard_normal(5000), dtype)
    for ord in ORDERS if dtype is records else (2.0,):
        if dtype is dtypes.float64 and records is dtypes.float32:
            with pytest.raises(DTypeError, match="needs records of float64"):
                norm_of(runtime, [x], ord, records)
        else:
            header = norm_of(runtime, [x], ord, records)
            tolerance = 1e-13 if records is dtypes.float64 else 4e-6
            np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=tolerance)


def test_float64_norms_of_extremes(runtime):
    if not runtime.supports(dtypes.float64):
        pytest.skip(f"{runtime.device} does not compute with float64")
    for size in (1e300, 1e-300, 1e-310):
        x = Values(runtime, np.array([3.0, -4.0]) * size, dtypes.float64)
        for ord in ORDERS:
            header = norm_of(runtime, [x], ord)
            np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=1e-13)
            assert header["nonfinite"] == 0


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


@pytest.mark.parametrize("ord", ORDERS)
def test_inactive_rows_and_a_multiplier(runtime, ord):
    n = 20 * CHUNK + 5
    map_of_rows = np.arange(21) % 3
    values = np.random.default_rng(0).standard_normal(n)
    inactive = np.repeat(map_of_rows, CHUNK)[:n] == 1
    values[inactive] = math.nan
    x, rows, multiplier = Values(runtime, values), Values(runtime, map_of_rows, dtypes.uint16), Values(runtime, [0.125])
    block = Block(runtime, [{}, {"active": 0.0}, {}])
    header = norm_of(runtime, [x], ord, rows=rows.span, block=block.step, multiplier=multiplier.span)
    np.testing.assert_allclose(product(header), norm_oracle(0.125 * x.given[~inactive], ord), rtol=4e-6)


@pytest.mark.parametrize("ord", ORDERS)
def test_the_same_bits_on_every_run(runtime, ord):
    x = Values(runtime, np.random.default_rng(0).standard_normal(70_001))
    assert len({records_of(runtime, [x], ord).bytes() for _ in range(4)}) == 1


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
