"""Real parts, and gradients in the dtype of their array, where either may be complex. Real ones cost nothing."""

from __future__ import annotations

from typing import Any

from netcl import expression as ex
from netcl.dtypes import DType
from netcl.functional.dispatch import A, identity, map_arrays


def real_part(x: A) -> A:
    """The real part of each element; ``x`` itself if it is real. Not recorded."""
    return x if x.dtype.kind != "c" else map_arrays(_real, x)


def _real(x: Any) -> Any:
    return ex.apply("real", x)


def in_dtype(x: A, dtype: DType) -> A:
    """``x`` converted, its imaginary part dropped where ``dtype`` is real. Not recorded."""
    part = real_part(x) if dtype.kind != "c" else x
    return part if part.dtype is dtype else map_arrays(identity, part, dtype=dtype)


def gradient_of(x: A, g: Any) -> A:
    """What reaches ``x`` of a gradient of its shape: in its dtype, and of real arrays the real part."""
    found: A = in_dtype(g, x.dtype)
    return found
