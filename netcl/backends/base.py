"""The backend protocol: what a backend must offer, and what provides one, with the plain types that they exchange.

The optimizers see :class:`UpdateOperations`; Tensor and autograd see :class:`ArrayOperations`; memory that host and
device both work on goes through :class:`HostOperations`. Everything a call touches is owned by the caller, nothing is
returned but what is said, and nothing waits for the device except the calls marked **blocks**. Calls on one backend
take effect in the order in which they are made.

This file imports neither NumPy nor pyopencl.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from netcl.backends.protocol_types import (
    ADAM_COLUMNS,
    CHUNK,
    COUNT_BASE,
    COUNTERS,
    HEADER,
    RECORDS,
    ROW,
    SHIFT,
    BlockFormat,
    BlockSpan,
    Buffer,
    Device,
    HostArray,
    Scalar,
    Span,
    StepBlock,
    TensorMap,
    TensorRule,
    View,
    counter_row,
    header_entry,
)
from netcl.dtypes import DType
from netcl.expression import Expression

__all__ = [
    "ADAM_COLUMNS", "ArrayOperations", "Backend", "BackendProvider", "BlockFormat", "BlockSpan", "Buffer", "CHUNK",
    "COUNTERS", "COUNT_BASE", "CPU_DEVICE", "Device", "EXTENSION_DEVICE", "HEADER", "HostArray", "HostMapping",
    "HostOperations", "NAMED_ONLY", "OPENCL_DEVICE", "PREFER_ACCELERATOR", "PREFER_CPU", "PREFER_GPU",
    "PREFER_REFERENCE", "RECORDS", "ROW", "SHIFT", "Scalar", "Span", "StepBlock", "TensorMap", "TensorRule",
    "UpdateOperations", "UpdateSource", "View", "counter_row", "header_entry",
]  # fmt: skip


class UpdateOperations(Protocol):
    """What optimizers, clipping and loss scaling are written against.

    Every operand is flat. ``a`` is a Python number or a one-element span, read on the device. float16 and bfloat16
    operands are widened to float32 and rounded to nearest even on the store.
    """

    def alloc(self, n: int, dtype: DType) -> Buffer:
        """A buffer of ``n`` elements with unspecified contents. ``n = 0`` is legal."""
        ...

    def upload(self, host: HostArray, out: Span) -> None:
        """Host to device. The backend copies ``host`` or keeps it alive until it has been read."""
        ...

    def download(self, x: Span) -> HostArray:
        """Device to host: a new one-dimensional array. **Blocks**, and raises what was deferred."""
        ...

    def synchronize(self) -> None:
        """Return when every call made so far has taken effect. **Blocks**, and raises what was deferred."""
        ...

    def fill(self, x: Span, a: Scalar) -> None:
        """x ← a. Zeroing goes here and never through ``scale``: 0·NaN is NaN."""
        ...

    def scale(self, a: Scalar | Span, x: Span) -> None:
        """x ← a·x."""
        ...

    def axpy(self, a: Scalar | Span, x: Span, y: Span) -> None:
        """y ← a·x + y."""
        ...

    def norm_partials(self, n: int) -> int:
        """How many records ``norm_reduce`` writes for ``n`` elements: a function of ``n`` and the device alone."""
        ...

    def norm_reduce(
        self,
        x: Span,
        partials: Span,
        ord: float,
        *,
        multiplier: Span | None = None,
        rows: Span | None = None,
        block: StepBlock | None = None,
    ) -> None:
        """Fixed-order partial results of a p-norm, without atomics: the same input gives the same bits.

        Writes ``norm_partials(x.size)`` records of two values (``scale``, ``sum``) with ``sum = Σ (|x|/scale)^p``; for
        ``ord = inf`` the scale is the maximum and the sum only carries NaN. No finite input overflows or underflows.
        ``multiplier`` (one element) is applied to x before the power. With ``rows`` and ``block``, chunks of inactive
        rows count as zero.
        """
        ...

    def prepare_step(
        self,
        block: StepBlock,
        partials: Span | None = None,
        *,
        ord: float = 2.0,
        max_norm: float = float("inf"),
        loss_scale: Span | None = None,
    ) -> None:
        """One work-group that decides a step on the device.

        From ``partials`` (all records of one step, adjacent; ``None`` leaves the norm alone and the multiplier 1) it
        writes norm, ``nonfinite`` and ``multiplier = min(1, max_norm / norm)``: 1 for a zero norm or gradients that are
        not finite; with ``shift`` where that is not a normal number.
        ``loss_scale`` (two float32 values: the factor that the gradients carry, and nonzero if a non-finite gradient
        was found elsewhere) comes with ``partials``: norm and multiplier are then divided by the factor, and ``skip``
        is set if any gradient is not finite. Otherwise ``skip`` is cleared. If the block has rows it renews the bias
        corrections of the coming step in ``counters[slot]`` and writes the step after it to the other slot: advanced
        for active rows, copied for the others or when ``skip`` is set.
        """
        ...

    def fused_adam(
        self,
        p: Span,
        g: Span,
        exp_avg: Span,
        exp_avg_sq: Span,
        max_exp_avg_sq: Span | None,
        block: StepBlock,
        rows: Span,
        *,
        advance: bool,
    ) -> None:
        """One pass of Adam in any variant. Columns: :data:`ADAM_COLUMNS`; with ``max_exp_avg_sq``, AMSGrad in the rows
        that say so.

        Per element, with g scaled by multiplier·sign/2^shift: g ← g + l2·p; m ← β1·m + (1-β1)·g; v ← β2·v + (1-β2)·g²;
        p ← p - lr·((m/c1) / (sqrt(v/c2) + eps) + decay·p). ``rows`` holds one uint16 per chunk of ``p``. If ``skip`` is
        set no byte changes. ``advance`` says that no ``prepare_step`` came before, so that this call writes the other
        counter slot; of several calls in one step exactly one may.
        """
        ...

    def fused_update(
        self,
        rule: Expression,
        p: Span,
        g: Span,
        state: Sequence[Span | BlockSpan],
        block: StepBlock,
        rows: Span,
        *,
        advance: bool,
    ) -> None:
        """One pass of any other elementwise rule; ``rows`` and ``advance`` as in ``fused_adam``.

        The expression's inputs are ``(p, g, *state)``, its outputs ``(p, *state)``; its ``hyper`` leaves name columns
        of the block or :data:`COUNTERS`. The gradient reaches it scaled by multiplier·sign/2^shift. One more input, an
        int32, is the number of the element, modulo 2^32: ``CHUNK * rows.offset`` and its place in ``p``.

        A state field of few bits (``BlockSpan``) has the block of every element of ``p``, to the end of the last one,
        with zeros behind the last element. The rule meets its numbers as float32. Its blocks get new scales and codes;
        numbers of inactive rows, and all where ``skip`` is set, stay as they are.
        """
        ...

    def tensor_update(
        self,
        rule: TensorRule,
        p: Span,
        g: Span | None,
        state: Sequence[Span],
        block: StepBlock,
        rows: Span,
        tensors: TensorMap,
        *,
        chunk: int,
        advance: bool,
    ) -> None:
        """Two passes of a rule with values of whole tensors: ``rule.direction``, and with the ratios ``rule.update``.

        Between them, for every tensor, ratio ← rule.ratio(Euclidean norms of rule.measured, number of elements). No
        finite tensor makes a norm overflow or underflow; the order of each sum is fixed. ``state`` ends with the
        direction. ``p`` begins with chunk ``chunk`` of ``tensors`` and holds whole tensors, all chunks of each in one
        row. ``g``, ``rows`` and ``advance`` as in ``fused_update``; without ``g`` there is a direction already, and the
        first pass is left out. If ``skip`` is set no byte changes but for the scratch.
        """
        ...


@runtime_checkable
class UpdateSource(Protocol):
    """What a backend may offer besides: the text of the program that runs an update."""

    def update_source(
        self, rule: Expression | TensorRule | None, fields: Sequence[Span | BlockSpan], block: StepBlock
    ) -> str:
        """The text of the kernels for ``rule``, or of ``fused_adam`` for None, as they are built.

        ``fields`` are (p, g, *state), as the step gets them. Nothing is launched.
        """
        ...


class ArrayOperations(Protocol):
    """What Tensor and autograd are written against. Outputs never overlap inputs unless they are the same view.

    Inputs of one call broadcast only through strides of 0: their shapes are already equal.
    """

    def map(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar] = ()
    ) -> None:
        """outputs ← expression(inputs), element by element. Casting, copying and broadcasting are maps too."""
        ...

    def reduce(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        """out ← op over ``axes`` of expression(inputs), in a fixed order.

        ``op`` is sum, prod, max, min, any or all. ``axes`` are sorted and not negative; ``out`` has the shape of the
        axes that remain. max and min propagate NaN and take no complex numbers. Over no elements: the identity of sum,
        prod, any, all. Sums of float32 are pairwise or wider, accumulated in float32 or more.
        """
        ...

    def scan(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        """out ← running op along ``axis`` of expression(inputs): out[i] is op of elements 0 to i, in a fixed order.

        ``op`` is sum, prod, max or min; max and min propagate NaN. ``out`` has the inputs' shape. Sums of float32 carry
        an error like that of a pairwise sum: they are accumulated wider, or in two levels.
        """
        ...

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        """out ← the elements of ``x`` in order along ``axis``; indices (int64) ← where in ``x`` each of them stood.

        Either may be None, not both. Equal elements keep their order, ascending and descending; -0.0 equals 0.0, and
        NaN comes last in both directions. Real dtypes and bool; ``out`` has the dtype of ``x``. A device that shares
        the host's memory may leave values without indices to the host: then this call **blocks**.
        """
        ...

    def arg_reduce(self, op: str, x: View, axis: int, out: View) -> None:
        """out (int64) ← index of the first maximum (``op="argmax"``) or minimum along ``axis``; a NaN wins."""
        ...

    def batched_matmul(self, a: View, b: View, out: View) -> None:
        """out[b, m, n] ← Σ_k a[b, m, k]·b[b, k, n], any strides, accumulated in float32 or wider."""
        ...

    def gather(self, x: View, indices: View, out: View) -> None:
        """out[o, c, i] ← x[o, indices[o, c, i], i]; ``indices`` is int32 or int64, usually broadcast over o and i.

        Negative indices count from the end. One out of range is reported at the next call that blocks.
        """
        ...

    def scatter_add(self, updates: View, indices: View, out: View) -> None:
        """out[o, indices[o, c, i], i] += updates[o, c, i], summed in the order of c; indices as in ``gather``."""
        ...

    def scatter(self, updates: View, indices: View, out: View) -> None:
        """out[o, indices[o, c, i], i] ← updates[o, c, i]: of several writes to one place the last in the order of c.

        ``indices`` as in ``gather``: for one out of range nothing is written, and the next call that blocks reports it.
        """
        ...

    def softmax(self, x: View, out: View, *, log: bool) -> None:
        """out ← softmax (or its logarithm) over the last axis of a two-dimensional view."""
        ...

    def softmax_cross_entropy(
        self, logits: View, labels: View, loss: View, gradient: View | None, label_smoothing: float, ignore_index: int
    ) -> None:
        """Per row r of ``logits`` (rows, classes): loss[r], and gradient[r, :] = ∂loss[r]/∂logits[r, :], in one pass.

        loss = (1-ε)·(lse - logits[label]) + ε·(lse - mean(logits)); both are zero where the label is ``ignore_index``.
        A label out of range is reported at the next call that blocks.
        """
        ...

    def random_bits(self, out: View, seed: int, offset: int) -> None:
        """Fill a contiguous uint32 view with Philox4x32-10, the same bits on every backend.

        Word j comes from counter ``(offset + j) // 4``, lane ``(offset + j) % 4``, key ``seed``.
        """
        ...


class HostMapping(Protocol):
    """Elements of a buffer that the host may read and write until it gives them back."""

    def array(self) -> HostArray:
        """The elements as a flat array. **Blocks** until the calls made before the mapping have taken effect.

        Where the device shares the host's memory, this is the buffer's own memory; else it is a copy.
        """
        ...

    def ready(self) -> bool:
        """Whether ``array`` would return at once."""
        ...

    def release(self) -> None:
        """Give the elements back with what the host wrote. Does not block; the array is not to be used any more."""
        ...


class HostOperations(Protocol):
    """How host and device work on the same memory: all-reduce through the host, and host arrays as parameters."""

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> Buffer:
        """A buffer of ``dtype`` that is the memory of a contiguous host array and keeps it alive, without a copy.

        Only where ``device.shares_host_memory``. The host may touch the array only while it is mapped.
        """
        ...

    def map_host(self, x: Span) -> HostMapping:
        """Hand ``x`` to the host. Does not block: calls made before come first, calls on ``x`` after must not be made
        until it is released."""
        ...


class Backend(UpdateOperations, ArrayOperations, HostOperations, Protocol):
    """A device that netcl can compute on. A :class:`BackendProvider` opens it."""

    @property
    def device(self) -> Device: ...

    def supports(self, dtype: DType) -> bool:
        """Whether arrays of this dtype can be computed with (not merely stored)."""
        ...


PREFER_GPU, PREFER_ACCELERATOR, PREFER_CPU, PREFER_REFERENCE, NAMED_ONLY = 40.0, 30.0, 20.0, 10.0, -1.0
"""What :meth:`BackendProvider.preference` answers for netcl's own devices. What is negative is used only when named."""

CPU_DEVICE, OPENCL_DEVICE, EXTENSION_DEVICE = 1, 4, 12
"""DLPack's numbers for kinds of devices, as far as netcl's own backends need them."""


@runtime_checkable
class BackendProvider(Protocol):
    """The devices of one runtime: what an entry point of the group ``netcl.backends`` stands for.

    The entry point's name is the backend's name. It names a provider, or a class or function without parameters that
    makes one; whatever keeps the runtime from being used is raised there, or by ``devices``, as a BackendError.

    Four more attributes are used where a provider has them. ``health(device, *, probe) -> (bool | None, str)`` says
    whether a device works, without opening it, and how that is known; ``probe`` asks to try it anew. Without it, a list
    of devices opens each. ``hint() -> str`` begins a sentence about devices that are missing from the list. ``part`` is
    a compiled pattern of what may follow a slash behind a device's name; the device to open carries it in ``part``.
    ``label`` is what the backend is called in a sentence.
    """

    def devices(self) -> Sequence[Device]:
        """Every device, numbered from 0 in ``index``, with the entry point's name in ``backend``. Opens none."""
        ...

    def open(self, device: Device) -> Backend:
        """The backend on one of these devices. Called once for each. **May block** while the device is tried.

        Raises
        ------
        BackendError
            If the device does not work.
        """
        ...

    def preference(self, device: Device) -> float:
        """How a device ranks where none is named: the highest one that works is the default; negative ones never are.

        netcl's own are at :data:`PREFER_GPU` (40), :data:`PREFER_ACCELERATOR` (30), :data:`PREFER_CPU` (20 to 22) and
        NumPy at :data:`PREFER_REFERENCE` (10).
        """
        ...

    def dlpack_device_type(self, device: Device) -> int:
        """DLPack's number for this kind of device, such as 1 for host memory and 4 for OpenCL."""
        ...
