"""The reference backend: the whole backend protocol over NumPy, or any other namespace of the Array API standard.

It is what a library's CI runs on without a GPU, and the oracle for every kernel.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from netcl.backends.base import Device
from netcl.backends.reference.arrays import ArrayCalls
from netcl.backends.reference.evaluation import Evaluation
from netcl.backends.reference.memory import Memory
from netcl.backends.reference.namespace import find_namespace
from netcl.backends.reference.tensors import TensorCalls
from netcl.backends.reference.update import UpdateCalls
from netcl.dtypes import float64


@final
class ReferenceBackend:
    """The backend protocol over an array library.

    The protocol's calls are methods of memory and operations, bound here, so that a call costs no frame more.

    Parameters
    ----------
    namespace : module or Namespace, optional
        An array library that ``array_api_compat`` knows or that follows the standard, such as ``torch``, or what netcl
        knows of one (:class:`~netcl.backends.reference.namespace.Namespace`). NumPy by default.
    name : str, default "numpy"
        What ``backend.device.backend`` says.
    index : int, default 0
        What ``backend.device.index`` says.
    place : optional
        The library's own device to put arrays on; where the library puts new ones by default.

    Examples
    --------
    >>> import netcl
    >>> from netcl.backends.base import Span
    >>> from netcl.backends.reference import ReferenceBackend
    >>> backend = ReferenceBackend()
    >>> x = Span(backend.alloc(3, netcl.float32), 0, 3)
    >>> backend.fill(x, 2.0)
    >>> backend.scale(1.5, x)
    >>> backend.download(x)
    array([3., 3., 3.], dtype=float32)
    """

    def __init__(self, namespace: Any = None, name: str = "numpy", *, index: int = 0, place: Any = None) -> None:
        self.namespace = found = find_namespace(namespace, place)
        library = found.xp if namespace is None or namespace is found else namespace
        kind, model, memory_size = _described(library, found.place)
        self.device = Device(
            backend=name,
            index=index,
            name=model,
            platform=library.__name__.rpartition(".")[2],
            driver=str(getattr(library, "__version__", "")),
            kind=kind,
            memory=memory_size,
            aliases=str(found.place or ""),
            float64=found.supports(float64),
            shares_host_memory=found.shares_host_memory,
        )
        memory = Memory(found)
        evaluation = Evaluation(memory)
        arrays = ArrayCalls(memory, evaluation)
        update = UpdateCalls(memory, evaluation, arrays)
        self.supports = found.supports
        self.alloc = memory.alloc
        self.upload = memory.upload
        self.download = memory.download
        self.synchronize = memory.synchronize
        self.wrap_host_memory = memory.wrap_host_memory
        self.map_host = memory.map_host
        self.fill = update.fill
        self.scale = update.scale
        self.axpy = update.axpy
        self.norm_partials = update.norm_partials
        self.norm_reduce = update.norm_reduce
        self.prepare_step = update.prepare_step
        self.fused_adam = update.fused_adam
        self.fused_update = update.fused_update
        self.tensor_update = TensorCalls(memory, evaluation, update).tensor_update
        self.map = evaluation.map
        self.reduce = arrays.reduce
        self.arg_reduce = arrays.arg_reduce
        self.batched_matmul = arrays.batched_matmul
        self.gather = arrays.gather
        self.scatter = arrays.scatter
        self.scatter_add = arrays.scatter_add
        self.scan = arrays.scan
        self.sort = arrays.sort
        self.softmax = arrays.softmax
        self.softmax_cross_entropy = arrays.softmax_cross_entropy
        self.random_bits = arrays.random_bits


def _described(library: Any, place: Any) -> tuple[str, str, int]:
    """Kind, name and memory of a device of the library, as far as the library tells."""
    text = str(place or "cpu")
    if text.partition(":")[0] in ("cpu", "CPU_DEVICE"):
        return "cpu", _processor(), _memory()
    module = getattr(library, text.partition(":")[0], None)
    model, memory = text, 0
    with suppress(Exception):  # whatever the library does not tell
        properties = module.get_device_properties(place)  # type: ignore[union-attr]
        model, memory = str(properties.name), int(properties.total_memory)
    with suppress(Exception):
        model, memory = place.pci_bus_id, int(place.mem_info[1])
    return "gpu", model, memory


def _processor() -> str:
    """The processor's model, or ``"host"`` where the system does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "host"


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 0
