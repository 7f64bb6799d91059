"""The affine map of a linear layer, with the weight stored as (out, in) and its gradient made in that layout."""

from __future__ import annotations

import math
from typing import Any

from netcl import tape
from netcl.dtypes import promote
from netcl.errors import ShapeError
from netcl.functional.activation import check_floating
from netcl.functional.launch import A, common_backend, identity, mapped, mapped_into, reduced
from netcl.functional.linalg import product
from netcl.functional.shape import viewed


def _plus(x: Any, y: Any) -> Any:
    return x + y


def linear(x: A, weight: A, bias: A | None = None, /) -> A:
    """Multiply by a transposed weight and add a bias.

    y[…, o] = Σ_i x[…, i] · weight[o, i] + bias[o]

    Parameters
    ----------
    x : Tensor of a floating dtype, shape (…, in)
    weight : Tensor, shape (out, in)
    bias : Tensor, shape (out,), optional

    Returns
    -------
    Tensor, shape (…, out)
        Accumulated in float32 or wider. One product and one addition in place; enqueues, does not block.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    DTypeError
        If an operand is not floating.
    DeviceMismatchError
        If the operands are on different devices.

    Examples
    --------
    >>> import netcl
    >>> w, b = netcl.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), netcl.ones(3)
    >>> netcl.functional.linear(netcl.asarray([[1.0, -1.0]]), w, b).tolist()
    [[0.0, 0.0, 0.0]]
    """
    operands = [operand for operand in (x, weight, bias) if operand is not None]
    for operand in operands:
        check_floating(operand, "linear")
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear takes x of shape (…, in) and weight of shape (out, in), got {x.shape} and {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"the bias of linear must have shape {weight.shape[:1]}, got {bias.shape}")
    common_backend(operands)
    lead, (features_out, features_in) = x.shape[:-1], weight.shape
    rows = math.prod(lead)
    y: A = product(
        viewed(x, (rows, features_in)), weight.restride(weight.shape[::-1], weight.strides[::-1], weight.offset)
    )
    if bias is not None:
        if promote(y.dtype, bias.dtype) is y.dtype:
            mapped_into(y, _plus, y, bias)
        else:
            y = mapped(_plus, y, bias)
    y = viewed(y, (*lead, features_out))

    def flat(g: A) -> A:
        return viewed(g, (rows, features_out))

    def to_input(g: A) -> A:
        return _as_dtype_of(x, viewed(product(flat(g), weight), x.shape))

    def to_weight(g: A) -> A:
        columns = flat(g)
        swapped = columns.restride(columns.shape[::-1], columns.strides[::-1], columns.offset)
        return _as_dtype_of(weight, product(swapped, viewed(x, (rows, features_in))))

    entries: list[tuple[A, tape.VJP]] = [(x, to_input), (weight, to_weight)]
    if bias is not None:
        dtype = bias.dtype
        entries.append((bias, lambda g: reduced("sum", identity, flat(g), axes=(0,), dtype=dtype)))
    tape.record(y, *entries, name="linear")
    return y


def _as_dtype_of(x: A, g: A) -> A:
    return g if g.dtype is x.dtype else mapped(identity, g, dtype=x.dtype)
