"""fill, scale and axpy over flat spans of any dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyopencl as cl

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.scalars import WORDS, number, word
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.queue import Core, memory
from netcl.backends.opencl.device.tuning_table import Knobs
from netcl.dtypes import DType, promote
from netcl.errors import DTypeError, ShapeError


class FlatCalls(Core):
    """The three calls on flat spans that touch each element once."""

    def __init__(self, cl_device: cl.Device, index: int = 0) -> None:
        super().__init__(cl_device, index)
        self._flat: dict[tuple[Any, ...], tuple[cl.Kernel, int, int]] = {}

    def fill(self, x: Span, a: Scalar) -> None:
        """x ← a. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If ``a`` is no value of x's dtype.
        """
        dtype = x.buffer.dtype
        if dtype.kind == "c":
            self.require(dtype)
        value = word(a, dtype)
        knobs = self.knobs("fill")
        prepared = self._flat.get(("fill", knobs, dtype))
        if prepared is None:
            name, argument = WORDS[dtype.itemsize]
            prepared = self._prepare_flat(
                "fill", knobs, (dtype,), (("WORD", name),), (argument, None, np.uint64, np.uint64)
            )
            self._flat["fill", knobs, dtype] = prepared
        self._launch_flat(prepared, x.size, value, memory(x), x.offset, x.size)

    def scale(self, a: Scalar | Span, x: Span) -> None:
        """x ← a·x. See :class:`~netcl.backends.base.UpdateOperations`.

        Raises
        ------
        DTypeError
            If the device cannot compute with x's dtype, or ``a`` is no value of it.
        """
        dtype = x.buffer.dtype
        self.require(dtype)
        factor, factor_dtype = self._factor(a, dtype)
        knobs = self.knobs("scale")
        prepared = self._flat.get(("scale", knobs, dtype, factor_dtype))
        if prepared is None:
            defines, arguments = _factor_argument(factor_dtype, dtype)
            defines = (("X", TAG[dtype]), *defines)
            arguments = (*arguments, None, np.uint64, np.uint64)
            prepared = self._prepare_flat("scale", knobs, (dtype,), defines, arguments)
            self._flat["scale", knobs, dtype, factor_dtype] = prepared
        self._launch_flat(prepared, x.size, *factor, memory(x), x.offset, x.size)

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
        x_dtype, y_dtype = x.buffer.dtype, y.buffer.dtype
        common = x_dtype if x_dtype is y_dtype else promote(x_dtype, y_dtype)
        self.require(common)
        factor, factor_dtype = self._factor(a, common)
        knobs = self.knobs("axpy")
        prepared = self._flat.get(("axpy", knobs, x_dtype, y_dtype, factor_dtype))
        if prepared is None:
            defines, arguments = _factor_argument(factor_dtype, common)
            defines = (("X", TAG[x_dtype]), ("Y", TAG[y_dtype]), ("SUM", TAG[common]), *defines)
            arguments = (*arguments, None, np.uint64, None, np.uint64, np.uint64)
            prepared = self._prepare_flat("axpy", knobs, (x_dtype, y_dtype, common), defines, arguments)
            self._flat["axpy", knobs, x_dtype, y_dtype, factor_dtype] = prepared
        self._launch_flat(prepared, x.size, *factor, memory(x), x.offset, memory(y), y.offset, x.size)

    def _factor(self, a: Scalar | Span, dtype: DType) -> tuple[tuple[Any, ...], DType | None]:
        """The kernel arguments of a factor, and the dtype of the buffer that it lies in, if it lies in one."""
        if not isinstance(a, Span):
            return (number(a, dtype),), None
        if a.size != 1:
            raise ShapeError(f"a factor on the device is a span of one element, got {a.size}")
        self.require(a.dtype)
        if a.dtype.kind == "f" and dtype.kind != "f":
            raise DTypeError(f"a {a.dtype} factor on the device does not fit {dtype} elements; cast them with astype()")
        return (memory(a), a.offset), a.dtype

    def _prepare_flat(
        self, call: str, knobs: Knobs, dtypes: tuple[DType, ...], defines: Defines, arguments: tuple[Any, ...]
    ) -> tuple[cl.Kernel, int, int]:
        """A kernel in whose vectors all ``dtypes`` fit, the elements that a work-group takes, and its work-items."""
        width, run, group = (number for _, number in knobs)
        share = width * run
        width = self.lanes(call, *dtypes, most=width)
        shape: Defines = (("WIDTH", width), ("RUN", share // width), ("WORK_GROUP_SIZE", group))
        return self.kernel(f"{call}.cl", call, (*shape, *defines), arguments=arguments), share * group, group

    def _launch_flat(self, prepared: tuple[cl.Kernel, int, int], n: int, *args: Any) -> None:
        if n:
            kernel, share, group = prepared
            self.launch(kernel, (-(-n // share) * group,), (group,), *args)


def _factor_argument(factor: DType | None, dtype: DType) -> tuple[Defines, tuple[Any, ...]]:
    """Defines and argument types for a factor in a buffer of dtype ``factor``, or else a number."""
    return ((), (SCALAR[dtype],)) if factor is None else ((("A", TAG[factor]),), (None, np.uint64))
