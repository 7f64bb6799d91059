"""Types and constants of OpenCL C."""

from __future__ import annotations

import math
import struct

from netcl.backends.opencl.codegen.storage import COMPUTED
from netcl.dtypes import DType, bool_, float32, float64
from netcl.errors import DTypeError

SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}
"""The signed integer of each width, which is what comparing vectors of that width gives."""


def c_type(dtype: DType, width: int = 1) -> str:
    """The OpenCL C type that holds ``width`` values of ``dtype`` during computation; bool is uchar, 0 or 1.

    Raises
    ------
    DTypeError
        For a complex dtype.

    Examples
    --------
    >>> from netcl.backends.opencl.codegen.literals import c_type
    >>> from netcl.dtypes import bool_, float16
    >>> c_type(float16, 8), c_type(bool_)
    ('float8', 'uchar')
    """
    name = COMPUTED.get(dtype)
    if name is None:
        raise DTypeError(
            f"the opencl backend does not compute with {dtype}; split it into real and imaginary parts, or compute on "
            'backend="numpy"'
        )
    return vector(name, width)


def c_literal(value: bool | int | float, dtype: DType) -> str:
    """``value`` as a C constant of ``dtype``, exact to the last bit.

    Examples
    --------
    >>> from netcl.backends.opencl.codegen.literals import c_literal
    >>> from netcl.dtypes import float32, int64
    >>> c_literal(0.1, float32), c_literal(-(2**63), int64)
    ('0.1f', '(-9223372036854775807L - 1L)')
    """
    dtype = dtype.compute
    if dtype is bool_:
        return str(int(bool(value)))
    if dtype is float64:
        # A suffix for double does not exist, and an unsuffixed literal changes meaning under some build options.
        (bits,) = struct.unpack("<Q", struct.pack("<d", value))
        return f"as_double(0x{bits:016x}UL)"
    if dtype is float32:
        return _float_literal(float(value))
    bits = 8 * dtype.itemsize
    wrapped = int(value) & ((1 << bits) - 1)
    if dtype.kind == "u":
        return f"{wrapped}UL" if bits == 64 else f"{wrapped}u"
    if wrapped >> (bits - 1):
        wrapped -= 1 << bits
    suffix = "L" if bits == 64 else ""
    if wrapped == -(1 << (bits - 1)) and bits >= 32:
        return f"({wrapped + 1}{suffix} - 1{suffix})"
    return f"{wrapped}{suffix}"


def vector(name: str, width: int) -> str:
    """The vector type of ``width`` elements, or the scalar type itself."""
    return name if width == 1 else f"{name}{width}"


def _float_literal(value: float) -> str:
    if math.isnan(value):
        return "NAN"
    try:
        (value,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        value = math.copysign(math.inf, value)
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    # Nine significant digits name every float32.
    short = next(text for digits in range(1, 10) if _is_float32(text := f"{value:.{digits}g}", value))
    if not any(mark in short for mark in ".e"):
        short += ".0"
    return f"{short}f" if not short.startswith("-") else f"({short}f)"


def _is_float32(text: str, value: float) -> bool:
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", float(text)))[0]
    except OverflowError:
        return False
    return rounded == value
