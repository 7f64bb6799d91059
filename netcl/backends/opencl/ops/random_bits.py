"""random_bits: Philox4x32-10, the same bits on every device."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from netcl.backends.base import View
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.queue import Queue, whole_groups
from netcl.dtypes import uint32
from netcl.errors import DTypeError, ShapeError

BLOCKS = 8
"""Blocks of four words, one for each value of Philox's counter, for each work-item."""

MASK = (1 << 64) - 1
"""The counter and the key are 64 bits wide."""


@final
class RandomBits:
    """random_bits of :class:`~netcl.backends.base.ArrayOperations`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def random_bits(self, out: View, seed: int, offset: int) -> None:
        """Fill with Philox4x32-10. See :class:`~netcl.backends.base.ArrayOperations`.

        Raises
        ------
        ShapeError
            If ``out`` is not contiguous.
        DTypeError
            If ``out`` is not uint32.
        """
        if out.dtype is not uint32:
            raise DTypeError(f"random bits are uint32, got an output of {out.dtype}")
        n = math.prod(out.shape)
        if n == 0:
            return
        run = 1
        for extent, stride in zip(reversed(out.shape), reversed(out.strides), strict=True):
            run = run * extent if extent == 1 or stride == run else 0
        if run != n:
            raise ShapeError(
                f"random_bits fills contiguous memory, got shape {out.shape} with strides {out.strides}; fill an array "
                "of its own and copy it"
            )
        self._queue.needs_plain("random_bits", uint32)
        group = self._queue.work_group_size
        kernel = self._queue.kernels.shared(
            "random_bits.cl",
            "random_bits",
            (("WORK_GROUP_SIZE", group),),
            arguments=(None, *(np.uint64,) * 4, np.uint32, np.uint32),
        )
        first, skip = divmod(offset, 4)
        items = -(-(skip + n) // (4 * BLOCKS))
        key = seed & MASK
        self._queue.launch(
            kernel,
            whole_groups(items, group),
            (group,),
            *(cl_buffer(out), out.offset, first & MASK, skip, n, key & 0xFFFFFFFF, key >> 32),
        )
