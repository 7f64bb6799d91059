"""What fill, scale and axpy have in common: one launch over a flat span, and a factor on the host or the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netcl.backends.base import Scalar, Span
from netcl.backends.opencl.codegen.scalars import scalar_argument
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.device.kernels import Kernel
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.device.tuning_table import Knobs
from netcl.dtypes import DType
from netcl.errors import DTypeError, ShapeError


class FlatPlan(NamedTuple):
    """A kernel over flat spans, the elements that a work-group takes, and its work-items."""

    kernel: Kernel
    share: int
    group: int


def plan_flat(
    queue: Queue, call: str, knobs: Knobs, dtypes: tuple[DType, ...], defines: Defines, arguments: tuple[Any, ...]
) -> FlatPlan:
    """The kernel of ``call`` in whose vectors all ``dtypes`` fit."""
    width, run, group = (value for _, value in knobs)
    share = width * run
    width = queue.lanes(call, *dtypes, most=width)
    shape: Defines = (("WIDTH", width), ("RUN", share // width), ("WORK_GROUP_SIZE", group))
    kernel = queue.kernels.shared(f"{call}.cl", call, (*shape, *defines), arguments=arguments)
    return FlatPlan(kernel, share * group, group)


def launch_flat(queue: Queue, plan: FlatPlan, n: int, *args: Any) -> None:
    """Enqueue a kernel over ``n`` elements, if there are any."""
    if n:
        kernel, share, group = plan
        queue.launch(kernel, (-(-n // share) * group,), (group,), *args)


def factor(queue: Queue, a: Scalar | Span, dtype: DType) -> tuple[tuple[Any, ...], DType | None]:
    """The kernel arguments of a factor, and the dtype of the buffer that it lies in, if it lies in one.

    Raises
    ------
    ShapeError
        If the span has more than one element.
    DTypeError
        If the factor is not a value of ``dtype``, or the device cannot compute with its own.
    """
    if not isinstance(a, Span):
        return (scalar_argument(a, dtype),), None
    if a.size != 1:
        raise ShapeError(f"a factor on the device is a span of one element, got {a.size}")
    queue.require_real("a factor on the device", a.dtype)
    if a.dtype.kind == "f" and dtype.kind != "f":
        raise DTypeError(f"a {a.dtype} factor on the device does not fit {dtype} elements; cast them with astype()")
    return (cl_buffer(a), a.offset), a.dtype


def factor_parameter(factor: DType | None, dtype: DType) -> tuple[Defines, tuple[Any, ...]]:
    """Defines and argument types for a factor in a buffer of dtype ``factor``, or else a number."""
    return ((), (SCALAR[dtype],)) if factor is None else ((("A", TAG[factor]),), (None, np.uint64))
