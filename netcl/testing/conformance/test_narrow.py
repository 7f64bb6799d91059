"""Stochastic rounding, rules that know an element's number, and state in blocks of 8 and 4 bits."""

import math

import numpy as np
import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, ROW, BlockFormat
from netcl.dtypes import bfloat16, float16, float32, int32
from netcl.expression import Node
from netcl.quantization import dequantize, quantize
from netcl.stochastic import stochastically_rounded
from netcl.testing.conformance.blocks import Blocks, Model, check_codes, drawn, oracle, padded, shares
from netcl.testing.conformance.operands import Operand, zeros
from netcl.testing.conformance.step_block import Block

FORMATS = [BlockFormat(bits, signed) for bits in (8, 4) for signed in (True, False)]


def name_of(format):
    return f"{'signed' if format.signed else 'unsigned'}-{format.bits}"


def neighbours(x, target):
    """The lower neighbour of |x| in a 16-bit format, and the gap to the next one, in float64."""
    digits, smallest = (8, -133) if target is bfloat16 else (11, -24)
    exponent = np.maximum(np.frexp(np.abs(x))[1] - digits, smallest)
    gap = np.ldexp(1.0, exponent)
    return np.floor(np.abs(x) / gap) * gap, gap


@pytest.mark.parametrize("target", [float16, bfloat16], ids=str)
def test_stochastic_rounding(backend, target):
    """Up if and only if the random bits say so, to the last one."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(4000).astype("f4") * np.float32(2.0) ** rng.integers(-30, 12, 4000).astype("f4")
    bits = rng.integers(-(2**31), 2**31, 4000)
    given, random = Operand(backend, x, float32), Operand(backend, bits, int32)
    expression = ex.trace(lambda x, r: stochastically_rounded(x, target, r), (float32, int32), stored=(float32,))
    out = zeros(backend, 4000, float32)
    backend.map(expression, [given.view, random.view], [out.view])
    lower, gap = neighbours(x.astype("f8"), target)
    share, low = (np.abs(x.astype("f8")) - lower) / gap, bits & 0xFFFF
    cut = 16 if target is bfloat16 else 13
    up = share * 2.0**cut + (low & (2**cut - 1)) >= 2.0**cut
    if target is float16:
        up = np.where(np.abs(x) < 2.0**-14, share * 65536 > low + 0.5, up)
    np.testing.assert_array_equal(out.values, np.copysign(lower + up * gap, x))


@pytest.mark.parametrize("target", [float16, bfloat16], ids=str)
def test_special_values_stay_what_they_are(backend, target):
    if not backend.supports(target):
        pytest.skip(f"{backend.device} does not compute with {target}")
    given = Operand(backend, [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -2.0], float32)
    for bits in (0, -1, 0x1FFF):
        random = Operand(backend, np.full(7, bits), int32)
        out = zeros(backend, 7, target)
        expression = ex.trace(lambda x, r: stochastically_rounded(x, target, r), (float32, int32), stored=(target,))
        backend.map(expression, [given.view, random.view], [out.view])
        np.testing.assert_array_equal(out.values, given.given)
        number = ~np.isnan(given.given)
        np.testing.assert_array_equal(np.signbit(out.values)[number], np.signbit(given.given)[number])


@pytest.mark.parametrize("n", [1, 7, CHUNK, 3 * CHUNK + 17])
def test_a_rule_may_know_the_number_of_its_element(backend, n):
    """The first of a launch is that of its first chunk, wherever the row map begins."""

    def numbered(p, g, s):
        return p + ex.cast(Node("input", (), int32, 3), float32), s

    outputs = numbered(*(Node("input", (), float32, i) for i in range(3)))
    rule = ex.build(outputs, (float32, float32, float32, int32), stored=(float32, float32), name="numbered")
    block = Block(backend, rows=[{}])
    p, g, s = (Operand(backend, np.zeros(n), float32, offset=i) for i in range(3))
    first = 5
    rows = Operand(backend, np.zeros(first + -(-n // CHUNK)), dtypes.uint16)
    part = rows.span.part(first, -(-n // CHUNK))
    backend.fused_update(rule, p.span, g.span, [s.span], block.step, part, advance=True)
    base = part.offset * CHUNK
    np.testing.assert_array_equal(p.values, np.arange(base, base + n))
    assert s.unchanged()


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_numbers_become_the_nearest_codes(backend, format):
    wanted = drawn(4 * CHUNK, format)
    wanted[: format.block] = 0.0
    wanted[format.block : 2 * format.block] *= 1e-30
    blocks = Blocks(backend, format, wanted)
    check_codes(blocks, wanted.astype("f4").astype("f8"))


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_every_code_survives_reading_and_writing(backend, format):
    codes = np.tile(np.arange(2**format.bits), 2 * format.block // 2**format.bits)
    # In each block one number is the largest.
    for scale in (1.0, 3e-7, 12345.678):
        exact = (shares(format)[codes] * scale).astype("f4")
        blocks = Blocks(backend, format, exact)
        found, scales = blocks.read()
        np.testing.assert_allclose(scales, scale, rtol=1e-6)
        minus_zero = codes == 2 ** (format.bits - 1) if format.signed else np.zeros(codes.size, bool)
        np.testing.assert_array_equal(np.where(minus_zero, 0, found), np.where(minus_zero, 0, codes))
        dense = zeros(backend, exact.size, float32)
        dequantize(backend, blocks.span, dense.span)
        quantize(backend, dense.span, blocks.span)
        again, scales_again = blocks.read()
        np.testing.assert_array_equal(again, found)
        np.testing.assert_array_equal(scales_again, scales)


def test_a_block_with_nan_or_infinity_is_not_taken_for_numbers(backend):
    for bad in (math.nan, math.inf):
        numbers = np.ones(512, "f4")
        numbers[300] = bad
        blocks = Blocks(backend, FORMATS[0], numbers)
        dense = zeros(backend, 512, float32)
        dequantize(backend, blocks.span, dense.span)
        assert np.isfinite(dense.values[:256]).all()
        assert not np.isfinite(dense.values[300])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("n", [1, 100, 255, 256, 257, CHUNK, 2 * CHUNK + 3, 3 * CHUNK + 131])
def test_an_update_of_blocks(backend, n, bits):
    block = Block(backend, rows=[{"lr": 0.1, "sign": -1.0}])
    model = Model(backend, n, bits)
    p, m, v = oracle(block.rows[0], *model.given())
    model.update(block, advance=True)
    np.testing.assert_allclose(model.p.values, p[:n], rtol=2e-6, atol=2e-6)
    assert model.g.unchanged()
    for blocks, wanted in zip(model.fields, (m, v), strict=True):
        check_codes(blocks, wanted, rtol=1e-6)
    assert block.counters(1)[0]["step"] == 2


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf], ids=["nan", "-nan", "inf", "-inf"])
def test_what_is_not_finite_stays_so_in_its_block(backend, bad, bits):
    """A NaN has a sign too, which says nothing."""
    model = Model(backend, 2 * CHUNK, bits)
    gradient = np.ones(2 * CHUNK)
    gradient[700] = bad
    model.g = Operand(backend, gradient, float32, offset=5)
    for step in range(2):
        model.update(Block(backend, rows=[{"lr": 0.1}]), advance=True)
        for blocks in model.fields:
            numbers = blocks.numbers().reshape(-1, blocks.format.block)
            assert not np.isfinite(numbers.reshape(-1)[700]), step
            assert np.isfinite(np.delete(numbers, 700 // blocks.format.block, axis=0)).all()
        assert np.isnan(model.p.values[700])


@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_an_update_of_blocks_of_narrow_parameters(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} does not compute with {dtype}")
    block = Block(backend, rows=[{"lr": 0.1}])
    model = Model(backend, CHUNK + 77, 8, dtype)
    p, m, v = oracle(block.rows[0], *model.given())
    model.update(block)
    step = 2.0 ** (-10 if dtype is float16 else -7)
    np.testing.assert_allclose(model.p.values, p[: model.n], rtol=step, atol=1e-6)
    for blocks, wanted in zip(model.fields, (m, v), strict=True):
        check_codes(blocks, wanted, rtol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_of_inactive_rows_and_of_skipped_steps_stay(backend, bits):
    rows = [{"lr": 0.1}, {"active": 0}]
    model = Model(backend, 2 * CHUNK + 300, bits, rows=[0, 1, 0])
    given = model.given()
    model.update(Block(backend, rows=rows, header={"skip": 1.0}))
    for blocks, numbers in zip(model.fields, given[2:], strict=True):
        np.testing.assert_array_equal(blocks.numbers(), numbers)
    assert model.p.unchanged()
    block = Block(backend, rows=rows)
    p, m, v = oracle(block.rows[0], *given)
    model.update(block)
    still = np.repeat([False, True, False], CHUNK)
    p, m, v = (np.where(still, old, new) for old, new in zip((given[0], *given[2:]), (p, m, v), strict=True))
    np.testing.assert_allclose(model.p.values, p[: model.n], rtol=2e-6, atol=2e-6)
    for blocks, wanted, numbers in zip(model.fields, (m, v), given[2:], strict=True):
        check_codes(blocks, wanted, rtol=1e-6)
        np.testing.assert_array_equal(blocks.numbers()[still], numbers[still])


def test_blocks_beside_state_in_full(backend):
    f, n = float32, CHUNK + 9

    def mixed(p, g, a, m):
        return p + a + m, a + g, m * 0.5

    rule = ex.trace(mixed, (f, f, f, f), stored=(f, f, f))
    block = Block(backend, rows=[{}], columns=(*ROW, "lr"))
    p, g, a = (Operand(backend, np.random.default_rng(i).standard_normal(n), f, offset=i) for i in range(3))
    m = Blocks(backend, FORMATS[0], drawn(padded(n), FORMATS[0]) * (np.arange(padded(n)) < n))
    numbers = m.numbers()
    rows = Operand(backend, np.zeros(2), dtypes.uint16)
    backend.fused_update(rule, p.span, g.span, [a.span, m.span], block.step, rows.span, advance=False)
    np.testing.assert_allclose(p.values, p.given + a.given + numbers[:n], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(a.values, a.given + 0.5 * g.given, rtol=1e-6, atol=1e-7)
    check_codes(m, 0.5 * numbers, rtol=1e-6)
