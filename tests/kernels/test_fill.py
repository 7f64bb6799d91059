"""fill on every OpenCL device: every dtype, tails, unaligned spans, and nothing written beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import bfloat16
from netcl.host_dtypes import STORAGE
from tests.kernels.flat import (
    FLOATS,
    REAL,
    SHORT,
    Guarded,
    numbers,
    offsets,
    sizes,
    to_bfloat16,
    to_storage,
)


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", REAL, ids=str)
@given(n=sizes, offset=offsets, seed=st.integers(0, 99))
def test_fill_writes_its_span_alone(opencl, dtype, n, offset, seed):
    target = Guarded(opencl, numbers(np.random.default_rng(seed), n, dtype), dtype, offset)
    opencl.fill(target.span, 1)
    expected = to_storage(np.ones(n, np.float32), dtype)
    np.testing.assert_array_equal(target.read(), expected)


@pytest.mark.parametrize("value", [1.0, -0.0, math.inf, -math.inf, 0.1, 1e-45, 65519.9, 65520.0, 3.4e38, 1e300, -1e300])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fill_rounds_to_nearest_even(opencl, dtype, value):
    target = Guarded(opencl, np.zeros(11, STORAGE[dtype]), dtype, 1)
    opencl.fill(target.span, value)
    with np.errstate(over="ignore"):
        if dtype is bfloat16:
            single = np.full(11, value, np.float32)
            expected = to_bfloat16(single) if np.isfinite(single).all() else (single.view(np.uint32) >> 16)
            expected = expected.astype(np.uint16)
        else:
            expected = np.full(11, value, STORAGE[dtype])
    np.testing.assert_array_equal(target.read().view(np.uint8), expected.view(np.uint8))
