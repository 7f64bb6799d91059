"""For every function of the standard's main namespace, how to draw the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import array_api_strict as strict
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import array_api

strict.set_array_api_strict_flags(api_version="2025.12")
xps = array_api.make_strategies_namespace(strict)

BOOLS = ("bool",)
SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
FLOATS, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
REAL, FLOATING, NUMBERS = INTEGERS + FLOATS, FLOATS + COMPLEX, INTEGERS + FLOATS + COMPLEX
ALL = BOOLS + NUMBERS


class DTypeName(str):
    """A dtype among the arguments of a call: each namespace has its own object of this name."""


@dataclass(frozen=True)
class Call:
    """Arguments, in which NumPy arrays and :class:`DTypeName` stand for what a namespace has instead."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Which dtypes the first array may have, and how to draw a call for one of them.

    ``loose`` multiplies the tolerance: 0 where the values must be equal.
    """

    dtypes: tuple[str, ...]
    draw: Callable[[Any, str], Call]
    loose: float = 0
    oracle: Callable[..., Any] | None = None


@cache
def elements(dtype: str, low: float, high: float, special: bool) -> Any:
    """Numbers of ``dtype`` between ``low`` and ``high``; ``special`` adds the extremes, NaN, infinities and -0."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return st.booleans()
    if kind == "c":
        part = st.floats(low, high, width=32, allow_subnormal=False)
        return st.builds(complex, part, part)  # special values of complex functions: tests/special_values.py
    if kind in "iu":
        info = np.iinfo(dtype)
        few = st.integers(max(int(low), int(info.min)), min(int(high), int(info.max)))
        return st.one_of(few, st.sampled_from([int(info.min), int(info.max)])) if special else few
    few = st.floats(low, high, width=32, allow_subnormal=False)
    return st.one_of(few, st.sampled_from([-0.0, np.inf, -np.inf, np.nan])) if special else few


SIDES = st.integers(0, 3)


def some_shape(data: Any, least: int = 0, most: int = 2, side: int = 0) -> tuple[int, ...]:
    return tuple(data.draw(xps.array_shapes(min_dims=least, max_dims=max(least, most), min_side=side, max_side=3)))


def array(
    data: Any, dtype: str, shape: Any = None, low: float = -20, high: float = 20, special: bool = True
) -> np.ndarray:
    shape = some_shape(data) if shape is None else shape
    drawn = data.draw(xps.arrays(getattr(strict, dtype), shape, elements=elements(dtype, low, high, special)))
    return np.array(np.from_dlpack(drawn))


def axis_of(data: Any, x: np.ndarray) -> int:
    return data.draw(st.integers(-x.ndim, x.ndim - 1))


def chosen(data: Any, **options: Any) -> dict[str, Any]:
    """A dict with some of these strategies drawn from."""
    return {name: data.draw(strategy) for name, strategy in options.items() if data.draw(st.booleans())}


def unary(dtypes: tuple[str, ...], loose: float = 0, low: float = -20, high: float = 20, special: bool = True) -> Case:
    return Case(dtypes, lambda data, dtype: Call((array(data, dtype, None, low, high, special),)), loose)


def other_dtype(data: Any, dtype: str) -> str:
    """One that the standard promotes with ``dtype``."""
    kind = np.dtype(dtype).kind
    if kind in "fc":
        return data.draw(st.sampled_from(FLOATING))
    signed = [name for name in SIGNED if kind == "i" or np.dtype(name).itemsize > np.dtype(dtype).itemsize]
    unsigned = [name for name in UNSIGNED if kind == "u" or np.dtype(name).itemsize < np.dtype(dtype).itemsize]
    return dtype if kind == "b" else data.draw(st.sampled_from([dtype, *signed, *unsigned]))


def scalar_for(data: Any, dtype: str, low: float, high: float) -> Any:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return data.draw(st.booleans())
    whole = st.integers(max(int(low), 0 if kind == "u" else -100), int(high))
    if kind in "iu":
        return data.draw(whole)
    return data.draw(st.one_of(whole, st.floats(low, high, width=32, allow_subnormal=False)))


def binary(
    dtypes: tuple[str, ...], loose: float = 0, second: tuple[float, float] | None = None, special: bool = True,
    first: tuple[float, float] = (-20, 20), scalars: bool = True, mixed: bool = True,
) -> Case:  # fmt: skip
    """Two operands that broadcast, of dtypes that promote; one of them may be a Python number."""

    def draw(data: Any, dtype: str) -> Call:
        shapes = data.draw(xps.mutually_broadcastable_shapes(2, max_dims=3, min_side=0, max_side=2)).input_shapes
        low, high = second or first
        whole = np.dtype(dtype).kind in "iu"
        x = array(data, dtype, shapes[0], *first, special)
        if scalars and data.draw(st.integers(0, 2)) == 0:
            return Call((x, scalar_for(data, dtype, low, high)))
        if scalars and second is None and data.draw(st.integers(0, 2)) == 0:
            return Call((scalar_for(data, dtype, low, high), x))
        both = other_dtype(data, dtype) if mixed else dtype
        if np.dtype(both).kind == "c" and np.dtype(dtype).kind != "c" and "complex64" not in dtypes:
            both = dtype
        return Call((x, array(data, both, shapes[1], low, high, special and not (second and whole))))

    return Case(dtypes, draw, loose)


ELEMENTWISE = {
    **{name: unary(FLOATING, 8, -4, 4) for name in ("acosh", "asinh", "atan", "exp", "expm1", "sin", "cos", "sinh")},
    **{name: unary(FLOATING, 8, -4, 4) for name in ("cosh", "tanh", "sqrt", "log", "log2", "log10", "log1p")},
    **{name: unary(FLOATING, 8, -0.875, 0.875) for name in ("acos", "asin", "atanh", "tan")},
    **{name: unary(REAL) for name in ("ceil", "floor", "trunc")},
    **{name: unary(NUMBERS) for name in ("negative", "positive", "isfinite", "isinf", "isnan", "round")},
    **{name: unary(NUMBERS, 4) for name in ("abs", "sign", "square", "conj")},
    **{name: unary(COMPLEX) for name in ("imag",)}, "real": unary(NUMBERS), "signbit": unary(FLOATS),
    "reciprocal": unary(FLOATING, 4), "bitwise_invert": unary(BOOLS + INTEGERS), "logical_not": unary(BOOLS),
    **{name: binary(NUMBERS, 4) for name in ("add", "subtract", "multiply")},
    "divide": binary(FLOATING, 8, special=False, second=(0.25, 8)),
    "floor_divide": binary(REAL, second=(1, 8), special=False), "remainder": binary(REAL, 4, second=(1, 8)),
    "pow": binary(REAL, 16, first=(1, 3), second=(0, 3), special=False),
    **{name: binary(FLOATS, 8) for name in ("atan2", "hypot", "logaddexp", "copysign")},
    "nextafter": binary(FLOATS, first=(1, 20), special=False, mixed=False, scalars=False),
    **{name: binary(ALL) for name in ("equal", "not_equal")},
    **{name: binary(REAL) for name in ("less", "less_equal", "greater", "greater_equal", "maximum", "minimum")},
    **{name: binary(BOOLS + INTEGERS) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    **{name: binary(INTEGERS, second=(0, 7), mixed=False) for name in ("bitwise_left_shift", "bitwise_right_shift")},
    **{name: binary(BOOLS) for name in ("logical_and", "logical_or", "logical_xor")},
}  # fmt: skip


def draw_clip(data: Any, dtype: str) -> Call:
    x = array(data, dtype)
    low, high = sorted(scalar_for(data, dtype, 0, 20) for _ in range(2))
    return Call((x,), chosen(data, min=st.just(low), max=st.just(high)))


def draw_where(data: Any, dtype: str) -> Call:
    shapes = data.draw(xps.mutually_broadcastable_shapes(3, max_dims=3, min_side=0, max_side=2)).input_shapes
    x, y = array(data, dtype, shapes[1]), array(data, other_dtype(data, dtype), shapes[2])
    return Call((array(data, "bool", shapes[0]), x, y))


ELEMENTWISE |= {"clip": Case(REAL, draw_clip), "where": Case(ALL, draw_where)}


def reduction(dtypes: tuple[str, ...], loose: float = 0, side: int = 0, **more: Any) -> Case:
    """Over no, one or several axes. ``side`` is 1 where a reduction of no element is an error."""

    def draw(data: Any, dtype: str) -> Call:
        special = loose == 0 and dtype != "int64"
        x = array(data, dtype, some_shape(data, side=side), -4, 4, special=special)
        axes = st.one_of(st.none(), xps.valid_tuple_axes(x.ndim)) if x.ndim else st.none()
        if x.ndim and more.get("single"):
            axes = st.sampled_from([None, 0, -1])
        dtype_option = {"dtype": st.sampled_from([DTypeName("float64"), None])} if "dtype" in more else {}
        if dtype not in FLOATS:
            dtype_option = {}
        correction = {"correction": st.sampled_from([0, 0.5])} if more.get("correction") else {}
        return Call((x,), chosen(data, axis=axes, keepdims=st.booleans(), **dtype_option, **correction))

    return Case(dtypes, draw, loose)


REDUCTIONS = {
    "sum": reduction(NUMBERS, 16, dtype=True), "prod": reduction(NUMBERS, 64, dtype=True),
    "mean": reduction(FLOATING, 16, side=1), "std": reduction(FLOATS, 64, side=1, correction=True),
    "var": reduction(FLOATS, 64, side=1, correction=True), "max": reduction(REAL, side=1),
    "min": reduction(REAL, side=1), "all": reduction(ALL), "any": reduction(ALL), "count_nonzero": reduction(ALL),
    "argmax": reduction(REAL, side=1, single=True), "argmin": reduction(REAL, side=1, single=True),
}  # fmt: skip


def draw_cumulative(data: Any, dtype: str) -> Call:
    x = array(data, dtype, some_shape(data, 1), -4, 4, special=False)
    axis = axis_of(data, x) if x.ndim > 1 or data.draw(st.booleans()) else None
    return Call((x,), {"axis": axis, **chosen(data, include_initial=st.booleans())})


def draw_diff(data: Any, dtype: str) -> Call:
    x = array(data, dtype, some_shape(data, 1))
    axis = axis_of(data, x)
    edges = {name: array(data, dtype, (*x.shape[:axis], 2, *x.shape[axis:][1:])) for name in ("prepend", "append")}
    return Call((x,), {"axis": axis, "n": data.draw(st.integers(0, 2)), **chosen(data, **_just(edges))})


def _just(values: dict[str, Any]) -> dict[str, Any]:
    return {name: st.just(value) for name, value in values.items()}


CUMULATIVE = {
    "cumulative_sum": Case(NUMBERS, draw_cumulative, 16), "cumulative_prod": Case(NUMBERS, draw_cumulative, 64),
    "diff": Case(NUMBERS, draw_diff, 4),
}  # fmt: skip


def draw_sort(data: Any, dtype: str) -> Call:
    descending = data.draw(st.booleans())
    x = array(data, dtype, some_shape(data, 1), -3, 3)
    x[np.isnan(x) & descending] = 0  # NaN last, which NumPy turned round has first: tests/test_searching.py
    return Call((x,), {"axis": axis_of(data, x), "descending": descending, **chosen(data, stable=st.just(True))})


def draw_searchsorted(data: Any, dtype: str) -> Call:
    other = other_dtype(data, dtype)
    other = dtype if "complex" in other else other
    x, y = array(data, dtype, (data.draw(st.integers(0, 6)),), -3, 3), array(data, other, None, -3, 3)
    side = data.draw(st.sampled_from(["left", "right"]))
    if data.draw(st.booleans()):
        return Call((x, y), {"side": side, "sorter": np.argsort(x, stable=True)})
    return Call((np.sort(x), y), {"side": side})


def draw_isin(data: Any, dtype: str) -> Call:
    other = dtype if dtype in FLOATS else other_dtype(data, dtype)
    x, y = (array(data, one, None, -3, 3) for one in (dtype, other))
    return Call((x, y), chosen(data, invert=st.booleans()))


def unique() -> Case:
    return Case(ALL, lambda data, dtype: Call((array(data, dtype, None, -3, 3),)))


SEARCHING = {
    "sort": Case(REAL, draw_sort), "argsort": Case(REAL, draw_sort), "searchsorted": Case(REAL, draw_searchsorted),
    "nonzero": Case(ALL, lambda data, dtype: Call((array(data, dtype, some_shape(data, 1), -1, 1),))),
    "isin": Case(BOOLS + REAL, draw_isin, 0, np.isin),
    **{f"unique_{name}": unique() for name in ("all", "counts", "inverse", "values")},
}  # fmt: skip


def shaping(draw: Callable[[Any, np.ndarray], Call], least: int = 0) -> Case:
    return Case(ALL, lambda data, dtype: draw(data, array(data, dtype, some_shape(data, least))))


def draw_repeat(data: Any, x: np.ndarray) -> Call:
    axis = data.draw(st.sampled_from([None, *range(-x.ndim, x.ndim)]))
    extent = x.size if axis is None else x.shape[axis]
    counts = st.lists(st.integers(0, 3), min_size=extent, max_size=extent)
    repeats = data.draw(st.one_of(st.integers(0, 3), counts))
    return Call((x, np.array(repeats, np.int64) if isinstance(repeats, list) else repeats), {"axis": axis})


def draw_roll(data: Any, x: np.ndarray) -> Call:
    axes = data.draw(xps.valid_tuple_axes(x.ndim))
    if not axes or data.draw(st.booleans()):
        return Call((x, data.draw(st.integers(-9, 9))))
    return Call((x, tuple(data.draw(st.integers(-9, 9)) for _ in axes)), {"axis": axes})


def draw_reshape(data: Any, x: np.ndarray) -> Call:
    shapes = [x.shape[::-1], (x.size,), (1, x.size), (*x.shape, 1)] + ([(-1,), (-1, 1)] if x.size else [])
    return Call((x, data.draw(st.sampled_from(shapes))), chosen(data, copy=st.sampled_from([True, None])))


def draw_joined(data: Any, dtype: str, *, stack: bool) -> Call:
    x = array(data, dtype, some_shape(data, 0 if stack else 1))
    y = array(data, other_dtype(data, dtype), x.shape)
    ndim = x.ndim + stack
    return Call(([x, y, x],), {"axis": data.draw(st.integers(-ndim, ndim - 1))})


def draw_squeeze(data: Any, x: np.ndarray) -> Call:
    wide = x.reshape((1, *x.shape, 1))
    return Call((wide,), {"axis": data.draw(st.sampled_from([0, -1, (0, -1)]))})


def draw_take(data: Any, x: np.ndarray) -> Call:
    axis = axis_of(data, x)
    extent = x.shape[axis]
    many = data.draw(st.lists(st.integers(-extent, extent - 1), max_size=4)) if extent else []
    dtype = data.draw(st.sampled_from(SIGNED))
    return Call((x, np.array(many, dtype)), {"axis": axis})


def draw_take_along_axis(data: Any, x: np.ndarray) -> Call:
    axis = axis_of(data, x)
    extent = x.shape[axis]
    shape = list(x.shape)
    shape[axis] = data.draw(st.integers(0, 3)) if extent else 0
    indices = array(data, "int64", tuple(shape), -extent, max(extent - 1, 0), special=False)
    return Call((x, indices), {"axis": axis})


MANIPULATION = {
    "broadcast_arrays": shaping(lambda data, x: Call((x, x[:1])), 1),
    "broadcast_to": shaping(lambda data, x: Call((x, (2, *x.shape)))),
    "concat": Case(ALL, lambda data, dtype: draw_joined(data, dtype, stack=False)),
    "expand_dims": shaping(lambda data, x: Call((x,), {"axis": data.draw(st.integers(-x.ndim - 1, x.ndim))})),
    "flip": shaping(lambda data, x: Call((x,), chosen(data, axis=xps.valid_tuple_axes(x.ndim)))),
    "matrix_transpose": shaping(lambda data, x: Call((x,)), 2),
    "meshgrid": Case(NUMBERS, lambda data, dtype: Call(
        (array(data, dtype, (2,)), array(data, dtype, (3,))), chosen(data, indexing=st.sampled_from(["xy", "ij"])))),
    "moveaxis": shaping(lambda data, x: Call((x, axis_of(data, x), axis_of(data, x))), 1),
    "permute_dims": shaping(lambda data, x: Call((x, tuple(data.draw(st.permutations(range(x.ndim))))))),
    "repeat": shaping(draw_repeat), "reshape": shaping(draw_reshape), "roll": shaping(draw_roll),
    "squeeze": shaping(draw_squeeze), "stack": Case(ALL, lambda data, dtype: draw_joined(data, dtype, stack=True)),
    "tile": shaping(lambda data, x: Call((x, tuple(data.draw(st.lists(st.integers(0, 3), max_size=4)))))),
    **{name: shaping(lambda data, x: Call((x,), chosen(data, k=st.integers(-3, 3))), 2) for name in ("tril", "triu")},
    "unstack": shaping(lambda data, x: Call((x,), {"axis": axis_of(data, x)}), 1),
    "take": shaping(draw_take, 1), "take_along_axis": shaping(draw_take_along_axis, 1),
}  # fmt: skip


def draw_product(data: Any, dtype: str, name: str) -> Call:
    n, m, k = (data.draw(SIDES) for _ in range(3))
    batch = data.draw(st.sampled_from([(), (2,), (1,)]))
    left, right = {
        "matmul": ((*batch, n, m), (m, k)), "tensordot": ((n, m, k), (m, k, n)), "vecdot": ((*batch, n, m), (m,))
    }[name]  # fmt: skip
    both = other_dtype(data, dtype)
    return Call((array(data, dtype, left, -4, 4, False), array(data, both, right, -4, 4, False)))


PRODUCTS = {
    name: Case(NUMBERS, lambda data, dtype, name=name: draw_product(data, dtype, name), 32)
    for name in ("matmul", "tensordot", "vecdot")
}


def draw_shape(data: Any, dtype: str) -> Call:
    shape = some_shape(data)
    return Call((data.draw(st.sampled_from([shape, shape[0]] if len(shape) == 1 else [shape])),), of(dtype))


def of(dtype: str) -> dict[str, Any]:
    return {"dtype": DTypeName(dtype)}


def draw_full(data: Any, dtype: str) -> Call:
    number = scalar_for(data, dtype, 0, 9)
    default = [{}] if dtype in ("bool", "int64") else []  # that of floats is a choice of the namespace
    return Call((some_shape(data), number), data.draw(st.sampled_from([*default, of(dtype)])))


def draw_like(data: Any, dtype: str) -> Call:
    return Call((array(data, dtype),), data.draw(st.sampled_from([{}, of(data.draw(st.sampled_from(ALL)))])))


def draw_arange(data: Any, dtype: str) -> Call:
    start, stop = (data.draw(st.integers(0, 20)) for _ in range(2))
    step = data.draw(st.sampled_from([1, 2, 3] if dtype in UNSIGNED else [1, 2, -1, -3]))
    return Call((start, stop, step), data.draw(st.sampled_from([{}, of(dtype)])))


def draw_linspace(data: Any, dtype: str) -> Call:
    start, stop = (scalar_for(data, dtype, -9, 9) for _ in range(2))
    num, options = data.draw(st.integers(0, 6)), chosen(data, endpoint=st.booleans())
    return Call((float(start), float(stop), num), {**options, **of(dtype)})


CREATION = {
    "zeros": Case(ALL, draw_shape), "ones": Case(ALL, draw_shape), "empty": Case(ALL, draw_shape),
    "full": Case(ALL, draw_full),
    **{name: Case(ALL, draw_like) for name in ("zeros_like", "ones_like", "empty_like")},
    "full_like": Case(ALL, lambda data, dtype: Call((array(data, dtype), scalar_for(data, dtype, 0, 9)))),
    "eye": Case(ALL, lambda data, dtype: Call(
        (data.draw(SIDES), data.draw(SIDES)), {**chosen(data, k=st.integers(-3, 3)), **of(dtype)})),
    "arange": Case(REAL, draw_arange, 1), "linspace": Case(FLOATS, draw_linspace, 8),
    "asarray": Case(ALL, lambda data, dtype: Call((array(data, dtype, special=False).tolist(),), of(dtype))),
    "from_dlpack": Case(ALL, lambda data, dtype: Call((array(data, dtype),))),
}  # fmt: skip


def draw_astype(data: Any, dtype: str) -> Call:
    wide = data.draw(st.sampled_from([name for name in ALL if dtype not in COMPLEX or name in COMPLEX]))
    return Call((array(data, dtype, None, 0, 9, special=False), DTypeName(wide)), chosen(data, copy=st.booleans()))


def draw_result_type(data: Any, dtype: str) -> Call:
    x = array(data, dtype)
    return Call((x, DTypeName(other_dtype(data, dtype)), *([scalar_for(data, dtype, 0, 9)] if x.ndim else [])))


KINDS = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating", "numeric")
DTYPES = {
    "astype": Case(ALL, draw_astype),
    "broadcast_shapes": Case(BOOLS, lambda data, dtype: Call(
        tuple(data.draw(xps.mutually_broadcastable_shapes(3, min_side=0)).input_shapes))),
    "can_cast": Case(ALL, lambda data, dtype: Call((array(data, dtype), DTypeName(other_dtype(data, dtype))))),
    "finfo": Case(FLOATING, lambda data, dtype: Call((DTypeName(dtype),))),
    "iinfo": Case(INTEGERS, lambda data, dtype: Call((DTypeName(dtype),))),
    "isdtype": Case(ALL, lambda data, dtype: Call((DTypeName(dtype), data.draw(st.sampled_from(KINDS))))),
    "result_type": Case(ALL, draw_result_type),
}  # fmt: skip

FAMILIES = {
    "elementwise": ELEMENTWISE, "reductions": REDUCTIONS, "cumulative": CUMULATIVE, "searching": SEARCHING,
    "manipulation": MANIPULATION, "products": PRODUCTS, "creation": CREATION, "dtypes": DTYPES,
}  # fmt: skip
