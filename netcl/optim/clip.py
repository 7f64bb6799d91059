"""Gradient clipping: by the norm of all gradients together, on the host or on the device, and by value.

The functions work in place on the ``grad`` of the parameters they are given. Call them after ``tape.backward(loss)``
and before ``opt.step()``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import is_
from typing import Any

import numpy as np

from netcl.array import Array, Storage
from netcl.backends.base import CHUNK, HEADER, Backend, Span, header_entry
from netcl.dtypes import DType, float32
from netcl.errors import DeviceMismatchError, DTypeError, NetclError
from netcl.expression import Expression, Node, conversion, maximum, minimum, trace
from netcl.host_dtypes import stored_as, values_of
from netcl.optim import validation
from netcl.optim.engine.gradient_norm import measured_header
from netcl.optim.engine.partition import Partition
from netcl.optim.engine.pending import scale_by


def clip_grad_norm(
    parameters: Array | Iterable[Array], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by ``min(1, max_norm / total_norm)``, computed on the host in double. **Blocks**.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over. They may be on several devices.
    max_norm : float
        Largest norm that is left as it is; at least 0.
    norm_type : float, default 2.0
        The p of the p-norm of the concatenated gradients: any p > 0, or ``math.inf``.
    error_if_nonfinite : bool, default False
        Raise if a gradient is NaN or infinite. Otherwise such gradients are left as they are.

    Returns
    -------
    float
        The total norm before clipping; 0.0 without gradients, and infinite if float64 does not hold it, which does not
        keep finite gradients from being clipped.

    Raises
    ------
    HyperParameterError
        If ``max_norm`` or ``norm_type`` is out of range.
    NetclError
        If a gradient is not finite and ``error_if_nonfinite`` is set; none is changed then.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grad_norm
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, 4.0])
    >>> clip_grad_norm([w], max_norm=1.0)
    5.0
    >>> w.grad.numpy().round(3).tolist()
    [0.6000000238418579, 0.800000011920929]

    Notes
    -----
    No finite input overflows or underflows; ``torch.nn.utils.clip_grad_norm_`` turns four gradients of 1e20 into zeros,
    and adds 1e-6 to the norm. Source: R. Pascanu, T. Mikolov and Y. Bengio, 2013.
    """
    max_norm, norm_type = checked(max_norm, norm_type, error_if_nonfinite)
    gradients = _gradients(parameters)
    host = [_on_host(gradient) for gradient in gradients]
    norm = _host_norm(host, norm_type)
    if error_if_nonfinite and not norm.finite:
        raise _not_finite(norm.value)
    if not norm.exceeds(max_norm):
        return norm.value
    for gradient, values in zip(gradients, host, strict=True):
        # In a 16-bit format the device rounds once, as it does for clip_grad_norm_device.
        if gradient.dtype.itemsize == 2 and max_norm / norm.value >= LEAST_FACTOR:
            norm.scale_to(max_norm, gradient)
        else:
            gradient.backend.upload(stored_as(norm.clipped(values, max_norm), gradient.dtype), gradient.span())
    return norm.value


def clip_grad_norm_device(
    parameters: Array | Iterable[Array], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Array:
    """Scale all gradients by ``min(1, max_norm / total_norm)`` on the device. Enqueues work and does not block.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        All on one device. Those without a gradient are passed over.
    max_norm, norm_type
        As in :func:`clip_grad_norm`.
    error_if_nonfinite : bool, default False
        Raise if a gradient is NaN or infinite, which has to read that: with this set the call **blocks**.

    Returns
    -------
    Tensor
        The total norm before clipping, a 0-d array on the device; reading its value blocks. Infinite if its dtype does
        not hold it, which does not keep finite gradients from being clipped.

    Raises
    ------
    HyperParameterError
        If ``max_norm`` or ``norm_type`` is out of range.
    DeviceMismatchError
        If the gradients are on several devices.
    NetclError
        If there is no gradient, or one is not finite and ``error_if_nonfinite`` is set.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grad_norm_device
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, 4.0])
    >>> float(clip_grad_norm_device([w], max_norm=1.0))
    5.0

    Notes
    -----
    The norm is summed in a fixed order: the same gradients on the same device give the same bits.

    If the parameters are those of one optimizer that have a gradient, the factor is left for its next step, which
    multiplies by it in the pass of the update. Reading a gradient before that scales all of them.
    """
    max_norm, norm_type = checked(max_norm, norm_type, error_if_nonfinite)
    given = _listed(parameters)
    partition = _same_partition(given)
    owners = [] if partition is not None else with_gradients(given)
    if partition is None and owners:
        partition = _whole_partition(owners)
    if partition is not None:
        found = partition.clip(max_norm, norm_type)
        if found is not None:
            norm, header = found
            if error_if_nonfinite:
                check_finite(partition.backend, header)
            return type(partition.parameters[0])(norm, ())
    if not owners:
        raise NetclError("clip_grad_norm_device found no gradient; call tape.backward(loss) first")
    backend = owners[0].backend
    for p in owners:
        if p.backend is not backend:
            raise DeviceMismatchError(
                f"the gradients are on {backend.device} and {p.device}; clip those of one device at a time, "
                "or use clip_grad_norm, which works on the host"
            )
    return _clip_in_place(owners, max_norm, norm_type, error_if_nonfinite)


def _partition_of(p: Any) -> Partition | None:
    """What steps with the gradient of ``p``: the partition in whose arena that belongs."""
    if not isinstance(p, Array) or p.grad_buffer is None:
        return None
    owner: Partition | None = p.grad_buffer.owner
    return owner


def _same_partition(given: Sequence[Any]) -> Partition | None:
    """The partition whose parameters these are, one by one: what ``model.parameters()`` usually is."""
    partition = _partition_of(given[0]) if given else None
    if partition is None or len(given) != len(partition.parameters):
        return None
    return partition if all(map(is_, given, partition.parameters)) else None


def _whole_partition(owners: Sequence[Array]) -> Partition | None:
    """The partition whose gradients these are, all of them and no others."""
    partition = _partition_of(owners[0])
    return partition if partition is not None and partition.arena.holds_all_of(owners) else None


def _clip_in_place(owners: Sequence[Array], max_norm: float, norm_type: float, error_if_nonfinite: bool) -> Array:
    backend = owners[0].backend
    spans = merge(_padded_span(p) for p in owners)
    header = measured_header(backend, widest(spans), spans, max_norm, norm_type)
    # The header is written again by the next call; what is handed out is not.
    norm = type(owners[0])(Storage.empty(backend, 1, header.dtype), ())
    backend.map(conversion(header.dtype, header.dtype), (header_entry(header, "norm").view(),), (norm.span().view(),))
    if error_if_nonfinite:
        check_finite(backend, header)
    for span in spans:
        scale_by(backend, header, span)
    return norm


def measured_norm(owners: Sequence[Array]) -> Norm:
    """The L2 norm of the gradients of parameters of one device, all of which have one. **Blocks**."""
    backend = owners[0].backend
    spans = merge(_padded_span(p) for p in owners)
    header = measured_header(backend, widest(spans), spans, math.inf, 2.0)
    values = dict(zip(HEADER, map(float, backend.download(header)), strict=True))
    return Norm(values["norm_scale"], values["norm_root"], not values["nonfinite"])


def clip_grad_value(parameters: Array | Iterable[Array], clip_value: float) -> None:
    """Clamp every element of every gradient to ``[-clip_value, clip_value]``. Enqueues work and does not block.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over.
    clip_value : float
        Greater than 0. NaN stays NaN.

    Raises
    ------
    HyperParameterError
        If ``clip_value`` is not greater than 0.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import clip_grad_value
    >>> w = netcl.zeros(2, requires_grad=True)
    >>> w.grad = netcl.asarray([3.0, -0.5])
    >>> clip_grad_value([w], 1.0)
    >>> w.grad.numpy().tolist()
    [1.0, -0.5]
    """
    limit = validation.positive("clip_value", clip_value)
    for gradient in _gradients(parameters):
        # A bound that the arithmetic does not hold bounds nothing.
        bound = limit if limit <= _LARGEST[gradient.dtype.compute.itemsize] else math.inf
        gradient.backend.map(_clamp(gradient.dtype), (gradient.view(),), (gradient.view(),), (-bound, bound))


_LARGEST = {4: float(np.finfo(np.float32).max), 8: float(np.finfo(np.float64).max)}
"""The largest number of a compute dtype, by its bytes."""


@cache
def _clamp(dtype: DType) -> Expression:
    def clamp(x: Node, low: Node, high: Node) -> Node:
        return minimum(maximum(x, low), high)

    return trace(clamp, (dtype,), (dtype.compute, dtype.compute), stored=(dtype,))


def with_gradients(parameters: Array | Iterable[Array]) -> list[Array]:
    """The parameters that have a gradient, each gradient once."""
    given = _listed(parameters)
    for p in given:
        if not isinstance(p, Array):
            raise DTypeError(f"clipping takes Tensors, got {type(p).__name__}; pass model.parameters()")
    # A gradient that two parameters share is scaled once.
    return list({id(p.grad): p for p in given if p.grad is not None}.values())


def _listed(parameters: Any) -> list[Any]:
    return [parameters] if isinstance(parameters, Array) else validation.listed("parameters", parameters)


def _gradients(parameters: Array | Iterable[Array]) -> list[Array]:
    return [p.grad for p in with_gradients(parameters) if p.grad is not None]


def _padded_span(p: Array) -> Span:
    """The gradient of ``p``; in an optimizer's arena with the zeros that fill its last chunk."""
    assert p.grad is not None
    span = p.grad.span()
    if p.grad_buffer is None or p.grad is not p.grad_buffer.array:
        return span
    return Span(span.buffer, span.offset, -(-span.size // CHUNK) * CHUNK)


def checked(max_norm: float, norm_type: float, error_if_nonfinite: bool) -> tuple[float, float]:
    """The bound and the kind of norm, if they are in range."""
    validation.flag("error_if_nonfinite", error_if_nonfinite)
    return validation.bound("max_norm", max_norm), validation.positive("norm_type", norm_type)


def check_finite(backend: Backend, header: Span) -> None:
    """Raise if what a header was made of is not finite. **Blocks**."""
    values = dict(zip(HEADER, map(float, backend.download(header)), strict=True))
    if values["nonfinite"]:
        raise _not_finite(values["norm"])


def _not_finite(norm: float) -> NetclError:
    return NetclError(
        f"the norm of the gradients is {norm}; look for the operation that made it, lower the learning rate or "
        "the loss scale, or pass error_if_nonfinite=False to leave such gradients as they are"
    )


LEAST_FACTOR = 2.0**-126
"""The least factor that float32 holds with all its digits."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm as the product of two numbers that do not overflow, ``scale·root``.

    Attributes
    ----------
    scale, root : float
        ``scale`` is at least the largest absolute value, or near it.
    finite : bool
        Whether all gradients are.
    """

    scale: float
    root: float
    finite: bool

    @property
    def value(self) -> float:
        """The norm; infinite if float64 does not hold it."""
        return self.scale * self.root

    def exceeds(self, max_norm: float) -> bool:
        """Whether finite gradients have to be scaled."""
        return self.finite and self.scale > 0.0 and max_norm / self.scale < self.root

    def clipped(
        self, values: np.ndarray[tuple[int], np.dtype[np.float64]], max_norm: float
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """``values * (max_norm / norm)`` for a norm that exceeds ``max_norm``, through no number out of range."""
        factor = max_norm / self.value
        if factor >= np.finfo(np.float64).smallest_normal:
            return values * factor
        exponent = math.frexp(self.scale)[1]
        return np.ldexp(values, -exponent) * (max_norm / math.ldexp(self.scale, -exponent) / self.root)

    def scale_to(self, max_norm: float, gradient: Array) -> None:
        """Multiply a gradient by ``max_norm / norm`` on its device, for a norm that exceeds ``max_norm``."""
        span, factor = gradient.span(), max_norm / self.value
        if factor >= LEAST_FACTOR or max_norm == 0.0:
            gradient.backend.scale(factor, span)
            return
        # The factor alone would lose digits, or be zero.
        exponent = math.frexp(self.scale)[1] // 2
        for part in (math.ldexp(1.0, -exponent), max_norm / math.ldexp(self.scale, -exponent) / self.root):
            gradient.backend.scale(part, span)


def combined(norms: Sequence[Norm]) -> Norm:
    """The L2 norm of what several L2 norms are of."""
    scale = max((norm.scale for norm in norms), default=0.0)
    if not all(norm.finite for norm in norms):
        return Norm(sum(norm.value for norm in norms), 1.0, False)
    if scale == 0.0:
        return Norm(0.0, 1.0, True)
    return Norm(scale, math.hypot(*(norm.root * (norm.scale / scale) for norm in norms)), True)


def _on_host(gradient: Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = values_of(gradient.backend.download(gradient.span()), gradient.dtype)
    result: np.ndarray[tuple[int], np.dtype[np.float64]] = values.astype(np.float64)
    return result


def _host_norm(arrays: Sequence[np.ndarray[tuple[int], np.dtype[np.float64]]], p: float) -> Norm:
    largest = max((float(np.max(np.abs(x))) for x in arrays if x.size), default=0.0)
    if any(bool(np.isnan(x).any()) for x in arrays):
        return Norm(math.nan, 1.0, False)
    if math.isinf(p) or largest == 0.0 or math.isinf(largest):
        return Norm(largest, 1.0, math.isfinite(largest))
    # Divided by the largest, no power overflows and none that matters underflows.
    with np.errstate(under="ignore", over="ignore"):
        total = math.fsum(float(np.sum((np.abs(x) / largest) ** p)) for x in arrays)
        return Norm(largest, float(np.float64(total) ** (1.0 / p)), True)


def merge(spans: Iterable[Span]) -> list[Span]:
    """Spans with adjacent ones joined, so that the gradients of one arena are one launch."""
    # Buffers in the order in which they were met, not by address: the sum must not depend on where memory lies.
    met: dict[int, list[Span]] = {}
    for span in spans:
        met.setdefault(id(span.buffer), []).append(span)
    merged: list[Span] = []
    for span in (span for group in met.values() for span in sorted(group, key=lambda span: span.offset)):
        last = merged[-1] if merged else None
        if last is not None and last.buffer is span.buffer and last.offset + last.size == span.offset:
            merged[-1] = Span(span.buffer, last.offset, last.size + span.size)
        else:
            merged.append(span)
    return merged


def widest(spans: Sequence[Span]) -> DType:
    """The widest compute dtype of some spans."""
    return max((span.dtype.compute for span in spans), key=lambda dtype: dtype.itemsize, default=float32)
