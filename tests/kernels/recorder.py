"""Every program that the backend builds, as the compiler gets it, without building or running any."""

from __future__ import annotations

import itertools

import numpy as np

from netcl import dtypes
from netcl import expression as ex
from netcl.backends.base import Span
from netcl.backends.opencl import probe_child
from netcl.backends.opencl.backend import OpenCLBackend
from netcl.backends.opencl.device.defects import FAMILIES, Defect, Defects, dtype_class
from netcl.backends.opencl.device.probe_cases import PLAIN
from netcl.backends.opencl.device.program import compose
from netcl.backends.opencl.device.queue import Queue
from netcl.errors import DTypeError

# Of each width and kind one, for a vector's width depends on nothing else, but for casts to uint32.
REAL = [dtypes.uint8, dtypes.int16, dtypes.uint32, dtypes.int64, dtypes.bfloat16, dtypes.float32, dtypes.float64]
FLOATS = [dtype for dtype in REAL if dtype.is_floating]
COMPUTES = (dtypes.float32, dtypes.float64)

FLAT = (("WIDTH", 8), ("RUN", 2), ("WORK_GROUP_SIZE", 16))
WIDEST = {
    **dict.fromkeys(("fill", "scale", "axpy"), FLAT),
    **dict.fromkeys(("fused_adam", "fused_update"), (*FLAT, ("INTERLEAVED", 0))),
    "norm_reduce": (("WIDTH", 8), ("LANES", 4), ("PIECE", 1024)),
}
"""The widest vectors that a tuning table may ask for, also on GPUs; narrower ones hold no more bytes."""


class _Kernel:
    """What a kernel is to its callers before it is launched."""

    def set_args(self, *args):
        pass

    def set_arg(self, *args):
        pass


def recording(cl_device, form):
    """An OpenCL backend whose kernels are texts, and the dictionary that they are keys of."""
    queue, programs = Queue(cl_device), {}

    def own(file, entry, defines=(), generated="", arguments=()):
        programs[file, defines, generated] = None
        return _Kernel()

    queue.kernels.own, queue.launch, queue.is_cpu = own, lambda *_: None, form == "cpu"
    return OpenCLBackend(queue), programs


def run(call, *operands, **named):
    """A call that may be refused for its dtypes, which is not a program at all."""
    try:
        call(*operands, **named)
    except DTypeError:
        return


def _flat(b):
    for dtype in REAL:
        x = Span(b.alloc(8, dtype), 0, 8)
        run(b.fill, x, 1)
        run(b.scale, 1, x)
        for other in REAL:
            y = Span(b.alloc(8, other), 0, 8)
            run(b.axpy, 1, x, y)
            run(b.axpy, Span(b.alloc(1, dtype), 0, 1), y, y)


def _maps(b):
    for source, target in itertools.product(REAL, REAL):
        x, out = probe_child.view(b, np.zeros((3, 9)), source), probe_child.view(b, np.zeros((3, 9)), target)
        run(b.map, ex.conversion(source, target), (x,), (out,))
        for op, axis in (("sum", 0), ("max", 1))[: 2 if source is target else 1]:
            total = probe_child.view(b, np.zeros((9, 3)[axis]), target)
            run(b.reduce, op, ex.conversion(source, source), (x,), (axis,), total)
            run(b.scan, op, ex.conversion(source, source), (x,), axis, out)


def _rows(b):
    labels = probe_child.view(b, np.zeros(3), dtypes.int64)
    for source, target in itertools.product(FLOATS, FLOATS):
        x, out = probe_child.view(b, np.zeros((3, 9)), source), probe_child.view(b, np.zeros((3, 9)), target)
        run(b.softmax, x, out, log=True)
        loss = probe_child.view(b, np.zeros(3), target)
        run(b.softmax_cross_entropy, x, labels, loss, out, 0.1, -1)
        run(b.softmax_cross_entropy, x, labels, loss, None, 0.1, -1)


def _products(b):
    for source, target in itertools.product(REAL, REAL):
        x, y = (probe_child.view(b, np.zeros((1, 3, 3)), dtype) for dtype in (source, target))
        run(b.batched_matmul, x, y, y)


def _norms(b):
    for dtype, compute in itertools.product(FLOATS, COMPUTES):
        x = Span(b.alloc(5000, dtype), 0, 5000)
        size = 2 * b.norm_partials(5000)
        for order in (1, 2, 3, float("inf")):
            run(b.norm_reduce, x, Span(b.alloc(size, compute), 0, size), order)


def _families(b):
    for family in FAMILIES:
        trial = probe_child.TRIALS[family]
        for dtype in REAL:
            run(trial, b, dtype)


def programs(cl_device):
    """The text of every program, by a name that says where it comes from."""
    found = {}
    for form in ("cpu", "gpu"):
        b, recorded = recording(cl_device, form)
        for call, knobs in WIDEST.items():
            b.queue.set_knobs(call, knobs)
        for calls in (_families, *((_flat, _norms, _maps, _rows, _products) if form == "cpu" else ())):
            calls(b)
        found |= recorded
    b, recorded = recording(cl_device, "cpu")
    plain = Defect("", plain=True)
    b.queue.defects = Defects({(family, dtype_class(dtype)): plain for family in PLAIN for dtype in REAL})
    _families(b)
    found |= recorded
    return {
        f"{file} {dict(defines)} #{number}": compose(file, defines, generated)
        for number, (file, defines, generated) in enumerate(found)
    }
