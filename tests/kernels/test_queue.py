"""Memory, transfers, kernels and launches of one OpenCL device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from netcl.backends.base import Span
from netcl.backends.opencl.device import program
from netcl.dtypes import bfloat16, bool_, float32, float64, int64
from netcl.errors import DeviceMismatchError, KernelBuildError, ShapeError
from tests.kernels.forms import own_backend


@pytest.fixture
def fresh(opencl):
    """A core of its own on the same device, so that pool and counters start from nothing."""
    return own_backend(opencl)


def test_device_is_described(opencl):
    device = opencl.device
    assert device.backend == "opencl"
    assert str(device) == f"opencl:{device.index}"
    assert device.kind in ("cpu", "gpu", "accelerator")
    assert device.memory > 0
    assert device.name
    assert device.platform
    assert opencl.supports(float64) == device.float64
    assert opencl.supports(bfloat16)


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_what_goes_up_comes_down(opencl, n):
    host = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    buffer = opencl.alloc(n + 3, float32)
    opencl.upload(host, Span(buffer, 2, n))
    np.testing.assert_array_equal(opencl.download(Span(buffer, 2, n)), host)


def test_large_transfers_round_trip_and_the_result_is_owned(fresh):
    n = 1 << 20
    host = np.arange(n, dtype=np.int64)
    span = Span(fresh.alloc(n + 1, int64), 1, n)
    fresh.upload(host, span)
    down = fresh.download(span)
    fresh.fill(span, 0)
    fresh.synchronize()
    np.testing.assert_array_equal(down, host)


def test_upload_takes_any_layout_and_the_host_may_change_at_once(fresh):
    host = np.arange(400_000, dtype=np.float32).reshape(2, -1).T
    expected = host.reshape(-1).copy()
    span = Span(fresh.alloc(host.size, float32), 0, host.size)
    for _ in range(20):
        fresh.upload(host, span)
        host += 1
        np.testing.assert_array_equal(fresh.download(span), expected)
        expected += 1


def test_many_uploads_in_flight_keep_their_values(fresh):
    n = 1000
    buffer = fresh.alloc(200 * n, float32)
    host = np.empty(n, np.float32)
    for i in range(200):
        host[:] = i
        fresh.upload(host, Span(buffer, i * n, n))
    down = fresh.download(Span(buffer, 0, 200 * n)).reshape(200, n)
    np.testing.assert_array_equal(down, np.broadcast_to(np.arange(200, dtype=np.float32)[:, None], (200, n)))


def test_upload_of_the_wrong_array_is_refused(opencl):
    span = Span(opencl.alloc(4, float32), 0, 4)
    with pytest.raises(ShapeError, match="3 elements of float32 into a span of 4"):
        opencl.upload(np.zeros(3, np.float32), span)
    with pytest.raises(ShapeError, match="pass 4 elements of float32"):
        opencl.upload(np.zeros(4), span)


def test_only_reading_blocks(fresh):
    span = Span(fresh.alloc(64, float32), 0, 64)
    before = fresh.blocking
    fresh.upload(np.zeros(64, np.float32), span)
    fresh.fill(span, 1)
    fresh.scale(2, span)
    assert (fresh.blocking, fresh.launches) == (before, 2)
    fresh.download(span)
    fresh.synchronize()
    assert fresh.blocking == before + 2


def test_operand_of_another_backend_is_refused(opencl):
    class Other:
        dtype, size = float32, 4

    with pytest.raises(DeviceMismatchError, match="Other of another backend"):
        opencl.fill(Span(Other(), 0, 4), 0)


def test_kernels_are_built_once(opencl):
    def get():
        return opencl.queue.kernels.shared("axpy.cl", "axpy", (("X", "float32"), ("Y", "float32")))

    with ThreadPoolExecutor(8) as threads:
        kernels = list(threads.map(lambda _: get(), range(32)))
    assert all(kernel is kernels[0] for kernel in kernels)
    assert opencl.queue.kernels.own("axpy.cl", "axpy", (("X", "float32"), ("Y", "float32"))) is not kernels[0]


def test_kernel_that_does_not_build_says_which_where_and_why(opencl):
    with pytest.raises(KernelBuildError) as caught:
        opencl.queue.kernels.shared("fill.cl", "fill", (("WORD", "unheard_of"),))
    message = str(caught.value)
    for part in ("fill.cl", opencl.device.name, opencl.device.platform, "-cl-std=CL1.2", "WORD=unheard_of", "log:"):
        assert part in message
    assert "unheard_of" in message.split("log:")[1]


def test_generated_part_comes_before_the_file():
    text = program.compose("scale.cl", (("X", "int8"),), "// generated")
    assert text.index("#define X int8") < text.index("#define NETCL_GENERATED") < text.index("// generated")
    assert text.index("// generated") < text.index("#define LOAD8") < text.index("scale(")
    assert "#include" not in text
    assert "NETCL_GENERATED" not in program.compose("scale.cl").split("scale:")[0]


def test_fault_reported_by_a_kernel_is_raised_once(fresh):
    flag = Span(fresh.queue.faults.buffer, 0, 1)
    fresh.fill(flag, 1)
    fresh.queue.faults.pending = True
    with pytest.raises(IndexError, match="gather: an index is out of range"):
        fresh.synchronize()
    fresh.queue.faults.pending = True
    fresh.synchronize()
    fresh.fill(flag, 3)
    fresh.queue.faults.pending = True
    with pytest.raises(IndexError, match="label is out of range"):
        fresh.download(Span(fresh.alloc(1, bool_), 0, 1))
    assert not fresh.queue.faults.pending


def test_threads_share_a_device(opencl):
    def work(value):
        n = 5000 + value
        x, y = (Span(opencl.alloc(n, float32), 0, n) for _ in range(2))
        for _ in range(10):
            opencl.fill(x, value)
            opencl.fill(y, 1)
            opencl.axpy(2, x, y)
        return bool((opencl.download(y) == 2 * value + 1).all())

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(24)))
