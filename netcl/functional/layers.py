"""What layers with a table of weights compute: an affine map, and the look-up of rows."""

from __future__ import annotations

import math
from typing import Any

from netcl import tape
from netcl.array import Array
from netcl.dtypes import promote
from netcl.errors import ShapeError
from netcl.functional.autocast import autocast_down
from netcl.functional.dispatch import A, check_arrays, common_backend, identity, map_arrays, map_into, sum_to_shape
from netcl.functional.elementwise import add
from netcl.functional.indexing import take
from netcl.functional.linalg import matched, matmul, product, swapped
from netcl.functional.shape import view_or_copy

__all__ = ["embedding", "linear"]


def linear(x: A, weight: A, bias: A | None = None, /) -> A:
    """An affine map of the last axis.

    y = x · weightᵀ + bias

    Parameters
    ----------
    x : Tensor, shape (…, in_features)
    weight : Tensor, shape (out_features, in_features)
    bias : Tensor, shape (out_features,), optional

    Returns
    -------
    Tensor, shape (…, out_features)
        Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the extents do not fit.
    DeviceMismatchError
        If the operands are on different devices.

    Examples
    --------
    >>> import netcl
    >>> weight, bias = netcl.asarray([[1.0, 2.0]]), netcl.asarray([0.5])
    >>> netcl.functional.linear(netcl.asarray([[3.0, 4.0]]), weight, bias).tolist()
    [[11.5]]
    """
    check_arrays("linear", x, weight, *(() if bias is None else (bias,)))
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear of shape {x.shape} with a weight of shape {weight.shape}: the last extent of x must equal "
            "in_features, the second of (out_features, in_features)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"the bias of linear must have shape {weight.shape[:1]}, got {bias.shape}")
    if x.ndim == 1:
        y = matmul(weight, x)
        return y if bias is None else add(y, bias)
    common_backend([array for array in (x, weight, bias) if array is not None])
    left, right = autocast_down(x), autocast_down(weight)
    out = product(left, swapped(right))
    if bias is not None:
        added = autocast_down(bias)
        if promote(out.dtype, added.dtype) is out.dtype:
            map_into(out, _plus, out, added)
        else:
            out = map_arrays(_plus, out, added)
    rows = math.prod(x.shape[:-1])

    def to_x(g: A, into: Any) -> A:
        return matched(x, product(g, right, into, x.dtype), into)

    def to_weight(g: A, into: Any) -> A:
        tall = view_or_copy(g, (rows, g.shape[-1]))
        return product(swapped(tall), view_or_copy(left, (rows, x.shape[-1])), into, weight.dtype)

    entries: list[tuple[A, tape.VJP]] = [(x, tape.VJPWithOut(to_x)), (weight, tape.VJPWithOut(to_weight))]
    if bias is not None:
        b = bias
        entries.append((b, tape.VJPWithOut(lambda g, into: sum_to_shape(b, identity, g, out=into))))
    if out.dtype.kind == "f":
        tape.record(out, *entries, name="linear")
    return out


def _plus(x: Any, y: Any) -> Any:
    return x + y


def embedding(indices: Array, weight: A, /) -> A:
    """Look up rows of a table.

    y[…, :] = weight[indices[…], :]

    Parameters
    ----------
    indices : Tensor of integers
        Of any shape.
    weight : Tensor, shape (rows, features)

    Returns
    -------
    Tensor, shape (*indices.shape, features)

    Raises
    ------
    DTypeError
        If the indices are not integers.
    ShapeError
        If the table does not have two axes.
    IndexError
        From a later call that blocks, if an index is out of range.

    Examples
    --------
    >>> import netcl
    >>> table = netcl.asarray([[1.0, 2.0], [3.0, 4.0]])
    >>> netcl.functional.embedding(netcl.asarray([1, 1]), table).tolist()
    [[3.0, 4.0], [3.0, 4.0]]
    """
    check_arrays("embedding", weight)
    if weight.ndim != 2:
        raise ShapeError(f"embedding takes a table of shape (rows, features), got {weight.shape}")
    return take(weight, indices, axis=0)
