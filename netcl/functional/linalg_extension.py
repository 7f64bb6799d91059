"""What the Array API has in its linear-algebra extension alone, ``netcl.linalg``."""

from __future__ import annotations

from netcl.errors import ShapeError
from netcl.functional.dispatch import A, check_arrays
from netcl.functional.elementwise import multiply
from netcl.functional.shape import reshape

__all__ = ["outer"]


def outer(x1: A, x2: A, /) -> A:
    """The products of all pairs of elements of two vectors.

    y[i, j] = x1[i] · x2[j]

    Examples
    --------
    >>> import netcl
    >>> netcl.linalg.outer(netcl.asarray([1, 2]), netcl.asarray([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    check_arrays("outer", x1, x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ShapeError(f"outer takes two vectors, got shapes {x1.shape} and {x2.shape}; reshape them to (-1,)")
    return multiply(reshape(x1, (x1.size, 1)), x2)
