"""Numbers in 8 or 4 bits: what the codes of a block are worth, and how blocks are written and read on any backend.

A block keeps its largest absolute value, its scale, and a code for each number: which share of the scale that is. The
shares lie close together near zero and wide apart near 1, for an average of gradients has many small elements and few
large ones::

    signed and 8-bit codes    m = 2^e + i, with 0 <= i < 2^e:  10^(e - E) · (0.1 + 0.9 · (i + 1/2) / 2^e)
    unsigned 4-bit codes      c:  (c + 1) / 16

where E is the largest e. The code of all ones is worth exactly 1, so that a block that is read and written again stays
as it is, and m = 0 is worth 0; a positive unsigned number gets at least the code 1. A signed code is m, and one bit
above it the sign. Sources: T. Dettmers, "8-Bit
Approximations for Parallelism in Deep Learning", 2015 (the map); T. Dettmers et al., "8-bit Optimizers via Block-wise
Quantization", 2021; B. Li et al., "Memory Efficient Optimizers with 4-bit States", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from netcl.backends.base import BlockFormat, BlockSpan, Scalar, Span, View
from netcl.dtypes import float32, int32, uint8
from netcl.expression import Expression, Node, apply, cast, maximum, minimum, trace, where

UPPER = 3
"""Decades in which most numbers of a block lie: for others, kernels take longer."""

_LEAST = 2.0**-126
"""Scales below the least normal number count as zero, for their reciprocal may be infinite."""


class Elementwise(Protocol):
    """What is used of a backend. See :class:`~netcl.backends.base.ArrayOperations`."""

    def map(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar] = ()
    ) -> None: ...

    def reduce(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None: ...


def share_of(code: Node, format: BlockFormat) -> Node:
    """The share of its block's scale that a code is worth; ``code`` is a float32."""
    if not is_dynamic(format):
        return (code + 1.0) * 0.0625
    top = top_code(format)
    m = where(code > top, code - (top + 1.0), code) if format.signed else code
    # The shares of a decade lie on a line, and each line is above the others within its own decade.
    size = m * 0.0
    for slope, shift in share_lines(format):
        size = maximum(size, m * slope + shift)
    size = where(m >= top, 1.0, size)
    return where(code > top, -size, size) if format.signed else size


def code_of(share: Node, format: BlockFormat) -> Node:
    """The code, as a float32, that is worth the most similar share in its decade; ``share`` lies in [-1, 1]."""
    if not is_dynamic(format):
        return minimum(apply("floor", maximum(share * 16.0 - 0.5, 0.0)), 15.0)
    top, size = top_code(format), abs(share) if format.signed else share
    # The same lines the other way round, each below the others within its own decade.
    (slope, shift), *others = code_lines(format)
    m = size * slope + shift
    for slope, shift in others:
        m = minimum(m, size * slope + shift)
    m = apply("round", where(size >= top_edge(format), top, minimum(m, top - 1.0)))
    if format.signed:
        return where(share < 0.0, m + (top + 1.0), m)
    # What something is divided by the root of must not become zero.
    return where(share > 0.0, maximum(m, 1.0), m)


def is_dynamic(format: BlockFormat) -> bool:
    """Whether codes are those of decades, and not equally far apart."""
    return format.bits == 8 or format.signed


def top_code(format: BlockFormat) -> float:
    """The largest m of a format in decades, which is worth the whole scale."""
    return 2.0 ** (format.bits - format.signed) - 1.0


@cache
def share_lines(format: BlockFormat) -> tuple[tuple[float, float], ...]:
    """Slope and value at 0 of the shares of each decade, as functions of m."""
    digits = format.bits - format.signed
    decades = [(2.0**e, 10.0 ** (e - digits + 1)) for e in range(digits)]
    return tuple([(0.9 * size / count, size * (0.1 - 0.9 + 0.45 / count)) for count, size in decades])


@cache
def code_lines(format: BlockFormat) -> tuple[tuple[float, float], ...]:
    """Slope and value at 0 of m in each decade, as functions of the share, before m is rounded to a whole number."""
    digits = format.bits - format.signed
    lines = [(2.0**e / 0.9 * 10.0 ** (digits - 1 - e), 2.0**e * (1.0 - 0.1 / 0.9) - 0.5) for e in range(1, digits)]
    # There is one share in the first decade; below half of it the nearest is 0.
    size = 10.0 ** (1 - digits)
    slope = 1.0 / (size - 0.55 * size / 2.0)
    return ((slope, 0.5 - slope * 0.55 * size / 2.0), *lines)


def upper_edges(format: BlockFormat) -> tuple[float, float]:
    """The least m, and a share, from which on the lines of the uppermost :data:`UPPER` decades are enough."""
    decades = format.bits - format.signed
    if decades <= UPPER:
        return 0.0, 0.0
    # Where lines meet they are equal but for rounding, so a share a little above.
    return 2.0 ** (decades - UPPER), 1.01 * 10.0**-UPPER


def top_edge(format: BlockFormat) -> float:
    """Half way from the share before the last one to 1."""
    slope, shift = share_lines(format)[-1]
    return (1.0 + (top_code(format) - 1.0) * slope + shift) / 2.0


def reciprocal(scale: Node) -> Node:
    """What a number is multiplied by to be a share: 0 where the scale is zero or not a number."""
    return where(scale >= _LEAST, 1.0 / scale, 0.0)


@cache
def decoding(format: BlockFormat) -> Expression:
    """Numbers of codes and scales: of a byte, the one or two that it holds."""

    def numbers(byte: Node, scale: Node) -> list[Node]:
        code = cast(byte, float32)
        if format.per_byte == 1:
            return [share_of(code, format) * scale]
        high = apply("floor", code * 0.0625)
        return [share_of(half, format) * scale for half in (code - 16.0 * high, high)]

    return trace(numbers, (uint8, float32), stored=(float32,) * format.per_byte)


@cache
def encoding(format: BlockFormat) -> Expression:
    """The byte of one or two numbers and their scale."""

    def byte(*given: Node) -> Node:
        *numbers, scale = given
        codes = [code_of(x * reciprocal(scale), format) for x in numbers]
        return cast(cast(codes[0] if len(codes) == 1 else codes[0] + 16.0 * codes[1], int32), uint8)

    return trace(byte, (float32,) * (format.per_byte + 1), stored=(uint8,))


@cache
def _magnitude() -> Expression:
    return trace(lambda x: abs(x), (float32,), stored=(float32,))


def dequantize(backend: Elementwise, x: BlockSpan, out: Span) -> None:
    """out ← the numbers of ``x``. Enqueues; does not block."""
    codes, scales, numbers = _views(x, out)
    if out.size:
        backend.map(decoding(x.format), [codes, scales], numbers)


def quantize(backend: Elementwise, x: Span, out: BlockSpan) -> None:
    """out ← the float32 numbers ``x`` in whole blocks. Enqueues; does not block."""
    codes, scales, numbers = _views(out, x)
    if x.size:
        blocks, block = out.scales.size, out.format.block
        rows = View(x.buffer, x.offset, (blocks, block), (block, 1))
        backend.reduce("max", _magnitude(), [rows], (1,), out.scales.view())
        backend.map(encoding(out.format), [*numbers, scales], [codes])


def _views(x: BlockSpan, dense: Span) -> tuple[View, View, list[View]]:
    """Bytes, the scale of each, and the numbers that share a byte, all as (blocks, bytes of a block)."""
    block, per_byte = x.format.block, x.format.per_byte
    shape = (x.scales.size, block // per_byte)
    codes = View(x.codes.buffer, x.codes.offset, shape, (shape[1], 1))
    scales = View(x.scales.buffer, x.scales.offset, shape, (1, 0))
    numbers = [View(dense.buffer, dense.offset + i, shape, (block, per_byte)) for i in range(per_byte)]
    return codes, scales, numbers
