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


class Relocations:
    """Counts how often any storage moved, so that whoever keeps addresses can tell that they are still right."""

    count = 0


relocations = Relocations()


class Clock:
    """Counts writes in place that reach many storages at once: the steps of an optimizer."""

    __slots__ = ("ticks",)

    def __init__(self) -> None:
        self.ticks = 0


STANDING = Clock()
"""The clock of storages that nobody updates together with others. It never ticks."""


class Storage:
    """A run of ``size`` elements on one device, starting at element ``offset`` of a buffer.

    ``fixed`` says that it must stay where it is: the memory is somebody else's.
    """

    __slots__ = ("_writes", "backend", "buffer", "clock", "dtype", "fixed", "offset", "size", "__weakref__")

    def __init__(self, backend: Backend, buffer: Buffer, offset: int, size: int) -> None:
        self.backend = backend
        self.buffer = buffer
        self.offset = offset
        self.size = size
        self.dtype = buffer.dtype
        self.fixed = False
        self.clock = STANDING
        self._writes = 0

    @property
    def version(self) -> int:
        """Counts the writes in place that the tape must notice."""
        return self._writes + self.clock.ticks

    @version.setter
    def version(self, version: int) -> None:
        self._writes = version - self.clock.ticks

    def follow(self, clock: Clock) -> None:
        """Count the ticks of this clock as writes from now on."""
        self._writes += self.clock.ticks - clock.ticks
        self.clock = clock

    @classmethod
    def empty(cls, backend: Backend, size: int, dtype: DType) -> Storage:
        return cls(backend, backend.alloc(size, dtype), 0, size)

    def span(self) -> Span:
        return Span(self.buffer, self.offset, self.size)

    def move(self, buffer: Buffer, offset: int) -> None:
        """Copy the contents to ``buffer`` at ``offset`` and live there from now on. Enqueues; does not block."""
        target = Span(buffer, offset, self.size)
        self.backend.map(conversion(self.dtype, self.dtype), (self.span().view(),), (target.view(),))
        self.buffer, self.offset = buffer, offset
        relocations.count += 1


class Deferred(Protocol):
    """Work on a storage that is put off until somebody looks at its contents."""

    def settle(self) -> None:
        """Do it now, if it is still to be done. Enqueues; does not block."""
        ...


class DeferredStorage(Storage):
    """A storage whose contents are settled whenever its buffer is asked for.

    So a factor on the gradients can wait for the optimizer's step, which folds it into its own pass, and everybody else
    reads gradients that carry it.
    """

    __slots__ = ("deferred", "_settled")

    def __init__(self, backend: Backend, buffer: Buffer, offset: int, size: int, deferred: Deferred) -> None:
        self.deferred = deferred
        super().__init__(backend, buffer, offset, size)

    @property
    def buffer(self) -> Buffer:
        """The buffer, with its contents as they are meant to be."""
        self.deferred.settle()
        return self._settled

    @buffer.setter
    def buffer(self, buffer: Buffer) -> None:
        self._settled = buffer

    def lies_at(self, buffer: Buffer, offset: int) -> bool:
        """Whether it starts there. Settles nothing."""
        return self._settled is buffer and self.offset == offset


class Settled:
    """What a storage that waits for nothing is deferred by."""

    __slots__ = ()

    def settle(self) -> None:
        """Nothing is put off."""


SETTLED = Settled()


class GradientHome(Protocol):
    """Where the gradient of one array belongs: a piece of an optimizer's gradient arena."""

    @property
    def array(self) -> Any:
        """The Array there, whatever it holds and whoever sees it."""
        ...

    def claim(self) -> Any:
        """The Array there, for a new gradient to be written into: nobody sees it but the home itself.

        What somebody still sees has moved to memory of its own. Not to be called while it is the array's ``grad``.
        """
        ...


class GradientWatcher(Protocol):
    """What is told of gradients while a tape walks back: the all-reduce of data-parallel training."""

    def gradient_ready(self, leaf: Array) -> None:
        """``leaf.grad`` is what this walk makes of it; the work is enqueued and perhaps not done."""
        ...

    def walk_done(self) -> None:
        """The walk is over. Called once, if it reached any array that names this watcher."""
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
    grad_home : GradientHome or None
        Where ``backward`` is to write a new gradient; an optimizer sets it to a piece of its gradient arena.
    grad_watcher : GradientWatcher or None
        Who is told when ``backward`` has made the gradient.
    node : object or None
        What the tape recorded as the origin of this array.
    """

    __slots__ = (
        "storage", "shape", "strides", "offset", "requires_grad", "gradient", "grad_home", "grad_watcher", "node",
        "__weakref__",
    )  # fmt: skip

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool
    gradient: Self | None
    grad_home: GradientHome | None
    grad_watcher: GradientWatcher | None
    node: Any

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0
    ) -> None:
        self.storage = storage
        self.shape = shape
        self.strides = contiguous_strides(shape) if strides is None else strides
        self.offset = offset
        self.requires_grad = False
        self.gradient = None
        self.grad_home = None
        self.grad_watcher = None
        self.node = None

    @property
    def grad(self) -> Self | None:
        """The gradient, added to by each ``backward``; None until there is one.

        It may be set to None, or to a floating-point Tensor of the same shape on the same device.

        Raises
        ------
        ArgumentError
            If what is assigned is no Tensor, or the array itself.
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
        relocations.count += 1

    def view(self) -> View:
        """Where this array is now, for the backend."""
        storage = self.storage
        return View(storage.buffer, storage.offset + self.offset, self.shape, self.strides)

    def span(self) -> Span:
        """The elements of a contiguous array as a flat run.

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
        return Span(self.storage.buffer, self.storage.offset + self.offset, self.size)

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
    if not gradient.dtype.is_floating:
        raise DTypeError(
            f"a gradient must be of a floating dtype, got {gradient.dtype}, which cannot hold what backward() adds; "
            f"convert it with astype({str(x.dtype)!r})"
        )
