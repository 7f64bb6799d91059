"""How an operation reaches the backend: a function over expression nodes becomes one map or one reduction.

Operands are arrays and Python numbers in any order. Numbers travel as runtime scalars of the expression, so that one
kernel serves every value. Expressions are kept per function and operand dtypes, never per shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, TypeAlias, TypeGuard, TypeVar, overload

import numpy as np

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.backends.base import Backend, Scalar, View
from netcl.dtypes import DType, promote, promote_scalar
from netcl.errors import DeviceMismatchError, DTypeError, RangeError, ShapeError
from netcl.expression import Expression, Node
from netcl.rounding import float_of, nearest
from netcl.strides import broadcast_shapes, contiguous_strides
from netcl.validation import shown

A = TypeVar("A", bound=Array)
Operand: TypeAlias = "Array | bool | int | float | complex"
Function: TypeAlias = Callable[..., Any]

INTEGER_RANGE = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}


class _ScalarOf:
    """In a signature: a number given at the call, of this dtype."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype


@cache
def _scalar_of(dtype: DType) -> _ScalarOf:
    return _ScalarOf(dtype)


@cache
def _expression(
    function: Function, signature: tuple[Any, ...], stored: DType | None, common: DType, summed: bool
) -> Expression:
    """Trace ``function`` over operands of this signature, in the order in which it takes them."""
    inputs: list[DType] = []
    scalars: list[DType] = []
    nodes: list[Node] = []
    for kind in signature:
        if isinstance(kind, _ScalarOf):
            nodes.append(Node("scalar", (), kind.dtype.compute, len(scalars)))
            scalars.append(kind.dtype)
        else:
            nodes.append(Node("input", (), kind.compute, len(inputs)))
            inputs.append(kind)
    output = function(*nodes)
    if stored is None:
        stored = output.dtype
        if stored is common.compute:  # a 16-bit float was widened for the arithmetic only
            stored = common
    name = getattr(function, "__name__", "map").replace("<lambda>", "map")
    return ex.build((output,), inputs, scalars, (stored,), name=name, summed=summed)


def check_arrays(name: str, *operands: object) -> None:
    """Refuse an operand of the function ``name`` that is not an array."""
    for x in operands:
        if not isinstance(x, Array):
            raise DTypeError(f"{name} takes Tensors, got {shown(x)}; use netcl.asarray(x)")


def listed_arrays(name: str, arrays: Iterable[A]) -> list[A]:
    """The arrays of a sequence that the function ``name`` takes."""
    if hasattr(arrays, "shape") or not isinstance(arrays, Iterable):
        raise DTypeError(f"{name} takes a sequence of Tensors, got {shown(arrays)}; pass a list of them")
    found = list(arrays)
    check_arrays(name, *found)
    return found


def common_backend(arrays: Sequence[Array]) -> Backend:
    """The backend that holds all of ``arrays``."""
    backend = arrays[0].storage.backend
    for array in arrays:
        if array.storage.backend is not backend:
            raise DeviceMismatchError(
                f"the operands are on different devices, {arrays[0].device} and {array.device}; "
                f"move one of them with to({str(arrays[0].device)!r})"
            )
    return backend


def scalar_value(value: Any, dtype: DType) -> Scalar:
    """A Python number as one that arithmetic in ``dtype`` can take.

    Raises
    ------
    RangeError
        If an integer dtype cannot hold it, or it is an integer beyond all floats.
    DTypeError
        If ``dtype`` is integer and it is a fraction or no number, or ``dtype`` is real and it is complex.
    """
    kind = dtype.kind
    if kind == "f":
        return value if type(value) is float else _real(value, dtype)
    if kind in "iu":
        low, high = INTEGER_RANGE[dtype.name]
        if isinstance(value, complex) or (isinstance(value, float) and math.isfinite(value) and value != int(value)):
            raise DTypeError(f"{value!r} is not a value of {dtype}; round it first, or use a floating array")
        if not low <= value <= high:
            raise out_of_range(value, dtype)
        return int(value)
    if kind == "b":
        return bool(value)
    return complex(value) if isinstance(value, complex) else complex(_real(value, dtype))


def _real(value: Any, dtype: DType) -> float:
    if isinstance(value, complex):
        raise DTypeError(f"{value!r} is not a value of {dtype}; take its real part, or use a complex array")
    try:
        if isinstance(value, int) and dtype.itemsize < 8:
            return float_of(value)
        return float(value)
    except OverflowError:
        raise RangeError(f"{shown(value)} is out of range for {dtype}; pass a float, such as math.inf") from None


def stored_value(value: Any, dtype: DType) -> Scalar:
    """A Python number as one that ``dtype`` stores: 16-bit floats are rounded here, once. Refuses like scalar_value."""
    found = scalar_value(value, dtype)
    return nearest(found, dtype) if dtype.itemsize == 2 and dtype.kind == "f" else found  # type: ignore[arg-type]


def out_of_range(value: Any, dtype: DType) -> RangeError:
    """The refusal of a number that an integer dtype cannot hold."""
    low, high = INTEGER_RANGE[dtype.name]
    return RangeError(
        f"{shown(value)} is out of range for {dtype}, [{low}, {high}]; use a wider dtype, or cast with astype()"
    )


def _prepared(
    function: Function, operands: Sequence[Operand], dtype: DType | None, summed: bool = False
) -> tuple[Expression, list[Array], list[Scalar]]:
    arrays: list[Array] = []
    common: DType | None = None
    for operand in operands:
        if isinstance(operand, Array):
            arrays.append(operand)
            own = operand.storage.dtype
            common = own if common is None else promote(common, own)
    if common is None:
        raise DTypeError(f"at least one operand must be an array, got {', '.join(map(repr, operands))}")
    if len(arrays) == len(operands):
        signature: tuple[Any, ...] = tuple([array.storage.dtype for array in arrays])
        return _expression(function, signature, dtype, common, summed), arrays, []
    kinds: list[Any] = []
    numbers: list[tuple[Any, DType]] = []
    result = common
    for operand in operands:
        if isinstance(operand, Array):
            kinds.append(operand.storage.dtype)
        elif isinstance(operand, bool | int | float | complex):
            own = promote_scalar(common, operand)
            if own.kind == "c" and not isinstance(operand, complex):
                own = own.part  # beside complex numbers a real one stays real
            result = promote(result, own)
            kinds.append(_scalar_of(own.compute))
            numbers.append((operand, own))
        else:
            raise DTypeError(f"operands must be arrays or Python numbers, got {type(operand).__name__}; use asarray()")
    scalars = [scalar_value(number, own) for number, own in numbers]
    return _expression(function, tuple(kinds), dtype, result, summed), arrays, scalars


def broadcast_view(x: Array, shape: tuple[int, ...]) -> View:
    """Where ``x`` lies when it is repeated to ``shape``, as its ``view()``: extents that repeat get stride 0."""
    storage = x.storage
    if storage.pending is not None:
        storage.pending.apply()
    strides = x.strides
    if x.shape != shape:
        lead = len(shape) - len(x.shape)
        strides = (0,) * lead + tuple(
            [0 if extent == 1 else stride for extent, stride in zip(x.shape, strides, strict=True)]
        )
    return View(storage.buffer, storage.offset + x.offset, shape, strides)


def can_write_to(out: A | None, shape: tuple[int, ...], dtype: DType) -> TypeGuard[A]:
    """Whether ``out`` can take a result of this shape and dtype."""
    return out is not None and out.shape == shape and out.storage.dtype is dtype


@overload
def map_arrays(
    function: Function, first: A, /, *others: Operand, dtype: DType | None = None, out: A | None = None
) -> A: ...
@overload
def map_arrays(
    function: Function, first: Scalar, second: A, /, *others: Operand, dtype: DType | None = None, out: A | None = None
) -> A: ...
@overload
def map_arrays(
    function: Function, /, *operands: Operand, dtype: DType | None = None, out: Array | None = None
) -> Array: ...
def map_arrays(
    function: Function, /, *operands: Operand, dtype: DType | None = None, out: Array | None = None
) -> Array:
    """``function``, traced over the operands, element by element in one launch. Not recorded.

    The result is a new array of the first array's class, or ``out`` if it has the result's shape and dtype; so for
    ``reduce_arrays`` and ``sum_to_shape``.
    """
    expression, arrays, scalars = _prepared(function, operands, dtype)
    first = arrays[0]
    backend = first.storage.backend
    if len(arrays) == 1:
        shape = first.shape
    else:
        common_backend(arrays)
        shape = broadcast_shapes(*[array.shape for array in arrays])
    if not can_write_to(out, shape, expression.stored[0]):
        out = first.empty_like(shape, expression.stored[0])
    if out.storage.size:
        backend.map(expression, [broadcast_view(x, shape) for x in arrays], [out.view()], scalars)
    return out


def map_into(out: Array, function: Function, *operands: Operand) -> None:
    """``out`` ← ``function`` of the operands, which broadcast to its shape. Not recorded."""
    expression, arrays, scalars = _prepared(function, operands, out.storage.dtype)
    common_backend([out, *arrays])
    if out.size:
        views = [broadcast_view(x, out.shape) for x in arrays]
        out.storage.backend.map(expression, views, [out.view()], scalars)


def map_in_place(x: Array, function: Function, *operands: Operand) -> None:
    """``x`` ← ``function(x, *operands)``, refused where that would need another shape or dtype. Not recorded."""
    expression, arrays, scalars = _prepared(function, (x, *operands), None)
    common_backend(arrays)
    check_in_place(x, broadcast_shapes(*[array.shape for array in arrays]), expression.stored[0])
    if x.size:
        views = [broadcast_view(array, x.shape) for array in arrays]
        x.storage.backend.map(expression, views, [x.view()], scalars)


def check_in_place(x: Array, shape: tuple[int, ...], dtype: DType) -> None:
    """Refuse to write a result of this shape and dtype over ``x``."""
    if shape != x.shape:
        raise ShapeError(
            f"an operation in place on shape {x.shape} would have the shape {shape}; write it out of place"
        )
    if dtype is not x.dtype:
        raise DTypeError(
            f"an operation in place on {x.dtype} would need {dtype}; write it out of place or use astype()"
        )


@overload
def reduce_arrays(
    op: str,
    function: Function,
    first: A,
    /,
    *others: Operand,
    axes: tuple[int, ...],
    dtype: DType | None = None,
    keepdims: bool = False,
    out: A | None = None,
) -> A: ...
@overload
def reduce_arrays(
    op: str,
    function: Function,
    first: Scalar,
    second: A,
    /,
    *others: Operand,
    axes: tuple[int, ...],
    dtype: DType | None = None,
    keepdims: bool = False,
    out: A | None = None,
) -> A: ...
def reduce_arrays(
    op: str,
    function: Function,
    /,
    *operands: Operand,
    axes: tuple[int, ...],
    dtype: DType | None = None,
    keepdims: bool = False,
    out: Array | None = None,
) -> Array:
    """The reduction ``op`` over sorted ``axes`` of ``function``, in one launch. Not recorded."""
    if not axes:
        return map_arrays(function, *operands, dtype=dtype, out=out)
    expression, arrays, scalars = _prepared(function, operands, dtype, summed=True)
    common_backend(arrays)
    shape = broadcast_shapes(*[array.shape for array in arrays])
    left = tuple([extent for axis, extent in enumerate(shape) if axis not in axes])
    if not can_write_to(out, left, expression.stored[0]):
        out = arrays[0].empty_like(left, expression.stored[0])
    if out.storage.size:
        views = [broadcast_view(x, shape) for x in arrays]
        out.storage.backend.reduce(op, expression, views, axes, out.view(), scalars)
    if keepdims:
        kept = tuple([1 if axis in axes else extent for axis, extent in enumerate(shape)])
        return out.restride(kept, contiguous_strides(kept), 0)
    return out


def identity(x: Any) -> Any:
    """Its argument: the expression of a copy, a cast and a broadcast."""
    return x


def sum_to_shape(x: Array, function: Function, g: A, *operands: Operand, out: A | None = None) -> A:
    """The gradient of ``x``: ``function(g, *operands)`` summed over the axes along which ``x`` was repeated.

    ``g`` has the shape to which the operands broadcast. One launch.
    """
    if x.shape == g.shape:
        if function is identity and x.dtype is g.dtype:
            return g
        return map_arrays(function, g, *operands, dtype=x.dtype, out=out)
    lead = g.ndim - x.ndim
    axes = tuple(range(lead)) + tuple(
        [axis for axis in range(lead, g.ndim) if x.shape[axis - lead] == 1 and g.shape[axis] != 1]
    )
    if can_write_to(out, x.shape, x.dtype) and x.ndim == g.ndim - len(axes):
        return reduce_arrays("sum", function, g, *operands, axes=axes, dtype=x.dtype, out=out)
    total = reduce_arrays("sum", function, g, *operands, axes=axes, dtype=x.dtype)
    return total.restride(x.shape, contiguous_strides(x.shape), 0)


def contiguous(x: A) -> A:
    """``x`` itself if it is one row-major run of memory, else a copy. Not recorded."""
    return x if x.is_contiguous else map_arrays(identity, x)


def zeros_for(x: A, shape: tuple[int, ...] | None = None, dtype: DType | None = None) -> A:
    """Zeros on the device of ``x``, by default of its shape and dtype."""
    out = x.empty_like(shape, dtype)
    if out.storage.size:
        out.storage.backend.fill(out.span(), 0)
    return out


class Derivative:
    """An elementwise derivative: a function over nodes whose parameters name what it needs.

    ``g`` is the gradient of the output, ``y`` the output, and ``x`` or ``x1``, ``x2``, ``x3`` the operands. Of complex
    outputs the function gets the conjugate of the gradient, and what it returns is conjugated: so g · f'(x) becomes
    g · conj(f'(x)), which is the gradient where f has a complex derivative.
    """

    __slots__ = ("function", "positions")

    def __init__(self, function: Function) -> None:
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        if names[0] != "g":
            raise TypeError(f"the first parameter of a derivative is g, got {names[0]}")
        self.function = function
        self.positions = tuple({"y": -1, "x": 0, "x1": 0, "x2": 1, "x3": 2}[name] for name in names[1:])


def record_elementwise(
    out: Array, operands: Sequence[Operand], derivatives: Sequence[Derivative | None], name: str
) -> None:
    """Give the tape the derivative for each operand that is an array, with only the arrays that it needs."""
    if not tape.is_recording() or out.storage.dtype.kind not in "fc":
        return
    entries: list[tuple[Array, tape.VJP]] = []
    for x, derivative in zip(operands, derivatives, strict=True):
        if derivative is not None and isinstance(x, Array):
            saved = [out if position < 0 else operands[position] for position in derivative.positions]
            function = derivative.function if out.storage.dtype.kind == "f" else _conjugated(derivative.function)
            entries.append((x, tape.VJPWithOut(partial(_chain, x, function, saved))))
    tape.record(out, *entries, name=name)


@cache
def _conjugated(function: Function) -> Function:
    return lambda g, *saved: ex.conj(function(ex.conj(g), *saved))


def _chain(x: Array, function: Function, saved: Sequence[Operand], g: A, out: A | None) -> A:
    return sum_to_shape(x, function, g, *saved, out=out)
