"""sort on OpenCL: the kernel in the shapes for CPUs and for GPUs, and the host's sort, held against one oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import Span
from netcl.backends.opencl.device.defects import Defect, Defects
from netcl.backends.opencl.ops.map import Map
from netcl.backends.opencl.ops.sort import Sort
from netcl.dtypes import ALL, bfloat16, bool_, float16, float32, float64, int8, int16, int32, int64, uint8, uint64
from netcl.errors import BackendError, DTypeError, ShapeError
from netcl.host_dtypes import STORAGE, values_of
from tests.kernels.forms import kernels_for, own_backend
from tests.kernels.strided import Strided, plain
from tests.kernels.views import layouts, shapes, upload

FORMS = {"cpu": (True, False), "gpu": (False, False), "host": (True, True)}


def one_direction(row):
    """float32 in both directions, each other dtype in one: a kernel is built for each."""
    return row["dtype"] is float32 or row["descending"] == (ALL.index(row["dtype"]) % 2 == 0)


directions = pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])


@pytest.fixture(params=FORMS, scope="session")
def sort(opencl, request):
    """The call in one of its forms."""
    cpu, on_host = FORMS[request.param]
    if on_host and not opencl.device.shares_host_memory:
        pytest.skip(f"{opencl.device} does not share the host's memory")
    made = Sort(opencl.queue, Map(opencl.queue), on_host=on_host)

    def call(*operands, **named):
        with kernels_for(opencl, cpu):
            made.sort(*operands, **named)

    return call


def order(host, dtype, axis, descending):
    """The places in NumPy's stable order, which has NaN last."""
    values = values_of(host, dtype)
    if descending:
        values = -values if dtype.kind == "f" else ~values
    return np.argsort(values, axis, kind="stable")


def same_bits(found, expected):
    np.testing.assert_array_equal(found.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))


@pytest.mark.compiled(rows=lambda row: (row["sort"] == "gpu") == row["descending"])
@directions
@given(data=st.data(), shape=shapes.filter(bool), seed=st.integers(0, 99))
def test_sort_of_any_views(opencl, every_row, sort, descending, data, shape, seed):
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from([float32, int16, uint8]))
    if not every_row:  # each number of axes, which decides on the kernel, meets one of them
        dtype = (float32, int16, uint8)[len(shape) % 3]
    host = np.random.default_rng(seed).integers(0, 20, shape).astype(dtype.name)
    x = Strided(opencl, host, dtype, **data.draw(layouts(shape)))
    out = Strided(opencl, np.zeros(shape, dtype.name), dtype, **data.draw(layouts(shape, repeat=False)))
    places = Strided(opencl, np.zeros(shape, "i8"), int64, **data.draw(layouts(shape, repeat=False)))
    sort(x.view, axis, out.view, places.view, descending=descending)
    expected = order(x.host, dtype, axis, descending)
    np.testing.assert_array_equal(places.read(), expected)
    np.testing.assert_array_equal(out.read(), np.take_along_axis(x.host, expected, axis))


@directions
@pytest.mark.compiled(rows=one_direction)
@pytest.mark.short(dtype=[bool_, int8, uint64, float16, float32])
@pytest.mark.short(rows=lambda row: (row["sort"] == "host") == (row["shape"] == (2, 10_011)))
@pytest.mark.parametrize("dtype", [dtype for dtype in ALL if dtype.kind != "c"], ids=str)
@pytest.mark.parametrize("shape", [(3, 1001), (2, 10_011)], ids=str)
def test_sort_of_any_bits(opencl, every_row, sort, descending, dtype, shape):
    """Every pattern of bits there is, infinities, NaN of any payload and both zeros among them."""
    if not opencl.supports(dtype):
        pytest.skip(f"{opencl.device} has no {dtype}")
    rng = np.random.default_rng(3)
    host = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(STORAGE[dtype])[..., 0]
    if dtype is bool_:
        host = rng.integers(0, 2, shape).astype(bool)
    host.reshape(-1)[::3] = 0
    if dtype.kind == "f":
        host.view(f"u{dtype.itemsize}").reshape(-1)[::5] = 1 << 8 * dtype.itemsize - 1
        host.view(f"u{dtype.itemsize}").reshape(-1)[::70] = (1 << 8 * dtype.itemsize) - 2
    expected = order(host, dtype, -1, descending)
    x = plain(opencl, host, dtype, 3)
    combinations = ((True, True), (True, False), (False, True))
    if not every_row:
        combinations = combinations[:1] if descending else combinations[1:]
    for with_values, with_places in combinations:
        out, places = plain(opencl, np.zeros_like(host), dtype), plain(opencl, np.zeros(shape, "i8"), int64)
        wanted = (out.view if with_values else None, places.view if with_places else None)
        sort(x.view, len(shape) - 1, *wanted, descending=descending)
        if with_values:
            same_bits(out.read(), np.take_along_axis(host, expected, -1))
        if with_places:
            np.testing.assert_array_equal(places.read(), expected)


@pytest.mark.compiled(rows=one_direction)
@pytest.mark.short(dtype=[bfloat16, uint8], n=[9001])
@directions
@pytest.mark.parametrize("dtype", [float32, float16, bfloat16, int32, uint8], ids=str)
@pytest.mark.parametrize("n", [300, 9001])
def test_sort_in_place(opencl, sort, descending, dtype, n):
    host = np.random.default_rng(1).integers(0, 40, n).astype(STORAGE[dtype])
    if dtype.kind == "f":
        bits = host.view(f"u{dtype.itemsize}")
        bits[::4] |= bits.dtype.type(1 << 8 * dtype.itemsize - 1)
    x = plain(opencl, host, dtype, 5)
    sort(x.view, 0, x.view, None, descending=descending)
    same_bits(x.read(), host[order(host, dtype, 0, descending)])


@directions
def test_places_beside_a_sort_in_place(opencl, sort, descending):
    host = np.random.default_rng(1).integers(-3, 3, (2, 9001)).astype("f4") * np.float32(-1.0)
    x, places = upload(opencl, host, float32), upload(opencl, np.zeros(host.shape, "i8"), int64)
    sort(x.view, 1, x.view, places.view, descending=descending)
    expected = order(host, float32, 1, descending)
    np.testing.assert_array_equal(places.read(), expected)
    same_bits(x.read(), np.take_along_axis(host, expected, 1))


def test_all_equal_keep_their_places(opencl, sort):
    x, places = upload(opencl, np.ones(30_000, "f4"), float32), upload(opencl, np.zeros(30_000, "i8"), int64)
    sort(x.view, 0, None, places.view, descending=True)
    np.testing.assert_array_equal(places.read(), np.arange(30_000))


def test_calls_before_and_after_a_sort_on_the_host_take_effect_in_order(opencl):
    x = upload(opencl, np.arange(5000, 0, -1).astype("f4"), float32)
    span = x.view.buffer, x.view.offset
    opencl.scale(2.0, Span(*span, 5000))
    opencl.sort(x.view, 0, x.view, None, descending=False)
    opencl.scale(0.5, Span(*span, 5000))
    np.testing.assert_array_equal(x.read(), np.arange(1, 5001))


def test_refusals_launch_nothing(opencl):
    x, wrong = upload(opencl, np.ones((3, 4), "f4"), float32), upload(opencl, np.ones(4, "f4"), float32)
    places = upload(opencl, np.zeros((3, 4), "i4"), int32)
    before = opencl.launches
    for axis, out, indices, error, match in (
        (1, None, None, ShapeError, "values or places"),
        (1, wrong.view, None, ShapeError, r"out has \(4,\)"),
        (2, x.view, None, ShapeError, "axis 2"),
        (1, None, places.view, DTypeError, "int64 to indices"),
        (1, places.view, None, DTypeError, "float32 to out"),
    ):
        with pytest.raises(error, match=match):
            opencl.sort(x.view, axis, out, indices, descending=False)
    backend = own_backend(opencl)
    backend.queue.defects = Defects({("sort", "float32"): Defect("x")})
    y = upload(backend, np.ones(4, "f4"), float32)
    with pytest.raises(BackendError, match="sort of float32"):
        Sort(backend.queue, Map(backend.queue), on_host=False).sort(y.view, 0, y.view, None, descending=False)
    assert opencl.launches == before


def test_float64_is_refused_where_there_is_none(opencl):
    if opencl.supports(float64):
        pytest.skip(f"{opencl.device} has float64")
    x = upload(opencl, np.ones(3), float64)
    with pytest.raises(DTypeError, match="float64"):
        opencl.sort(x.view, 0, x.view, None, descending=False)
