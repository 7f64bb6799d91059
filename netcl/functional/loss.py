"""Losses. The cross-entropy with integer labels computes loss and gradient in one pass over the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import promote
from netcl.errors import HyperParameterError, ShapeError
from netcl.functional.activation import check_floating, log_softmax
from netcl.functional.autocast import autocast_up
from netcl.functional.dispatch import (
    INTEGER_RANGE,
    A,
    check_arrays,
    common_backend,
    identity,
    map_arrays,
    reduce_arrays,
    sum_to_shape,
)
from netcl.functional.elementwise import negative
from netcl.functional.indexing import as_indices, take_along_axis
from netcl.functional.reduction import averaged, broadcast_grad, mean, sum
from netcl.functional.shape import moveaxis, reshape, view_or_copy
from netcl.functional.ternary import where
from netcl.validation import integer, one_of, real

__all__ = ["cross_entropy", "mse_loss", "nll_loss"]

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: Any) -> str:
    """``reduction``, if it is one of those that losses have."""
    return one_of("reduction", reduction, REDUCTIONS, error=HyperParameterError)


def check_ignored(ignore_index: Any) -> int:
    """``ignore_index``, if a label can equal it."""
    low, high = INTEGER_RANGE["int64"]
    return integer("ignore_index", ignore_index, least=low, most=high, error=HyperParameterError)


def check_smoothing(label_smoothing: Any) -> float:
    """``label_smoothing``, if it is a share."""
    return real("label_smoothing", label_smoothing, least=0.0, most=1.0, error=HyperParameterError)


def cross_entropy(
    logits: A,
    target: A,
    /,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> A:
    """The cross-entropy between logits and labels or probabilities.

    loss = -Σ_c q_c · log softmax(logits)_c,  q = (1 - ε) · target + ε / classes

    Parameters
    ----------
    logits : Tensor, shape (classes,), (rows, classes) or (rows, classes, …)
    target : Tensor
        Integer labels of the shape of ``logits`` without its class axis, or probabilities of the shape of ``logits``.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is over labels that are not ignored; with probabilities, over rows.
    ignore_index : int, default -100
        A label whose row counts for nothing. Integer labels only.
    label_smoothing : float, default 0.0
        ε, in [0, 1].

    Returns
    -------
    Tensor
        Of the dtype of the logits. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    DTypeError
        If the logits are not floating.
    HyperParameterError
        If ``reduction`` or ``label_smoothing`` is out of range.
    IndexError
        From a later call that blocks, if a label is out of range.

    Notes
    -----
    Follows ``torch.nn.functional.cross_entropy``. The mean over no labels is NaN, as there, and its gradient 0: a batch
    of nothing but padding moves no weight. A row that is ignored may hold anything, NaN too. With probabilities a class
    of probability 0 on both sides, such as one masked by -inf, adds 0 (NaN in torch).

    Examples
    --------
    >>> import netcl
    >>> logits = netcl.asarray([[0.0, 0.0], [0.0, 1000.0]])
    >>> netcl.functional.cross_entropy(logits, netcl.asarray([0, 1]), reduction="none").tolist()
    [0.6931471824645996, 0.0]
    """
    check_floating(logits, "cross_entropy")
    check_reduction(reduction)
    ignore_index, label_smoothing = check_ignored(ignore_index), check_smoothing(label_smoothing)
    check_arrays("cross_entropy", target)
    if logits.ndim == 0:
        raise ShapeError("cross_entropy needs logits with a class axis, got a 0-dimensional array")
    common_backend((logits, target))
    logits = autocast_up(logits)
    axis = 0 if logits.ndim == 1 else 1
    if target.dtype.kind == "f":
        return _with_probabilities(logits, target, axis, reduction, label_smoothing)
    expected = (*logits.shape[:axis], *logits.shape[axis + 1 :])
    if target.shape != expected:
        raise ShapeError(
            f"cross_entropy of logits of shape {logits.shape} needs labels of shape {expected}, got {target.shape}"
        )
    labels = as_indices(target, "cross_entropy")
    scores = logits if axis == logits.ndim - 1 else moveaxis(logits, axis, -1)
    losses = _row_losses(scores, labels, ignore_index, label_smoothing)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return sum(losses)
    return _mean_over_labels(losses, labels, ignore_index)


def _row_losses(scores: A, labels: Array, ignore_index: int, label_smoothing: float) -> A:
    """One loss for each label; with the gradient in the same pass where the tape will ask for it."""
    classes = scores.shape[-1]
    losses = scores.empty_like(labels.shape)
    if labels.size and classes == 0:
        raise ShapeError(f"cross_entropy needs at least one class, got logits of shape {scores.shape}")
    if not labels.size:
        tape.record(losses, (scores, lambda g: scores.empty_like()), name="cross_entropy")
        return losses
    rows = view_or_copy(scores, (labels.size, classes))
    wanted = tape.is_recording() and (scores.requires_grad or scores.node is not None)
    gradient = rows.empty_like() if wanted else None
    scores.backend.softmax_cross_entropy(
        rows.view(),
        view_or_copy(labels, (labels.size,)).view(),
        losses.restride((labels.size,), (1,), 0).view(),
        None if gradient is None else gradient.view(),
        float(label_smoothing),
        int(ignore_index),
    )
    if gradient is not None:
        slopes = gradient

        def vjp(g: Any) -> Any:
            column = view_or_copy(g, (labels.size, 1))
            return view_or_copy(map_arrays(_product, slopes, column, dtype=scores.dtype), scores.shape)

        tape.record(losses, (scores, vjp), name="cross_entropy")
    return losses


def _product(x: Any, y: Any) -> Any:
    return x * y


def _counted(label: Any, ignored: Any) -> Any:
    return ex.where(ex.equal(label, ignored), 0.0, 1.0)


def _ratio(total: Any, count: Any) -> Any:
    return total / count


def _ratio_or_zero(g: Any, count: Any) -> Any:
    # Without a label the mean is NaN and depends on nothing.
    return ex.where(ex.equal(count, 0.0), 0.0, g / count)


def _mean_over_labels(losses: A, labels: Array, ignore_index: int) -> A:
    axes = tuple(range(losses.ndim))
    compute = losses.dtype.compute
    total = reduce_arrays("sum", identity, losses, axes=axes, dtype=compute)
    count = reduce_arrays("sum", _counted, labels, ignore_index, axes=axes, dtype=compute)
    out = map_arrays(_ratio, total, count, dtype=losses.dtype)

    def vjp(g: Any) -> Any:
        return broadcast_grad(losses, map_arrays(_ratio_or_zero, g, count, dtype=losses.dtype), axes)

    tape.record(out, (losses, vjp), name="mean")
    return out


def _smoothed(p: Any, kept: Any, uniform: Any) -> Any:
    return p * kept + uniform


def _with_probabilities(logits: A, target: A, axis: int, reduction: str, label_smoothing: float) -> A:
    if target.shape != logits.shape:
        raise ShapeError(
            f"cross_entropy of logits of shape {logits.shape} needs probabilities of that shape, got {target.shape}"
        )
    classes = logits.shape[axis]
    q = target
    if label_smoothing:
        kept = 1.0 - label_smoothing
        q = map_arrays(_smoothed, target, kept, label_smoothing / classes)
        tape.record(q, (target, lambda g: sum_to_shape(target, _product, g, kept)), name="label_smoothing")
    log_p = log_softmax(logits, axis=axis)
    weighted = map_arrays(_weighted, q, log_p)
    tape.record(
        weighted,
        (q, lambda g: sum_to_shape(q, _product, g, log_p)),
        (log_p, lambda g: sum_to_shape(log_p, _product, g, q)),
        name="multiply",
    )
    losses: A = negative(sum(weighted, axis=axis))
    return _finish(losses, reduction)


def _weighted(q: Any, log_p: Any) -> Any:
    # A class that is impossible on both sides costs nothing: 0 · log(0) is its limit, 0.
    return ex.where(ex.equal(q, 0.0) & ex.apply("isinf", log_p), 0.0, q * log_p)


def _finish(losses: A, reduction: str) -> A:
    if reduction == "mean":
        return mean(losses)
    return losses if reduction == "none" else sum(losses)


def nll_loss(log_probabilities: A, target: A, /, *, reduction: str = "mean", ignore_index: int = -100) -> A:
    """The negative log-likelihood of integer labels.

    loss = -log_probabilities[label]

    Parameters
    ----------
    log_probabilities : Tensor, shape (rows, classes)
        As ``log_softmax`` gives them.
    target : Tensor of integers, shape (rows,)
    reduction, ignore_index
        As in ``cross_entropy``.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    IndexError
        From a later call that blocks, if a label is out of range.

    Examples
    --------
    >>> import netcl
    >>> p = netcl.asarray([[-1.0, -2.0]])
    >>> netcl.functional.nll_loss(p, netcl.asarray([1])).item()
    2.0
    """
    check_floating(log_probabilities, "nll_loss")
    check_reduction(reduction)
    ignore_index = check_ignored(ignore_index)
    labels = as_indices(target, "nll_loss")
    if log_probabilities.ndim != 2 or labels.shape != log_probabilities.shape[:1]:
        raise ShapeError(
            f"nll_loss takes shapes (rows, classes) and (rows,), got {log_probabilities.shape} and {target.shape}"
        )
    ignored = map_arrays(ex.equal, labels, ignore_index)
    inside = where(ignored, 0, labels)
    taken = reshape(take_along_axis(log_probabilities, reshape(inside, (-1, 1)), axis=1), labels.shape)
    losses: A = where(ignored, 0.0, negative(taken))
    if reduction == "mean":
        return _mean_over_labels(losses, labels, ignore_index)
    return losses if reduction == "none" else sum(losses)


def _squared(x: Any, y: Any) -> Any:
    return ex.square(x - y)


def _squared_left(g: Any, x: Any, y: Any, factor: Any) -> Any:
    return g * (x - y) * factor


def mse_loss(input: A, target: A, /, *, reduction: str = "mean") -> A:
    """The squared difference, or its mean or sum.

    loss = (input - target)²

    Parameters
    ----------
    input, target : Tensor
        Of the same shape, floating.
    reduction : {"mean", "sum", "none"}, default "mean"

    Raises
    ------
    ShapeError
        If the shapes differ (torch broadcasts with a warning).
    DTypeError
        If an operand is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.mse_loss(netcl.asarray([1.0, 3.0]), netcl.asarray([1.0, 1.0])).item()
    2.0
    """
    check_reduction(reduction)
    check_floating(input, "mse_loss")
    check_floating(target, "mse_loss")
    if input.shape != target.shape:
        raise ShapeError(f"mse_loss takes two arrays of one shape, got {input.shape} and {target.shape}; reshape one")
    common_backend((input, target))
    input, target = autocast_up(input), autocast_up(target)
    axes = tuple(range(input.ndim))
    dtype = promote(input.dtype, target.dtype)
    n = input.size
    out: A
    if reduction == "none":
        out = map_arrays(_squared, input, target)
    elif reduction == "sum":
        out = reduce_arrays("sum", _squared, input, target, axes=axes, dtype=dtype)
    else:
        out = averaged(_squared, input, target, axes=axes, n=n, dtype=dtype, keepdims=False)
    factor = 2.0 / n if reduction == "mean" and n else 2.0

    def along(x: A, sign: float) -> Callable[[Any], Any]:
        return lambda g: map_arrays(_squared_left, g, input, target, sign * factor, dtype=x.dtype)

    tape.record(out, (input, along(input, 1.0)), (target, along(target, -1.0)), name="mse_loss")
    return out
