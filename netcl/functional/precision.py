"""Where autocast acts: operands lowered for matrix products, raised for reductions, losses and normalisation."""

from __future__ import annotations

from netcl.dtypes import float32
from netcl.functional.casting import astype
from netcl.functional.launch import A
from netcl.precision import product_dtype


def lowered(x: A) -> A:
    """``x`` in the dtype that matrix products take under autocast; float64 and integers stay as they are."""
    dtype = product_dtype()
    if dtype is None or x.dtype is dtype or not (x.dtype is float32 or x.dtype.compute is not x.dtype):
        return x
    return astype(x, dtype)


def raised(x: A) -> A:
    """``x`` in float32 if autocast left it in 16 bits."""
    if product_dtype() is None or x.dtype.compute is x.dtype:
        return x
    return astype(x, float32)
