"""Buffers of the reference backend, and what their elements are in Python."""

from __future__ import annotations

from typing import Any, final

from netcl.dtypes import DType

_PYTHON: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float, "c": complex}
"""What an element of each kind of dtype is in Python."""


@final
class ReferenceBuffer:
    """A flat array of the namespace."""

    __slots__ = ("array", "dtype", "size")

    def __init__(self, array: Any, size: int, dtype: DType) -> None:
        self.array = array
        self.size = size
        self.dtype = dtype


def python_number(value: Any, dtype: DType) -> Any:
    """``value`` as the Python number that an element of ``dtype`` is."""
    return _PYTHON[dtype.kind](value)
