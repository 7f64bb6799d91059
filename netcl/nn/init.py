"""Initialisers: fill a Tensor in place, with the same values on every backend.

Random values are drawn on the host in float64 by a NumPy generator and rounded to the tensor's dtype, so a seed gives
the same weights on every device. ``generator`` defaults to the one that ``netcl.random.manual_seed`` sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.functional.casting import assign
from netcl.functional.host import from_host
from netcl.random import Generator, default_generator
from netcl.tensor import Tensor
from netcl.validation import number, one_of, real, shown
from netcl.validation import seed as as_seed

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
    slope = _real("slope", slope)
    one_of("nonlinearity", nonlinearity, (*GAINS, "leaky_relu"), error=HyperParameterError)
    return math.sqrt(2) / math.hypot(1.0, slope) if nonlinearity == "leaky_relu" else GAINS[nonlinearity]


def _real(name: str, value: Any, least: float = -math.inf) -> float:
    return real(name, value, least=least, error=HyperParameterError)


def _filled_in(tensor: Any) -> Tensor:
    """``tensor``, if an initialiser can fill it."""
    if not isinstance(tensor, Tensor):
        raise DTypeError(f"an initialiser fills a Tensor, got {shown(tensor)}; use netcl.empty(shape)")
    return tensor


def constant_(tensor: Tensor, value: float) -> Tensor:
    """Fill with one value. Returns ``tensor``; does not block.

    Examples
    --------
    >>> import netcl
    >>> netcl.nn.init.constant_(netcl.empty(2), 0.5).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    assign(_filled_in(tensor), number("value", value))
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
    a, b = _real("a", a), _real("b", b)
    if not a <= b or not math.isfinite(b - a):
        raise HyperParameterError(f"b must be at least a, and not infinitely far from it, got a={a} and b={b}")
    return _set(tensor, generator, lambda random, shape: random.uniform(a, b, shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from N(mean, std²). Returns ``tensor``; does not block. Parameters as in :func:`uniform_`."""
    mean, std = _real("mean", mean), _real("std", std, 0.0)
    return _set(tensor, generator, lambda random, shape: random.normal(mean, std, shape))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, *, generator: Any = None
) -> Tensor:
    """Draw from N(mean, std²) restricted to [a, b], by drawing again whatever falls outside.

    Raises
    ------
    HyperParameterError
        If the interval is empty, or holds less than a ten-thousandth of the distribution.
    """
    mean, std, a, b = _real("mean", mean), _real("std", std, 0.0), _real("a", a), _real("b", b)
    if not a < b or _share(mean, std, a, b) < 1e-4:
        raise HyperParameterError(
            f"[a, b] must be an interval near the mean, not much narrower than std, got [{a}, {b}] with mean {mean} "
            f"and std {std}; a and b are absolute, not in units of std"
        )

    def draw(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        values = np.asarray(random.normal(mean, std, shape))
        while (outside := (values < a) | (values > b)).any():
            values[outside] = random.normal(mean, std, int(outside.sum()))
        return values

    return _set(tensor, generator, draw)


def _share(mean: float, std: float, a: float, b: float) -> float:
    """How much of N(mean, std²) lies in [a, b]."""
    if std == 0.0:
        return float(a <= mean <= b)
    low, high = ((end - mean) / std / math.sqrt(2) for end in (a, b))
    # Of two far ends on one side, the tails differ where the shares of the whole would not.
    return (math.erfc(low) - math.erfc(high)) / 2 if low > 0 else (math.erfc(-high) - math.erfc(-low)) / 2


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
    bound = _real("gain", gain, 0.0) * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator=generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, *, generator: Any = None) -> Tensor:
    """Draw from N(0, s²) with ``s = gain·sqrt(2 / (fan_in + fan_out))``; see :func:`xavier_uniform_`."""
    return normal_(tensor, 0.0, _real("gain", gain, 0.0) * math.sqrt(2 / sum(_fans(tensor))), generator=generator)


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
    one_of("mode", mode, ("fan_in", "fan_out"), error=HyperParameterError)
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, slope) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def _fans(tensor: Tensor) -> tuple[int, int]:
    if _filled_in(tensor).ndim < 2 or tensor.size == 0:
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

    Raises
    ------
    ArgumentError
        If it is none of these, or a seed out of [0, 2**64).
    """
    if isinstance(generator, np.random.Generator):
        return generator
    source = default_generator if generator is None else generator
    if not isinstance(source, Generator):
        return np.random.Generator(np.random.PCG64(as_seed("generator", generator)))
    return np.random.Generator(np.random.PCG64([source.seed, source.take(4)]))


def _set(
    tensor: Tensor, generator: Any, draw: Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
) -> Tensor:
    if not _filled_in(tensor).dtype.is_floating:
        raise DTypeError(f"random initialisers fill floating tensors, got {tensor.dtype}; create it with dtype=float32")
    values = draw(as_generator(generator), tensor.shape)
    assign(tensor, from_host(Tensor, values, tensor.backend, tensor.dtype))
    return tensor
