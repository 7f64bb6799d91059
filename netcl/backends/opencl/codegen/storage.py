"""How each dtype is called in OpenCL C and on the host; the counterpart of ``kernels/storage.clh``."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import numpy as np

from netcl import dtypes
from netcl.dtypes import DType
from netcl.host_dtypes import STORAGE

TAG = MappingProxyType({dtype: dtype.name for dtype in dtypes.ALL} | {dtypes.bool_: "boolean"})
"""The name by which ``storage.clh`` knows a dtype: ``LOAD(float16, p, i)``."""

COMPUTED = MappingProxyType(
    {
        dtypes.bool_: "uchar", dtypes.int8: "char", dtypes.int16: "short", dtypes.int32: "int", dtypes.int64: "long",
        dtypes.uint8: "uchar", dtypes.uint16: "ushort", dtypes.uint32: "uint", dtypes.uint64: "ulong",
        dtypes.float16: "float", dtypes.bfloat16: "float", dtypes.float32: "float", dtypes.float64: "double",
    }
)  # fmt: skip
"""The OpenCL C type that arithmetic on a dtype is done in."""

VECTOR_BYTES = 32
"""The most that a vector in a kernel may have; PoCL 3.0 crashes with 64 on processors that its LLVM does not know."""

SCALAR: MappingProxyType[DType, type[np.generic]] = MappingProxyType(
    {dtype: STORAGE[dtype.compute].type for dtype in dtypes.ALL} | {dtypes.bool_: np.uint8}
)
"""The NumPy type of a kernel argument that holds one value in a dtype's arithmetic type."""


@cache
def lanes(*dtypes: DType, most: int = 8) -> int:
    """How many elements a vector takes, at most ``most``, if values of all ``dtypes`` pass through vectors of it.

    Examples
    --------
    >>> from netcl.backends.opencl.codegen.storage import lanes
    >>> from netcl.dtypes import float16, float32, int64
    >>> lanes(float16, float32), lanes(float32, int64), lanes(int64, most=2)
    (8, 4, 2)
    """
    return min(most, VECTOR_BYTES // max(dtype.compute.itemsize for dtype in dtypes))
