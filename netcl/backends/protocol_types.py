"""The plain types of the backend protocol: pieces of device memory, the step block, and what a device is.

:mod:`netcl.backends.base` offers them all beside the protocol. This file imports neither NumPy nor pyopencl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from netcl.dtypes import DType, float32
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
log_beta)`` for both betas; and the number itself, in three digits to the base :data:`COUNT_BASE`, which float32 holds
exactly: ``count_low + COUNT_BASE * (count_middle + COUNT_BASE * count_high)``, below 2**64."""

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


# Named tuples: every call makes some of them, and a frozen dataclass takes twice as long to make.
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


class BlockFormat(NamedTuple):
    """How numbers are kept in codes of 8 or 4 bits and one float32 for each block: its largest absolute value.

    :mod:`netcl.quantization` says what a code is worth.

    Attributes
    ----------
    bits : int
        8 or 4, of which two share a byte, the earlier one in its low half.
    signed : bool
        Whether numbers may be negative.
    """

    bits: int
    signed: bool

    @property
    def block(self) -> int:
        """Elements of a block: a divisor of :data:`CHUNK`."""
        return 256 if self.bits == 8 else 128

    @property
    def per_byte(self) -> int:
        """Codes that share a byte."""
        return 8 // self.bits

    @property
    def compute(self) -> DType:
        """What is computed with."""
        return float32


class BlockSpan(NamedTuple):
    """Adjacent numbers in whole blocks of few bits: codes (uint8) and the scale of each block (float32)."""

    codes: Span
    scales: Span
    format: BlockFormat

    @property
    def dtype(self) -> DType:
        """What is computed with."""
        return self.format.compute

    @property
    def size(self) -> int:
        """Numbers."""
        return self.codes.size * self.format.per_byte

    def part(self, start: int, size: int) -> BlockSpan:
        """The blocks of ``size`` of these numbers, from number ``start`` on, with which a block begins."""
        block, per_byte = self.format.block, self.format.per_byte
        blocks = -(-size // block)
        return BlockSpan(
            self.codes.part(start // per_byte, blocks * block // per_byte),
            self.scales.part(start // block, blocks),
            self.format,
        )


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


@dataclass(frozen=True, slots=True)
class TensorRule:
    """An update by values of whole tensors: a pass that makes a direction, its norms, and a pass that follows it.

    The state of a tensor are its fields and, as the last, the direction ``u``, all of the compute dtype.

    Attributes
    ----------
    direction : Expression
        ``(p, g, *state)`` to ``(p, *state)``, as a rule of ``fused_update``. It leaves ``p`` alone.
    measured : tuple of Expression
        Of what the norms are taken, at most two: each makes one value of ``(p, *state)`` after the first pass.
    ratio : Expression
        ``(*norms, number of elements)`` to one number for each tensor; ``hyper`` leaves as in a rule.
    update : Expression
        ``(p, u, *fields)`` to ``(p, *fields)``; ``hyper`` leaves as in a rule, and ``"ratio"`` for the ratio.
    key : str
        Rules with the same key compute the same thing.
    """

    direction: Expression
    measured: tuple[Expression, ...]
    ratio: Expression
    update: Expression
    key: str = field(init=False)

    def __post_init__(self) -> None:
        parts = (self.direction, *self.measured, self.ratio, self.update)
        object.__setattr__(self, "key", "\n".join([part.key for part in parts]))


RECORDS = 4
"""Values of scratch for each chunk and each tensor of a :class:`TensorMap`."""


@dataclass(frozen=True, slots=True)
class TensorMap:
    """Which chunks are which tensor's. The chunks of a tensor are adjacent, and those of an earlier one come earlier.

    Attributes
    ----------
    starts : sequence of int
        The first chunk of each tensor, and behind the last the number of chunks. A tensor without elements has none.
    first : Span
        The same on the device, as int64.
    of_chunk : Span
        The number of each chunk's tensor, as uint16.
    sizes : Span
        How many elements each tensor has, in the compute dtype.
    records : Span
        Scratch: ``RECORDS * (chunks + tensors)`` values of the compute dtype, with which a backend does as it likes.
    largest : int
        Chunks of the largest tensor.
    """

    starts: Sequence[int]
    first: Span
    of_chunk: Span
    sizes: Span
    records: Span
    largest: int = field(init=False)

    def __post_init__(self) -> None:
        pairs = zip(self.starts, self.starts[1:], strict=False)
        object.__setattr__(self, "largest", max((end - start for start, end in pairs), default=0))

    @property
    def count(self) -> int:
        """How many tensors there are."""
        return len(self.starts) - 1


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
        More text, a part of which selects the device as a part of its name or platform does.
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
