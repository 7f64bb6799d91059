"""What each kernel that can be tuned is tried on: operands with guards around them, and the reference's result.

A case has operands of its own, so that several choices of knobs can be bound to the same elements and take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from netcl.backends.base import ADAM_COLUMNS, CHUNK, COUNTERS, HEADER, ROW, Span, StepBlock, UpdateOperations
from netcl.backends.reference import ReferenceBackend
from netcl.dtypes import DType, float32, uint16
from netcl.expression import Expression, Node, trace
from netcl.update_rules import adam_numbers

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = Callable[[], None]

GUARD = 67
"""Elements before and behind a span that no kernel may touch: no multiple of a vector, so that spans are unaligned."""

PATTERN = 0xA5
"""Every byte of them."""

HYPER = {"active": 1.0, "sign": 1.0, **adam_numbers(1e-3, (0.9, 0.999), 1e-8, decay=0.01)}

MOMENTUM_COLUMNS = (*ROW, "lr", "beta1")


@cache
def momentum() -> Expression:
    """Gradient descent with momentum: what fused_update is tuned with."""
    lr, beta1 = (Node("hyper", (), float32, name) for name in MOMENTUM_COLUMNS[len(ROW) :])

    def descent(p: Node, g: Node, v: Node) -> tuple[Node, Node]:
        v = beta1 * v + g
        return p - lr * v, v

    return trace(descent, (float32,) * 3, stored=(float32,) * 2)


class Operands:
    """Spans of one backend by name, each in the middle of a buffer whose other elements hold a pattern."""

    def __init__(self, backend: UpdateOperations) -> None:
        self.backend = backend
        self._held: dict[str, tuple[Span, Array]] = {}

    def __getitem__(self, name: str) -> Span:
        return self._held[name][0]

    def put(self, name: str, values: Array, dtype: DType = float32) -> Span:
        """A span with these elements, and guards around it."""
        host = np.asarray(values, dtype.name).reshape(-1)
        guard = np.full(GUARD * host.itemsize, PATTERN, np.uint8).view(host.dtype)
        whole = np.concatenate([guard, host, guard])
        buffer = self.backend.alloc(whole.size, dtype)
        self.backend.upload(whole, Span(buffer, 0, whole.size))
        self._held[name] = Span(buffer, GUARD, host.size), whole
        return self[name]

    def restore(self) -> None:
        """Upload everything again."""
        for span, whole in self._held.values():
            self.backend.upload(whole, Span(span.buffer, 0, whole.size))

    def read(self, name: str) -> Array:
        """The elements of a span. **Blocks**.

        Raises
        ------
        ArithmeticError
            If a guard changed.
        """
        span, before = self._held[name]
        whole = self.backend.download(Span(span.buffer, 0, before.size))
        outside = np.r_[0:GUARD, GUARD + span.size : before.size]
        if not np.array_equal(whole[outside].view(np.uint8), before[outside].view(np.uint8)):
            raise ArithmeticError(f"wrote beside {name}")
        values: Array = whole[GUARD : GUARD + span.size]
        return values

    def results(self) -> dict[str, Array]:
        """All of them as they are now."""
        return {name: self.read(name) for name in self._held}


@dataclass(frozen=True, slots=True)
class Case:
    """How a kernel is tried.

    Attributes
    ----------
    read, updated, written : int
        How many float32 arrays of its size it reads, reads and writes, and writes.
    prepare : callable
        ``prepare(operands, n, varied)`` fills the operands; ``varied`` asks for the cases that a test needs and a
        measurement does not.
    bind : callable
        ``bind(operands)`` is one launch, bound to the knobs that hold when it first runs.
    result : callable
        ``result(operands)`` is what must agree with the reference, by name.
    """

    read: int
    updated: int
    written: int
    prepare: Callable[[Operands, int, bool], None]
    bind: Callable[[Operands], Run]
    result: Callable[[Operands], dict[str, Array]] = Operands.results

    @property
    def bytes(self) -> int:
        """Bytes moved per element."""
        return 4 * (self.read + 2 * self.updated + self.written)


def values(n: int, count: int) -> list[Array]:
    """Arrays of normally distributed float32, none of them tiny."""
    random = np.random.default_rng(7)
    return [random.standard_normal(n, dtype=np.float32) for _ in range(count)]


def _step_block(operands: Operands, columns: tuple[str, ...], rows: int) -> None:
    """Header, hyper-parameters and counters; of three rows the second is inactive."""
    names = iter(("header", "hyper", "now", "next"))
    table = [{**HYPER, "active": float(row != 1)} for row in range(rows)]
    StepBlock.allocate(
        lambda numbers: operands.put(next(names), np.array(numbers)), columns, table, steps=range(1, rows + 1)
    )


def _block(operands: Operands, columns: tuple[str, ...]) -> StepBlock:
    """A new block, which keeps no launch yet."""
    counters = (operands["now"], operands["next"])
    rows = operands["now"].size // len(COUNTERS)
    return StepBlock(operands["header"], columns, operands["hyper"], counters, rows)


def _fused(columns: tuple[str, ...], fields: int) -> Callable[[Operands, int, bool], None]:
    def prepare(operands: Operands, n: int, varied: bool) -> None:
        _step_block(operands, columns, 3 if varied else 1)
        chunks = -(-n // CHUNK)
        operands.put("rows", np.arange(chunks) % 3 if varied else np.zeros(chunks), uint16)
        p, g, *state = values(n, 2 + fields)
        for name, array in (("p", p), ("g", g)):
            operands.put(name, array)
        for number, array in enumerate(state):
            operands.put(f"state{number}", np.abs(array))

    return prepare


def _adam(operands: Operands) -> Run:
    block = _block(operands, ADAM_COLUMNS)
    p, g, rows, m, v = (operands[name] for name in ("p", "g", "rows", "state0", "state1"))
    return lambda: operands.backend.fused_adam(p, g, m, v, None, block, rows, advance=True)


def _update(operands: Operands) -> Run:
    block = _block(operands, MOMENTUM_COLUMNS)
    p, g, rows, state = operands["p"], operands["g"], operands["rows"], [operands["state0"]]
    return lambda: operands.backend.fused_update(momentum(), p, g, state, block, rows, advance=True)


def _flat(count: int) -> Callable[[Operands, int, bool], None]:
    def prepare(operands: Operands, n: int, varied: bool) -> None:
        for name, array in zip("xy", values(n, count), strict=False):
            operands.put(name, array)

    return prepare


def _norm(operands: Operands) -> Run:
    backend, x = operands.backend, operands["x"]
    records = operands.put("records", np.zeros(2 * backend.norm_partials(x.size)))
    block = StepBlock(operands["header"])
    return lambda: backend.norm_reduce(x, records, 2.0, block=block)


def _prepare_norm(operands: Operands, n: int, varied: bool) -> None:
    operands.put("x", values(n, 1)[0])
    operands.put("header", np.zeros(len(HEADER)))


def _norm_result(operands: Operands) -> dict[str, Array]:
    """Records of different pieces agree in what they add up to."""
    scale, total = operands.read("records").astype(np.float64).reshape(-1, 2).T
    return {"x": operands.read("x"), "norm": np.sqrt(np.sum(scale**2 * total, keepdims=True))}


def _prepare_records(operands: Operands, n: int, varied: bool) -> None:
    """``n`` counts the records' values; there are as many rows as a model with many groups has."""
    _step_block(operands, ADAM_COLUMNS, 17 if varied else 2)
    operands.put("records", np.abs(values(n - n % 2, 1)[0]))


def _decide(operands: Operands) -> Run:
    block, records = _block(operands, ADAM_COLUMNS), operands["records"]
    return lambda: operands.backend.prepare_step(block, records, max_norm=1.0)


# scale turns the sign and axpy adds little, so that elements stay of one size however often they run.
CASES: dict[str, Case] = {
    "fill": Case(0, 0, 1, _flat(1), lambda o: lambda: o.backend.fill(o["x"], 0.1)),
    "scale": Case(0, 1, 0, _flat(1), lambda o: lambda: o.backend.scale(-1.0, o["x"])),
    "axpy": Case(1, 1, 0, _flat(2), lambda o: lambda: o.backend.axpy(1e-3, o["x"], o["y"])),
    "norm_reduce": Case(1, 0, 0, _prepare_norm, _norm, _norm_result),
    "prepare_step": Case(1, 0, 0, _prepare_records, _decide),
    "fused_adam": Case(1, 3, 0, _fused(ADAM_COLUMNS, 2), _adam),
    "fused_update": Case(1, 2, 0, _fused(MOMENTUM_COLUMNS, 1), _update),
}
"""A case for every kernel of :data:`netcl.backends.opencl.device.tuning_table.KNOBS`."""


def expected(kernel: str, n: int) -> dict[str, Array]:
    """What the reference backend makes of a case."""
    case, operands = CASES[kernel], Operands(ReferenceBackend())
    case.prepare(operands, n, True)
    case.bind(operands)()
    return case.result(operands)


def disagreement(found: dict[str, Array], wanted: dict[str, Array]) -> str:
    """Where two results differ by more than float32 allows, or nothing."""
    for name, reference in wanted.items():
        close = np.isclose(found[name], reference, rtol=2e-5, atol=1e-6, equal_nan=True)
        if not close.all():
            at = int(np.argmin(close))
            return f"{name}[{at}] is {found[name].flat[at]:.8g} where the reference has {reference.flat[at]:.8g}"
    return ""
