"""What every OpenCL operation holds: one device, with its memory, transfers, kernels and launches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, final

import numpy as np
import pyopencl as cl

from netcl.backends.base import Device, HostArray, Span
from netcl.backends.opencl.codegen.storage import lanes
from netcl.backends.opencl.device import forking, tuning_table
from netcl.backends.opencl.device.defects import Defects, dtype_class
from netcl.backends.opencl.device.faults import Faults
from netcl.backends.opencl.device.kernels import Kernel, Kernels
from netcl.backends.opencl.device.memory import CLBuffer, Pool, Staging, cl_buffer
from netcl.backends.opencl.device.tuning_table import Knobs, Target
from netcl.dtypes import DType, float64, int32
from netcl.errors import DTypeError, ShapeError
from netcl.host_dtypes import STORAGE

MAPPED = 1 << 20
"""Bytes from which a download from shared memory is faster through a map than through a read."""

ENQUEUING = ("alloc", "upload", "download", "wrap_host_memory", "map_host", "wait", "synchronize", "launch", "_read")
"""The methods of :class:`Queue` that reach the device; every operation goes through one of them, or a resource."""

RESOURCES = ("cl_queue", "lock", "kernels", "faults", "pool")
"""The attributes of :class:`Queue` through which its methods reach the device."""


def describe(device: cl.Device, index: int) -> Device:
    """The plain description of an OpenCL device."""
    kinds = {cl.device_type.CPU: "cpu", cl.device_type.GPU: "gpu"}
    extensions = device.extensions.split()
    return Device(
        backend="opencl",
        index=index,
        name=device.name.strip(),
        platform=device.platform.name.strip(),
        driver=device.driver_version.strip(),
        kind=next((name for kind, name in kinds.items() if device.type & kind), "accelerator"),
        memory=device.global_mem_size,
        float16="cl_khr_fp16" in extensions,
        float64="cl_khr_fp64" in extensions,
        shares_host_memory=bool(device.host_unified_memory),
        aliases=device.platform.version,
    )


def whole_groups(items: int, group: int) -> tuple[int]:
    """The global size of at least ``items`` work-items in work-groups of ``group``."""
    return (-(-items // group) * group,)


@final
class HostMemory:
    """Elements that the host works on: mapped where the device shares its memory, else copied over and back."""

    def __init__(self, queue: Queue, span: Span, host: np.ndarray[Any, Any], event: cl.Event | None) -> None:
        self._queue, self._span, self._host, self._event = queue, span, host, event

    def array(self) -> HostArray:
        """The elements. **Blocks** until what was enqueued before the mapping is done."""
        if self._event is not None:
            self._queue.wait(self._event)
            self._event = None
        return self._host

    def ready(self) -> bool:
        """Whether ``array`` would return at once."""
        return self._event is None or self._event.command_execution_status == cl.command_execution_status.COMPLETE

    def release(self) -> None:
        """Give the elements back. Does not block."""
        mapped, self._host = self.array(), np.empty(0, self._host.dtype)
        if not mapped.size:
            return
        if self._queue.device.shares_host_memory:
            with self._queue.lock:
                mapped.base.release(self._queue.cl_queue)
        else:
            self._queue.upload(mapped, self._span)


@final
class Queue:
    """One device, and the in-order queue of everything that is done on it.

    Attributes
    ----------
    device : Device
    cl_device : pyopencl.Device
    context : pyopencl.Context
    cl_queue : pyopencl.CommandQueue
        The only one, in order: what is enqueued later sees what was enqueued earlier.
    lock : threading.RLock
        Held while a kernel's arguments are set and it is enqueued.
    pool : Pool
        Where buffers come from.
    kernels : Kernels
    faults : Faults
        What kernels report.
    is_cpu : bool
        Whether kernels should take a contiguous run per work-item, rather than the shapes that suit a GPU.
    work_group_size : int
        What a one-dimensional kernel without needs of its own should use.
    target : Target
        What the device is called in a tuning table.
    defects : Defects
        What the device's runtime gets wrong.
    launches, blocking : int
        Kernels enqueued and transfers waited for, since the start.
    """

    def __init__(
        self,
        cl_device: cl.Device,
        index: int = 0,
        part: str = "",
        defects: Defects | None = None,
        try_on: Callable[[Collection[str]], Defects] | None = None,
    ) -> None:
        self.cl_device = cl_device
        self.device = replace(describe(cl_device, index), part=part)
        self.is_cpu = self.device.kind == "cpu"
        self.work_group_size = min(256, cl_device.max_work_group_size)
        self.target = Target.of(cl_device)
        tables = tuning_table.tables()
        self._knobs = {kind: tuning_table.choose(self.target, kind, tables) for kind in tuning_table.KINDS}
        self.context = cl.Context([cl_device])
        self.cl_queue = cl.CommandQueue(self.context, cl_device)
        self.defects = Defects() if defects is None else defects
        self._try_on = try_on
        self._tried: set[DType] = set()
        self.launches = 0
        self.blocking = 0
        self.lock = threading.RLock()
        self.pool = Pool(self.context, self.cl_queue)
        self.kernels = Kernels(self.context, self.lock)
        self.faults = Faults(self.device, self.cl_queue, self.pool.alloc(1, int32))
        self._staging = Staging()
        forking.forbid_in_children(self, ENQUEUING, RESOURCES)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.device}, {self.device.name!r}, {self.device.platform!r})"

    @property
    def kind(self) -> str:
        """Which half of a tuning table counts: ``"cpu"`` or ``"gpu"``."""
        return "cpu" if self.is_cpu else "gpu"

    def knobs(self, kernel: str) -> Knobs:
        """What a kernel is built with on this device: the tuning tables' choice, or what :meth:`set_knobs` set."""
        return self._knobs[self.kind][kernel]

    def set_knobs(self, kernel: str, knobs: Knobs) -> None:
        """Build a kernel with other knobs from now on; launches that a step block keeps do not change."""
        self._knobs[self.kind][kernel] = knobs

    def supports(self, dtype: DType) -> bool:
        """Whether this device computes with ``dtype``: with 64-bit floats where it has them."""
        return dtype.part is not float64 or self.device.float64

    def require(self, *dtypes: DType) -> None:
        """Refuse dtypes that the device cannot compute with.

        Raises
        ------
        DTypeError
        """
        for dtype in dtypes:
            if not self.supports(dtype):
                remedy = "complex64" if dtype.kind == "c" else "float32"
                raise DTypeError(
                    f"{self.device} ({self.device.name}) cannot compute with {dtype}; cast to {remedy} with astype(), "
                    'or use backend="numpy"'
                )

    def require_real(self, call: str, *dtypes: DType) -> None:
        """Refuse what :meth:`require` does, and complex numbers, which ``call`` does not take.

        Raises
        ------
        DTypeError
        """
        for dtype in dtypes:
            if dtype.kind == "c":
                raise DTypeError(f"{call} does not take {dtype}; take real(x), imag(x) or abs(x) first")
        self.require(*dtypes)

    def needs_plain(self, family: str, *dtypes: DType) -> bool:
        """Whether a kernel for operands of ``dtypes`` works on this device only in its plain form.

        **Blocks** when such dtypes are used for the first time ever, while every kernel family is tried on them.

        Raises
        ------
        BackendError
            If it works in none.
        """
        if not self._tried.issuperset(dtypes):
            kinds = set(map(dtype_class, dtypes)) - self.defects.tried
            if kinds and self._try_on is not None:
                self.defects = self._try_on(kinds)
            self._tried.update(dtypes)
        return bool(self.defects) and self.defects.needs_plain(family, dtypes, f"{self.device} ({self.device.name})")

    def lanes(self, family: str, *dtypes: DType, most: int = 8) -> int:
        """How many elements a kernel's vectors take if values of all ``dtypes`` pass through them; 1 if plain.

        Raises
        ------
        BackendError
            As :meth:`needs_plain`.
        """
        return 1 if self.needs_plain(family, *dtypes) else lanes(*dtypes, most=most)

    def alloc(self, n: int, dtype: DType) -> CLBuffer:
        """A buffer of ``n`` elements with unspecified contents. See :class:`~netcl.backends.base.UpdateOperations`."""
        return self.pool.alloc(n, dtype)

    def upload(self, host: HostArray, out: Span) -> None:
        """Host to device. The array is copied, so it may be changed at once.

        Does not wait for the device, unless 256 MB of such copies wait for it.
        """
        expected = STORAGE[out.dtype]
        array = np.asarray(host)
        if array.size != out.size or array.dtype != expected:
            raise ShapeError(
                f"upload of {array.size} elements of {array.dtype} into a span of {out.size} elements of {out.dtype}; "
                f"pass {out.size} elements of {expected}"
            )
        if out.size == 0:
            return
        mem, start = cl_buffer(out), out.offset * expected.itemsize
        with self.lock:
            copy, kept = self._staging.copy(array)
            self._staging.keep(cl.enqueue_copy(self.cl_queue, mem, copy, dst_offset=start, is_blocking=False), kept)

    def download(self, x: Span) -> HostArray:
        """Device to host: a new array. **Blocks**.

        Raises
        ------
        IndexError
            If an earlier kernel met an index out of range.
        """
        dtype = STORAGE[x.dtype]
        mem, start = cl_buffer(x), x.offset * dtype.itemsize
        if x.size == 0:
            self.faults.report()
            return np.empty(0, dtype)
        self.blocking += 1
        host = self._read(mem, start, x.size, dtype)
        self.faults.report()
        return host

    def _read(self, mem: cl.Buffer, start: int, size: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """``size`` elements from byte ``start`` on: a new array. **Blocks**."""
        host: np.ndarray[Any, Any]
        visible = self.pool.visible.get(mem.int_ptr) if size == 1 else None
        if visible is not None:
            self.cl_queue.finish()
            host = visible[start : start + dtype.itemsize].view(dtype).copy()
        elif self.device.shares_host_memory and size * dtype.itemsize >= MAPPED:
            mapped, _ = cl.enqueue_map_buffer(
                self.cl_queue, mem, cl.map_flags.READ, start, (size,), dtype, is_blocking=True
            )
            host = mapped.copy()
            mapped.base.release(self.cl_queue)
        else:
            host = np.empty(size, dtype)
            cl.enqueue_copy(self.cl_queue, host, mem, src_offset=start, is_blocking=True)
        return host

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> CLBuffer:
        """A buffer that is the host array's own memory. See :class:`~netcl.backends.base.HostOperations`."""
        return self.pool.wrap_host_memory(host, dtype)

    def map_host(self, x: Span) -> HostMemory:
        """Hand ``x`` to the host. See :class:`~netcl.backends.base.HostOperations`. Does not block."""
        dtype = STORAGE[x.dtype]
        start = x.offset * dtype.itemsize
        mem = cl_buffer(x)
        with self.lock:
            if self.device.shares_host_memory and x.size:
                flags: Any = cl.map_flags.READ | cl.map_flags.WRITE
                host, event = cl.enqueue_map_buffer(
                    self.cl_queue, mem, flags, start, (x.size,), dtype, is_blocking=False
                )
            else:
                host = np.empty(x.size, dtype)
                event = None
                if x.size:
                    event = cl.enqueue_copy(self.cl_queue, host, mem, src_offset=start, is_blocking=False)
            self.cl_queue.flush()
        return HostMemory(self, x, host, event)

    def wait(self, event: cl.Event) -> None:
        """Return when ``event`` has happened. **Blocks**."""
        self.blocking += 1
        event.wait()

    def synchronize(self) -> None:
        """Return when everything enqueued so far is done. **Blocks**.

        Raises
        ------
        IndexError
            If an earlier kernel met an index out of range.
        """
        self.blocking += 1
        borrowed = self.pool.borrowed
        borrowed.collect()
        self.cl_queue.finish()
        borrowed.collect()
        self.faults.report()

    def launch(
        self, kernel: Kernel, global_size: tuple[int, ...], local_size: tuple[int, ...] | None, *args: Any
    ) -> None:
        """Enqueue a kernel. Without ``args`` it runs with those it already has."""
        with self.lock:
            if args:
                kernel.set_args(*args)
            cl.enqueue_nd_range_kernel(self.cl_queue, kernel, global_size, local_size)
            self.launches += 1
