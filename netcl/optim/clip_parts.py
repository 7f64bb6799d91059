"""Clipping of parts: each tensor or set of tensors by a norm of its own, and units by the size of their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from netcl.array import Array
from netcl.dtypes import DType
from netcl.errors import HyperParameterError
from netcl.expression import Expression, Node, maximum, trace, where
from netcl.functional.casting import astype
from netcl.functional.norms import vector_norm
from netcl.functional.shape import broadcast_to
from netcl.optim import validation
from netcl.optim.clip import clip_grad_norm_device, with_gradients
from netcl.validation import shown


def clip_grad_norm_each(
    parts: Iterable[Any], max_norm: float | Iterable[float], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> list[Array]:
    """Clip the gradients of each part by a norm of their own. Enqueues work and does not block.

    Parameters
    ----------
    parts : iterable of Tensor, of parameter group, or of iterable of Tensor
        What has a norm of its own: a Tensor (per layer, ``model.parameters()``), a group (``opt.param_groups``), or any
        set of Tensors. A part without a gradient is passed over.
    max_norm : float, or iterable of float
        The largest norm of each part, or one for each.
    norm_type, error_if_nonfinite
        As in :func:`clip_grad_norm_device`.

    Returns
    -------
    list of Tensor
        The norm of each part that has a gradient, before clipping.

    Raises
    ------
    HyperParameterError
        If a value is out of range, or there are not as many bounds as parts; nothing is changed then.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import SGD, clip_grad_norm_each
    >>> a, b = netcl.zeros(1, requires_grad=True), netcl.zeros(1, requires_grad=True)
    >>> a.grad, b.grad = netcl.asarray([3.0]), netcl.asarray([0.5])
    >>> [float(norm) for norm in clip_grad_norm_each([a, b], 1.0)]
    [3.0, 0.5]
    >>> a.grad.item(), b.grad.item()
    (1.0, 0.5)

    Notes
    -----
    Three launches for each part, where one norm of all gradients is folded into the step.
    """
    given = [parts] if isinstance(parts, Array) else validation.listed("parts", parts)
    sets = [_members(part) for part in given]
    if hasattr(max_norm, "__iter__") and getattr(max_norm, "shape", None) != ():
        bounds = [validation.bound("max_norm", each) for each in validation.listed("max_norm", max_norm)]
    else:
        bounds = [validation.bound("max_norm", max_norm)] * len(sets)
    if len(bounds) != len(sets):
        raise HyperParameterError(
            f"max_norm must be one number, or one for each of {len(sets)} part(s), got {len(bounds)}"
        )
    kind = validation.positive("norm_type", norm_type)
    validation.flag("error_if_nonfinite", error_if_nonfinite)
    return [
        clip_grad_norm_device(members, bound, kind, error_if_nonfinite)
        for members, bound in zip(sets, bounds, strict=True)
        if with_gradients(members)
    ]


def clip_grad_adaptive(parameters: Array | Iterable[Array], clip_factor: float = 0.01, eps: float = 1e-3) -> None:
    """Adaptive gradient clipping (AGC): bound each unit's gradient by the norm of its weights. Does not block.

    For each unit (a row of a matrix, a filter of a convolution; a vector or a number as a whole) with weights W and
    gradient G::

        limit = clip_factor · max(‖W‖, eps)
        G ← G · limit / ‖G‖                       if ‖G‖ > limit

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over. The paper leaves the last layer out.
    clip_factor : float, default 0.01
        Greater than 0.
    eps : float, default 1e-3
        The least norm that weights count with, greater than 0.

    Raises
    ------
    HyperParameterError
        If a value is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grad_adaptive
    >>> w = netcl.asarray([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    >>> w.grad = netcl.asarray([[0.0, 10.0], [0.0, 10.0]])
    >>> clip_grad_adaptive(w, clip_factor=0.1)
    >>> w.grad.numpy().round(5).tolist()
    [[0.0, 0.5], [0.0, 9.999999747378752e-05]]

    Notes
    -----
    Costs two norms and one launch for each parameter, before the step. Units are along the first axis, as the weights
    of netcl and torch are laid out. A unit whose gradient is not finite is left as it is. As
    ``optax.adaptive_grad_clip``. Source: A. Brock, S. De, S. L. Smith and K. Simonyan, "High-Performance Large-Scale
    Image Recognition Without Normalization", 2021.
    """
    factor, least = validation.positive("clip_factor", clip_factor), validation.positive("eps", eps)
    for p in with_gradients(parameters):
        gradient = p.grad
        if gradient is None or not gradient.size:
            continue
        weights, units = _unit_norms(p), _unit_norms(gradient)
        gradient.backend.map(
            _limited(gradient.dtype, units.dtype),
            (gradient.view(), broadcast_to(units, gradient.shape).view(), broadcast_to(weights, gradient.shape).view()),
            (gradient.view(),),
            (factor, least),
        )


def _members(part: Any) -> list[Any]:
    """The Tensors of one part."""
    if isinstance(part, Mapping):
        if "params" not in part:
            raise HyperParameterError(f'a group of parameters is a dict with "params", got {shown(part)}')
        part = part["params"]
    return [part] if isinstance(part, Array) else validation.listed("a part", part)


def _unit_norms(x: Any) -> Any:
    x = x.detach()
    if x.dtype.compute is not x.dtype:
        x = astype(x, x.dtype.compute)
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else tuple(range(x.ndim))
    return vector_norm(x, axis=axes, keepdims=True) if axes else abs(x)


@cache
def _limited(dtype: DType, norms: DType) -> Expression:
    def limited(g: Node, norm: Node, weight: Node, factor: Node, least: Node) -> Node:
        limit = factor * maximum(weight, least)
        # Not g · (limit / norm) of an infinite norm, which would be zero and hide it.
        exceeds = (norm > limit) & (norm < float("inf"))
        return where(exceeds, g * (limit / where(exceeds, norm, 1.0)), g)

    return trace(limited, (dtype, norms, norms), (norms, norms), stored=(dtype,))
