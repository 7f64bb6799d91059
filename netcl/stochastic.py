"""Stochastic rounding to 16 bits: up or down with the probability that makes the expected error zero.

A number between two neighbours is rounded to the upper one with the probability of its distance from the lower one in
units of their gap. So steps under half a gap are not lost: they move the number now and then. The random bits come from
a counter (element, step and seed) and not from a generator with a state, so every backend draws the same ones, in any
order, and a run that goes on from a checkpoint draws what it would have drawn. Source: S. Gupta et al., "Deep Learning
with Limited Numerical Precision", 2015.
"""

from __future__ import annotations

from typing import Any

from netcl.dtypes import DType, int32
from netcl.expression import Node, apply, cast

MOST = 8
"""How many words of random bits there are for an element."""


def stochastically_rounded(x: Node, dtype: DType, bits: Node) -> Node:
    """The float32 ``x`` rounded to one of its neighbours in float16 or bfloat16, as the 16 low bits of an int32 say."""
    return apply(f"stochastic_{dtype.name}", x, bits)


def random_bits(h: Any, number: int) -> Node:
    """16 random bits for this element and step, in the low half of an int32.

    Parameters
    ----------
    h
        With ``element``, an int32; ``count_low`` and ``count_middle``, the step's number; and the seed in ``seed_low``
        and ``seed_high``, 16 bits each.
    number : int
        Which of the element's bits, below ``2 * MOST``. Of two numbers that follow an even one the bits are halves of
        one word, and the words of an element are scrambled from one.
    """
    step = _xor(cast(h.count_low, int32), _shifted_left(cast(h.count_middle, int32), 22))
    seed = _xor(cast(h.seed_low, int32), _shifted_left(cast(h.seed_high, int32), 16))
    # The key is the same for all elements; what differs between them costs two products.
    key = _mixed(_xor(_mixed(_mixed(seed) + _number(0x9E3779B9)), step))
    word = _mixed(_xor(h.element, key))
    for _ in range(number // 2):
        word = _xor(word, _shifted_right(word, 15)) * _number(0x2C1B3C6D)
        word = _xor(word, _shifted_right(word, 12))
    return _shifted_right(word, 16) if number % 2 else word


def _mixed(x: Node) -> Node:
    """A bijection of 32 bits in which every bit of the input moves half of those of the output."""
    x = _xor(x, _shifted_right(x, 16)) * _number(0x7FEB352D)
    x = _xor(x, _shifted_right(x, 15)) * _number(0x846CA68B)
    return _xor(x, _shifted_right(x, 16))


def _xor(x: Node, y: Node | int) -> Node:
    return apply("bitwise_xor", x, y)


def _number(bits: int) -> int:
    """An int32 of these bits, for not every array library computes with unsigned ones."""
    return bits - (1 << 32) if bits >> 31 else bits


def _shifted_left(x: Node, count: int) -> Node:
    return apply("bitwise_left_shift", x, count)


def _shifted_right(x: Node, count: int) -> Node:
    """The upper bits at the place of the lower ones, without copies of the sign."""
    return apply("bitwise_right_shift", x, count) & ((1 << (32 - count)) - 1)
