"""Memory in common with pyopencl: its arrays as Tensors and Tensors as its arrays, without a copy. Nothing blocks.

Memory belongs to an OpenCL context, and netcl has one for each device: make queues and arrays with that of
:func:`queue`. Work is done in the order in which it is enqueued on one queue; where another one is named, what is
handed over waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netcl.array import Storage
from netcl.backends import get_backend
from netcl.dtypes import DType, as_dtype
from netcl.errors import ArgumentError, BackendError, DeviceMismatchError
from netcl.functional.casting import check_supported
from netcl.functional.dispatch import check_arrays
from netcl.tensor import Tensor
from netcl.validation import extents, integer

if TYPE_CHECKING:
    from netcl.backends.opencl.device.queue import Queue

__all__ = ["from_pyopencl", "queue", "to_pyopencl"]


def _queue_of(backend: Any) -> Queue:
    if backend.device.backend != "opencl":
        raise BackendError(f"{backend.device} is no OpenCL device; name one, such as device='opencl'")
    own: Queue = backend.queue
    return own


def is_pyopencl_array(obj: object) -> bool:
    """Whether this is an array of pyopencl, which is not imported to tell."""
    return any(kind.__module__ == "pyopencl.array" for kind in type(obj).__mro__)


def queue(device: Any = "opencl") -> Any:
    """The in-order queue on which a device's work is enqueued. Does not block.

    Parameters
    ----------
    device : str or Device, default "opencl"

    Returns
    -------
    pyopencl.CommandQueue
        Its ``context`` is where memory can be shared with Tensors of the device.

    Raises
    ------
    BackendError
        If there is no such device, or it is none of OpenCL.

    Examples
    --------
    >>> import netcl
    >>> import pyopencl.array
    >>> a = pyopencl.array.zeros(netcl.opencl.queue(), 3, "float32")
    >>> netcl.asarray(a).tolist()
    [0.0, 0.0, 0.0]
    """
    return _queue_of(get_backend(device)).cl_queue


def from_pyopencl(
    source: Any,
    /,
    *,
    shape: int | Sequence[int] | None = None,
    dtype: DType | str | None = None,
    offset: int = 0,
    queue: Any = None,
) -> Tensor:
    """A Tensor in the memory of a pyopencl array or buffer. Nothing is copied; enqueues, does not block.

    Work on the Tensor comes after all that was enqueued on ``queue`` before this call. What is enqueued there later is
    not waited for: call this again. The memory stays where it is, and what keeps it is kept until netcl's work is done.

    Parameters
    ----------
    source : pyopencl.array.Array or pyopencl.Buffer
        In the context of a device of netcl's.
    shape : int or sequence of int
        Of a Buffer alone, whose elements lie in row-major order.
    dtype : DType or str
        Of a Buffer alone.
    offset : int, default 0
        Bytes before the first element; of a Buffer alone.
    queue : pyopencl.CommandQueue, optional
        Where work on the memory was enqueued. By default the array's own; None for a Buffer says that all of it is
        done, or was enqueued on netcl's queue.

    Raises
    ------
    DeviceMismatchError
        If ``source`` or ``queue`` belongs to another context.
    ArgumentError
        If ``source`` is neither, or lies in no buffer, or ``shape`` and ``dtype`` are missing or too many.
    DTypeError
        If the dtype has no counterpart, or the device cannot compute in it.
    ShapeError
        If the elements do not lie within the buffer.

    Examples
    --------
    >>> import netcl
    >>> import pyopencl.array
    >>> a = pyopencl.array.zeros(netcl.opencl.queue(), 4, "float32")
    >>> x = netcl.opencl.from_pyopencl(a)
    >>> x += 2.5
    >>> a.get().tolist()
    [2.5, 2.5, 2.5, 2.5]
    """
    from netcl.backends.opencl.device import icd

    icd.require()
    from netcl.backends.opencl.backend import backend_in
    from netcl.backends.opencl.device import sharing

    whole = shape is None and dtype is None and not offset
    if sharing.is_array(source):
        if not whole:
            raise ArgumentError(
                "a pyopencl array has a shape, dtype and offset of its own; pass them for a Buffer only"
            )
        found = sharing.of_array(source)
    else:
        if shape is None or dtype is None:
            raise ArgumentError(
                f"a {type(source).__name__} has no shape and dtype; pass both with a pyopencl.Buffer, or an Array"
            )
        start = integer("offset", offset, least=0)
        found = sharing.of_buffer(source, extents("shape", shape), as_dtype(dtype), start, None)
    backend = backend_in(found.context)
    if backend is None:
        raise DeviceMismatchError(
            f"the memory belongs to the context {sharing.shown_context(found.context)}, which is none of netcl's, and "
            "OpenCL shares none between contexts; make the array with netcl.opencl.queue(), or copy it with "
            "netcl.asarray(x.get())"
        )
    if queue is not None:
        sharing.check_queue(queue, found.context)
        found = found._replace(queue=queue)
    check_supported(backend, found.dtype)
    buffer, strides, first = sharing.adopt(backend.queue, found)
    storage = Storage(backend, buffer, 0, buffer.size)
    storage.fixed = True
    return Tensor(storage, found.shape, strides, first)


def to_pyopencl(x: Tensor, /, *, queue: Any = None) -> Any:
    """The memory of a Tensor as a pyopencl array. Nothing is copied; enqueues, does not block.

    The tape does not follow what is done with it, nor see what is written. An optimizer that is made later moves its
    parameters to memory of its own, and the array stays with the old one.

    Parameters
    ----------
    x : Tensor
        On an OpenCL device, of any strides.
    queue : pyopencl.CommandQueue, optional
        What the array's work is to be enqueued on, by default netcl's own, on which all work is in order. Another one
        waits for what was enqueued on netcl's before this call; for the way back call :func:`from_pyopencl`.

    Returns
    -------
    pyopencl.array.Array
        With ``base_data`` and ``offset``; ``data`` too where the offset is 0. The memory is kept as long as the array
        or anything that shares its buffer is.

    Raises
    ------
    BackendError
        If ``x`` is not on an OpenCL device.
    DTypeError
        Of bfloat16, which NumPy does not have.
    DeviceMismatchError
        If ``queue`` belongs to another context.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.asarray([1.0, 2.0], device="opencl")
    >>> a = netcl.opencl.to_pyopencl(x)
    >>> a[1:].set(x[:1].numpy())
    >>> x.tolist()
    [1.0, 1.0]
    """
    check_arrays("to_pyopencl", x)
    own = _queue_of(x.backend)
    from netcl.backends.opencl.device import sharing

    return sharing.export(own, x.view(), queue)
