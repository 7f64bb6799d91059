"""Sorting, running sums, searching, sets and repetition: what the comparison with the standard does not reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
from netcl.errors import ArgumentError, DTypeError, ShapeError

NAN = float("nan")


@pytest.fixture(autouse=True)
def _on_the_backend(request):
    if "backend" in request.fixturenames:
        with netcl.use_backend(request.getfixturevalue("backend")):
            yield
    else:
        with netcl.use_backend("numpy"):
            yield


def gradient(function, value, seed):
    x = netcl.asarray(value, requires_grad=True)
    with ag.Tape() as tape:
        y = function(x)
    tape.backward(y, seed=netcl.asarray(seed(y.shape)))
    return x.grad.numpy()


def by_differences(function, value, seed, step=1e-4):
    """The gradient from central differences, which are exact for what is linear in each element."""
    found = np.zeros_like(value)
    for place in np.ndindex(value.shape):
        ends = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * step
            y = function(netcl.asarray(moved)).numpy()
            ends.append(float(np.sum(y * seed(y.shape))))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def weights(shape):
    return np.random.default_rng(5).uniform(-1, 1, shape)


ZEROS = {"none": (), "one": (2,), "the first": (0,), "the last": (4,), "several": (1, 3), "all": (0, 1, 2, 3, 4)}
LINEAR = {
    "sort": lambda x: netcl.sort(x, axis=0),
    "sort descending": lambda x: netcl.sort(x, descending=True),
    "cumulative_sum": lambda x: netcl.cumulative_sum(x, axis=0),
    "cumulative_sum with its start": lambda x: netcl.cumulative_sum(x, axis=1, include_initial=True),
    "diff": lambda x: netcl.diff(x, axis=0),
    "diff twice": lambda x: netcl.diff(x, n=2),
    "diff none": lambda x: netcl.diff(x, n=0, append=x) * 2,
    "diff with edges": lambda x: netcl.diff(x, axis=1, prepend=x[:, :1] * 2, append=x),
    "repeat by counts": lambda x: netcl.repeat(x, netcl.asarray([2, 0, 3, 1], device=x.device), axis=1),
    "repeat by one count": lambda x: netcl.repeat(x, netcl.asarray([2], device=x.device), axis=0),
    "repeat flat": lambda x: netcl.repeat(x, netcl.asarray([0, 1, 2] * 4, device=x.device)),
    "take_along_axis": lambda x: netcl.take_along_axis(
        x, netcl.asarray([[3, 3, 0, -1], [0, 0, 0, 0], [1, 2, 3, 0]], device=x.device)
    ),
    "take_along_axis of a row": lambda x: netcl.take_along_axis(
        x, netcl.asarray([[2, 2, 0, -1]], device=x.device), axis=0
    ),
}


@pytest.mark.short(name=["sort", "cumulative_sum with its start", "diff with edges", "repeat by counts"])
@pytest.mark.parametrize("name", LINEAR)
def test_gradients_are_those_of_differences(backend, name):
    value = np.random.default_rng(3).permutation(12).reshape(3, 4) / 4.0
    expected = by_differences(LINEAR[name], value, weights)
    np.testing.assert_allclose(gradient(LINEAR[name], value, weights), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.short(zeros=["one", "several"])
@pytest.mark.parametrize("lead", [False, True])
@pytest.mark.parametrize("zeros", ZEROS)
def test_gradients_of_running_products_with_zeros(backend, zeros, lead):
    value = np.array([[0.5, -1.5, 2.0, 1.25, -0.75], [1.5, 0.5, -1.0, 2.0, 3.0]])
    value[0, list(ZEROS[zeros])] = 0

    def function(x):
        return netcl.cumulative_prod(x, axis=1, include_initial=lead)

    expected = by_differences(function, value, weights)
    np.testing.assert_allclose(gradient(function, value, weights), expected, rtol=1e-8, atol=1e-9)


def test_gradients_of_equal_elements_keep_their_order(backend):
    assert gradient(netcl.sort, [2.0, 1.0, 2.0, 1.0], lambda shape: [1.0, 2.0, 3.0, 4.0]).tolist() == [3, 1, 4, 2]


def test_gradients_of_nothing(backend):
    for function in (netcl.sort, netcl.cumulative_sum, netcl.cumulative_prod, netcl.diff):
        assert gradient(function, np.zeros(0), np.zeros).shape == (0,)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_is_last_in_either_order(backend, dtype, descending):
    x = netcl.asarray([NAN, 1.0, -np.inf, NAN, np.inf, -0.0, 0.0], dtype=dtype)
    order = netcl.argsort(x, descending=descending).tolist()
    assert order == ([4, 1, 5, 6, 2, 0, 3] if descending else [2, 5, 6, 1, 4, 0, 3])
    np.testing.assert_array_equal(netcl.sort(x, descending=descending).numpy(), x.numpy()[order])


@given(data=st.data())
def test_diff_is_numpys_in_all_its_arguments(backend, data):
    dtype = data.draw(st.sampled_from(["bool", "int8", "uint8", "int64", "float32"]))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))

    def some(shape):
        return np.asarray(random.integers(0, 2 if dtype == "bool" else 100, shape)).astype(dtype)

    x, given = some(shape), {}
    for name in ("prepend", "append"):
        extent = data.draw(st.sampled_from([None, (), 0, 1, 3]))
        if extent is not None:
            place = axis % len(shape)
            given[name] = some(extent if extent == () else (*shape[:place], extent, *shape[place + 1 :]))
    n = data.draw(st.integers(0, 5))
    found = netcl.diff(netcl.asarray(x), axis=axis, n=n, **{key: netcl.asarray(edge) for key, edge in given.items()})
    np.testing.assert_array_equal(found.numpy(), np.diff(x, axis=axis, n=n, **given), strict=True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_with_duplicates_nan_and_sorter(backend, side):
    known = np.array([-np.inf, -1, 0, 0, 0, 2, 2, np.inf, np.nan, np.nan], np.float32)
    wanted = np.array([[-np.inf, -2, -1, -0.0], [0, 1, 2, 3], [np.inf, np.nan, 5, -5]], np.float32)
    expected = np.searchsorted(known, wanted, side=side)
    found = netcl.searchsorted(netcl.asarray(known), netcl.asarray(wanted), side=side)
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    mixed = np.random.default_rng(0).permutation(known)
    for dtype in ("int64", "int16"):
        sorter = netcl.asarray(np.argsort(mixed, stable=True).astype(dtype))
        found = netcl.searchsorted(netcl.asarray(mixed), netcl.asarray(wanted), side=side, sorter=sorter)
        np.testing.assert_array_equal(found.numpy(), expected, strict=True)


def test_searchsorted_without_elements_and_of_numbers(backend):
    x, none = netcl.asarray([1.0, 2.0]), netcl.zeros((0,))
    assert netcl.searchsorted(none, x).tolist() == [0, 0]
    assert netcl.searchsorted(x, netcl.zeros((2, 0))).shape == (2, 0)
    assert netcl.searchsorted(none, none).shape == (0,)
    assert netcl.searchsorted(x, 2.0, side="right").item() == 2
    assert netcl.searchsorted(netcl.asarray([1, 2], dtype="uint8"), 2).item() == 1


def test_isin(backend):
    x = netcl.asarray([[1.0, NAN], [-0.0, np.inf]])
    assert netcl.isin(x, netcl.asarray([0.0, NAN, np.inf])).tolist() == [[False, False], [True, True]]
    assert netcl.isin(x, netcl.asarray([0.0, NAN]), invert=True).tolist() == [[True, True], [False, True]]
    for none in (netcl.zeros((0,)), netcl.zeros((3, 0))):
        assert netcl.isin(x, none).tolist() == [[False, False], [False, False]]
        assert netcl.isin(x, none, invert=True).tolist() == [[True, True], [True, True]]
        assert netcl.isin(none, x).shape == none.shape
    assert netcl.isin(x, 1).tolist() == [[True, False], [False, False]]
    assert netcl.isin(3, netcl.asarray([1, 3])).item() is True
    wide, narrow = netcl.asarray([2**40, 7]), netcl.asarray([7], dtype="int8")
    assert netcl.isin(wide, narrow).tolist() == [False, True]
    assert netcl.isin(narrow, wide).tolist() == [True]


def test_each_nan_is_different_and_the_zeros_are_one(backend):
    x = netcl.asarray([[NAN, 0.0, -0.0], [1.0, NAN, 0.0]])
    values, indices, inverse, counts = netcl.unique_all(x)
    np.testing.assert_array_equal(values.numpy(), np.float32([0, 1, NAN, NAN]))
    assert (indices.tolist(), counts.tolist()) == ([1, 3, 0, 4], [3, 1, 1, 1])
    assert inverse.tolist() == [[2, 0, 0], [1, 3, 0]]
    assert (netcl.unique_counts(x).counts.tolist(), netcl.unique_values(x).shape) == ([3, 1, 1, 1], (4,))


def test_sets_of_complex_numbers(backend):
    x = netcl.asarray([1 + 2j, 1 - 1j, 1 + 2j, -3j, complex(2, NAN), complex(NAN, 1)], dtype="complex64")
    values, indices, inverse, counts = netcl.unique_all(x)
    assert values.numpy()[:3].tolist() == [-3j, 1 - 1j, 1 + 2j]
    np.testing.assert_array_equal(netcl.take(values, inverse, axis=0).numpy(), x.numpy())
    np.testing.assert_array_equal(netcl.take(x, indices, axis=0).numpy(), values.numpy())
    assert (sorted(counts.tolist()), counts.tolist()[:3]) == ([1, 1, 1, 1, 2], [1, 1, 2])


def test_sets_without_elements(backend):
    values, indices, inverse, counts = netcl.unique_all(netcl.zeros((2, 0)))
    assert (values.shape, indices.shape, inverse.shape, counts.shape) == ((0,), (0,), (2, 0), (0,))


def test_positions_of_every_dtype(backend, every_row, in_short):
    some = ["bool", "int8", "uint64", "float16", "float32", "complex64"][:: 2 if in_short else 1]
    for dtype in filter(backend.supports, netcl.dtypes.ALL if every_row else map(netcl.dtypes.as_dtype, some)):
        x = netcl.astype(netcl.asarray([[0, 1, 0], [1, 1, 0]]), dtype)
        assert [axis.tolist() for axis in netcl.nonzero(x)] == [[0, 1, 1], [1, 0, 1]]
        assert [axis.tolist() for axis in netcl.nonzero(x.T)] == [[0, 1, 1], [1, 0, 1]]


def test_positions_of_nan_and_minus_zero(backend):
    assert netcl.nonzero(netcl.asarray([NAN, -0.0, 0.0, 1e-30]))[0].tolist() == [0, 3]


REFUSALS = {
    "sort of complex": (lambda: netcl.sort(netcl.asarray([1j])), DTypeError, "complex64.*real"),
    "argsort of complex": (lambda: netcl.argsort(netcl.asarray([1j])), DTypeError, "complex64.*real"),
    "sort along 1": (lambda: netcl.sort(netcl.ones(3), axis=1), IndexError, "1"),
    "cumulative_sum of two axes": (lambda: netcl.cumulative_sum(netcl.ones((2, 3))), ShapeError, r"\(2, 3\).*axis="),
    "cumulative_prod of bool": (lambda: netcl.cumulative_prod(netcl.asarray([True])), DTypeError, "bool.*astype"),
    "diff n": (lambda: netcl.diff(netcl.ones(3), n=-1), ArgumentError, "n must be .*0.*-1"),
    "negative count": (lambda: netcl.repeat(netcl.ones(2), netcl.asarray([1, -2])), ArgumentError, "0, got -2"),
    "negative repeats": (lambda: netcl.repeat(netcl.ones(2), -1), (ArgumentError, DTypeError), "repeats.*-1"),
    "count too few": (lambda: netcl.repeat(netcl.ones(3), netcl.asarray([1, 2])), ShapeError, r"3, got shape \(2,\)"),
    "fractional counts": (lambda: netcl.repeat(netcl.ones(2), netcl.ones(2)), DTypeError, "float32.*astype"),
    "nonzero of no axis": (lambda: netcl.nonzero(netcl.asarray(1.0)), ShapeError, r"\(\).*reshape"),
    "side": (lambda: netcl.searchsorted(netcl.ones(1), netcl.ones(1), side="middle"), ValueError, "left.*middle"),
    "searchsorted in a matrix": (
        lambda: netcl.searchsorted(netcl.ones((2, 2)), netcl.ones(1)), ShapeError, r"\(2, 2\).*row"
    ),
    "searchsorted of bool": (
        lambda: netcl.searchsorted(netcl.asarray([True]), netcl.ones(1)), DTypeError, "bool.*astype"
    ),
    "sorter": (
        lambda: netcl.searchsorted(netcl.ones(2), netcl.ones(1), sorter=netcl.asarray([0])), ShapeError,
        r"\(2,\), got \(1,\)",
    ),
    "isin of complex": (lambda: netcl.isin(netcl.asarray([1j]), netcl.ones(1)), DTypeError, "complex64.*=="),
    "isin of text": (lambda: netcl.isin("a", netcl.ones(1)), DTypeError, "'a'.*asarray"),
    "take_along_axis of fewer axes": (
        lambda: netcl.take_along_axis(netcl.ones((2, 2)), netcl.asarray([0])), ShapeError, r"2 axes.*\(1,\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_value_and_the_remedy(name):
    call, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        call()
