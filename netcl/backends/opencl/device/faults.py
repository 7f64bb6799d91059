"""What kernels report when they meet an index out of range, and the error that is raised for it later."""

from __future__ import annotations

from typing import final

import numpy as np
import pyopencl as cl

from netcl.backends.base import Device
from netcl.backends.opencl.device.memory import CLBuffer

GATHER_INDEX, SCATTER_INDEX, LABEL, SCATTER_WRITE = 1, 2, 3, 4
"""What a kernel writes into the faults' buffer, by what it found."""

MESSAGES = {
    GATHER_INDEX: "gather: an index is out of range for the axis it selects from",
    SCATTER_INDEX: "scatter_add: an index is out of range for the axis it adds to",
    LABEL: "softmax_cross_entropy: a label is out of range; labels are 0 to classes - 1, or ignore_index",
    SCATTER_WRITE: "scatter: an index is out of range for the axis it writes to",
}


@final
class Faults:
    """One int32 on a device that kernels set to a key of :data:`MESSAGES`.

    Attributes
    ----------
    buffer : CLBuffer
    pending : bool
        To be set after the launch of such a kernel.
    """

    def __init__(self, device: Device, cl_queue: cl.CommandQueue, buffer: CLBuffer) -> None:
        self._device = device
        self._cl_queue = cl_queue
        self.buffer = buffer
        self.pending = False
        self._clear()

    def report(self) -> None:
        """Raise what kernels reported since the last call. **Blocks**, but only if such a kernel was launched.

        Raises
        ------
        IndexError
        """
        if not self.pending:
            return
        self.pending = False
        found = np.empty(1, np.int32)
        cl.enqueue_copy(self._cl_queue, found, self.buffer.mem, is_blocking=True)
        code = int(found[0])
        if code:
            self._clear()
            message = MESSAGES.get(code, "an index is out of range")
            raise IndexError(f"{message} (found on {self._device}, which goes on)")

    def _clear(self) -> None:
        cl.enqueue_fill_buffer(self._cl_queue, self.buffer.mem, np.zeros(1, np.int32), 0, 4)
