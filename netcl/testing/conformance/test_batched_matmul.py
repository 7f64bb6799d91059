"""batched_matmul: batched matrix products of any strides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import dtypes
from netcl.dtypes import float32
from netcl.testing.conformance.operands import EPSILON, FLOATS, INTEGERS, SHORT_INTEGERS, Operand, zeros


def strides_of(layout, shape):
    """Row-major, column-major, with the batch inside, with gaps, or backwards."""
    b, m, n = shape
    return {
        "rows": (m * n, n, 1),
        "columns": (m * n, 1, m),
        "batch-inside": (1, n * b, b),
        "gaps": (m * (2 * n + 3), 2 * n + 3, 2),
        "backwards": (-m * n, -n, -1),
    }[layout]


def check(backend, batch, m, k, n, dtype=float32, layouts=("rows",) * 3, stored=None):
    rng = np.random.default_rng(m + k + n)
    draw = rng.standard_normal if dtype.is_floating else lambda shape: rng.integers(0, 10, shape)
    shapes = (batch, m, k), (batch, k, n), (batch, m, n)
    strides = [strides_of(layout, shape) for layout, shape in zip(layouts, shapes, strict=True)]
    a = Operand(backend, draw(shapes[0]), dtype, strides=strides[0])
    b = Operand(backend, draw(shapes[1]), dtype, strides=strides[1], offset=1)
    out = zeros(backend, shapes[2], stored or dtype, strides=strides[2], offset=2)
    backend.batched_matmul(a.view, b.view, out.view)
    expected = a.given @ b.given
    if dtype.is_floating:
        # The usual bound on a dot product, and half a unit for the store.
        bound = (k + 2) * EPSILON[dtype.compute] * (np.abs(a.given) @ np.abs(b.given))
        bound += 1.01 * EPSILON[out.dtype] * np.abs(expected) + 1e-30
        assert np.all(np.abs(out.values - expected) <= bound)
    else:
        np.testing.assert_array_equal(out.stored, expected.astype(dtype.name))
    assert a.unchanged()
    assert b.unchanged()


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, 1), (1, 1, 7, 1), (1, 5, 1, 3), (1, 16, 16, 16), (1, 17, 33, 65), (1, 128, 100, 10), (1, 200, 3, 70),
        (1, 1, 300, 64), (1, 64, 300, 1), (3, 5, 4, 2), (8, 33, 17, 9), (1, 130, 131, 129),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("left", ["rows", "columns"])
@pytest.mark.parametrize("right", ["rows", "columns"])
def test_products(backend, sizes, left, right):
    check(backend, *sizes, layouts=(left, right, "rows"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtypes(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    check(backend, 2, 20, 30, 17, dtype)
    check(backend, 1, 20, 30, 17, dtype, layouts=("columns", "columns", "columns"))


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_narrow_products_may_be_stored_wide(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    check(backend, 1, 20, 2000, 17, dtype, stored=float32)


@pytest.mark.compiled(dtype=SHORT_INTEGERS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    check(backend, 2, 9, 20, 17, dtype)


@pytest.mark.parametrize("layout", ["columns", "batch-inside", "gaps", "backwards"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_strided_operands(backend, layout, which):
    layouts = ["rows"] * 3
    layouts[which] = layout
    check(backend, 3, 20, 18, 35, layouts=layouts)


def test_a_shared_operand(backend):
    rng = np.random.default_rng(0)
    a = Operand(backend, rng.standard_normal((4, 5, 6)), float32)
    b = Operand(backend, np.broadcast_to(rng.standard_normal((6, 7)), (4, 6, 7)), float32, strides=(0, 7, 1))
    out = zeros(backend, (4, 5, 7), float32)
    backend.batched_matmul(a.view, b.view, out.view)
    np.testing.assert_allclose(out.values, a.given @ b.given, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 3, 0, 4), (2, 3, 0, 4), (0, 3, 2, 4), (1, 0, 2, 4), (1, 3, 2, 0)], ids=str)
def test_empty_operands(backend, sizes):
    check(backend, *sizes)


def test_infinities_stay_in_their_row_and_column(backend):
    values = np.ones((1, 40, 40))
    values[0, 3, 5] = np.inf
    a, b = Operand(backend, values, float32), Operand(backend, np.ones((1, 40, 40)), float32)
    out = zeros(backend, (1, 40, 40), float32)
    backend.batched_matmul(a.view, b.view, out.view)
    np.testing.assert_array_equal(out.values, a.given @ b.given)


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    layouts=st.tuples(*[st.sampled_from(("rows", "columns", "gaps", "backwards"))] * 3),
)
def test_any_sizes_and_layouts(backend, sizes, layouts):
    check(backend, *sizes, layouts=layouts)


def test_the_same_bits_on_every_run(backend):
    rng = np.random.default_rng(0)
    a, b = (Operand(backend, rng.standard_normal((1, 150, 150)), float32) for _ in range(2))
    runs = set()
    for _ in range(3):
        out = zeros(backend, (1, 150, 150), float32)
        backend.batched_matmul(a.view, b.view, out.view)
        runs.add(out.stored.tobytes())
    assert len(runs) == 1
