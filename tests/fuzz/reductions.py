"""Reductions, products of matrices, softmax and losses of the array programs, with NumPy's answers and their bounds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import netcl
import netcl.functional as F
from tests.fuzz.arrays import COMPLEX, FLOATS, INTEGERS, Expected, Host, Operation, Pool, kind, shape
from tests.fuzz.bounds import FORMATS, Bounded, Format, compute_format
from tests.fuzz.promotion import converted, floating, promoted


def format_of(dtype: str) -> Format:
    return FORMATS["float32" if dtype == "complex64" else "float64"] if kind(dtype) == "c" else compute_format(dtype)


def units(n: float) -> float:
    """What a sum of n terms is off by, in roundoffs of the sum of their magnitudes: chunks of some square root of n."""
    return 8 + 4 * math.sqrt(n)


def _axes(r: random.Random, ndim: int, single: bool = False) -> Any:
    if r.random() < 0.35 or ndim == 0:
        return None
    if single or r.random() < 0.6:
        return r.randrange(-ndim, ndim)
    return tuple(sorted(r.sample(range(ndim), r.randint(1, ndim))))


def _count(x: Host, axis: Any) -> int:
    axes = range(len(x.shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return math.prod(x.shape[a] for a in axes)


def _reduction(
    name: str, oracle: Callable[[Host, Any, bool, dict[str, Any]], Expected], kinds: str, dtypes: Sequence[str],
    *, empty: bool = True, single: bool = False,
) -> Operation:  # fmt: skip
    def draw(r: random.Random, pool: Pool) -> Any:
        x = pool.operand(kinds, dtypes)
        axis = _axes(r, len(pool.host(x).shape), single)
        if not empty and _count(pool.host(x), axis) == 0:
            return None
        options = {"axis": axis, "keepdims": r.random() < 0.3}
        if name in ("var", "std"):
            options["correction"] = r.choice([0.0, 0.0, 1.0])
            if _count(pool.host(x), axis) <= options["correction"]:
                return None
        return (x,), options

    def answer(operands: Sequence[Host], options: dict[str, Any]) -> Expected:
        return oracle(operands[0], options["axis"], options["keepdims"], options)

    function = getattr(netcl, name)
    return Operation(draw, lambda x, o: function(x[0], **o), answer, 1.5)


def _total(values: Any, x: Host, axis: Any, keepdims: bool) -> tuple[Any, Any]:
    """A sum over axes, and how far another order of it may be."""
    format = format_of(floating(x.dtype))
    total = np.sum(values, axis=axis, keepdims=keepdims)
    size = np.sum(np.abs(values), axis=axis, keepdims=keepdims)
    error = units(_count(x, axis)) * format.unit * size + _count(x, axis) * format.tiny
    return total, _told(total, error, size, format)


def _told(values: Any, error: Any, size: Any, format: Format) -> Any:
    """The bound, infinite where parts of the result may overflow or do not exist."""
    doubtful = np.isfinite(values) & ~(size < format.largest / 4)
    beyond = ~np.isfinite(np.abs(values)) | doubtful
    return np.where(doubtful, np.inf, np.where(beyond, 0.0, error))


def _sum(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    if x.kind in "iu":
        dtype = "int64" if x.kind == "i" else "uint64"
        return Expected(np.sum(x.values, axis=axis, keepdims=keepdims, dtype=dtype), dtype)
    return Expected(*_with(x.dtype, _total(x.values, x, axis, keepdims)))


def _with(dtype: str, result: tuple[Any, Any]) -> tuple[Any, str, Any]:
    return result[0], dtype, result[1]


def _prod(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    if x.kind in "iu":
        dtype = "int64" if x.kind == "i" else "uint64"
        return Expected(np.prod(x.values, axis=axis, keepdims=keepdims, dtype=dtype), dtype)
    format = format_of(x.dtype)
    value = np.prod(x.values, axis=axis, keepdims=keepdims)
    largest = np.prod(np.maximum(np.abs(x.values), 1), axis=axis, keepdims=keepdims)
    least = np.prod(np.minimum(np.abs(np.where(x.values == 0, 1, x.values)), 1), axis=axis, keepdims=keepdims)
    error = (4 + 2 * _count(x, axis)) * format.unit * np.abs(value)
    unsure = ~(largest < format.largest / 4) | (least < format.normal * 4)
    return Expected(value, x.dtype, np.where(unsure, np.inf, error))


def _mean(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    dtype = floating(x.dtype)
    total, error = _total(converted(x, dtype), x, axis, keepdims)
    n = _count(x, axis)
    return Expected(total / n, dtype, error / n + 6 * format_of(dtype).unit * np.abs(np.nan_to_num(total)) / n)


def _variance(x: Host, axis: Any, options: Any) -> Bounded:
    dtype = floating(x.dtype)
    format = format_of(dtype)
    mean = _mean(x, axis, True, options)
    deviation = (Bounded(converted(x, dtype), format) - Bounded(mean.values, format, mean.error)).squared()
    n = _count(x, axis)
    total = np.sum(deviation.value, axis=axis, keepdims=options["keepdims"])
    error = np.sum(deviation.error, axis=axis, keepdims=options["keepdims"])
    error = error + units(n) * format.unit * total + n * format.tiny
    summed = Bounded(total, format, _told(total, error, total, format))
    return summed / (n - options["correction"])


def _var(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    found = _variance(x, axis, options)
    return Expected(found.value, floating(x.dtype), found.error)


def _std(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    found = _variance(x, axis, options).root()
    return Expected(found.value, floating(x.dtype), found.error)


def _plain(function: Any, dtype: str | None = None) -> Any:
    def oracle(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
        return Expected(function(x.values, axis=axis, keepdims=keepdims), dtype or x.dtype)

    return oracle


def _count_nonzero(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    return Expected(np.sum(x.values != 0, axis=axis, keepdims=keepdims, dtype=np.int64), "int64")


def _logsumexp(x: Host, axis: Any, keepdims: bool, options: Any) -> Expected:
    format = format_of(x.dtype)
    peak = np.max(x.values, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    total = np.sum(np.exp(x.values - shift), axis=axis, keepdims=True)
    value = np.log(total) + shift
    error = (
        format.unit * (units(_count(x, axis)) + 24 + 6 * np.abs(shift) + 4 * np.abs(np.nan_to_num(value))) + format.tiny
    )
    if not keepdims:
        kept = value.shape if axis is None else None
        value, error = (np.squeeze(each, axis=axis) if kept is None else each.reshape(()) for each in (value, error))
    return Expected(value, x.dtype, error)


# -- products ----------------------------------------------------------------------------------------------------------


def _product(a: Any, b: Any, dtype: str, combine: Callable[[Any, Any], Any], terms: int) -> Expected:
    value = combine(a, b)
    if kind(dtype) in "iu":
        return Expected(value.astype(dtype), dtype)
    format = format_of(dtype)
    size = combine(np.abs(a), np.abs(b))
    error = units(terms) * format.unit * size + (terms + 1) * format.tiny
    return Expected(value, dtype, _told(value, error, size, format))


def _draw_matmul(r: random.Random, pool: Pool) -> Any:
    m, k, n = (r.choice([0, 1, 2, 3, 5, 8, 16, 17, 33, 64, 65] if r.random() < 0.9 else [130, 257]) for _ in range(3))
    batch = tuple(r.choice([1, 2, 3]) for _ in range(r.choice([0, 0, 0, 1, 2])))
    dtypes = FLOATS if r.random() < 0.75 else INTEGERS if r.random() < 0.6 else COMPLEX
    first, second = (r.choice(dtypes) for _ in range(2))
    if r.random() < 0.6 or promoted(first, second) is None:
        second = first
    left: tuple[int, ...] = (*batch, m, k)
    right: tuple[int, ...] = (*batch[r.choice([0, len(batch)]) :], k, n)
    if r.random() < 0.1:
        right = (k,)
    elif r.random() < 0.1:
        left = (k,)
    style = r.choice(["normal", "normal", "integers", "zeros", "wide", "huge", "special"])
    return (pool.leaf(left, first, style), pool.leaf(right, second, r.choice(["normal", "integers"]))), {}


def _matmul(operands: Sequence[Host], options: Any) -> Expected:
    dtype = promoted(operands[0].dtype, operands[1].dtype)
    a, b = (converted(x, dtype) for x in operands)
    return _product(a, b, dtype, np.matmul, a.shape[-1])


def _draw_tensordot(r: random.Random, pool: Pool) -> Any:
    dtype = r.choice(FLOATS)
    common = tuple(r.choice([1, 2, 3, 5]) for _ in range(r.randint(0, 2)))
    left = tuple(r.choice([1, 2, 4]) for _ in range(r.randint(0, 2)))
    right = tuple(r.choice([1, 2, 4]) for _ in range(r.randint(0, 2)))
    return (pool.leaf((*left, *common), dtype, "normal"), pool.leaf((*common, *right), dtype, "normal")), {
        "axes": len(common)
    }


def _tensordot(operands: Sequence[Host], options: Any) -> Expected:
    a, b = operands
    terms = math.prod(b.shape[: options["axes"]])
    return _product(
        a.values, b.values, a.dtype, lambda x, y: np.asarray(np.tensordot(x, y, axes=options["axes"])), terms
    )


def _draw_vecdot(r: random.Random, pool: Pool) -> Any:
    dtype = r.choice(FLOATS)
    made = shape(r, 1)
    return (pool.leaf(made, dtype, "normal"), pool.leaf(made[r.randrange(len(made)) :], dtype, "normal")), {}


def _vecdot(operands: Sequence[Host], options: Any) -> Expected:
    a, b = (x.values for x in operands)
    return _product(a, b, operands[0].dtype, lambda x, y: np.sum(x * y, axis=-1), a.shape[-1])


def _draw_linear(r: random.Random, pool: Pool) -> Any:
    dtype = r.choice(FLOATS)
    inputs, outputs = r.choice([1, 3, 8, 20]), r.choice([1, 2, 10])
    batch = tuple(r.choice([1, 2, 5]) for _ in range(r.randint(0, 2)))
    return (
        pool.leaf((*batch, inputs), dtype, "normal"),
        pool.leaf((outputs, inputs), dtype),
        pool.leaf((outputs,), dtype, "normal"),
    ), {}


def _linear(operands: Sequence[Host], options: Any) -> Expected:
    x, weight, bias = (each.values for each in operands)
    dtype = operands[0].dtype
    format = format_of(dtype)
    found = _product(x, weight.T, dtype, np.matmul, x.shape[-1])
    value = found.values + bias
    error = np.where(np.isfinite(value), found.error + 2 * format.unit * (np.abs(value) + np.abs(bias)), found.error)
    if format_of(dtype).name != dtype:  # the product may be stored before the bias is added
        error = error + FORMATS[dtype].unit * np.abs(np.nan_to_num(found.values)) + FORMATS[dtype].tiny
    near = np.abs(found.values) > FORMATS[dtype].largest / 4
    return Expected(value, dtype, np.where(near, np.inf, error))


# -- softmax and losses ------------------------------------------------------------------------------------------------


def _log_softmax(x: Any, axis: int, format: Format) -> tuple[Any, Any]:
    """The logarithm of softmax and its bound."""
    n = x.shape[axis]
    # An infinity makes the whole row NaN, as in torch.
    shift = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    value = x - shift - np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True))
    size = np.abs(np.nan_to_num(x - shift, posinf=0, neginf=0)) + np.abs(np.nan_to_num(shift, posinf=0, neginf=0))
    return value, format.unit * (units(n) + 24 + 6 * size) + format.tiny


def _draw_softmax(r: random.Random, pool: Pool) -> Any:
    x = pool.operand("f", FLOATS, 1)
    ndim = len(pool.host(x).shape)
    return (x,), {"axis": r.choice([-1, r.randrange(ndim)])}


def _softmax(operands: Sequence[Host], options: Any) -> Expected:
    x = operands[0]
    format = format_of(x.dtype)
    logarithm, error = _log_softmax(x.values, options["axis"], format)
    value = np.exp(logarithm)
    value = np.where(np.isnan(logarithm), np.nan, value)
    return Expected(value, x.dtype, value * (error + 16 * format.unit) + format.tiny)


def _log_softmaxed(operands: Sequence[Host], options: Any) -> Expected:
    x = operands[0]
    value, error = _log_softmax(x.values, options["axis"], format_of(x.dtype))
    return Expected(value, x.dtype, error)


def _draw_cross_entropy(r: random.Random, pool: Pool) -> Any:
    classes, rows = r.choice([1, 2, 3, 10, 100, 1025]), r.choice([1, 2, 7, 32])
    more = (r.choice([1, 3]),) if r.random() < 0.2 else ()
    logits = pool.leaf((rows, classes, *more), r.choice(FLOATS), r.choice(["normal", "integers", "wide", "zeros"]))
    labels = tuple(r.randrange(classes) if r.random() > 0.15 else -100 for _ in range(rows * math.prod(more)))
    return (logits,), {
        "labels": labels,
        "reduction": r.choice(["mean", "sum", "none"]),
        "label_smoothing": r.choice([0.0, 0.0, 0.1, 1.0]),
    }


def _labels(options: Any, count: int, like: tuple[int, ...]) -> Any:
    return np.resize(np.array(options["labels"], np.int64), count).reshape(like)


def _cross_entropy(operands: Sequence[Host], options: Any) -> Expected:
    x = operands[0]
    format = format_of(x.dtype)
    scores = np.moveaxis(x.values, 1, -1)
    classes = scores.shape[-1]
    labels = _labels(options, scores[..., 0].size, scores.shape[:-1])
    logarithm, error = _log_softmax(scores, -1, format)
    smoothing = options["label_smoothing"]
    counted = labels != -100
    place = np.where(counted, np.minimum(labels, classes - 1), 0)[..., None]
    picked = np.take_along_axis(logarithm, place, -1)[..., 0]
    loss = -(1 - smoothing) * picked - smoothing * np.mean(logarithm, axis=-1)
    bound = np.max(error, axis=-1) + format.unit * (
        units(classes) * np.mean(np.abs(logarithm), axis=-1) + 8 * np.abs(loss)
    )
    loss, bound = np.where(counted, loss, 0.0), np.where(counted, bound, 0.0)
    if options["reduction"] == "none":
        return Expected(loss, x.dtype, bound)
    bound = bound + FORMATS[x.dtype].unit * np.abs(loss)  # rows are stored before they are added up
    total, unsure = np.sum(loss), np.sum(bound) + units(loss.size) * format.unit * np.sum(np.abs(loss))
    if options["reduction"] == "mean":
        total, unsure = total / counted.sum(), unsure / max(counted.sum(), 1) + 8 * format.unit * np.abs(total)
    return Expected(
        total, x.dtype, unsure if np.isfinite(total) and abs(total) < FORMATS[x.dtype].largest / 4 else np.inf
    )


def _call_cross_entropy(x: Sequence[Any], options: dict[str, Any]) -> Any:
    logits = x[0]
    expected = (logits.shape[0], *logits.shape[2:])
    labels = _labels(options, math.prod(expected), expected)
    labels = np.where(labels == -100, -100, np.minimum(labels, logits.shape[1] - 1))
    others = {name: value for name, value in options.items() if name != "labels"}
    return F.cross_entropy(logits, netcl.asarray(labels, device=logits.device), **others)


def _draw_layer_norm(r: random.Random, pool: Pool) -> Any:
    n = r.choice([2, 3, 8, 33, 1024])
    batch = tuple(r.choice([1, 2, 5]) for _ in range(r.randint(0, 2)))
    dtype = r.choice(FLOATS)
    return (
        pool.leaf((*batch, n), dtype, r.choice(["normal", "integers", "wide"])),
        pool.leaf((n,), dtype, "normal"),
    ), {}


def _layer_norm(operands: Sequence[Host], options: Any) -> Expected:
    x, dtype = operands[0], operands[0].dtype
    format = format_of(dtype)
    mean = _mean(x, -1, True, {})
    centered = Bounded(x.values, format) - Bounded(mean.values, format, mean.error)
    variance = _variance(x, -1, {"keepdims": True, "correction": 0.0})
    scaled = centered / (variance + 1e-5).root() * Bounded(operands[1].values, format)
    return Expected(scaled.value, dtype, scaled.error * 2)


OPERATIONS: dict[str, Operation] = {
    "sum": _reduction("sum", _sum, "fiuc", FLOATS + INTEGERS + COMPLEX),
    "prod": _reduction("prod", _prod, "fiu", FLOATS + INTEGERS),
    "mean": _reduction("mean", _mean, "f", FLOATS, empty=False),
    "var": _reduction("var", _var, "f", FLOATS, empty=False),
    "std": _reduction("std", _std, "f", FLOATS, empty=False),
    "max": _reduction("max", _plain(np.max), "fiu", FLOATS + INTEGERS, empty=False),
    "min": _reduction("min", _plain(np.min), "fiu", FLOATS + INTEGERS, empty=False),
    "any": _reduction("any", _plain(np.any, "bool"), "fiub", (*FLOATS, *INTEGERS, "bool")),
    "all": _reduction("all", _plain(np.all, "bool"), "fiub", (*FLOATS, *INTEGERS, "bool")),
    "count_nonzero": _reduction("count_nonzero", _count_nonzero, "fiub", (*FLOATS, *INTEGERS, "bool")),
    "argmax": _reduction("argmax", _plain(np.argmax, "int64"), "fiu", FLOATS + INTEGERS, empty=False, single=True),
    "argmin": _reduction("argmin", _plain(np.argmin, "int64"), "fiu", FLOATS + INTEGERS, empty=False, single=True),
    "logsumexp": _reduction("logsumexp", _logsumexp, "f", FLOATS, empty=False),
    "matmul": Operation(_draw_matmul, lambda x, o: netcl.matmul(*x), _matmul, 8),
    "tensordot": Operation(_draw_tensordot, lambda x, o: netcl.tensordot(*x, **o), _tensordot, 2),
    "vecdot": Operation(_draw_vecdot, lambda x, o: netcl.vecdot(*x), _vecdot, 1.5),
    "linear": Operation(_draw_linear, lambda x, o: F.linear(*x), _linear, 2),
    "softmax": Operation(_draw_softmax, lambda x, o: F.softmax(x[0], **o), _softmax, 3),
    "log_softmax": Operation(_draw_softmax, lambda x, o: F.log_softmax(x[0], **o), _log_softmaxed, 2),
    "cross_entropy": Operation(_draw_cross_entropy, _call_cross_entropy, _cross_entropy, 5),
    "layer_norm": Operation(_draw_layer_norm, lambda x, o: F.layer_norm(x[0], x[0].shape[-1], x[1]), _layer_norm, 2),
}
