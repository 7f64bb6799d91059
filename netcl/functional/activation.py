"""Activations: each one fused expression forward and one back, over any operand."""

from __future__ import annotations

import math
from typing import Any

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import bool_, uint32
from netcl.errors import ArgumentError, DTypeError, HyperParameterError
from netcl.functional.autocast import autocast_up
from netcl.functional.dispatch import (
    A,
    Derivative,
    check_arrays,
    contiguous,
    map_arrays,
    record_elementwise,
    reduce_arrays,
    sum_to_shape,
)
from netcl.functional.shape import normalize_axis, view_or_copy
from netcl.random import Generator, default_generator
from netcl.validation import flag, one_of, real, shown

__all__ = ["dropout", "gelu", "log_softmax", "relu", "sigmoid", "silu", "softmax"]


def check_floating(x: Any, name: str) -> None:
    """Refuse what is not an array of a real floating dtype."""
    check_arrays(name, x)
    if x.dtype.kind != "f":
        raise DTypeError(f"{name} takes a floating dtype, got {x.dtype}; convert it with astype(netcl.float32)")


def _relu(x: Any) -> Any:
    return ex.maximum(x, 0.0)


_RELU = (Derivative(lambda g, y: ex.where(y <= 0.0, 0.0, g)),)


def relu(x: A, /) -> A:
    """The rectified linear unit; its derivative at 0 is 0.

    y = max(x, 0)

    Parameters
    ----------
    x : Tensor
        Of any real dtype.

    Returns
    -------
    Tensor
        Enqueues; does not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.relu(netcl.asarray([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    check_arrays("relu", x)
    if x.dtype.kind == "c":
        raise DTypeError(f"relu takes a real dtype, got {x.dtype}; apply it to the real part")
    out = map_arrays(_relu, x)
    record_elementwise(out, (x,), _RELU, "relu")
    return out


def _sigmoid(x: Any) -> Any:
    # exp of a negative number only: no overflow on either side.
    e = ex.exp(-abs(x))
    return ex.where(x >= 0.0, 1.0, e) / (1.0 + e)


_SIGMOID = (Derivative(lambda g, y: g * y * (1.0 - y)),)


def sigmoid(x: A, /) -> A:
    """The logistic function, without overflow.

    y = 1 / (1 + exp(-x))

    Parameters
    ----------
    x : Tensor of a floating dtype

    Raises
    ------
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.sigmoid(netcl.asarray([0.0, 1000.0])).tolist()
    [0.5, 1.0]
    """
    check_floating(x, "sigmoid")
    out = map_arrays(_sigmoid, x)
    record_elementwise(out, (x,), _SIGMOID, "sigmoid")
    return out


_FAR = 1e4  # beyond, silu and gelu are 0 or x in every dtype; nearer to infinity, 0 · ∞ and squares would be NaN


def _above(x: Any) -> Any:
    return ex.maximum(x, -_FAR)


def _within(x: Any) -> Any:
    return ex.minimum(_above(x), _FAR)


def _silu(x: Any) -> Any:
    return _above(x) * _sigmoid(x)


def _silu_derivative(g: Any, x: Any) -> Any:
    x = _within(x)
    s = _sigmoid(x)
    return g * s * (1.0 + x * (1.0 - s))


_SILU = (Derivative(_silu_derivative),)


def silu(x: A, /) -> A:
    """The sigmoid-weighted linear unit, also called swish (Elfwing et al., 2017).

    y = x · sigmoid(x)

    Parameters
    ----------
    x : Tensor of a floating dtype

    Raises
    ------
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.silu(netcl.asarray([0.0, 100.0])).tolist()
    [0.0, 100.0]
    """
    check_floating(x, "silu")
    out = map_arrays(_silu, x)
    record_elementwise(out, (x,), _SILU, "silu")
    return out


_HALF_ROOT = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715


def _gelu(x: Any) -> Any:
    return 0.5 * _above(x) * (1.0 + ex.erf(x * _HALF_ROOT))


def _gelu_derivative(g: Any, x: Any) -> Any:
    x = _within(x)
    return g * (0.5 * (1.0 + ex.erf(x * _HALF_ROOT)) + x * _DENSITY * ex.exp(-0.5 * x * x))


def _twice_the_tanh_argument(x: Any) -> Any:
    return 2.0 * _ROOT_2_OVER_PI * (x + _CUBIC * x * x * x)


def _gelu_tanh(x: Any) -> Any:
    # (1 + tanh(u)) / 2 is sigmoid(2u), which does not cancel where tanh is rounded to nearly -1.
    return _above(x) * _sigmoid(_twice_the_tanh_argument(x))


def _gelu_tanh_derivative(g: Any, x: Any) -> Any:
    x = _within(x)
    s = _sigmoid(_twice_the_tanh_argument(x))
    slope = 2.0 * _ROOT_2_OVER_PI * (1.0 + 3.0 * _CUBIC * x * x)
    return g * s * (1.0 + x * (1.0 - s) * slope)


_GELU = {
    "none": (_gelu, (Derivative(_gelu_derivative),)),
    "tanh": (_gelu_tanh, (Derivative(_gelu_tanh_derivative),)),
}


def check_approximate(approximate: Any) -> str:
    """``approximate``, if it is one of the forms of :func:`gelu`."""
    return one_of("approximate", approximate, _GELU, error=HyperParameterError)


def gelu(x: A, /, *, approximate: str = "none") -> A:
    """The Gaussian error linear unit (Hendrycks and Gimpel, 2016).

    y = x · Φ(x) = x/2 · (1 + erf(x/sqrt(2)))

    Parameters
    ----------
    x : Tensor of a floating dtype
    approximate : {"none", "tanh"}, default "none"
        "tanh" takes x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), as in torch.

    Raises
    ------
    HyperParameterError
        If ``approximate`` is neither.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.gelu(netcl.asarray([0.0, 10.0])).tolist()
    [0.0, 10.0]
    """
    check_floating(x, "gelu")
    forward, derivative = _GELU[check_approximate(approximate)]
    out = map_arrays(forward, x)
    record_elementwise(out, (x,), derivative, "gelu")
    return out


def _along_last(x: A, axis: int) -> tuple[A, tuple[int, ...]]:
    """``x`` with ``axis`` last, as rows and columns, and the order that puts the axis there."""
    order = (*[i for i in range(x.ndim) if i != axis], axis)
    moved = x.restride(tuple([x.shape[i] for i in order]), tuple([x.strides[i] for i in order]), x.offset)
    return view_or_copy(moved, (x.size // max(x.shape[axis], 1), x.shape[axis])), order


def _softmax(x: A, axis: int, log: bool) -> A:
    out = x.empty_like()
    if out.size == 0:
        return out
    if axis == x.ndim - 1:
        rows = view_or_copy(x, (x.size // x.shape[-1], x.shape[-1]))
        x.backend.softmax(rows.view(), out.restride(rows.shape, (x.shape[-1], 1), 0).view(), log=log)
        return out
    rows, order = _along_last(x, axis)
    result = rows.empty_like()
    x.backend.softmax(rows.view(), result.view(), log=log)
    inverse = sorted(range(x.ndim), key=order.__getitem__)
    moved = view_or_copy(result, tuple([x.shape[i] for i in order]))
    return contiguous(moved.restride(x.shape, tuple([moved.strides[i] for i in inverse]), 0))


def _product(g: Any, y: Any) -> Any:
    return g * y


def _softmax_gradient(g: Any, y: Any, total: Any) -> Any:
    return y * (g - total)


def softmax(x: A, /, *, axis: int = -1) -> A:
    """Exponentials along an axis, divided by their sum, without overflow.

    y = exp(x - max(x)) / Σ exp(x - max(x))

    Parameters
    ----------
    x : Tensor of a floating dtype
    axis : int, default -1

    Raises
    ------
    ShapeError
        If there is no such axis.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.softmax(netcl.asarray([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    check_floating(x, "softmax")
    place = normalize_axis(axis, x.ndim)
    x = autocast_up(x)
    out = _softmax(x, place, log=False)

    def vjp(g: Any) -> Any:
        total = reduce_arrays("sum", _product, g, out, axes=(place,), dtype=x.dtype.compute, keepdims=True)
        return map_arrays(_softmax_gradient, g, out, total, dtype=x.dtype)

    tape.record(out, (x, vjp), name="softmax")
    return out


def _log_softmax_gradient(g: Any, y: Any, total: Any) -> Any:
    return g - ex.exp(y) * total


def _widened_sum(g: Any) -> Any:
    return g


def log_softmax(x: A, /, *, axis: int = -1) -> A:
    """The logarithm of softmax, computed without its exponentials' rounding.

    y = x - max(x) - log(Σ exp(x - max(x)))

    Parameters
    ----------
    x : Tensor of a floating dtype
    axis : int, default -1

    Raises
    ------
    ShapeError
        If there is no such axis.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.log_softmax(netcl.asarray([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    check_floating(x, "log_softmax")
    place = normalize_axis(axis, x.ndim)
    x = autocast_up(x)
    out = _softmax(x, place, log=True)

    def vjp(g: Any) -> Any:
        total = reduce_arrays("sum", _widened_sum, g, axes=(place,), dtype=x.dtype.compute, keepdims=True)
        return map_arrays(_log_softmax_gradient, g, out, total, dtype=x.dtype)

    tape.record(out, (x, vjp), name="log_softmax")
    return out


def _keep(bits: Any, threshold: Any) -> Any:
    return bits >= threshold


def _masked(x: Any, mask: Any, scale: Any) -> Any:
    return ex.where(mask, x * scale, 0.0)


def check_probability(p: Any) -> float:
    """``p``, if it is a probability."""
    return real("p", p, least=0.0, most=1.0, error=HyperParameterError)


def check_generator(generator: Any) -> None:
    """Refuse what dropout cannot draw from."""
    if generator is not None and not isinstance(generator, Generator):
        raise ArgumentError(f"generator must be a netcl.random.Generator or None, got {shown(generator)}")


def dropout(x: A, /, p: float = 0.5, *, training: bool = True, generator: Generator | None = None) -> A:
    """Zero each element with probability ``p`` and scale the others, so that the expectation stays.

    y = x · mask / (1 - p)

    Parameters
    ----------
    x : Tensor of a floating dtype
    p : float, default 0.5
        In [0, 1].
    training : bool, default True
        With False, ``x`` itself is returned.
    generator : netcl.random.Generator, optional
        By default the one that ``netcl.random.manual_seed`` seeds. The same seed drops the same elements on every
        backend.

    Raises
    ------
    HyperParameterError
        If ``p`` is out of range.
    DTypeError
        If ``x`` is not floating.

    Examples
    --------
    >>> import netcl
    >>> netcl.functional.dropout(netcl.ones(3), training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    check_floating(x, "dropout")
    p, training = check_probability(p), flag("training", training)
    check_generator(generator)
    if not training or p == 0.0:
        return x
    source = default_generator if generator is None else generator
    bits = x.empty_like(dtype=uint32)
    offset = source.take(x.size)
    if x.size:
        x.backend.random_bits(bits.view(), source.seed, offset)
    mask: Array
    if p == 1.0:
        mask = map_arrays(_none_kept, bits, dtype=bool_)
        scale = 0.0
    else:
        mask = map_arrays(_keep, bits, min(int(p * 2.0**32), 2**32 - 1), dtype=bool_)
        scale = 1.0 / (1.0 - p)
    out = map_arrays(_masked, x, mask, scale, dtype=x.dtype)
    tape.record(out, (x, lambda g: sum_to_shape(x, _masked, g, mask, scale)), name="dropout")
    return out


def _none_kept(bits: Any) -> Any:
    return ex.not_equal(bits, bits)
