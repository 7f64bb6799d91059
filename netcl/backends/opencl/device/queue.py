"""What every OpenCL operation stands on: one device, its queue, its memory, its kernels, and transfers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyopencl as cl

from netcl.backends.base import Device, HostArray, Span, View
from netcl.backends.opencl.codegen.storage import lanes
from netcl.backends.opencl.device import forking, program, tuning_table
from netcl.backends.opencl.device.defects import Defects
from netcl.backends.opencl.device.memory import CLBuffer, Pool, Staging
from netcl.backends.opencl.device.program import Defines
from netcl.backends.opencl.device.tuning_table import Knobs, Target
from netcl.dtypes import DType, float64, int32
from netcl.errors import DeviceMismatchError, DTypeError, ShapeError
from netcl.host_dtypes import STORAGE

FAULTS = {
    1: "gather: an index is out of range for the axis it selects from",
    2: "scatter_add: an index is out of range for the axis it adds to",
    3: "softmax_cross_entropy: a label is out of range; labels are 0 to classes - 1, or ignore_index",
}
"""What a kernel writes into ``faults`` when it meets an index out of range, and what is then said."""

MAPPED = 1 << 20
"""Bytes from which a download from shared memory is faster through a map than through a read."""


ENQUEUING = (
    "alloc", "upload", "download", "wrap_host_memory", "map_host", "wait", "synchronize", "report_errors_from_device",
    "kernel", "own_kernel", "launch",
)  # fmt: skip
"""The methods of :class:`Core` that reach the device; every operation goes through one of them first."""


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
    )


class HostMemory:
    """Elements that the host works on: mapped where the device shares its memory, else copied over and back."""

    def __init__(self, core: Core, span: Span, host: np.ndarray[Any, Any], event: cl.Event | None) -> None:
        self._core, self._span, self._host, self._event = core, span, host, event

    def array(self) -> HostArray:
        """The elements. **Blocks** until what was enqueued before the mapping is done."""
        if self._event is not None:
            self._core.wait(self._event)
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
        if self._core.device.shares_host_memory:
            with self._core.lock:
                mapped.base.release(self._core.queue)
        else:
            self._core.upload(mapped, self._span)


class Core:
    """One device: memory, transfers, kernels and launches.

    Attributes
    ----------
    device : Device
    cl_device : pyopencl.Device
    context : pyopencl.Context
    queue : pyopencl.CommandQueue
        The only queue, in order: what is enqueued later sees what was enqueued earlier.
    is_cpu : bool
        Whether kernels should take a contiguous chunk per work-item, rather than the shapes that suit a GPU.
    work_group_size : int
        What a one-dimensional kernel without needs of its own should use.
    target : Target
        What the device is called in a tuning table.
    defects : Defects
        What the device's runtime gets wrong; empty until set.
    launches, blocking : int
        Kernels enqueued and transfers waited for, since the start.
    faults : CLBuffer
        One int32 that kernels set to a key of :data:`FAULTS`; ``faults_pending`` is to be set after such a launch.
    """

    def __init__(self, cl_device: cl.Device, index: int = 0) -> None:
        self.cl_device = cl_device
        self.device = describe(cl_device, index)
        self.is_cpu = self.device.kind == "cpu"
        self.work_group_size = min(256, cl_device.max_work_group_size)
        self.target = Target.of(cl_device)
        tables = tuning_table.tables()
        self._knobs = {kind: tuning_table.choose(self.target, kind, tables) for kind in tuning_table.KINDS}
        self.context = cl.Context([cl_device])
        self.queue = cl.CommandQueue(self.context, cl_device)
        self.defects = Defects()
        self.launches = 0
        self.blocking = 0
        self.faults_pending = False
        self._pool = Pool(self.context, self.queue)
        self.lock = threading.RLock()
        self._programs: dict[tuple[str, Defines, str], cl.Program] = {}
        self._kernels: dict[tuple[Any, ...], cl.Kernel] = {}
        self._staging = Staging()
        self.faults = self.alloc(1, int32)
        self._clear_faults()
        forking.forbid_in_children(self, ENQUEUING)

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
        """Build a kernel with other knobs from now on; launches that a step block keeps go on as they are."""
        self._knobs[self.kind][kernel] = knobs

    def supports(self, dtype: DType) -> bool:
        """Whether this device computes with ``dtype``: complex never, float64 where the device has it."""
        return dtype.kind != "c" and (dtype is not float64 or self.device.float64)

    def require(self, *dtypes: DType) -> None:
        """Refuse dtypes that the device cannot compute with.

        Raises
        ------
        DTypeError
        """
        for dtype in dtypes:
            if not self.supports(dtype):
                raise DTypeError(
                    f"{self.device} ({self.device.name}) cannot compute with {dtype}; cast to float32 with astype(), "
                    'or use backend="numpy"'
                )

    def needs_plain(self, family: str, *dtypes: DType) -> bool:
        """Whether a kernel for operands of ``dtypes`` works on this device only in its plain form.

        Raises
        ------
        BackendError
            If it works in none.
        """
        return bool(self.defects) and self.defects.needs_plain(family, dtypes, f"{self.device} ({self.device.name})")

    def lanes(self, family: str, *dtypes: DType, most: int = 8) -> int:
        """How many elements a vector of a kernel takes through which values of all ``dtypes`` pass; 1 if plain.

        Raises
        ------
        BackendError
            As :meth:`needs_plain`.
        """
        return 1 if self.needs_plain(family, *dtypes) else lanes(*dtypes, most=most)

    def alloc(self, n: int, dtype: DType) -> CLBuffer:
        """A buffer of ``n`` elements with unspecified contents. See :class:`~netcl.backends.base.UpdateOperations`."""
        return self._pool.alloc(n, dtype)

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
        mem, start = memory(out), out.offset * expected.itemsize
        with self.lock:
            copy, kept = self._staging.copy(array)
            self._staging.keep(cl.enqueue_copy(self.queue, mem, copy, dst_offset=start, is_blocking=False), kept)

    def download(self, x: Span) -> HostArray:
        """Device to host: a new array. **Blocks**.

        Raises
        ------
        IndexError
            If an earlier kernel met an index out of range.
        """
        dtype = STORAGE[x.dtype]
        mem, start = memory(x), x.offset * dtype.itemsize
        if x.size == 0:
            self.report_errors_from_device()
            return np.empty(0, dtype)
        self.blocking += 1
        if self.device.shares_host_memory and x.size * dtype.itemsize >= MAPPED:
            mapped, _ = cl.enqueue_map_buffer(
                self.queue, mem, cl.map_flags.READ, start, (x.size,), dtype, is_blocking=True
            )
            host = mapped.copy()
            mapped.base.release(self.queue)
        else:
            host = np.empty(x.size, dtype)
            cl.enqueue_copy(self.queue, host, mem, src_offset=start, is_blocking=True)
        self.report_errors_from_device()
        return host

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> CLBuffer:
        """A buffer that is the host array's own memory. See :class:`~netcl.backends.base.HostOperations`."""
        if host.size == 0:
            return self.alloc(0, dtype)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.USE_HOST_PTR
        return CLBuffer(dtype, host.size, cl.Buffer(self.context, flags, hostbuf=host), [])

    def map_host(self, x: Span) -> HostMemory:
        """Hand ``x`` to the host. See :class:`~netcl.backends.base.HostOperations`. Does not block."""
        dtype = STORAGE[x.dtype]
        start = x.offset * dtype.itemsize
        mem = memory(x)
        with self.lock:
            if self.device.shares_host_memory and x.size:
                flags: Any = cl.map_flags.READ | cl.map_flags.WRITE
                host, event = cl.enqueue_map_buffer(self.queue, mem, flags, start, (x.size,), dtype, is_blocking=False)
            else:
                host = np.empty(x.size, dtype)
                event = None
                if x.size:
                    event = cl.enqueue_copy(self.queue, host, mem, src_offset=start, is_blocking=False)
            self.queue.flush()
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
        self.queue.finish()
        self.report_errors_from_device()

    def report_errors_from_device(self) -> None:
        """Raise what kernels reported since the last call. **Blocks**, but only if such a kernel was launched."""
        if not self.faults_pending:
            return
        self.faults_pending = False
        found = np.empty(1, np.int32)
        cl.enqueue_copy(self.queue, found, self.faults.mem, is_blocking=True)
        code = int(found[0])
        if code:
            self._clear_faults()
            raise IndexError(f"{FAULTS.get(code, 'an index is out of range')} (found on {self.device}, which goes on)")

    def kernel(
        self,
        file: str,
        entry: str,
        defines: Defines = (),
        generated: str = "",
        arguments: tuple[Any, ...] = (),
    ) -> cl.Kernel:
        """The kernel ``entry`` of a file in ``kernels/``, built on first use and shared by all callers.

        Parameters
        ----------
        file, entry : str
            Such as ``"fill.cl"`` and ``"fill"``.
        defines : tuple of (name, value)
        generated : str
            Text set before the file; ``NETCL_GENERATED`` is defined when there is any.
        arguments : tuple
            The NumPy type of each scalar argument, None for each buffer.

        Raises
        ------
        KernelBuildError
        """
        key = (file, entry, defines, generated, arguments)
        found = self._kernels.get(key)
        if found is None:
            with self.lock:
                found = self._kernels.get(key)
                if found is None:
                    found = self._kernels[key] = self.own_kernel(file, entry, defines, generated, arguments)
        return found

    def own_kernel(
        self,
        file: str,
        entry: str,
        defines: Defines = (),
        generated: str = "",
        arguments: tuple[Any, ...] = (),
    ) -> cl.Kernel:
        """Like :meth:`kernel`, but a new object: for callers that set its arguments once and keep them."""
        with self.lock:
            key = (file, defines, generated)
            built = self._programs.get(key)
            if built is None:
                built = self._programs[key] = program.build(self.context, file, defines, generated)
            kernel = cl.Kernel(built, entry)
            if arguments:
                kernel.set_scalar_arg_dtypes(arguments)
            return kernel

    def launch(
        self, kernel: cl.Kernel, global_size: tuple[int, ...], local_size: tuple[int, ...] | None, *args: Any
    ) -> None:
        """Enqueue a kernel. Without ``args`` it runs with those it already has."""
        with self.lock:
            if args:
                kernel.set_args(*args)
            cl.enqueue_nd_range_kernel(self.queue, kernel, global_size, local_size)
            self.launches += 1

    def _clear_faults(self) -> None:
        cl.enqueue_fill_buffer(self.queue, self.faults.mem, np.zeros(1, np.int32), 0, 4)


def memory(operand: Span | View) -> cl.Buffer:
    """The OpenCL buffer behind an operand.

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
    return buffer.mem
