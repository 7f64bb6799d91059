"""softmax and its logarithm on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import View
from netcl.dtypes import bfloat16, float16, float32, float64, int64
from netcl.errors import DTypeError, ShapeError
from tests.kernels.forms import TOLERANCE, cpu_and_gpu, kernels_for, log_softmax
from tests.kernels.strided import Strided, layouts, plain, store, widen


@cpu_and_gpu
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
@given(
    rows=st.integers(0, 70), columns=st.one_of(st.integers(1, 40), st.sampled_from([0, 127, 128, 600])),
    x=layouts(2, (0, 1)), out=layouts(2), dtypes=st.sampled_from(
        [(float32, float32), (float64, float64), (float16, float32), (bfloat16, bfloat16), (float32, float16)]
    ),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_softmax(opencl, cpu, log, rows, columns, x, out, dtypes, seed):
    if not opencl.supports(float64):
        dtypes = (float32, float32)
    random = np.random.default_rng(seed)
    logits = Strided(opencl, store(random.standard_normal((rows, columns)) * 20, dtypes[0]), dtypes[0], **x)
    result = Strided(opencl, store(np.zeros((rows, columns)), dtypes[1]), dtypes[1], **out)
    with kernels_for(opencl, cpu):
        opencl.softmax(logits.view, result.view, log=log)
    found = widen(result.read(), dtypes[1])
    if rows * columns:
        expected = log_softmax(widen(logits.host, dtypes[0]))
        tolerance = max(TOLERANCE[dtypes[1]], TOLERANCE[dtypes[0].compute])
        np.testing.assert_allclose(found, expected if log else np.exp(expected), rtol=tolerance, atol=tolerance / 10)


@cpu_and_gpu
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_softmax_of_extreme_rows(opencl, cpu, log):
    inf, nan = np.inf, np.nan
    rows = np.array(
        [[1e38, 1e38, -1e38], [-inf, 0, 0], [-inf, -inf, -inf], [inf, 0, 1], [nan, 0, 1], [-1e30, -1e30, -2e30]]
    )
    padded = np.concatenate([rows, np.full((6, 9), -inf)], 1).astype(np.float32)
    x = plain(opencl, padded)
    with kernels_for(opencl, cpu):
        opencl.softmax(x.view, x.view, log=log)  # in place
    expected = log_softmax(padded.astype(np.float64))
    np.testing.assert_allclose(x.read(), expected if log else np.exp(expected), rtol=1e-6)


def test_softmax_refuses_what_does_not_fit(opencl):
    x, out = plain(opencl, np.ones((2, 3), np.float32)), plain(opencl, np.full(2, 7, np.float32))
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2,\)"):
        opencl.softmax(x.view, out.view, log=False)
    integers = View(opencl.alloc(6, int64), 0, (2, 3), (3, 1))
    with pytest.raises(DTypeError, match="floating-point dtypes, got int64"):
        opencl.softmax(integers, integers, log=False)
    assert (out.read() == 7).all()
