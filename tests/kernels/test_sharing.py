"""Memory in common with pyopencl: values, the order of work between queues, and who keeps what."""

from __future__ import annotations

import gc
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl import dtypes
from netcl.errors import ArgumentError, BackendError, DeviceMismatchError, DTypeError, ShapeError

cl = pytest.importorskip("pyopencl")  # after netcl, which lets it see all runtimes
cl_array = pytest.importorskip("pyopencl.array")

N = 100_000


@pytest.fixture(scope="module")
def queue(opencl):
    return netcl.opencl.queue(opencl.device)


def views(data, x):
    """A view of any strides, as slices and an order of axes take it."""
    key = []
    for extent in x.shape:
        start, stop = sorted(data.draw(st.tuples(st.integers(0, extent), st.integers(0, extent))))
        key.append(slice(start, stop, data.draw(st.integers(1, 2))))
    return tuple(key)


def held_by(queue):
    """The own queue, held up by the event that comes with it, if any, until that is set."""
    gate = cl.UserEvent(queue.context)
    cl.enqueue_barrier(queue, wait_for=[gate])
    return gate


def let_go(gate):
    gate.set_status(cl.command_execution_status.COMPLETE)


@given(data=st.data())
def test_an_array_and_its_tensor_are_one_memory(opencl, queue, data):
    names = [dtype.name for dtype in dtypes.ALL if dtype is not dtypes.bfloat16 and opencl.supports(dtype)]
    dtype = data.draw(st.sampled_from(names))
    shape = data.draw(st.sampled_from([(5,), (3, 4), (2, 3, 2), ()]))
    host = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    whole = cl_array.to_device(queue, host)
    key = views(data, whole)
    part = whole[key] if key else whole
    for take in (netcl.opencl.from_pyopencl, netcl.asarray):
        x = take(part)
        assert (x.shape, x.dtype.name, x.device) == (host[key].shape, dtype, opencl.device)
        np.testing.assert_array_equal(x.numpy(), host[key], strict=True)
    x[...], host[key] = 1, 1
    np.testing.assert_array_equal(whole.get(), host, strict=True)
    back = netcl.opencl.to_pyopencl(x)
    assert (back.shape, back.dtype) == (x.shape, np.dtype(dtype))
    if x.size:
        assert back.base_data == whole.base_data
        assert (back.offset, back.strides) == (part.offset, part.strides)


@given(data=st.data())
def test_a_tensor_and_its_array_are_one_memory(opencl, queue, data):
    x = netcl.asarray(np.arange(24, dtype=np.int32).reshape(4, 6), device=opencl.device)
    x = x[views(data, x)]
    if data.draw(st.booleans()):
        x = x.T
    if data.draw(st.booleans()):
        x = x[::-1]
    a = netcl.opencl.to_pyopencl(x)
    again = netcl.opencl.from_pyopencl(a)
    np.testing.assert_array_equal(again.numpy(), x.numpy(), strict=True)
    again[...] = 7
    assert (x.numpy() == 7).all()


@given(st.sampled_from(["float32", "bfloat16", "int64", "bool"]), st.integers(0, 3), st.integers(0, 12))
def test_part_of_a_buffer(opencl, queue, name, start, n):
    dtype = dtypes.BY_NAME[name]
    buffer = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, 16 * dtype.itemsize)
    whole = netcl.opencl.from_pyopencl(buffer, shape=16, dtype=dtype)
    whole[...] = 0
    part = netcl.opencl.from_pyopencl(buffer, shape=(n, 1), dtype=name, offset=start * dtype.itemsize)
    part[...] = 1
    assert [bool(each) for each in whole.tolist()] == [start <= place < start + n for place in range(16)]


def test_netcl_waits_for_the_queue_of_the_array(opencl, queue):
    other = cl.CommandQueue(queue.context)
    for named in (False, True):
        a = cl_array.zeros(other, N, np.float32)
        gate = held_by(other)
        cl.enqueue_fill_buffer(other, a.base_data, np.float32(3), 0, 4 * N)
        source = a.with_queue(None) if named else a
        y = netcl.opencl.from_pyopencl(source, queue=other if named else None) * 2
        let_go(gate)
        assert (y.numpy() == 6).all()


def test_netcl_waits_for_the_events_of_the_array(opencl, queue):
    other = cl.CommandQueue(queue.context)
    a = cl_array.zeros(queue, N, np.float32)
    queue.finish()
    gate = held_by(other)
    a.add_event(cl.enqueue_fill_buffer(other, a.base_data, np.float32(3), 0, 4 * N))
    other.flush()
    y = netcl.asarray(a) * 2
    let_go(gate)
    assert (y.numpy() == 6).all()


def test_the_other_queue_waits_for_netcl(opencl, queue):
    other = cl.CommandQueue(queue.context)
    x = netcl.zeros(N, device=opencl.device)
    gate = held_by(queue)
    x += 5
    a = netcl.opencl.to_pyopencl(x, queue=other)
    found = np.empty(N, np.float32)
    copied = cl.enqueue_copy(other, found, a.base_data, is_blocking=False)
    let_go(gate)
    copied.wait()
    assert (found == 5).all()


def test_memory_is_kept_by_either_side(opencl, queue):
    x = netcl.full(N, 2.0, device=opencl.device)
    a = netcl.opencl.to_pyopencl(x)
    part = a[10:]
    del x, a
    gc.collect()
    others = [netcl.full(N, -1.0, device=opencl.device) for _ in range(3)]
    assert (part.get() == 2).all()
    y = netcl.opencl.from_pyopencl(part)
    del part
    gc.collect()
    others += [netcl.full(N, -1.0, device=opencl.device) for _ in range(3)]
    assert (y.numpy() == 2).all()
    pool = cl.tools.MemoryPool(cl.tools.ImmediateAllocator(queue))
    z = netcl.opencl.from_pyopencl(cl_array.zeros(queue, N, np.float32, allocator=pool))
    held = pool.active_blocks
    others.append(cl_array.empty(queue, N, np.float32, allocator=pool))
    assert pool.active_blocks == held + 1
    assert (z.numpy() == 0).all()
    del z
    opencl.synchronize()
    assert pool.active_blocks == held


def test_memory_is_used_again_only_after_the_other_queue(opencl, queue):
    other = cl.CommandQueue(queue.context)
    x = netcl.full(N, 2.0, device=opencl.device)
    a = netcl.opencl.to_pyopencl(x, queue=other)
    result = cl.Buffer(queue.context, cl.mem_flags.READ_WRITE, 4 * N)
    gate = held_by(other)
    cl.enqueue_copy(other, result, a.base_data, byte_count=4 * N)
    del x, a
    gc.collect()
    others = [netcl.full(N, -1.0, device=opencl.device) for _ in range(3)]
    let_go(gate)
    opencl.synchronize()
    found = np.empty(N, np.float32)
    cl.enqueue_copy(other, found, result)
    assert (found == 2).all()
    assert len(others) == 3


class Derived(cl_array.Array):
    """As other libraries derive theirs."""


def test_asarray_takes_arrays_of_derived_classes(opencl, queue):
    a = Derived(queue, 3, np.float32)
    x = netcl.asarray(a)
    x[...] = 4
    assert a.get().tolist() == [4, 4, 4]


def test_asarray_copies_where_it_is_told(opencl, queue):
    a = cl_array.to_device(queue, np.arange(4, dtype=np.float32))
    assert netcl.asarray(a, copy=False).storage.buffer.mem == a.base_data
    for copy in (netcl.asarray(a, copy=True), netcl.asarray(a, dtype="float16"), netcl.asarray(a, device="numpy")):
        copy += 1
        assert a.get().tolist() == [0, 1, 2, 3]
    with pytest.raises(ArgumentError):
        netcl.asarray(a, copy=False, dtype="int32")


@cache
def foreign(queue):
    """A queue of another context, which is kept: Intel's runtime forgets one that only a queue refers to."""
    KEPT.append(cl.Context([queue.device]))
    return cl.CommandQueue(KEPT[-1])


KEPT = []
REFUSALS = {
    "array of another context": (
        lambda q, x: netcl.asarray(cl_array.zeros(foreign(q), 3, "f4")), DeviceMismatchError, "none of netcl's",
    ),
    "buffer of another context": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(foreign(q).context, 1, 64), shape=2, dtype="float32"),
        DeviceMismatchError, r"netcl.opencl.queue\(\)",
    ),
    "queue of another context": (
        lambda q, x: netcl.opencl.from_pyopencl(cl_array.zeros(q, 3, "f4"), queue=foreign(q)), DeviceMismatchError,
        "make the queue",
    ),
    "queue of another context out": (
        lambda q, x: netcl.opencl.to_pyopencl(x, queue=foreign(q)), DeviceMismatchError, "make the queue",
    ),
    "no queue": (lambda q, x: netcl.opencl.to_pyopencl(x, queue=3), ArgumentError, "CommandQueue.*int"),
    "buffer without a shape": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), dtype="int8"), ArgumentError, "shape",
    ),
    "array with a shape": (
        lambda q, x: netcl.opencl.from_pyopencl(cl_array.zeros(q, 3, "f4"), shape=3), ArgumentError, "of its own",
    ),
    "too large": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape=17, dtype="float32"), ShapeError,
        "bytes 0 to 68.*has 64",
    ),
    "too far": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape=16, dtype="float32", offset=4),
        ShapeError, "bytes 4 to 68.*has 64",
    ),
    "between elements": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape=3, dtype="float32", offset=2),
        ShapeError, "not whole elements of 4 bytes",
    ),
    "NumPy": (lambda q, x: netcl.opencl.from_pyopencl(np.zeros(3)), ArgumentError, "ndarray has no shape and dtype"),
    "offset before the buffer": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape=3, dtype="int8", offset=-1),
        ArgumentError, "offset",
    ),
    "no shape": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape="3", dtype="int8"), ShapeError,
        "shape must be an integer",
    ),
    "no dtype": (
        lambda q, x: netcl.opencl.from_pyopencl(cl.Buffer(q.context, 1, 64), shape=3, dtype="int7"), DTypeError, "int7",
    ),
    "no queue in": (
        lambda q, x: netcl.opencl.from_pyopencl(cl_array.zeros(q, 3, "f4"), queue="q"), ArgumentError,
        "CommandQueue.*str",
    ),
    "no Tensor": (lambda q, x: netcl.opencl.to_pyopencl(np.zeros(3)), DTypeError, "takes Tensors"),
    "no device": (lambda q, x: netcl.opencl.queue("opencl:none of them"), BackendError, "none of them"),
    "dtype": (
        lambda q, x: netcl.opencl.from_pyopencl(cl_array.zeros(q, 3, cl.cltypes.float4)), DTypeError, "unknown dtype",
    ),
    "bfloat16": (lambda q, x: netcl.opencl.to_pyopencl(x.astype("bfloat16")), DTypeError, "no bfloat16.*float32"),
    "on NumPy": (lambda q, x: netcl.opencl.to_pyopencl(x.to("numpy")), BackendError, "numpy is no OpenCL device"),
    "queue of NumPy": (lambda q, x: netcl.opencl.queue("numpy"), BackendError, "numpy is no OpenCL device"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(opencl, queue, name):
    call, error, words = REFUSALS[name]
    with pytest.raises(error, match=words):
        call(queue, netcl.ones(3, device=opencl.device))


def test_arrays_in_shared_virtual_memory_are_refused(opencl, queue):
    if not opencl.queue.pool.visible:
        pytest.skip(f"{opencl.device} has none")
    a = cl_array.Array(queue, 3, np.float32, allocator=cl.tools.SVMAllocator(queue.context, queue=queue))
    with pytest.raises(ArgumentError, match=r"netcl.asarray\(x.get\(\)\)"):
        netcl.asarray(a)
