"""Where autocast acts: operands lowered for matrix products, raised for reductions, losses and normalisation."""

from __future__ import annotations

from netcl.array import Array
from netcl.autocast_state import product_dtype
from netcl.dtypes import DType, float32
from netcl.functional.casting import astype
from netcl.functional.dispatch import A, identity, mapped


def lowered_dtype(x: Array) -> DType:
    """The dtype that matrix products take ``x`` in: under autocast 16 bits, but float64 and integers stay."""
    dtype = product_dtype()
    if dtype is None or not (x.dtype is float32 or x.dtype.compute is not x.dtype):
        return x.dtype
    return dtype


def lowered(x: A) -> A:
    """``x`` in the dtype that matrix products take it in.

    Not recorded: a product writes the gradient of a float32 operand in float32, where adding it up rounds once.
    """
    dtype = lowered_dtype(x)
    if x.dtype is dtype:
        return x
    copy: A = mapped(identity, x, dtype=dtype)
    return copy


def raised(x: A) -> A:
    """``x`` in float32 if autocast left it in 16 bits."""
    if product_dtype() is None or x.dtype.compute is x.dtype:
        return x
    return astype(x, float32)
