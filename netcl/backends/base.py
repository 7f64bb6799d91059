"""The backend protocol: what a backend must offer, what provides one, and the plain types between them.

The optimizers see :class:`UpdateOperations`; Tensor and autograd see :class:`ArrayOperations`; memory that host and
device both work on goes through :class:`HostOperations`. Everything a call touches is owned by the caller, nothing is
returned but what is said, and nothing waits for the device except the calls marked **blocks**. Calls on one backend
take effect in the order in which they are made.

This file imports neither NumPy nor pyopencl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from netcl.dtypes import DType
from netcl.expression import Expression

HostArray: TypeAlias = Any
"""A ``numpy.ndarray`` of a buffer's storage dtype (bfloat16 travels as the uint16 of its bits)."""

Scalar: TypeAlias = "bool | int | float | complex"

CHUNK = 1024
"""Elements that share one entry of a row map. Tensors in an arena are padded to whole chunks."""

HEADER = ("multiplier", "skip", "norm", "norm_scale", "norm_root", "nonfinite", "shift", "reserved")
"""What the header of a step block holds, one value each: the factor on every gradient; nonzero to change nothing; the
total norm before clipping, infinite where the dtype does not hold it, and its two factors, which it does hold; nonzero
if a gradient is NaN or infinite; and a power of two to divide every gradient by before it meets the multiplier, 0 or
:data:`SHIFT`, so that the multiplier is a normal number for any norm."""

SHIFT = {4: 120, 8: 960}
"""The shift of a tiny multiplier, by the bytes of the header's dtype."""

COUNTERS = ("step", "bias_correction1", "bias_correction2", "count_low", "count_middle", "count_high")
"""What a counter row says of the *coming* step: its number (from 1), rounded to the row's dtype; ``-expm1(step *
log_beta)`` for both betas; and the number itself, in three digits to the base :data:`COUNT_BASE`, each of which float32
holds exactly: ``count_low + COUNT_BASE * (count_middle + COUNT_BASE * count_high)``, below 2**64."""

COUNT_BASE = 1 << 22
"""The base of the digits of a step's number."""

ROW = ("active", "sign")
"""The first columns of every hyper-parameter row: 0 leaves the row's chunks untouched; -1 maximizes, 1 minimizes."""

ADAM_COLUMNS = (
    *ROW, "lr", "beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "l2", "decay", "log_beta1", "log_beta2",
    "amsgrad",
)  # fmt: skip
"""The hyper-parameter row that ``fused_adam`` reads: ``l2`` is added to the gradient, ``decay`` to the update; nonzero
``amsgrad`` has the largest second moment kept and divided by, where there is one."""


@runtime_checkable
class Buffer(Protocol):
    """A flat one-dimensional piece of device memory. Freed when nothing refers to it any more."""

    @property
    def dtype(self) -> DType: ...

    @property
    def size(self) -> int:
        """Elements, not bytes."""
        ...


# Named tuples, for every call makes some of them and a frozen dataclass takes twice as long to make.
class Span(NamedTuple):
    """``size`` adjacent elements of a buffer, from element ``offset`` on."""

    buffer: Buffer
    offset: int
    size: int

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype

    def view(self) -> View:
        """The same elements as a one-dimensional array."""
        return View(self.buffer, self.offset, (self.size,), (1,))

    def part(self, start: int, size: int) -> Span:
        """``size`` of these elements, from element ``start`` on."""
        return Span(self.buffer, self.offset + start, size)

    def element(self, index: int) -> Span:
        """One of these elements."""
        return Span(self.buffer, self.offset + index, 1)


class View(NamedTuple):
    """A strided array in a buffer; offset and strides count elements. Stride 0 broadcasts, strides may be negative."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(slots=True)
class StepBlock:
    """The small device memory that tells a step what to do, so that a step reads no host. All of the compute dtype.

    Attributes
    ----------
    header : Span
        :data:`HEADER`.
    columns : tuple of str
        Names of the hyper-parameter columns: :data:`ROW`, then the rule's own. A rule whose columns include
        ``log_beta1`` (``log_beta2``) has its bias corrections kept.
    hyper : Span
        ``rows * len(columns)`` values, written by the host when a hyper-parameter changes.
    counters : tuple of two Spans
        ``rows * len(COUNTERS)`` values each. ``counters[slot]`` describes the coming step; the step writes the one
        after it to the other slot, and the caller flips ``slot`` when the step has been enqueued.
    rows : int
        How many rows there are: one for each group and step count.
    bound : dict
        For the backend: launches whose arguments are set already. Lives and dies with the block.
    """

    header: Span
    columns: tuple[str, ...] = ROW
    hyper: Span | None = None
    counters: tuple[Span, Span] | None = None
    rows: int = 0
    slot: int = 0
    bound: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def allocate(
        cls,
        put: Callable[[list[float]], Span],
        columns: tuple[str, ...] = ROW,
        rows: Sequence[Mapping[str, float]] = (),
        *,
        steps: Sequence[int] = (),
        header: Mapping[str, float] | None = None,
    ) -> StepBlock:
        """A block for the step that comes next.

        Parameters
        ----------
        put : callable
            ``put(numbers)`` brings a list of numbers to the device, in the block's dtype. Called for the header and, if
            there are rows, for the hyper-parameters, the counters of the coming step and the other slot, in this order.
        columns : tuple of str
        rows : sequence of mapping
            Hyper-parameters by column; what a row does not say is 0.
        steps : sequence of int
            The number of the coming step of each row; by default 1. Bias corrections are those of the row's
            ``log_beta1`` and ``log_beta2``, and 0 where it has none.
        header : mapping, optional
            What differs from a neutral header: multiplier 1, all else 0.
        """
        made = cls(put([{"multiplier": 1.0, **(header or {})}.get(name, 0.0) for name in HEADER]), columns)
        if rows:
            made.hyper = put([float(row.get(name, 0.0)) for row in rows for name in columns])
            counters = [counter_row(step, row) for step, row in zip(steps or [1] * len(rows), rows, strict=True)]
            now = put([value for counter in counters for value in counter])
            made.counters, made.rows = (now, put([0.0] * now.size)), len(rows)
        return made


def header_entry(header: Span, name: str) -> Span:
    """One value of :data:`HEADER`, of the header of a block."""
    return header.element(HEADER.index(name))


def counter_row(step: int, hyper: Mapping[str, float]) -> list[float]:
    """The :data:`COUNTERS` of a row whose coming step is number ``step``."""
    logs = [hyper.get(f"log_beta{i}") for i in (1, 2)]
    corrections = [0.0 if log is None else -math.expm1(step * log) for log in logs]
    return [step, *corrections, step % COUNT_BASE, step // COUNT_BASE % COUNT_BASE, step // COUNT_BASE**2]


@dataclass(frozen=True, slots=True)
class Device:
    """What a backend runs on.

    Attributes
    ----------
    backend : str
        ``"numpy"``, ``"opencl"`` or a plug-in's name.
    index : int
        Position among the backend's devices; ``str(device)`` is ``"opencl:1"``, or the bare name for NumPy.
    name, platform, driver : str
        As the runtime reports them.
    kind : {"cpu", "gpu", "accelerator"}
    memory : int
        Bytes; 0 if unknown.
    float16, float64 : bool
        Whether the device has native arithmetic of that width. float16 storage works on every device.
    shares_host_memory : bool
        Whether the host can map a buffer without a copy.
    part : str
        For a part of a device, which one: ``"0of2"``, as in ``"opencl:1/0of2"``.
    aliases : str
        More text of which a part selects the device, like a part of its name or platform.
    """

    backend: str
    index: int = 0
    name: str = ""
    platform: str = ""
    driver: str = ""
    kind: str = "cpu"
    memory: int = 0
    float16: bool = False
    float64: bool = True
    shares_host_memory: bool = False
    part: str = ""
    aliases: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        if self.backend == "numpy":
            return self.backend
        return f"{self.backend}:{self.index}" + (f"/{self.part}" if self.part else "")


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
        self, rule: Expression, p: Span, g: Span, state: Sequence[Span], block: StepBlock, rows: Span, *, advance: bool
    ) -> None:
        """One pass of any other elementwise rule; ``rows`` and ``advance`` as in ``fused_adam``.

        The expression's inputs are ``(p, g, *state)``, its outputs ``(p, *state)``; its ``hyper`` leaves name columns
        of the block or :data:`COUNTERS`. The gradient reaches it scaled by multiplier·sign/2^shift.
        """
        ...


@runtime_checkable
class UpdateSource(Protocol):
    """What a backend may offer besides: the program that runs an update, for somebody who wants to read it."""

    def update_source(self, rule: Expression | None, fields: Sequence[Span], block: StepBlock) -> str:
        """The text of the kernel for ``rule``, or of ``fused_adam`` for None, as it is built.

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
        axes that remain. max and min propagate NaN. Over no elements: the identity of sum, prod, any, all. Sums of
        float32 are pairwise or wider, accumulated in float32 or more.
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
    """How host and device work on the same memory: all-reduce through the host, and plain arrays as parameters."""

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
