"""Normalisation over the last axes, fused: four launches forward, three to eight back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.errors import HyperParameterError, ShapeError
from netcl.functional.activation import check_floating
from netcl.functional.autocast import autocast_up
from netcl.functional.deviation import first_along
from netcl.functional.dispatch import A, check_arrays, common_backend, identity, map_arrays, reduce_arrays
from netcl.functional.reduction import averaged
from netcl.validation import extents, real

__all__ = ["layer_norm"]

# As in deviation.py, what is averaged is taken from the first element of a row: a constant row is then exactly 0.


def _part_of_offset(x: Any, first: Any, share: Any) -> Any:
    return (x - first) * share


def _squared_deviation(x: Any, first: Any, center: Any) -> Any:
    return ex.square(x - first - center)


def _normalised(x: Any, first: Any, center: Any, var: Any, eps: Any) -> Any:
    return (x - first - center) * ex.rsqrt(var + eps)


def _normalised_scaled(x: Any, first: Any, center: Any, var: Any, eps: Any, weight: Any) -> Any:
    return _normalised(x, first, center, var, eps) * weight


def _normalised_affine(x: Any, first: Any, center: Any, var: Any, eps: Any, weight: Any, bias: Any) -> Any:
    return _normalised(x, first, center, var, eps) * weight + bias


def _normalised_shifted(x: Any, first: Any, center: Any, var: Any, eps: Any, bias: Any) -> Any:
    return _normalised(x, first, center, var, eps) + bias


def _product(g: Any, weight: Any) -> Any:
    return g * weight


def _with_normalised(g: Any, x: Any, first: Any, center: Any, var: Any, eps: Any) -> Any:
    return g * _normalised(x, first, center, var, eps)


def _input_gradient(
    g: Any, x: Any, first: Any, center: Any, var: Any, eps: Any, g_mean: Any, g_x_mean: Any
) -> Any:  # fmt: skip
    # Mean and variance depend on x too: what changes them all alike is taken out again.
    return ex.rsqrt(var + eps) * (g - g_mean - _normalised(x, first, center, var, eps) * g_x_mean)


def layer_norm(
    x: A,
    normalized_shape: int | Sequence[int],
    weight: A | None = None,
    bias: A | None = None,
    eps: float = 1e-5,
) -> A:
    """Normalise over the last axes (Ba, Kiros and Hinton, 2016).

    y = (x - mean(x)) / sqrt(var(x) + eps) · weight + bias

    Parameters
    ----------
    x : Tensor of a floating dtype
    normalized_shape : int or sequence of int
        The extents of the axes to normalise over: the last ones of ``x``.
    weight, bias : Tensor, optional
        Of that shape.
    eps : float, default 1e-5
        Greater than 0.

    Returns
    -------
    Tensor
        Statistics are kept in float32 or wider. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If ``x``, ``weight`` or ``bias`` does not end in ``normalized_shape``.
    HyperParameterError
        If ``eps`` is not positive.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.layer_norm(netcl.asarray([[1.0, 3.0]]), 2, eps=1e-12).tolist()
    [[-1.0, 1.0]]
    """
    check_floating(x, "layer_norm")
    shape = extents("normalized_shape", normalized_shape)
    check_arrays("layer_norm", *[array for array in (weight, bias) if array is not None])
    if not shape or x.shape[x.ndim - len(shape) :] != shape or len(shape) > x.ndim:
        raise ShapeError(f"layer_norm over {shape} takes an array whose shape ends in it, got {x.shape}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != shape:
            raise ShapeError(f"the {name} of layer_norm must have shape {shape}, got {parameter.shape}")
    eps = real("eps", eps, above=0.0, error=HyperParameterError)
    common_backend([array for array in (x, weight, bias) if array is not None])
    x = autocast_up(x)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    lead = tuple(range(x.ndim - len(shape)))
    n = math.prod(shape)
    compute = x.dtype.compute
    first = first_along(x, axes)
    center = reduce_arrays("sum", _part_of_offset, x, first, 1.0 / max(n, 1), axes=axes, dtype=compute, keepdims=True)
    var = averaged(_squared_deviation, x, first, center, axes=axes, n=n, dtype=compute, keepdims=True)
    row = (x, first, center, var, eps)
    out: A
    if weight is not None and bias is not None:
        out = map_arrays(_normalised_affine, *row, weight, bias, dtype=x.dtype)
    elif weight is not None:
        out = map_arrays(_normalised_scaled, *row, weight, dtype=x.dtype)
    elif bias is not None:
        out = map_arrays(_normalised_shifted, *row, bias, dtype=x.dtype)
    else:
        out = map_arrays(_normalised, *row, dtype=x.dtype)

    def to_input(g: Any) -> Any:
        scaled = g if weight is None else map_arrays(_product, g, weight, dtype=compute)
        g_mean = averaged(identity, scaled, axes=axes, n=n, dtype=compute, keepdims=True)
        g_x_mean = averaged(_with_normalised, scaled, *row, axes=axes, n=n, dtype=compute, keepdims=True)
        return map_arrays(_input_gradient, scaled, *row, g_mean, g_x_mean, dtype=x.dtype)

    entries: list[tuple[A, tape.VJP]] = [(x, to_input)]
    if weight is not None:
        w = weight

        def to_weight(g: Any, into: Any) -> Any:
            return reduce_arrays("sum", _with_normalised, g, *row, axes=lead, dtype=w.dtype, out=into)

        entries.append((w, tape.VJPWithOut(to_weight)))
    if bias is not None:
        b = bias
        entries.append(
            (b, tape.VJPWithOut(lambda g, into: reduce_arrays("sum", identity, g, axes=lead, dtype=b.dtype, out=into)))
        )
    tape.record(out, *entries, name="layer_norm")
    return out
