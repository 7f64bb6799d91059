"""norm_reduce on OpenCL, in both forms, against NumPy's widest arithmetic."""

import math

import numpy as np
import pytest

from netcl import dtypes
from netcl.backends.base import CHUNK
from netcl.errors import DTypeError
from tests.kernels.norms import ORDERS, PIECE, SHORT, norm_of, norm_oracle, product, records_of
from tests.kernels.steps import EPS, Block, Values


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize("n", [0, 1, 5, 8, 31, 33, CHUNK + 1, PIECE[False], PIECE[True] + 1, 3 * PIECE[True] + 1029])
def test_norm_of_any_size(runtime, n, ord):
    x = Values(runtime, np.random.default_rng(n).standard_normal(n), offset=n % 7)
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=4e-6 if ord == 0.5 else 1e-6)
    assert x.unchanged()


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_norm_of_subnormal_numbers(runtime, ord):
    x = Values(runtime, [1e-40, -3e-42, 2e-39, 0.0])
    header = norm_of(runtime, [x], ord)
    np.testing.assert_allclose(product(header), norm_oracle(x.given, ord), rtol=1e-6)


@pytest.mark.short(records=[dtypes.float32])
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


@pytest.mark.short(ord=SHORT)
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


@pytest.mark.short(ord=SHORT)
@pytest.mark.parametrize("ord", ORDERS)
def test_the_same_bits_on_every_run(runtime, ord):
    x = Values(runtime, np.random.default_rng(0).standard_normal(70_001))
    assert len({records_of(runtime, [x], ord).bytes() for _ in range(4)}) == 1
