"""softmax and softmax_cross_entropy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import float32, float64, int32, int64
from netcl.testing.conformance.operands import FLOATS, Operand, zeros

SHAPES = [(1, 1), (1, 10), (128, 10), (3, 1000), (5, 4099), (300, 2), (0, 4)]


def tolerance(dtype):
    return {"float64": 1e-13, "float32": 3e-6}.get(dtype.name, 2e-3 if dtype.name == "float16" else 1.6e-2)


def log_softmax(x):
    shifted = x - np.max(x, axis=1, keepdims=True, initial=-math.inf)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


@pytest.mark.parametrize("log", [False, True], ids=["", "log"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_softmax(backend, dtype, shape, log):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    x = Operand(backend, np.random.default_rng(0).uniform(-5, 5, shape), dtype)
    out = zeros(backend, shape, dtype)
    backend.softmax(x.view, out.view, log=log)
    expected = log_softmax(x.given)
    np.testing.assert_allclose(out.values, expected if log else np.exp(expected), rtol=tolerance(dtype), atol=1e-7)
    assert x.unchanged()


@pytest.mark.parametrize("log", [False, True], ids=["", "log"])
def test_softmax_of_large_and_infinite_values(backend, log):
    inf = math.inf
    rows = [[3e38, 0.0, 2e38], [-3e38, -3e38, -3e38], [-inf, 0.0, -inf], [1000.0, 1000.0, 999.0]]
    x = Operand(backend, rows, float32)
    out = zeros(backend, x.shape, float32)
    backend.softmax(x.view, out.view, log=log)
    with np.errstate(all="ignore"):
        expected = log_softmax(x.given)
        np.testing.assert_allclose(out.values, expected if log else np.exp(expected), rtol=1e-6, atol=1e-7)


def test_softmax_of_nan(backend):
    x = Operand(backend, [[0.0, math.nan, 1.0], [0.0, 1.0, 2.0]], float32)
    out = zeros(backend, x.shape, float32)
    backend.softmax(x.view, out.view, log=False)
    assert np.isnan(out.values[0]).all()
    assert np.isfinite(out.values[1]).all()


def test_softmax_of_strided_rows(backend):
    x = Operand(backend, np.random.default_rng(0).standard_normal((6, 7)), float32, strides=(1, 6))
    out = zeros(backend, (6, 7), float32, strides=(-16, 2))
    backend.softmax(x.view, out.view, log=False)
    np.testing.assert_allclose(out.values, np.exp(log_softmax(x.given)), rtol=1e-6)


def oracle(logits, labels, smoothing, ignore_index):
    log_p = log_softmax(logits)
    used = labels != ignore_index
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(labels)), np.where(used, labels, 0)] += 1 - smoothing
    loss = -np.sum(np.where(target == 0, 0, target * log_p), axis=1)
    return np.where(used, loss, 0), np.where(used[:, None], np.exp(log_p) - target, 0)


def cross_entropy(backend, logits, labels, smoothing=0.0, ignore_index=-100, with_gradient=True, dtype=None):
    dtype = dtype or logits.dtype
    loss = zeros(backend, labels.shape, dtype)
    gradient = zeros(backend, logits.shape, dtype) if with_gradient else None
    backend.softmax_cross_entropy(
        logits.view, labels.view, loss.view, gradient.view if gradient else None, smoothing, ignore_index
    )
    return loss, gradient


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0]], ids=str)
def test_cross_entropy(backend, shape, smoothing):
    rng = np.random.default_rng(0)
    logits = Operand(backend, rng.uniform(-5, 5, shape), float32)
    labels = Operand(backend, rng.integers(0, shape[1], shape[0]), int64)
    loss, gradient = cross_entropy(backend, logits, labels, smoothing)
    expected = oracle(logits.given, labels.given, smoothing, -100)
    np.testing.assert_allclose(loss.values, expected[0], rtol=3e-6, atol=2e-6)
    np.testing.assert_allclose(gradient.values, expected[1], rtol=1e-5, atol=1e-6)
    alone, _ = cross_entropy(backend, logits, labels, smoothing, with_gradient=False)
    np.testing.assert_array_equal(alone.values, loss.values)
    assert logits.unchanged()
    assert labels.unchanged()


@pytest.mark.parametrize("index", [int32, int64], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_cross_entropy_of_dtypes(backend, dtype, index):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    rng = np.random.default_rng(0)
    logits = Operand(backend, rng.uniform(-5, 5, (20, 11)), dtype)
    labels = Operand(backend, rng.integers(0, 11, 20), index)
    loss, gradient = cross_entropy(backend, logits, labels, 0.1)
    expected = oracle(logits.given, labels.given, 0.1, -100)
    np.testing.assert_allclose(loss.values, expected[0], rtol=tolerance(dtype))
    np.testing.assert_allclose(gradient.values, expected[1], rtol=tolerance(dtype), atol=tolerance(dtype) / 10)


@pytest.mark.parametrize("ignore_index", [-100, 0, 3, 255])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ignored_rows_are_zero(backend, smoothing, ignore_index):
    logits = Operand(backend, np.random.default_rng(0).standard_normal((6, 4)), float32)
    labels = Operand(backend, [1, ignore_index, 2, ignore_index, 1, 2], int64)
    loss, gradient = cross_entropy(backend, logits, labels, smoothing, ignore_index)
    expected = oracle(logits.given, labels.given, smoothing, ignore_index)
    np.testing.assert_allclose(loss.values, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient.values, expected[1], rtol=1e-5, atol=1e-7)
    assert not loss.values[[1, 3]].any()
    assert not gradient.values[[1, 3]].any()


def test_a_masked_class_costs_nothing(backend):
    logits = Operand(backend, [[0.0, -math.inf, 1.0]], float32)
    loss, gradient = cross_entropy(backend, logits, Operand(backend, [2], int64))
    assert loss.values[0] == pytest.approx(math.log1p(math.exp(-1.0)), rel=1e-6)
    assert gradient.values[0, 1] == 0


@pytest.mark.parametrize("label", [4, -1, 1000, -(2**31)])
def test_a_label_out_of_range_is_reported_by_the_next_call_that_blocks(backend, label):
    logits = zeros(backend, (3, 4), float32)

    def enqueue_and_block():
        cross_entropy(backend, logits, Operand(backend, [0, label, 1], int64))
        backend.synchronize()

    with pytest.raises(IndexError):
        enqueue_and_block()
    loss, _ = cross_entropy(backend, logits, Operand(backend, [0, 3, 1], int64))
    np.testing.assert_allclose(loss.values, math.log(4), rtol=1e-6)


def test_strided_logits_and_outputs(backend):
    rng = np.random.default_rng(0)
    logits = Operand(backend, rng.standard_normal((5, 6)), float32, strides=(1, 5))
    labels = Operand(backend, rng.integers(0, 6, 5), int64, strides=(3,))
    loss = zeros(backend, 5, float32, strides=(-2,))
    gradient = zeros(backend, (5, 6), float32, strides=(14, 2))
    backend.softmax_cross_entropy(logits.view, labels.view, loss.view, gradient.view, 0.0, -100)
    expected = oracle(logits.given, labels.given, 0.0, -100)
    np.testing.assert_allclose(loss.values, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient.values, expected[1], rtol=1e-5, atol=1e-7)


@given(rows=st.integers(1, 40), classes=st.integers(1, 70), smoothing=st.floats(0, 1))
def test_gradients_of_a_row_add_to_zero(backend, rows, classes, smoothing):
    rng = np.random.default_rng(rows * classes)
    dtype = float64 if backend.supports(float64) else float32
    logits = Operand(backend, rng.uniform(-3, 3, (rows, classes)), dtype)
    labels = Operand(backend, rng.integers(0, classes, rows), int64)
    loss, gradient = cross_entropy(backend, logits, labels, smoothing)
    limit = 1e-12 if dtype is float64 else 1e-5
    np.testing.assert_allclose(gradient.values.sum(axis=1), 0, atol=limit)
    np.testing.assert_allclose(loss.values, oracle(logits.given, labels.given, smoothing, -100)[0], rtol=limit)
