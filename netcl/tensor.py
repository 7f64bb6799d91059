"""Tensor: an Array with operators and the Array API's methods. What they compute stands in ``netcl.functional``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netcl import validation
from netcl.array import Array, Storage, set_requires_grad
from netcl.backends import get_backend
from netcl.backends.base import CPU_DEVICE
from netcl.dtypes import DType, as_dtype
from netcl.errors import ArgumentError, DTypeError, ShapeError
from netcl.functional import (
    assignment,
    casting,
    elementwise,
    exchange,
    host,
    linalg,
    reduction,
    shape,
    subscript,
    torch_names,
)
from netcl.functional.dispatch import identity, map_arrays

_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


def _two_integers(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ArgumentError(f"{name} must be a pair of integers, got {validation.shown(value)}")
    first, second = (validation.integer(name, each, least=0, most=2**31 - 1) for each in value)
    return first, second


def _without_out(out: object) -> None:
    if out is not None:
        raise ArgumentError(f"netcl makes new arrays: out must be None, got {validation.shown(out)}; assign to x[...]")


def _operand(value: Any) -> Any:
    """What an operator computes with, or None for what it leaves to the other operand."""
    if isinstance(value, Array | bool | int | float | complex):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        raise DTypeError("Tensors and NumPy arrays do not mix in operators; convert with netcl.asarray(x) or x.numpy()")
    return None


def _binary(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Tensor, other: Any) -> Any:
        if not isinstance(other, Array):
            other = _operand(other)
            if other is None:
                return NotImplemented
        return function(self, other)

    def reflected(self: Tensor, other: Any) -> Any:
        other = _operand(other)
        return NotImplemented if other is None else function(other, self)

    return forward, reflected


def _in_place(operation: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Tensor, other: Any) -> Any:
        other = _operand(other)
        if other is None:
            return NotImplemented
        assignment.write_result(operation, self, other)
        return self

    return operator


class Tensor(Array):
    """An array on some device: a strided view of a storage, with the fields that autograd needs.

    Make one with :func:`netcl.asarray`, :func:`netcl.zeros` and the like; the constructor takes a storage.

    Attributes
    ----------
    shape, strides : tuple of int
        Strides count elements.
    dtype : DType
    device : Device
    requires_grad : bool
        Whether ``backward`` leaves a gradient in ``grad``; only floating and complex dtypes can.
    grad : Tensor or None
        The gradient, added to by each ``backward``.

    Notes
    -----
    What gives values to the host **blocks**: ``numpy()``, ``item()``, ``tolist()``, ``float()``, ``int()``, ``bool()``,
    ``repr()``, ``format()``, ``np.asarray(x)``, DLPack, and NumPy's functions and operators of its arrays, which give
    NumPy arrays. So do subscripts with a bool Tensor, whose shape depends on values. Operators of Tensors and the other
    methods enqueue.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> (x * 2 + 1)[0].tolist()
    [3.0, 5.0]
    >>> x.T
    Tensor([[1., 3.],
            [2., 4.]], dtype=float32, device='numpy')
    """

    __slots__ = ()
    __array_priority__ = -1  # operators of NumPy's scalars are left to this class, those of its arrays are NumPy's
    __hash__ = Array.__hash__

    @property
    def requires_grad(self) -> bool:
        """Whether ``backward`` leaves a gradient in ``grad``."""
        required: bool = _requires_grad.__get__(self)
        return required

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        value = validation.flag("requires_grad", value)
        if value and self.storage.dtype.kind not in "fc":
            raise DTypeError(
                f"only floating Tensors can require a gradient, got {self.dtype}; convert it with astype(netcl.float32)"
            )
        set_requires_grad(self, value)

    @property
    def T(self) -> Self:
        """The transpose of a matrix, as a view."""
        if self.ndim != 2:
            raise ShapeError(f"T takes two axes, got shape {self.shape}; use mT or permute_dims()")
        return shape.matrix_transpose(self)

    @property
    def mT(self) -> Self:
        """The last two axes exchanged, as a view."""
        return shape.matrix_transpose(self)

    # Reading values: these block

    def numpy(self) -> NDArray[Any]:
        """The elements as a new NumPy array; bfloat16 as float32 of the same values. **Blocks**.

        Examples
        --------
        >>> import netcl
        >>> netcl.ones(2).numpy()
        array([1., 1.], dtype=float32)
        """
        return host.to_numpy(self)

    def item(self) -> Any:
        """The only element as a Python number. **Blocks**.

        Raises
        ------
        ShapeError
            If there is not exactly one element.

        Examples
        --------
        >>> import netcl
        >>> netcl.asarray([[2.5]]).item()
        2.5
        """
        if self.shape and self.size != 1:
            raise ShapeError(f"item() takes one element, got shape {self.shape}; use tolist() or numpy()")
        return host.to_number(self)

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers. **Blocks**."""
        return host.to_numpy(self).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"the truth of shape {self.shape} is ambiguous; use netcl.any() or netcl.all()")
        return bool(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.ndim:
            raise DTypeError(
                f"only a 0-dimensional integer Tensor is an index, got shape {self.shape} of {self.dtype}; use int()"
            )
        return int(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise ArgumentError("a 0-dimensional Tensor has no length; use size")
        return self.shape[0]

    def __iter__(self) -> Iterator[Self]:
        if not self.shape:
            raise ArgumentError("a 0-dimensional Tensor cannot be iterated over; use item()")
        return (self[i] for i in range(self.shape[0]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The elements as a new NumPy array, for ``np.asarray(x)`` and what calls it. **Blocks**."""
        if copy is not None and not validation.flag("copy", copy):
            raise ArgumentError("a Tensor is copied to the host: copy=False cannot be had; pass copy=None or copy=True")
        values = host.to_numpy(self)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __format__(self, specification: str) -> str:
        """One element as a Python number of that format; of more than one only the ``str``. **Blocks**."""
        if not specification:
            return str(self)
        if self.size != 1:
            raise ArgumentError(
                f"the format {specification!r} is one of a number, got shape {self.shape}; format elements one by one"
            )
        return format(self.item(), specification)

    def __round__(self, digits: int | None = None) -> Self:
        """Each element to the nearest with so many decimal digits, ties to even."""
        if digits is None or self.dtype.kind not in "fc":
            return elementwise.round(self)
        factor = 10.0 ** validation.integer("digits", digits)
        rounded: Self = elementwise.divide(elementwise.round(elementwise.multiply(self, factor)), factor)
        return rounded

    def __repr__(self) -> str:
        text = np.array2string(host.to_numpy(self), separator=", ", prefix="Tensor(", threshold=100)
        extra = f", shape={self.shape}" if self.size == 0 and self.shape != (0,) else ""
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}{extra}, dtype={self.dtype}, device={str(self.device)!r}{grad})"

    # Copies and moves

    def detach(self) -> Self:
        """A view of the same memory that the tape does not follow."""
        return self.restride(self.shape, self.strides, self.offset)

    def clone(self) -> Self:
        """A contiguous copy with memory of its own; the tape follows it."""
        return torch_names.clone(self)

    def to(self, device: Any) -> Self:
        """This Tensor on another device; itself if it is there already. **Blocks** when it moves.

        Parameters
        ----------
        device : str or Device
            Such as ``"numpy"``, ``"opencl"``, ``"opencl:gpu"``.

        Raises
        ------
        BackendError
            If there is no such device.
        DTypeError
            If the device cannot compute in this dtype.
        """
        return host.moved(self, get_backend(device))

    def to_device(self, device: Any, /, *, stream: Any = None) -> Self:
        """The standard's name of :meth:`to`; streams are not supported."""
        if stream is not None:
            raise ArgumentError(f"netcl has one queue per device: stream must be None, got {validation.shown(stream)}")
        return self.to(device)

    def astype(self, dtype: DType | str, *, copy: bool = True) -> Self:
        """The elements converted; see :func:`netcl.astype`. NumPy's functions name the ``dtype``."""
        return casting.astype(self, dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (str(self.dtype), str(self.device), self.requires_grad)
        return _restored, (type(self), host.to_host(self), *fields)

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = map_arrays(identity, self)
        memo[id(self)] = copy
        copy.requires_grad = self.requires_grad
        if self.grad is not None:
            copy.grad = map_arrays(identity, self.grad)
        return copy

    # Other libraries

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        if api_version is not None and not (isinstance(api_version, str) and api_version in _VERSIONS):
            raise ArgumentError(
                "netcl follows version 2025.12 of the Array API standard, got api_version="
                f"{validation.shown(api_version)}"
            )
        import netcl

        return netcl

    def __dlpack_device__(self) -> tuple[int, int]:
        """(1, 0): what a Tensor exports lies in host memory, whatever its device."""
        return (CPU_DEVICE, 0)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule in host memory: of the Tensor's own memory on the NumPy backend, else of a copy. **Blocks**.

        Raises
        ------
        BufferError
            If ``dl_device`` is not host memory, or ``copy=False`` and the elements are elsewhere.
        """
        copy = None if copy is None else validation.flag("copy", copy)
        if dl_device is not None and _two_integers("dl_device", dl_device)[0] != CPU_DEVICE:
            raise BufferError(f"{self.device} exports through host memory: ask for dl_device=(1, 0), or for none")
        if max_version is not None:
            max_version = _two_integers("max_version", max_version)
        if stream is not None:
            raise ArgumentError(f"host memory has no streams: stream must be None, got {validation.shown(stream)}")
        return exchange.export(self, copy, max_version)

    # Subscripts and operators

    def __getitem__(self, key: Any, /) -> Self:
        return subscript.getitem(self, key)

    def __setitem__(self, key: Any, value: Any, /) -> None:
        number = _operand(value)
        assignment.setitem(self, key, value if number is None else number)

    def __neg__(self) -> Self:
        return elementwise.negative(self)

    def __pos__(self) -> Self:
        return elementwise.positive(self)

    def __abs__(self) -> Self:
        return elementwise.abs(self)

    def __invert__(self) -> Self:
        return elementwise.bitwise_invert(self)

    def __matmul__(self, other: Any) -> Any:
        return NotImplemented if _operand(other) is None else linalg.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return NotImplemented if _operand(other) is None else linalg.matmul(other, self)

    __add__, __radd__ = _binary(elementwise.add)
    __sub__, __rsub__ = _binary(elementwise.subtract)
    __mul__, __rmul__ = _binary(elementwise.multiply)
    __truediv__, __rtruediv__ = _binary(elementwise.divide)
    __floordiv__, __rfloordiv__ = _binary(elementwise.floor_divide)
    __mod__, __rmod__ = _binary(elementwise.remainder)
    __pow__, __rpow__ = _binary(elementwise.pow)
    __and__, __rand__ = _binary(elementwise.bitwise_and)
    __or__, __ror__ = _binary(elementwise.bitwise_or)
    __xor__, __rxor__ = _binary(elementwise.bitwise_xor)
    __lshift__, __rlshift__ = _binary(elementwise.bitwise_left_shift)
    __rshift__, __rrshift__ = _binary(elementwise.bitwise_right_shift)
    __lt__, _ = _binary(elementwise.less)
    __le__, _ = _binary(elementwise.less_equal)
    __gt__, _ = _binary(elementwise.greater)
    __ge__, _ = _binary(elementwise.greater_equal)
    __eq__, _ = _binary(elementwise.equal)
    __ne__, _ = _binary(elementwise.not_equal)
    __iadd__ = _in_place(elementwise.add)
    __isub__ = _in_place(elementwise.subtract)
    __imul__ = _in_place(elementwise.multiply)
    __itruediv__ = _in_place(elementwise.divide)
    __ifloordiv__ = _in_place(elementwise.floor_divide)
    __imod__ = _in_place(elementwise.remainder)
    __ipow__ = _in_place(elementwise.pow)
    __iand__ = _in_place(elementwise.bitwise_and)
    __ior__ = _in_place(elementwise.bitwise_or)
    __ixor__ = _in_place(elementwise.bitwise_xor)
    __ilshift__ = _in_place(elementwise.bitwise_left_shift)
    __irshift__ = _in_place(elementwise.bitwise_right_shift)

    def __imatmul__(self, other: Any) -> Self:
        if _operand(other) is None:
            return NotImplemented
        assignment.write_matmul(self, other)
        return self

    del _

    # The functions that read best as methods

    def reshape(self, *extents: int | Sequence[int]) -> Self:
        """The same elements in another shape; see :func:`netcl.reshape`."""
        wanted = extents[0] if len(extents) == 1 else extents
        return shape.reshape(self, wanted)  # type: ignore[arg-type]

    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Self:
        """Axes merged into one; see :func:`netcl.functional.flatten`."""
        return torch_names.flatten(self, start_axis, end_axis)

    # NumPy's functions call these methods with out=None.

    def sum(
        self,
        axis: reduction.Axes = None,
        dtype: DType | str | None = None,
        out: None = None,
        *,
        keepdims: bool = False,
    ) -> Self:
        """The sum over axes; see :func:`netcl.sum`. ``out`` must be None."""
        _without_out(out)
        return reduction.sum(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def mean(
        self,
        axis: reduction.Axes = None,
        dtype: DType | str | None = None,
        out: None = None,
        *,
        keepdims: bool = False,
    ) -> Self:
        """The mean over axes, in another dtype if so asked; see :func:`netcl.mean`. ``out`` must be None."""
        _without_out(out)
        if dtype is not None:
            return reduction.mean(casting.astype(self, dtype, copy=False), axis=axis, keepdims=keepdims)
        return reduction.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: reduction.Axes = None, out: None = None, *, keepdims: bool = False) -> Self:
        """The largest element over axes; see :func:`netcl.max`. ``out`` must be None."""
        _without_out(out)
        return reduction.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: reduction.Axes = None, out: None = None, *, keepdims: bool = False) -> Self:
        """The smallest element over axes; see :func:`netcl.min`. ``out`` must be None."""
        _without_out(out)
        return reduction.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Self:
        """The index of the largest element along an axis; see :func:`netcl.argmax`."""
        return reduction.argmax(self, axis=axis, keepdims=keepdims)


_requires_grad: Any = Array.__dict__["requires_grad"]


def _restored(cls: type[Tensor], values: NDArray[Any], dtype: str, device: str, requires_grad: bool) -> Tensor:
    out = host.from_stored(cls, values, get_backend(device), as_dtype(dtype))
    out.requires_grad = requires_grad
    return out


def new(storage: Storage, extents: tuple[int, ...], requires_grad: bool = False) -> Tensor:
    """A contiguous Tensor over the whole of ``storage``."""
    out = Tensor(storage, extents)
    if requires_grad:
        out.requires_grad = True
    return out
