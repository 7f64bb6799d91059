"""Numbers and host arrays rounded once, to nearest even, to what a dtype stores.

A float64 that is rounded to float32 and then to 16 bits may be off by half a unit: the first rounding can make a tie of
what was none. Rounding to odd first does not: float32 has more than two digits to spare over either 16-bit format, and
an odd last digit is never a tie (S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.dtypes import DType, bfloat16, float16, float32

_FORMATS = {float16: (11, -24, 65504.0), bfloat16: (8, -133, (2.0 - 2.0**-7) * 2.0**127)}
_FORMATS[float32] = (24, -149, (2.0 - 2.0**-23) * 2.0**127)
"""Significant binary digits, exponent of the smallest positive number, and the largest number."""


def nearest(value: float, dtype: DType) -> float:
    """The number of a real floating dtype that is nearest to ``value``, the even one of two; infinity beyond the last.

    Examples
    --------
    >>> from netcl.dtypes import bfloat16
    >>> from netcl.rounding import nearest
    >>> nearest(1 + 2**-8 + 2**-40, bfloat16) == 1 + 2**-7
    True
    """
    if dtype not in _FORMATS or value == 0.0 or not math.isfinite(value):
        return value
    digits, smallest, largest = _FORMATS[dtype]
    if abs(value) > 2.0 * largest:  # what it is rounded to may be no float64
        return math.copysign(math.inf, value)
    exponent = max(math.frexp(value)[1] - digits, smallest)
    rounded = math.ldexp(round(math.ldexp(value, -exponent)), exponent)
    return rounded if abs(rounded) <= largest else math.copysign(math.inf, value)


def float_of(value: int) -> float:
    """An integer as a float that rounds to float32 and to 16 bits as the integer itself does.

    Raises
    ------
    OverflowError
        If no float64 is that large.
    """
    surplus = value.bit_length() - 53
    if surplus <= 0:
        return float(value)
    if surplus > 1024 - 53:
        raise OverflowError(f"{value} is beyond the largest float64")
    size = abs(value)
    odd = size >> surplus | bool(size & ((1 << surplus) - 1))
    return math.copysign(math.ldexp(odd, surplus), value)


def odd_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """float64 or integers as float32, rounded to odd: towards zero, and the last digit set if anything was cut off.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.rounding import odd_float32
    >>> [float(x).hex() for x in odd_float32(np.array([1 + 2**-40, 1.5]))]
    ['0x1.0000020000000p+0', '0x1.8000000000000p+0']
    """
    if values.dtype.kind in "iu":
        return _odd_of_integers(values)
    with np.errstate(all="ignore"):
        near = np.atleast_1d(values).astype(np.float32)
        bits = near.view(np.uint32)
        back = near.astype(np.float64)
        bits -= np.abs(back) > np.abs(values)
        bits |= back != values
    return near.reshape(values.shape)


def _odd_of_integers(values: NDArray[Any]) -> NDArray[np.float32]:
    wide = values.astype(np.uint64)
    negative = values < 0
    size = np.where(negative, np.uint64(0) - wide, wide)
    # What lies below the 53 digits of a float64 becomes its last one.
    low = np.uint64(0x7FF)
    cut = (size & ~low) | np.where(size & low, low + np.uint64(1), np.uint64(0))
    exact = np.where(size >> np.uint64(53), cut, size).astype(np.float64)
    return odd_float32(np.where(negative, -exact, exact))


def stochastic(values: NDArray[Any], bits: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """float32 rounded to one of its neighbours in a 16-bit dtype, up with a probability of its distance from the lower.

    ``bits`` are integers, of whose 16 low bits the choice is made. See :mod:`netcl.stochastic`.

    Examples
    --------
    >>> import numpy as np
    >>> from netcl.dtypes import bfloat16
    >>> from netcl.rounding import stochastic
    >>> x = np.full(4, 1 + 2**-9, np.float32)  # a quarter of the way from 1 to its neighbour
    >>> stochastic(x, np.array([0, 0x4000, 0xBFFF, 0xC000]), bfloat16).tolist()
    [1.0, 1.0, 1.0, 1.0078125]
    """
    random = np.asarray(bits).astype(np.uint32) & np.uint32(0xFFFF)
    near = np.atleast_1d(values).astype(np.float32)
    lost = np.uint32(0xFFFF if dtype is bfloat16 else 0x1FFF)
    with np.errstate(all="ignore"):
        cut = ((near.view(np.uint32) + (random & lost)) & ~lost).view(np.float32)
        if dtype is float16:  # its subnormal numbers are whole numbers of 2^-24
            units = np.abs(near) * np.float32(2**24)
            whole = np.floor(units)
            share = random.astype(np.float32) * np.float32(2**-16) + np.float32(2**-17)
            small = np.copysign((whole + (units - whole > share)) * np.float32(2**-24), near)
            cut = np.where(np.abs(near) < np.float32(2**-14), small, cut)
    chosen: NDArray[np.float32] = np.where(np.isnan(near), near, cut).astype(np.float32)
    return chosen.reshape(np.shape(values))


def bfloat16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Real numbers as the bits of bfloat16, rounded to nearest even; a NaN stays one."""
    wide = values.dtype.kind == "f" and values.dtype.itemsize > 4
    exact = odd_float32(values) if wide or values.dtype.kind in "iu" else values.astype(np.float32)
    bits = np.atleast_1d(exact).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounded up, a NaN could become infinity or lose its sign, so it is cut and made quiet.
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    found: NDArray[Any] = np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)
    return found.reshape(values.shape)
