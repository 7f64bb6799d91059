"""A backend that has a few calls of its own, and the others from what they follow from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from netcl.backends.base import (
    BlockSpan,
    Buffer,
    Device,
    HostArray,
    HostMapping,
    Scalar,
    Span,
    StepBlock,
    TensorMap,
    TensorRule,
    View,
)
from netcl.backends.composed import arrays, flat, ordering, step
from netcl.backends.composed.tensors import follow
from netcl.dtypes import DType
from netcl.errors import BackendError
from netcl.expression import Expression


class ComposedOperations(ABC):
    """The backend protocol, derived from ten of its members.

    A backend inherits from this class and writes ``device``, ``supports``, ``alloc``, ``upload``, ``download``,
    ``synchronize``, ``map``, ``reduce``, ``gather`` and ``scatter_add``, as :mod:`netcl.backends.base` states them. It
    is then whole, and right; what shows in a profile it goes on to write itself, call by call, for a derived call costs
    more launches and scratch memory than one of its own. The matrix product is the first of them.

    Nothing derived waits for the device, but for the ``array()`` of a mapping, which downloads, and ``scan``, ``sort``
    and ``scatter``, which the host does. An index or label out of range is found by ``gather`` and ``scatter_add``,
    which report it.

    Examples
    --------
    >>> import inspect
    >>> from netcl.backends.composed import ComposedOperations
    >>> len(ComposedOperations.__abstractmethods__)
    10
    >>> inspect.isabstract(ComposedOperations)
    True
    """

    @property
    @abstractmethod
    def device(self) -> Device: ...

    @abstractmethod
    def supports(self, dtype: DType) -> bool: ...

    @abstractmethod
    def alloc(self, n: int, dtype: DType) -> Buffer: ...

    @abstractmethod
    def upload(self, host: HostArray, out: Span) -> None: ...

    @abstractmethod
    def download(self, x: Span) -> HostArray: ...

    @abstractmethod
    def synchronize(self) -> None: ...

    @abstractmethod
    def map(
        self, expression: Expression, inputs: Sequence[View], outputs: Sequence[View], scalars: Sequence[Scalar] = ()
    ) -> None: ...

    @abstractmethod
    def reduce(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axes: tuple[int, ...],
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None: ...

    @abstractmethod
    def gather(self, x: View, indices: View, out: View) -> None: ...

    @abstractmethod
    def scatter_add(self, updates: View, indices: View, out: View) -> None: ...

    def fill(self, x: Span, a: Scalar) -> None:
        """See :class:`~netcl.backends.base.UpdateOperations`, as for those that follow."""
        flat.fill(self, x, a)

    def scale(self, a: Scalar | Span, x: Span) -> None:
        flat.scale(self, a, x)

    def axpy(self, a: Scalar | Span, x: Span, y: Span) -> None:
        flat.axpy(self, a, x, y)

    def norm_partials(self, n: int) -> int:
        return step.norm_partials(n)

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
        step.norm_reduce(self, x, partials, ord, multiplier, rows, block)

    def prepare_step(
        self,
        block: StepBlock,
        partials: Span | None = None,
        *,
        ord: float = 2.0,
        max_norm: float = float("inf"),
        loss_scale: Span | None = None,
    ) -> None:
        step.prepare_step(self, block, partials, ord, max_norm, loss_scale)

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
        rule = step.adam_rule(p.dtype, g.dtype, tuple([span.dtype for span in state]))
        self.fused_update(rule, p, g, state, block, rows, advance=advance)

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
        step.fused_update(self, rule, p, g, state, block, rows)
        if advance:
            step.advance(self, block)

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
        if g is not None:
            self.fused_update(rule.direction, p, g, state, block, rows, advance=advance)
        follow(self, rule, p, state, block, rows, tensors, chunk)

    def arg_reduce(self, op: str, x: View, axis: int, out: View) -> None:
        """See :class:`~netcl.backends.base.ArrayOperations`, as for those that follow."""
        arrays.arg_reduce(self, op, x, axis, out)

    def scan(
        self,
        op: str,
        expression: Expression,
        inputs: Sequence[View],
        axis: int,
        out: View,
        scalars: Sequence[Scalar] = (),
    ) -> None:
        ordering.scan(self, op, expression, inputs, axis, out, scalars)

    def sort(self, x: View, axis: int, out: View | None, indices: View | None, *, descending: bool) -> None:
        ordering.sort(self, x, axis, out, indices, descending=descending)

    def scatter(self, updates: View, indices: View, out: View) -> None:
        ordering.scatter(self, updates, indices, out)

    def batched_matmul(self, a: View, b: View, out: View) -> None:
        arrays.batched_matmul(self, a, b, out)

    def softmax(self, x: View, out: View, *, log: bool) -> None:
        arrays.softmax(self, x, out, logarithm=log)

    def softmax_cross_entropy(
        self, logits: View, labels: View, loss: View, gradient: View | None, label_smoothing: float, ignore_index: int
    ) -> None:
        arrays.softmax_cross_entropy(self, logits, labels, loss, gradient, label_smoothing, ignore_index)

    def random_bits(self, out: View, seed: int, offset: int) -> None:
        arrays.random_bits(self, out, seed, offset)

    def wrap_host_memory(self, host: HostArray, dtype: DType) -> Buffer:
        """See :class:`~netcl.backends.base.HostOperations`.

        Raises
        ------
        BackendError
            Always: a device that shares the host's memory writes this call itself.
        """
        raise BackendError(f"{self.device} does not share the host's memory; upload the array to a buffer instead")

    def map_host(self, x: Span) -> HostMapping:
        """See :class:`~netcl.backends.base.HostOperations`; the array is a copy."""
        return flat.ComposedMapping(self, x)
