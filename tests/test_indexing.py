"""Subscripts of every mixture mean what NumPy means by them, read and written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
from netcl.dtypes import ALL as DTYPES
from netcl.errors import ShapeError
from netcl.functional import scatter_add

SHAPES = ((3, 4, 5), (4,), (2, 3), (0, 3), (1, 5, 2, 3), (3, 1, 2))
WIDTHS = (np.int8, np.int32, np.int64, np.uint8)


@st.composite
def keys(draw, shape):
    """A key of integers, slices, None, ellipses and arrays of positions, or a mask beside slices and an integer."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.integers(0, 3)) == 0:
        count = draw(st.integers(1, len(shape)))
        start = draw(st.integers(0, len(shape) - count))
        key = [slice(None)] * start + [random.random(shape[start : start + count]) < 0.5]
        if start + count < len(shape) and shape[start + count] and draw(st.booleans()):
            key.append(int(random.integers(shape[start + count])))
        return (*key, Ellipsis) if draw(st.booleans()) else tuple(key)
    common = draw(st.sampled_from([(2,), (1,), (2, 2), (3, 1), (0,)]))
    key, axis = [], 0
    while axis < len(shape) and draw(st.integers(0, 9)):
        extent, kind = shape[axis], draw(st.integers(0, 5))
        axis += kind != 3
        if kind == 3:
            key.append(None)
        elif kind == 1:
            start, stop = random.integers(-extent - 1, extent + 2, 2)
            key.append(slice(int(start), int(stop), int(random.choice([-2, -1, 1, 2]))))
        elif kind == 2 and extent:
            key.append(int(random.integers(-extent, extent)))
        elif kind > 3 and extent:
            dtype = draw(st.sampled_from(WIDTHS))
            low = 0 if dtype is np.uint8 else -extent
            positions = random.integers(low, extent, common if draw(st.booleans()) else (1,)).astype(dtype)
            key.append(positions.tolist() if positions.size and draw(st.integers(0, 4)) == 0 else positions)
        else:
            key.append(slice(None))
    if draw(st.integers(0, 4)) == 0:
        key.insert(draw(st.integers(0, len(key))), Ellipsis)
    return tuple(key)


def as_tensors(key):
    """The NumPy arrays of a key as Tensors; other parts as they are."""
    return tuple([netcl.asarray(part) if isinstance(part, np.ndarray) else part for part in key])


@given(data=st.data())
def test_reading_and_writing_are_numpys(backend, data):
    shape = data.draw(st.sampled_from(SHAPES))
    key = data.draw(keys(shape))
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    wanted = value[key]
    with netcl.use_backend(backend):
        for mine in (key, as_tensors(key)):
            x = netcl.asarray(value)
            np.testing.assert_array_equal(x[mine].numpy(), wanted, strict=True)
            new = (100 + np.arange(wanted.size, dtype=np.float32)).reshape(wanted.shape)
            if new.ndim and new.shape[0] and data.draw(st.booleans()):
                new = new[:1]
            written = value.copy()
            written[key] = new
            x[mine] = netcl.asarray(new)
            np.testing.assert_array_equal(x.numpy(), written)
            written[key], x[mine] = -1.0, -1.0
            np.testing.assert_array_equal(x.numpy(), written)


@given(data=st.data())
def test_gradients_go_back_to_where_elements_came_from(backend, data):
    shape = data.draw(st.sampled_from(SHAPES))
    key = data.draw(keys(shape))
    places = np.arange(np.prod(shape)).reshape(shape)[key]
    weights = np.arange(1, places.size + 1, dtype=np.float32).reshape(places.shape)
    wanted = np.zeros(int(np.prod(shape)), np.float32)
    np.add.at(wanted, places, weights)
    with netcl.use_backend(backend):
        x = netcl.ones(shape, requires_grad=True)
        with ag.Tape() as tape:
            loss = netcl.sum(x[as_tensors(key)] * netcl.asarray(weights))
        tape.backward(loss)
        np.testing.assert_array_equal(x.grad.numpy(), wanted.reshape(shape))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_element_is_read_as_all_of_them_are(backend, dtype):
    if not backend.supports(dtype):
        pytest.skip(f"{backend.device} has no {dtype}")
    with netcl.use_backend(backend):
        unit = {"f": 0.25, "c": 0.25 - 0.5j}.get(dtype.kind, 1)
        whole = netcl.asarray([[each * unit for each in row] for row in ((0, 1, 3, 5), (1, 1, 0, 7))], dtype=dtype)
        for x in (whole, whole.T, whole[:, ::-1], whole[1:, 1::2], netcl.broadcast_to(whole[0], (3, 4))):
            values = x.tolist()
            for i in range(-x.shape[0], x.shape[0]):
                for j in range(-x.shape[1], x.shape[1]):
                    found = (x[i, j].item(), x[i][j].item(), x[i, j][None, None].item(), x[netcl.asarray(i), j].item())
                    assert found == (values[i][j],) * 4
                    assert type(found[0]) is type(values[i][j])
        for key in (2, -3, (0, 4), (0, -5), (0, 0, 0)):
            with pytest.raises(IndexError):
                whole[key]


def test_one_element_waits_for_the_work_before_it_and_raises_what_that_found(backend):
    with netcl.use_backend(backend):
        x = netcl.zeros(200_000)
        for count in range(1, 20):
            x = x + 1
            assert float(x[-1]) == count
        with pytest.raises(IndexError, match="out of range"):
            float(netcl.take(x, netcl.asarray([3, 200_000]))[0])
        assert float(x[7]) == 19


def test_a_recorded_position_stays_what_it_was(backend):
    with netcl.use_backend(backend):
        x, i = netcl.ones(3, requires_grad=True), netcl.asarray(2)
        with ag.Tape() as tape:
            y = x[i] * 5
        i[...] = 0
        tape.backward(y)
        assert x.grad.tolist() == [0.0, 0.0, 5.0]


def test_the_last_of_several_values_stays_and_scatter_add_adds(backend):
    with netcl.use_backend(backend):
        x = netcl.zeros((3, 2))
        i = netcl.asarray([2, 0, 2], dtype="int32")
        new = netcl.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        x[i] = new
        assert x.tolist() == [[3.0, 4.0], [0.0, 0.0], [5.0, 6.0]]
        assert scatter_add(netcl.ones((3, 2)), i, new).tolist() == [[4.0, 5.0], [1.0, 1.0], [7.0, 9.0]]
        y = netcl.zeros((2, 3))
        assert scatter_add(y, i, new.T, axis=1).tolist() == [[3.0, 0.0, 6.0], [4.0, 0.0, 8.0]]


def test_gradients_of_scatter_add(backend):
    with netcl.use_backend(backend):
        x, new = netcl.ones((3,), requires_grad=True), netcl.ones((2,), requires_grad=True)
        with ag.Tape() as tape:
            y = scatter_add(x, netcl.asarray([2, 2]), new)
            loss = netcl.sum(y * netcl.asarray([1.0, 2.0, 3.0]))
        tape.backward(loss)
        assert (x.grad.tolist(), new.grad.tolist()) == ([1.0, 2.0, 3.0], [3.0, 3.0])


def written_and_read(x, key):
    x[key] = -1.0
    return x.numpy()


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint64"])
def test_positions_out_of_range_are_reported_and_write_nothing(backend, dtype):
    with netcl.use_backend(backend):
        x = netcl.arange(6.0).reshape(2, 3) if dtype == "int64" else netcl.asarray([[0.0, 1, 2], [3, 4, 5]])
        for key in (
            (netcl.asarray([0, 2], dtype=dtype),),
            (netcl.asarray([0, 1], dtype=dtype), netcl.asarray([0, 3], dtype=dtype)),
        ):
            with pytest.raises(IndexError, match="out of range"):
                x[key].numpy()
            with pytest.raises(IndexError, match="out of range"):
                written_and_read(x, key)
            x[...] = netcl.asarray([[0.0, 1, 2], [3, 4, 5]])
            assert x.sum().item() == 15.0


def test_masks_without_axes_or_elements(backend):
    with netcl.use_backend(backend):
        x = netcl.ones((2, 3))
        assert (x[True].shape, x[False].shape, x[netcl.asarray(True)].shape) == ((1, 2, 3), (0, 2, 3), (1, 2, 3))
        x[False] = 5.0
        assert x.sum().item() == 6.0
        x[True] = 5.0
        assert x.sum().item() == 30.0
        x[netcl.asarray(False)] = netcl.zeros((0, 2, 3))  # nothing, into no place
        x[:, netcl.asarray(False)] = netcl.zeros((2, 0, 3))
        scalar = netcl.asarray(2.0)
        scalar[netcl.asarray(False)] = netcl.zeros(0)
        assert (x.sum().item(), scalar.item()) == (30.0, 2.0)
        with pytest.raises(ShapeError, match="does not broadcast"):
            scalar[netcl.asarray(True)] = netcl.zeros(0)
        assert scalar.item() == 2.0
        empty = netcl.zeros((0, 2))
        assert empty[netcl.zeros((0, 0), dtype="bool")].shape == (0,)
