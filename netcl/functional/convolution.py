"""Two-dimensional convolution and pooling over strided views of windows.

A convolution is one copy of the windows into columns and one matrix product. Gradients of windows that overlap are
added up one window place after another, in a fixed order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from netcl import expression as ex
from netcl import tape
from netcl.array import Array
from netcl.dtypes import DType, float32, float64, promote
from netcl.errors import HyperParameterError, ShapeError
from netcl.expression import Expression, Node
from netcl.functional.activation import check_floating
from netcl.functional.autocast import autocast_down, autocast_dtype
from netcl.functional.dispatch import A, common_backend, identity, map_arrays, map_into, reduce_arrays, zeros_for
from netcl.functional.linalg import product
from netcl.functional.reduction import argmax, averaged
from netcl.functional.shape import interior, padded, view_or_copy
from netcl.validation import integer, shown

__all__ = ["avg_pool2d", "conv2d", "max_pool2d"]

Pair: TypeAlias = int | tuple[int, int]


class Windows(NamedTuple):
    """Where windows lie on an image: sizes along height and width."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    out: tuple[int, int]


def pair_of(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """``value``, one integer or two, for height and width."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise HyperParameterError(f"{name} must be an integer or two of them, at least {least}, got {shown(value)}")
    height, width = (integer(name, each, least=least, most=_MOST, error=HyperParameterError) for each in pair)
    return height, width


_MOST = 2**31 - 1


def _windows(x: Array, size: tuple[int, int], stride: Pair, padding: Pair, dilation: Pair, name: str) -> Windows:
    strides, pads, steps = pair_of("stride", stride), pair_of("padding", padding, 0), pair_of("dilation", dilation)
    extents = []
    for axis in range(2):
        room = x.shape[axis + 2] + 2 * pads[axis] - steps[axis] * (size[axis] - 1) - 1
        if room < 0:
            raise ShapeError(
                f"{name}: windows of {size}, dilation {steps}, do not fit images of {x.shape[2:]} with padding {pads}"
            )
        extents.append(room // strides[axis] + 1)
    return Windows(size, strides, pads, steps, (extents[0], extents[1]))


def _check_images(x: Any, name: str) -> None:
    check_floating(x, name)
    if x.ndim != 4:
        raise ShapeError(f"{name} takes images of shape (batch, channels, height, width), got {x.shape}")


def _padded(x: A, windows: Windows, value: float) -> A:
    if not any(windows.padding):
        return x
    around = (0, 0, *windows.padding)
    return padded(x, around, around, value)


_LOWEST = {float32: -float.fromhex("0x1.fffffep127"), float64: -sys.float_info.max}


def _finite(x: Any) -> Any:
    return ex.maximum(x, _LOWEST[x.dtype])


def _below_all(x: A, windows: Windows) -> A:
    """Padded images for a search in which what is padded is smaller even than an element of -inf."""
    if not any(windows.padding):
        return x
    height, width = windows.padding
    shape = (*x.shape[:2], x.shape[2] + 2 * height, x.shape[3] + 2 * width)
    out = x.empty_like(shape, x.dtype.compute)
    if out.size:
        out.backend.fill(out.span(), float("-inf"))
    map_into(interior(out, (0, 0, height, width), x.shape), _finite, x)
    return out


def _view(x: A, windows: Windows) -> A:
    """The windows of padded images, as a view of shape (batch, channels, size, size, out, out)."""
    batch, channels, height, width = x.strides
    (step_h, step_w), (dilated_h, dilated_w) = windows.stride, windows.dilation
    shape = (*x.shape[:2], *windows.size, *windows.out)
    strides = (batch, channels, height * dilated_h, width * dilated_w, height * step_h, width * step_w)
    return x.restride(shape, strides, x.offset)


def _place(x: A, row: int, column: int) -> A:
    """Of the windows of :func:`_view`, their elements at one place: shape (batch, channels, out, out)."""
    shape = (*x.shape[:2], *x.shape[4:])
    strides = (*x.strides[:2], *x.strides[4:])
    return x.restride(shape, strides, x.offset + row * x.strides[2] + column * x.strides[3])


def _folded(x: Array, windows: Windows, add: Callable[[Any, int, int], None]) -> Any:
    """The gradient of images: zeros to which ``add`` adds what each place of the windows contributes."""
    around = (0, 0, *windows.padding)
    shape = (*x.shape[:2], x.shape[2] + 2 * windows.padding[0], x.shape[3] + 2 * windows.padding[1])
    # Several places add to one element, so the sum is kept in the wider dtype.
    total = zeros_for(x, shape, x.dtype.compute)
    view = _view(total, windows)
    for row in range(windows.size[0]):
        for column in range(windows.size[1]):
            add(_place(view, row, column), row, column)
    inner = interior(total, around, x.shape)
    return inner if inner.dtype is x.dtype else map_arrays(identity, inner, dtype=x.dtype)


def _plus(x: Any, y: Any) -> Any:
    return x + y


def conv2d(
    x: A,
    weight: A,
    bias: A | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
) -> A:
    """Correlate images with learned windows.

    y[b, o, i, j] = bias[o] + Σ_{c, u, v} weight[o, c, u, v] · x[b, c, i·stride + u·dilation, j·stride + v·dilation]

    Parameters
    ----------
    x : Tensor, shape (batch, in_channels, height, width)
    weight : Tensor, shape (out_channels, in_channels, window height, window width)
    bias : Tensor, shape (out_channels,), optional
    stride, dilation : int or pair of int, default 1
    padding : int or pair of int, default 0
        Zeros on either side of the height and the width.

    Returns
    -------
    Tensor, shape (batch, out_channels, out height, out width)
        Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    HyperParameterError
        If a stride, padding or dilation is out of range.

    Examples
    --------
    >>> import netcl
    >>> images, weight = netcl.ones((1, 1, 3, 3)), netcl.ones((1, 1, 2, 2))
    >>> netcl.functional.conv2d(images, weight).tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    _check_images(x, "conv2d")
    check_floating(weight, "conv2d")
    if weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ShapeError(
            f"conv2d of images of shape {x.shape} needs a weight of shape (out_channels, {x.shape[1]}, height, width), "
            f"got {weight.shape}"
        )
    channels_out, channels_in, *size = weight.shape
    if bias is not None:
        check_floating(bias, "conv2d")
    if bias is not None and bias.shape != (channels_out,):
        raise ShapeError(f"the bias of conv2d must have shape {(channels_out,)}, got {bias.shape}")
    common_backend([array for array in (x, weight, bias) if array is not None])
    windows = _windows(x, (size[0], size[1]), stride, padding, dilation, "conv2d")
    batch, places = x.shape[0], windows.out[0] * windows.out[1]
    depth = channels_in * size[0] * size[1]
    kernel = autocast_down(weight)
    dtype = promote(autocast_dtype(x), kernel.dtype)

    view = _view(_padded(x, windows, 0.0), windows)
    columns: A = view_or_copy(map_arrays(identity, view, dtype=dtype), (batch, depth, places))
    flat = view_or_copy(kernel, (channels_out, depth))
    y: A = product(flat, columns)
    if bias is not None:
        added = autocast_down(bias)
        column = view_or_copy(added, (channels_out, 1))
        if promote(dtype, added.dtype) is dtype:
            map_into(y, _plus, y, column)
        else:
            y = map_arrays(_plus, y, column)
    out = view_or_copy(y, (batch, channels_out, *windows.out))

    def rows_of(g: A) -> A:
        return view_or_copy(g, (batch, channels_out, places))

    def to_input(g: A) -> Any:
        spread = product(flat.restride(flat.shape[::-1], flat.strides[::-1], flat.offset), rows_of(g), None, x.dtype)
        parts = view_or_copy(spread, (batch, channels_in, *windows.size, *windows.out))

        def add(target: Array, row: int, column: int) -> None:
            map_into(target, _plus, target, _place(parts, row, column))

        return _folded(x, windows, add)

    def to_weight(g: A, into: Any) -> Any:
        by_place = columns.restride((batch, places, depth), (depth * places, 1, places), columns.offset)
        each = product(rows_of(g), by_place, None, weight.dtype)
        flat = None if into is None else view_or_copy(into, (channels_out, depth))
        total = reduce_arrays("sum", identity, each, axes=(0,), dtype=weight.dtype, out=flat)
        return into if total is flat else view_or_copy(total, weight.shape)

    entries: list[tuple[A, tape.VJP]] = [(x, to_input), (weight, tape.VJPWithOut(to_weight))]
    if bias is not None:
        b = bias

        def to_bias(g: A, into: Any) -> Any:
            return reduce_arrays("sum", identity, g, axes=(0, 2, 3), dtype=b.dtype, out=into)

        entries.append((b, tape.VJPWithOut(to_bias)))
    tape.record(out, *entries, name="conv2d")
    return out


def _pool_windows(x: Any, size: Pair, stride: Pair | None, padding: Pair, name: str) -> Windows:
    _check_images(x, name)
    sizes = pair_of("size", size)
    windows = _windows(x, sizes, sizes if stride is None else stride, padding, 1, name)
    check_pool_padding(name, sizes, windows.padding)
    return windows


def check_pool_padding(name: str, sizes: tuple[int, int], padding: tuple[int, int]) -> None:
    """Refuse windows that could lie outside the image altogether."""
    if any(2 * pad > extent for pad, extent in zip(padding, sizes, strict=True)):
        raise HyperParameterError(f"{name}: padding must be at most half the window {sizes}, got {padding}")


def _where_first(target: Any, g: Any, index: Any, place: Any) -> Any:
    return ex.where(ex.equal(index, place), target + g, target)


_FUSED_PLACES = 4
"""Windows of so many elements are unpooled in one launch; those of more would need more kernel arguments than fit."""


@cache
def _unpooling(count: int, dtype: DType, gradient: DType) -> Expression:
    """From a maximum, its gradient and the elements of its window: the gradient of each, all for the first maximum."""

    def unpool(largest: Node, g: Node, *elements: Node) -> list[Node]:
        gradients: list[Node] = []
        free: Node | None = None
        for x in elements:
            hit = ex.logical_or(ex.equal(x, largest), ex.isnan(x))
            gradients.append(ex.where(hit if free is None else ex.logical_and(hit, free), g, 0.0))
            missed = ex.logical_not(hit)
            free = missed if free is None else ex.logical_and(free, missed)
        return gradients

    return ex.trace(unpool, (dtype, gradient, *[dtype] * count), stored=(dtype,) * count)


def _unpooled(x: A, view: A, largest: Array, g: Array, windows: Windows) -> A:
    """The gradient of images whose windows share no element and reach over no edge, in one launch."""
    places = [(row, column) for row in range(windows.size[0]) for column in range(windows.size[1])]
    covered = all(n == out * size for n, out, size in zip(x.shape[2:], windows.out, windows.size, strict=True))
    total: A = x.empty_like() if covered else zeros_for(x)
    target = _view(total, windows)
    inputs: list[Array] = [largest, g, *[_place(view, *place) for place in places]]
    if largest.size:
        outputs = [_place(target, *place).view() for place in places]
        x.backend.map(_unpooling(len(places), x.dtype, g.dtype), [array.view() for array in inputs], outputs)
    return total


def max_pool2d(x: A, size: Pair, *, stride: Pair | None = None, padding: Pair = 0) -> A:
    """The largest element of each window; the gradient goes to the first of equals.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, height, width)
    size : int or pair of int
        Of the windows.
    stride : int or pair of int, optional
        ``size`` by default.
    padding : int or pair of int, default 0
        At most half of ``size``; what is padded never wins.

    Raises
    ------
    ShapeError
        If the windows do not fit.
    HyperParameterError
        If a size, stride or padding is out of range.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.reshape(netcl.arange(4.0), (1, 1, 2, 2))
    >>> netcl.functional.max_pool2d(x, 2).tolist()
    [[[[3.0]]]]
    """
    windows = _pool_windows(x, size, stride, padding, "max_pool2d")
    view = _view(_padded(x, windows, float("-inf")), windows)
    out = reduce_arrays("max", identity, view, axes=(2, 3), dtype=x.dtype)

    n = windows.size[0] * windows.size[1]
    apart = all(step >= extent for step, extent in zip(windows.stride, windows.size, strict=True))

    def vjp(g: A) -> Any:
        if apart and n <= _FUSED_PLACES and not any(windows.padding):
            return _unpooled(x, view, out, g, windows)
        order = (2, 3, 0, 1, 4, 5)
        given = _view(_below_all(x, windows), windows)
        places = given.restride(
            tuple([given.shape[i] for i in order]), tuple([given.strides[i] for i in order]), given.offset
        )
        with tape.no_grad():
            first = argmax(view_or_copy(places, (n, *out.shape)), axis=0)

        def add(target: Array, row: int, column: int) -> None:
            map_into(target, _where_first, target, g, first, row * windows.size[1] + column)

        return _folded(x, windows, add)

    tape.record(out, (x, vjp), name="max_pool2d")
    return out


def _plus_scaled(target: Any, g: Any, factor: Any) -> Any:
    return target + g * factor


def avg_pool2d(x: A, size: Pair, *, stride: Pair | None = None, padding: Pair = 0) -> A:
    """The mean of each window, padding included.

    Parameters
    ----------
    x : Tensor, shape (batch, channels, height, width)
    size, stride, padding
        As in ``max_pool2d``; what is padded counts as 0.

    Raises
    ------
    ShapeError
        If the windows do not fit.
    HyperParameterError
        If a size, stride or padding is out of range.

    Examples
    --------
    >>> import netcl
    >>> x = netcl.reshape(netcl.arange(4.0), (1, 1, 2, 2))
    >>> netcl.functional.avg_pool2d(x, 2).tolist()
    [[[[1.5]]]]
    """
    windows = _pool_windows(x, size, stride, padding, "avg_pool2d")
    n = windows.size[0] * windows.size[1]
    view = _view(_padded(x, windows, 0.0), windows)
    out = averaged(identity, view, axes=(2, 3), n=n, dtype=x.dtype, keepdims=False)

    def vjp(g: A) -> Any:
        def add(target: Array, row: int, column: int) -> None:
            map_into(target, _plus_scaled, target, g, 1.0 / n)

        return _folded(x, windows, add)

    tape.record(out, (x, vjp), name="avg_pool2d")
    return out
