"""Shapes, indices and writes of the array programs: all exact, NumPy's answer itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import netcl
import netcl.functional as F
from tests.fuzz.arrays import COMPLEX, FLOATS, INTEGERS, Expected, Host, Operation, Pool, exact
from tests.fuzz.case import Values

DTYPES = (*FLOATS, *INTEGERS, "bool", *COMPLEX)
KINDS = "fiubc"
Options = Callable[[random.Random, tuple[int, ...]], dict[str, Any] | None]


def _one(options: Options, call: Callable[..., Any], oracle: Callable[..., Any], least: int = 0) -> Operation:
    """An operation of one array, whose options are drawn for its shape."""

    def draw(r: random.Random, pool: Pool) -> Any:
        x = pool.operand(KINDS, DTYPES, least)
        drawn = options(r, pool.host(x).shape)
        return None if drawn is None else ((x,), drawn)

    def answer(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        return Expected(oracle(operands[0].values, **options), operands[0].dtype)

    return Operation(draw, lambda x, o: call(x[0], **o), answer)


def _axis(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    return {"axis": r.randrange(-len(made), len(made))}


def _reshape(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    size = math.prod(made)
    for _ in range(4):
        first = r.choice([1, 2, 3, 4, 5])
        if size and size % first == 0:
            return {"shape": r.choice([(first, size // first), (size // first, first), (first, -1), (-1,)])}
    return {"shape": (*made, 1)}


def _permutation(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    return {"axes": tuple(r.sample(range(len(made)), len(made)))}


def _roll(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    if r.random() < 0.3 or not made:
        return {"shift": r.randint(-7, 7), "axis": None}
    axes = tuple(r.sample(range(len(made)), r.randint(1, len(made))))
    return {"shift": tuple(r.randint(-7, 7) for _ in axes), "axis": axes}


def _broadcast(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    full = tuple(r.choice([2, 3]) if extent == 1 else extent for extent in made)
    return {"shape": (*(r.choice([1, 2]) for _ in range(r.randint(0, 1))), *full)}


def _key(r: random.Random, made: tuple[int, ...]) -> dict[str, Any]:
    key: list[Any] = []
    for extent in made[: r.randint(0, len(made))]:
        what = r.choice(["all", "slice", "slice", "integer", "new"])
        if what == "integer" and extent:
            key.append(r.randrange(-extent, extent))
        elif what == "slice":
            key.append(
                slice(
                    r.choice([None, *range(-extent, extent + 1)]),
                    r.choice([None, *range(-extent, extent + 1)]),
                    r.choice([None, 1, 2, -1, -3]),
                )
            )
        else:
            key.append(slice(None))
        if what == "new":
            key.append(None)
    if r.random() < 0.3:
        key.append(...)
    return {"key": tuple(key)}


def _draw_take(r: random.Random, pool: Pool) -> Any:
    x = pool.operand(KINDS, DTYPES, 1)
    made = pool.host(x).shape
    axis = r.randrange(-len(made), len(made))
    extent = made[axis]
    if extent == 0:
        return None
    indices = tuple(r.randrange(-extent, extent) for _ in range(r.choice([0, 1, 3, 20])))
    return (x,), {"indices": indices, "axis": axis}


def _indices(x: Any, values: Any) -> Any:
    return netcl.asarray(np.asarray(values, np.int64), device=x.device)


def _take(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    x = operands[0]
    return Expected(np.take(x.values, np.array(options["indices"], np.int64), axis=options["axis"]), x.dtype)


def _along(made: tuple[int, ...], options: dict[str, Any]) -> Any:
    full = list(made)
    full[options["axis"]] = options["count"]
    return np.random.default_rng(options["seed"]).integers(-made[options["axis"]], made[options["axis"]], full)


def _draw_along(r: random.Random, pool: Pool) -> Any:
    x = pool.operand(KINDS, DTYPES, 1)
    made = pool.host(x).shape
    axis = r.randrange(-len(made), len(made))
    return (
        None
        if made[axis] == 0
        else ((x,), {"axis": axis, "count": r.choice([0, 1, 2, 5]), "seed": r.randrange(1 << 30)})
    )


def _take_along(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    x = operands[0]
    return Expected(np.take_along_axis(x.values, _along(x.shape, options), axis=options["axis"]), x.dtype)


def _draw_mask(r: random.Random, pool: Pool) -> Any:
    x = pool.operand(KINDS, DTYPES, 1)
    made = pool.host(x).shape
    return (x, pool.leaf(made[: r.randint(1, len(made))], "bool")), {}


def _mask(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    return Expected(operands[0].values[operands[1].values], operands[0].dtype)


def _joined(name: str) -> Operation:
    def draw(r: random.Random, pool: Pool) -> Any:
        x = pool.operand(KINDS, DTYPES, 1 if name == "concat" else 0)
        made, dtype = pool.host(x).shape, pool.host(x).dtype
        axis = r.randrange(-len(made), len(made)) if name == "concat" else r.randrange(len(made) + 1)
        others = []
        for _ in range(r.randint(0, 3)):
            other = list(made)
            if name == "concat":
                other[axis] = r.choice([0, 1, 2, 5])
            others.append(pool.leaf(other, dtype))
        return (x, *others), {"axis": axis}

    def oracle(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        function = np.concatenate if name == "concat" else np.stack
        return Expected(function([x.values for x in operands], axis=options["axis"]), operands[0].dtype)

    return Operation(draw, lambda x, o: getattr(netcl, name)(list(x), **o), oracle, 1.5)


# -- writes ------------------------------------------------------------------------------------------------------------


def _written(dtype: str, made: tuple[int, ...], options: dict[str, Any]) -> Any:
    return exact(Values(made, "integers", options["seed"]).array(), dtype)


def _draw_write(r: random.Random, pool: Pool) -> Any:
    """A write through a view, into a copy so that no other value of the program changes."""
    x = pool.operand(KINDS, DTYPES, 1)
    made = pool.host(x).shape
    view, key = _key(r, made)["key"], None
    seen = np.empty(made, np.int8)[view].shape
    key = _key(r, seen)["key"]
    return (x,), {"view": view, "key": key, "seed": r.randrange(1 << 30)}


def _write(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    x = operands[0]
    values = np.array(x.values)
    view = values[options["view"]]
    target = np.asarray(view[options["key"]]).shape
    if isinstance(view, np.ndarray):
        view[options["key"]] = _written(x.dtype, target, options)
    else:
        values[options["view"]] = _written(x.dtype, target, options)
    return Expected(values, x.dtype)


def _do_write(x: Sequence[Any], options: dict[str, Any]) -> Any:
    copied = F.clone(x[0])
    view = copied[options["view"]]
    target = view[options["key"]].shape
    view[options["key"]] = netcl.asarray(
        _written(copied.dtype.name, target, options), dtype=copied.dtype, device=copied.device
    )
    return copied


def _draw_in_place(r: random.Random, pool: Pool) -> Any:
    x = pool.operand("i", ("int32", "int64", "int8"), 1)
    made = pool.host(x).shape
    return (x,), {"view": _key(r, made)["key"], "by": r.choice([1, 3, -2])}


def _in_place(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    values = np.array(operands[0].values)
    values[options["view"]] += values.dtype.type(options["by"])
    return Expected(values, operands[0].dtype)


def _do_in_place(x: Sequence[Any], options: dict[str, Any]) -> Any:
    copied = F.clone(x[0])
    view = copied[options["view"]]
    view += options["by"]
    return copied


def _draw_diagonal(r: random.Random, pool: Pool) -> Any:
    x = pool.operand("fiu", FLOATS + INTEGERS, 2)
    return (x,), {"k": r.randint(-3, 3), "upper": r.random() < 0.5}


def _draw_creation(r: random.Random, pool: Pool) -> Any:
    kind = r.choice(["arange", "linspace", "eye", "full", "zeros"])
    dtype = r.choice(["float32", "int64", "int32", "float16", "bfloat16", "float64", "uint64", "int8"])
    if kind == "linspace":
        dtype = "float64"
    n, m = r.choice([0, 1, 5, 32, 33, 1025]), r.choice([0, 1, 4, 31])
    return (pool.leaf((), "float32"),), {
        "kind": kind,
        "dtype": dtype,
        "n": n,
        "m": m,
        "value": r.choice([0, 1, 5, 100]),
    }


def _creation(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
    kind, dtype, n, m = options["kind"], options["dtype"], options["n"], options["m"]
    made = np.float64 if dtype in FLOATS else dtype
    if kind == "arange":
        return Expected(np.arange(0, min(n, 100), dtype=made), dtype)
    if kind == "linspace":
        values = np.linspace(-1.0, options["value"], n)
        return Expected(values, dtype, 1e-13)
    if kind == "eye":
        return Expected(np.eye(min(n, 40), m, k=1, dtype=made), dtype)
    return Expected(np.full((n, 2), options["value"] if kind == "full" else 0, dtype=made), dtype)


def _do_creation(x: Sequence[Any], options: dict[str, Any]) -> Any:
    kind, n, m = options["kind"], options["n"], options["m"]
    common = {"dtype": options["dtype"], "device": x[0].device}
    if kind == "arange":
        return netcl.arange(0, min(n, 100), **common)
    if kind == "linspace":
        return netcl.linspace(-1.0, options["value"], n, **common)
    if kind == "eye":
        return netcl.eye(min(n, 40), m, k=1, **common)
    return netcl.full((n, 2), options["value"], **common) if kind == "full" else netcl.zeros((n, 2), **common)


OPERATIONS: dict[str, Operation] = {
    "reshape": _one(_reshape, netcl.reshape, np.reshape),
    "permute_dims": _one(_permutation, netcl.permute_dims, np.transpose),
    "flip": _one(_axis, netcl.flip, np.flip, 1),
    "roll": _one(_roll, netcl.roll, np.roll),
    "tile": _one(
        lambda r, made: {"reps": tuple(r.choice([1, 1, 2, 3]) for _ in range(r.randint(1, 3)))},
        lambda x, reps: netcl.tile(x, reps),
        np.tile,
    ),
    "repeat": _one(
        lambda r, made: {"repeats": r.choice([0, 1, 2, 3]), **_axis(r, made)},
        lambda x, repeats, axis: netcl.repeat(x, repeats, axis=axis),
        np.repeat,
        1,
    ),
    "broadcast_to": _one(_broadcast, netcl.broadcast_to, np.broadcast_to),
    "expand_dims": _one(lambda r, made: {"axis": r.randint(0, len(made))}, netcl.expand_dims, np.expand_dims),
    "moveaxis": _one(
        lambda r, made: {"source": r.randrange(len(made)), "destination": r.randrange(len(made))},
        lambda x, source, destination: netcl.moveaxis(x, source, destination),
        np.moveaxis,
        1,
    ),
    "index": _one(_key, lambda x, key: x[key], lambda x, key: np.asarray(x[key])),
    "take": Operation(
        _draw_take, lambda x, o: netcl.take(x[0], _indices(x[0], o["indices"]), axis=o["axis"]), _take, 2
    ),
    "take_along_axis": Operation(
        _draw_along,
        lambda x, o: netcl.take_along_axis(x[0], _indices(x[0], _along(x[0].shape, o)), axis=o["axis"]),
        _take_along,
        1.5,
    ),
    "mask": Operation(_draw_mask, lambda x, o: x[0][x[1]], _mask, 1),
    "concat": _joined("concat"),
    "stack": _joined("stack"),
    "write": Operation(_draw_write, _do_write, _write, 3),
    "add in place": Operation(_draw_in_place, _do_in_place, _in_place, 1),
    "diagonal": Operation(
        _draw_diagonal,
        lambda x, o: (netcl.triu if o["upper"] else netcl.tril)(x[0], k=o["k"]),
        lambda x, o: Expected((np.triu if o["upper"] else np.tril)(x[0].values, k=o["k"]), x[0].dtype),
    ),
    "creation": Operation(_draw_creation, _do_creation, _creation, 1),
}
