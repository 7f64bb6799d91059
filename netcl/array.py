"""Storage and Array: which elements of which buffer an array is made of. No arithmetic.

A Storage can move (an optimizer gathers parameters into one flat buffer); every Array over it follows, because an
Array holds the Storage and never its buffer.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, Self

from netcl.backends.base import Backend, Buffer, Device, Span, View
from netcl.dtypes import DType
from netcl.errors import ArgumentError, DeviceMismatchError, DTypeError, ShapeError
from netcl.expression import conversion
from netcl.strides import contiguous_strides, is_contiguous
from netcl.validation import shown


class StorageGeneration:
    """Counts how often any storage moved, so that code that keeps addresses can tell whether they still hold."""

    count = 0


storage_generation = StorageGeneration()


class VersionCounter:
    """Counts writes in place that reach many storages at once: the steps of an optimizer."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def bump(self) -> None:
        """Count one more write."""
        self.count += 1


UNTRACKED = VersionCounter()
"""The counter of storages that nobody updates together with others. It stays at zero."""


class PendingScale(Protocol):
    """A factor on the contents of some storages that is left for an optimizer's step to fold into its own pass."""

    def apply(self) -> None:
        """Multiply the contents by it now, if it is still to be done. Enqueues; does not block."""
        ...


class Storage:
    """A run of ``size`` elements on one device, starting at element ``offset`` of a buffer.

    Attributes
    ----------
    buffer : Buffer
        Where the elements lie. What waits in ``pending`` is not in it yet: :meth:`span`, and an Array's ``view()`` and
        ``span()``, apply that first.
    fixed : bool
        Whether it must stay where it is: the memory is somebody else's.
    pending : PendingScale or None
        What the contents are still to be multiplied by.
    """

    __slots__ = (
        "_writes", "backend", "buffer", "counter", "dtype", "fixed", "offset", "pending", "size", "__weakref__",
    )  # fmt: skip

    pending: PendingScale | None

    def __init__(self, backend: Backend, buffer: Buffer, offset: int, size: int) -> None:
        self.backend = backend
        self.buffer = buffer
        self.offset = offset
        self.size = size
        self.dtype = buffer.dtype
        self.fixed = False
        self.pending = None
        self.counter = UNTRACKED
        self._writes = 0

    @property
    def version(self) -> int:
        """Counts the writes in place that the tape must notice."""
        return self._writes + self.counter.count

    @version.setter
    def version(self, version: int) -> None:
        self._writes = version - self.counter.count

    def share_version(self, counter: VersionCounter) -> None:
        """Count what this counter counts as writes from now on."""
        self._writes += self.counter.count - counter.count
        self.counter = counter

    @classmethod
    def empty(cls, backend: Backend, size: int, dtype: DType) -> Storage:
        return cls(backend, backend.alloc(size, dtype), 0, size)

    def span(self) -> Span:
        """All elements, with what is pending applied."""
        if self.pending is not None:
            self.pending.apply()
        return Span(self.buffer, self.offset, self.size)

    def move(self, buffer: Buffer, offset: int) -> None:
        """Copy the contents to ``buffer`` at ``offset`` and live there from now on, with what is pending applied.

        Enqueues; does not block.
        """
        target = Span(buffer, offset, self.size)
        self.backend.map(conversion(self.dtype, self.dtype), (self.span().view(),), (target.view(),))
        self.buffer, self.offset = buffer, offset
        storage_generation.count += 1

    def lies_at(self, buffer: Buffer, offset: int) -> bool:
        """Whether it starts there."""
        return self.buffer is buffer and self.offset == offset


class GradientBuffer(Protocol):
    """Where the gradient of one array belongs: a piece of an optimizer's gradient arena."""

    @property
    def array(self) -> Any:
        """The Array there, whatever it holds and however many refer to it."""
        ...

    @property
    def owner(self) -> Any:
        """What steps with the gradients of this arena, for as long as it lives: the optimizer's Partition, or None."""
        ...

    def claim(self) -> Any:
        """The Array there, for a new gradient to be written into: nobody sees it but this buffer itself.

        What somebody still sees has moved to memory of its own. Not to be called while it is the array's ``grad``.
        """
        ...


class GradientHook(Protocol):
    """What is told of gradients during a backward pass: the all-reduce of data-parallel training, or an optimizer."""

    @property
    def writes(self) -> bool:
        """Whether it may write to the leaf, so that it must not be told while anything still reads that."""
        ...

    def gradient_ready(self, leaf: Array) -> None:
        """``leaf.grad`` is what this backward pass makes of it; the work is enqueued and perhaps not done."""
        ...

    def backward_done(self) -> None:
        """The backward pass is over. Called once, if it reached any array with this hook."""
        ...


class Array:
    """A strided view of a storage, with the fields that autograd needs. The base of Tensor.

    Attributes
    ----------
    storage : Storage
    shape, strides : tuple of int
        Strides count elements and may be 0 (broadcast) or negative.
    offset : int
        First element, counted from the start of the storage.
    requires_grad : bool
        Whether ``backward`` leaves a gradient in ``grad``.
    grad : Array or None
        Checked when it is assigned.
    gradient : Array or None
        The same without the checks, for the tape and the optimizers, which make gradients that fit.
    grad_buffer : GradientBuffer or None
        Where ``backward`` is to write a new gradient; an optimizer sets it to a piece of its gradient arena.
    grad_hook : GradientHook or None
        What is told when ``backward`` has made the gradient.
    node : object or None
        What the tape recorded as the origin of this array.
    """

    __slots__ = (
        "storage", "shape", "strides", "offset", "requires_grad", "gradient", "grad_buffer", "grad_hook", "node",
        "__weakref__",
    )  # fmt: skip

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool
    gradient: Self | None
    grad_buffer: GradientBuffer | None
    grad_hook: GradientHook | None
    node: Any

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0
    ) -> None:
        self.storage = storage
        self.shape = shape
        self.strides = contiguous_strides(shape) if strides is None else strides
        self.offset = offset
        set_requires_grad(self, False)  # a subclass may check what is assigned
        self.gradient = None
        self.grad_buffer = None
        self.grad_hook = None
        self.node = None

    @property
    def grad(self) -> Self | None:
        """The gradient, added to by each ``backward``; None until there is one.

        It may be set to None, or to a floating-point Tensor of the same shape on the same device.

        Raises
        ------
        ArgumentError
            If what is assigned is not a Tensor, or the array itself.
        ShapeError, DeviceMismatchError, DTypeError
            If it is one of another shape, on another device, or not of real floating-point numbers.
        """
        return self.gradient

    @grad.setter
    def grad(self, value: Self | None) -> None:
        if value is not None:
            check_gradient(value, self)
        self.gradient = value

    def empty_like(self, shape: tuple[int, ...] | None = None, dtype: DType | None = None) -> Self:
        """A new contiguous array on the same device, of the same class, with unspecified contents."""
        shape = self.shape if shape is None else shape
        storage = Storage.empty(self.storage.backend, math.prod(shape), dtype or self.storage.dtype)
        return type(self)(storage, shape)

    def restride(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Self:
        """Another view of the same storage. Not recorded by the tape: use ``netcl.functional`` for that."""
        return type(self)(self.storage, shape, strides, offset)

    def relocate(self, storage: Storage) -> None:
        """Live in another storage from now on, contiguous; the caller has put the contents there."""
        self.storage = storage
        self.strides, self.offset = contiguous_strides(self.shape), 0
        storage_generation.count += 1

    def view(self) -> View:
        """Where this array is now, for the backend, with what is pending applied to its elements."""
        storage = self.storage
        if storage.pending is not None:
            storage.pending.apply()
        return View(storage.buffer, storage.offset + self.offset, self.shape, self.strides)

    def span(self) -> Span:
        """The elements of a contiguous array as a flat run, with what is pending applied to them.

        Raises
        ------
        ShapeError
            If the array is not contiguous.
        """
        if not self.is_contiguous:
            raise ShapeError(
                f"an array of shape {self.shape} and strides {self.strides} is not one run of memory; "
                "make it contiguous with netcl.asarray(x, copy=True)"
            )
        storage = self.storage
        if storage.pending is not None:
            storage.pending.apply()
        return Span(storage.buffer, storage.offset + self.offset, self.size)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return is_contiguous(self.shape, self.strides)

    @property
    def backend(self) -> Backend:
        """The backend that holds this array."""
        return self.storage.backend

    @property
    def device(self) -> Device:
        """The device that holds this array."""
        return self.storage.backend.device

    @property
    def dtype(self) -> DType:
        """The data type of the elements."""
        return self.storage.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


set_requires_grad: Any = Array.__dict__["requires_grad"].__set__
"""Sets the field ``requires_grad`` of an Array without what a subclass checks."""


def check_gradient(gradient: Any, x: Array) -> None:
    """Refuse what cannot be the gradient of ``x``."""
    if not isinstance(gradient, Array):
        raise ArgumentError(
            f"grad must be a Tensor or None, got {shown(gradient)}; convert it with netcl.asarray(g, device=x.device)"
        )
    if gradient is x:
        raise ArgumentError("an array cannot be its own gradient, which backward() adds to; give it a clone()")
    if gradient.shape != x.shape:
        raise ShapeError(f"the gradient of an array of shape {x.shape} must have that shape, got {gradient.shape}")
    if gradient.backend is not x.backend:
        raise DeviceMismatchError(
            f"the gradient of an array on {x.device} must be there too, got one on {gradient.device}; move it with to()"
        )
    if not gradient.dtype.is_floating and gradient.dtype.kind + x.dtype.kind != "cc":
        raise DTypeError(
            f"a gradient must be of a floating dtype, got {gradient.dtype}, which cannot hold what backward() adds; "
            f"convert it with astype({str(x.dtype)!r})"
        )
