"""What the Fourier transforms have in common: the transform itself, its adjoint, and the checks of arguments.

All of it **blocks**: see :mod:`netcl.functional.host_compute`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl import tape
from netcl.array import Array
from netcl.errors import DTypeError, ShapeError
from netcl.functional.complex_gradients import gradient_of, in_dtype
from netcl.functional.dispatch import A, check_arrays
from netcl.functional.elementwise import multiply
from netcl.functional.host import from_host
from netcl.functional.host_compute import check_floating, complex_of, compute_on_host, real_of
from netcl.functional.shape import normalize_axis, padded
from netcl.validation import LARGEST_EXTENT, extents, integer, one_of, shown
from netcl.validation import axes as named_axes

OPPOSITE = {"backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The norm under which the inverse transform has the factor that a transform has under another."""


@dataclass(frozen=True)
class _Kind:
    """One kind of transform: NumPy's function for it, whether it takes and gives real numbers, and what leads back.

    ``back`` is the kind whose transform, under the opposite norm, is the adjoint of this one but for weights and for
    the half of the last axis that real numbers leave out.
    """

    function: Callable[..., NDArray[Any]]
    takes_real: bool
    gives_real: bool
    back: str


_KINDS = {
    "fftn": _Kind(np.fft.fftn, False, False, "ifftn"),
    "ifftn": _Kind(np.fft.ifftn, False, False, "fftn"),
    "rfftn": _Kind(np.fft.rfftn, True, False, "ifftn"),
    "irfftn": _Kind(np.fft.irfftn, False, True, "rfftn"),
}


def transform(name: str, kind: str, x: A, sizes: Sequence[int], axes: Sequence[int], norm: str) -> A:
    """A transform along some axes, each cut or padded to its size. Not recorded. **Blocks**."""
    if not axes:
        dtype = real_of(complex_of(x.dtype)) if _KINDS[kind].gives_real else complex_of(x.dtype)
        return in_dtype(x, dtype)
    wanted = complex_of(x.dtype)
    dtype = real_of(wanted) if _KINDS[kind].gives_real else wanted

    def function(values: NDArray[Any]) -> NDArray[Any]:
        return _KINDS[kind].function(values, s=tuple(sizes), axes=tuple(axes), norm=norm)

    return compute_on_host(name, function, [x], [dtype])[0]


def recorded(name: str, kind: str, x: A, sizes: Sequence[int], axes: Sequence[int], norm: str) -> A:
    """A transform that the tape follows."""
    out = transform(name, kind, x, sizes, axes, norm)
    tape.record(out, (x, lambda g: adjoint_transform(name, kind, x, sizes, axes, norm, g)), name=name)
    return out


def adjoint_transform(name: str, kind: str, x: A, sizes: Sequence[int], axes: Sequence[int], norm: str, g: A) -> A:
    """The gradient of ``x``: the adjoint transform of ``g``, cut or padded to the shape of ``x``."""
    if axes:
        if kind == "rfftn":  # of the whole spectrum, of which the other half has no influence
            g = _resized(g, axes[-1:], sizes[-1:])
        g = transform(name, _KINDS[kind].back, g, sizes, axes, OPPOSITE[norm])
        if kind == "irfftn":
            g = multiply(g, _weights(g, axes[-1], sizes[-1]))
    return gradient_of(x, _resized(g, axes, [x.shape[axis] for axis in axes]))


def _weights(g: A, axis: int, size: int) -> A:
    """2 for the frequencies of which a real result has the conjugates too, else 1."""
    weights = np.full(g.shape[axis], 2.0)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[-1] = 1.0
    shape = [1] * g.ndim
    shape[axis] = weights.size
    return from_host(type(g), weights.reshape(shape), g.backend, real_of(g.dtype))


def _resized(x: A, axes: Sequence[int], sizes: Sequence[int]) -> A:
    """``x`` cut, or padded with zeros, at the end of some axes. Not recorded."""
    shape, after = list(x.shape), [0] * x.ndim
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis], after[axis] = min(shape[axis], size), max(size - shape[axis], 0)
    cut = x.restride(tuple(shape), x.strides, x.offset)
    return padded(cut, [0] * x.ndim, after, 0.0)


# -- arguments --------------------------------------------------------------------------------------------------------


def _check(name: str, x: Array, kind: str, norm: str) -> None:
    check_arrays(name, x)
    check_floating(name, x)
    if _KINDS[kind].takes_real and x.dtype.kind == "c":
        whole = {"rfft": "fft", "rfftn": "fftn", "ihfft": "ifft"}[name]
        raise DTypeError(f"{name} takes real arrays, got one of {x.dtype}; use {whole}")
    one_of("norm", norm, OPPOSITE)


def _sizes(name: str, x: Array, kind: str, given: Sequence[int | None], axes: Sequence[int]) -> list[int]:
    """How many points each axis has while it is transformed, at least 1."""
    found = []
    for place, (size, axis) in enumerate(zip(given, axes, strict=True)):
        halved = _KINDS[kind].gives_real and place == len(axes) - 1
        own = 2 * (x.shape[axis] - 1) if halved else x.shape[axis]
        points = own if size is None else size
        if not 1 <= points <= LARGEST_EXTENT:
            raise ShapeError(
                f"{name} of shape {x.shape} along axis {axis} would have {shown(points)} points; it must have at least "
                f"1 and at most {LARGEST_EXTENT}: say how many with n= or s="
            )
        found.append(points)
    shape = list(x.shape)
    for points, axis in zip(found, axes, strict=True):
        shape[axis] = points
    extents(f"the result of {name}", tuple(shape))
    return found


def along_one(name: str, kind: str, x: A, n: int | None, axis: int, norm: str) -> tuple[list[int], tuple[int]]:
    """The checked number of points and axis of a transform along one, each as a sequence."""
    _check(name, x, kind, norm)
    axes = (normalize_axis(axis, x.ndim),)
    size = None if n is None else integer("n", n, error=ShapeError)
    return _sizes(name, x, kind, [size], axes), axes


def along_several(name: str, kind: str, x: A, s: Sequence[int] | None, axes: Sequence[int] | None, norm: str) -> A:
    """A transform along several axes, of arguments as users give them."""
    _check(name, x, kind, norm)
    sizes: list[int | None] = [] if s is None else [_size(each) for each in _listed("s", s)]
    if axes is not None:
        places = named_axes("axes", _listed("axes", axes), x.ndim)
    elif len(sizes) > x.ndim:
        raise ShapeError(f"{name} of shape {x.shape}: s must have at most {x.ndim} sizes, got {len(sizes)}")
    else:
        places = tuple(range(0 if s is None else x.ndim - len(sizes), x.ndim))
    if s is None:
        sizes = [None] * len(places)
    if len(sizes) != len(places):
        raise ShapeError(f"{name} takes one size for each axis, got {len(sizes)} sizes and {len(places)} axes")
    return recorded(name, kind, x, _sizes(name, x, kind, sizes, places), places, norm)


def _size(value: Any) -> int | None:
    size = integer("s", value, error=ShapeError)
    return None if size == -1 else size


def _listed(name: str, value: Any) -> Sequence[int]:
    if isinstance(value, tuple | list | range):
        return value
    raise ShapeError(f"{name} must be a sequence of integers, got {shown(value)}; pass a tuple")
