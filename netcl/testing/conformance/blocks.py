"""Numbers in blocks of few bits for the conformance suite: the codes as the formula has them, in float64."""

from __future__ import annotations

import numpy as np

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import CHUNK, BlockFormat, BlockSpan
from netcl.dtypes import float32
from netcl.expression import Node
from netcl.quantization import quantize
from netcl.testing.conformance.operands import Operand


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
        with np.errstate(invalid="ignore"):  # of a scale that is infinite
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
