"""How an array library holds buffers: views, element writes, storage dtypes and operators.

:class:`Namespace` keeps to the Array API standard; NumPy and torch have cheaper ways, which stand in a class each. The
rest of the reference backend knows none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from netcl.backends.reference.special import erf
from netcl.dtypes import BY_NAME, DType, bfloat16, bool_, float16, float64, uint16, uint32, uint64
from netcl.errors import DeviceMemoryError, DTypeError
from netcl.host_dtypes import STORAGE, values_of
from netcl.rounding import bfloat16_bits, odd_float32
from netcl.strides import contiguous_strides

Shape = tuple[int, ...]
Function = Callable[..., Any]

# On integers these change nothing.
ROUNDING = ("floor", "ceil", "trunc", "round")

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
    in_place : bool
        Whether views alias their buffer for reading and writing and functions take the output as the last argument.
    """

    in_place = False

    def __init__(self, xp: Any, place: Any = None) -> None:
        self.xp = xp
        self.place = place
        self._host = None if place is None else _host_of(xp)

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
        return self.xp.asarray(_python_number(value, dtype), dtype=self.native(dtype), device=self.place)

    def from_host(self, host: Any, dtype: DType) -> Any:
        """Elements as they travel, as an array on this namespace's device."""
        return self._placed(self.xp.asarray(np.array(host), dtype=self.native(dtype)))

    def to_host(self, x: Any) -> Any:
        """The elements of an array as they travel. **Blocks** where they are on another device."""
        return np.array(np.from_dlpack(self._on_host(x)))

    def _placed(self, x: Any) -> Any:
        return x if self.place is None else array_api_compat.to_device(x, self.place)

    def _on_host(self, x: Any) -> Any:
        return x if self.place is None else array_api_compat.to_device(x, self._host)

    def read(self, buffer: Any, offset: int, shape: Shape, strides: Shape) -> Any:
        """The elements of a view; a copy where the namespace has no view of that kind."""
        n = math.prod(shape)
        if strides == contiguous_strides(shape):
            return self.xp.reshape(buffer[offset : offset + n], shape)
        index = self.xp.asarray(offset, dtype=self.xp.int64, device=self.place)
        for extent, stride in zip(shape, strides, strict=True):
            index = index[..., None] + self.xp.arange(extent, dtype=self.xp.int64, device=self.place) * stride
        return self.xp.reshape(self.xp.take(buffer, self.xp.reshape(index, (-1,)), axis=0), shape)

    def write(self, buffer: Any, offset: int, shape: Shape, strides: Shape, value: Any) -> None:
        """Set the elements of a view to ``value``, which broadcasts and is rounded to the buffer's dtype."""
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
        function = self._operator(op, dtype, operand)
        return lambda *args: function(*args[:-1])

    def _operator(self, op: str, dtype: DType, operand: DType) -> Function:
        xp = self.xp
        if op == "cast":
            target = self.native(dtype)
            if operand.kind == "c" and dtype.kind != "c":
                return lambda x: xp.astype(xp.real(x), target)
            return lambda x: xp.astype(x, target)
        if op == "narrow":
            return lambda x: self._placed(xp.asarray(odd_float32(self.to_host(x))))
        if op.startswith("round_"):
            short = self.native(BY_NAME[op.removeprefix("round_")])
            return lambda x: xp.astype(xp.astype(x, short), x.dtype)
        if op == "rsqrt":
            return lambda x: 1.0 / xp.sqrt(x)
        if op == "reciprocal":
            return lambda x: 1.0 / x
        if op == "erf" and not hasattr(xp, "erf"):
            wide, narrow = self.native(float64), self.native(dtype)
            return lambda x: xp.astype(erf(xp, xp.astype(x, wide)), narrow)
        function: Function = getattr(xp, _ON_BOOLS.get(op, op) if operand is bool_ else op)
        return function

    def is_elementwise(self, op: str) -> bool:
        """Whether the output of ``op`` may be one of its operands."""
        return False

    def reduction(self, op: str) -> Function:
        """The function (x, axis, [dtype]) of reduction ``op``."""
        function: Function = getattr(self.xp, op)
        return function

    def take_along_axis(self, x: Any, indices: Any) -> Any:
        """x[o, indices[o, c, i], i]."""
        return self.xp.take_along_axis(x, indices, axis=1)

    def scatter_add(self, out: Any, indices: Any, updates: Any) -> Any:
        """``out`` with updates[o, c, i] added at [o, indices[o, c, i], i], in the order of c."""
        # The standard has no scatter, so the host does it.
        host = _add_at(self.to_host(out), self.to_host(indices), self.to_host(updates))
        return self._placed(self.xp.asarray(host, dtype=out.dtype))


class NumpyNamespace(Namespace):
    """NumPy: views of any strides, ufuncs with ``out``, and bfloat16 held as the uint16 of its bits."""

    in_place = True

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
        return STORAGE[dtype].type(_python_number(value, dtype))

    def from_host(self, host: Any, dtype: DType) -> Any:
        return np.asarray(host)

    def to_host(self, x: Any) -> Any:
        return np.array(x)

    def read(self, buffer: Any, offset: int, shape: Shape, strides: Shape) -> Any:
        if 0 in shape:
            return np.empty(shape, buffer.dtype)
        if strides == (1,):
            return buffer[offset : offset + shape[0]]
        item = buffer.itemsize
        return np.ndarray(shape, buffer.dtype, buffer, offset * item, [stride * item for stride in strides])

    def widen(self, x: Any, dtype: DType) -> Any:
        if dtype is float16:
            return x.astype(np.float32)
        return _from_bfloat16(x, None) if dtype is bfloat16 else x

    def load(self, dtype: DType) -> Function | None:
        if dtype is float16:
            return _cast_to(np.dtype(np.float32))
        return _from_bfloat16 if dtype is bfloat16 else None

    def store(self, dtype: DType) -> Function:
        """A function (out, value) that rounds ``value`` to storage of ``dtype``."""
        return _to_bfloat16 if dtype is bfloat16 else _copy

    def _operator(self, op: str, dtype: DType, operand: DType) -> Function:
        raise NotImplementedError

    def operator(self, op: str, dtype: DType, operand: DType) -> Function:
        if op == "cast":
            if operand.kind == "c" and dtype.kind != "c":
                return lambda x, out: x.real.astype(STORAGE[dtype])
            return _cast_to(STORAGE[dtype])
        if op in ("maximum", "minimum"):  # these two deprecate a positional output
            extremum = getattr(np, op)
            return lambda x, y, out: extremum(x, y, out=out)
        if op == "sign" and dtype.kind == "c":  # NumPy 1 has another idea of it
            return lambda x, out: self.xp.sign(x)
        special: dict[str, Function] = {
            "where": _where, "rsqrt": _rsqrt, "round": np.rint, "erf": _erf,
            "narrow": _narrow, "round_float16": _round_float16, "round_bfloat16": _round_bfloat16,
        }  # fmt: skip
        function: Function = special.get(op) or getattr(np, op, None) or getattr(self.xp, op)
        return function

    def is_elementwise(self, op: str) -> bool:
        return op not in ("cast", "narrow", "erf", "round_float16", "round_bfloat16")

    def reduction(self, op: str) -> Function:
        return _REDUCTIONS[op]

    def scatter_add(self, out: Any, indices: Any, updates: Any) -> Any:
        return _add_at(out, indices, updates)


class TorchNamespace(Namespace):
    """torch: strided views that are not negative, and bfloat16 of its own."""

    def supports(self, dtype: DType) -> bool:
        # torch stores the wider unsigned integers but has next to no arithmetic on them.
        return dtype not in (uint16, uint32, uint64)

    def from_host(self, host: Any, dtype: DType) -> Any:
        if dtype is bfloat16:
            return self._placed(self.xp.asarray(np.array(host).view(np.int16)).view(self.native(bfloat16)))
        return super().from_host(host, dtype)

    def to_host(self, x: Any) -> Any:
        x = self._on_host(x)
        if x.dtype == self.xp.bfloat16:
            return np.array(x.contiguous().view(self.xp.int16).numpy()).view(np.uint16)
        return np.array(x.numpy())

    def read(self, buffer: Any, offset: int, shape: Shape, strides: Shape) -> Any:
        view, backwards = _positive(buffer, offset, shape, strides)
        return view.flip(backwards) if backwards else view

    def write(self, buffer: Any, offset: int, shape: Shape, strides: Shape, value: Any) -> None:
        view, backwards = _positive(buffer, offset, shape, strides)
        value = value.expand(shape)
        view.copy_(value.flip(backwards) if backwards else value)


def _positive(buffer: Any, offset: int, shape: Shape, strides: Shape) -> tuple[Any, list[int]]:
    """A torch view of the same elements with no negative stride, and the axes along which it runs backwards."""
    if 0 in shape:
        return buffer[:0].reshape(shape), []
    backwards = [axis for axis, stride in enumerate(strides) if stride < 0]
    offset += sum((shape[axis] - 1) * strides[axis] for axis in backwards)
    return buffer.as_strided(shape, [abs(stride) for stride in strides], offset), backwards


def _host_of(xp: Any) -> Any:
    """What a namespace calls the host among its devices; ``"cpu"`` where it does not list it."""
    info = getattr(xp, "__array_namespace_info__", None)
    listed = () if info is None else info().devices()
    return next((device for device in listed if "cpu" in str(device).lower()), "cpu")


def find_namespace(module: Any, place: Any = None) -> Namespace:
    """The :class:`Namespace` over an array library such as ``torch``, on its device ``place``; None means NumPy."""
    xp = array_api_compat.array_namespace((np if module is None else module).empty((0,)))
    if array_api_compat.is_numpy_namespace(xp):
        return NumpyNamespace(xp)
    if array_api_compat.is_torch_namespace(xp):
        return TorchNamespace(xp, place)
    return Namespace(xp, place)


def _python_number(value: Any, dtype: DType) -> Any:
    if dtype is bool_:
        return bool(value)
    if dtype.kind in "iu":
        return int(value)
    return float(value) if dtype.kind == "f" else complex(value)


@cache
def _cast_to(dtype: np.dtype[Any]) -> Function:
    def cast(x: Any, out: Any) -> Any:
        if out is None:
            return x.astype(dtype)
        np.copyto(out, x, casting="unsafe")
        return out

    return cast


def _copy(out: Any, value: Any) -> None:
    np.copyto(out, value, casting="unsafe")


def _from_bfloat16(x: Any, out: Any) -> Any:
    if out is None:
        return values_of(x, bfloat16)
    np.left_shift(x, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
    return out


def _to_bfloat16(out: Any, value: Any) -> None:
    np.copyto(out, bfloat16_bits(np.asarray(value)), casting="unsafe")


def _narrow(x: Any, out: Any) -> Any:
    return _cast_to(np.dtype(np.float32))(odd_float32(np.asarray(x)), out)


def _round_float16(x: Any, out: Any) -> Any:
    return _cast_to(np.dtype(np.float32))(x.astype(np.float16), out)


def _round_bfloat16(x: Any, out: Any) -> Any:
    bits = np.empty(x.shape, np.uint16)
    _to_bfloat16(bits, x)
    return _from_bfloat16(bits, out)


_REDUCTIONS: dict[str, Function] = {
    "sum": np.add.reduce,
    "prod": np.multiply.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "any": np.logical_or.reduce,
    "all": np.logical_and.reduce,
}

_WORDS: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def _where(condition: Any, x1: Any, x2: Any, out: Any) -> Any:
    words = None if out is None else _WORDS.get(out.itemsize)
    if words is None:
        value = np.where(condition, x1, x2)
        if out is None:
            return value
        np.copyto(out, value)
        return out
    # Chosen by bits, x2 ^ ((x1 ^ x2) & mask), which takes a quarter of the time of a copy under a mask.
    mask = np.negative(condition.view(np.int8), dtype=words)
    first, second = x1.view(words), x2.view(words)
    if not second.ndim and second == 0:
        np.bitwise_and(first, mask, out=out.view(words))
    else:
        mask &= first ^ second
        np.bitwise_xor(mask, second, out=out.view(words))
    return out


def _rsqrt(x: Any, out: Any) -> Any:
    root = np.sqrt(x, out)
    return np.divide(root.dtype.type(1), root, out)


def _erf(x: Any, out: Any) -> Any:
    x = np.asarray(x)
    return erf(np, x.astype(np.float64)).astype(x.dtype)


def _add_at(out: Any, indices: Any, updates: Any) -> Any:
    """``out`` with updates[o, c, i] added at [o, indices[o, c, i], i], in the order of c; NumPy arrays."""
    outer, middle, inner = out.shape
    places = (np.arange(outer)[:, None, None] * middle + indices) * inner + np.arange(inner)
    flat = np.ascontiguousarray(out).reshape(-1)
    np.add.at(flat, places.reshape(-1), updates.reshape(-1))  # ten times as fast as on three axes
    return flat.reshape(out.shape)
