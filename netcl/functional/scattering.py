"""Adding by index."""

from __future__ import annotations

import math

from netcl import tape
from netcl.array import Array
from netcl.backends.base import View
from netcl.errors import ShapeError
from netcl.functional.casting import check_castable
from netcl.functional.dispatch import A, check_arrays, common_backend, identity, map_arrays, sum_to_shape
from netcl.functional.indexing import as_indices, take
from netcl.functional.shape import broadcast_to, normalize_axis, view_or_copy
from netcl.strides import contiguous_strides

__all__ = ["scatter_add"]


def scatter_add(x: A, indices: Array, updates: Array, /, *, axis: int = 0) -> A:
    """``x`` with updates added at positions along an axis; several for one position are all added.

    y = x; y[…, indices[j], …] += updates[…, j, …]

    Parameters
    ----------
    x : Tensor
    indices : Tensor of integers
        A vector; negative ones count from the end. One out of range is reported at the next call that blocks.
    updates : Tensor
        Broadcasts to the shape of ``x`` with as many elements along the axis as there are indices.
    axis : int, default 0

    Returns
    -------
    Tensor
        Of the shape and dtype of ``x``, summed in the order of the indices. Enqueues; does not block.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    DTypeError
        If the indices are not integers, or ``updates`` are complex and ``x`` is not.

    Examples
    --------
    >>> import netcl
    >>> x, ones = netcl.zeros(3), netcl.ones(2)
    >>> netcl.functional.scatter_add(x, netcl.asarray([2, 2]), ones).tolist()
    [0.0, 0.0, 2.0]
    """
    check_arrays("scatter_add", x, updates)
    axis = normalize_axis(axis, x.ndim)
    chosen: Array = as_indices(indices, "scatter_add")
    common_backend((x, chosen, updates))
    if chosen.ndim != 1:
        raise ShapeError(f"scatter_add takes a vector of indices, got shape {chosen.shape}; reshape it and the updates")
    check_castable(updates.dtype, x.dtype)
    shape = (*x.shape[:axis], chosen.size, *x.shape[axis + 1 :])
    with tape.no_grad():
        source = map_arrays(identity, broadcast_to(updates, shape), dtype=x.dtype)
    out = map_arrays(identity, x)
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    if source.size:
        folded = (outer, x.shape[axis], inner)
        target = out.restride(folded, contiguous_strides(folded), 0)
        where = chosen.view()
        positions = View(where.buffer, where.offset, (outer, chosen.size, inner), (0, where.strides[0], 0))
        x.backend.scatter_add(view_or_copy(source, (outer, chosen.size, inner)).view(), positions, target.view())
    if out.dtype.kind in "fc":
        tape.record(
            out,
            (x, tape.VJPWithOut(lambda g, into: sum_to_shape(x, identity, g, out=into))),
            (updates, lambda g: sum_to_shape(updates, identity, take(g, chosen, axis=axis))),
            name="scatter_add",
        )
    return out
