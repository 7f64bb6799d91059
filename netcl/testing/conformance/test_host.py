"""Memory that host and device both work on."""

import numpy as np
import pytest

from netcl import dtypes
from netcl.backends.base import Span
from netcl.testing.conformance.operands import FLOATS, Operand, storage
from netcl.testing.conformance.test_flat import skip_unless_supported


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_mapping_shows_what_calls_before_it_wrote(backend, dtype):
    skip_unless_supported(backend, dtype)
    x = Span(backend.alloc(3000, dtype), 0, 3000)
    backend.fill(x, 1.5)
    mapping = backend.map_host(Span(x.buffer, 5, 2000))
    expected = backend.download(x)[5:2005]
    found = mapping.array()
    assert found.dtype == storage(dtype)
    assert mapping.ready()
    np.testing.assert_array_equal(found, expected)
    mapping.release()


def test_calls_after_a_mapping_see_what_the_host_wrote_and_nothing_else_changed(backend):
    x = Operand(backend, np.zeros(5000), dtypes.float32).span
    mapping = backend.map_host(Span(x.buffer, x.offset + 7, 1000))
    mapping.array()[:] = np.arange(1000)
    mapping.release()
    backend.scale(2.0, x)
    found = backend.download(x)
    np.testing.assert_array_equal(found[7:1007], 2.0 * np.arange(1000))
    assert not found[:7].any()
    assert not found[1007:].any()


def test_two_parts_of_one_buffer_can_be_mapped_at_once(backend):
    x = Operand(backend, np.arange(4096.0), dtypes.float32).span
    parts = [Span(x.buffer, x.offset + start, 1024) for start in (0, 1024)]
    first, second = (backend.map_host(part) for part in parts)
    first.array()[:] += second.array()
    first.release()
    second.release()
    found = backend.download(x)
    np.testing.assert_array_equal(found[:1024], np.arange(1024) * 2.0 + 1024)
    np.testing.assert_array_equal(found[1024:], np.arange(1024.0, 4096.0))


def test_an_empty_span_maps_to_an_empty_array(backend):
    mapping = backend.map_host(Span(backend.alloc(0, dtypes.float32), 0, 0))
    assert mapping.array().size == 0
    mapping.release()


@pytest.mark.parametrize("offset", [0, 1, 3])
def test_a_borrowed_buffer_is_the_memory_of_the_host_array(backend, offset):
    if not backend.device.shares_host_memory:
        pytest.skip(f"{backend.device} does not share the host's memory")
    whole = np.arange(3001, dtype=np.float32)
    host = whole[offset:]
    buffer = backend.wrap_host_memory(host, dtypes.float32)
    assert (buffer.size, buffer.dtype) == (host.size, dtypes.float32)
    x = Span(buffer, 0, host.size)
    for factor in (2.0, 3.0):
        before = whole.copy()
        backend.scale(factor, x)
        mapping = backend.map_host(x)
        assert mapping.array().ctypes.data == host.ctypes.data
        np.testing.assert_array_equal(host, before[offset:] * np.float32(factor))
        host += 1.0  # the host's turn
        mapping.release()
    np.testing.assert_array_equal(backend.download(x), host)
    np.testing.assert_array_equal(whole[:offset], np.arange(offset))


def test_an_empty_array_can_be_borrowed(backend):
    if not backend.device.shares_host_memory:
        pytest.skip(f"{backend.device} does not share the host's memory")
    assert backend.wrap_host_memory(np.empty(0, np.float32), dtypes.float32).size == 0
