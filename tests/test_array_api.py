"""netcl's namespaces beside array-api-strict's: every name, and every function's dtypes, shapes and values."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

import netcl

strict = pytest.importorskip("array_api_strict")

from hypothesis.extra import array_api  # noqa: E402

from tests.standard_calls import ALL, FAMILIES, Call, Case, DTypeName, array, some_shape, xps  # noqa: E402

OF_STRICT_ALONE = {
    "ArrayAPIStrictFlags", "Device", "__version__", "get_array_api_strict_flags", "reset_array_api_strict_flags",
    "set_array_api_strict_flags",
}  # fmt: skip
CONSTANTS = {"e", "inf", "nan", "newaxis", "pi"}
ELSEWHERE = {"fft", "linalg", "__array_api_version__", "__array_namespace_info__"}
CASES = [(family, name) for family, cases in FAMILIES.items() for name in cases]
DTYPES_AT_ONCE = 3
"""On OpenCL, where every row is wanted."""


def converted(value: Any, xp: Any) -> Any:
    """The arguments of a call as ``xp`` has them."""
    if isinstance(value, np.ndarray):
        return xp.asarray(value)
    if isinstance(value, DTypeName):
        return getattr(xp, value)
    return type(value)(converted(one, xp) for one in value) if isinstance(value, list | tuple) else value


def called(name: str, call: Call, xp: Any) -> Any:
    options = {key: converted(value, xp) for key, value in call.options.items()}
    return getattr(xp, name)(*converted(call.args, xp), **options)


def expected(name: str, call: Call, case: Case) -> Any:
    with np.errstate(all="ignore"):
        return case.oracle(*call.args, **call.options) if case.oracle else called(name, call, strict)


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or hasattr(x, "__dlpack__")


def name_of(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def assert_same(got: Any, want: Any, loose: float, *, values: bool = True) -> None:
    """Of equal dtype, shape and fields; elements within ``loose`` times the dtype's epsilon, relative and absolute."""
    if is_array(want):
        assert isinstance(got, netcl.Tensor)
        assert (name_of(got.dtype), got.shape) == (name_of(want.dtype), want.shape)
        if values:
            want = np.asarray(want)
            eps = loose * (float(np.finfo(want.dtype).eps) if want.dtype.kind in "fc" else 0)
            np.testing.assert_allclose(got.numpy(), want, rtol=eps, atol=eps, strict=True)
    elif isinstance(want, tuple | list):
        assert type(got) is tuple or (isinstance(got, tuple) and hasattr(got, "_fields"))
        assert getattr(got, "_fields", ()) == getattr(want, "_fields", ())
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, loose, values=values)
    elif hasattr(want, "bits"):
        fields = [field for field in ("bits", "eps", "max", "min", "smallest_normal") if hasattr(want, field)]
        assert [getattr(got, field) for field in fields] == [getattr(want, field) for field in fields]
        assert name_of(got.dtype) == name_of(want.dtype)
    elif isinstance(want, bool):
        assert got is want
    else:
        assert name_of(got) == name_of(want)


def dtypes_for(name: str, case: Case, backend: Any, every_row: bool) -> list[str]:
    """Those of the case that the device has; on OpenCL a few or one of them, from another one on for each function."""
    dtypes = [dtype for dtype in case.dtypes if backend.supports(getattr(netcl, dtype))]
    most = len(dtypes)
    if backend.device.backend == "opencl":
        most = min(most, DTYPES_AT_ONCE) if every_row else 1
    start, step = zlib.crc32(name.encode()), max(len(dtypes) // most, 1)
    return [dtypes[(start + i * step) % len(dtypes)] for i in range(most)]


@pytest.mark.compiled(rows=lambda row: row["family"] != "elementwise" or zlib.crc32(row["name"].encode()) % 4 == 0)
@pytest.mark.short(rows=lambda row: zlib.crc32(row["name"].encode()) % 5 == 0)
@pytest.mark.parametrize(("family", "name"), CASES)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_results_are_the_standards(family, name, backend, every_row, data):
    """Dtype and shape are array-api-strict's, values within the tolerance that the case names, most of them equal.

    Each example draws arguments for every dtype of the function: shapes with zero extents and without axes, operands
    that broadcast and promote, Python numbers, NaN, infinities, -0.0 and the extremes of integers. OpenCL compiles each
    new kernel for up to a third of a second: there every function has one dtype (three, where every row is wanted),
    another one for each function, and of elementwise functions, whose operators test_map.py tries, every second one is
    there. The runtimes behind the first have every fifth function. NumPy has them all.
    """
    case = FAMILIES[family][name]
    for dtype in dtypes_for(name, case, backend, every_row):
        call = case.draw(data, dtype)
        note(f"{name} of {dtype}: {call}")
        want = expected(name, call, case)
        with netcl.use_backend(backend):
            assert_same(called(name, call, netcl), want, case.loose, values=not name.startswith("empty"))


@settings(max_examples=8, phases=[Phase.generate])
@given(data=st.data())
def test_subscripts_are_the_standards(backend, every_row, data):
    for dtype in dtypes_for("subscripts", FAMILIES["manipulation"]["flip"], backend, every_row):
        x = array(data, dtype, some_shape(data))
        key = data.draw(xps.indices(x.shape, allow_newaxis=True))
        note(f"{x!r}[{key}]")
        with netcl.use_backend(backend):
            assert_same(netcl.asarray(x)[key], strict.asarray(x)[key], 0)
            mask = array(data, "bool", x.shape)
            assert_same(netcl.asarray(x)[netcl.asarray(mask)], strict.asarray(x)[strict.asarray(mask)], 0)


def test_every_name_of_the_standard_is_there():
    wanted = set(strict.__all__) - OF_STRICT_ALONE
    assert wanted - set(netcl.__all__) == set()
    assert {*strict.linalg.__all__, "eig", "eigvals"} - set(netcl.linalg.__all__) == set()
    assert set(strict.fft.__all__) - set(netcl.fft.__all__) == set()


def test_every_function_has_a_case():
    tested = {name for _, name in CASES} | CONSTANTS | ELSEWHERE | set(ALL)
    assert set(strict.__all__) - OF_STRICT_ALONE - tested == set()
    assert len(CASES) == len({name for _, name in CASES})


def test_constants_are_the_standards():
    assert (netcl.e, netcl.inf, netcl.pi, netcl.newaxis) == (math.e, math.inf, math.pi, None)
    assert math.isnan(netcl.nan)
    assert netcl.__array_api_version__ == "2025.12"


def test_what_the_namespace_says_of_itself(backend):
    with netcl.use_backend(backend):
        mine, theirs = netcl.__array_namespace_info__(), strict.__array_namespace_info__()
        assert {name for name in dir(theirs) if name[0] != "_"} <= set(dir(mine))
        assert set(theirs.capabilities()) == set(mine.capabilities())
        kinds = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating")
        for kind in (None, *kinds, ("bool", "integral")):
            names = {name for name in theirs.dtypes(kind=kind) if backend.supports(getattr(netcl, name))}
            assert set(mine.dtypes(kind=kind)) == names
        defaults = mine.default_dtypes()
        assert set(defaults) == set(theirs.default_dtypes())
        assert netcl.asarray(1.0).dtype == defaults["real floating"]
        assert netcl.argsort(netcl.asarray([1.0])).dtype == defaults["indexing"]
        assert backend.device in mine.devices()


@given(data=st.data())
@settings(max_examples=5)
def test_hypothesis_draws_tensors(data):
    """Its strategies know a namespace by the standard alone."""
    mine = array_api.make_strategies_namespace(netcl)
    with netcl.use_backend("numpy"):
        x = data.draw(mine.arrays(mine.scalar_dtypes(), mine.array_shapes(min_side=0)))
    assert isinstance(x, netcl.Tensor)
