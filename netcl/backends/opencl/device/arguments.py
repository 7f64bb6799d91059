"""Operands and numbers as kernel arguments, and whether they are those that a kernel was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netcl.backends.base import Scalar, View
from netcl.backends.opencl.codegen.scalars import scalar_argument
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.dtypes import DType
from netcl.errors import DTypeError, ShapeError
from netcl.expression import Expression


def arguments(expression: Expression, views: Sequence[View], scalars: Sequence[Scalar]) -> list[Any]:
    """What :func:`~netcl.backends.opencl.codegen.operands.parameters` asks for.

    Raises
    ------
    DTypeError
        If a scalar is not a value of its dtype.
    """
    given: list[Any] = []
    for view in views:
        given += (cl_buffer(view), view.offset)
    for scalar, dtype in zip(scalars, expression.scalars, strict=True):
        given.append(scalar_argument(scalar, dtype))
    return given


def check_count(
    expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar]
) -> None:
    """Refuse operands that are not as many as the expression has.

    Raises
    ------
    ShapeError
    """
    given = (len(inputs), len(outputs), len(scalars))
    expected = (len(expression.inputs), len(expression.stored), len(expression.scalars))
    if given != expected:
        raise ShapeError(
            f"{expression.name} takes {expected[0]} inputs, {expected[1]} outputs and {expected[2]} scalars, got "
            f"{given[0]}, {given[1]} and {given[2]}"
        )


def check_shapes(name: str, views: Sequence[View]) -> None:
    """Refuse views that differ in shape.

    Raises
    ------
    ShapeError
    """
    shape = views[-1].shape
    for view in views:
        if view.shape != shape:
            raise ShapeError(f"{name}: operands of shapes {view.shape} and {shape}; broadcast them to one shape first")


def check_dtypes(name: str, views: Sequence[View], dtypes: Sequence[DType]) -> None:
    """Refuse views that do not have the dtypes a kernel was made for.

    Raises
    ------
    DTypeError
    """
    for view, dtype in zip(views, dtypes, strict=True):
        if view.buffer.dtype is not dtype:
            raise DTypeError(f"{name} expects an operand of {dtype}, got {view.buffer.dtype}; cast it with astype()")
