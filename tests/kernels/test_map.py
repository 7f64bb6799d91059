"""map on OpenCL: every layout, canaries, and kernels that are built once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl import expression as ex
from netcl.backends.base import View
from netcl.dtypes import bool_, float16, float32, int32, uint8
from netcl.errors import DTypeError, ShapeError
from tests.kernels.strided import Strided
from tests.kernels.views import layouts, numbers, outputs_like, same, shapes, upload

ADD = ex.trace(lambda x, y: x + y, (float32, float32))
SCALED = ex.trace(lambda x, a: x * a, (float32,), (float32,))


@given(data=st.data(), shape=shapes, seed=st.integers(0, 99))
def test_map_over_any_views(opencl, data, shape, seed):
    x = Strided(opencl, numbers(shape, float32, seed), float32, **data.draw(layouts(shape)))
    n = Strided(opencl, numbers(shape, uint8, seed), uint8, **data.draw(layouts(shape)))
    out = Strided(opencl, np.zeros(shape, "f4"), float32, **data.draw(layouts(shape, repeat=False)))
    flag = Strided(opencl, np.zeros(shape, bool), bool_, **data.draw(layouts(shape, repeat=False)))
    expression = ex.trace(lambda x, n: (x * 2.0 + n, x > 0.5), (float32, uint8))
    opencl.map(expression, [x.view, n.view], [out.view, flag.view])
    np.testing.assert_array_equal(out.read(), x.host * np.float32(2) + n.host)
    np.testing.assert_array_equal(flag.read(), x.host > 0.5)
    x.read()


@pytest.mark.parametrize("shape", [(1000, 7), (7, 1000), (3, 40, 50), (5, 513), (2, 3, 2, 3, 2, 3, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [float32, bool_, float16], ids=str)
def test_transposed_operands_and_long_rows(opencl, shape, dtype):
    host = numbers(shape, bool_ if dtype is bool_ else uint8, 1).astype(dtype.name)
    x = Strided(opencl, host, dtype, tuple(reversed(range(len(shape)))), reverse=(0,))
    out = Strided(opencl, np.zeros(shape, dtype.name), dtype, range(len(shape)), step=2, reverse=(len(shape) - 1,))
    opencl.map(ex.trace(lambda x: x, (dtype,), stored=(dtype,)), [x.view], [out.view])
    np.testing.assert_array_equal(out.read(), host)


def test_in_place(opencl):
    host = numbers((37, 11), float32, 3)
    for order in ((0, 1), (1, 0)):
        x = Strided(opencl, host, float32, order)
        opencl.map(ADD, [x.view, x.view], [x.view])
        np.testing.assert_array_equal(x.read(), host + host)


def test_a_new_scalar_or_shape_builds_nothing(opencl):
    x = upload(opencl, numbers((6, 5), float32, 4), float32)
    out = outputs_like(opencl, (6, 5), float32)
    opencl.map(SCALED, [x.view], [out.view], [0.5])
    built = len(opencl.queue.kernels.programs)
    opencl.map(SCALED, [x.view], [out.view], [-3])
    np.testing.assert_array_equal(out.read(), x.host * np.float32(-3))
    larger, out = upload(opencl, numbers((7, 3, 9), float32, 4), float32), outputs_like(opencl, (7, 3, 9), float32)
    opencl.map(SCALED, [larger.view], [out.view], [2.0])
    np.testing.assert_array_equal(out.read(), larger.host * 2)
    assert len(opencl.queue.kernels.programs) == built


def test_a_value_does_not_depend_on_where_it_lies(opencl):
    host = np.full(45, 0.7, "f4")
    expression = ex.trace(lambda x: ex.tanh(x) * x + ex.exp(x), (float32,))
    found = set()
    for layout in ({"order": (0,)}, {"order": (0,), "step": 3}, {"order": (0,), "repeated": (0,)}):
        x, out = Strided(opencl, host, float32, **layout), outputs_like(opencl, (45,), float32)
        opencl.map(expression, [x.view], [out.view])
        found.update(out.read().tolist())
    assert len(found) == 1
    assert found.pop() == pytest.approx(math.tanh(0.7) * 0.7 + math.exp(0.7), rel=1e-6)


def test_bytes_between_lanes_survive(opencl):
    """Intel's compiler once wrote a lane too many here."""
    host = numbers((33, 3, 70), bool_, 6)
    for _ in range(3):
        x = upload(opencl, host, bool_)
        out = Strided(opencl, np.zeros_like(host), bool_, (0, 2, 1), step=6)
        opencl.map(same(bool_), [x.view], [out.view])
        np.testing.assert_array_equal(out.read(), host)


def test_more_axes_than_a_kernel_walks(opencl):
    shape = (2, 3) * 6
    host = numbers(shape, float32, 2)
    x = Strided(opencl, host, float32, (10, 0, 8, 2, 6, 4, 11, 1, 9, 3, 7, 5))
    out = Strided(opencl, np.zeros(shape, "f4"), float32, (5, 7, 3, 9, 1, 11, 4, 6, 2, 8, 0, 10))
    opencl.map(same(float32), [x.view], [out.view])
    np.testing.assert_array_equal(out.read(), host)


def test_nothing_is_launched_for_no_elements(opencl):
    empty = View(opencl.alloc(0, float32), 0, (3, 0, 2), (0, 2, 1))
    before = opencl.launches
    opencl.map(ADD, [empty, empty], [empty])
    assert opencl.launches == before


def test_refusals_launch_nothing(opencl):
    x = upload(opencl, np.ones((3, 4), "f4"), float32)
    n = upload(opencl, np.ones((3, 4), "i4"), int32)
    row = upload(opencl, np.ones(4, "f4"), float32)
    before = opencl.launches
    with pytest.raises(ShapeError, match=r"\(4,\).*broadcast"):
        opencl.map(ADD, [x.view, row.view], [x.view])
    with pytest.raises(DTypeError, match="float32, got int32"):
        opencl.map(ADD, [x.view, n.view], [x.view])
    with pytest.raises(ShapeError, match="2 inputs"):
        opencl.map(ADD, [x.view], [x.view])
    assert opencl.launches == before
