"""Numbers as kernel arguments: in a dtype's arithmetic type, or as the bits of one element."""

from __future__ import annotations

import math
import struct
import sys

import numpy as np

from netcl.backends.base import Scalar
from netcl.dtypes import DType, bfloat16, float64
from netcl.errors import DTypeError
from netcl.host_dtypes import STORAGE
from netcl.rounding import nearest

WORDS = {1: ("uchar", np.uint8), 2: ("ushort", np.uint16), 4: ("uint", np.uint32), 8: ("ulong", np.uint64)}
"""The unsigned integer of each element width, in OpenCL C and NumPy."""

FLOAT32_OVERFLOW = 2.0**128 - 2.0**103
"""Half a unit above the largest float32: from here on a number rounds to infinity."""


def scalar_argument(a: Scalar, dtype: DType) -> int | float:
    """``a`` as a kernel argument in the arithmetic type of ``dtype``.

    Raises
    ------
    DTypeError
        If an integer dtype cannot hold ``a``, or a real one a complex number.
    """
    if isinstance(a, complex):
        raise DTypeError(f"the complex number {a} is not a value of {dtype}; pass a real number")
    if dtype.kind == "f":
        a = float(a)
        return a if dtype is float64 or abs(a) < FLOAT32_OVERFLOW or a != a else math.copysign(math.inf, a)
    if dtype.kind == "b":
        return int(bool(a))
    if isinstance(a, float) and a.is_integer():
        a = int(a)
    if isinstance(a, float) or not _fits(a, dtype):
        raise DTypeError(f"{a!r} is not a value of {dtype}; pass a whole number in its range, or cast with astype()")
    return int(a)


def _fits(a: int, dtype: DType) -> bool:
    bits = 8 * dtype.itemsize
    return 0 <= a < 1 << bits if dtype.kind == "u" else -(1 << bits - 1) <= a < 1 << bits - 1


def bit_pattern(a: Scalar, dtype: DType) -> int:
    """The bits of the element of ``dtype`` nearest to ``a``, as an unsigned integer of its width."""
    value = nearest(scalar_argument(a, dtype), dtype) if dtype.kind == "f" else scalar_argument(a, dtype)
    if dtype.kind != "f":
        return int(value) & ((1 << 8 * dtype.itemsize) - 1)
    if dtype is bfloat16:
        return _bits(value, "f") >> 16
    return _bits(value, STORAGE[dtype].char)


def _bits(value: float, form: str) -> int:
    return int.from_bytes(struct.pack(f"={form}", value), sys.byteorder)
