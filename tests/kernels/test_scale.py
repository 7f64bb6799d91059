"""scale on every OpenCL device: every dtype, tails, unaligned spans, and nothing written beside them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import bool_
from tests.kernels.flat import (
    REAL,
    SHORT,
    Guarded,
    from_storage,
    needs,
    numbers,
    offsets,
    sizes,
    to_storage,
)


@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", REAL, ids=str)
@given(n=sizes, offset=offsets, seed=st.integers(0, 99))
def test_scale_multiplies_its_span_alone(opencl, dtype, n, offset, seed):
    needs(opencl, dtype)
    host = numbers(np.random.default_rng(seed), n, dtype)
    target = Guarded(opencl, host, dtype, offset)
    opencl.scale(3, target.span)
    expected = host if dtype is bool_ else to_storage(from_storage(host, dtype) * 3, dtype)
    np.testing.assert_array_equal(target.read(), expected)
