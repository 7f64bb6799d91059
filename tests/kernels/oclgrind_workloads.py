"""A small run of every kernel, for Oclgrind to watch: ``python oclgrind_workloads.py cpu|gpu NAME...``.

Add a kernel by adding a function that calls it; ``test_oclgrind.py`` finds it and fails on whatever Oclgrind reports.
Sizes are odd and small: the simulator does some 0.3 million work-items per second. After each name stands on a line of
its own how many launches it took and how long Oclgrind's log has become.
"""

from __future__ import annotations

import math
import os
import sys

import numpy as np

from netcl import dtypes
from netcl import expression as ex
from netcl.backends import get_backend
from netcl.backends.base import (
    ADAM_COLUMNS,
    CHUNK,
    RECORDS,
    BlockFormat,
    BlockSpan,
    Span,
    StepBlock,
    TensorMap,
    TensorRule,
    View,
)
from netcl.quantization import dequantize, quantize
from netcl.stochastic import stochastically_rounded
from netcl.strides import contiguous_strides
from tests.kernels.forms import own_backend

F32, F64 = dtypes.float32, dtypes.float64
WORKLOADS = {}


def workload(function):
    WORKLOADS[function.__name__] = function
    return function


def span(backend, values, dtype=F32, offset=3):
    values = np.asarray(values, "uint16" if dtype is dtypes.bfloat16 else dtype.name).reshape(-1)
    whole = Span(backend.alloc(values.size + offset, dtype), 0, values.size + offset)
    backend.upload(np.concatenate([np.zeros(offset, values.dtype), values]), whole)
    return Span(whole.buffer, offset, values.size)


def view(backend, values, dtype=F32):
    held = span(backend, values, dtype)
    shape = np.shape(values)
    return View(held.buffer, held.offset, shape, contiguous_strides(shape))


def turned(x):
    """The same elements with the last two axes exchanged."""
    return View(
        x.buffer,
        x.offset,
        (*x.shape[:-2], x.shape[-1], x.shape[-2]),
        (*x.strides[:-2], x.strides[-1], x.strides[-2]),
    )


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def block(backend, rows, columns=ADAM_COLUMNS, dtype=F32):
    row = dict(zip(ADAM_COLUMNS, (1, 1, 0.1, 0.9, 0.1, 0.99, 0.01, 1e-8, 0.1, 0.1, -0.1, -0.01, 1), strict=True))
    table = [{**row, "active": number != 1} for number in range(rows)]
    return StepBlock.allocate(lambda numbers: span(backend, numbers, dtype), columns, table)


def fields(backend, n, count, dtype=F32):
    return [span(backend, np.abs(numbers(n, seed=i)), dtype, offset=i) for i in range(count)]


def row_map(backend, n, rows=3):
    return span(backend, np.arange(-(-n // CHUNK)) % rows, dtypes.uint16, offset=1)


@workload
def fill(backend):
    for dtype in (dtypes.bool_, dtypes.float16, F32, F64):
        backend.fill(span(backend, np.zeros(1003), dtype), 1)


@workload
def scale(backend):
    backend.scale(0.5, span(backend, numbers(1003)))
    backend.scale(span(backend, [2.0]), span(backend, numbers(9), dtypes.float16))


@workload
def axpy(backend):
    backend.axpy(0.5, span(backend, numbers(1003)), span(backend, numbers(1003), offset=1))
    backend.axpy(2, span(backend, numbers(13), dtypes.float16), span(backend, numbers(13)))


@workload
def norm_reduce(backend):
    for n, ord in ((0, 2.0), (1, 2.0), (5000, 2.0), (4111, 1.0), (1029, 3.0), (1029, math.inf)):
        x, records = span(backend, numbers(n)), span(backend, np.zeros(2 * backend.norm_partials(n)))
        backend.norm_reduce(x, records, ord)
    steps, rows, multiplier = block(backend, 3), row_map(backend, n), span(backend, [1e-30])
    backend.norm_reduce(x, records, 2.0, multiplier=multiplier, rows=rows, block=steps)
    half = span(backend, numbers(777), dtypes.float16)
    backend.norm_reduce(half, span(backend, np.zeros(2 * backend.norm_partials(777)), F64), 2.0)


@workload
def prepare_step(backend):
    for ord in (1.0, 2.0, 3.0, math.inf):
        backend.prepare_step(block(backend, 70), span(backend, np.abs(numbers(2 * 77))), ord=ord, max_norm=1.0)
    backend.prepare_step(block(backend, 5))
    for skip in (0.0, 1.0):
        records, loss_scale = span(backend, np.abs(numbers(2 * 5))), span(backend, [8.0, skip], offset=1)
        backend.prepare_step(block(backend, 70), records, max_norm=1.0, loss_scale=loss_scale)
        backend.prepare_step(StepBlock.allocate(lambda numbers: span(backend, numbers)), records, loss_scale=loss_scale)


@workload
def fused_adam(backend):
    n = CHUNK + 13
    for dtype, state in ((F32, F32), (dtypes.float16, F32), (dtypes.bfloat16, dtypes.bfloat16), (F64, F64)):
        p, g = fields(backend, n, 2, dtype)
        m, v, largest = fields(backend, n, 3, state)
        steps, rows = block(backend, 3, dtype=dtype.compute), row_map(backend, n)
        backend.fused_adam(p, g, m, v, None, steps, rows, advance=True)
        backend.fused_adam(p, g, m, v, largest, steps, rows, advance=False)
    p, g, m, v = fields(backend, 0, 4)
    backend.fused_adam(p, g, m, v, None, block(backend, 2), rows, advance=True)


@workload
def fused_update(backend):
    n = CHUNK + 5

    def momentum(p, g, v):
        v = ex.Node("hyper", (), F32, "beta1") * v + g
        return p - ex.Node("hyper", (), F32, "lr") * v / ex.Node("hyper", (), F32, "step"), v

    rule = ex.trace(momentum, (F32, F32, F32), stored=(F32, F32))
    p, g, v = fields(backend, n, 3)
    backend.fused_update(rule, p, g, [v], block(backend, 3), row_map(backend, n), advance=True)
    for dtype in (dtypes.float16, dtypes.bfloat16):

        def master(p, g, kept, dtype=dtype):
            updated = ex.where(ex.equal(ex.rounded(kept, dtype), p), kept, p) - g
            return updated, updated

        rule = ex.trace(master, (dtype, dtype, F32), stored=(dtype, F32))
        (p, g), (kept,) = fields(backend, n, 2, dtype), fields(backend, n, 1)
        backend.fused_update(rule, p, g, [kept], block(backend, 3), row_map(backend, n), advance=True)


def tensor_map(backend, sizes, dtype=F32):
    starts = np.cumsum([0, *(-(-size // CHUNK) for size in sizes)])
    of_chunk = np.repeat(np.arange(len(sizes)), np.diff(starts))
    parts = [(starts, dtypes.int64), (of_chunk, dtypes.uint16), (sizes, dtype)]
    room = RECORDS * int(starts[-1] + len(sizes))
    return TensorMap(starts.tolist(), *(span(backend, *part) for part in parts), span(backend, np.zeros(room), dtype))


@workload
def tensor_update(backend, chunks=17):
    """Tensors of several chunks, of none and of a rest; more records than one work-item adds up; a second look."""
    state = (F32, F32, F32)
    hyper = {name: ex.Node("hyper", (), F32, name) for name in ("lr", "beta1", "step", "ratio")}

    def direction(p, g, v, u):
        v = hyper["beta1"] * v + g
        return p, v, v / hyper["step"]

    rule = TensorRule(
        ex.trace(direction, (F32, *state), stored=state),
        (ex.trace(lambda p, v, u: p, state), ex.trace(lambda p, v, u: u, state)),
        ex.trace(lambda of_p, of_u, size: hyper["lr"] * of_p / (of_u + size), state),
        ex.trace(lambda p, u, v: (p - hyper["ratio"] / hyper["step"] * u, v), state, stored=state[:2]),
    )
    alone = TensorRule(rule.direction, (), ex.trace(lambda size: size, (F32,)), rule.update)

    def run(rule, sizes, row_of, factor=1.0, *, gradient=True):
        tensors = tensor_map(backend, sizes)
        n = (tensors.starts[-2]) * CHUNK + sizes[-1]
        p, g, v, u = fields(backend, n, 4)
        backend.scale(factor, p)
        rows = span(backend, np.repeat(row_of, np.diff(tensors.starts)), dtypes.uint16, offset=1)
        given = g if gradient else None
        backend.tensor_update(rule, p, given, [v, u], block(backend, 3), rows, tensors, chunk=0, advance=gradient)

    run(rule, [CHUNK + 1, 0, CHUNK, 7], [0, 0, 1, 2], 1e30)  # the third is inactive
    run(rule, [chunks * CHUNK, 3], [0, 2], gradient=False)
    run(alone, [5], [0])


@workload
def block_update(backend):
    n, size = CHUNK + 131, 2 * CHUNK
    rule = ex.trace(lambda p, g, m, v: (p - m, m + g, v + g * g), (F32,) * 4, stored=(F32,) * 3)
    for bits in (8, 4):
        p, g = fields(backend, n, 2)
        state = []
        for signed in (True, False):
            format = BlockFormat(bits, signed)
            codes = span(backend, np.zeros(size // format.per_byte), dtypes.uint8, offset=1)
            state.append(BlockSpan(codes, span(backend, np.zeros(size // format.block)), format))
        backend.fused_update(rule, p, g, state, block(backend, 1), row_map(backend, n, 1), advance=True)
    numbers_of_one = span(backend, np.abs(numbers(format.block)))
    quantize(backend, numbers_of_one, state[0].part(0, format.block))
    dequantize(backend, state[0].part(0, format.block), numbers_of_one)


@workload
def stochastic(backend):
    for dtype in (dtypes.float16, dtypes.bfloat16):
        p, number, g = (ex.Node("input", (), kind, i) for i, kind in ((0, F32), (2, dtypes.int32), (1, F32)))
        outputs = [stochastically_rounded(p - g, dtype, number)]
        rule = ex.build(outputs, (dtype, dtype, dtypes.int32), stored=(dtype,), name="stochastic")
        p, g = fields(backend, CHUNK + 5, 2, dtype)
        backend.fused_update(rule, p, g, [], block(backend, 3), row_map(backend, CHUNK + 5), advance=True)


@workload
def map(backend):
    rule = ex.trace(lambda x, y, a: ex.sqrt(abs(x * y)) + a, (F32, dtypes.float16), (F32,), stored=(F32,))
    x, y = view(backend, numbers(33, 37)), view(backend, numbers(37, 33), dtypes.float16)
    out = view(backend, np.zeros((33, 37)))
    backend.map(rule, [x, turned(y)], [out], [0.5])
    row = View(x.buffer, x.offset, (33, 37), (0, 1))
    backend.map(rule, [row, turned(y)], [turned(view(backend, np.zeros((37, 33))))], [0.5])


@workload
def reduce(backend):
    square = ex.trace(lambda x: x * x, (F32,), stored=(F32,))
    x = view(backend, numbers(7, 65, 33))
    for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        shape = tuple(extent for axis, extent in enumerate(x.shape) if axis not in axes)
        for op in ("sum", "max"):
            backend.reduce(op, square, [x], axes, view(backend, np.zeros(shape)))
    backend.reduce("sum", square, [view(backend, numbers(9001))], (0,), view(backend, np.zeros(())))


@workload
def scan(backend):
    from netcl.backends.opencl.ops import scan as scan_operation

    square = ex.trace(lambda x: x * x, (F32,), stored=(F32,))
    x, out = view(backend, numbers(3, 17, 9)), view(backend, np.zeros((3, 17, 9)))
    for axis in range(3):
        for op in ("sum", "max", "prod"):
            backend.scan(op, square, [x], axis, out)
    scan_operation.SHORTEST = 1 << 9  # so that there are parts
    for shape in ((5001,), (701, 2)):
        backend.scan("sum", square, [view(backend, numbers(*shape))], 0, view(backend, np.zeros(shape)))


@workload
def sort(backend):
    from netcl.backends.opencl.ops import sort as sort_operation
    from netcl.backends.opencl.ops.map import Map

    sort_operation.SHORT = 128  # so that there are parts
    kernel = sort_operation.Sort(backend.queue, Map(backend.queue), on_host=False).sort
    for values, dtype in ((numbers(2, 75), F32), (np.arange(150).reshape(2, 75) % 7, dtypes.uint8)):
        x, out = view(backend, values, dtype), view(backend, np.zeros((2, 75)), dtype)
        places = view(backend, np.zeros((2, 75)), dtypes.int64)
        kernel(x, 1, out, places, descending=False)
        kernel(turned(x), 0, None, turned(places), descending=True)
        kernel(x, 1, x, None, descending=False)
    x = view(backend, np.arange(301) % 97, dtypes.int16)
    kernel(x, 0, view(backend, np.zeros(301), dtypes.int16), None, descending=True)


@workload
def arg_reduce(backend):
    x = view(backend, numbers(9, 301))
    for axis in (0, 1):
        shape = tuple(extent for other, extent in enumerate(x.shape) if other != axis)
        backend.arg_reduce("argmax", x, axis, view(backend, np.zeros(shape), dtypes.int64))


@workload
def batched_matmul(backend):
    for batch, m, k, n in ((1, 33, 9, 35), (2, 5, 20, 1), (1, 1, 9, 40)):
        a, b = view(backend, numbers(batch, m, k)), view(backend, numbers(batch, n, k))
        backend.batched_matmul(a, turned(b), view(backend, np.zeros((batch, m, n))))
    integers = view(backend, np.ones((1, 9, 9)), dtypes.int32)
    backend.batched_matmul(integers, turned(integers), view(backend, np.zeros((1, 9, 9)), dtypes.int32))


def indices(backend, count, limit, shape):
    held = span(backend, np.random.default_rng(0).integers(-limit, limit, count), dtypes.int64)
    return View(held.buffer, held.offset, shape, (0, 1, 0))


@workload
def gather(backend):
    x, out = view(backend, numbers(3, 20, 11)), view(backend, np.zeros((3, 7, 11)))
    backend.gather(x, indices(backend, 7, 20, (3, 7, 11)), out)
    backend.gather(x, indices(backend, 7, 200, (3, 7, 11)), out)


@workload
def scatter(backend):
    updates, out = view(backend, numbers(3, 7, 11)), view(backend, np.zeros((3, 20, 11)))
    backend.scatter(updates, indices(backend, 7, 20, (3, 7, 11)), out)
    chosen = view(backend, np.random.default_rng(0).integers(-30, 20, (3, 7, 11)), dtypes.int32)
    backend.scatter(updates, chosen, out)


@workload
def scatter_add(backend):
    updates, out = view(backend, numbers(3, 7, 11)), view(backend, np.zeros((3, 20, 11)))
    backend.scatter_add(updates, indices(backend, 7, 20, (3, 7, 11)), out)
    backend.scatter_add(updates, indices(backend, 7, 200, (3, 7, 11)), out)


@workload
def softmax(backend):
    for rows, classes in ((5, 10), (3, 1000), (1, 1)):
        for log in (False, True):
            backend.softmax(view(backend, numbers(rows, classes)), view(backend, np.zeros((rows, classes))), log=log)


@workload
def softmax_cross_entropy(backend):
    for classes in (10, 300):
        logits, gradient = view(backend, numbers(7, classes)), view(backend, np.zeros((7, classes)))
        labels = view(backend, [0, 1, 9, -100, 3, 4, 999], dtypes.int64)
        backend.softmax_cross_entropy(logits, labels, view(backend, np.zeros(7)), gradient, 0.1, -100)
        backend.softmax_cross_entropy(logits, labels, view(backend, np.zeros(7)), None, 0.0, -100)


@workload
def random_bits(backend):
    backend.random_bits(view(backend, np.zeros(1003), dtypes.uint32), 7, 5)


@workload
def traffic(backend):
    from netcl.backends.opencl.tuner.search import bare_traffic

    for read, updated, written in ((1, 3, 0), (1, 0, 0), (0, 1, 1)):
        bare_traffic(backend, 3 * CHUNK + 5, read=read, updated=updated, written=written)()


@workload
def other_knobs(backend):
    """The knobs that no default has."""
    flat = ("WIDTH", "RUN", "WORK_GROUP_SIZE")
    for kernel in (fill, scale, axpy):
        for chosen in ((1, 4, 8), (2, 16, 4)):
            backend.queue.set_knobs(kernel.__name__, tuple(zip(flat, chosen, strict=True)))
            kernel(backend)
    backend.queue.set_knobs("norm_reduce", (("WIDTH", 2), ("LANES", 8), ("PIECE", 2048)))
    backend.queue.set_knobs("prepare_step", (("WORK_GROUP_SIZE", 8),))
    for kernel in (norm_reduce, prepare_step):
        kernel(backend)
    tensor_update(backend, 3)
    for kernel in (fused_adam, fused_update):
        for chosen in ((4, 8, 32, 1), (2, 32, 16, 0)):
            backend.queue.set_knobs(kernel.__name__, tuple(zip((*flat, "INTERLEAVED"), chosen, strict=True)))
            kernel(backend)


def main(form: str, *names: str) -> None:
    backend = get_backend("opencl:oclgrind")
    if form == "gpu":
        backend = own_backend(backend)
        backend.queue.is_cpu = False
    # Oclgrind calls memory uninitialised that the host wrote in part and a kernel wrote later: none is used twice.
    kept, pool = [], backend.queue.pool
    alloc = pool.alloc
    pool.alloc = lambda n, dtype: kept.append(alloc(n, dtype)) or kept[-1]
    log = os.environ["OCLGRIND_LOG"]
    for name in names:
        launches = backend.launches
        WORKLOADS[name](backend)
        try:
            backend.synchronize()
        except IndexError as error:
            print(f"reported: {error}")
        reported = os.path.getsize(log) if os.path.exists(log) else 0
        print("watched", name, backend.launches - launches, reported, backend.device.platform, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
