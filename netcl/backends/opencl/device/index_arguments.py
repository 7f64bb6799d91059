"""Indices and labels as kernels take them, and whether views fit together for indexing."""

from __future__ import annotations

from netcl.backends.base import View
from netcl.dtypes import int32, int64
from netcl.errors import DTypeError, ShapeError


def index_type(indices: View) -> str:
    """The OpenCL C type of an index.

    Raises
    ------
    DTypeError
    """
    if indices.dtype is not int32 and indices.dtype is not int64:
        raise DTypeError(f"indices and labels are int32 or int64, got {indices.dtype}; cast them with astype()")
    return "int" if indices.dtype is int32 else "long"


def check_indexing(call: str, indexed: View, indices: View, picked: View) -> None:
    """Refuse views that are not (o, n, i), (o, c, i) and (o, c, i).

    Raises
    ------
    ShapeError
    """
    if (
        indices.shape != picked.shape
        or len(picked.shape) != 3
        or len(indexed.shape) != 3
        or indexed.shape[::2] != picked.shape[::2]
    ):
        raise ShapeError(
            f"{call} takes views of shapes (o, n, i), (o, c, i) and (o, c, i), got the indexed {indexed.shape}, "
            f"indices {indices.shape} and {picked.shape}"
        )
