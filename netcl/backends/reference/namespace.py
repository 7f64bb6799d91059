"""How an array library holds buffers: views, element writes, storage dtypes and operators.

:class:`Namespace` keeps to the Array API standard; NumPy and torch have cheaper ways, which stand in a class each. The
rest of the reference backend knows none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from netcl.backends.base import HostArray, Span, View
from netcl.backends.reference.buffers import python_number
from netcl.backends.reference.numpy_namespace import NumpyNamespace
from netcl.backends.reference.numpy_operators import join_parts
from netcl.backends.reference.ordering import StandardOrdering
from netcl.backends.reference.program import Program, ValueProgram
from netcl.backends.reference.special import add_at, erf
from netcl.complex_functions import FUNCTIONS
from netcl.dtypes import BY_NAME, DType, bfloat16, bool_, float32, float64, int16, uint16, uint32, uint64
from netcl.errors import DTypeError
from netcl.expression import Expression
from netcl.rounding import odd_float32, stochastic
from netcl.strides import contiguous_strides

Shape = tuple[int, ...]
Function = Callable[..., Any]

# On complex numbers these are the same in every library, as they are exact or plain sums and products of the parts.
EXACT = frozenset({
    "add", "subtract", "negative", "positive", "equal", "not_equal", "isnan", "isinf", "isfinite", "where", "real",
    "imag", "conj", "complex",
})  # fmt: skip

# The standard has no arithmetic on bools; these are NumPy's meanings.
_ON_BOOLS = {"multiply": "logical_and", "add": "logical_or", "maximum": "logical_or", "minimum": "logical_and"}


class Namespace:
    """A namespace of the Array API standard, with nothing beyond the standard used.

    Attributes
    ----------
    xp : module
        The namespace.
    place : optional
        The namespace's device for arrays; None for its default.
    shares_host_memory : bool
        Whether its arrays are the host's own.
    unlike_the_standard : frozenset of str
        Operators whose results for complex numbers may be other than the standard's, or inexact.
    """

    shares_host_memory = False
    unlike_the_standard = frozenset(FUNCTIONS) - EXACT

    def __init__(self, xp: Any, place: Any = None) -> None:
        self.xp = xp
        self.place = place
        self._host = None if place is None else _host_of(xp)
        self.ordering = StandardOrdering(self)

    def native(self, dtype: DType) -> Any:
        """The namespace's own dtype for elements of ``dtype``."""
        native = getattr(self.xp, dtype.name, None)
        if native is None:
            raise DTypeError(f"{self.xp.__name__} has no dtype {dtype}; choose one that it has, such as float32")
        return native

    def supports(self, dtype: DType) -> bool:
        return getattr(self.xp, dtype.name, None) is not None

    def empty(self, n: int, dtype: DType) -> Any:
        return self.xp.empty((n,), dtype=self.native(dtype), device=self.place)

    def scalar(self, value: Any, dtype: DType) -> Any:
        """``value`` as one element of ``dtype``, which is a compute dtype."""
        return self.xp.asarray(python_number(value, dtype), dtype=self.native(dtype), device=self.place)

    def from_host(self, host: Any, dtype: DType) -> Any:
        """Elements as they travel, as an array on this namespace's device."""
        return _moved(self.xp.asarray(np.array(host), dtype=self.native(dtype)), self.place)

    def to_host(self, x: Any) -> Any:
        """The elements of an array as they travel. **Blocks** where they are on another device."""
        return np.array(np.from_dlpack(_moved(x, self._host)))

    def map_host(self, x: Any) -> HostArray:
        """The elements of a flat array for the host to work on: the memory itself where it is the host's."""
        return self.to_host(x)

    def unmap_host(self, host: HostArray, x: Span) -> None:
        """Take over what the host wrote to the elements that ``map_host`` gave."""
        self.write(x.view(), self.from_host(host, x.dtype))

    def read(self, x: View) -> Any:
        """The stored elements of a view; a copy where the namespace has no view of that kind."""
        buffer, offset, shape, strides = _placed(x)
        n = math.prod(shape)
        if strides == contiguous_strides(shape):
            return self.xp.reshape(buffer[offset : offset + n], shape)
        index = self.xp.asarray(offset, dtype=self.xp.int64, device=self.place)
        for extent, stride in zip(shape, strides, strict=True):
            index = index[..., None] + self.xp.arange(extent, dtype=self.xp.int64, device=self.place) * stride
        return self.xp.reshape(self.xp.take(buffer, self.xp.reshape(index, (-1,)), axis=0), shape)

    def write(self, x: View, value: Any) -> None:
        """Set the elements of a view to ``value``, which broadcasts and is rounded to the buffer's dtype."""
        buffer, offset, shape, strides = _placed(x)
        value = self.xp.broadcast_to(self.xp.astype(value, buffer.dtype), shape)
        self._write(buffer, offset, shape, strides, value)

    def _write(self, buffer: Any, offset: int, shape: Shape, strides: Shape, value: Any) -> None:
        n = math.prod(shape)
        if n == 0:
            return
        if strides == contiguous_strides(shape):
            buffer[offset : offset + n] = self.xp.reshape(value, (-1,))
            return
        for i in range(shape[0]):
            self._write(buffer, offset + i * strides[0], shape[1:], strides[1:], value[i, ...])

    def widen(self, x: Any, dtype: DType) -> Any:
        """Stored elements of ``dtype`` in its compute dtype."""
        return x if dtype.compute is dtype else self.xp.astype(x, self.native(dtype.compute))

    def load(self, dtype: DType) -> Function | None:
        """A function (stored, out) that widens, or None where stored elements are computed with as they are."""
        if dtype.compute is dtype:
            return None
        return lambda x, out: self.widen(x, dtype)

    def operator(self, op: str, dtype: DType, operand: DType) -> Function:
        """The function of operator ``op`` from ``operand`` to ``dtype``; its last argument is the output or None."""
        function = _operator(self, op, dtype, operand)
        return lambda *args: function(*args[:-1])

    def compile(self, expression: Expression, aliases: Sequence[int] | None = None) -> Program:
        """The program of an expression; ``aliases`` says which input each output is, if it is none but that one."""
        return ValueProgram(expression, self)

    def reduction(self, op: str) -> Function:
        """The function (x, axis, [dtype]) of reduction ``op``."""
        function: Function = getattr(self.xp, op)
        return function

    def arg_reduce(self, op: str, x: Any, axis: int) -> Any:
        """The index of the first extremum along an axis, or of the first NaN."""
        # The standard leaves NaN and ties open, so the first match is looked for.
        xp, extent = self.xp, x.shape[axis]
        match = x == getattr(xp, op.removeprefix("arg"))(x, axis=axis, keepdims=True)
        if xp.isdtype(x.dtype, "real floating"):
            match = match | xp.isnan(x)
        shape = tuple(extent if i == axis else 1 for i in range(len(x.shape)))
        index = xp.reshape(xp.arange(extent, dtype=xp.int64, device=self.place), shape)
        return xp.min(xp.where(match, index, index * 0 + extent), axis=axis)

    def matmul(self, a: Any, b: Any, out: View) -> None:
        """out ← a·b."""
        self.write(out, self.xp.matmul(a, b))

    def scatter_add(self, out: Any, indices: Any, updates: Any) -> Any:
        """``out`` with updates[o, c, i] added at [o, indices[o, c, i], i], in the order of c."""
        # The standard has no scatter, so the host does it.
        host = add_at(self.to_host(out), self.to_host(indices), self.to_host(updates))
        return _moved(self.xp.asarray(host, dtype=out.dtype), self.place)


class TorchNamespace(Namespace):
    """torch: strided views that are not negative, and bfloat16 of its own."""

    def supports(self, dtype: DType) -> bool:
        # torch stores the wider unsigned integers but has next to no arithmetic on them.
        return dtype not in (uint16, uint32, uint64)

    def from_host(self, host: Any, dtype: DType) -> Any:
        if dtype is bfloat16:
            return super().from_host(np.asarray(host).view(np.int16), int16).view(self.native(bfloat16))
        return super().from_host(host, dtype)

    def to_host(self, x: Any) -> Any:
        x = _moved(x, self._host)
        if x.dtype == self.xp.bfloat16:
            return np.array(x.contiguous().view(self.xp.int16).numpy()).view(np.uint16)
        return np.array(x.numpy())

    def read(self, x: View) -> Any:
        view, backwards = _positive(x)
        return view.flip(backwards) if backwards else view

    def write(self, x: View, value: Any) -> None:
        view, backwards = _positive(x)
        value = value.expand(x.shape)
        view.copy_(value.flip(backwards) if backwards else value)


AnyNamespace: TypeAlias = Namespace | NumpyNamespace
"""What the reference backend works on. Both have the same methods."""


def find_namespace(module: Any, place: Any = None) -> AnyNamespace:
    """The namespace over an array library such as ``torch``, on its device ``place``; None means NumPy.

    What is a namespace already is used as it is.
    """
    if isinstance(module, Namespace):
        return module
    xp = array_api_compat.array_namespace((np if module is None else module).empty((0,)))
    if array_api_compat.is_numpy_namespace(xp):
        return NumpyNamespace(xp)
    if array_api_compat.is_torch_namespace(xp):
        return TorchNamespace(xp, place)
    return Namespace(xp, place)


def _operator(namespace: Namespace, op: str, dtype: DType, operand: DType) -> Function:
    """The function of an operator, of operands alone."""
    xp = namespace.xp
    if op == "cast":
        target = namespace.native(dtype)
        if operand.kind == "c" and dtype is bool_:
            return lambda x: x != 0
        if operand.kind == "c" and dtype.kind != "c":
            return lambda x: xp.astype(xp.real(x), target)
        return lambda x: xp.astype(x, target)
    if op == "narrow":
        return lambda x: namespace.from_host(odd_float32(namespace.to_host(x)), float32)
    if op.startswith("round_"):
        short = namespace.native(BY_NAME[op.removeprefix("round_")])
        return lambda x: xp.astype(xp.astype(x, short), x.dtype)
    if op.startswith("stochastic_"):
        dtype = BY_NAME[op.removeprefix("stochastic_")]
        return lambda x, bits: namespace.from_host(
            stochastic(namespace.to_host(x), namespace.to_host(bits), dtype), float32
        )
    if op == "rsqrt":
        return lambda x: 1.0 / xp.sqrt(x)
    if op == "reciprocal":
        return lambda x: 1.0 / x
    if op == "complex":
        if hasattr(xp, "complex"):
            return lambda x, y: xp.complex(*xp.broadcast_arrays(x, y))
        # The standard has no way to put parts together that keeps infinities, so the host does it.
        return lambda x, y: namespace.from_host(join_parts(namespace.to_host(x), namespace.to_host(y), None), dtype)
    if op == "erf" and not hasattr(xp, "erf"):
        wide, narrow = namespace.native(float64), namespace.native(dtype)
        return lambda x: xp.astype(erf(xp, xp.astype(x, wide)), narrow)
    function: Function = getattr(xp, _ON_BOOLS.get(op, op) if operand is bool_ else op)
    return function


def _placed(x: View) -> tuple[Any, int, Shape, Shape]:
    """The array that a view lies in, and where."""
    return x.buffer.array, x.offset, x.shape, x.strides  # type: ignore[attr-defined]


def _positive(x: View) -> tuple[Any, list[int]]:
    """A torch view of the same elements with no negative stride, and the axes along which it runs backwards."""
    buffer, offset, shape, strides = _placed(x)
    if 0 in shape:
        return buffer[:0].reshape(shape), []
    backwards = [axis for axis, stride in enumerate(strides) if stride < 0]
    offset += sum((shape[axis] - 1) * strides[axis] for axis in backwards)
    return buffer.as_strided(shape, [abs(stride) for stride in strides], offset), backwards


def _moved(x: Any, place: Any) -> Any:
    return x if place is None else array_api_compat.to_device(x, place)


def _host_of(xp: Any) -> Any:
    """What a namespace calls the host among its devices; ``"cpu"`` where it does not list it."""
    info = getattr(xp, "__array_namespace_info__", None)
    listed = () if info is None else info().devices()
    return next((device for device in listed if "cpu" in str(device).lower()), "cpu")
