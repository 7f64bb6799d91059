"""How numbers, arrays, extents and dtypes come in: rounded once, or refused, the same way at every entrance."""

from __future__ import annotations

import array
import ctypes
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import netcl
from netcl import dtypes, nn, optim
from netcl.dtypes import as_dtype, bfloat16, float16, float32
from netcl.errors import ArgumentError, DTypeError, NetclError, RangeError, ShapeError
from netcl.nn import init
from netcl.rounding import float_of, nearest

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FORMATS = {float16: (11, -24, 65504), bfloat16: (8, -133, Fraction(255, 128) * 2**127),
           float32: (24, -149, (2 - Fraction(1, 2**23)) * 2**127)}  # fmt: skip


def rounded(value: float | int, dtype: dtypes.DType) -> float:
    """The nearest number of a format, ties to even, in exact arithmetic."""
    digits, smallest, largest = FORMATS[dtype]
    exact = Fraction(value)
    if not exact:
        return 0.0
    exponent = smallest
    while abs(exact) >= Fraction(2) ** (exponent + digits):
        exponent += 1
    result = round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent  # Fraction rounds halves to even
    return float(result) if abs(result) <= largest else math.copysign(math.inf, value)


def halfway(dtype: dtypes.DType, count: int, seed: int) -> list[float]:
    """Numbers in the middle of two neighbours, and as close to it on either side as float64 allows."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 0x7BFF if dtype is float16 else 0x7F7F, count).astype(np.uint16)
    bits = np.concatenate([bits, np.array([0, 1, 0x7BFF if dtype is float16 else 0x7F7F], np.uint16)])
    stored = bits.view(np.float16) if dtype is float16 else (bits.astype(np.uint32) << 16).view(np.float32)
    low = stored.astype(np.float64)
    digits, smallest, _ = FORMATS[dtype]
    unit = np.ldexp(1.0, np.maximum(np.frexp(low)[1] - digits, smallest))
    middle = low + unit / 2
    near = [middle, np.nextafter(middle, np.inf), np.nextafter(middle, 0), middle * (1 + 2.0**-40), low]
    found = np.concatenate(near)
    return (found * rng.choice([-1.0, 1.0], found.size)).tolist()


@pytest.mark.short(dtype=[bfloat16])
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_float64_is_rounded_once_to_sixteen_bits(backend, dtype):
    values = halfway(dtype, 400, seed=1)
    expected = [rounded(value, dtype) for value in values]
    place = {"device": backend.device}
    wide = netcl.asarray(values, dtype="float64", **place)
    for found in (
        netcl.asarray(values, dtype=dtype, **place),
        netcl.asarray(np.array(values), dtype=dtype, **place),
        netcl.astype(wide, dtype),
        netcl.astype(wide[::-1], dtype)[::-1],
        netcl.asarray(wide, dtype=dtype),
    ):
        assert found.tolist() == expected
    target = netcl.zeros(len(values), dtype=dtype, **place)
    target[...] = wide
    assert target.tolist() == expected


@pytest.mark.short(dtype=[float16])
@pytest.mark.parametrize("dtype", [float16, bfloat16], ids=str)
def test_a_number_is_rounded_once_to_sixteen_bits(backend, dtype):
    place = {"dtype": dtype, "device": backend.device}
    for value in halfway(dtype, 2, seed=2):
        x = netcl.full(4, value, **place)
        x[1] = value
        x[::3] = value
        x[netcl.asarray([False, False, True, False], device=backend.device)] = value
        low, high = (netcl.full(2, limit, **place) for limit in (-math.inf, math.inf))
        chosen = netcl.where(low > 0.0, low, value)
        found = [
            *x.tolist(),
            *chosen.tolist(),
            *netcl.maximum(low, value).tolist(),
            *netcl.minimum(value, high).tolist(),
        ]
        found += netcl.clip(low, min=value).tolist() + netcl.clip(high, max=value).tolist()
        found += init.constant_(low, value).tolist() + netcl.full_like(high, value).tolist()
        assert found == [rounded(value, dtype)] * len(found)


@given(value=st.floats(allow_nan=False, allow_infinity=False), dtype=st.sampled_from(list(FORMATS)))
@example(value=1.7972e308, dtype=dtypes.float16)
@example(value=-math.nextafter(math.inf, 0.0), dtype=dtypes.bfloat16)
def test_nearest_is_exact(value, dtype):
    assert nearest(value, dtype) == rounded(value, dtype)


@given(value=st.integers(-(2**200), 2**200), dtype=st.sampled_from(list(FORMATS)))
def test_integers_become_the_nearest_float(value, dtype):
    assert nearest(float_of(value), dtype) == rounded(value, dtype)


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "uint64"])
def test_integers_are_rounded_once_to_bfloat16(backend, name):
    limits = np.iinfo(name)
    rng = np.random.default_rng(3)
    tops = [t for t in (2**30, 2**40, 2**62) if t <= limits.max // 2]
    near = [t + t // 2**8 * k + d for t in tops for k in (1, 3, 5) for d in (-1, 0, 1)]
    values = [*near, *([-x for x in near] if limits.min else []), limits.min, limits.max, 0, 1]
    values += rng.integers(limits.min, limits.max, 200, dtype=name).tolist()
    x = netcl.asarray(np.array(values, name), device=backend.device)
    expected = [rounded(value, bfloat16) for value in values]
    assert netcl.astype(x, bfloat16).tolist() == expected
    assert netcl.asarray(np.array(values, name), dtype=bfloat16, device=backend.device).tolist() == expected


def test_a_sum_to_sixteen_bits_adds_what_was_not_rounded_to_odd():
    x = netcl.full(1024, 1 + 2**-40, dtype="float64", device="numpy")
    assert netcl.sum(x, dtype=float16).item() == 1024.0


# -- integers out of range -------------------------------------------------------------------------------------------

ENTRANCES = {
    "asarray(list)": lambda v, dtype: netcl.asarray([v], dtype=dtype),
    "asarray(number)": lambda v, dtype: netcl.asarray(v, dtype=dtype),
    "asarray(array)": lambda v, dtype: netcl.asarray(np.array([v]), dtype=dtype),
    "full": lambda v, dtype: netcl.full(2, v, dtype=dtype),
    "full_like": lambda v, dtype: netcl.full_like(netcl.zeros(2, dtype=dtype), v),
    "arange": lambda v, dtype: netcl.arange(v, v + 1, dtype=dtype),
    "x[i] =": lambda v, dtype: netcl.zeros(2, dtype=dtype).__setitem__(0, v),
    "x[::2] =": lambda v, dtype: netcl.zeros(3, dtype=dtype).__setitem__(slice(None, None, 2), v),
    "x[mask] =": lambda v, dtype: (lambda x: x.__setitem__(x == 0, v))(netcl.zeros(3, dtype=dtype)),
    "x + v": lambda v, dtype: netcl.zeros(2, dtype=dtype) + v,
    "x += v": lambda v, dtype: netcl.zeros(2, dtype=dtype).__iadd__(v),
    "maximum": lambda v, dtype: netcl.maximum(netcl.zeros(2, dtype=dtype), v),
    "clip": lambda v, dtype: netcl.clip(netcl.zeros(2, dtype=dtype), min=v),
    "where": lambda v, dtype: (lambda x: netcl.where(x == 0, x, v))(netcl.zeros(2, dtype=dtype)),
    "constant_": lambda v, dtype: init.constant_(netcl.zeros(2, dtype=dtype), v),
}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_integers_out_of_range_are_refused_everywhere(entrance, name):
    limits = np.iinfo(name)
    call = ENTRANCES[entrance]
    with netcl.use_backend("numpy"):
        for value in (int(limits.min), int(limits.max)):
            call(value if entrance != "arange" or value < limits.max else value - 1, name)
        for value in (int(limits.min) - 1, int(limits.max) + 1, 10**30):
            with pytest.raises(NetclError, match=r"out of range for u?int|neither int64 nor uint64|dtype object"):
                call(value, name)


@pytest.mark.parametrize("value", [1.5, math.nan, math.inf, -math.inf, 2.0**64, 3j])
@pytest.mark.parametrize("entrance", ["asarray(list)", "asarray(array)", "full", "full_like", "x[i] =", "x[mask] ="])
def test_what_is_no_integer_is_refused(entrance, value):
    with netcl.use_backend("numpy"), pytest.raises(DTypeError, match=r"(value|range|convert) .*int32"):
        ENTRANCES[entrance](value, "int32")


def test_whole_floats_are_integers():
    with netcl.use_backend("numpy"):
        assert netcl.asarray([1.0, -2.0], dtype="int8").tolist() == [1, -2]
        assert netcl.full(1, 3.0, dtype="uint8").tolist() == [3]
        assert netcl.asarray(np.array([2.0**63]), dtype="uint64").tolist() == [2**63]
        assert netcl.arange(2**63, 2**63 + 3, dtype="uint64").tolist() == [2**63, 2**63 + 1, 2**63 + 2]


def test_imaginary_parts_are_not_dropped():
    z = netcl.asarray([1j], device="numpy")
    x = netcl.zeros(1, device="numpy")
    for call in (
        lambda: netcl.asarray([1j], dtype="float32"),
        lambda: netcl.full(1, 1j, dtype="float32"),
        lambda: z.astype("float32"),
        lambda: x.__setitem__(0, z[0]),
        lambda: x.__setitem__(..., 1j),
        lambda: x.__setitem__(x == 0, z),
    ):
        with pytest.raises(DTypeError):
            call()
    assert x.item() == 0.0


@pytest.mark.parametrize("call", [
    lambda x: x + 10**400, lambda x: netcl.full(1, 10**400, dtype="float32"), lambda x: x.__setitem__(0, -(10**400)),
])  # fmt: skip
def test_integers_beyond_all_floats_are_refused(call):
    with pytest.raises(RangeError, match="out of range for float32"):
        call(netcl.zeros(1, device="numpy"))


# -- what holds numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "c16"])
def test_arrays_of_the_other_byte_order_are_converted(kind):
    native = np.arange(6).astype(kind).reshape(2, 3)
    swapped = native.astype(native.dtype.newbyteorder("S"))
    for source in (swapped, swapped.T, [*swapped], swapped[0, 1]):
        found = netcl.asarray(source, device="numpy")
        np.testing.assert_array_equal(found.numpy(), np.asarray(source).astype(native.dtype))
        assert found.dtype.name == native.dtype.name


def _read_only(x):
    x.flags.writeable = False
    return x


SOURCES = {
    "not contiguous": lambda: np.arange(12.0).reshape(3, 4)[::2, 1::2],
    "backwards": lambda: np.arange(6.0).reshape(2, 3)[::-1, ::-1],
    "read-only": lambda: _read_only(np.arange(3.0)),
    "no elements": lambda: np.zeros((0, 3)),
    "0-d": lambda: np.array(2.5),
    "matrix": lambda: np.arange(4.0).reshape(2, 2).view(np.matrix),
    "memoryview": lambda: memoryview(np.arange(3.0)),
    "bytearray": lambda: bytearray(b"abc"),
    "array.array": lambda: array.array("d", [1, 2]),
    "ctypes": lambda: (ctypes.c_double * 2)(1, 2),
    "range": lambda: range(3),
    "a Tensor in a list": lambda: [[1.0, 2.0], netcl.asarray([3.0, 4.0], device="numpy")],
    "deep": lambda: [[[[[[1.0]]]]]],
    "uint16 as bfloat16": lambda: np.array([1, 2, 300], np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_what_holds_numbers_is_read(backend, source):
    made = SOURCES[source]()
    dtype = "bfloat16" if "bfloat16" in source else None
    found = netcl.asarray(made, dtype=dtype, device=backend.device)
    expected = made if source != "a Tensor in a list" else [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(found.numpy(), np.asarray(expected))


def test_what_is_read_is_copied():
    for made in (np.arange(3.0), array.array("d", [0, 1, 2]), memoryview(np.arange(3.0)), np.ones(3)[::-1]):
        found = netcl.asarray(made, device="numpy")
        before = found.tolist()
        np.asarray(made)[...] = 9.0
        assert found.tolist() == before


def _self_containing():
    holder = []
    holder.append(holder)
    return holder


def _nested(depth):
    made = 1.0
    for _ in range(depth):
        made = [made]
    return made


REFUSED = {
    "masked": lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
    "structured": lambda: np.zeros(2, [("a", "f4")]),
    "object": lambda: np.array([1, None], object),
    "datetime": lambda: np.array(["2020-01-01"], "M8[D]"),
    "timedelta": lambda: np.array([1], "m8[s]"),
    "text": lambda: np.array(["a"]),
    "bytes array": lambda: np.array([b"a"]),
    "longdouble": lambda: np.zeros(2, np.longdouble),
    "clongdouble": lambda: np.zeros(2, np.clongdouble),
    "str": lambda: "1.0", "bytes": lambda: b"1", "None": lambda: None, "set": lambda: {1.0}, "dict": lambda: {1: 2},
    "generator": lambda: (x for x in (1.0, 2.0)), "function": lambda: len,
    "ragged": lambda: [[1.0], [2.0, 3.0]], "list of str": lambda: ["1", "2"], "list of None": lambda: [1.0, None],
    "self-containing": _self_containing, "100,000 levels": lambda: _nested(100_000), "100 levels": lambda: _nested(100),
    "beyond uint64": lambda: [2**64], "both ends of 64 bits": lambda: [2**63, -1],
}  # fmt: skip


@pytest.mark.parametrize("source", REFUSED)
def test_what_holds_no_numbers_is_refused(source):
    made = REFUSED[source]()
    with pytest.raises((DTypeError, ShapeError)):
        netcl.asarray(made, device="numpy")


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.AdamW])
def test_host_arrays_of_the_other_byte_order_are_refused(optimizer):
    w = np.ones(3, np.dtype("f4").newbyteorder("S"))
    with pytest.raises(DTypeError, match="byte order of another machine"):
        optimizer([w], backend="numpy")
    with pytest.raises(DTypeError, match="masked array"):
        optimizer([np.ma.masked_array(np.ones(3, np.float32), [0, 1, 0])], backend="numpy")
    assert (w == 1).all()


def test_a_state_of_the_other_byte_order_is_read():
    model = nn.Linear(2, 1, device="numpy")
    state = {name: value.astype(value.dtype.newbyteorder("S")) for name, value in model.state_dict().items()}
    twin = nn.Linear(2, 1, device="numpy")
    twin.load_state_dict(state)
    assert twin.weight.tolist() == model.weight.tolist()


# -- extents and dtypes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [
    (2.7, 3), 2.0, True, (True, 2), -1, (2, -1), (2**40, 2**40), 2**63, "3", "ab", b"3", None, (None,), ((2,), 3), {2},
    {2: 3}, 1j, math.nan, [2, 3.0], np.array([2.0]), np.array([[2]]), np.float64(2), np.bool_(True), object(),
])  # fmt: skip
@pytest.mark.parametrize("function", [
    netcl.zeros, netcl.empty, netcl.ones, lambda shape: netcl.full(shape, 1.0),
    lambda shape: netcl.broadcast_to(netcl.ones(1), shape),
])  # fmt: skip
def test_what_is_no_shape_is_refused(function, shape):
    with netcl.use_backend("numpy"), pytest.raises((ShapeError, netcl.errors.DeviceMemoryError)):
        function(shape)


@pytest.mark.parametrize(
    "shape", [6, (6,), [2, 3], np.int64(6), (np.int32(2), np.uint8(3)), np.array([2, 3]), range(6, 7)]
)
def test_shapes(shape):
    with netcl.use_backend("numpy"):
        assert netcl.zeros(shape).size == 6
        assert netcl.reshape(netcl.zeros(6), shape).size == 6
        assert netcl.zeros(netcl.asarray(6)).shape == (6,)


@pytest.mark.parametrize("shape", [(2.0, 3), (-1, -1), (-2, 3), True, "6", None, (4, -1), (6, 2)])
def test_reshapes_that_are_refused(shape):
    x = netcl.zeros(6, device="numpy")
    for call in (lambda: netcl.reshape(x, shape), lambda: x.reshape(shape)):
        with pytest.raises(ShapeError):
            call()
    with pytest.raises(ShapeError):
        x.reshape(2.0, 3)


@pytest.mark.parametrize("name", [dtype.name for dtype in dtypes.ALL])
def test_names_of_dtypes(name):
    assert as_dtype(name) is as_dtype(as_dtype(name)) is dtypes.BY_NAME[name]
    if name != "bfloat16":
        assert as_dtype(np.dtype(name)) is as_dtype(np.dtype(name).type) is dtypes.BY_NAME[name]


@pytest.mark.parametrize("dtype", [
    None, "float", "float32_", "FLOAT32", "f4", "", 32, 1.5, object(), len, np, {}, [], ["float32"], b"float32",
    np.void, np.longdouble, np.dtype("U3"), np.dtype("M8[s]"), np.dtype(object), np.dtype([("a", "f4")]),
    np.dtype("f4").newbyteorder("S"), np.zeros(2, np.float32), str, list,
])  # fmt: skip
def test_what_is_no_dtype_is_refused(dtype):
    with pytest.raises(DTypeError):
        as_dtype(dtype)


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="NumPy does not ask yet")
@pytest.mark.parametrize("dtype", [dtype for dtype in dtypes.ALL if dtype is not bfloat16], ids=str)
def test_numpy_takes_dtypes(dtype):
    assert np.dtype(dtype) == np.dtype(dtype.name)
    assert np.zeros(2).astype(dtype).dtype == np.dtype(dtype.name)


def test_numpy_does_not_take_bfloat16():
    with pytest.raises(TypeError, match="bfloat16"):
        np.dtype(bfloat16)


def test_types_of_python_and_numpy():
    assert [as_dtype(t) for t in (bool, int, float, complex)] == [
        dtypes.bool_, dtypes.int64, dtypes.float32, dtypes.complex64,
    ]  # fmt: skip
    assert as_dtype(np.longlong).name == np.dtype(np.longlong).name


def test_a_device_that_is_another_tensor_is_refused():
    with pytest.raises(NetclError, match="chosen by a string"):
        netcl.zeros(2, device=netcl.ones(2, device="numpy"))
    with pytest.raises(ArgumentError, match="requires_grad must be True or False"):
        netcl.zeros(2, requires_grad="yes")


SEQUENCES = {
    "one dtype": (("int32", "int32"), "int32"),
    "a 64-bit float": (("float64",), "float64"),
    "wider": (("float32", "float64"), "float64"),
    "with a number": (("int32", 1), "int32"),
    "after a number": ((1, "int8"), "int8"),
    "a float beside integers": (("int32", 0.5), "float32"),
    "a float beside 64 bits": ((0.5, "float64"), "float64"),
    "sixteen bits": (("bfloat16", 2), "bfloat16"),
    "complex": (("float64", 1j), "complex128"),
    "bool": (("bool", "uint8"), "uint8"),
    "of NumPy": ((np.int16(3), "int8"), "int16"),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("deep", [False, True], ids=["flat", "nested"])
def test_a_sequence_with_tensors_has_the_dtype_that_they_promote_to(name, deep):
    parts, dtype = SEQUENCES[name]
    with netcl.use_backend("numpy"):
        row = [netcl.ones((), dtype=part) if isinstance(part, str) else part for part in parts]
        made = netcl.asarray([tuple(row), row] if deep else row)
    assert str(made.dtype) == dtype
    values = [1 if isinstance(part, str) else part for part in parts]
    assert made.tolist() == ([values, values] if deep else values)


def test_astype_takes_the_dtype_by_name():
    """As NumPy's functions, and array-api-compat's, give it."""
    x = netcl.asarray([1.5], device="numpy")
    assert x.astype(dtype=np.dtype("int32"), copy=False).dtype is netcl.int32
