"""State in few bits on the host: its numbers as an ordinary array, which says what they are kept in.

Whoever reads the numbers sees float32. Who asks, a file and an optimizer with the same ``state_dtype``, takes codes and
scales, or 16 bits, as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netcl.backends.base import BlockFormat
from netcl.dtypes import DType


class HostBlocks(NamedTuple):
    """Whole blocks: those of an array, the last one with the padding that follows it.

    Attributes
    ----------
    codes : array of uint8, shape (blocks, bytes of a block)
    scales : array of float32, shape (blocks,)
    format : BlockFormat
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    format: BlockFormat


class NarrowArray(np.ndarray[Any, np.dtype[np.float32]]):
    """Numbers that were read from fewer bits. They are read-only; copies, parts and results are of the numbers alone.

    Attributes
    ----------
    kept_as : HostBlocks, DType or None
        The blocks that they were read from, or the 16-bit dtype that holds each of them.
    """

    kept_as: HostBlocks | DType | None

    def __array_finalize__(self, obj: Any) -> None:
        self.kept_as = None


def narrow_array(values: NDArray[np.float32], kept_as: HostBlocks | DType) -> NarrowArray:
    """``values`` with what they were read from beside them."""
    made = values.view(NarrowArray)
    made.kept_as = kept_as
    made.flags.writeable = False
    return made


def blocks_of(values: Any) -> HostBlocks | None:
    """The blocks that an array was read from, if it has them beside it."""
    kept_as = values.kept_as if isinstance(values, NarrowArray) else None
    return kept_as if isinstance(kept_as, HostBlocks) else None


def narrow_dtype_of(values: Any) -> DType | None:
    """The 16-bit dtype that an array was read from, if it says so."""
    kept_as = values.kept_as if isinstance(values, NarrowArray) else None
    return kept_as if isinstance(kept_as, DType) else None


def blocks_of_shape(shape: tuple[int, ...], format: BlockFormat) -> tuple[int, int]:
    """The shape of the codes of an array: how many blocks it takes, and the bytes of a block."""
    return -(-math.prod(shape) // format.block), format.block // format.per_byte


_asked: ContextVar[bool] = ContextVar("netcl state as it is kept is asked for", default=False)


def is_asked_for() -> bool:
    """Whether state is to be read with what it is kept in."""
    return _asked.get()


@contextmanager
def asking_as_kept() -> Iterator[None]:
    """Within this, whatever calls them, the ``state_dict()`` of optimizers have what state is kept in beside it."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)
