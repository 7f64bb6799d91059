"""Stochastic rounding, rules that know an element's number, and state in blocks of 8 and 4 bits."""

import math

import numpy as np
import pytest

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, ROW, BlockFormat, BlockSpan
from netcl.dtypes import bfloat16, float16, float32, int32
from netcl.expression import Node
from netcl.quantization import dequantize, quantize
from netcl.stochastic import stochastically_rounded
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


def shares(format):
    """What each code is worth, as the module says it, in float64."""
    if format.bits == 4 and not format.signed:
        return (np.arange(16) + 1) / 16
    digits = format.bits - format.signed
    top = 2**digits - 1
    worth = np.zeros(2**digits)
    for e in range(digits):
        i = np.arange(2**e)
        worth[2**e : 2 ** (e + 1)] = 10.0 ** (e - digits + 1) * (0.1 + 0.9 * (i + 0.5) / 2**e)
    worth[top] = 1.0
    return np.concatenate([worth, -worth]) if format.signed else worth


def codes_in(stored, format):
    """The codes of bytes."""
    return stored if format.bits == 8 else np.stack([stored & 15, stored >> 4], -1).reshape(-1)


class Blocks:
    """Numbers in blocks, at odd places in larger buffers."""

    def __init__(self, backend, format, numbers, offset=0):
        self.backend, self.format = backend, format
        numbers = np.asarray(numbers, "f4")
        self.codes = Operand(backend, np.zeros(numbers.size // format.per_byte), dtypes.uint8, offset=1 + offset)
        self.scales = Operand(backend, np.zeros(numbers.size // format.block), float32, offset=2 + offset)
        self.span = BlockSpan(self.codes.span, self.scales.span, format)
        given = Operand(backend, numbers, float32)
        quantize(backend, given.span, self.span)

    def read(self):
        """(codes, scales), after a check that nothing beside them changed."""
        return codes_in(self.codes.stored, self.format), self.scales.values

    def numbers(self):
        codes, scales = self.read()
        return shares(self.format)[codes] * np.repeat(scales, self.format.block)


def code_of(share, format):
    """The code of each share: of its decade that which is worth the most similar one."""
    if format.bits == 4 and not format.signed:
        return np.clip(np.floor(share * 16 - 0.5), 0, 15)
    digits = format.bits - format.signed
    size, top = np.abs(share), 2**digits - 1
    m = (size >= 0.275 * 10.0 ** (1 - digits)).astype("f8")
    for e in range(1, digits):
        inside = size >= 10.0 ** (e - digits)
        m = np.where(inside, 2**e + np.floor((size * 10.0 ** (digits - 1 - e) - 0.1) / 0.9 * 2**e), m)
    last = shares(format)[top - 1]
    m = np.where(size >= (1 + last) / 2, top, np.minimum(m, top - 1))
    return np.where(share < 0, m + top + 1, m) if format.signed else np.where(share > 0, np.maximum(m, 1), m)


def check_codes(blocks, wanted, rtol=0.0):
    """Every block has its largest number as its scale, every number its code, up to rounding between two of them."""
    codes, scales = blocks.read()
    format = blocks.format
    largest = np.abs(wanted).reshape(-1, format.block).max(1)
    np.testing.assert_allclose(scales, largest, rtol=rtol, atol=1e-38)
    scale = np.repeat(largest, format.block)
    share = np.divide(wanted, scale, out=np.zeros_like(wanted), where=scale > 0)
    slack = 1e-6 + rtol * 1e2
    low, high = (code_of(np.clip(share * (1 + sign * slack) + sign * 1e-9, -1, 1), format) for sign in (-1, 1))
    assert ((codes == low) | (codes == high) | (codes == code_of(share, format))).all()


def drawn(n, format, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n) * 10.0 ** rng.uniform(-4, 1, n)
    return (x if format.signed else np.abs(x)).astype("f4").astype("f8")


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


def hyper(name):
    return Node("hyper", (), float32, name)


def two_fields(p, g, m, v):
    m = hyper("beta1") * m + hyper("one_minus_beta1") * g
    v = hyper("beta2") * v + hyper("one_minus_beta2") * g * g
    return p - hyper("lr") * m / (ex.sqrt(v) + 1e-3), m, v


def oracle(row, p, g, m, v):
    g = g * 0.5 * row["sign"]
    m = row["beta1"] * m + row["one_minus_beta1"] * g
    v = row["beta2"] * v + row["one_minus_beta2"] * g * g
    return p - row["lr"] * m / (np.sqrt(v) + 1e-3), m, v


def padded(n):
    return -(-n // CHUNK) * CHUNK


class Model:
    """Parameters with a signed and an unsigned average in blocks."""

    def __init__(self, backend, n, bits, dtype=float32, rows=None):
        self.backend, self.n, self.size = backend, n, padded(n)
        rng = np.random.default_rng(n)
        self.p = Operand(backend, rng.standard_normal(n), dtype, offset=n % 3)
        self.g = Operand(backend, rng.standard_normal(n), dtype, offset=5)
        inside = np.arange(self.size) < n
        formats = [BlockFormat(bits, True), BlockFormat(bits, False)]
        self.fields = [
            Blocks(backend, format, drawn(self.size, format, i) * inside, offset=i) for i, format in enumerate(formats)
        ]
        self.rows = Operand(backend, np.zeros(self.size // CHUNK) if rows is None else rows, dtypes.uint16)
        self.rule = ex.trace(two_fields, (dtype, dtype, float32, float32), stored=(dtype, float32, float32))

    def update(self, block, advance=False):
        self.backend.fused_update(
            self.rule,
            self.p.span,
            self.g.span,
            [blocks.span for blocks in self.fields],
            block.step,
            self.rows.span,
            advance=advance,
        )

    def given(self):
        """Zero parameters and gradients behind the last one."""
        p, g = (np.zeros(self.size) for _ in range(2))
        p[: self.n], g[: self.n] = self.p.given, self.g.given
        return [p, g, *(blocks.numbers() for blocks in self.fields)]


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
