"""What complex functions are at special values, as the Array API standard has it, and what they are elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# A row holds the two parts of an operand and those of the result. Parts of operands: 0 (of either sign), +0, 1, p
# (positive and finite), x (finite, not 0), f (finite), oo, -oo, ±oo, nan, * (anything). Of results: a number, times pi
# if it ends so, oo or nan; a leading ~ leaves the sign open.
_TABLES = {
    "acos": """
        0 +0 -> .5pi -0    |  0 nan -> .5pi nan  |  f oo -> .5pi -oo   |  x nan -> nan nan  |  -oo p -> 1pi -oo
        oo p -> +0 -oo     |  -oo oo -> .75pi -oo|  oo oo -> .25pi -oo |  ±oo nan -> nan ~oo | nan f -> nan nan
        nan oo -> nan -oo  |  nan nan -> nan nan
    """,
    "acosh": """
        0 +0 -> +0 .5pi    |  f oo -> oo .5pi    |  x nan -> nan nan   |  0 nan -> nan ~.5pi |  -oo p -> oo 1pi
        oo p -> oo +0      |  -oo oo -> oo .75pi |  oo oo -> oo .25pi  |  ±oo nan -> oo nan  |  nan f -> nan nan
        nan oo -> oo nan   |  nan nan -> nan nan
    """,
    "asinh": """
        +0 +0 -> +0 +0     |  p oo -> oo .5pi    |  f nan -> nan nan   |  oo p -> oo +0      |  oo oo -> oo .25pi
        nan +0 -> nan +0   |  nan x -> nan nan   |  nan oo -> ~oo nan  |  nan nan -> nan nan |  oo nan -> oo nan
    """,
    "atanh": """
        +0 +0 -> +0 +0     |  +0 nan -> +0 nan   |  1 +0 -> oo +0      |  p oo -> +0 .5pi    |  x nan -> nan nan
        oo p -> +0 .5pi    |  oo oo -> +0 .5pi   |  oo nan -> +0 nan   |  nan f -> nan nan   |  nan oo -> ~0 .5pi
        nan nan -> nan nan
    """,
    "cosh": """
        +0 +0 -> 1 +0      |  +0 oo -> nan ~0    |  +0 nan -> nan ~0   |  x oo -> nan nan    |  x nan -> nan nan
        oo +0 -> oo +0     |  oo x -> oo*cis     |  oo oo -> ~oo nan   |  oo nan -> oo nan   |  nan 0 -> nan ~0
        nan x -> nan nan   |  nan nan -> nan nan
    """,
    "sinh": """
        +0 +0 -> +0 +0     |  +0 oo -> ~0 nan    |  +0 nan -> ~0 nan   |  p oo -> nan nan    |  p nan -> nan nan
        oo +0 -> oo +0     |  oo p -> oo*cis     |  oo oo -> ~oo nan   |  oo nan -> ~oo nan  |  nan +0 -> nan +0
        nan x -> nan nan   |  nan nan -> nan nan
    """,
    "tanh": """
        +0 +0 -> +0 +0     |  x oo -> nan nan    |  +0 oo -> +0 nan    |  x nan -> nan nan   |  +0 nan -> +0 nan
        oo p -> 1 +0       |  oo oo -> 1 ~0      |  oo nan -> 1 ~0     |  nan +0 -> nan +0   |  nan x -> nan nan
        nan nan -> nan nan |  oo +0 -> 1 +0
    """,
    "exp": """
        0 +0 -> 1 +0       |  f oo -> nan nan    |  f nan -> nan nan   |  oo +0 -> oo +0     |  -oo f -> 0*cis
        oo x -> oo*cis     |  -oo oo -> ~0 ~0    |  oo oo -> ~oo nan   |  -oo nan -> ~0 ~0   |  oo nan -> ~oo nan
        nan +0 -> nan +0   |  nan x -> nan nan   |  nan oo -> nan nan  |  nan nan -> nan nan
    """,
    "expm1": """
        0 +0 -> +0 +0      |  f oo -> nan nan    |  f nan -> nan nan   |  oo +0 -> oo +0     |  -oo f -> 0*cis-1
        oo x -> oo*cis     |  -oo oo -> -1 ~0    |  oo oo -> ~oo nan   |  -oo nan -> -1 ~0   |  oo nan -> ~oo nan
        nan +0 -> nan +0   |  nan x -> nan nan   |  nan oo -> nan nan  |  nan nan -> nan nan
    """,
    "log": """
        -0 +0 -> -oo 1pi   |  +0 +0 -> -oo +0    |  f oo -> oo .5pi    |  f nan -> nan nan   |  -oo p -> oo 1pi
        oo p -> oo +0      |  -oo oo -> oo .75pi |  oo oo -> oo .25pi  |  ±oo nan -> oo nan  |  nan f -> nan nan
        nan oo -> oo nan   |  nan nan -> nan nan |  1 +0 -> +0 +0
    """,
    "log1p": """
        -1 +0 -> -oo +0    |  f oo -> oo .5pi    |  f nan -> nan nan   |  -oo p -> oo 1pi    |  oo p -> oo +0
        -oo oo -> oo .75pi |  oo oo -> oo .25pi  |  ±oo nan -> oo nan  |  nan f -> nan nan   |  nan oo -> oo nan
        nan nan -> nan nan
    """,
    "sqrt": """
        0 +0 -> +0 +0      |  * oo -> oo oo      |  f nan -> nan nan   |  -oo p -> +0 oo     |  oo p -> oo +0
        -oo nan -> nan ~oo |  oo nan -> oo nan   |  nan f -> nan nan   |  nan nan -> nan nan
    """,
    "sign": """
        0 0 -> ~0 ~0       |  nan * -> nan nan   |  * nan -> nan nan
    """,
}
_SYMMETRY = {"asinh": -1, "atanh": -1, "sinh": -1, "tanh": -1, "cosh": 1}
_BASES = {"log2": math.log(2.0), "log10": math.log(10.0)}
_TURNED = {"asin": "asinh", "atan": "atanh", "sin": "sinh", "tan": "tanh"}

_P = [0.3125, 1.0, 2.5, 2.0**-100, 2.0**100]  # the same in every dtype
_X = [*_P, *[-value for value in _P]]
_CLASSES = {
    "+0": [0.0], "-0": [-0.0], "0": [0.0, -0.0], "1": [1.0], "-1": [-1.0], "p": _P, "x": _X, "f": [0.0, -0.0, *_X],
    "oo": [math.inf], "-oo": [-math.inf], "±oo": [math.inf, -math.inf], "nan": [math.nan],
    "*": [0.0, -0.0, *_X, math.inf, -math.inf, math.nan],
}  # fmt: skip


class Part(NamedTuple):
    """One part of a result; ``signed`` says that the sign of an infinity or a zero is told."""

    value: float
    signed: bool = True

    def negated(self) -> Part:
        return Part(-self.value, self.signed)


class Special(NamedTuple):
    """An operand and what a function of it is."""

    operand: complex
    real: Part
    imag: Part


def _part(text: str) -> Part:
    number = text.lstrip("~").replace("oo", "inf")
    value = float(number[:-2] or 1) * math.pi if number.endswith("pi") else float(number)
    return Part(value, not text.startswith("~"))


def _direction(text: str, b: float) -> tuple[Part, Part]:
    """``oo*cis`` and ``0*cis``: that far in the direction of the angle b."""
    size = math.inf if text.startswith("oo") else 0.0
    real = math.copysign(size, math.cos(b))
    imag = math.copysign(size, math.sin(b)) if b else b
    return Part(-1.0 if text.endswith("-1") else real), Part(imag)


def _rows(op: str) -> Iterator[Special]:
    for row in _TABLES[op].replace("\n", "|").split("|"):
        if not row.strip():
            continue
        (first, second), result = (half.split() for half in row.split("->"))
        for a in _CLASSES[first]:
            for b in _CLASSES[second]:
                real, imag = _direction(result[0], b) if "cis" in result[0] else map(_part, result)
                yield Special(complex(a, b), real, imag)


def special_values(op: str) -> list[Special]:
    """Operands at which the standard says what ``op`` is, with what it says, its symmetries made use of."""
    if op in _TURNED:  # -i f(i z)
        rows = special_values(_TURNED[op])
        return [Special(complex(z.imag, -z.real), imag, real.negated()) for z, real, imag in rows]
    if op == "cos":
        return [Special(complex(z.imag, -z.real), real, imag) for z, real, imag in special_values("cosh")]
    if op in _BASES:
        base = _BASES[op]
        rows = special_values("log")
        return [Special(z, Part(re.value / base, re.signed), Part(im.value / base, im.signed)) for z, re, im in rows]
    found = list(_rows(op))
    if op in _SYMMETRY:
        sign = _SYMMETRY[op]
        found += [Special(-z, _times(real, sign), _times(imag, sign)) for z, real, imag in found]
    return found + [Special(z.conjugate(), real, imag.negated()) for z, real, imag in found]


def _times(part: Part, sign: int) -> Part:
    return part if sign > 0 else part.negated()


WITH_TABLES = (*_TABLES, *_BASES, *_TURNED, "cos")
"""The functions that have special values."""


def mismatch(found: np.ndarray, expected: list[Special], tolerance: float) -> str:
    """The first place where ``found`` is not what was expected; nothing where there is none."""
    for value, (operand, *parts) in zip(found, expected, strict=True):
        for name, part in zip(("real", "imag"), parts, strict=True):
            number = float(getattr(value, name))
            if not _agrees(number, part, tolerance):
                return f"f({operand}) = {value}, the {name} part should be {part.value}"
    return ""


def _agrees(number: float, part: Part, tolerance: float) -> bool:
    if math.isnan(part.value):
        return math.isnan(number)
    expected = part.value if part.signed else math.copysign(part.value, number)
    if expected == 0.0 or math.isinf(expected):
        return number == expected and math.copysign(1.0, number) == math.copysign(1.0, expected)
    return abs(number - expected) <= tolerance * abs(expected)
