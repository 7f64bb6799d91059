"""Complex numbers on OpenCL: as views of their parts, with the launches that takes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from netcl import expression as ex
from netcl.backends.base import Span, View
from netcl.backends.opencl.device.complex_views import interleaved, part_span, part_views
from netcl.complex_functions import FUNCTIONS
from netcl.complex_pairs import lowered, split_numbers
from netcl.dtypes import bool_, complex64, complex128, float32, float64, int64
from netcl.errors import DTypeError
from tests.kernels.strided import plain

UNDEFINED = ("less", "maximum", "floor", "atan2", "hypot", "copysign", "remainder", "erf", "signbit", "logaddexp")


def test_parts_are_the_same_memory(opencl):
    values = np.arange(24).reshape(4, 6) + 1j * np.arange(100, 124).reshape(4, 6)
    z = plain(opencl, values.astype("c8"))
    every_other = View(z.view.buffer, z.view.offset + 1, (4, 2), (6, 3))
    for view, expected in zip(part_views(every_other), (values.real, values.imag), strict=True):
        out = plain(opencl, np.zeros((4, 2), np.float32))
        opencl.map(ex.conversion(float32, float32), [view], [out.view])
        np.testing.assert_array_equal(out.read(), expected[:, 1::3])
    both = interleaved(every_other)
    assert (both.shape, both.strides, both.dtype) == ((4, 2, 2), (12, 6, 1), float32)
    span = part_span(Span(z.view.buffer, 2, 3))
    assert (span.offset, span.size, span.dtype) == (4, 6, float32)


def test_memory_goes_back_to_its_pool_once(opencl):
    pool = opencl.queue.pool
    buffer = opencl.alloc(3_000_001, complex64)
    before, parts = pool.unused, buffer.parts()
    del buffer
    assert pool.unused == before, "the parts still use it"
    del parts
    assert pool.unused > before
    assert opencl.alloc(3_000_001, complex64).mem is not opencl.alloc(3_000_001, complex64).mem


@pytest.mark.parametrize(
    ("call", "launches"),
    [
        ("copy", 1), ("cast", 1), ("multiply", 1), ("fill 0", 1), ("fill", 1), ("sum", 2), ("any", 1), ("gather", 1),
        ("scatter_add", 2), ("batched_matmul", 4),
    ],
)  # fmt: skip
def test_how_many_launches_a_call_takes(opencl, call, launches):
    z = plain(opencl, (np.ones((1, 8, 8)) + 2j).astype("c8"))
    out, total = plain(opencl, np.zeros((1, 8, 8), "c8")), plain(opencl, np.zeros((1, 8), "c8"))
    wide, truth = plain(opencl, np.zeros((1, 8, 8), "c16")), plain(opencl, np.zeros((1, 8), bool))
    index = plain(opencl, np.zeros((1, 8, 8), np.int64))
    same = ex.conversion(complex64, complex64)
    calls = {
        "copy": lambda: opencl.map(same, [z.view], [out.view]),
        "cast": lambda: opencl.map(ex.conversion(complex64, complex128), [z.view], [wide.view]),
        "multiply": lambda: opencl.map(ex.trace(lambda x: x * x, (complex64,)), [z.view], [out.view]),
        "fill 0": lambda: opencl.fill(Span(out.view.buffer, 0, 8), 0),
        "fill": lambda: opencl.fill(Span(out.view.buffer, 0, 8), 1j),
        "sum": lambda: opencl.reduce("sum", same, [z.view], (2,), total.view),
        "any": lambda: opencl.reduce("any", same, [z.view], (2,), truth.view),
        "gather": lambda: opencl.gather(z.view, index.view, out.view),
        "scatter_add": lambda: opencl.scatter_add(z.view, index.view, out.view),
        "batched_matmul": lambda: opencl.batched_matmul(z.view, z.view, out.view),
    }
    before = opencl.launches
    calls[call]()
    assert opencl.launches - before == launches


@pytest.mark.parametrize("op", UNDEFINED)
def test_what_complex_numbers_do_not_have_is_refused(opencl, op):
    arity = ex.OPERATORS[op][0]
    expression = ex.trace(lambda *z: ex.apply(op, *z), (complex64,) * arity)
    views = [View(opencl.alloc(4, complex64), 0, (4,), (1,)) for _ in range(arity)]
    out = View(opencl.alloc(4, expression.stored[0]), 0, (4,), (1,))
    with pytest.raises(DTypeError, match=f"{op} is not defined for complex64"):
        opencl.map(expression, views, [out])


def test_calls_that_order_complex_numbers_are_refused(opencl):
    z = View(opencl.alloc(4, complex64), 0, (4,), (1,))
    with pytest.raises(DTypeError, match="max is not defined for complex64"):
        opencl.reduce(
            "max", ex.conversion(complex64, complex64), [z], (0,), View(opencl.alloc(1, complex64), 0, (), ())
        )
    with pytest.raises(DTypeError, match="argmax does not take complex64"):
        opencl.arg_reduce("argmax", z, 0, View(opencl.alloc(1, int64), 0, (), ()))


def test_complex128_needs_64_bit_floats(opencl, monkeypatch):
    assert opencl.supports(complex64)
    assert opencl.supports(complex128) == opencl.device.float64
    monkeypatch.setattr(opencl.queue, "device", replace(opencl.queue.device, float64=False))
    assert not opencl.queue.supports(complex128)
    with pytest.raises(DTypeError, match="cannot compute with complex128; cast to complex64"):
        opencl.queue.require(complex128)


@pytest.mark.parametrize("op", [op for op in FUNCTIONS if op not in ("where", "complex")])
def test_complex64_is_computed_in_float32(op):
    arity = ex.OPERATORS[op][0]
    parts = lowered(ex.trace(lambda *z: ex.apply(op, *z), (complex64,) * arity))
    assert {node.dtype for node in parts.nodes()} <= {float32, bool_}


def test_expressions_on_parts():
    mixed = ex.trace(
        lambda x, z, a, w: (z * a + w, x + 1.0, ex.cast(z, bool_), z * 1j),
        (float32, complex64), (float32, complex128), stored=(complex128, float32, bool_, complex64),
    )  # fmt: skip
    parts = lowered(mixed)
    assert parts.inputs == (float32, float32, float32)
    assert parts.scalars == (float32, float64, float64)
    assert parts.stored == (float64, float64, float32, bool_, float32, float32)
    assert all(node.dtype.kind != "c" for node in parts.nodes())
    assert lowered(ex.trace(lambda x: x + 1.0, (float32,))) is None
    assert split_numbers((2, 3, 1j), (float32, complex64, complex64)) == [2, 3.0, 0.0, 0.0, 1.0]
