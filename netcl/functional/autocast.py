"""Where autocast acts: down to 16 bits for matrix products, up to float32 for reductions, losses and normalisation."""

from __future__ import annotations

from netcl.array import Array
from netcl.autocast_state import product_dtype
from netcl.dtypes import DType, float32
from netcl.functional.casting import astype
from netcl.functional.dispatch import A, identity, map_arrays


def autocast_dtype(x: Array) -> DType:
    """The dtype that matrix products take ``x`` in: under autocast 16 bits, but float64 and integers stay."""
    dtype = product_dtype()
    if dtype is None or not (x.dtype is float32 or x.dtype.compute is not x.dtype):
        return x.dtype
    return dtype


def autocast_down(x: A) -> A:
    """``x`` in the dtype that matrix products take it in.

    Not recorded: a product writes the gradient of a float32 operand in float32, where adding it up rounds once.
    """
    dtype = autocast_dtype(x)
    if x.dtype is dtype:
        return x
    return map_arrays(identity, x, dtype=dtype)


def autocast_up(x: A) -> A:
    """``x`` in float32 if autocast left it in 16 bits."""
    if product_dtype() is None or x.dtype.compute is x.dtype:
        return x
    return astype(x, float32)
