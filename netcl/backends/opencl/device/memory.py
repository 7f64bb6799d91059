"""Memory from pools, because creating it costs more than a small kernel: device buffers, and host memory on its way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyopencl as cl

from netcl.backends.base import HostArray, Span, View
from netcl.dtypes import DType
from netcl.errors import DeviceMemoryError, DeviceMismatchError

SMALLEST = 256
"""Bytes of the smallest buffer: OpenCL refuses a size of zero."""

KEPT = 1 << 28
"""Unused bytes that are always kept; beyond, no more than what is in use."""

STAGED = 1 << 24
"""Bytes of the largest host copy whose memory is used again."""

UNDER_WAY = 1 << 28
"""Bytes of host copies on their way to the device from which on the host waits for it."""

HUGE = 1 << 22
"""Bytes from which NumPy asks for huge pages. Runtimes do not, and the host reads their memory at half the speed."""

PAGE = 4096
"""What memory for a device is aligned to."""

ALIGNED = 128
"""What smaller memory for a device is aligned to: as sub-buffers are on most."""

GRAIN = 1 << 16
"""What large sizes are rounded up to: arenas of hundreds of megabytes must not waste an eighth."""


SHARED = cl.device_svm_capabilities


def shared_memory(device: cl.Device) -> int:
    """How finely the device shares virtual memory with the host, as bits of ``pyopencl.device_svm_capabilities``."""
    try:
        return device.svm_capabilities & (SHARED.FINE_GRAIN_SYSTEM | SHARED.FINE_GRAIN_BUFFER)
    except cl.Error:  # before OpenCL 2.0 there is no such question
        return 0


def size_class(nbytes: int) -> int:
    """``nbytes`` rounded up to one of eight sizes per power of two, or to whole :data:`GRAIN` if that is less."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = min(1 << max((nbytes - 1).bit_length() - 4, 6), GRAIN)
    return -(-nbytes // step) * step


def _finish(queue: cl.CommandQueue, lost: type[Exception] = cl.Error) -> None:
    """Wait for the work of a queue, also at the end of the interpreter, when modules are empty. **Blocks**."""
    try:
        queue.finish()
    except lost:  # a device that is lost does no work
        return


class FreeList:
    """Unused buffers of one size. They may lie in the host's memory, which is not freed under work on its way.

    A pool has it, and so has every buffer that returns to it: whichever is gone last, the work is done before.

    Attributes
    ----------
    buffers : list of pyopencl.Buffer
    pop, append
        Those of the list, for the cost of a frame counts.
    """

    __slots__ = ("_queue", "append", "buffers", "pop")

    def __init__(self, queue: cl.CommandQueue) -> None:
        self._queue = queue
        self.buffers: list[cl.Buffer] = []
        self.pop = self.buffers.pop
        self.append = self.buffers.append

    def __len__(self) -> int:
        return len(self.buffers)

    def __del__(self, finish: Callable[[cl.CommandQueue], None] = _finish) -> None:
        if self.buffers:
            finish(self._queue)


class CLBuffer:
    """``size`` elements of device memory. The memory goes back to the pool when nothing refers to this any more."""

    __slots__ = ("__weakref__", "_free_list", "dtype", "mem", "size")

    def __init__(self, dtype: DType, size: int, mem: cl.Buffer, free_list: FreeList | list[Any]) -> None:
        self.dtype = dtype
        self.size = size
        self.mem = mem
        self._free_list = free_list

    def parts(self) -> CLBuffer:
        """The same memory as the real and imaginary parts of its complex elements, in turn."""
        return CLBuffer(self.dtype.part, 2 * self.size, self.mem, [self])  # which keeps this alive, and is no pool

    def __del__(self) -> None:
        # Work already enqueued on this memory comes before any work of its next owner: there is one in-order queue.
        self._free_list.append(self.mem)


def own_buffer(operand: Span | View) -> CLBuffer:
    """The buffer behind an operand.

    Raises
    ------
    DeviceMismatchError
        If the operand lives on another backend.
    """
    buffer = operand.buffer
    if not isinstance(buffer, CLBuffer):
        raise DeviceMismatchError(
            f"an operand is held in a {type(buffer).__name__} of another backend; move it with to()"
        )
    return buffer


def cl_buffer(operand: Span | View) -> cl.Buffer:
    """The OpenCL buffer behind an operand. Refuses like :func:`own_buffer`."""
    buffer = operand.buffer
    return buffer.mem if isinstance(buffer, CLBuffer) else own_buffer(operand).mem


class Borrowed:
    """Buffers in memory of somebody else, kept beyond their last use until the work enqueued on them is done.

    Attributes
    ----------
    released : FreeList
        To which a :class:`CLBuffer` gives back: from the garbage collector, in any thread.
    """

    def __init__(self, queue: cl.CommandQueue) -> None:
        self.released = FreeList(queue)
        self._queue = queue
        self._pending: deque[tuple[cl.Event, list[cl.Buffer]]] = deque()
        self._lock = threading.RLock()

    def collect(self) -> None:
        """Let go of what no work needs any more. Does not block."""
        with self._lock:
            count = len(self.released)
            if count:
                found = self.released.buffers[:count]
                del self.released.buffers[:count]
                self._pending.append((cl.enqueue_marker(self._queue), found))
            complete = cl.command_execution_status.COMPLETE
            while self._pending and self._pending[0][0].command_execution_status <= complete:
                self._pending.popleft()

    def __del__(self, finish: Callable[[cl.CommandQueue], None] = _finish) -> None:
        if self._pending:
            finish(self._queue)


class Pool:
    """Buffers of one device, sorted by size.

    Appending to and popping from a list is atomic, so a buffer can return from the garbage collector, in any thread,
    without a lock; the lock guards creation and trimming alone.

    Attributes
    ----------
    borrowed : Borrowed
    total, largest : int
        Bytes that the device has, and that it allows in one buffer.
    reserved : int
        Bytes of all buffers, in use or not.
    created : int
        Buffers asked of OpenCL since the start; it stands still while memory is used again.
    visible : dict of int to numpy.ndarray
        The memory of buffers, by ``int_ptr``, that host and device see alike at all times (fine-grained shared virtual
        memory): once the queue is idle the host may read it where it lies, without a transfer or a mapping.
    """

    def __init__(self, context: cl.Context, queue: cl.CommandQueue) -> None:
        device = context.devices[0]
        self.context = context
        self.queue = queue
        self._on_host = bool(device.type & cl.device_type.CPU)
        self._shared = shared_memory(device) if self._on_host else 0
        self.borrowed = Borrowed(queue)
        self.total: int = device.global_mem_size
        self.largest: int = device.max_mem_alloc_size
        self.reserved = 0
        self.created = 0
        self.visible: dict[int, npt.NDArray[np.uint8]] = {}
        self._free: dict[int, FreeList] = {}
        self._lock = threading.RLock()

    def alloc(self, n: int, dtype: DType) -> CLBuffer:
        """A buffer of ``n`` elements with unspecified contents.

        Raises
        ------
        DeviceMemoryError
            If the device cannot hold it, even after every unused buffer was given back.
        """
        nbytes = size_class(n * dtype.itemsize)
        free_list = self._free.get(nbytes)
        if free_list is None:
            free_list = self._free.setdefault(nbytes, FreeList(self.queue))
        try:
            mem = free_list.pop()
        except IndexError:
            larger = self._larger(nbytes)
            if larger is not None:
                return CLBuffer(dtype, n, *larger)
            mem = self._create(nbytes, n * dtype.itemsize)
        return CLBuffer(dtype, n, mem, free_list)

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> CLBuffer:
        """A buffer that is the memory of a contiguous host array and keeps it alive."""
        if host.size == 0:
            return self.alloc(0, dtype)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        return self.borrow(cl.Buffer(self.context, flags, hostbuf=host), host.size, dtype)

    def borrow(self, mem: cl.Buffer, n: int, dtype: DType) -> CLBuffer:
        """``n`` elements of a buffer that somebody else made, kept alive while this and work on it need it."""
        self.borrowed.collect()
        return CLBuffer(dtype, n, mem, self.borrowed.released)

    def _larger(self, nbytes: int) -> tuple[cl.Buffer, FreeList] | None:
        """An unused buffer at most an eighth larger, so that sizes which never repeat do not pile up."""
        for held in sorted([held for held in list(self._free) if nbytes < held <= nbytes + nbytes // 8]):
            free_list = self._free[held]
            try:
                return free_list.pop(), free_list
            except IndexError:
                continue
        return None

    @property
    def unused(self) -> int:
        """Bytes that wait in the pool."""
        return sum(nbytes * len(buffers) for nbytes, buffers in list(self._free.items()))

    def trim(self) -> None:
        """Give unused memory back to the device. **Blocks** until work on it is done."""
        with self._lock:
            unused = []  # kept until the work on them is done: some lie in memory of the host's
            for nbytes, buffers in list(self._free.items()):
                while buffers:
                    try:
                        unused.append(buffers.pop())
                    except IndexError:  # another thread took the last one
                        break
                    self.reserved -= nbytes
            self.queue.finish()
            for mem in unused:
                self.visible.pop(mem.int_ptr, None)
                mem.release()
            self.borrowed.collect()

    def _create(self, nbytes: int, asked: int) -> cl.Buffer:
        with self._lock:
            if nbytes > self.largest:
                raise self._refusal(asked)
            unused = self.unused
            if unused and (self.reserved + nbytes > self.total or unused > max(KEPT, self.reserved - unused)):
                self.trim()
            if self.reserved + nbytes > self.total:
                raise self._refusal(asked)
            try:
                mem = self._buffer(nbytes)
            except (cl.MemoryError, MemoryError):
                self.trim()
                try:
                    mem = self._buffer(nbytes)
                except (cl.MemoryError, MemoryError) as error:
                    raise self._refusal(asked) from error
            self.reserved += nbytes
            self.created += 1
            return mem

    def _buffer(self, nbytes: int) -> cl.Buffer:
        if not self._on_host or (nbytes < HUGE and not self._shared):
            return cl.Buffer(self.context, cl.mem_flags.READ_WRITE, nbytes)
        host: npt.NDArray[np.uint8]
        whole = bool(self._shared & SHARED.FINE_GRAIN_SYSTEM)
        if nbytes >= HUGE or whole:
            aligned = PAGE if nbytes >= HUGE else ALIGNED
            taken = np.empty(nbytes + aligned, np.uint8)
            start = -taken.ctypes.data % aligned
            host = taken[start : start + nbytes]
        else:
            host = cl.fsvm_empty(self.context, nbytes, np.dtype(np.uint8), alignment=ALIGNED)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        mem = cl.Buffer(self.context, flags, hostbuf=host)
        if nbytes < HUGE or whole:
            self.visible[mem.int_ptr] = host
        return mem

    def _refusal(self, asked: int) -> DeviceMemoryError:
        free = max(self.total - self.reserved + self.unused, 0)
        return DeviceMemoryError(
            f"{asked} bytes asked for, but {self.context.devices[0].name.strip()} has {free} bytes free and allows "
            f"{self.largest} bytes in one buffer; use smaller batches or dtypes, or delete arrays that are not needed"
        )


class Staging:
    """Copies of host arrays that a transfer reads, kept until it has: the caller may change the original at once.

    An event may only be dropped when its transfer is done, or pyopencl waits for it. Not thread-safe.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[cl.Event, npt.NDArray[np.uint8]]] = deque()
        self._under_way = 0
        self._free: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def copy(self, host: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
        """A contiguous copy, and the memory that it lies in, for :meth:`keep`.

        **Blocks** if the host is :data:`UNDER_WAY` ahead of the device, or a loop that reads nothing would fill memory.
        """
        self.collect()
        while self._under_way > UNDER_WAY:
            self._pending[0][0].wait()
            self.collect()
        nbytes = size_class(host.nbytes)
        free = self._free.get(nbytes)
        memory = free.pop() if free else np.empty(nbytes, np.uint8)
        copied = memory[: host.nbytes].view(host.dtype).reshape(host.shape)
        np.copyto(copied, host)
        return copied, memory

    def keep(self, event: cl.Event, memory: npt.NDArray[np.uint8]) -> None:
        """Hold the memory of a copy until the event is complete."""
        self._pending.append((event, memory))
        self._under_way += memory.nbytes

    def collect(self) -> None:
        """Take back the memory of transfers that are done."""
        pending = self._pending
        while pending and pending[0][0].command_execution_status == cl.command_execution_status.COMPLETE:
            _, memory = pending.popleft()
            self._under_way -= memory.nbytes
            if memory.nbytes <= STAGED:
                free = self._free.setdefault(memory.nbytes, [])
                if len(free) < 2:
                    free.append(memory)
