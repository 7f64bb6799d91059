"""Clipping under torch's names, with torch's arguments."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from netcl import creation
from netcl.array import Array, Storage
from netcl.backends.base import View, header_entry
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError, DTypeError, HyperParameterError
from netcl.expression import Expression, Node, conversion, isfinite, logical_and, trace, where
from netcl.optim import validation
from netcl.optim.clip import (
    check_finite,
    checked,
    clip_grad_norm_device,
    clip_grad_value,
    merge,
    widest,
    with_gradients,
)
from netcl.optim.engine.gradient_norm import measured_header
from netcl.validation import flag, shown


def clip_grad_norm_(
    parameters: Array | Iterable[Array],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Array:
    """As :func:`clip_grad_norm_device`; without any gradient the norm is 0. Enqueues work and does not block.

    Parameters
    ----------
    parameters, max_norm, norm_type, error_if_nonfinite
        As in :func:`clip_grad_norm_device`.
    foreach : bool, optional
        Without effect: the gradients of an optimizer are one array already.

    Raises
    ------
    HyperParameterError, DeviceMismatchError, NetclError
        As :func:`clip_grad_norm_device` does.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grad_norm_
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, 4.0])
    >>> float(clip_grad_norm_([w], max_norm=1.0))
    5.0
    """
    _check_foreach(foreach)
    bound, kind = checked(max_norm, norm_type, error_if_nonfinite)
    given = [parameters] if isinstance(parameters, Array) else validation.listed("parameters", parameters)
    if not with_gradients(given):
        return creation.zeros(())
    return clip_grad_norm_device(given, bound, kind, error_if_nonfinite)


def clip_grad_value_(parameters: Array | Iterable[Array], clip_value: float, foreach: bool | None = None) -> None:
    """As :func:`clip_grad_value`; ``foreach`` is without effect. Enqueues work and does not block.

    Raises
    ------
    HyperParameterError
        If ``clip_value`` is not greater than 0.
    """
    _check_foreach(foreach)
    clip_grad_value(parameters, clip_value)


def get_total_norm(
    tensors: Array | Iterable[Array],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Array:
    """The norm of all these Tensors together, taken as gradients are. Enqueues work and does not block.

    Parameters
    ----------
    tensors : Tensor or iterable of Tensor
        All on one device, of real floating-point dtypes. Gradients, for example ``[p.grad for p in parameters]``.
    norm_type : float, default 2.0
        The p of the p-norm: any p > 0, or ``math.inf``.
    error_if_nonfinite : bool, default False
        Raise if the norm is not finite, which has to read it: with this set the call **blocks**.
    foreach : bool, optional
        Without effect.

    Returns
    -------
    Tensor
        0-d, on the device; 0 if there are none.

    Raises
    ------
    HyperParameterError
        If ``norm_type`` is out of range.
    DTypeError, DeviceMismatchError
        If something is no floating-point Tensor, or they are on several devices.
    NetclError
        If the norm is not finite and ``error_if_nonfinite`` is set.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import get_total_norm
    >>> float(get_total_norm([netcl.asarray([3.0]), netcl.asarray([4.0])]))
    5.0

    Notes
    -----
    No finite input overflows or underflows, where torch squares in the dtype of the gradients.
    """
    _check_foreach(foreach)
    _, kind = checked(0.0, norm_type, error_if_nonfinite)
    given = [tensors] if isinstance(tensors, Array) else validation.listed("tensors", tensors)
    for x in given:
        if not isinstance(x, Array) or not x.dtype.is_floating:
            got = f"one of dtype {x.dtype}" if isinstance(x, Array) else shown(x)
            raise DTypeError(f"get_total_norm() takes floating-point Tensors, got {got}; pass gradients")
    if not given:
        return creation.zeros(())
    backend = given[0].backend
    _check_device(given, backend)
    spans = merge(_contiguous(x).span() for x in given)
    header = measured_header(backend, widest(spans), spans, 0.0, kind)
    norm = type(given[0])(Storage.empty(backend, 1, header.dtype), ())
    backend.map(conversion(header.dtype, header.dtype), (header_entry(header, "norm").view(),), (norm.span().view(),))
    if error_if_nonfinite:
        check_finite(backend, header)
    return norm


def clip_grads_with_norm_(
    parameters: Array | Iterable[Array], max_norm: float, total_norm: Array | float, foreach: bool | None = None
) -> None:
    """Scale all gradients by ``min(1, max_norm / total_norm)``, a norm taken before. Does not block.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float
        At least 0.
    total_norm : Tensor or float
        0-d, such as :func:`get_total_norm` returns, on the device of the gradients; or a number of at least 0.
        Gradients are left as they are if it is not finite.
    foreach : bool, optional
        Without effect.

    Raises
    ------
    HyperParameterError
        If ``max_norm`` or ``total_norm`` is out of range.
    DeviceMismatchError
        If ``total_norm`` is on another device than a gradient.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grads_with_norm_, get_total_norm
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, 4.0])
    >>> clip_grads_with_norm_([w], 1.0, get_total_norm([w.grad]))
    >>> w.grad.numpy().round(3).tolist()
    [0.6000000238418579, 0.800000011920929]

    Notes
    -----
    torch adds 1e-6 to the norm, and makes NaN of gradients whose norm is. A norm on the device costs a launch for each
    stretch of memory with gradients; an optimizer's are one.
    """
    _check_foreach(foreach)
    bound = validation.bound("max_norm", max_norm)
    owners = with_gradients([parameters] if isinstance(parameters, Array) else parameters)
    gradients = [p.grad for p in owners if p.grad is not None]
    if isinstance(total_norm, Array):
        if total_norm.shape != () or not total_norm.dtype.is_floating:
            raise HyperParameterError(
                f"total_norm must be a 0-d floating-point Tensor or a number, got {shown(total_norm)}"
            )
        _check_device(gradients, total_norm.backend)
        view = total_norm.view()
        for span in merge(gradient.span() for gradient in gradients):
            factor = View(view.buffer, view.offset, (span.size,), (0,))
            total_norm.backend.map(
                _clipped(span.dtype, total_norm.dtype), (span.view(), factor), (span.view(),), (bound,)
            )
        return
    norm = validation.bound("total_norm", total_norm)
    if norm > bound and norm < float("inf"):
        for gradient in gradients:
            gradient.backend.scale(bound / norm, gradient.span())


@cache
def _clipped(dtype: DType, norm: DType) -> Expression:
    def clipped(g: Node, norm: Node, most: Node) -> Node:
        exceeds = logical_and(norm > most, isfinite(norm))
        return where(exceeds, g * (most / where(exceeds, norm, 1.0)), g)

    compute = dtype.compute if dtype.compute.itemsize >= norm.compute.itemsize else norm.compute
    return trace(clipped, (dtype, norm), (compute,), stored=(dtype,))


def _contiguous(x: Array) -> Array:
    if x.is_contiguous:
        return x
    copy = x.empty_like()
    x.backend.map(conversion(x.dtype, x.dtype), (x.view(),), (copy.view(),))
    return copy


def _check_device(arrays: Iterable[Array], backend: Any) -> None:
    for x in arrays:
        if x.backend is not backend:
            raise DeviceMismatchError(
                f"a norm is taken on one device, and these are on {backend.device} and {x.device}; take the norm of "
                "those of one device at a time, or use clip_grad_norm, which works on the host"
            )


def _check_foreach(foreach: Any) -> None:
    if foreach is not None:
        flag("foreach", foreach)
