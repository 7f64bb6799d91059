"""The dtype of a result, as documented: within a kind the standard's table, across kinds the wider kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.arrays import Host, kind
from tests.fuzz.case import stored

_BITS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "complex64": 32, "complex128": 64}


def promoted(a: str, b: str) -> Any:
    """The dtype of an operation of two arrays; None where there is none."""
    if a == b:
        return a
    a, b = sorted((a, b), key=lambda name: "buifc".index(kind(name)))
    kinds = kind(a), kind(b)
    if kinds == ("f", "f"):
        if _BITS[a] == _BITS[b]:
            return "float32"
        return a if _BITS[a] > _BITS[b] else b
    if kinds[1] == "c" and kinds[0] in "fc":
        return "complex128" if 64 in (_BITS[a], _BITS[b]) else "complex64"
    if kinds[0] in "bui" and kinds[1] in "fc":
        return b
    found = np.result_type(a, b).name
    return None if found.startswith("float") else found


def with_scalar(dtype: str, scalar: Any) -> str:
    """The dtype of an operation of an array and a Python number, which never widens its kind."""
    if isinstance(scalar, float) and kind(dtype) in "bui":
        return "float32"
    return dtype


def floating(dtype: str) -> str:
    """The dtype of a function of real numbers."""
    return dtype if kind(dtype) in "fc" else "float32"


def converted(x: Host, dtype: str) -> Any:
    """The elements as the operation sees them."""
    if kind(dtype) == "f":
        return stored(x.values, "float64" if dtype == "float64" else "float32")
    if kind(dtype) == "c":
        return x.values.astype(dtype).astype(np.complex128)
    return x.values.astype(dtype)
