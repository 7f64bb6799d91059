"""fill, scale and axpy over flat spans of any dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.core import Core, memory
from netcl.backends.opencl.program import Defines
from netcl.backends.opencl.storage import HOST, SCALAR, TAG
from netcl.dtypes import DType, bfloat16, promote
from netcl.errors import DTypeError, ShapeError

WORDS = {1: ("uchar", np.uint8), 2: ("ushort", np.uint16), 4: ("uint", np.uint32), 8: ("ulong", np.uint64)}
"""The unsigned integer of each element width, in OpenCL C and NumPy."""

LANES = 8
"""Elements per work-item, in the kernels too."""


def number(a: Scalar, dtype: DType) -> np.generic:
    """``a`` in the arithmetic type of ``dtype``.

    Raises
    ------
    DTypeError
        If an integer dtype cannot hold ``a``, or a real one a complex number.
    """
    if dtype.kind == "b":
        return np.uint8(bool(a))
    kind = SCALAR[dtype]
    if isinstance(a, complex):
        raise DTypeError(f"the complex number {a} does not fit {dtype}; pass a real number")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return kind(a)
    if a == a and abs(a) != float("inf") and int(a) == a:
        limits = np.iinfo(HOST[dtype])
        if limits.min <= a <= limits.max:
            return kind(int(a))
    raise DTypeError(f"{a!r} is no value of {dtype}; pass a whole number in its range, or cast with astype()")


def bits(a: Scalar, dtype: DType) -> np.generic:
    """The element of ``dtype`` nearest to ``a``, as an unsigned integer of its width."""
    value = number(a, dtype)
    if dtype is bfloat16:
        word = int(value.view(np.uint32))
        rounded = word >> 16 | 0x40 if np.isnan(value) else (word + 0x7FFF + (word >> 16 & 1)) >> 16
        return np.uint16(rounded)
    with np.errstate(over="ignore"):
        return value.astype(HOST[dtype]).view(WORDS[dtype.itemsize][1])


class FlatCalls(Core):
    """The three calls on flat spans that read and write each element once."""

    def fill(self, x: Span, a: Scalar) -> None:
        """x ← a. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If ``a`` is no value of x's dtype.
        """
        if x.dtype.kind == "c":
            self.require(x.dtype)
        word, argument = WORDS[x.dtype.itemsize]
        value = bits(a, x.dtype)
        if x.size == 0:
            return
        kernel = self.kernel(
            "fill.cl",
            "fill",
            (("WORD", word), ("WORD8", f"{word}8"), ("WORK_GROUP_SIZE", self.work_group_size)),
            arguments=(argument, None, np.uint64, np.uint64),
        )
        self._launch_flat(kernel, x.size, value, memory(x), x.offset, x.size)

    def scale(self, a: Scalar | Span, x: Span) -> None:
        """x ← a·x. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If the device cannot compute with x's dtype, or ``a`` is no value of it.
        """
        self.require(x.dtype)
        defines, arguments, factor = self._factor(a, x.dtype)
        if x.size == 0:
            return
        kernel = self.kernel(
            "scale.cl",
            "scale",
            (("X", TAG[x.dtype]), ("WORK_GROUP_SIZE", self.work_group_size), *defines),
            arguments=(*arguments, None, np.uint64, np.uint64),
        )
        self._launch_flat(kernel, x.size, *factor, memory(x), x.offset, x.size)

    def axpy(self, a: Scalar | Span, x: Span, y: Span) -> None:
        """y ← a·x + y, in the dtype that x and y promote to. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        ShapeError
            If x and y differ in size.
        DTypeError
            If the device cannot compute with a dtype, or ``a`` is no value of the common one.
        """
        if x.size != y.size:
            raise ShapeError(f"axpy needs spans of one size, got x of {x.size} and y of {y.size} elements")
        common = x.dtype if x.dtype is y.dtype else promote(x.dtype, y.dtype)
        self.require(common)
        defines, arguments, factor = self._factor(a, common)
        if x.size == 0:
            return
        tags = (("X", TAG[x.dtype]), ("Y", TAG[y.dtype]), ("SUM", TAG[common]))
        kernel = self.kernel(
            "axpy.cl",
            "axpy",
            (*tags, ("WORK_GROUP_SIZE", self.work_group_size), *defines),
            arguments=(*arguments, None, np.uint64, None, np.uint64, np.uint64),
        )
        self._launch_flat(kernel, x.size, *factor, memory(x), x.offset, memory(y), y.offset, x.size)

    def _factor(self, a: Scalar | Span, dtype: DType) -> tuple[Defines, tuple[Any, ...], tuple[Any, ...]]:
        """Defines, argument types and arguments for a factor that is a number or lies on the device."""
        if not isinstance(a, Span):
            return (), (SCALAR[dtype],), (number(a, dtype),)
        if a.size != 1:
            raise ShapeError(f"a factor on the device is a span of one element, got {a.size}")
        self.require(a.dtype)
        return (("A", TAG[a.dtype]),), (None, np.uint64), (memory(a), a.offset)

    def _launch_flat(self, kernel: cl.Kernel, n: int, *args: Any) -> None:
        group = self.work_group_size
        items = -(-n // LANES)
        self.launch(kernel, (-(-items // group) * group,), (group,), *args)
