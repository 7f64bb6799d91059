"""gather and scatter_add."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import View
from netcl.dtypes import float32, int32, int64
from netcl.testing.conformance.operands import ALL, FLOATS, SHORT, Operand, assert_close, zeros


def spread(operand, shape):
    """A vector of indices along the middle axis, broadcast over the others."""
    return View(operand.buffer, operand.start, shape, (0, operand.strides[0], 0))


@pytest.mark.parametrize("index", [int32, int64], ids=str)
@pytest.mark.short(dtype=SHORT)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_gather(backend, dtype, index):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    x = Operand(backend, np.arange(2 * 5 * 3).reshape(2, 5, 3) % (2 if dtype is dtypes.bool_ else 29), dtype)
    chosen = np.array([4, 0, -1, -5, 2, 2, 1])
    indices = Operand(backend, chosen, index)
    out = zeros(backend, (2, 7, 3), dtype)
    backend.gather(x.view, spread(indices, out.shape), out.view)
    np.testing.assert_array_equal(out.stored, x.stored[:, chosen, :])
    assert x.unchanged()
    assert indices.unchanged()


def test_gather_with_an_index_for_each_element(backend):
    rng = np.random.default_rng(0)
    x = Operand(backend, rng.standard_normal((4, 6, 5)), float32, strides=(1, 20, 4))
    indices = Operand(backend, rng.integers(-6, 6, (4, 3, 5)), int64)
    out = zeros(backend, (4, 3, 5), float32, strides=(30, 10, 2))
    backend.gather(x.view, indices.view, out.view)
    np.testing.assert_array_equal(out.values, np.take_along_axis(x.given, indices.given % 6, axis=1))


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 3, 0), (2, 0, 3)], ids=str)
def test_gather_of_nothing(backend, shape):
    x = zeros(backend, (shape[0], 4, shape[2]), float32)
    indices = zeros(backend, shape[1], int64)
    out = zeros(backend, shape, float32)
    backend.gather(x.view, spread(indices, shape), out.view)
    backend.synchronize()
    assert out.unchanged()


@pytest.mark.parametrize("bad", [5, -6, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("call", ["gather", "scatter_add"])
def test_an_index_out_of_range_is_reported_by_the_next_call_that_blocks(backend, call, bad):
    x = zeros(backend, (1, 5, 2), float32)
    indices = Operand(backend, [0, bad, 1], int64)
    other = zeros(backend, (1, 3, 2), float32)
    operands = (x, other) if call == "gather" else (other, x)
    with pytest.raises(IndexError):
        run(backend, call, operands, indices)
    # Reported once, and the backend goes on.
    indices = Operand(backend, [0, 4, 1], int64)
    run(backend, call, operands, indices)


def run(backend, call, operands, indices):
    source, out = operands
    getattr(backend, call)(source.view, spread(indices, (1, 3, 2)), out.view)
    backend.synchronize()


def test_an_index_out_of_range_touches_nothing_beside_the_operands(backend):
    x = zeros(backend, (1, 5, 2), float32)
    updates = Operand(backend, np.ones((1, 3, 2)), float32)
    indices = Operand(backend, [0, 70, -90], int64)
    with pytest.raises(IndexError):
        run(backend, "scatter_add", (updates, x), indices)
    assert x.values.shape == (1, 5, 2)


@pytest.mark.parametrize("index", [int32, int64], ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, int32, int64], ids=str)
def test_scatter_add(backend, dtype, index):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    rng = np.random.default_rng(0)
    chosen = rng.integers(-6, 6, 50)
    updates = Operand(backend, rng.integers(-8, 8, (2, 50, 3)), dtype)
    out = Operand(backend, rng.integers(-8, 8, (2, 6, 3)), dtype)
    expected = out.given.copy()
    np.add.at(expected, (slice(None), chosen % 6), updates.given)
    indices = Operand(backend, chosen, index)
    backend.scatter_add(updates.view, spread(indices, updates.shape), out.view)
    np.testing.assert_array_equal(out.values, expected)
    assert updates.unchanged()


def test_scatter_add_with_an_index_for_each_element(backend):
    rng = np.random.default_rng(0)
    updates = Operand(backend, rng.standard_normal((3, 40, 5)), float32, strides=(1, 15, 3))
    indices = Operand(backend, rng.integers(0, 4, (3, 40, 5)), int32)
    out = zeros(backend, (3, 4, 5), float32, strides=(1, 3, 12))
    expected = np.zeros((3, 4, 5))
    o, _, i = np.indices(indices.shape)
    np.add.at(expected, (o, indices.given, i), updates.given)
    backend.scatter_add(updates.view, indices.view, out.view)
    assert_close(out.values, expected, float32, ulps=32, absolute=1e-5)


def test_scatter_add_adds_in_order(backend):
    # 1e8 + 1 is 1e8 in float32, so another order would leave another sum.
    updates = Operand(backend, np.array([1e8, 1.0, -1e8, 1.0]).reshape(1, 4, 1), float32)
    indices = Operand(backend, [2, 2, 2, 2], int64)
    out = zeros(backend, (1, 3, 1), float32)
    backend.scatter_add(updates.view, spread(indices, (1, 4, 1)), out.view)
    assert out.values[0, 2, 0] == 1.0


def test_the_same_bits_on_every_run(backend):
    rng = np.random.default_rng(0)
    updates = Operand(backend, rng.standard_normal((1, 3000, 8)), float32)
    indices = Operand(backend, rng.integers(0, 20, 3000), int64)
    runs = set()
    for _ in range(3):
        out = zeros(backend, (1, 20, 8), float32)
        backend.scatter_add(updates.view, spread(indices, updates.shape), out.view)
        runs.add(out.stored.tobytes())
    assert len(runs) == 1


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 20)),
    rows=st.integers(1, 9),
    seed=st.integers(0, 100),
)
def test_scatter_add_undoes_gather(backend, shape, rows, seed):
    rng = np.random.default_rng(seed)
    x = Operand(backend, rng.integers(-9, 9, (shape[0], rows, shape[2])), float32)
    chosen = rng.integers(-rows, rows, shape[1])
    indices = Operand(backend, chosen, int64)
    taken = zeros(backend, shape, float32)
    backend.gather(x.view, spread(indices, shape), taken.view)
    np.testing.assert_array_equal(taken.values, x.given[:, chosen, :])
    total = zeros(backend, x.shape, float32)
    backend.scatter_add(taken.view, spread(indices, shape), total.view)
    counts = np.bincount(chosen % rows, minlength=rows)
    np.testing.assert_array_equal(total.values, x.given * counts[None, :, None])
