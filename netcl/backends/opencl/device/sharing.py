"""Memory shared with pyopencl: its arrays and buffers as memory of netcl's, and netcl's memory as its arrays."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyopencl as cl
import pyopencl.array as cl_array

from netcl.backends.base import View
from netcl.backends.opencl.device.memory import CLBuffer, own_buffer
from netcl.backends.opencl.device.queue import Queue
from netcl.dtypes import DType, as_dtype, bfloat16
from netcl.errors import ArgumentError, DeviceMismatchError, DTypeError, ShapeError
from netcl.host_dtypes import STORAGE
from netcl.strides import contiguous_strides


class Source(NamedTuple):
    """What pyopencl has of an array, wherever it is kept.

    Attributes
    ----------
    memory : pyopencl.MemoryObjectHolder or None
        None if there is no element.
    context : pyopencl.Context
    queue : pyopencl.CommandQueue or None
        On which work on it was enqueued, as far as is known.
    events : sequence of pyopencl.Event
        Of work that must be done before.
    dtype : DType
    shape, strides : tuple of int
        Strides in bytes.
    offset : int
        Bytes.
    """

    memory: Any
    context: cl.Context
    queue: cl.CommandQueue | None
    events: Sequence[cl.Event]
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def is_array(source: Any) -> bool:
    """Whether this is an array of pyopencl."""
    return isinstance(source, cl_array.Array)


def of_array(source: Any) -> Source:
    """What a ``pyopencl.array.Array`` says of itself."""
    memory = source.base_data
    if memory is not None and not isinstance(memory, cl.MemoryObjectHolder):
        raise ArgumentError(
            f"the array lies in a {type(memory).__name__}, and netcl's memory is that of buffers; make it without an "
            "allocator, or copy it with netcl.asarray(x.get())"
        )
    place = (tuple(source.shape), tuple(source.strides), source.offset)
    return Source(memory, source.context, source.queue, source.events, as_dtype(source.dtype), *place)


def of_buffer(source: Any, shape: tuple[int, ...], dtype: DType, offset: int, queue: cl.CommandQueue | None) -> Source:
    """What is said of a ``pyopencl.Buffer`` as a contiguous array from byte ``offset`` on."""
    if not isinstance(source, cl.MemoryObjectHolder) or source.type != cl.mem_object_type.BUFFER:
        raise ArgumentError(f"pass a pyopencl.array.Array or a pyopencl.Buffer, got a {type(source).__name__}")
    strides = tuple([stride * dtype.itemsize for stride in contiguous_strides(shape)])
    context: Any = source.get_info(cl.mem_info.CONTEXT)
    return Source(source, context, queue, (), dtype, shape, strides, offset)


def check_queue(queue: Any, context: cl.Context) -> None:
    """Refuse what is no queue of this context."""
    if not isinstance(queue, cl.CommandQueue):
        raise ArgumentError(f"queue must be a pyopencl.CommandQueue or None, got a {type(queue).__name__}")
    if queue.context != context:
        raise DeviceMismatchError(
            f"the queue belongs to the context {shown_context(queue.context)} and the memory to "
            f"{shown_context(context)}; make the queue with the memory's context, as netcl.opencl.queue(x.device) is"
        )


def shown_context(context: cl.Context) -> str:
    """A context by its devices, and its address, for several may have the same ones."""
    return f"{hex(context.int_ptr)} of {', '.join(device.name.strip() for device in context.devices)}"


def adopt(queue: Queue, source: Source) -> tuple[CLBuffer, tuple[int, ...], int]:
    """The buffer of ``source``, with strides and offset in elements, for work on ``queue`` from now on.

    That comes after all that was enqueued on the source's queue. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the elements do not lie within the buffer, or not at whole elements of it.
    """
    item = source.dtype.itemsize
    if source.memory is None or not math.prod(source.shape):
        return queue.alloc(0, source.dtype), contiguous_strides(source.shape), 0
    if source.offset % item or any(stride % item for stride in source.strides):
        raise ShapeError(
            f"offset {source.offset} and strides {source.strides} in bytes are not whole elements of {item} bytes; "
            "copy the array first"
        )
    reach = [(extent - 1) * stride for extent, stride in zip(source.shape, source.strides, strict=True)]
    first = source.offset + sum([step for step in reach if step < 0])
    last = source.offset + sum([step for step in reach if step > 0]) + item
    if first < 0 or last > source.memory.size:
        raise ShapeError(
            f"shape {source.shape} of {source.dtype} from byte {source.offset} on takes bytes {first} to {last}, but "
            f"the buffer has {source.memory.size}; pass a smaller shape or offset"
        )
    follow(queue, source.queue, source.events)
    memory: Any = source.memory
    if not isinstance(memory, cl.Buffer):  # of a pyopencl pool, to which it must not go back before
        memory = cl.Buffer.from_int_ptr(source.memory.int_ptr)
        memory.kept = source.memory
    buffer = queue.pool.borrow(memory, source.memory.size // item, source.dtype)
    return buffer, tuple([stride // item for stride in source.strides]), source.offset // item


def export(queue: Queue, x: View, other: cl.CommandQueue | None) -> Any:
    """The elements of ``x`` as a ``pyopencl.array.Array`` on queue ``other``, by default on netcl's own.

    Work on that comes after all that was enqueued before. The memory is not used again before the array and all that
    share its buffer are gone, and the work enqueued on ``other`` until then is done. Enqueues; does not block.
    """
    if x.dtype is bfloat16:
        raise DTypeError("pyopencl's arrays have NumPy's dtypes, and no bfloat16; convert with astype(netcl.float32)")
    dtype = STORAGE[x.dtype]
    if other is None:
        other = queue.cl_queue
    else:
        check_queue(other, queue.context)
    if not math.prod(x.shape):
        return cl_array.Array(other, x.shape, dtype)
    held = own_buffer(x)
    memory: Any = cl.Buffer.from_int_ptr(held.mem.int_ptr)
    memory.kept = _Kept()
    weakref.finalize(memory.kept, _give_back, queue, other, held).atexit = False
    if other != queue.cl_queue:
        with queue.lock:
            done = cl.enqueue_marker(queue.cl_queue)
            queue.cl_queue.flush()
        cl.enqueue_barrier(other, wait_for=[done])
    strides = tuple([stride * dtype.itemsize for stride in x.strides])
    return cl_array.Array(other, x.shape, dtype, data=memory, offset=x.offset * dtype.itemsize, strides=strides)


def follow(queue: Queue, other: cl.CommandQueue | None, events: Sequence[cl.Event] = ()) -> None:
    """Let what is enqueued on ``queue`` from now on wait for ``events`` and for all that was enqueued on ``other``."""
    with queue.lock:
        waited = list(events)
        if other is not None and other != queue.cl_queue:
            waited.append(cl.enqueue_marker(other))
            other.flush()
        if waited:
            cl.enqueue_barrier(queue.cl_queue, wait_for=waited)


class _Kept:
    """Stands in a buffer of pyopencl's, and so tells when that is gone."""

    __slots__ = ("__weakref__",)


def _give_back(queue: Queue, other: cl.CommandQueue, held: CLBuffer) -> None:
    """Let ``held`` go, to be used again on ``queue`` behind what was enqueued on ``other``."""
    follow(queue, other)
