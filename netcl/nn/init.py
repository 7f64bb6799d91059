"""Initialisers: fill a Tensor in place, with the same values on every backend.

Random values are drawn on the host in float64 by a NumPy generator and rounded to the tensor's dtype, so a seed gives
the same weights on every device. ``generator`` defaults to the one that ``netcl.random.manual_seed`` sets.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.functional.casting import assign
from netcl.functional.host import from_host
from netcl.random import default_generator
from netcl.tensor import Tensor

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}


def calculate_gain(nonlinearity: str, slope: float = 0.01) -> float:
    """The factor that keeps the variance of activations through a nonlinearity.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
    slope : float, default 0.01
        Negative slope of ``leaky_relu``: the gain is ``sqrt(2 / (1 + slope²))``.

    Raises
    ------
    HyperParameterError
        For any other name.

    Examples
    --------
    >>> from netcl.nn import init
    >>> init.calculate_gain("relu")
    1.4142135623730951
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope * slope))
    if nonlinearity not in GAINS:
        raise HyperParameterError(f"nonlinearity must be one of {[*GAINS, 'leaky_relu']}, got {nonlinearity!r}")
    return GAINS[nonlinearity]


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one value. Returns ``tensor``; does not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.init.constant_(netcl.empty(2), 0.5).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    tensor.backend.fill(tensor.span(), value)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0. Returns ``tensor``; does not block."""
    return constant_(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1. Returns ``tensor``; does not block."""
    return constant_(tensor, 1)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from U(a, b). Returns ``tensor``; does not block.

    Parameters
    ----------
    tensor : Tensor
        Floating, contiguous.
    a, b : float, default 0 and 1
    generator : numpy.random.Generator, netcl.random.Generator or int, optional
        See :func:`as_generator`.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.init.uniform_(netcl.empty(2, device="numpy"), -1, 1, generator=0).numpy()
    array([ 0.27392337, -0.46042657], dtype=float32)
    """
    return _set(tensor, as_generator(generator).uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from N(mean, std²). Returns ``tensor``; does not block. Parameters as in :func:`uniform_`."""
    return _set(tensor, as_generator(generator).normal(mean, std, tensor.shape))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, *, generator: Any = None
) -> Tensor:
    """Draw from N(mean, std²) restricted to [a, b], by drawing again whatever falls outside.

    Raises
    ------
    HyperParameterError
        If the interval is empty or reaches no value within four ``std`` of the mean.
    """
    if not a < b or a > mean + 4 * std or b < mean - 4 * std:
        raise HyperParameterError(
            f"[a, b] must be an interval near the mean, got [{a}, {b}] with mean {mean} and std {std}; "
            "a and b are absolute, not in units of std"
        )
    random = as_generator(generator)
    values = random.normal(mean, std, tensor.shape)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = random.normal(mean, std, int(outside.sum()))
    return _set(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from U(-b, b) with ``b = gain·sqrt(6 / (fan_in + fan_out))``.

    Raises
    ------
    ShapeError
        If the tensor has fewer than two axes.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator=generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from N(0, s²) with ``s = gain·sqrt(2 / (fan_in + fan_out))``; see :func:`xavier_uniform_`."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator=generator)


def kaiming_uniform_(
    tensor: Tensor, slope: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, generator: Any = None
) -> Tensor:
    """Draw from U(-b, b) with ``b = gain·sqrt(3 / fan)``.

    Parameters
    ----------
    tensor : Tensor
        A weight of shape ``(out, in)`` or ``(out, in, *window)``.
    slope : float, default 0
        Negative slope of the ``leaky_relu`` that follows. ``sqrt(5)`` gives ``b = 1 / sqrt(fan_in)``, the default of
        Linear.
    mode : {"fan_in", "fan_out"}
        Which variance stays: that of activations forward, or of gradients backward.
    nonlinearity : str, default "leaky_relu"
        See :func:`calculate_gain`.

    Raises
    ------
    ShapeError
        If the tensor has fewer than two axes.
    HyperParameterError
        For another mode or nonlinearity.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, slope, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator=generator)


def kaiming_normal_(
    tensor: Tensor, slope: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, generator: Any = None
) -> Tensor:
    """Draw from N(0, s²) with ``s = gain / sqrt(fan)``; see :func:`kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, slope, mode, nonlinearity), generator=generator)


def _kaiming_std(tensor: Tensor, slope: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise HyperParameterError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, slope) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2 or tensor.size == 0:
        raise ShapeError(
            f"this initialiser needs a weight of shape (out, in, ...) without empty axes, got {tensor.shape}; "
            "use uniform_ or constant_"
        )
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def as_generator(generator: Any = None) -> np.random.Generator:
    """The NumPy generator that initialisers draw from.

    Parameters
    ----------
    generator : numpy.random.Generator, netcl.random.Generator or int, optional
        One of NumPy is used as it is, an int seeds one; netcl's (by default the one that ``netcl.random.manual_seed``
        sets) seeds one with its seed and position, and moves on.
    """
    if isinstance(generator, np.random.Generator):
        return generator
    if isinstance(generator, int):
        return np.random.Generator(np.random.PCG64(generator))
    source = default_generator if generator is None else generator
    return np.random.Generator(np.random.PCG64([source.seed, source.take(4)]))


def _set(tensor: Tensor, values: NDArray[np.float64]) -> Tensor:
    if not tensor.dtype.is_floating:
        raise DTypeError(f"random initialisers fill floating tensors, got {tensor.dtype}; create it with dtype=float32")
    assign(tensor, from_host(Tensor, values, tensor.backend, tensor.dtype))
    return tensor
