"""The optimizer step: norms, the decision on the device, and the fused updates."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyopencl as cl

from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, ROW, Span, StepBlock
from netcl.backends.opencl.codegen.scalars import number
from netcl.backends.opencl.codegen.storage import SCALAR, TAG
from netcl.backends.opencl.codegen.update_rule import check_rule, rule_text
from netcl.backends.opencl.codegen.writer import value_dtypes
from netcl.backends.opencl.device.program import Defines, compose
from netcl.backends.opencl.device.queue import Core, memory
from netcl.dtypes import DType, float32, float64, uint16
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.expression import Expression

KEPT_LAUNCHES = 256
"""Launches kept in one step block, before they are all forgotten."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the elements of a span are dealt out among work-items: the knobs of ``kernels/step.clh``."""

    width: int
    run: int
    group: int
    interleaved: int

    def defines(self) -> Defines:
        return (
            ("WIDTH", self.width),
            ("RUN", self.run),
            ("WORK_GROUP_SIZE", self.group),
            ("INTERLEAVED", self.interleaved),
        )


@dataclass(slots=True)
class Launch:
    """A kernel that is ready to run, and the operands it was made for, which it does not keep alive.

    Either the kernel is its own and its arguments are set, or it is shared and ``arguments`` are to be.
    """

    kernel: cl.Kernel
    global_size: tuple[int, ...]
    local_size: tuple[int, ...]
    operands: tuple[tuple[weakref.ref[Any], int, int], ...]
    arguments: tuple[Any, ...] = ()
    max_norm: float = math.inf

    def fits(self, spans: Sequence[Span]) -> bool:
        """Whether the arguments are those of ``spans``."""
        return all(
            buffer() is span.buffer and offset == span.offset and size == span.size
            for (buffer, offset, size), span in zip(self.operands, spans, strict=True)
        )


def _references(spans: Sequence[Span]) -> tuple[tuple[weakref.ref[Any], int, int], ...]:
    return tuple((weakref.ref(span.buffer), span.offset, span.size) for span in spans)


def _arguments(*spans: Span) -> list[Any]:
    """Buffer and offset of each span."""
    return [argument for span in spans for argument in (memory(span), span.offset)]


def _real(value: float, dtype: DType) -> Any:
    """A number as a kernel argument; one that the dtype does not hold is infinite, without a warning."""
    return SCALAR[dtype](number(value, dtype))


def _order(ord: float) -> int:
    """The knob ORDER: which p-norm a kernel is built for."""
    if math.isnan(ord) or ord <= 0:
        raise HyperParameterError(f"the p of a norm must be positive or infinite, got {ord}")
    return -1 if math.isinf(ord) else int(ord) if ord in (1, 2) else 0


class UpdateCalls(Core):
    """norm_reduce, prepare_step and the fused updates of :class:`~netcl.backends.base.UpdateOperations`."""

    def shape(self, call: str, fields: Sequence[Span], block: StepBlock, rule: Expression | None) -> Shape:
        """The knobs of a fused update of ``fields`` by ``rule``."""
        dtypes = [block.header.dtype, *(span.dtype for span in fields), *(value_dtypes(rule) if rule else ())]
        width, run, group, interleaved = (number for _, number in self.knobs(call))
        narrowed = self.lanes(call, *dtypes, most=width)
        return Shape(narrowed, run * width // narrowed, group, interleaved)

    def _ready(
        self,
        call: str,
        defines: Defines,
        types: Sequence[Any],
        arguments: Sequence[Any],
        sizes: tuple[int, int],
        spans: Sequence[Span],
        *,
        kept: bool = True,
        generated: str = "",
    ) -> Launch:
        """A launch of ``groups`` work-groups of ``group`` work-items; making a kernel pays off if it is kept."""
        groups, group = sizes
        make = self.own_kernel if kept else self.kernel
        kernel = make(f"{call}.cl", call, defines, generated, tuple(types))
        if kept:
            kernel.set_args(*arguments)
        return Launch(kernel, (groups * group,), (group,), _references(spans), () if kept else tuple(arguments))

    def norm_partials(self, n: int) -> int:
        """How many records ``norm_reduce`` writes for ``n`` elements: one for each piece of a fixed size."""
        return max(1, -(-n // dict(self.knobs("norm_reduce"))["PIECE"]))

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
        """Records of a p-norm. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If ``ord`` is not positive.
        ShapeError
            If ``partials`` has no room for the records, or ``rows`` does not cover x or comes without a block.
        DTypeError
            If the records cannot hold the norm, an operand differs from them in dtype, or the device cannot compute
            with it.
        """
        order = _order(ord)
        spans = [span for span in (x, partials, multiplier, rows, block.hyper if block else None) if span is not None]
        key = ("norm_reduce", ord, id(x.buffer), x.offset, x.size, rows is not None, multiplier is not None)
        launch = None if block is None else block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind_norm(x, partials, ord, order, multiplier, rows, block, spans)
            if block is not None:
                _keep(block, key, launch)
        self.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def _bind_norm(
        self,
        x: Span,
        partials: Span,
        ord: float,
        order: int,
        multiplier: Span | None,
        rows: Span | None,
        block: StepBlock | None,
        spans: Sequence[Span],
    ) -> Launch:
        compute = partials.dtype
        count = self.norm_partials(x.size)
        self.require(x.dtype, compute)
        if not x.dtype.is_floating:
            raise DTypeError(f"norm_reduce takes floating-point elements, got {x.dtype}; cast with astype() first")
        if compute not in (x.dtype.compute, float64):
            raise DTypeError(f"the norm of {x.dtype} elements needs records of {x.dtype.compute}, got {compute}")
        if partials.size < 2 * count:
            raise ShapeError(
                f"the norm of {x.size} elements has {count} records of 2 values, got room for {partials.size} values; "
                "ask norm_partials(n) how many there are"
            )
        _same_compute(compute, multiplier=multiplier)
        knobs = dict(self.knobs("norm_reduce"))
        items = knobs["LANES"]
        defines: Defines = (
            *_reals(compute),
            ("WIDTH", self.lanes("norm_reduce", compute, x.dtype, most=knobs["WIDTH"])),
            ("LANES", items),
            ("PIECE", knobs["PIECE"]),
            ("X", TAG[x.dtype]),
            ("WIDE", int(compute is float64)),
            ("WIDEN", int(compute is not x.dtype.compute)),
            ("ORDER", order),
            ("MULTIPLIED", int(multiplier is not None)),
            ("MAPPED", int(rows is not None)),
        )
        real = SCALAR[compute]
        types: list[Any] = [None, np.uint64, np.uint64, None, np.uint64, real]
        arguments = [*_arguments(x), x.size, *_arguments(partials), _real(ord, compute)]
        if multiplier is not None:
            types += [None, np.uint64]
            arguments += _arguments(multiplier)
        if rows is not None:
            if block is None or block.hyper is None:
                raise ShapeError("norm_reduce reads the rows of a step block; pass block= with rows=, or neither")
            _check_rows(rows, x.size)
            _same_compute(compute, hyper=block.hyper)
            defines += (("COLUMNS", len(block.columns)),)
            types += [None, np.uint64, None, np.uint64]
            arguments += _arguments(block.hyper, rows)
        return self._ready("norm_reduce", defines, types, arguments, (count, items), spans, kept=block is not None)

    def prepare_step(
        self,
        block: StepBlock,
        partials: Span | None = None,
        *,
        ord: float = 2.0,
        max_norm: float = float("inf"),
        loss_scale: Span | None = None,
    ) -> None:
        """Decide a step on the device. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If ``ord`` is not positive.
        ShapeError
            If header, hyper-parameters or counters are smaller than the block says.
        DTypeError
            If they differ in dtype, or the device cannot compute with it.
        """
        order = _order(ord)
        spans = _block_spans(block, partials, loss_scale)
        key = ("prepare_step", ord, block.slot, partials is not None, loss_scale is not None)
        launch = block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind_prepare(block, partials, loss_scale, ord, order, max_norm, spans)
            if block.rows:
                _keep(block, key, launch)
        elif partials is not None and launch.max_norm != max_norm:
            launch.kernel.set_arg(3, _real(max_norm, block.header.dtype))
            launch.max_norm = max_norm
        self.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def _bind_prepare(
        self,
        block: StepBlock,
        partials: Span | None,
        loss_scale: Span | None,
        ord: float,
        order: int,
        max_norm: float,
        spans: Sequence[Span],
    ) -> Launch:
        compute = block.header.dtype
        self.require(compute)
        _check_block(block)
        real = SCALAR[compute]
        types: list[Any] = [None, np.uint64]
        arguments = _arguments(block.header)
        if partials is not None:
            _same_compute(compute, partials=partials)
            types += [real, real, None, np.uint64, np.uint64]
            arguments += [_real(ord, compute), _real(max_norm, compute), *_arguments(partials), partials.size // 2]
        if loss_scale is not None:
            _check_loss_scale(loss_scale, partials)
            types += [None, np.uint64]
            arguments += _arguments(loss_scale)
        if block.rows:
            types += [None, np.uint64] * 3 + [np.uint64]
            arguments += [*_arguments(*_tables(block)), block.rows]
        self.needs_plain("prepare_step", compute)
        ((_, group),) = self.knobs("prepare_step")
        defines: Defines = (
            *_reals(compute),
            *_columns(block),
            ("WORK_GROUP_SIZE", group),
            ("WIDE", int(compute is float64)),
            ("ORDER", order),
            ("RECORDS", int(partials is not None)),
            ("LOSS_SCALED", int(loss_scale is not None)),
            ("ROWS", int(block.rows > 0)),
        )
        # A block without rows is made for one norm; one with rows lives as long as an optimizer.
        ready = self._ready("prepare_step", defines, types, arguments, (1, group), spans, kept=block.rows > 0)
        ready.max_norm = max_norm
        return ready

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
        """One pass of Adam in any variant. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If the block's columns are not :data:`~netcl.backends.base.ADAM_COLUMNS`.
        ShapeError
            If the spans differ in size, or the row map or block is too small.
        DTypeError
            If the spans are not of the block's compute dtype, or the device cannot compute with it.
        """
        state = (exp_avg, exp_avg_sq) if max_exp_avg_sq is None else (exp_avg, exp_avg_sq, max_exp_avg_sq)
        if block.columns != ADAM_COLUMNS:
            raise HyperParameterError(
                f"fused_adam reads the columns {', '.join(ADAM_COLUMNS)}, got a block with {', '.join(block.columns)}"
            )
        self._fused("fused_adam", None, (p, g, *state), block, rows, advance)

    def fused_update(
        self, rule: Expression, p: Span, g: Span, state: Sequence[Span], block: StepBlock, rows: Span, *, advance: bool
    ) -> None:
        """One pass of an elementwise rule. See :class:`~netcl.backends.base.UpdateOperations`. Does not block.

        Raises
        ------
        HyperParameterError
            If the rule reads a hyper-parameter that the block does not have.
        ShapeError
            If the spans differ in size or number from what the rule says, or the row map or block is too small.
        DTypeError
            If a span does not have the rule's dtype, or the device cannot compute with it.
        """
        self._fused("fused_update", rule, (p, g, *state), block, rows, advance)

    def update_source(self, rule: Expression | None, fields: Sequence[Span], block: StepBlock) -> str:
        """The OpenCL C of an update, as the compiler gets it for a step without clipping. Does not block.

        See :class:`~netcl.backends.base.UpdateSource`.
        """
        call = "fused_adam" if rule is None else "fused_update"
        shape = self.shape(call, fields, block, rule)
        return compose(f"{call}.cl", *_program(rule, fields, block, shape, True))

    def _fused(
        self, call: str, rule: Expression | None, fields: tuple[Span, ...], block: StepBlock, rows: Span, advance: bool
    ) -> None:
        p = fields[0]
        spans = [*fields, rows, *_block_spans(block, None)]
        key = (call, rule and rule.key, len(fields), id(p.buffer), p.offset, p.size, block.slot, advance)
        launch = block.bound.get(key)
        if launch is None or not launch.fits(spans):
            launch = self._bind_fused(call, rule, fields, block, rows, advance, spans)
            _keep(block, key, launch)
        if launch.global_size[0]:
            self.launch(launch.kernel, launch.global_size, launch.local_size, *launch.arguments)

    def _bind_fused(
        self,
        call: str,
        rule: Expression | None,
        fields: tuple[Span, ...],
        block: StepBlock,
        rows: Span,
        advance: bool,
        spans: Sequence[Span],
    ) -> Launch:
        p = fields[0]
        compute = block.header.dtype
        self.require(compute)
        _check_block(block)
        if not block.rows:
            raise ShapeError(f"{call} needs a step block with rows; give it hyper, counters and the number of rows")
        if any(span.size != p.size for span in fields):
            sizes = ", ".join(str(span.size) for span in fields)
            raise ShapeError(f"{call} needs parameters, gradients and state of one size, got {sizes} elements")
        _check_rows(rows, p.size)
        _same_compute(compute, **{f"operand {i}": span for i, span in enumerate(fields)})
        shape = self.shape(call, fields, block, rule)
        defines, generated = _program(rule, fields, block, shape, advance)
        types = ([None, np.uint64] * 4) + [np.uint64, None, np.uint64, np.uint64] + [None, np.uint64] * len(fields)
        arguments = [*_arguments(block.header, *_tables(block)), block.rows, *_arguments(rows), p.size]
        arguments += _arguments(*fields)
        groups = -(-p.size // (shape.width * shape.run * shape.group)) + advance
        return self._ready(call, defines, types, arguments, (groups, shape.group), spans, generated=generated)


def _program(
    rule: Expression | None, fields: Sequence[Span], block: StepBlock, shape: Shape, advance: bool
) -> tuple[Defines, str]:
    """Defines and generated part of a fused update."""
    p, g, *state = fields
    defines: Defines = (
        *_reals(block.header.dtype),
        *_columns(block),
        *shape.defines(),
        ("ADVANCE", int(advance)),
        ("P", TAG[p.dtype]),
        ("G", TAG[g.dtype]),
    )
    if rule is None:
        defines += (("LARGEST", int(len(state) == 3)),)
        defines += tuple((name, TAG[span.dtype]) for name, span in zip(("M", "V", "V_MAX"), state, strict=False))
        return defines, ""
    check_rule(rule, fields, block.columns)
    return defines, rule_text(rule, block.columns, shape.width)


def _keep(block: StepBlock, key: Any, launch: Launch) -> None:
    # Callers with ever new spans must not fill the memory.
    if len(block.bound) >= KEPT_LAUNCHES:
        block.bound.clear()
    block.bound[key] = launch


def _block_spans(block: StepBlock, partials: Span | None, loss_scale: Span | None = None) -> list[Span]:
    """Everything of a block that a launch may read, the records, and the loss scale."""
    spans = (block.header, block.hyper, *(block.counters or ()), partials, loss_scale)
    return [span for span in spans if span is not None]


def _tables(block: StepBlock) -> tuple[Span, Span, Span]:
    """Hyper-parameters, and the counters of the coming step and of the one after it."""
    assert block.hyper is not None
    assert block.counters is not None
    return block.hyper, block.counters[block.slot], block.counters[1 - block.slot]


def _reals(compute: DType) -> Defines:
    return (("REAL", TAG[compute]), ("CHUNK", CHUNK))


def _columns(block: StepBlock) -> Defines:
    """Where a block keeps what the counters depend on."""
    places = tuple(
        (f"{name.upper()}_COLUMN", block.columns.index(name) if name in block.columns else -1)
        for name in ("log_beta1", "log_beta2")
    )
    return (("COLUMNS", len(block.columns)), *places)


def _same_compute(compute: DType, **spans: Span | None) -> None:
    for name, span in spans.items():
        if span is not None and span.dtype.compute is not compute:
            raise DTypeError(
                f"{name} has dtype {span.dtype}, computed in {span.dtype.compute}, but the step is computed in "
                f"{compute}; use one compute dtype for parameters, gradients, state and step block"
            )


def _check_rows(rows: Span, n: int) -> None:
    chunks = -(-n // CHUNK)
    if rows.dtype is not uint16 or rows.size < chunks:
        raise ShapeError(
            f"the row map of {n} elements is {chunks} entries of uint16, one for each chunk of {CHUNK}; "
            f"got {rows.size} of {rows.dtype}"
        )


def _check_loss_scale(loss_scale: Span, partials: Span | None) -> None:
    if partials is None or loss_scale.size < 2 or loss_scale.dtype is not float32:
        raise ShapeError(
            f"a loss scale is two float32 values and comes with the records of a norm, got {loss_scale.size} of "
            f"{loss_scale.dtype} {'without' if partials is None else 'with'} records"
        )


def _check_block(block: StepBlock) -> None:
    sizes = [("header", block.header, len(HEADER))]
    if block.rows:
        if block.hyper is None or block.counters is None:
            raise ShapeError(f"a step block of {block.rows} rows needs hyper and counters, got None")
        if block.columns[: len(ROW)] != ROW:
            raise ShapeError(f"the columns of a step block start with {ROW}, got {block.columns}")
        sizes.append(("hyper", block.hyper, block.rows * len(block.columns)))
        sizes += [(f"counters[{i}]", span, block.rows * len(COUNTERS)) for i, span in enumerate(block.counters)]
    for name, span, least in sizes:
        if span.size < least:
            raise ShapeError(f"{name} of a step block with {block.rows} rows needs {least} values, got {span.size}")
        if span.dtype is not block.header.dtype or span.dtype is not span.dtype.compute or not span.dtype.is_floating:
            raise DTypeError(f"{name} of a step block must be float32 or float64 throughout, got {span.dtype}")
