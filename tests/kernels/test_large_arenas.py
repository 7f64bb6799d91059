"""Buffers of more than 2^31 elements and 2^32 bytes: positions, counts and sizes are of 64 bits everywhere.

By hand (``--netcl-full`` or ``--netcl-backend=NAME``), for steps over so many parameters take 15 GB and the
other calls 4.
"""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl import expression as ex
from netcl.backends.base import CHUNK, Span, View
from netcl.dtypes import float16, int64, uint8
from netcl.strides import contiguous_strides

SIZE = (1 << 31) + 3 * CHUNK + 5
PLACES = (0, (1 << 31) - 1, 1 << 31, SIZE - 1)


@pytest.fixture(autouse=True)
def by_hand(every_row):
    if not every_row:
        pytest.skip("takes gigabytes: run it with --netcl-full")


def needs(opencl, bytes_each, count):
    device = opencl.queue.cl_device
    if bytes_each > device.max_mem_alloc_size or bytes_each * count > 0.6 * device.global_mem_size:
        pytest.skip(f"{opencl.device} has not {count} buffers of {bytes_each >> 30} GiB")


def span(opencl, dtype):
    return Span(opencl.alloc(SIZE, dtype), 0, SIZE)


def at(opencl, x, place):
    return opencl.download(Span(x.buffer, place, 1))[0]


def test_flat_calls_reach_every_element(opencl):
    needs(opencl, SIZE, 2)
    x, y = span(opencl, uint8), span(opencl, uint8)
    opencl.fill(x, 3)
    opencl.fill(y, 5)
    opencl.axpy(2, x, y)
    opencl.scale(3, y)
    assert [at(opencl, y, place) for place in PLACES] == [33] * 4
    tail = Span(y.buffer, SIZE - 7, 7)
    opencl.upload(np.arange(7, dtype=np.uint8), tail)
    opencl.fill(Span(y.buffer, (1 << 31) + 1, 2), 9)
    assert [at(opencl, y, place) for place in ((1 << 31), (1 << 31) + 1, (1 << 31) + 3, SIZE - 1)] == [33, 9, 33, 6]


def test_views_reach_every_element(opencl):
    needs(opencl, SIZE, 2)
    x, y = span(opencl, uint8), span(opencl, uint8)
    opencl.fill(x, 0)
    for place in PLACES:
        opencl.fill(Span(x.buffer, place, 1), 1)
    opencl.map(ex.trace(lambda a: a + a, (uint8,), stored=(uint8,)), [x.view()], [y.view()])
    assert [at(opencl, y, place) for place in PLACES] == [2] * 4
    total = View(opencl.alloc(1, int64), 0, (), ())
    opencl.reduce("sum", ex.conversion(uint8, int64), [y.view()], (0,), total)
    assert at(opencl, Span(total.buffer, 0, 1), 0) == 8
    last = View(opencl.alloc(1, int64), 0, (), ())
    opencl.fill(Span(y.buffer, SIZE - 2, 1), 7)
    opencl.arg_reduce("argmax", y.view(), 0, last)
    assert at(opencl, Span(last.buffer, 0, 1), 0) == SIZE - 2
    # Rows that begin beyond 2^31, in an order that no copy has.
    rows = SIZE // CHUNK
    tail = View(y.buffer, 0, (rows, CHUNK), contiguous_strides((rows, CHUNK)))
    turned = View(y.buffer, (rows - 1) * CHUNK, (rows, CHUNK), (-CHUNK, 1))
    ends = View(opencl.alloc(rows, uint8), 0, (rows,), (1,))
    opencl.reduce("max", ex.conversion(uint8, uint8), [turned], (1,), ends)
    back = View(opencl.alloc(rows, uint8), 0, (rows,), (1,))
    opencl.reduce("max", ex.conversion(uint8, uint8), [tail], (1,), back)
    found = opencl.download(Span(ends.buffer, 0, rows))
    np.testing.assert_array_equal(found[::-1], opencl.download(Span(back.buffer, 0, rows)))
    assert np.flatnonzero(found[::-1]).tolist() == [0, (1 << 31) // CHUNK - 1, (1 << 31) // CHUNK]


def test_elements_are_taken_from_beyond(opencl):
    needs(opencl, SIZE, 1)
    x = span(opencl, uint8)
    opencl.fill(x, 1)
    opencl.fill(Span(x.buffer, SIZE - 3, 1), 8)
    whole = View(x.buffer, 0, (1, SIZE, 1), (SIZE, 1, 1))
    places = Span(opencl.alloc(3, int64), 0, 3)
    opencl.upload(np.array([SIZE - 3, -3, 1 << 31]), places)
    indices = View(places.buffer, 0, (1, 3, 1), (3, 1, 1))
    out = View(opencl.alloc(3, uint8), 0, (1, 3, 1), (3, 1, 1))
    opencl.gather(whole, indices, out)
    assert opencl.download(Span(out.buffer, 0, 3)).tolist() == [8, 8, 1]
    opencl.scatter(out, indices, whole)
    assert [at(opencl, x, place) for place in (SIZE - 4, SIZE - 3, 1 << 31)] == [1, 8, 1]


@pytest.mark.parametrize("options", [{}, {"state_dtype": "8bit"}, {"rounding": "stochastic"}], ids=str)
def test_a_step_over_more_than_2_31_parameters(opencl, options):
    """In float16, where the parameters alone take 4 GiB: every element moves alike, wherever it lies."""
    needs(opencl, 2 * SIZE, 3)
    w = netcl.full((SIZE,), 1.0, dtype=float16, device=opencl.device, requires_grad=True)
    w.grad = netcl.full((SIZE,), 0.5, dtype=float16, device=opencl.device)
    momentum = 0.9 if "state_dtype" in options else 0.0
    optimizer = netcl.optim.SGD([w], lr=0.5, momentum=momentum, master_weights=False, **options)
    optimizer.step(max_norm=1e6)
    assert [w[place].item() for place in PLACES] == [0.75] * 4
    w.grad[SIZE - 1] = 8.0
    optimizer.step(max_norm=1e6)
    assert w[SIZE - 1].item() < -3.0
    assert w[1 << 31].item() == w[0].item()
