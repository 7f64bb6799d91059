"""Reductions, products, losses and layers at singular arrays, and the functions that only move elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import netcl
import netcl.functional as F
from netcl import nn
from tests.singular_points import INF, LIMIT, NAN, SCALED, SHOWN, TIES

EXACT = "equal elements deviate by exactly 0, whatever a mean is rounded to"
COFACTORS = "the derivative of a singular determinant is its cofactors, where torch divides by it"
DIFFERENCE = "the result has lost the difference that decides the shares"
IGNORED = "a row that is ignored may hold anything"
EMPTY_TERM = "a class impossible on both sides adds 0 · log(0) = 0"
DROPPED = "an element that is dropped is not taken, whatever it holds"
FIRST = "of several NaN in a window the first counts, in torch the last"


@dataclass(frozen=True)
class ArrayCase:
    """A function of arrays, and what is expected; ``why`` says where it departs from torch."""

    function: Callable[..., Any]
    torch: Callable[..., Any]
    operands: tuple[Any, ...]
    value: Any
    gradients: tuple[Any, ...]
    seed: Any = 1.0
    why: str = ""
    covers: tuple[str, ...] = field(default=())


def _table(
    name: str, function: Callable[..., Any], torch: Callable[..., Any], *rows: tuple[Any, ...]
) -> dict[str, ArrayCase]:
    """Cases of a function of one array: (operand, value, gradient[, why[, seed]])."""
    cases = {}
    for x, value, gradient, *rest in rows:
        why, seed = [*rest, *("", 1.0)[len(rest) :]]
        cases[f"{name} of {x}"] = ArrayCase(function, torch, (x,), value, (gradient,), seed, why, (name,))
    return cases


def _labels(x: Any, *values: int) -> Any:
    return netcl.asarray(list(values), device=x.device)


def _cross_entropy(*labels: int, **options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def torch(t: Any, x: Any) -> Any:
        return t.nn.functional.cross_entropy(x, t.tensor(labels), **options)

    return lambda x: F.cross_entropy(x, _labels(x, *labels), **options), torch


def _nll(*labels: int, **options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def torch(t: Any, x: Any) -> Any:
        return t.nn.functional.nll_loss(x, t.tensor(labels), **options)

    return lambda x: F.nll_loss(x, _labels(x, *labels), **options), torch


def _with_q(q: list[list[float]], **options: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def torch(t: Any, x: Any) -> Any:
        return t.nn.functional.cross_entropy(x, t.tensor(q, dtype=x.dtype), **options)

    return lambda x: F.cross_entropy(x, netcl.asarray(q, dtype=x.dtype, device=x.device), **options), torch


_THIRD, _S = 1.0 / 3.0, 0.408248290463863
_ZERO = [[0.0, 0.0, 0.0]] * 2
_PADDED = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]
_DIRTY = [[NAN, 2.0, 3.0], [INF, -INF, 0.0]]
_LN2, _LN3 = 0.6931471805599453, 1.0986122886681098

REDUCTIONS = {
    **_table(
        "sum", netcl.sum, lambda t, x: t.sum(x), ([INF, -INF, 1.0], NAN, [1.0, 1.0, 1.0]),
        ([NAN, 1.0], NAN, [1.0, 1.0]),
        ([], 0.0, []),
    ),
    **_table(
        "mean", netcl.mean, lambda t, x: t.mean(x), ([INF, 1.0], INF, [0.5, 0.5]), ([NAN, 1.0], NAN, [0.5, 0.5]),
        ([], NAN, []),
    ),
    **_table(
        "prod", netcl.prod, lambda t, x: t.prod(x), ([0.0, 2.0, 3.0], 0.0, [6.0, 0.0, 0.0]),
        ([0.0, 0.0, 3.0], 0.0, [0.0, 0.0, 0.0]), ([0.0, -0.0, 0.0], 0.0, [0.0, 0.0, 0.0]),
        ([INF, 2.0, 3.0], INF, [6.0, INF, INF], LIMIT), ([-INF, 2.0, 3.0], -INF, [6.0, -INF, -INF], LIMIT),
        ([INF, INF, 2.0], INF, [INF, INF, INF], LIMIT), ([0.0, INF, 2.0], NAN, [INF, 0.0, NAN]),
        ([0.0, 0.0, INF], NAN, [NAN, NAN, 0.0], LIMIT), ([NAN, 1.0, 2.0], NAN, [NAN, NAN, NAN], SHOWN),
        ([NAN, 0.0, 2.0], NAN, [NAN, NAN, NAN], SHOWN), ([], 1.0, []),
    ),
    **_table(
        "cumulative_prod", netcl.cumulative_prod, lambda t, x: t.cumprod(x, 0),
        ([0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0]), ([2.0, 0.0, 3.0], [2.0, 0.0, 0.0], [1.0, 8.0, 0.0]),
        ([0.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]), ([], [], []),
    ),
    **_table(
        "var", netcl.var, lambda t, x: t.var(x, correction=0), ([2.0, 2.0, 2.0], 0.0, [0.0, 0.0, 0.0]),
        ([0.1] * 7, 0.0, [0.0] * 7, EXACT), ([1e30] * 3, 0.0, [0.0] * 3, EXACT), ([5.0], 0.0, [0.0]),
        ([NAN, 1.0], NAN, [NAN, NAN]), ([INF, 1.0, 2.0], NAN, [NAN, NAN, NAN], SHOWN), ([], NAN, []),
    ),
    **_table(
        "var with correction", lambda x: netcl.var(x, correction=1), lambda t, x: t.var(x, correction=1),
        ([2.0, 2.0], 0.0, [0.0, 0.0]), ([5.0], NAN, [NAN]), ([1.0, 3.0], 2.0, [-2.0, 2.0]),
    ),
    **_table(
        "std", netcl.std, lambda t, x: t.std(x, correction=0), ([2.0, 2.0, 2.0], 0.0, [0.0, 0.0, 0.0]),
        ([5.0], 0.0, [0.0]),
        ([0.1] * 7, 0.0, [0.0] * 7, EXACT), ([1e30] * 3, 0.0, [0.0] * 3, EXACT), ([0.0, -0.0], 0.0, [0.0, 0.0]),
        ([2.0, 2.0], 0.0, [0.0, 0.0], "", 0.0), ([1e20, -1e20, 0.0], 2 * _S * 1e20, [_S, -_S, 0.0]),
        ([3e38, -3e38, 0.0], 2 * _S * 3e38, [_S, -_S, 0.0], SCALED),
        ([1e-25, -1e-25, 0.0], 2 * _S * 1e-25, [_S, -_S, 0.0]),
        ([1e-30, -1e-30, 0.0], 2 * _S * 1e-30, [_S, -_S, 0.0], SCALED),
        ([NAN, 1.0], NAN, [NAN, NAN]), ([INF, 1.0], NAN, [NAN, NAN], SHOWN), ([], NAN, []),
    ),
    **_table(
        "std with correction", lambda x: netcl.std(x, correction=1), lambda t, x: t.std(x, correction=1),
        ([2.0, 2.0], 0.0, [0.0, 0.0]), ([5.0], NAN, [NAN]), ([1.0, 3.0], 2**0.5, [-(2**-0.5), 2**-0.5]),
    ),
    **_table(
        "std of rows", lambda x: netcl.std(x, axis=1), lambda t, x: t.std(x, dim=1, correction=0),
        ([[1.0, 1.0], [1.0, 3.0]], [0.0, 1.0], [[0.0, 0.0], [-0.5, 0.5]]),
    ),
    **_table(
        "max", netcl.max, lambda t, x: t.amax(x), ([2.0, 2.0, 1.0], 2.0, [0.5, 0.5, 0.0]),
        ([0.0, -0.0], 0.0, [0.5, 0.5]),
        ([-INF, -INF], -INF, [0.5, 0.5]), ([INF, INF, 1.0], INF, [0.5, 0.5, 0.0]),
        ([2.0, NAN, 1.0], NAN, [NAN, NAN, NAN]),
        ([INF, NAN], NAN, [NAN, NAN]),
    ),
    **_table(
        "max of rows", lambda x: netcl.max(x, axis=1), lambda t, x: t.amax(x, 1),
        ([[2.0, NAN], [1.0, 3.0]], [NAN, 3.0], [[NAN, NAN], [0.0, 1.0]]),
    ),
    **_table(
        "min", netcl.min, lambda t, x: t.amin(x), ([1.0, 1.0, 2.0], 1.0, [0.5, 0.5, 0.0]),
        ([INF, INF], INF, [0.5, 0.5]),
        ([2.0, NAN, 1.0], NAN, [NAN, NAN, NAN]),
    ),
    **_table(
        "logsumexp", netcl.logsumexp, lambda t, x: t.logsumexp(x, 0), ([0.0, 0.0], _LN2, [0.5, 0.5]),
        ([1e7, 1e7], 1e7 + _LN2, [0.5, 0.5], DIFFERENCE), ([1e30, 1e30], 1e30, [0.5, 0.5], DIFFERENCE),
        ([-1e7, -1e7 - 1.0], 0.3132616875182228 - 1e7, [0.7310585786300049, 0.2689414213699951], DIFFERENCE),
        ([1e4, -1e4], 1e4, [1.0, 0.0]), ([-INF, 1.0], 1.0, [0.0, 1.0]), ([INF, 1.0], INF, [1.0, 0.0], TIES),
        ([INF, INF, 1.0], INF, [0.5, 0.5, 0.0], TIES), ([-INF, -INF], -INF, [0.5, 0.5], TIES),
        ([NAN, 1.0], NAN, [NAN, NAN]),
    ),
    **_table(
        "softmax", lambda x: F.softmax(x)[0], lambda t, x: t.softmax(x, 0)[0], ([1e7, 1e7], 0.5, [0.25, -0.25]),
        ([1e30, 1e30], 0.5, [0.25, -0.25]), ([1e4, -1e4], 1.0, [0.0, 0.0]), ([-INF, 1.0], 0.0, [0.0, 0.0]),
        ([-INF, -INF], NAN, [NAN, NAN]), ([INF, 1.0], NAN, [NAN, NAN]), ([NAN, 1.0], NAN, [NAN, NAN]),
    ),
    **_table(
        "log_softmax", lambda x: F.log_softmax(x)[0], lambda t, x: t.log_softmax(x, 0)[0],
        ([1e7, 1e7], -_LN2, [0.5, -0.5]), ([1e4, -1e4], 0.0, [0.0, 0.0]), ([-1e4, 1e4], -2e4, [1.0, -1.0]),
        ([-INF, 1.0], -INF, [1.0, -1.0]), ([-INF, -INF], NAN, [NAN, NAN]), ([INF, 1.0], NAN, [NAN, NAN]),
    ),
    **_table(
        "layer_norm", lambda x: F.layer_norm(x, x.shape[-1])[0], lambda t, x: t.nn.functional.layer_norm(x, x.shape)[0],
        ([1e30, 1e30], 0.0, [158.11388300841895, -158.11388300841895], EXACT),
        ([1e6 + 0.1] * 7, 0.0, [271.0523708715753] + [-45.175395145262545] * 6, EXACT),
        ([2.0, 2.0], 0.0, [158.11388300841895, -158.11388300841895]), ([5.0], 0.0, [0.0]),
        ([NAN, 1.0], NAN, [NAN, NAN]), ([INF, 1.0], NAN, [NAN, NAN]),
    ),
}  # fmt: skip

LOSSES = {
    **_table(
        "cross_entropy", *_cross_entropy(-100, -100), (_PADDED, NAN, _ZERO), (_DIRTY, NAN, _ZERO, IGNORED),
    ),
    **_table(
        "cross_entropy smoothed", *_cross_entropy(-100, -100, label_smoothing=0.1), (_PADDED, NAN, _ZERO),
        (_DIRTY, NAN, _ZERO, IGNORED),
    ),
    **_table("cross_entropy summed", *_cross_entropy(-100, -100, reduction="sum"), (_PADDED, 0.0, _ZERO)),
    **_table(
        "cross_entropy of rows", *_cross_entropy(-100, -100, reduction="none"), (_PADDED, [0.0, 0.0], _ZERO),
        (_DIRTY, [0.0, 0.0], _ZERO, IGNORED),
    ),
    **_table(
        "cross_entropy of one label", *_cross_entropy(0, -100),
        ([[0.0, 0.0], [NAN, INF]], _LN2, [[-0.5, 0.5], [0.0, 0.0]], IGNORED),
        ([[1e30, -1e30], [1.0, 1.0]], 0.0, _ZERO_2 := [[0.0, 0.0]] * 2),
        ([[-1e4, 1e4], [1.0, 1.0]], 2e4, [[-1.0, 1.0], [0.0, 0.0]]),
        ([[-INF, 1.0], [0.0, 0.0]], INF, [[-1.0, 1.0], [0.0, 0.0]]),
        ([[-INF, -INF], [0.0, 0.0]], NAN, [[NAN, NAN], [0.0, 0.0]]),
        ([[0.0, -INF], [0.0, 0.0]], 0.0, _ZERO_2),
    ),
    **_table("cross_entropy of images", *(
        lambda x: F.cross_entropy(x, _labels(x, -100, -100).reshape(1, 2)),
        lambda t, x: t.nn.functional.cross_entropy(x, t.tensor([[-100, -100]])),
    ), ([[[1.0, 2.0], [0.0, 5.0]]], NAN, [_ZERO_2])),
    **_table(
        "cross_entropy of probabilities", *_with_q([[1.0, 0.0]]), ([[0.0, -INF]], 0.0, _ZERO_2[:1], EMPTY_TERM),
        ([[-INF, 0.0]], INF, [[-1.0, 1.0]], EMPTY_TERM), ([[NAN, 0.0]], NAN, [[NAN, NAN]]),
        ([[0.0, 0.0]], _LN2, [[-0.5, 0.5]]),
        ([[-INF, -INF]], NAN, [[NAN, NAN]]),
    ),
    **_table("nll_loss", *_nll(-100, -100), (_PADDED, NAN, _ZERO), (_DIRTY, NAN, _ZERO)),
    **_table("nll_loss of rows", *_nll(-100, -100, reduction="none"), (_PADDED, [0.0, 0.0], _ZERO)),
    **_table("nll_loss of one label", *_nll(0, -100), ([[-INF, 0.0], [NAN, NAN]], INF, [[-1.0, 0.0], [0.0, 0.0]])),
    **{
        f"mse_loss of {x} and {y}": ArrayCase(
            F.mse_loss, lambda t, x, y: t.nn.functional.mse_loss(x, y), (x, y), value, grads, covers=("mse_loss",)
        )
        for x, y, value, grads in (
            ([], [], NAN, ([], [])), ([1.0], [1.0], 0.0, ([0.0], [0.0])), ([NAN], [1.0], NAN, ([NAN], [NAN])),
            ([INF, 1.0], [1.0, 1.0], INF, ([INF, 0.0], [-INF, 0.0])),
        )
    },
}  # fmt: skip


def _row(x: Any) -> Any:
    return x.reshape((1, 1, 1, -1))


LAYERS = {
    **_table(
        "max_pool2d", lambda x: F.max_pool2d(_row(x), (1, 3)), lambda t, x: t.nn.functional.max_pool2d(_row(x), (1, 3)),
        ([2.0, 2.0, 1.0], [[[[2.0]]]], [1.0, 0.0, 0.0]), ([2.0, NAN, 3.0], [[[[NAN]]]], [0.0, 1.0, 0.0]),
        ([NAN, NAN, 3.0], [[[[NAN]]]], [1.0, 0.0, 0.0], FIRST), ([-INF, -INF, -INF], [[[[-INF]]]], [1.0, 0.0, 0.0]),
    ),
    **_table(
        "max_pool2d with padding", lambda x: F.max_pool2d(_row(x), (1, 2), stride=2, padding=(0, 1)),
        lambda t, x: t.nn.functional.max_pool2d(_row(x), (1, 2), stride=2, padding=(0, 1)),
        ([-INF, 1.0], [[[[-INF, 1.0]]]], [1.0, 1.0]), ([NAN, -INF], [[[[NAN, -INF]]]], [1.0, 1.0]),
    ),
    **_table(
        "avg_pool2d", lambda x: F.avg_pool2d(_row(x), (1, 2)), lambda t, x: t.nn.functional.avg_pool2d(_row(x), (1, 2)),
        ([INF, -INF, 1.0, NAN], [[[[NAN, NAN]]]], [0.5] * 4),
    ),
    **_table(
        "dropout", lambda x: F.dropout(x, 1.0), lambda t, x: t.nn.functional.dropout(x, 1.0),
        ([1.0, 2.0], [0.0, 0.0], [0.0, 0.0]),
        ([NAN, INF], [0.0, 0.0], [0.0, 0.0], DROPPED),
    ),
    **{
        name: ArrayCase(function, torch, operands, value, grads, covers=(name,))
        for name, function, torch, operands, value, grads in (
            (
                "matmul", netcl.matmul, lambda t, a, b: a @ b, ([[INF, 1.0]], [[0.0], [NAN]]), [[NAN]],
                ([[0.0, NAN]], [[INF], [1.0]]),
            ),
            (
                "linear", F.linear, lambda t, x, w: t.nn.functional.linear(x, w), ([[INF, 1.0]], [[0.0, 2.0]]), [[NAN]],
                ([[0.0, 2.0]], [[INF, 1.0]]),
            ),
            (
                "vecdot", netcl.vecdot, lambda t, a, b: t.linalg.vecdot(a, b), ([INF, 1.0], [0.0, NAN]), NAN,
                ([0.0, NAN], [INF, 1.0]),
            ),
            (
                "outer", netcl.linalg.outer, lambda t, a, b: t.outer(a, b), ([0.0], [NAN, 2.0]), [[NAN, 0.0]],
                ([NAN], [0.0, 0.0]),
            ),
            (
                "tensordot", lambda a, b: netcl.tensordot(a, b, axes=1), lambda t, a, b: t.tensordot(a, b, 1),
                ([INF, 1.0], [0.0, 2.0]), NAN, ([0.0, 2.0], [INF, 1.0]),
            ),
            (
                "conv2d", F.conv2d, lambda t, x, w: t.nn.functional.conv2d(x, w), ([[[[INF, 1.0]]]], [[[[0.0, 2.0]]]]),
                [[[[NAN]]]], ([[[[0.0, 2.0]]]], [[[[INF, 1.0]]]]),
            ),
        )
    },
    **_table(
        "embedding", lambda w: F.embedding(_labels(w, 0, 0), w), lambda t,
        w: t.nn.functional.embedding(t.tensor([0, 0]), w),
        ([[NAN, 1.0], [INF, 2.0]], [[NAN, 1.0]] * 2, [[2.0, 2.0], [0.0, 0.0]]),
    ),
    **_table(
        "take", lambda x: netcl.take(x, _labels(x, 0)), lambda t, x: t.take(x, t.tensor([0])),
        ([NAN, INF], [NAN], [1.0, 0.0]),
    ),
    **_table(
        "take_along_axis", lambda x: netcl.take_along_axis(x, _labels(x, 1)),
        lambda t, x: t.take_along_dim(x, t.tensor([1])), ([NAN, INF], [INF], [0.0, 1.0]),
    ),
}  # fmt: skip

_O, _UNIT, _SINGULAR = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 4.0]]
_NORMS: dict[float, tuple[Callable[..., Any], Callable[..., Any]]] = {
    order: (
        lambda x, p=order: netcl.linalg.vector_norm(x, ord=p),
        lambda t, x, p=order: t.linalg.vector_norm(x, p),
    )
    for order in (1, 2, INF)
}
MATRICES = {
    **_table(
        "vector_norm", *_NORMS[2], ([0.0, -0.0], 0.0, [0.0, 0.0]), ([NAN, 1.0], NAN, [NAN, NAN]), ([], 0.0, []),
        ([INF, 1.0], INF, [NAN, 0.0]), ([3e30, -4e30], 5e30, [0.6, -0.8], SCALED),
        ([3e-30, -4e-30], 5e-30, [0.6, -0.8], SCALED),
    ),
    **_table(
        "vector_norm of order 1", *_NORMS[1], ([0.0, -2.0], 2.0, [0.0, -1.0]), ([NAN, 1.0], NAN, [NAN, 1.0], SHOWN),
    ),
    **_table("vector_norm of order inf", *_NORMS[INF], ([1.0, -1.0], 1.0, [0.5, -0.5]), ([0.0, 0.0], 0.0, [0.0, 0.0])),
    **_table(
        "matrix_norm", netcl.linalg.matrix_norm, lambda t, x: t.linalg.matrix_norm(x), (_O, 0.0, _O),
        ([[NAN, 0.0]], NAN, [[NAN, NAN]]),
    ),
    **_table(
        "matrix_norm of order 1", lambda x: netcl.linalg.matrix_norm(x, ord=1),
        lambda t, x: t.linalg.matrix_norm(x, 1), ([[1.0, 0.0], [0.0, -1.0]], 1.0, [[0.5, 0.0], [0.0, -0.5]]),
    ),
    **_table(
        "det", netcl.linalg.det, lambda t, x: t.linalg.det(x), (_O, 0.0, _O, COFACTORS),
        (_SINGULAR, 0.0, [[4.0, -2.0], [-2.0, 1.0]], COFACTORS),
        ([[NAN, 0.0], [0.0, 1.0]], NAN, [[NAN] * 2] * 2, SHOWN),
    ),
    **_table(
        "slogdet", lambda x: netcl.linalg.slogdet(x).logabsdet, lambda t, x: t.linalg.slogdet(x)[1],
        (_O, -INF, [[NAN] * 2] * 2, SHOWN),
    ),
    **_table(
        "pinv", netcl.linalg.pinv, lambda t, x: t.linalg.pinv(x), (_O, _O, _O),
        ([[2.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]], [[-0.25, 0.25], [0.25, 0.0]]),
    ),
    **_table(
        "matrix_power", lambda x: netcl.linalg.matrix_power(x, 2), lambda t, x: t.linalg.matrix_power(x, 2),
        (_O, _O, _O),
    ),
    **_table(
        "eigvalsh", netcl.linalg.eigvalsh, lambda t, x: t.linalg.eigvalsh(x), (_UNIT, [1.0, 1.0], _UNIT),
        (_O, [0.0, 0.0], _UNIT),
    ),
    **_table(
        "eigh", lambda x: netcl.linalg.eigh(x).eigenvalues, lambda t, x: t.linalg.eigh(x)[0],
        (_UNIT, [1.0, 1.0], _UNIT),
    ),
    "cross": ArrayCase(
        netcl.linalg.cross, lambda t, a, b: t.linalg.cross(a, b), ([INF, 0.0, 0.0], [1.0, 0.0, 0.0]), [0.0, NAN, NAN],
        ([0.0, -1.0, 1.0], [0.0, INF, -INF]), [1.0, 1.0, 1.0], covers=("cross",),
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[..., Any], Any]] = {
    "inv": (netcl.linalg.inv, _SINGULAR),
    "solve": (lambda x: netcl.linalg.solve(x, x), _SINGULAR),
    "cholesky": (netcl.linalg.cholesky, _O),
    "qr": (lambda x: netcl.linalg.qr(x).R, _O),
    "svd": (lambda x: netcl.linalg.svd(x).S, [[NAN, 0.0], [0.0, 1.0]]),
    "svdvals": (netcl.linalg.svdvals, [[NAN, 0.0], [0.0, 1.0]]),
    "eig": (lambda x: netcl.abs(netcl.linalg.eig(x).eigenvalues), [[NAN, 0.0], [0.0, 1.0]]),
    "eigvals": (lambda x: netcl.abs(netcl.linalg.eigvals(x)), [[NAN, 0.0], [0.0, 1.0]]),
}
"""Factorizations, and a matrix that they, or their derivatives, refuse with a LinAlgError."""

ARRAYS = {**REDUCTIONS, **LOSSES, **LAYERS, **MATRICES}

MOVES: dict[str, tuple[Callable[..., Any], Any]] = {
    "reshape": (lambda x: netcl.reshape(x, (3, 2)), 1.0),
    "flatten": (F.flatten, 1.0),
    "permute_dims": (lambda x: netcl.permute_dims(x, (1, 0)), 1.0),
    "matrix_transpose": (netcl.matrix_transpose, 1.0),
    "moveaxis": (lambda x: netcl.moveaxis(x, 0, 1), 1.0),
    "expand_dims": (netcl.expand_dims, 1.0),
    "squeeze": (lambda x: netcl.squeeze(x[None], 0), 1.0),
    "broadcast_to": (lambda x: netcl.broadcast_to(x, (4, 2, 3)), 4.0),
    "broadcast_arrays": (lambda x: netcl.broadcast_arrays(x, netcl.zeros((4, 1, 1), device=x.device))[0], 4.0),
    "meshgrid": (lambda x: netcl.meshgrid(x[0], x[1])[0], [[3.0] * 3, [0.0] * 3]),
    "diagonal": (netcl.linalg.diagonal, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "trace": (netcl.linalg.trace, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "fftshift": (netcl.fft.fftshift, 1.0),
    "ifftshift": (netcl.fft.ifftshift, 1.0),
    "flip": (netcl.flip, 1.0),
    "real": (netcl.real, 1.0),
    "imag": (netcl.imag, 0.0),
    "conj": (netcl.conj, 1.0),
    "roll": (lambda x: netcl.roll(x, 1, axis=1), 1.0),
    "tile": (lambda x: netcl.tile(x, (2, 2)), 4.0),
    "repeat": (lambda x: netcl.repeat(x, 3, axis=0), 3.0),
    "concat": (lambda x: netcl.concat([x, x]), 2.0),
    "stack": (lambda x: netcl.stack([x, x]), 2.0),
    "unstack": (lambda x: netcl.unstack(x)[0], [[1.0] * 3, [0.0] * 3]),
    "split": (lambda x: F.split(x, 1)[1], [[0.0] * 3, [1.0] * 3]),
    "tril": (netcl.tril, [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
    "triu": (netcl.triu, [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]),
    "subscript": (lambda x: x[:, ::2], [[1.0, 0.0, 1.0]] * 2),
    "transpose": (netcl.transpose, 1.0),
    "einsum": (lambda x: netcl.einsum("ij,ij->i", x, netcl.ones((2, 3), device=x.device)), 1.0),
    "sort": (netcl.sort, 1.0),
    "cumulative_sum": (lambda x: netcl.cumulative_sum(x, axis=1), [[3.0, 2.0, 1.0]] * 2),
    "diff": (netcl.diff, [[-1.0, 0.0, 1.0]] * 2),
    "scatter_add": (lambda x: F.scatter_add(x, netcl.asarray([0, 0], device=x.device), x), 2.0),
    "subscript of Tensors": (lambda x: x[_labels(x, 1, 1)], [[0.0] * 3, [2.0] * 3]),
    "to": (lambda x: x.to("numpy") * 1.0, 1.0),
}
"""What only moves elements, with how often each element of a (2, 3) array arrives."""

MODULES = {
    nn.ReLU: "relu", nn.GELU: "gelu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Dropout: "dropout",
    nn.LayerNorm: "layer_norm", nn.Linear: "linear", nn.Embedding: "embedding", nn.Conv2d: "conv2d",
    nn.MaxPool2d: "max_pool2d", nn.Flatten: "reshape", nn.CrossEntropyLoss: "cross_entropy", nn.MSELoss: "mse_loss",
}  # fmt: skip
"""Which function each module calls."""

NO_DERIVATIVE = {
    "all", "any", "argmax", "argmin", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "count_nonzero", "equal", "greater", "greater_equal", "isfinite", "isinf",
    "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "matrix_rank",
    "not_equal", "signbit", "argsort", "isin", "nonzero", "searchsorted", "unique_all", "unique_counts",
    "unique_inverse", "unique_values",
}  # fmt: skip
"""Functions whose values are bools or integers, and those of sets, which no tape follows, as in torch."""

MAKERS = {
    "arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like", "linspace", "ones",
    "ones_like", "zeros", "zeros_like", "broadcast_shapes", "can_cast", "isdtype", "result_type", "finfo", "iinfo",
    "available", "devices", "get_backend", "set_backend", "use_backend", "manual_seed", "is_recording", "no_grad",
    "Tape", "DType", "Tensor", "load", "save", "to_torch_state_dict",
}  # fmt: skip
"""Public names that take no recorded operand or compute nothing from it."""
