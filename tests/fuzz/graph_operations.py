"""The operations of the drawn graphs: each as netcl and as torch compute it, and the shape of its result.

Each takes operands of moderate size and gives one of moderate size, so that a graph of many stays well conditioned.
Those whose domain is not all numbers are given their operand through a smooth map into it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import netcl
import netcl.functional as F
from tests.operations import ABOVE_ONE, ANY, APART, ELEMENTWISE, POSITIVE, UNIT

Shape = tuple[int, ...]
Options = dict[str, Any]


@dataclass(frozen=True)
class GraphOperation:
    """One operation over values that were made before.

    ``draw(r, shapes)`` gives options and the shape of the result for operands of these shapes, or None.
    """

    arity: int
    draw: Callable[[random.Random, Sequence[Shape]], tuple[Options, Shape] | None]
    netcl: Callable[..., Any]
    torch: Callable[..., Any]
    weight: float = 1.0


def _same(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape]:
    return {}, shapes[0]


_INTO = {
    ANY: lambda x: x,
    POSITIVE: lambda x: x * x * 0.5 + 0.3,
    APART: lambda x: x * x * 0.5 + 0.4,
    UNIT: lambda x: x / (1.0 + x * x),
    ABOVE_ONE: lambda x: x * x + 1.2,
}
_SMALLER = {"exp", "expm1", "sinh", "cosh", "square", "tan", "reciprocal", "rsqrt", "pow"}


def _torch() -> Any:
    import torch

    return torch


def _unary(name: str) -> GraphOperation:
    domain = _INTO[ELEMENTWISE[name].operands[0][1]]
    function = ELEMENTWISE[name].function
    factor = 0.2 if name in _SMALLER else 1.0

    def on_torch(x: Any, options: Options) -> Any:
        functional = _torch().nn.functional
        if name == "gelu tanh":
            return functional.gelu(domain(x), approximate="tanh")
        place = functional if name in ("silu", "gelu") else _torch()
        return getattr(place, name)(domain(x)) * factor

    return GraphOperation(1, _same, lambda x, o: function(domain(x)) * factor, on_torch)


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    try:
        return tuple(map(int, np.broadcast_shapes(a, b)))
    except ValueError:
        return None


def _pair(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    made = _broadcast(*shapes)
    return None if made is None or math.prod(made) > 200 else ({}, made)


def _binary(name: str, factor: float) -> GraphOperation:
    left, right = (_INTO[domain] for _, domain in ELEMENTWISE[name].operands)
    function = ELEMENTWISE[name].function

    def on_torch(x: Any, y: Any, options: Options) -> Any:
        return getattr(_torch(), name)(left(x), right(y)) * factor

    return GraphOperation(2, _pair, lambda x, y, o: function(left(x), right(y)) * factor, on_torch, 2)


def _reduced(made: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    positive = {axis % len(made) for axis in axes}
    return tuple(1 if i in positive else e for i, e in enumerate(made) if keepdims or i not in positive)


def _reduction(on_netcl: Callable[..., Any], on_torch: Callable[..., Any], least: int = 1) -> GraphOperation:
    def draw(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
        made = shapes[0]
        if not made:
            return None
        axes = tuple(sorted(r.sample(range(len(made)), r.randint(1, len(made)))))
        if math.prod(made[a] for a in axes) < least:
            return None
        keepdims = r.random() < 0.5
        return {"axes": axes, "keepdims": keepdims}, _reduced(made, axes, keepdims)

    return GraphOperation(
        1,
        draw,
        lambda x, o: on_netcl(x, o["axes"], o["keepdims"]),
        lambda x, o: on_torch(x, o["axes"], o["keepdims"]),
        1.2,
    )


def _torch_prod(x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = _torch().prod(x, axis, keepdim=keepdims)
    return x


def _along(on_netcl: Callable[..., Any], on_torch: Callable[..., Any]) -> GraphOperation:
    """An operation along one axis that keeps the shape."""

    def draw(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
        return ({"axis": r.randrange(len(shapes[0]))}, shapes[0]) if shapes[0] else None

    return GraphOperation(1, draw, lambda x, o: on_netcl(x, o["axis"]), lambda x, o: on_torch(x, o["axis"]))


def _draw_matmul(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    a, b = shapes
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        return None
    batch = _broadcast(a[:-2], b[:-2])
    return None if batch is None else ({}, (*batch, a[-2], b[-1]))


def _draw_gram(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    a = shapes[0]
    return ({}, (*a[:-1], a[-2])) if len(a) >= 2 else None


def _draw_reshape(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape]:
    size = math.prod(shapes[0])
    parts = [e for e in range(1, size + 1) if size % e == 0]
    first = r.choice(parts)
    made = r.choice([(size,), (first, size // first), (size // first, 1, first)])
    return {"shape": made}, made


def _draw_permute(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape]:
    order = tuple(r.sample(range(len(shapes[0])), len(shapes[0])))
    return {"order": order}, tuple(shapes[0][i] for i in order)


def _draw_slice(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if not shapes[0]:
        return None
    axis = r.randrange(len(shapes[0]))
    start = r.randrange(shapes[0][axis])
    made = len(range(start, shapes[0][axis], 2))
    return {"axis": axis, "start": start}, (*shapes[0][:axis], made, *shapes[0][axis + 1 :])


def _slice(x: Any, o: Options) -> Any:
    key = [slice(None)] * x.ndim
    key[o["axis"]] = slice(o["start"], None, 2)
    return x[tuple(key)]


def _draw_take(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if not shapes[0]:
        return None
    axis = r.randrange(len(shapes[0]))
    indices = tuple(r.randrange(shapes[0][axis]) for _ in range(r.randint(1, 5)))
    return {"axis": axis, "indices": indices}, (*shapes[0][:axis], len(indices), *shapes[0][axis + 1 :])


def _draw_join(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    a, b = shapes
    if len(a) != len(b) or not a:
        return None
    axis = r.randrange(len(a))
    if a[:axis] + a[axis + 1 :] != b[:axis] + b[axis + 1 :] or a[axis] + b[axis] > 12:
        return None
    return {"axis": axis}, (*a[:axis], a[axis] + b[axis], *a[axis + 1 :])


def _draw_stack(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if shapes[0] != shapes[1] or len(shapes[0]) > 2:
        return None
    axis = r.randint(0, len(shapes[0]))
    return {"axis": axis}, (*shapes[0][:axis], 2, *shapes[0][axis:])


def _draw_expand(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if len(shapes[0]) > 2 or math.prod(shapes[0]) > 60:
        return None
    made = tuple(3 if extent == 1 else extent for extent in shapes[0])
    return {"shape": (2, *made)}, (2, *made)


def _draw_roll(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    return ({"shift": r.randint(-4, 4), "axis": r.randrange(len(shapes[0]))}, shapes[0]) if shapes[0] else None


def _draw_tile(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if not shapes[0] or math.prod(shapes[0]) > 40:
        return None
    times = tuple(r.choice([1, 2]) for _ in shapes[0])
    return {"times": times}, tuple(e * n for e, n in zip(shapes[0], times, strict=True))


def _draw_norm(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    return ({}, shapes[0]) if shapes[0] and shapes[0][-1] > 1 else None


def _draw_cross_entropy(r: random.Random, shapes: Sequence[Shape]) -> tuple[Options, Shape] | None:
    if len(shapes[0]) != 2:
        return None
    rows, classes = shapes[0]
    labels = tuple(r.randrange(classes) if r.random() > 0.25 else -100 for _ in range(rows))
    reduction = r.choice(["sum", "none", "mean", "mean"])
    smoothing = r.choice([0.0, 0.2])
    return {"labels": labels, "reduction": reduction, "label_smoothing": smoothing}, (
        rows,
    ) if reduction == "none" else ()


def _cross_entropy(x: Any, o: Options) -> Any:
    others = {name: o[name] for name in ("reduction", "label_smoothing")}
    return F.cross_entropy(x, _tensor(x, o["labels"]), **others)


def _torch_cross_entropy(x: Any, o: Options) -> Any:
    others = {name: o[name] for name in ("reduction", "label_smoothing")}
    return _torch().nn.functional.cross_entropy(x, _torch().tensor(o["labels"]), **others)


def _tensor(x: Any, values: Any) -> Any:
    return netcl.asarray(np.array(values, np.int64), device=x.device)


OPERATIONS: dict[str, GraphOperation] = {
    **{
        name: _unary(name)
        for name in (
            "negative",
            "abs",
            "square",
            "sqrt",
            "rsqrt",
            "reciprocal",
            "exp",
            "expm1",
            "log",
            "log1p",
            "log2",
            "log10",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "erf",
            "relu",
            "sigmoid",
            "silu",
            "gelu",
            "gelu tanh",
        )
    },
    **{
        name: _binary(name, factor)
        for name, factor in (
            ("add", 0.6),
            ("subtract", 0.6),
            ("multiply", 0.5),
            ("divide", 0.5),
            ("pow", 0.3),
            ("atan2", 0.5),
            ("hypot", 0.5),
            ("logaddexp", 0.5),
            ("maximum", 1.0),
            ("minimum", 1.0),
        )
    },
    "scalars": GraphOperation(
        1, _same, lambda x, o: 1 - (2 - x) / 3 + x * 0.25, lambda x, o: 1 - (2 - x) / 3 + x * 0.25
    ),
    "clip": GraphOperation(1, _same, lambda x, o: netcl.clip(x, -0.9, 0.7), lambda x, o: x.clamp(-0.9, 0.7)),
    "where": GraphOperation(
        2,
        _pair,
        lambda x, y, o: netcl.where(x > 0.1, x * 0.5, y),
        lambda x, y, o: _torch().where(x > 0.1, x * 0.5, y),
        2,
    ),
    "sum": _reduction(
        lambda x, a, k: netcl.sum(x, axis=a, keepdims=k) * 0.3, lambda x, a, k: x.sum(a, keepdim=k) * 0.3
    ),
    "mean": _reduction(lambda x, a, k: netcl.mean(x, axis=a, keepdims=k), lambda x, a, k: x.mean(a, keepdim=k)),
    "prod": _reduction(
        lambda x, a, k: netcl.prod(netcl.tanh(x), axis=a, keepdims=k), lambda x, a, k: _torch_prod(x.tanh(), a, k)
    ),
    "max": _reduction(lambda x, a, k: netcl.max(x, axis=a, keepdims=k), lambda x, a, k: x.amax(a, keepdim=k)),
    "min": _reduction(lambda x, a, k: netcl.min(x, axis=a, keepdims=k), lambda x, a, k: x.amin(a, keepdim=k)),
    "var": _reduction(
        lambda x, a, k: netcl.var(x, axis=a, keepdims=k), lambda x, a, k: x.var(a, correction=0, keepdim=k), 2
    ),
    "std": _reduction(
        lambda x, a, k: netcl.std(x, axis=a, correction=1, keepdims=k),
        lambda x, a, k: x.std(a, correction=1, keepdim=k),
        2,
    ),
    "logsumexp": _reduction(
        lambda x, a, k: netcl.logsumexp(x, axis=a, keepdims=k), lambda x, a, k: x.logsumexp(a, keepdim=k)
    ),
    "softmax": _along(lambda x, a: F.softmax(x, axis=a), lambda x, a: x.softmax(a)),
    "log_softmax": _along(lambda x, a: F.log_softmax(x, axis=a) * 0.4, lambda x, a: x.log_softmax(a) * 0.4),
    "flip": _along(lambda x, a: netcl.flip(x, axis=a), lambda x, a: x.flip(a)),
    "layer_norm": GraphOperation(
        1,
        _draw_norm,
        lambda x, o: F.layer_norm(x, x.shape[-1], eps=0.01),
        lambda x, o: _torch().nn.functional.layer_norm(x, x.shape[-1:], eps=0.01),
    ),
    "matmul": GraphOperation(2, _draw_matmul, lambda x, y, o: x @ y * 0.3, lambda x, y, o: x @ y * 0.3, 12),
    "gram": GraphOperation(1, _draw_gram, lambda x, o: x @ x.mT * 0.2, lambda x, o: x @ x.mT * 0.2, 2),
    "linear": GraphOperation(
        2,
        lambda r, s: ({}, (*s[0][:-1], s[1][0])) if s[0] and len(s[1]) == 2 and s[0][-1] == s[1][1] else None,
        lambda x, w, o: F.linear(x, w) * 0.3,
        lambda x, w, o: _torch().nn.functional.linear(x, w) * 0.3,
        8,
    ),
    "reshape": GraphOperation(
        1, _draw_reshape, lambda x, o: netcl.reshape(x, o["shape"]), lambda x, o: x.reshape(o["shape"])
    ),
    "permute": GraphOperation(
        1, _draw_permute, lambda x, o: netcl.permute_dims(x, o["order"]), lambda x, o: x.permute(o["order"])
    ),
    "slice": GraphOperation(1, _draw_slice, _slice, _slice),
    "take": GraphOperation(
        1,
        _draw_take,
        lambda x, o: netcl.take(x, _tensor(x, o["indices"]), axis=o["axis"]),
        lambda x, o: x.index_select(o["axis"], _torch().tensor(o["indices"])),
        1.5,
    ),
    "concat": GraphOperation(
        2,
        _draw_join,
        lambda x, y, o: netcl.concat([x, y], axis=o["axis"]),
        lambda x, y, o: _torch().cat([x, y], o["axis"]),
        5,
    ),
    "stack": GraphOperation(
        2,
        _draw_stack,
        lambda x, y, o: netcl.stack([x, y], axis=o["axis"]),
        lambda x, y, o: _torch().stack([x, y], o["axis"]),
        4,
    ),
    "broadcast": GraphOperation(
        1, _draw_expand, lambda x, o: netcl.broadcast_to(x, o["shape"]), lambda x, o: x.broadcast_to(o["shape"])
    ),
    "roll": GraphOperation(
        1,
        _draw_roll,
        lambda x, o: netcl.roll(x, o["shift"], axis=o["axis"]),
        lambda x, o: x.roll(o["shift"], o["axis"]),
    ),
    "tile": GraphOperation(1, _draw_tile, lambda x, o: netcl.tile(x, o["times"]), lambda x, o: x.tile(o["times"])),
    "cross_entropy": GraphOperation(1, _draw_cross_entropy, _cross_entropy, _torch_cross_entropy, 2),
}
