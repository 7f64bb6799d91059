"""Indexing, softmax and random bits on every OpenCL device, in the shapes for CPUs and for GPUs alike."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import Span, View
from netcl.dtypes import ALL, bfloat16, complex64, float16, float32, float64, int8, int32, int64, uint32
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from tests.kernels.strided import Strided, layouts, plain, store, widen

# Half a unit in the last place of a result, and of arithmetic in float32 or float64 over a few dozen elements.
TOLERANCE = {float16: 1e-3, bfloat16: 8e-3, float32: 4e-6, float64: 1e-14}

cpu_and_gpu = pytest.mark.parametrize("cpu", [True, False], ids=["cpu", "gpu"])
extents = st.integers(0, 9)


@contextmanager
def kernels_for(opencl, cpu):
    before, opencl.is_cpu = opencl.is_cpu, cpu
    try:
        yield
    finally:
        opencl.is_cpu = before


def needs(opencl, *wanted):
    if not all(map(opencl.supports, wanted)):
        pytest.skip(f"{opencl.device} has no float64")


# Indexing


@cpu_and_gpu
@given(
    outer=st.integers(0, 3), n=st.integers(1, 9), count=extents, inner=st.integers(0, 20), index=layouts(3, (0, 2)),
    x=layouts(3, (0,)), out=layouts(3), narrow=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_gather(opencl, cpu, outer, n, count, inner, index, x, out, narrow, seed):
    random = np.random.default_rng(seed)
    source = Strided(opencl, random.standard_normal((outer, n, inner)).astype(np.float32), float32, **x)
    dtype = int32 if narrow else int64
    chosen = random.integers(-n, n, (outer, count, inner), STORAGE[dtype])
    indices = Strided(opencl, chosen, dtype, **index)
    result = Strided(opencl, np.zeros((outer, count, inner), np.float32), float32, **out)
    with kernels_for(opencl, cpu):
        opencl.gather(source.view, indices.view, result.view)
    expected = np.take_along_axis(source.host, indices.host.astype(np.int64) % n, 1)
    np.testing.assert_array_equal(result.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_gather_moves_every_dtype(opencl, cpu, dtype):
    host = np.random.default_rng(1).integers(0, 2, (2, 5, 3 * dtype.itemsize), np.uint8).view(STORAGE[dtype])
    picked = np.array([4, 0, -1, 2])
    source, result = plain(opencl, host, dtype), plain(opencl, np.zeros((2, 4, 3), STORAGE[dtype]), dtype, 5)
    indices = Strided(opencl, np.broadcast_to(picked[None, :, None], (2, 4, 3)), int64, (1, 0, 2), repeated=(0, 2))
    with kernels_for(opencl, cpu):
        opencl.gather(source.view, indices.view, result.view)
    np.testing.assert_array_equal(result.read(), host[:, picked])


@cpu_and_gpu
@given(
    outer=st.integers(0, 3), n=st.integers(1, 9), count=extents, inner=st.integers(0, 20), index=layouts(3, (0, 2)),
    updates=layouts(3, (0, 1)), out=layouts(3), narrow=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_scatter_add(opencl, cpu, outer, n, count, inner, index, updates, out, narrow, seed):
    random = np.random.default_rng(seed)
    dtype = int32 if narrow else int64
    given_updates = Strided(
        opencl, random.standard_normal((outer, count, inner)).astype(np.float32), float32, **updates
    )
    indices = Strided(opencl, random.integers(-n, n, (outer, count, inner), STORAGE[dtype]), dtype, **index)
    result = Strided(opencl, random.standard_normal((outer, n, inner)).astype(np.float32), float32, **out)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(given_updates.view, indices.view, result.view)
    expected = result.host.copy()
    at = (np.arange(outer)[:, None, None], indices.host.astype(np.int64) % n, np.arange(inner)[None, None, :])
    np.add.at(expected, at, given_updates.host)
    # The same order of the same float32 sums: equal to the last bit.
    np.testing.assert_array_equal(result.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_scatter_add_rounds_narrow_sums_once(opencl, cpu, dtype):
    ones = plain(opencl, store(np.ones((1, 5000, 3)), dtype), dtype)
    indices = Strided(opencl, np.ones((1, 5000, 3), np.int64), int64, (0, 1, 2), repeated=(0, 1, 2))
    out = Strided(opencl, store(np.full((1, 2, 3), 2.0), dtype), dtype, (2, 1, 0), 2, offset=3)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(ones.view, indices.view, out.view)
    found = widen(out.read(), dtype)
    assert (found[0, 0] == 2).all()
    np.testing.assert_allclose(found[0, 1], 5002, rtol=TOLERANCE[dtype])


@cpu_and_gpu
@pytest.mark.parametrize("dtype", [int8, int64, float64], ids=str)
def test_scatter_add_of_other_dtypes(opencl, cpu, dtype):
    needs(opencl, dtype)
    random = np.random.default_rng(7)
    updates = random.integers(-9, 9, (2, 40, 3)).astype(STORAGE[dtype])
    picked = random.integers(0, 4, 40)
    indices = Strided(opencl, np.broadcast_to(picked[None, :, None], (2, 40, 3)), int64, (1, 0, 2), repeated=(0, 2))
    out = plain(opencl, np.zeros((2, 4, 3), STORAGE[dtype]), dtype)
    with kernels_for(opencl, cpu):
        opencl.scatter_add(plain(opencl, updates).view, indices.view, out.view)
    expected = np.zeros((2, 4, 3), STORAGE[dtype])
    np.add.at(expected, (slice(None), picked), updates)
    np.testing.assert_array_equal(out.read(), expected)


@cpu_and_gpu
@pytest.mark.parametrize("bad", [3, -4, 2**31 - 1, -(2**31), 2**40, -(2**63)])
@pytest.mark.parametrize("broadcast", [True, False])
def test_an_index_out_of_range_touches_nothing_and_is_reported(opencl, cpu, bad, broadcast):
    dtype = int32 if -(2**31) <= bad < 2**31 else int64
    order = np.array([0, bad, 2], STORAGE[dtype])
    indices = Strided(
        opencl, np.broadcast_to(order[None, :, None], (1, 3, 5)), dtype, (0, 1, 2), repeated=(2,) * broadcast
    )
    x = plain(opencl, np.arange(15, dtype=np.float32).reshape(1, 3, 5), offset=2)
    out = plain(opencl, np.full((1, 3, 5), 7, np.float32), offset=2)
    with kernels_for(opencl, cpu):
        opencl.gather(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="gather"):
            opencl.synchronize()
        found = out.read()
        np.testing.assert_array_equal(found[0, [0, 2]], x.host[0, [0, 2]])
        assert (found[0, 1] == 0).all()

        opencl.scatter_add(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="scatter_add"):
            opencl.download(Span(out.buffer, 0, 1))
    opencl.synchronize()  # reported once
    np.testing.assert_array_equal(out.read()[0], [2 * x.host[0, 0], [0] * 5, 2 * x.host[0, 2]])
    np.testing.assert_array_equal(x.read(), x.host)


@cpu_and_gpu
def test_nothing_to_pick_from_is_out_of_range(opencl, cpu):
    x = plain(opencl, np.zeros((1, 0, 2), np.float32))
    indices = plain(opencl, np.zeros((1, 1, 2), np.int64))
    out = plain(opencl, np.ones((1, 1, 2), np.float32))
    with kernels_for(opencl, cpu):
        opencl.gather(x.view, indices.view, out.view)
        with pytest.raises(IndexError, match="gather"):
            opencl.synchronize()
        opencl.scatter_add(out.view, indices.view, x.view)
        with pytest.raises(IndexError, match="scatter_add"):
            opencl.synchronize()
    assert (out.read() == 0).all()


@cpu_and_gpu
def test_scatter_add_gives_the_same_bits_on_every_run(opencl, cpu):
    random = np.random.default_rng(8)
    updates = plain(opencl, random.standard_normal((1, 3000, 7)).astype(np.float32))
    indices = plain(opencl, random.integers(0, 5, (1, 3000, 7)))
    results = set()
    with kernels_for(opencl, cpu):
        for _ in range(3):
            out = plain(opencl, np.zeros((1, 5, 7), np.float32))
            opencl.scatter_add(updates.view, indices.view, out.view)
            results.add(out.read().tobytes())
    assert len(results) == 1


def test_indexing_refuses_what_does_not_fit(opencl):
    x, out = plain(opencl, np.ones((1, 4, 3), np.float32)), plain(opencl, np.full((1, 2, 3), 7, np.float32))
    indices = plain(opencl, np.zeros((1, 2, 3), np.int64))
    with pytest.raises(ShapeError, match=r"indexed \(1, 4, 3\), indices \(1, 4, 3\) and \(1, 2, 3\)"):
        opencl.gather(x.view, x.view, out.view)
    with pytest.raises(ShapeError, match="scatter_add takes views"):
        opencl.scatter_add(out.view, indices.view, View(x.buffer, 0, (1, 4, 2), (8, 2, 1)))
    with pytest.raises(DTypeError, match="int32 or int64, got float32"):
        opencl.gather(x.view, View(x.buffer, 0, (1, 2, 3), (6, 3, 1)), out.view)
    with pytest.raises(DTypeError, match="x is float32 and out is int64"):
        opencl.gather(x.view, indices.view, indices.view)
    with pytest.raises(DTypeError, match="cannot compute with complex64"):
        opencl.scatter_add(out.view, indices.view, View(opencl.alloc(12, complex64), 0, (1, 4, 3), (12, 3, 1)))
    assert (out.read() == 7).all()


# Softmax


def log_softmax(x):
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = x - x.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


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


def test_softmax_refuses_what_does_not_fit(opencl):
    x, out = plain(opencl, np.ones((2, 3), np.float32)), plain(opencl, np.full(2, 7, np.float32))
    labels = plain(opencl, np.zeros(2, np.int64))
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2,\)"):
        opencl.softmax(x.view, out.view, log=False)
    integers = View(opencl.alloc(6, int64), 0, (2, 3), (3, 1))
    with pytest.raises(DTypeError, match="floating-point dtypes, got int64"):
        opencl.softmax(integers, integers, log=False)
    with pytest.raises(ShapeError, match=r"got \(2, 3\), \(2,\), \(2,\) and \(2,\)"):
        opencl.softmax_cross_entropy(x.view, labels.view, out.view, out.view, 0.0, -100)
    with pytest.raises(DTypeError, match="int32 or int64, got float32"):
        opencl.softmax_cross_entropy(x.view, out.view, out.view, None, 0.0, -100)
    assert (out.read() == 7).all()


# Random bits


def philox(counter, seed):
    """One block of Philox4x32-10 in Python integers, from the paper's definition."""
    mask = 2**32 - 1
    x = [counter & mask, counter >> 32 & mask, 0, 0]
    key = [seed & mask, seed >> 32 & mask]
    for _ in range(10):
        first, second = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [second >> 32 ^ x[1] ^ key[0], second & mask, first >> 32 ^ x[3] ^ key[1], first & mask]
        key = [key[0] + 0x9E3779B9 & mask, key[1] + 0xBB67AE85 & mask]
    return x


def test_random_bits_known_answer(opencl):
    # Random123's table of known answers: counter and key zero.
    out = plain(opencl, np.zeros(4, np.uint32))
    opencl.random_bits(out.view, 0, 0)
    assert [f"{word:08x}" for word in out.read()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@given(
    n=st.one_of(st.integers(0, 70), st.sampled_from([1023, 2048, 2051])), at=st.integers(0, 9),
    seed=st.integers(0, 2**64 - 1),
    offset=st.one_of(st.integers(0, 40), st.integers(0, 2**64), st.sampled_from([2**34 - 7, 2**66 - 9])),
)  # fmt: skip
def test_random_bits(opencl, n, at, seed, offset):
    out = plain(opencl, np.zeros(n, np.uint32), offset=at)
    opencl.random_bits(out.view, seed, offset)
    blocks = range(offset // 4, (offset + n + 3) // 4)
    words = [word for block in blocks for word in philox(block % 2**64, seed)]
    np.testing.assert_array_equal(out.read(), np.array(words[offset % 4 :][:n], np.uint32))


def test_random_bits_refuses_what_does_not_fit(opencl):
    out = plain(opencl, np.full((2, 6), 7, np.uint32))
    with pytest.raises(ShapeError, match=r"shape \(2, 3\) with strides \(6, 2\)"):
        opencl.random_bits(View(out.buffer, 0, (2, 3), (6, 2)), 0, 0)
    with pytest.raises(DTypeError, match="uint32, got an output of int64"):
        opencl.random_bits(View(opencl.alloc(6, int64), 0, (6,), (1,)), 0, 0)
    assert (out.read() == 7).all()
    assert out.dtype is uint32
