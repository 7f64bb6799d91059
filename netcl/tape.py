"""The tape: which operation made each array, and the backward pass over them.

Operations call :func:`record` with a derivative for each operand. Nothing is kept unless a tape is open and an operand
leads to an array that requires a gradient.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeAlias
from weakref import ref

from netcl.array import Array, GradientHook, Storage
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError, ShapeError, TapeError
from netcl.expression import Expression, conversion, trace
from netcl.validation import flag, shown

VJP: TypeAlias = Callable[[Any], Any]
"""Takes the gradient of the output, returns the gradient of one operand: a vector-Jacobian product."""


class VJPWithOut:
    """A derivative ``vjp(gradient, out)`` that can write its result into ``out``, where it has its shape and dtype.

    It returns ``out`` if it did. A gradient arena then needs no copy. Called as any VJP, ``out`` is None.
    """

    __slots__ = ("vjp",)

    def __init__(self, vjp: Callable[[Any, Any], Any]) -> None:
        self.vjp = vjp

    def __call__(self, gradient: Any) -> Any:
        return self.vjp(gradient, None)


class Node:
    """One recorded operation: its operands that need a gradient, each with its derivative.

    ``seen`` holds the storage of every operand and of the output with its version, so that a later write in place is
    noticed. Empty ``operands`` say that the record was freed.
    """

    __slots__ = ("name", "operands", "order", "seen", "tape")

    def __init__(
        self,
        name: str,
        operands: list[tuple[Any, VJP]],
        seen: list[tuple[ref[Storage], int]],
        order: int,
        tape: Tape,
    ) -> None:
        self.name = name
        self.operands = operands
        self.seen = seen
        self.order = order
        self.tape = tape


class _State(threading.local):
    tape: Tape | None = None
    enabled: bool = True


_state = _State()


def is_recording() -> bool:
    """Whether operations of this thread are recorded now."""
    return _state.tape is not None and _state.enabled


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside the block, even when a tape is open.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> w = netcl.ones(3, requires_grad=True)
    >>> with ag.Tape() as tape, ag.no_grad():
    ...     y = w * 2.0
    >>> y.node is None
    True
    """
    before, _state.enabled = _state.enabled, False
    try:
        yield
    finally:
        _state.enabled = before


def record(output: Array, *operands: tuple[Array, VJP], name: str = "") -> None:
    """Say that ``output`` was made from ``operands``, each given with its vector-Jacobian product."""
    tape = _state.tape
    if tape is not None and _state.enabled:
        tape.add(output, operands, name)


class Tape:
    """Records operations on arrays that lead back to one with ``requires_grad``.

    Parameters
    ----------
    retain : bool, default False
        Keep the record after :meth:`backward`, for another backward pass.

    Notes
    -----
    What was computed outside the block, or inside another tape's, counts as a constant.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> w = netcl.asarray([1.0, 2.0], requires_grad=True)
    >>> with ag.Tape() as tape:
    ...     loss = netcl.sum(w * w)
    >>> tape.backward(loss)
    >>> w.grad.numpy()
    array([2., 4.], dtype=float32)
    """

    def __init__(self, *, retain: bool = False) -> None:
        self.retain = flag("retain", retain)
        self._outer: list[Tape | None] = []
        self._count = 0

    def __enter__(self) -> Self:
        self._outer.append(_state.tape)
        _state.tape = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _state.tape = self._outer.pop()

    def add(self, output: Array, operands: Sequence[tuple[Array, VJP]], name: str = "") -> None:
        """Keep one operation, if an operand leads back to an array that requires a gradient.

        :func:`record` calls this inside the block. Called outside, it makes ``output`` part of the record all the same:
        so a loss can be scaled after the block and still be the start of a backward pass.
        """
        tracked = [(x, vjp) for x, vjp in operands if x.requires_grad or self._made(x)]
        if tracked:
            storages = [output.storage, *[x.storage for x, _ in operands]]
            seen = [(ref(storage), storage.version) for storage in storages]
            output.node = Node(name, tracked, seen, self._count, self)
            self._count += 1

    def _made(self, x: Array) -> bool:
        """Whether ``x`` is on the record of this tape, not on another's and not freed."""
        node: Node | None = x.node
        return node is not None and node.tape is self and bool(node.operands)

    def backward(self, output: Any, seed: Any = None) -> None:
        """Add the gradient of ``output`` to the ``grad`` of every array it was made from that requires one.

        Parameters
        ----------
        output : Tensor
            Usually the loss, of one element.
        seed : Tensor, optional
            The gradient of ``output``, of its shape; needed unless ``output`` has one element.

        Raises
        ------
        TapeError
            If ``output`` was not recorded by this tape, the record was freed by an earlier call, or an array in it was
            changed in place since.
        ShapeError
            If ``output`` has several elements and no seed is given, or the seed has another shape.

        Notes
        -----
        Enqueues work and does not block, but for derivatives of ``netcl.linalg`` and ``netcl.fft`` that say so. If it
        fails, for want of memory or in a derivative, no ``grad`` has changed, but for those that an all-reduce was
        under way with; a retained record can be used again. Parameters of an optimizer that releases gradients are
        stepped on the way, and stay so.
        """
        root = self._checked(output)
        nodes = self._latest_first(root)
        start = _seed(output, seed)
        gradients = {root: start}
        leaves = _Leaves(nodes, start.storage)
        with no_grad():
            for node in nodes:
                gradient = gradients.pop(node)
                for operand, vjp in node.operands:
                    writes = operand.requires_grad and isinstance(vjp, VJPWithOut)
                    out = leaves.destination(operand) if writes else None
                    contribution = vjp(gradient) if out is None else vjp.vjp(gradient, out)  # type: ignore[attr-defined]
                    out = None  # else the backward pass itself would count as somebody who sees the gradient there
                    if self._made(operand):
                        known = gradients.get(operand.node)
                        gradients[operand.node] = contribution if known is None else _add(known, contribution)
                    if operand.requires_grad:
                        leaves.accumulate(operand, contribution)
                leaves.passed(node)
                if not self.retain:
                    # The derivatives hold the arrays that hold this node: cutting here frees them without a collection.
                    node.operands = []
            leaves.finish()

    def _checked(self, output: Any) -> Node:
        if not isinstance(output, Array):
            raise TapeError(f"backward takes a Tensor, got {shown(output)}; pass the loss as it was computed")
        node: Node | None = output.node
        if node is None or node.tape is not self:
            raise TapeError(
                "this output was not recorded on this tape: compute it inside the tape's with block, from at least one "
                "array with requires_grad=True"
            )
        return node

    def _latest_first(self, root: Node) -> list[Node]:
        """The operations that ``root`` was made from, itself included; refused if the record is no longer whole."""
        found = {root}
        pending = [root]
        while pending:
            node = pending.pop()
            if not node.operands:
                raise TapeError(
                    "this record was freed by an earlier backward(); open the tape as Tape(retain=True) to use it "
                    "again, or record the computation anew"
                )
            for storage, version in node.seen:
                kept = storage()
                if kept is not None and kept.version != version:
                    raise TapeError(
                        f"an array that {node.name or 'an operation'} read or made was changed in place after it was "
                        "recorded, so its derivative is lost; write out of place, or after backward()"
                    )
            for operand, _ in node.operands:
                below: Node | None = operand.node
                if below is not None and below.tape is self and below not in found:
                    found.add(below)
                    pending.append(below)
        return sorted(found, key=lambda node: node.order, reverse=True)


def _seed(output: Array, seed: Any) -> Array:
    if seed is None:
        if output.size != 1:
            raise ShapeError(
                f"backward() of an output of shape {output.shape} needs a seed of that shape; "
                "only an output with one element has a gradient of its own (reduce it with sum or mean, or pass seed=)"
            )
        if output.dtype.kind == "c":
            raise TapeError("a complex output needs a seed: only a real loss has a gradient; take real(x) or abs(x)")
        ones = output.empty_like()
        output.backend.fill(ones.span(), 1)
        return ones
    if not isinstance(seed, Array) or seed.shape != output.shape:
        raise ShapeError(f"the seed must be a Tensor of the output's shape {output.shape}, got {_describe(seed)}")
    if seed.dtype.kind != "f" and seed.dtype is not output.dtype:
        raise TapeError(f"the seed must be floating, got {seed.dtype}; convert it with astype(netcl.{output.dtype})")
    if seed.device != output.device:
        raise DeviceMismatchError(f"the seed is on {seed.device} and the output on {output.device}; move it with to()")
    return seed


def _describe(x: Any) -> str:
    return f"a Tensor of shape {x.shape}" if isinstance(x, Array) else shown(x)


@cache
def _sum_of(a: DType, b: DType) -> Expression:
    return trace(lambda x, y: x + y, (a, b), stored=(a,))


def _add(a: Array, b: Array) -> Array:
    total = a.empty_like()
    a.backend.map(_sum_of(a.dtype, b.dtype), (a.view(), b.view()), (total.view(),))
    return total


class _Leaves:
    """The gradients of the leaves of one backward pass: each is summed, and all are delivered at the end, or none.

    Every leaf ends up with memory of its own: not that of the seed, nor that of another leaf. A leaf with a gradient
    hook gets its gradient as soon as no operation is left that adds to it, unless the backward pass itself still reads
    what it had; with a hook that writes to the leaf, as soon as no operation is left that reads the leaf either.
    """

    def __init__(self, nodes: Sequence[Node], seed: Storage) -> None:
        self._given = {seed}
        self._left: dict[int, int] = {}
        self._sums: dict[int, tuple[Array, Array]] = {}
        self._complete: list[tuple[Array, Array]] = []
        self._hooks: list[GradientHook] = []
        read: set[Storage | None] = {seed}
        written = False
        for node in nodes:
            read.update(storage() for storage, _ in node.seen)
            for operand, _ in node.operands:
                if operand.requires_grad:
                    self._left[id(operand)] = self._left.get(id(operand), 0) + 1
                    written = written or getattr(operand.grad_hook, "writes", False)
        self._read = read
        self._held: dict[Storage, list[tuple[Array, Array]]] = {}
        self._readers: Counter[Storage | None] = Counter()
        if written:
            self._readers.update(storage() for node in nodes for storage, _ in node.seen)

    def destination(self, leaf: Array) -> Array | None:
        """Where the only contribution to a leaf's gradient may be written at once."""
        buffer = leaf.grad_buffer
        if buffer is None or leaf.gradient is not None or leaf.node is not None or self._left[id(leaf)] != 1:
            return None
        return None if id(leaf) in self._sums else buffer.claim()

    def accumulate(self, leaf: Array, contribution: Array) -> None:
        """Add what one operation contributes."""
        if contribution.shape != leaf.shape:
            raise TapeError(f"internal: a gradient of shape {contribution.shape} for an array of shape {leaf.shape}")
        _, earlier = self._sums.pop(id(leaf), (leaf, None))
        total = contribution if earlier is None else _add(earlier, contribution)
        self._left[id(leaf)] -= 1
        if self._left[id(leaf)]:
            self._sums[id(leaf)] = leaf, total
        elif leaf.grad_hook is None or (leaf.gradient is not None and leaf.gradient.storage in self._read):
            self._complete.append((leaf, total))
        elif getattr(leaf.grad_hook, "writes", False) and self._readers[leaf.storage]:
            self._held.setdefault(leaf.storage, []).append((leaf, total))
        else:
            self._deliver([(leaf, total)])

    def passed(self, node: Node) -> None:
        """Note that a node reads nothing any more, and deliver what waited for that."""
        if not self._readers:
            return
        for reference, _ in node.seen:
            storage = reference()
            self._readers[storage] -= 1
            if storage is not None and not self._readers[storage]:
                self._deliver(self._held.pop(storage, []))

    def finish(self) -> None:
        """Deliver what had to wait, and say that the backward pass is over."""
        self._deliver(self._complete)
        for held in self._held.values():
            self._deliver(held)
        for hook in self._hooks:
            hook.backward_done()

    def _deliver(self, totals: Sequence[tuple[Array, Array]]) -> None:
        # What takes memory, and may find none, comes before any gradient is changed.
        written = {leaf.gradient.storage for leaf, _ in totals if leaf.gradient is not None}
        made = [(leaf, *self._prepared(leaf, total, written)) for leaf, total in totals]
        for leaf, gradient, addend in made:
            if addend is not None:
                gradient.backend.map(
                    _sum_of(gradient.dtype, addend.dtype), (gradient.view(), addend.view()), (gradient.view(),)
                )
                gradient.storage.version += 1
            leaf.gradient = gradient
        for leaf, _ in totals:
            hook = leaf.grad_hook
            if hook is not None:
                if hook not in self._hooks:
                    self._hooks.append(hook)
                hook.gradient_ready(leaf)
        for leaf, gradient, _ in made:
            if leaf.gradient is None:  # its hook has let go of it
                self._given.discard(gradient.storage)

    def _prepared(self, leaf: Array, total: Array, written: set[Storage]) -> tuple[Array, Array | None]:
        """What becomes the gradient of a leaf, and what must still be added to it in place."""
        known = leaf.gradient
        if known is not None:
            if not known.is_contiguous and 0 in known.strides:  # several elements in one place cannot be added to
                return _add(known, total), None
            return known, _converted(total, total.dtype) if total.storage in written else total
        buffer = leaf.grad_buffer
        if buffer is not None:
            place = total
            if total is not buffer.array:
                place = buffer.claim()
                leaf.backend.map(conversion(total.dtype, leaf.dtype), (total.view(),), (place.view(),))
            place.storage.version += 1
            return place, None
        storage = total.storage
        owns = total.is_contiguous and total.size == storage.size and storage not in self._given
        if owns and total.dtype is leaf.dtype and total.node is None and storage not in written:
            self._given.add(storage)
            return total, None
        return _converted(total, leaf.dtype), None


def _converted(x: Array, dtype: DType) -> Array:
    copy = x.empty_like(dtype=dtype)
    x.backend.map(conversion(x.dtype, dtype), (x.view(),), (copy.view(),))
    return copy
