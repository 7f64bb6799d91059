"""The OpenCL backend, put together, and the factory that opens it on a device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from inspect import ismethod
from typing import Any, final

from netcl.backends.base import Device, Span, StepBlock, TensorRule
from netcl.backends.opencl.device import forking, selection
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.ops.arg_reduce import ArgReduce
from netcl.backends.opencl.ops.axpy import Axpy
from netcl.backends.opencl.ops.batched_matmul import BatchedMatmul
from netcl.backends.opencl.ops.fill import Fill
from netcl.backends.opencl.ops.fused_adam import FusedAdam
from netcl.backends.opencl.ops.fused_update import FusedUpdate
from netcl.backends.opencl.ops.gather import Gather
from netcl.backends.opencl.ops.map import Map
from netcl.backends.opencl.ops.norm_reduce import NormReduce
from netcl.backends.opencl.ops.prepare_step import PrepareStep
from netcl.backends.opencl.ops.random_bits import RandomBits
from netcl.backends.opencl.ops.reduce import Reduce
from netcl.backends.opencl.ops.scale import Scale
from netcl.backends.opencl.ops.scan import Scan
from netcl.backends.opencl.ops.scatter import Scatter
from netcl.backends.opencl.ops.scatter_add import ScatterAdd
from netcl.backends.opencl.ops.softmax import Softmax
from netcl.backends.opencl.ops.softmax_cross_entropy import SoftmaxCrossEntropy
from netcl.backends.opencl.ops.sort import Sort
from netcl.backends.opencl.ops.tensor_update import TensorUpdate
from netcl.expression import Expression

_lock = threading.Lock()
_opened: dict[tuple[int, str], OpenCLBackend] = {}


@final
class OpenCLBackend:
    """One OpenCL device, with every operation of :class:`~netcl.backends.base.Backend`.

    The protocol's calls are methods of the queue and of the operations, bound here, so that a call costs no frame more.

    Attributes
    ----------
    device : Device
    queue : Queue
        The device, and everything that is not an operation: kernels, knobs, defects, counters.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.device = queue.device
        self.supports = queue.supports
        self.alloc = queue.alloc
        self.upload = queue.upload
        self.download = queue.download
        self.synchronize = queue.synchronize
        self.wrap_host_memory = queue.wrap_host_memory
        self.map_host = queue.map_host
        norm, map = NormReduce(queue), Map(queue)
        fill, reduce = Fill(queue, map), Reduce(queue, map)
        self._fused_adam, self._fused_update = FusedAdam(queue), FusedUpdate(queue)
        self._tensor_update = TensorUpdate(queue)
        self.fill = fill.fill
        self.scale = Scale(queue).scale
        self.axpy = Axpy(queue).axpy
        self.norm_partials = norm.norm_partials
        self.norm_reduce = norm.norm_reduce
        self.prepare_step = PrepareStep(queue).prepare_step
        self.fused_adam = self._fused_adam.fused_adam
        self.fused_update = self._fused_update.fused_update
        self.tensor_update = self._tensor_update.tensor_update
        self.map = map.map
        self.reduce = reduce.reduce
        self.scan = Scan(queue, reduce, map).scan
        self.sort = Sort(queue, map).sort
        self.arg_reduce = ArgReduce(queue).arg_reduce
        self.batched_matmul = BatchedMatmul(queue, map).batched_matmul
        self.gather = Gather(queue).gather
        self.scatter = Scatter(queue).scatter
        self.scatter_add = ScatterAdd(queue, fill).scatter_add
        self.softmax = Softmax(queue).softmax
        self.softmax_cross_entropy = SoftmaxCrossEntropy(queue).softmax_cross_entropy
        self.random_bits = RandomBits(queue).random_bits
        forking.forbid_in_children(self, [name for name, held in vars(self).items() if ismethod(held)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.device}, {self.device.name!r}, {self.device.platform!r})"

    @property
    def launches(self) -> int:
        """Kernels enqueued since the start."""
        return self.queue.launches

    @property
    def blocking(self) -> int:
        """Transfers waited for since the start."""
        return self.queue.blocking

    def update_source(self, rule: Expression | TensorRule | None, fields: Sequence[Span], block: StepBlock) -> str:
        """The OpenCL C of an update, as the compiler gets it for a step without clipping. Does not block.

        See :class:`~netcl.backends.base.UpdateSource`.
        """
        if rule is None:
            return self._fused_adam.source(fields, block)
        if isinstance(rule, TensorRule):
            return self._tensor_update.source(rule, fields, block)
        return self._fused_update.source(rule, fields, block)


def backend_in(context: Any) -> OpenCLBackend | None:
    """The open backend whose memory lies in a ``pyopencl.Context``, if there is one."""
    with _lock:
        return next((backend for backend in _opened.values() if backend.queue.context == context), None)


def open_backend(device: Device) -> OpenCLBackend:
    """The backend on a device of ``selection.device_infos()``, or on the part of one that ``device.part`` names.

    There is one backend for each. **Blocks** while the device is tried for the first time.

    Raises
    ------
    BackendError
        If the device does not work, or has no such part.
    """
    index, part = device.index, device.part
    defects = selection.require_healthy(index)
    with _lock:
        backend = _opened.get((index, part))
        if backend is None:
            found = selection.part_of(index, part) if part else selection.list_devices()[index]
            try_on = partial(selection.defects_on, index)
            backend = _opened[index, part] = OpenCLBackend(Queue(found, index, part, defects, try_on))
        return backend
