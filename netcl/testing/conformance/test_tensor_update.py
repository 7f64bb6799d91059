"""tensor_update against the same formulas in float64, one tensor at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes
from netcl.backends.base import CHUNK
from netcl.testing.conformance.operands import EPSILON, FLOATS, Operand
from netcl.testing.conformance.step_block import Block
from netcl.testing.conformance.tensors import Tensors, tensor_rule

SIZES = {
    "one": [1],
    "chunk": [CHUNK],
    "rest": [2 * CHUNK + 17],
    "several": [5, 0, CHUNK + 1, 3 * CHUNK, 0, 1000, 7],
    "none": [],
    "empty": [0, 0],
    "large": [3, 300 * CHUNK + 9, CHUNK],
}
ROWS = [{"lr": 0.1, "eps": 1e-3, "step": 3}, {"active": 0}, {"sign": -1.0, "eps": 0.1, "beta1": 0.5}]


def only_on(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")


def check(tensors, expected):
    for operand, wanted in zip(tensors.changing, expected, strict=True):
        tolerance = 16 * EPSILON[operand.dtype]
        np.testing.assert_allclose(operand.values, wanted, rtol=tolerance, atol=tolerance)
    assert tensors.g.unchanged()
    assert tensors.rows.unchanged()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_tensors(backend, sizes):
    block = Block(backend, rows=ROWS)
    tensors = Tensors(backend, sizes, row_of=[i % 3 for i in range(len(sizes))])
    tensors.update(block, advance=True)
    check(tensors, tensors.expected(block))
    assert [row["step"] for row in block.counters(1)] == [4, 1, 2]
    assert block.header() == block.initial_header


@pytest.mark.short(dtype=[dtypes.bfloat16, dtypes.float64])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_storage(backend, dtype):
    only_on(backend, dtype)
    block = Block(backend, rows=ROWS, dtype=dtype.compute)
    tensors = Tensors(backend, [CHUNK + 3, 9, 2 * CHUNK], dtype, row_of=[0, 1, 2], whole=True)
    tensors.update(block, advance=True)
    check(tensors, tensors.expected(block))


@pytest.mark.parametrize("norms", [("p",), ("u",), ()], ids=str)
def test_fewer_norms(backend, norms):
    block = Block(backend, rows=ROWS)
    tensors = Tensors(backend, [2 * CHUNK + 3, 5])
    tensors.update(block, tensor_rule(dtypes.float32, norms), advance=True)
    check(tensors, tensors.expected(block, norms=norms))


def test_a_direction_that_is_there_already(backend):
    """Only the second pass then, and no gradient is read."""
    block = Block(backend, rows=ROWS)
    tensors = Tensors(backend, [2 * CHUNK + 3, 5, 8], row_of=[0, 1, 2])
    tensors.update(block, gradient=False)
    p, v, _, u = tensors.changing
    assert v.unchanged()
    assert u.unchanged()
    check(tensors, tensors.expected(block, gradient=False))
    assert [row["step"] for row in block.counters(1)] == [3, 1, 1]
    assert not p.unchanged()


@pytest.mark.parametrize("advance", [False, True])
def test_a_skipped_step_changes_no_byte(backend, advance):
    block = Block(backend, rows=[{"step": 3}, {"step": 5}], header={"skip": 1.0})
    tensors = Tensors(backend, [CHUNK + 5, 7], row_of=[0, 1])
    tensors.g = Operand(backend, np.full(tensors.g.shape, math.nan), dtypes.float32)
    tensors.update(block, advance=advance)
    assert all(x.unchanged() for x in tensors.changing)
    assert [row["step"] for row in block.counters(1)] == [3, 5]


def test_only_the_call_that_advances_moves_the_counters(backend):
    block = Block(backend, rows=[{"step": 3}, {"active": 0, "step": 8}])
    tensors = Tensors(backend, [CHUNK + 5, 7])
    tensors.update(block)
    assert [row["step"] for row in block.counters(1)] == [3, 8]
    tensors.update(block, advance=True)
    assert [row["step"] for row in block.counters(1)] == [4, 8]
    assert [row["step"] for row in block.counters(0)] == [3, 8]


def test_a_map_serves_several_calls(backend):
    """Each with whole tensors of it, from any chunk on."""
    sizes = [CHUNK, 0, 2 * CHUNK + 1, 6, 130 * CHUNK, 12]
    block = Block(backend, rows=ROWS)
    tensors = Tensors(backend, sizes, row_of=[0, 0, 2, 0, 2, 1])
    for first, end in ((0, 2), (2, 4), (4, 6)):
        tensors.update(block, tensors=(first, end))
    check(tensors, tensors.expected(block))


@pytest.mark.parametrize("measured", ["p", "u"])
@given(exponents=st.lists(st.integers(-30, 30), min_size=1, max_size=5), chunks=st.integers(0, 2), alone=st.booleans())
@settings(max_examples=12)
def test_numbers_of_any_size_have_a_norm(backend, measured, exponents, chunks, alone):
    """No square of theirs need be a number of the dtype, and the tensor beside has its own norm."""
    block = Block(backend, rows=[{"lr": 1.0, "eps": 0.0}])
    tensors = Tensors(backend, [chunks * CHUNK + len(exponents), 3])
    values = tensors.p.given * (0.0 if alone else 10.0 ** min(exponents))
    values[chunks * CHUNK : chunks * CHUNK + len(exponents)] = 10.0 ** np.array(exponents, float)
    values[tensors.pieces()[1]] = [1.0, -2.0, 3.0]
    zeros = np.zeros_like(values)
    given = {"p": (values, tensors.g.given), "u": (zeros, values)}[measured]
    tensors.p, tensors.g = (Operand(backend, each, dtypes.float32) for each in given)
    tensors.state[:2] = [Operand(backend, zeros, dtypes.float32) for _ in range(2)]
    tensors.update(block, tensor_rule(dtypes.float32, (measured,)))
    for operand, wanted in zip(tensors.changing, tensors.expected(block, norms=(measured,)), strict=True):
        np.testing.assert_allclose(operand.values, wanted, rtol=5e-6, atol=2.0**-120)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_stays_in_its_tensor(backend, value):
    block = Block(backend, rows=ROWS)
    tensors = Tensors(backend, [CHUNK + 5, 2 * CHUNK, 7])
    values = tensors.p.given
    values[tensors.pieces()[1].start + 5] = value
    tensors.p = Operand(backend, values, dtypes.float32)
    tensors.update(block, tensor_rule(dtypes.float32, ("p",)))
    found, others = tensors.p.values, np.r_[tensors.pieces()[0], tensors.pieces()[2]]
    assert not np.isfinite(found[tensors.pieces()[1]]).any()
    np.testing.assert_allclose(found[others], tensors.expected(block, norms=("p",))[0][others], rtol=1e-5, atol=1e-6)


def test_the_same_input_gives_the_same_bits(backend):
    found = []
    for _ in range(2):
        block = Block(backend, rows=ROWS)
        tensors = Tensors(backend, [300 * CHUNK + 5, 3 * CHUNK])
        tensors.update(block)
        found.append([x.values.tobytes() for x in tensors.changing])
    assert found[0] == found[1]
