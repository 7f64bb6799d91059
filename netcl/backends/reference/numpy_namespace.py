"""NumPy as a namespace: views of any strides, functions that write in place, and arrays that are the host's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from netcl.backends.base import HostArray, Span, View
from netcl.backends.reference import numpy_operators
from netcl.backends.reference.buffers import python_number
from netcl.backends.reference.in_place import InPlaceProgram
from netcl.backends.reference.numpy_operators import Function, strided
from netcl.backends.reference.ordering import NumpyOrdering
from netcl.backends.reference.program import Program
from netcl.backends.reference.special import add_at
from netcl.dtypes import DType, bfloat16, float16
from netcl.errors import DeviceMemoryError
from netcl.expression import Expression
from netcl.host_dtypes import STORAGE, values_of


@final
class NumpyNamespace:
    """NumPy, with bfloat16 held as the uint16 of its bits.

    It has the methods of :class:`~netcl.backends.reference.namespace.Namespace`, where they are described.
    """

    shares_host_memory = True
    # It rounds 1 + z and e to the power of z, squares divisors, leaves 0 to a negative power, and has the zeros of C.
    unlike_the_standard = frozenset({
        "log1p", "expm1", "divide", "reciprocal", "rsqrt", "sign", "pow", "tan", "tanh",
    })  # fmt: skip

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.place = None
        self.ordering = NumpyOrdering(self)

    def native(self, dtype: DType) -> Any:
        return STORAGE[dtype]

    def supports(self, dtype: DType) -> bool:
        return True

    def empty(self, n: int, dtype: DType) -> Any:
        try:
            return np.empty(n, STORAGE[dtype])
        except (MemoryError, ValueError) as error:
            raise DeviceMemoryError(f"numpy cannot hold {n * dtype.itemsize} bytes: {error}; ask for less") from error

    def scalar(self, value: Any, dtype: DType) -> Any:
        return STORAGE[dtype].type(python_number(value, dtype))

    def from_host(self, host: Any, dtype: DType) -> Any:
        return np.asarray(host)

    def to_host(self, x: Any) -> Any:
        return np.array(x)

    def map_host(self, x: Any) -> HostArray:
        return x

    def unmap_host(self, host: HostArray, x: Span) -> None:
        """The host wrote to the memory itself."""

    def read(self, x: View) -> Any:
        return strided(x.buffer.array, x.offset, x.shape, x.strides)  # type: ignore[attr-defined]

    def write(self, x: View, value: Any) -> None:
        numpy_operators.store(x.dtype)(self.read(x), value)

    def widen(self, x: Any, dtype: DType) -> Any:
        if dtype is float16:
            return x.astype(np.float32)
        return values_of(x, bfloat16) if dtype is bfloat16 else x

    def load(self, dtype: DType) -> Function | None:
        return numpy_operators.load(dtype)

    def operator(self, op: str, dtype: DType, operand: DType) -> Function:
        return numpy_operators.operator(self.xp, op, dtype, operand)

    def compile(self, expression: Expression, aliases: Sequence[int] | None = None) -> Program:
        return InPlaceProgram(expression, self, aliases)

    def reduction(self, op: str) -> Function:
        return numpy_operators.REDUCTIONS[op]

    def arg_reduce(self, op: str, x: Any, axis: int) -> Any:
        return getattr(np, op)(x, axis=axis)

    def matmul(self, a: Any, b: Any, out: View) -> None:
        if out.dtype is not bfloat16 and a.dtype == b.dtype == STORAGE[out.dtype]:
            np.matmul(a, b, out=self.read(out))
        else:
            self.write(out, np.matmul(a, b))

    def scatter_add(self, out: Any, indices: Any, updates: Any) -> Any:
        return add_at(out, indices, updates)
