"""Every kernel family on every class of dtypes in short form, held against the reference backend.

This is what a child process of the probe runs; whatever it meets there, also an abort, is an answer.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from netcl import expression as ex
from netcl.backends.base import (
    ADAM_COLUMNS,
    CHUNK,
    HEADER,
    RECORDS,
    Backend,
    BlockFormat,
    BlockSpan,
    Span,
    StepBlock,
    TensorMap,
    TensorRule,
    View,
)
from netcl.backends.opencl.device.defects import Defect, Defects, dtype_class
from netcl.backends.opencl.device.probe_cases import MARK, PATIENCE, Case
from netcl.dtypes import BY_NAME, DType, float32, int64, uint8, uint16
from netcl.errors import DTypeError
from netcl.host_dtypes import stored_as, values_of
from netcl.strides import contiguous_strides
from netcl.update_rules import adam_numbers

N = 1003
"""Elements of flat operands: whole vectors of every width, and a tail."""

TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "16-bit floats": 2e-2, "64-bit integers": 0.0, "small integers": 0.0}

HYPER = {"active": 1.0, "sign": 1.0, **adam_numbers(0.01, (0.9, 0.99), 1e-6, decay=0.01)}

Array = npt.NDArray[Any]
Trial = Callable[[Backend, DType], list[Array]]


def span(backend: Backend, values: Array, dtype: DType) -> Span:
    """``values`` on a backend: whole numbers of at most 8 bits, which every dtype holds."""
    flat = np.ravel(values)
    host = stored_as(flat, dtype)
    made = Span(backend.alloc(host.size, dtype), 0, host.size)
    backend.upload(host, made)
    return made


def view(backend: Backend, values: Array, dtype: DType) -> View:
    """The same as a contiguous array."""
    return View(span(backend, values, dtype).buffer, 0, values.shape, contiguous_strides(values.shape))


def read(backend: Backend, x: Span | View) -> Array:
    """What the elements are now. **Blocks**."""
    size = x.size if isinstance(x, Span) else math.prod(x.shape)
    host: Array = np.asarray(backend.download(Span(x.buffer, 0, size)))
    return values_of(host, x.dtype)


def counting(*shape: int, cycle: int = 7) -> Array:
    """0, 1, … over and over."""
    return (np.arange(math.prod(shape)) % cycle).reshape(shape)


def _fill(b: Backend, dtype: DType) -> list[Array]:
    x = span(b, counting(N), dtype)
    b.fill(x, 5)
    return [read(b, x)]


def _scale(b: Backend, dtype: DType) -> list[Array]:
    x = span(b, counting(N), dtype)
    b.scale(2, x)
    return [read(b, x)]


def _axpy(b: Backend, dtype: DType) -> list[Array]:
    y = span(b, counting(N, cycle=5), dtype)
    b.axpy(2, span(b, counting(N), dtype), y)
    return [read(b, y)]


def _map(b: Backend, dtype: DType) -> list[Array]:
    def mixed(x: ex.Node, y: ex.Node) -> tuple[ex.Node, ex.Node]:
        joined = ex.where(x < y, x + y, x * y)
        return (ex.exp(ex.sqrt(joined)) if dtype.is_floating else joined), x - y

    expression = ex.trace(mixed, (dtype, dtype), stored=(dtype, float32))
    operands = [view(b, counting(3, 331, cycle=cycle), dtype) for cycle in (5, 4)]
    outputs = [view(b, np.zeros((3, 331)), stored) for stored in (dtype, float32)]
    b.map(expression, operands, outputs)
    return [read(b, output) for output in outputs[: 2 if dtype.kind in "fi" else 1]]


def _reduce(b: Backend, dtype: DType) -> list[Array]:
    x = view(b, counting(41, 53, cycle=3), dtype)
    out = view(b, np.zeros(41), dtype)
    b.reduce("sum", ex.conversion(dtype, dtype), (x,), (1,), out)
    return [read(b, out)]


def _scan(b: Backend, dtype: DType) -> list[Array]:
    found = []
    for axis in (0, 1):
        x, out = view(b, counting(41, 53, cycle=3), dtype), view(b, np.zeros((41, 53)), dtype)
        b.scan("sum", ex.conversion(dtype, dtype), (x,), axis, out)
        found.append(read(b, out))
    return found


def _sort(b: Backend, dtype: DType) -> list[Array]:
    out, places = view(b, np.zeros((5, 353)), dtype), view(b, np.zeros((5, 353)), int64)
    b.sort(view(b, counting(5, 353, cycle=29), dtype), 1, out, places, descending=True)
    return [read(b, out), read(b, places)]


def _arg_reduce(b: Backend, dtype: DType) -> list[Array]:
    out = view(b, np.zeros(41), int64)
    b.arg_reduce("argmax", view(b, counting(41, 53, cycle=29), dtype), 1, out)
    return [read(b, out)]


def _gather(b: Backend, dtype: DType) -> list[Array]:
    out = view(b, np.zeros((2, 5, 33)), dtype)
    indices = view(b, counting(2, 5, 33, cycle=4), int64)
    b.gather(view(b, counting(2, 4, 33), dtype), indices, out)
    return [read(b, out)]


def _scatter(b: Backend, dtype: DType) -> list[Array]:
    out = view(b, counting(2, 4, 33), dtype)
    indices = view(b, counting(2, 5, 33, cycle=4), int64)
    b.scatter(view(b, counting(2, 5, 33, cycle=3), dtype), indices, out)
    return [read(b, out)]


def _scatter_add(b: Backend, dtype: DType) -> list[Array]:
    out = view(b, counting(2, 4, 33), dtype)
    indices = view(b, counting(2, 5, 33, cycle=4), int64)
    b.scatter_add(view(b, counting(2, 5, 33, cycle=3), dtype), indices, out)
    return [read(b, out)]


def _batched_matmul(b: Backend, dtype: DType) -> list[Array]:
    found = []
    for m, k, n in ((7, 5, 19), (1, 33, 3)):
        out = view(b, np.zeros((2, m, n)), dtype)
        b.batched_matmul(view(b, counting(2, m, k, cycle=3), dtype), view(b, counting(2, k, n, cycle=2), dtype), out)
        found.append(read(b, out))
    return found


def _softmax(b: Backend, dtype: DType) -> list[Array]:
    x = view(b, counting(5, 37), dtype)
    out = view(b, np.zeros((5, 37)), dtype)
    b.softmax(x, out, log=False)
    return [read(b, out)]


def _softmax_cross_entropy(b: Backend, dtype: DType) -> list[Array]:
    x, labels = view(b, counting(5, 37), dtype), view(b, np.array([0, 36, 3, -1, 8]), int64)
    loss, gradient = view(b, np.zeros(5), dtype), view(b, np.zeros((5, 37)), dtype)
    b.softmax_cross_entropy(x, labels, loss, gradient, 0.1, -1)
    return [read(b, loss), read(b, gradient)]


def _random_bits(b: Backend, dtype: DType) -> list[Array]:
    out = view(b, np.zeros(N), dtype)
    b.random_bits(out, (1 << 40) + 5, (1 << 34) - 9)
    return [read(b, out)]


def _records(b: Backend, dtype: DType) -> Span:
    size = 2 * b.norm_partials(3 * CHUNK + 5)
    records = span(b, np.zeros(size), dtype.compute)
    b.norm_reduce(span(b, counting(3 * CHUNK + 5) - 3, dtype), records, 2.0)
    return records


def _norm_reduce(b: Backend, dtype: DType) -> list[Array]:
    scales, sums = read(b, _records(b, dtype)).astype(np.float64).reshape(-1, 2).T
    return [np.sqrt(np.sum(sums * scales**2, keepdims=True))]


def _block(b: Backend, dtype: DType) -> StepBlock:
    return StepBlock.allocate(lambda numbers: span(b, np.array(numbers), dtype), ADAM_COLUMNS, [HYPER])


def _prepare_step(b: Backend, dtype: DType) -> list[Array]:
    block = _block(b, dtype)
    b.prepare_step(block, _records(b, dtype), max_norm=1.5)
    assert block.counters is not None
    # The norm may be split into its two factors otherwise, and the last value is unused.
    header = read(b, block.header)[[HEADER.index(name) for name in ("multiplier", "skip", "norm", "nonfinite")]]
    return [header, read(b, block.counters[1])[:3]]


def _step(b: Backend, dtype: DType, states: int) -> tuple[list[Span], StepBlock, Span]:
    n = CHUNK + 21
    fields = [span(b, counting(n, cycle=cycle), dtype) for cycle in (7, 5)]
    fields += [span(b, counting(n, cycle=3 + k), dtype.compute) for k in range(states)]
    return fields, _block(b, dtype.compute), span(b, np.zeros(2), uint16)


def _fused_adam(b: Backend, dtype: DType) -> list[Array]:
    (p, g, m, v), block, rows = _step(b, dtype, 2)
    b.fused_adam(p, g, m, v, None, block, rows, advance=True)
    assert block.counters is not None
    return [read(b, x) for x in (p, m, v)] + [read(b, block.counters[1])[:3]]


def _fused_update(b: Backend, dtype: DType) -> list[Array]:
    lr, beta = (ex.Node("hyper", (), dtype.compute, name) for name in ("lr", "beta1"))

    def momentum(p: ex.Node, g: ex.Node, v: ex.Node) -> tuple[ex.Node, ex.Node]:
        v = beta * v + g
        return p - lr * ex.sqrt(v * v + 1.0), v

    (p, g, v), block, rows = _step(b, dtype, 1)
    rule = ex.trace(momentum, (dtype, dtype, dtype.compute), stored=(dtype, dtype.compute))
    b.fused_update(rule, p, g, [v], block, rows, advance=True)
    return [read(b, p), read(b, v)]


def _tensor_update(b: Backend, dtype: DType) -> list[Array]:
    real = dtype.compute
    lr, beta, ratio = (ex.Node("hyper", (), real, name) for name in ("lr", "beta1", "ratio"))
    inputs, fields = (dtype, dtype, real, real), (dtype, real, real)

    def direction(p: ex.Node, g: ex.Node, v: ex.Node, u: ex.Node) -> tuple[ex.Node, ex.Node, ex.Node]:
        v = beta * v + g
        return p, v, v / (1.0 + abs(p))

    rule = TensorRule(
        ex.trace(direction, inputs, stored=fields),
        (ex.trace(lambda p, v, u: p, fields), ex.trace(lambda p, v, u: u, fields)),
        ex.trace(lambda of_p, of_u, size: lr * of_p / (of_u + size), (real, real, real)),
        ex.trace(lambda p, u, v: (p - ratio * u, v), (dtype, real, real), stored=(dtype, real)),
    )
    (p, g, v, u), block, rows = _step(b, dtype, 2)
    tensors = TensorMap(
        [0, 1, 2],
        span(b, np.arange(3), int64),
        span(b, np.arange(2), uint16),
        span(b, np.array([CHUNK, 21]), real),
        span(b, np.zeros(RECORDS * 4), real),
    )
    b.tensor_update(rule, p, g, [v, u], block, rows, tensors, chunk=0, advance=True)
    assert block.counters is not None
    return [read(b, x) for x in (p, v, u)] + [read(b, block.counters[1])[:3]]


def _block_update(b: Backend, dtype: DType) -> list[Array]:
    """Twice the numbers of a block have the same codes, and twice the scale."""
    (p, g), block, rows = _step(b, dtype, 0)
    codes, scales = counting(2 * CHUNK, cycle=127) * (np.arange(2 * CHUNK) < p.size), np.ones(2 * CHUNK // 256)
    codes[: p.size : 256] = 127  # the largest of each block
    state = BlockSpan(span(b, codes, uint8), span(b, scales, float32), BlockFormat(8, signed=True))
    rule = ex.trace(lambda p, g, m: (p - m, m + m + 0.0 * g), (dtype, dtype, float32), stored=(dtype, float32))
    b.fused_update(rule, p, g, [state], block, rows, advance=True)
    return [read(b, p), read(b, state.codes), read(b, state.scales)[: CHUNK // 256 + 1]]


TRIALS: dict[str, Trial] = {
    "fill": _fill, "scale": _scale, "axpy": _axpy, "map": _map, "reduce": _reduce, "scan": _scan, "sort": _sort,
    "arg_reduce": _arg_reduce, "gather": _gather, "scatter": _scatter, "scatter_add": _scatter_add,
    "batched_matmul": _batched_matmul, "softmax": _softmax, "softmax_cross_entropy": _softmax_cross_entropy,
    "random_bits": _random_bits, "norm_reduce": _norm_reduce, "prepare_step": _prepare_step,
    "fused_adam": _fused_adam, "fused_update": _fused_update, "block_update": _block_update,
    "tensor_update": _tensor_update,
}  # fmt: skip
"""What is tried of each family."""


def try_case(device: Any, reference: Backend, case: Case) -> None:
    """Run one trial on an OpenCL backend.

    Raises
    ------
    ValueError
        If the result is not the reference's.
    """
    trial = TRIALS[case.family]
    dtype = BY_NAME[case.dtype]
    kind = dtype_class(dtype)
    device.queue.defects = Defects({(case.family, kind): Defect("", plain=True)} if case.plain else {})
    tolerance = TOLERANCE[kind]
    for got, wanted in zip(trial(device, dtype), trial(reference, dtype), strict=True):
        if not np.allclose(got, wanted, rtol=tolerance, atol=tolerance):
            place = int(np.argmax(~np.isclose(got, wanted, rtol=tolerance, atol=tolerance)))
            raise ValueError(f"element {place} is {got.flat[place]} and should be {wanted.flat[place]}")


def main(request: str) -> None:
    """What a child of the probe does: run trials, and say when each begins and how it ends.

    Parameters
    ----------
    request : str
        JSON: the device's position in ``selection.list_devices()``, and the cases.
    """
    position, wanted = json.loads(request)
    with contextlib.suppress(ImportError, OSError, ValueError):  # an abort is expected and needs no core file
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from netcl.backends.opencl.backend import OpenCLBackend
    from netcl.backends.opencl.device.queue import Queue
    from netcl.backends.opencl.device.selection import list_devices
    from netcl.backends.reference import ReferenceBackend

    # By a thread that needs no lock of Python's: a runtime may hang while it holds that.
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    device, reference = OpenCLBackend(Queue(list_devices()[position])), ReferenceBackend()
    for number, case in enumerate(wanted):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        _say(number, "begun")
        try:
            try_case(device, reference, Case(*case))
        except DTypeError as error:
            _say(number, "refused", str(error))
        except Exception as error:  # whatever it is, it is the answer
            _say(number, "failed", f"{type(error).__name__}: {error}"[:500])
        else:
            _say(number, "passed")
    faulthandler.cancel_dump_traceback_later()


def _say(number: int, end: str, said: str = "") -> None:
    # On a line of its own whatever the runtime has printed, and at once, for the next call may end the process.
    sys.stdout.write(f"\n{MARK}{json.dumps([number, end, said])}\n")
    sys.stdout.flush()
