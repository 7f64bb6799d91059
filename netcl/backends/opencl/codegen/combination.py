"""How reductions and scans join two values: the operator, its identity and its C form."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from netcl import expression as ex
from netcl.backends.opencl.codegen.writer import Names, statements
from netcl.dtypes import DType, bool_
from netcl.expression import Expression
from netcl.host_dtypes import STORAGE

COMBINE = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum", "any": "logical_or", "all": "logical_and",
}  # fmt: skip
"""The operator that joins two partial results of each reduction."""


@cache
def accumulated_terms(op: str, expression: Expression, stored: DType) -> Expression:
    """The expression with its output in the dtype that is accumulated in."""
    (value,) = expression.outputs
    dtype = value.dtype
    if op in ("any", "all"):
        dtype = bool_
    elif op in ("sum", "prod") and dtype.kind != "f":
        dtype = stored.compute
    return ex.build((ex.cast(value, dtype),), expression.inputs, expression.scalars, (dtype,), expression.name)


def combination(op: str, dtype: DType, width: int) -> tuple[list[str], str]:
    """Statements that join ``a`` and ``b``, and the name of the result."""
    joined = ex.trace(lambda a, b: ex.apply(COMBINE[op], a, b), (dtype, dtype))
    names: Names = {("input", 0): "a", ("input", 1): "b"}
    lines, (result,) = statements(joined, names, width)
    return lines, result


def identity(op: str, dtype: DType) -> bool | int | float:
    """What leaves any value as it is when it is joined with it."""
    if op in ("sum", "any"):
        return 0
    if op in ("prod", "all"):
        return 1
    if dtype is bool_:
        return op == "min"
    if dtype.kind == "f":
        return -math.inf if op == "max" else math.inf
    limits = np.iinfo(STORAGE[dtype])
    return int(limits.min if op == "max" else limits.max)
