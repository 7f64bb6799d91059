"""softmax_cross_entropy on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import float16, float32, float64, int32, int64
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.forms import TOLERANCE, cpu_and_gpu, kernels_for, log_softmax
from tests.kernels.strided import Strided, layouts, plain, store, widen


def cross_entropy(x, labels, smoothing, ignore):
    """Loss and gradient of each row in float64, from the definition."""
    columns = x.shape[1]
    target = np.eye(columns)[np.where(labels == ignore, 0, labels)] * (1 - smoothing) + smoothing / columns
    logarithm = log_softmax(x)
    kept = labels != ignore
    loss = -np.where(target > 0, target * logarithm, 0).sum(1) * kept
    return loss, (np.exp(logarithm) - target) * kept[:, None]


@cpu_and_gpu
@given(
    rows=st.integers(0, 70), columns=st.one_of(st.integers(1, 40), st.sampled_from([130, 600])), x=layouts(2, (0,)),
    label=layouts(1), loss=layouts(1), gradient=st.none() | layouts(2), smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignore=st.sampled_from([-100, 0]), narrow=st.booleans(), seed=st.integers(0, 99),
    dtypes=st.sampled_from([(float32, float32, float32), (float64, float64, float64), (float16, float32, float16)]),
)  # fmt: skip
def test_cross_entropy(opencl, cpu, rows, columns, x, label, loss, gradient, smoothing, ignore, narrow, seed, dtypes):
    if not opencl.supports(float64):
        dtypes = (float32, float32, float32)
    random = np.random.default_rng(seed)
    logits = Strided(opencl, store(random.standard_normal((rows, columns)) * 5, dtypes[0]), dtypes[0], **x)
    classes = random.integers(0, columns, rows)
    classes[random.random(rows) < 0.2] = ignore
    kind = int32 if narrow else int64
    labels = Strided(opencl, classes.astype(STORAGE[kind]), kind, **label)
    losses = Strided(opencl, store(np.ones(rows), dtypes[1]), dtypes[1], **loss)
    slopes = gradient and Strided(opencl, store(np.ones((rows, columns)), dtypes[2]), dtypes[2], **gradient)
    with kernels_for(opencl, cpu):
        opencl.softmax_cross_entropy(logits.view, labels.view, losses.view, slopes and slopes.view, smoothing, ignore)
    expected_loss, expected_gradient = cross_entropy(widen(logits.host, dtypes[0]), classes, smoothing, ignore)
    tolerance = TOLERANCE[dtypes[0].compute]
    np.testing.assert_allclose(widen(losses.read(), dtypes[1]), expected_loss, rtol=tolerance, atol=tolerance)
    if slopes:
        tolerance = max(TOLERANCE[dtypes[2]], tolerance)
        np.testing.assert_allclose(
            widen(slopes.read(), dtypes[2]), expected_gradient, rtol=tolerance, atol=tolerance / 10
        )


@cpu_and_gpu
def test_the_gradient_may_overwrite_the_logits(opencl, cpu):
    random = np.random.default_rng(9)
    x, classes = random.standard_normal((33, 70)), random.integers(0, 70, 33)
    logits, loss = plain(opencl, x.astype(np.float32)), plain(opencl, np.zeros(33, np.float32))
    with kernels_for(opencl, cpu):
        opencl.softmax_cross_entropy(logits.view, plain(opencl, classes).view, loss.view, logits.view, 0.0, -100)
    expected_loss, expected_gradient = cross_entropy(x, classes, 0.0, -100)
    np.testing.assert_allclose(loss.read(), expected_loss, rtol=1e-5)
    np.testing.assert_allclose(logits.read(), expected_gradient, atol=1e-6)


@cpu_and_gpu
def test_masked_classes_cost_nothing_without_smoothing(opencl, cpu):
    logits = plain(opencl, np.array([[0, -np.inf, 0]], np.float32))
    loss, gradient = plain(opencl, np.zeros(1, np.float32)), plain(opencl, np.zeros((1, 3), np.float32))
    with kernels_for(opencl, cpu):
        labels = plain(opencl, np.array([2]))
        opencl.softmax_cross_entropy(logits.view, labels.view, loss.view, gradient.view, 0.0, -100)
    np.testing.assert_allclose(loss.read(), [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient.read(), [[0.5, 0, -0.5]], rtol=1e-6)


@cpu_and_gpu
@pytest.mark.parametrize("bad", [3, -1, 2**40])
def test_a_label_out_of_range_is_reported(opencl, cpu, bad):
    logits = plain(opencl, np.zeros((3, 3), np.float32))
    loss, gradient = plain(opencl, np.ones(3, np.float32)), plain(opencl, np.ones((3, 3), np.float32), offset=1)
    with kernels_for(opencl, cpu):
        labels = plain(opencl, np.array([0, bad, -100]))
        opencl.softmax_cross_entropy(logits.view, labels.view, loss.view, gradient.view, 0.1, -100)
        with pytest.raises(IndexError, match="label"):
            opencl.synchronize()
    assert (loss.read()[1:] == 0).all()
    assert (gradient.read()[1:] == 0).all()
    assert loss.read()[0] == pytest.approx(np.log(3), rel=1e-6)


def test_cross_entropy_refuses_what_does_not_fit(opencl):
    x, out = plain(opencl, np.ones((2, 3), np.float32)), plain(opencl, np.full(2, 7, np.float32))
    labels = plain(opencl, np.zeros(2, np.int64))
    with pytest.raises(ShapeError, match=r"got \(2, 3\), \(2,\), \(2,\) and \(2,\)"):
        opencl.softmax_cross_entropy(x.view, labels.view, out.view, out.view, 0.0, -100)
    with pytest.raises(DTypeError, match="int32 or int64, got float32"):
        opencl.softmax_cross_entropy(x.view, out.view, out.view, None, 0.0, -100)
    assert (out.read() == 7).all()
