"""Every differentiable operation, with inputs for it: what the gradient and the parity tests loop over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import netcl
import netcl.functional as F

ANY, POSITIVE, UNIT, ABOVE_ONE, APART = "any", "positive", "unit", "above one", "apart from 0"

LOW_HIGH = {ANY: (-2.0, 2.0), POSITIVE: (0.3, 2.5), UNIT: (-0.9, 0.9), ABOVE_ONE: (1.2, 3.0), APART: (0.4, 2.0)}


@dataclass(frozen=True)
class Operation:
    """A function of Tensors; each operand is a shape and the numbers that it may hold."""

    function: Callable[..., Any]
    operands: tuple[tuple[tuple[int, ...], str], ...]


def _unary(function: Callable[..., Any], domain: str = ANY) -> Operation:
    return Operation(function, (((3, 4), domain),))


def _binary(function: Callable[..., Any], left: str = ANY, right: str = ANY) -> Operation:
    return Operation(function, (((3, 1, 4), left), ((2, 1), right)))


def _of(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Operation:
    return Operation(function, tuple((shape, ANY) for shape in shapes))


ELEMENTWISE = {
    "negative": _unary(netcl.negative), "positive": _unary(netcl.positive), "abs": _unary(netcl.abs, APART),
    "square": _unary(netcl.square), "sqrt": _unary(netcl.sqrt, POSITIVE), "rsqrt": _unary(netcl.rsqrt, POSITIVE),
    "reciprocal": _unary(netcl.reciprocal, APART), "exp": _unary(netcl.exp), "expm1": _unary(netcl.expm1),
    "log": _unary(netcl.log, POSITIVE), "log1p": _unary(netcl.log1p, POSITIVE), "log2": _unary(netcl.log2, POSITIVE),
    "log10": _unary(netcl.log10, POSITIVE), "sin": _unary(netcl.sin), "cos": _unary(netcl.cos),
    "tan": _unary(netcl.tan, UNIT), "asin": _unary(netcl.asin, UNIT), "acos": _unary(netcl.acos, UNIT),
    "atan": _unary(netcl.atan), "sinh": _unary(netcl.sinh), "cosh": _unary(netcl.cosh), "tanh": _unary(netcl.tanh),
    "asinh": _unary(netcl.asinh), "acosh": _unary(netcl.acosh, ABOVE_ONE), "atanh": _unary(netcl.atanh, UNIT),
    "real": _unary(netcl.real), "imag": _unary(netcl.imag), "conj": _unary(netcl.conj),
    "erf": _unary(netcl.erf), "sign": _unary(netcl.sign, APART), "relu": _unary(F.relu, APART),
    "floor": _unary(netcl.floor, APART), "ceil": _unary(netcl.ceil, APART), "trunc": _unary(netcl.trunc, APART),
    "round": _unary(netcl.round, APART),
    "sigmoid": _unary(F.sigmoid), "silu": _unary(F.silu), "gelu": _unary(F.gelu),
    "gelu tanh": _unary(lambda x: F.gelu(x, approximate="tanh")),
    "clip": _unary(lambda x: netcl.clip(x, -1.05, 0.95)), "clip below": _unary(lambda x: netcl.clip(x, min=-0.55)),
    "clip above": _unary(lambda x: netcl.clip(x, max=0.55)),
    "add": _binary(netcl.add), "subtract": _binary(netcl.subtract), "multiply": _binary(netcl.multiply),
    "divide": _binary(netcl.divide, ANY, APART), "pow": _binary(netcl.pow, POSITIVE, ANY),
    "atan2": _binary(netcl.atan2, POSITIVE, APART), "hypot": _binary(netcl.hypot, APART, ANY),
    "logaddexp": _binary(netcl.logaddexp), "maximum": _binary(netcl.maximum), "minimum": _binary(netcl.minimum),
    "remainder": _binary(netcl.remainder, POSITIVE, ABOVE_ONE),
    "floor_divide": _binary(netcl.floor_divide, POSITIVE, ABOVE_ONE),
    "copysign": _binary(netcl.copysign, APART, APART), "nextafter": _binary(netcl.nextafter, APART, ABOVE_ONE),
    "scalars": _unary(lambda x: 2.0 / (1 - x * 3) + (x + 4) ** 3 - (2 - x), POSITIVE),
    "square by power": _unary(lambda x: x**2 + 2.0**x),
    "where": _binary(lambda x, y: netcl.where(x > 0.1, x * y, y)),
    "where scalar": _unary(lambda x: netcl.where(x > 0.1, 1.0, x)),
    "astype": _unary(lambda x: netcl.astype(x, x.dtype) * 2),
}  # fmt: skip

SHAPES = {
    "reshape": _of(lambda x: netcl.reshape(x, (-1, 6)), (3, 4)),
    "reshape of a transpose": _of(lambda x: netcl.reshape(x.T, (6, 2)), (3, 4)),
    "permute_dims": _of(lambda x: netcl.permute_dims(x, (2, 0, 1)), (2, 3, 2)),
    "moveaxis": _of(lambda x: netcl.moveaxis(x, 0, -1), (2, 3, 2)),
    "broadcast_to": _of(lambda x: netcl.broadcast_to(x, (2, 3, 4)), (3, 1)),
    "expand_dims": _of(lambda x: netcl.expand_dims(x, axis=1), (3, 2)),
    "squeeze": _of(lambda x: netcl.squeeze(x, axis=1), (3, 1)),
    "flatten": _of(lambda x: F.flatten(x, 1), (2, 3, 2)),
    "concat": _of(lambda x, y: netcl.concat([x, y, x], axis=1), (2, 3), (2, 2)),
    "concat flat": _of(lambda x, y: netcl.concat([x, y], axis=None), (2, 3), (2,)),
    "stack": _of(lambda x, y: netcl.stack([x, y], axis=1), (2, 3), (2, 3)),
    "unstack": _of(lambda x: netcl.unstack(x, axis=1)[1] * 2, (2, 3)),
    "split": _of(lambda x: F.split(x, 2)[0] * F.split(x, 2)[1], (4, 2)),
    "flip": _of(lambda x: netcl.flip(x, axis=1) * x, (2, 3)),
    "roll": _of(lambda x: netcl.roll(x, (1, -2), axis=(0, 1)), (3, 4)),
    "tile": _of(lambda x: netcl.tile(x, (2, 1, 3)), (2, 2)),
    "repeat": _of(lambda x: netcl.repeat(x, 3, axis=1), (2, 2)),
    "clone": _of(F.clone, (2, 3)),
    "basic index": _of(lambda x: x[1, ::-2, None] * x[0, 1], (3, 4)),
    "ellipsis index": _of(lambda x: x[..., -1:], (2, 3, 2)),
    "array index": _of(lambda x: x[netcl.asarray([2, 0, 2], device=x.device)], (3, 2)),
    "two array indices": _of(
        lambda x: x[netcl.asarray([2, 0, -1], device=x.device), netcl.asarray([1, 1, 0], device=x.device)], (3, 2, 2)
    ),
    "mask": _of(lambda x: x[netcl.asarray([True, False, True], device=x.device)], (3, 2)),
    "take": _of(lambda x: netcl.take(x, netcl.asarray([[0, 1], [1, -1]], device=x.device), axis=1), (2, 3, 2)),
    "take_along_axis": _of(
        lambda x: netcl.take_along_axis(x, netcl.asarray([[0, 1], [1, 1], [0, 0]], device=x.device), axis=1), (3, 2)
    ),
    "take_along_axis broadcast": _of(
        lambda x: netcl.take_along_axis(x, netcl.asarray([[0, 2, 2]], device=x.device), axis=1), (2, 3)
    ),
    "embedding": _of(lambda w: F.embedding(netcl.asarray([[0, 2], [2, 1]], device=w.device), w), (3, 4)),
    "meshgrid": _of(lambda x, y: netcl.meshgrid(x, y)[0] * netcl.meshgrid(x, y)[1], (3,), (2,)),
    "tril": _of(lambda x: netcl.tril(x) + netcl.triu(x, k=1) * 2, (3, 3)),
}

REDUCTIONS = {
    "sum": _of(netcl.sum, (3, 4)),
    "sum of an axis": _of(lambda x: netcl.sum(x, axis=1), (2, 3, 2)),
    "sum keepdims": _of(lambda x: netcl.sum(x, axis=(0, 2), keepdims=True) * x, (2, 3, 2)),
    "mean": _of(lambda x: netcl.mean(x, axis=0), (3, 4)),
    "mean of a power of two": _of(lambda x: netcl.mean(x, axis=1), (3, 4)),
    "prod": _of(lambda x: netcl.prod(x, axis=1), (3, 3)),
    "var": _of(lambda x: netcl.var(x, axis=1, correction=1), (3, 4)),
    "std": _of(lambda x: netcl.std(x, axis=0, keepdims=True), (4, 2)),
    "max": _of(lambda x: netcl.max(x, axis=1), (3, 4)),
    "min": _of(netcl.min, (3, 4)),
    "logsumexp": _of(lambda x: netcl.logsumexp(x, axis=1), (3, 4)),
    "logsumexp keepdims": _of(lambda x: netcl.logsumexp(x, keepdims=True), (3, 4)),
    "softmax": _of(F.softmax, (3, 4)),
    "softmax of the first axis": _of(lambda x: F.softmax(x, axis=0), (3, 2, 2)),
    "log_softmax": _of(F.log_softmax, (3, 4)),
    "log_softmax of a middle axis": _of(lambda x: F.log_softmax(x, axis=1), (2, 3, 2)),
    "layer_norm": _of(lambda x, w, b: F.layer_norm(x, 4, w, b), (2, 3, 4), (4,), (4,)),
    "layer_norm of two axes": _of(lambda x, w: F.layer_norm(x, (3, 2), w), (2, 3, 2), (3, 2)),
    "layer_norm shifted": _of(lambda x, b: F.layer_norm(x, 3, None, b), (2, 3), (3,)),
    "layer_norm plain": _of(lambda x: F.layer_norm(x, 3), (2, 3)),
}


def _labels(x: Any, *values: Any) -> Any:
    return netcl.asarray(list(values), device=x.device)


PRODUCTS = {
    "matmul": _of(netcl.matmul, (2, 3), (3, 4)),
    "matmul transposed": _of(lambda a, b: a.T @ b.mT, (3, 2), (4, 3)),
    "matmul batch": _of(netcl.matmul, (2, 1, 2, 3), (3, 3, 2)),
    "matmul folded": _of(netcl.matmul, (2, 2, 2, 3), (3, 2)),
    "matmul permuted batch": _of(lambda a, b: netcl.permute_dims(a, (2, 0, 1, 3)) @ b, (2, 2, 3, 2), (3, 2, 2, 2)),
    "matmul matrix vector": _of(netcl.matmul, (2, 3), (3,)),
    "matmul vector matrix": _of(netcl.matmul, (3,), (2, 3, 2)),
    "matmul vectors": _of(netcl.matmul, (3,), (3,)),
    "linear": _of(F.linear, (2, 2, 3), (4, 3), (4,)),
    "linear of a vector": _of(F.linear, (3,), (4, 3), (4,)),
    "linear without bias": _of(F.linear, (2, 3), (4, 3)),
    "tensordot": _of(lambda a, b: netcl.tensordot(a, b, axes=([0, 2], [1, 0])), (2, 3, 2), (2, 2, 3)),
    "vecdot": _of(netcl.vecdot, (2, 3), (3,)),
    "outer": _of(netcl.linalg.outer, (3,), (2,)),
    "conv2d": _of(lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (2, 2, 4, 5), (3, 2, 3, 2), (3,)),
    "conv2d dilated": _of(lambda x, w: F.conv2d(x, w, dilation=(2, 1)), (1, 1, 5, 3), (2, 1, 2, 2)),
    "max_pool2d": _of(lambda x: F.max_pool2d(x, 2, padding=1), (2, 1, 4, 3)),
    "max_pool2d overlapping": _of(lambda x: F.max_pool2d(x, (3, 2), stride=1), (1, 2, 4, 3)),
    "avg_pool2d": _of(lambda x: F.avg_pool2d(x, 2), (1, 2, 4, 4)),
    "avg_pool2d overlapping": _of(lambda x: F.avg_pool2d(x, 3, stride=1, padding=1), (1, 1, 4, 3)),
}

LOSSES = {
    "cross_entropy": _of(lambda x: F.cross_entropy(x, _labels(x, 0, 2, 1)), (3, 4)),
    "cross_entropy sum": _of(lambda x: F.cross_entropy(x, _labels(x, 0, 2, 1), reduction="sum"), (3, 4)),
    "cross_entropy rows": _of(lambda x: F.cross_entropy(x, _labels(x, 0, 2, 1), reduction="none"), (3, 4)),
    "cross_entropy ignoring": _of(lambda x: F.cross_entropy(x, _labels(x, 0, -100, 1)), (3, 4)),
    "cross_entropy smoothed": _of(
        lambda x: F.cross_entropy(x, _labels(x, 0, 2, 1), label_smoothing=0.2, ignore_index=2), (3, 4)
    ),
    "cross_entropy of images": _of(lambda x: F.cross_entropy(x, _labels(x, [0, 2], [1, 1])), (2, 3, 2)),
    "cross_entropy of one": _of(lambda x: F.cross_entropy(x, _labels(x, 2)[0]), (3,)),
    "cross_entropy of probabilities": _of(
        lambda x, y: F.cross_entropy(x, F.softmax(y), label_smoothing=0.1), (3, 4), (3, 4)
    ),
    "nll_loss": _of(lambda x: F.nll_loss(F.log_softmax(x), _labels(x, 0, -100, 1)), (3, 4)),
    "mse_loss": _of(F.mse_loss, (3, 3), (3, 3)),
    "mse_loss sum": _of(lambda x, y: F.mse_loss(x, y, reduction="sum"), (3, 2), (3, 2)),
    "mse_loss rows": _of(lambda x, y: F.mse_loss(x, y, reduction="none"), (3, 2), (3, 2)),
}

OPERATIONS = {**ELEMENTWISE, **SHAPES, **REDUCTIONS, **PRODUCTS, **LOSSES}
