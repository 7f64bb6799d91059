"""gather and scatter_add: the rows that indices name, and the way back."""

from __future__ import annotations

import numpy as np
import pyopencl as cl

from netcl.backends.base import View
from netcl.backends.opencl.codegen.scalars import WORDS
from netcl.backends.opencl.codegen.storage import TAG
from netcl.backends.opencl.device.memory import CLBuffer
from netcl.backends.opencl.device.queue import Core, memory
from netcl.dtypes import DType, int32, int64
from netcl.errors import DTypeError, ShapeError

GATHER_FAULT, SCATTER_FAULT = 1, 2
"""Keys of ``core.FAULTS``."""

COPIED, ADDED = 4096, 256
"""Neighbours in memory that one work-item copies, and adds, on a CPU runtime; on others it is one."""


def index_type(indices: View) -> str:
    """The OpenCL C type of an index.

    Raises
    ------
    DTypeError
    """
    if indices.dtype is not int32 and indices.dtype is not int64:
        raise DTypeError(f"indices and labels are int32 or int64, got {indices.dtype}; cast them with astype()")
    return "int" if indices.dtype is int32 else "long"


class IndexingCalls(Core):
    """gather and scatter_add of :class:`~netcl.backends.base.ArrayOperations`."""

    def gather(self, x: View, indices: View, out: View) -> None:
        """out[o, c, i] ← x[o, indices[o, c, i], i]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        Where an index is out of range the result is 0, and the next call that blocks raises ``IndexError``.

        Raises
        ------
        ShapeError
            If ``indices`` and ``out`` differ in shape, or from ``x`` in the outer or inner extent.
        DTypeError
            If ``indices`` is neither int32 nor int64, or ``x`` and ``out`` differ in dtype.
        """
        _check_shapes("gather", x, indices, out)
        if x.dtype is not out.dtype:
            raise DTypeError(f"gather keeps the dtype: x is {x.dtype} and out is {out.dtype}; cast one with astype()")
        self.needs_plain("gather", x.dtype)
        word = "ulong2" if x.dtype.itemsize == 16 else WORDS[x.dtype.itemsize][0]
        index = index_type(indices)
        outer, size_c, inner = out.shape
        if outer * size_c * inner == 0:
            return
        chunk = min(inner, COPIED) if self.is_cpu else 1
        chunks = -(-inner // chunk)
        group = self.work_group_size
        kernel = self.kernel(
            "gather.cl",
            "gather",
            (("WORD", word), ("INDEX", index), ("FAULT", GATHER_FAULT), ("WORK_GROUP_SIZE", group)),
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 9, *(np.uint64,) * 6),
        )
        operands = (memory(x), x.offset, memory(indices), indices.offset, memory(out), out.offset, self.faults.mem)
        strides = (*x.strides, *indices.strides, *out.strides)
        extents = (outer, x.shape[1], size_c, inner, chunk, chunks)
        self.launch(kernel, _whole_groups(outer * size_c * chunks, group), (group,), *operands, *strides, *extents)
        self.faults_pending = True

    def scatter_add(self, updates: View, indices: View, out: View) -> None:
        """out[o, indices[o, c, i], i] += updates[o, c, i]. See :class:`~netcl.backends.base.ArrayOperations`.

        Notes
        -----
        No atomics: each sum has one owner and runs in the order of c. Sums into float16 and bfloat16 are formed in
        float32 and rounded once. Where an index is out of range nothing is added, and the next call that blocks raises
        ``IndexError``.

        Raises
        ------
        ShapeError
            If ``indices`` and ``updates`` differ in shape, or from ``out`` in the outer or inner extent.
        DTypeError
            If ``indices`` is neither int32 nor int64, or the device cannot compute with a dtype.
        """
        _check_shapes("scatter_add", out, indices, updates)
        self.require(updates.dtype, out.dtype)
        self.needs_plain("scatter_add", updates.dtype, out.dtype)
        index = index_type(indices)
        outer, size_n, inner = out.shape
        if updates.shape[0] * updates.shape[1] * updates.shape[2] == 0:
            return
        target, offset, strides, dtype = memory(out), out.offset, out.strides, out.dtype
        sums = None
        if out.dtype.compute is not out.dtype:
            dtype = out.dtype.compute
            sums = self.alloc(max(outer * size_n * inner, 1), dtype)
            self._zero(sums)
            target, offset, strides = sums.mem, 0, (size_n * inner, inner, 1)
        self._add(updates, indices, index, target, offset, strides, dtype, out.shape)
        if sums is not None and outer * size_n * inner:
            self._add_rounded(sums.mem, out)

    def _zero(self, sums: CLBuffer) -> None:
        # Not as OpenCL fills buffers: Oclgrind would take the result for uninitialised.
        width, group = 8, self.work_group_size
        defines = (("WORD", "uint"), ("WIDTH", width), ("RUN", 1), ("WORK_GROUP_SIZE", group))
        kernel = self.kernel("fill.cl", "fill", defines, arguments=(np.uint32, None, np.uint64, np.uint64))
        self.launch(kernel, _whole_groups(-(-sums.size // width), group), (group,), 0, sums.mem, 0, sums.size)

    def _add(
        self,
        updates: View,
        indices: View,
        index: str,
        target: cl.Buffer,
        offset: int,
        strides: tuple[int, ...],
        dtype: DType,
        shape: tuple[int, ...],
    ) -> None:
        outer, size_n, inner = shape
        chunk = min(inner, ADDED) if self.is_cpu else 1
        chunks = -(-inner // chunk)
        # Where few work-items would do all the adding, several share a column, each with a range of its rows.
        group = 1 if self.is_cpu else self.work_group_size
        wanted = self.cl_device.max_compute_units * (2 if self.is_cpu else 4 * group)
        parts = max(min(wanted // (outer * chunks), size_n), 1)
        kernel = self.kernel(
            "scatter_add.cl",
            "scatter_add",
            (
                ("X", TAG[updates.dtype]), ("OUT", TAG[dtype]), ("INDEX", index), ("FAULT", SCATTER_FAULT),
                ("WORK_GROUP_SIZE", group),
            ),
            arguments=(*(None, np.uint64) * 3, None, *(np.int64,) * 9, *(np.uint64,) * 7),
        )  # fmt: skip
        operands = (memory(updates), updates.offset, memory(indices), indices.offset, target, offset, self.faults.mem)
        extents = (outer, size_n, updates.shape[1], inner, chunk, chunks, parts)
        self.launch(
            kernel,
            _whole_groups(outer * parts * chunks, group),
            (group,),
            *(*operands, *updates.strides, *indices.strides, *strides, *extents),
        )
        self.faults_pending = True

    def _add_rounded(self, sums: cl.Buffer, out: View) -> None:
        group = self.work_group_size
        kernel = self.kernel(
            "scatter_add.cl",
            "scatter_add_rounded",
            (("OUT", TAG[out.dtype]), ("WORK_GROUP_SIZE", group)),
            arguments=(None, None, np.uint64, *(np.int64,) * 3, *(np.uint64,) * 3),
        )
        outer, size_n, inner = out.shape
        size = _whole_groups(outer * size_n * inner, group)
        self.launch(kernel, size, (group,), sums, memory(out), out.offset, *out.strides, *out.shape)


def _whole_groups(items: int, group: int) -> tuple[int]:
    return (-(-items // group) * group,)


def _check_shapes(call: str, indexed: View, indices: View, picked: View) -> None:
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
