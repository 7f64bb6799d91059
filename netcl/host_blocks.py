"""State in few bits on the host: its numbers as an ordinary array, which has the codes and scales beside it.

Whoever reads the numbers sees float32. Who knows of the blocks, a file and an optimizer with the same ``state_dtype``,
takes them as they are, bit for bit.
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


class BlockArray(np.ndarray[Any, np.dtype[np.float32]]):
    """Numbers that were read from blocks. They are read-only; copies, parts and results are of the numbers alone.

    Attributes
    ----------
    blocks : HostBlocks or None
    """

    blocks: HostBlocks | None

    def __array_finalize__(self, obj: Any) -> None:
        self.blocks = None


def with_blocks(values: NDArray[np.float32], blocks: HostBlocks) -> BlockArray:
    """``values`` with the blocks that they were read from beside them."""
    made = values.view(BlockArray)
    made.blocks = blocks
    made.flags.writeable = False
    return made


def blocks_of(values: Any) -> HostBlocks | None:
    """The blocks that an array was read from, if it has them beside it."""
    return values.blocks if isinstance(values, BlockArray) else None


def blocks_of_shape(shape: tuple[int, ...], format: BlockFormat) -> tuple[int, int]:
    """The shape of the codes of an array: how many blocks it takes, and the bytes of a block."""
    return -(-math.prod(shape) // format.block), format.block // format.per_byte


_asked: ContextVar[bool] = ContextVar("netcl blocks are asked for", default=False)


def blocks_are_asked_for() -> bool:
    """Whether state is to be read with its blocks."""
    return _asked.get()


@contextmanager
def asking_for_blocks() -> Iterator[None]:
    """Within this, whatever calls them, the ``state_dict()`` of optimizers have their blocks beside the numbers."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)
