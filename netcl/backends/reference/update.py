"""The update operations on any Array-API namespace: what the optimizers are written against."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, final

import numpy as np

from netcl.backends.base import CHUNK, COUNT_BASE, COUNTERS, HEADER, SHIFT, BlockSpan, Scalar, Span, StepBlock
from netcl.backends.composed.step import adam_rule
from netcl.backends.reference.arrays import ArrayCalls
from netcl.backends.reference.evaluation import Evaluation
from netcl.backends.reference.memory import Memory
from netcl.backends.reference.program import UPDATE_BLOCK, Program
from netcl.dtypes import DType, bool_, int32
from netcl.errors import ShapeError
from netcl.expression import Expression, Node, trace
from netcl.quantization import dequantize, quantize
from netcl.rounding import nearest

NORM_BLOCK = 65536
"""Elements per record of a norm."""


@cache
def _axpy(x: DType, y: DType) -> Expression:
    return trace(lambda x, y, a: a * x + y, (x, y), (y,), stored=(y,))


@cache
def _scale(x: DType) -> Expression:
    return trace(lambda x, a: a * x, (x,), (x,), stored=(x,))


@cache
def _with_factor(rule: Expression, *, shifted: bool) -> Expression:
    """The rule with its gradient, input 1, multiplied by ``gradient_factor``, and by ``prescale`` first if shifted."""
    dtype = rule.inputs[1].compute
    scaled = Node("input", (), dtype, 1)
    for name in ("prescale", "gradient_factor")[not shifted :]:
        scaled = Node("multiply", (scaled, Node("hyper", (), dtype, name)), dtype)
    return rule.rewrite(lambda node: scaled if node.op == "input" and node.value == 1 else node)


@final
class UpdateCalls:
    """:class:`~netcl.backends.base.UpdateOperations` over a namespace, but for those of its memory."""

    def __init__(self, memory: Memory, evaluation: Evaluation, arrays: ArrayCalls) -> None:
        self.map, self.reduce = evaluation.map, arrays.reduce  # for numbers in blocks of few bits
        self._memory = memory
        self._namespace = memory.namespace
        self._upload, self._download, self._number = memory.upload, memory.download, memory.number
        self._map = evaluation.map
        self._rules: dict[str, Program] = {}

    def fill(self, x: Span, a: Scalar) -> None:
        with np.errstate(all="ignore"):
            number = nearest(float(a), x.dtype) if x.dtype.kind == "f" else a  # type: ignore[arg-type]
            self._memory.store(x.view(), self._namespace.scalar(number, x.dtype.compute))

    def scale(self, a: Scalar | Span, x: Span) -> None:
        factor = self._number(a) if isinstance(a, Span) else a
        self._map(_scale(x.dtype), [x.view()], [x.view()], [factor])

    def axpy(self, a: Scalar | Span, x: Span, y: Span) -> None:
        if x.size != y.size:
            raise ShapeError(f"axpy adds spans of one size, got x of {x.size} and y of {y.size} elements")
        factor = self._number(a) if isinstance(a, Span) else a
        self._map(_axpy(x.dtype, y.dtype), [x.view(), y.view()], [y.view()], [factor])

    def norm_partials(self, n: int) -> int:
        return max(1, -(-n // NORM_BLOCK))

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
        factor = None if multiplier is None else self._number(multiplier)
        active = None
        if rows is not None and block is not None and block.hyper is not None:
            hyper = self._download(block.hyper).reshape(block.rows, -1)
            active = hyper[:, 0][self._download(rows).astype(np.int64)] != 0
        records = np.zeros((self.norm_partials(x.size), 2), np.dtype(partials.dtype.name))
        for record, start in zip(records, range(0, x.size, NORM_BLOCK), strict=False):
            size = min(NORM_BLOCK, x.size - start)
            values = self._memory.widened(x.part(start, size))
            if active is not None:
                chunks = active[start // CHUNK : -(-(start + size) // CHUNK)]
                if not chunks.any():
                    continue
                if not chunks.all():
                    values = self._masked(values, np.repeat(chunks, CHUNK)[:size])
            record[:] = self._power_sum(values, factor, ord)
        self._upload(records.reshape(-1), Span(partials.buffer, partials.offset, records.size))

    def _power_sum(self, values: Any, factor: Any, ord: float) -> tuple[float, float]:
        """The largest absolute value and the sum of the p-th powers of the others relative to it."""
        xp = self._namespace.xp
        with np.errstate(all="ignore"):
            values = xp.abs(values if factor is None else values * factor)
            scale = xp.max(values)
            if not math.isfinite(float(scale)):
                # The maximum propagates NaN, and infinity stands for itself.
                return float(scale), float("nan") if math.isnan(float(scale)) else 1.0
            if float(scale) == 0.0 or math.isinf(ord):
                return float(scale), 0.0
            values /= scale
            if ord == 2:
                values *= values
            elif ord != 1:
                values **= ord
            return float(scale), float(xp.sum(values))

    def _masked(self, values: Any, keep: Any) -> Any:
        xp = self._namespace.xp
        return xp.where(self._namespace.from_host(keep, bool_), values, xp.zeros_like(values))

    def prepare_step(
        self,
        block: StepBlock,
        partials: Span | None = None,
        *,
        ord: float = 2.0,
        max_norm: float = float("inf"),
        loss_scale: Span | None = None,
    ) -> None:
        header = self._download(block.header)
        skip = False
        if partials is None:
            header[HEADER.index("multiplier")] = 1.0
            header[HEADER.index("shift")] = 0.0
        else:
            carried, found = (1.0, 0.0) if loss_scale is None else map(float, self._download(loss_scale))
            records = self._download(partials).astype(np.float64).reshape(-1, 2)
            with np.errstate(all="ignore"):
                scale, root, norm, nonfinite = _combined(records, ord)
                scale, norm, nonfinite = scale / carried, norm / carried, nonfinite or found != 0.0
                skip = nonfinite and loss_scale is not None
                factor, shift = _clip_factor(scale, root, nonfinite, max_norm, carried, header.dtype)
                decided = {"norm_scale": scale, "norm_root": root, "norm": norm, "nonfinite": nonfinite}
                for name, value in (decided | {"multiplier": factor, "shift": shift}).items():
                    header[HEADER.index(name)] = value
        header[HEADER.index("skip")] = float(skip)
        self._upload(header, block.header)
        if block.rows:
            self._renew(block)
            self._advance(block, skip=skip)

    def _renew(self, block: StepBlock) -> None:
        """Bias corrections of the coming step, from the betas as they are now."""
        counters, hyper = self.tables(block)
        _correct(counters, hyper, block.columns)
        assert block.counters is not None
        self._upload(counters.reshape(-1), block.counters[block.slot])

    def _advance(self, block: StepBlock, *, skip: bool) -> None:
        """Write the counters of the step after the coming one to the other slot."""
        counters, hyper = self.tables(block)
        if not skip:
            moving = hyper[:, 0] != 0
            advanced = counters.copy()
            _increment(advanced)
            _correct(advanced, hyper, block.columns)
            counters[moving] = advanced[moving]
        assert block.counters is not None
        self._upload(counters.reshape(-1), block.counters[1 - block.slot])

    def tables(self, block: StepBlock) -> tuple[Any, Any]:
        """Counters of the coming step and hyper-parameters, on the host, a row each."""
        assert block.hyper is not None
        assert block.counters is not None
        counters = self._download(block.counters[block.slot]).reshape(block.rows, len(COUNTERS))
        return counters, self._download(block.hyper).reshape(block.rows, len(block.columns))

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
        state = [exp_avg, exp_avg_sq] if max_exp_avg_sq is None else [exp_avg, exp_avg_sq, max_exp_avg_sq]
        dtypes = tuple(span.dtype for span in state)

        def rule(values: dict[str, float]) -> Expression:
            # Python's bools, for they are what the rule is kept under.
            asked = {name: bool(values[name] != 0) for name in ("l2", "decay")}
            return adam_rule(p.dtype, g.dtype, dtypes, **asked, keeps=bool(values["amsgrad"] != 0))

        self._update(rule, p, g, state, block, rows, advance)

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
        self._update(lambda values: rule, p, g, list(state), block, rows, advance)

    def _update(
        self,
        rule_of: Any,
        p: Span,
        g: Span,
        state: Sequence[Span | BlockSpan],
        block: StepBlock,
        rows: Span,
        advance: bool,
    ) -> None:
        header = self._download(block.header)
        skip = bool(header[HEADER.index("skip")] != 0)
        if not skip and p.size:
            counters, hyper = self.tables(block)
            for row, start, stop in _runs(self._download(rows), p.size):
                if hyper[row, 0] == 0:
                    continue
                values = dict(zip(block.columns, hyper[row], strict=True)) | dict(
                    zip(COUNTERS, counters[row], strict=True)
                )
                values["gradient_factor"] = float(header[HEADER.index("multiplier")]) * float(values["sign"])
                values["prescale"] = 2.0 ** -float(header[HEADER.index("shift")])
                number = rows.offset * CHUNK + start
                self.update_run(rule_of(values), values, [p, g, *state], start, stop, number)
        if advance:
            self._advance(block, skip=skip)

    def update_run(
        self,
        rule: Expression,
        values: dict[str, float],
        fields: Sequence[Span | BlockSpan],
        start: int,
        stop: int,
        number: int = 0,
    ) -> None:
        """Apply a rule to elements ``start`` to ``stop``, all of one row; ``number`` is that of the first."""
        shifted = values["prescale"] != 1.0
        scaled = shifted or values["gradient_factor"] != 1.0
        program = self._program(_with_factor(rule, shifted=shifted) if scaled else rule)
        hyper = [self._namespace.scalar(values[name], dtype) for name, dtype in program.hyper.items()]
        numbered = len(rule.inputs) > len(fields)
        if not numbered and all(isinstance(field, Span) for field in fields):
            with np.errstate(all="ignore"):
                program.update([field.part(start, stop - start) for field in fields], hyper)  # type: ignore[misc]
            return
        for first in range(start, stop, UPDATE_BLOCK):
            size = min(UPDATE_BLOCK, stop - first)
            pieces = [field.part(first, size) for field in fields]
            spans = [self._widened(piece) for piece in pieces]
            if numbered:
                places = np.arange(number + first - start, number + first - start + size).astype(np.int32)
                spans.append(self._on_device(places, int32))
            with np.errstate(all="ignore"):
                program.update([span.part(0, size) for span in spans], hyper)
            for piece, span in zip(pieces, spans, strict=False):
                if isinstance(piece, BlockSpan):
                    quantize(self, span, piece)

    def _widened(self, piece: Span | BlockSpan) -> Span:
        """The elements themselves, or the numbers of blocks in memory of their own."""
        if isinstance(piece, Span):
            return piece
        numbers = Span(self._memory.alloc(piece.size, piece.dtype), 0, piece.size)
        dequantize(self, piece, numbers)
        return numbers

    def _on_device(self, host: Any, dtype: DType) -> Span:
        made = Span(self._memory.alloc(host.size, dtype), 0, host.size)
        self._upload(host, made)
        return made

    def _program(self, rule: Expression) -> Program:
        """The compiled form of a rule, whose output (p, *state) replaces the input of the same name."""
        program = self._rules.get(rule.key)
        if program is None:
            aliases = [0, *range(2, 1 + len(rule.outputs))]
            program = self._rules[rule.key] = self._namespace.compile(rule, aliases)
        return program


def _combined(records: Any, ord: float) -> tuple[float, float, float, bool]:
    """Scale, root and value of a norm from its records, and whether it is NaN or infinite."""
    scales, sums = records[:, 0], records[:, 1]
    scale = float(np.max(scales, initial=0.0))
    if np.isnan(sums).any() or math.isnan(scale):
        return math.nan, math.nan, math.nan, True
    if math.isinf(scale):
        return scale, 1.0, scale, True
    if scale == 0.0 or math.isinf(ord):
        return scale, 1.0, scale, False
    root = float(np.float64(np.sum(sums * (scales / scale) ** ord)) ** (1.0 / ord))
    return scale, root, scale * root, False


def _clip_factor(
    scale: float, root: float, nonfinite: bool, max_norm: float, carried: float, dtype: Any
) -> tuple[float, float]:
    """min(1, max_norm / norm) / carried, without forming a norm that overflows, and the shift that it needs.

    The factor is 1 for a zero norm, or with ``nonfinite``.
    """
    norm = scale * root
    clips = not nonfinite and scale > 0.0 and max_norm < norm
    share = 1.0
    if clips:
        share = max_norm / scale / root if math.isinf(norm) else min(1.0, max_norm / norm)
    factor = share / carried
    if factor >= np.finfo(dtype).smallest_normal or (clips and max_norm == 0.0):
        return factor, 0.0
    shift = SHIFT[dtype.itemsize]
    large = 2.0**shift
    if clips:
        large = (max_norm / scale * large if max_norm > 1.0 else max_norm * large / scale) / root
    return large / carried, float(shift)


def _increment(counters: Any) -> None:
    """Add one to the step number of each row, in all its forms."""
    low, middle, high = (COUNTERS.index(f"count_{digit}") for digit in ("low", "middle", "high"))
    counters[:, low] += 1
    for digit, above in ((low, middle), (middle, high)):
        full = counters[:, digit] == COUNT_BASE
        counters[full, digit] = 0
        counters[full, above] += 1
    # Integers round once on their way to a float; a sum of the digits as floats would round twice.
    digits = counters[:, [low, middle, high]].astype(np.uint64)
    base = np.uint64(COUNT_BASE)
    counters[:, 0] = digits[:, 0] + base * (digits[:, 1] + base * digits[:, 2])


def _correct(counters: Any, hyper: Any, columns: tuple[str, ...]) -> None:
    """Write the bias corrections that belong to each row's step number."""
    steps = counters[:, 0].astype(np.float64)
    for column, name in ((1, "log_beta1"), (2, "log_beta2")):
        if name in columns:
            counters[:, column] = -np.expm1(steps * hyper[:, columns.index(name)].astype(np.float64))


def _runs(rows: Any, size: int) -> Iterator[tuple[int, int, int]]:
    """(row, start, stop) of every run of chunks with the same row, in elements."""
    starts = [0, *(np.flatnonzero(rows[1:] != rows[:-1]) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield int(rows[start]), start * CHUNK, min(stop * CHUNK, size)
