"""The tape: which operation made each array, and the walk back over them.

Operations call :func:`record` with a derivative for each operand. Nothing is kept unless a tape is open and an operand
leads to an array that requires a gradient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeAlias
from weakref import ref

from netcl.array import Array, GradientWatcher, Storage
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError, ShapeError, TapeError
from netcl.expression import Expression, conversion, trace
from netcl.validation import flag, shown

VJP: TypeAlias = Callable[[Any], Any]
"""Takes the gradient of the output, returns the gradient of one operand: a vector-Jacobian product."""


class Into:
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
        Keep the record after :meth:`backward`, so that it can be walked again.

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
        so a loss can be scaled after the block and walked back from.
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
        Enqueues work and does not block.
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
                    home = leaves.destination(operand) if operand.requires_grad and isinstance(vjp, Into) else None
                    contribution = vjp(gradient) if home is None else vjp.vjp(gradient, home)  # type: ignore[attr-defined]
                    if self._made(operand):
                        known = gradients.get(operand.node)
                        gradients[operand.node] = contribution if known is None else _add(known, contribution)
                    if operand.requires_grad:
                        leaves.add(operand, contribution)
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
                    "this record was freed by an earlier backward(); open the tape as Tape(retain=True) to walk it "
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
        ones = output.empty_like()
        output.backend.fill(ones.span(), 1)
        return ones
    if not isinstance(seed, Array) or seed.shape != output.shape:
        raise ShapeError(f"the seed must be a Tensor of the output's shape {output.shape}, got {_describe(seed)}")
    if seed.dtype.kind != "f":
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
    """The gradients of one walk's leaves: each is summed, and handed over once no operation is left that adds to it.

    Every leaf ends up with memory of its own: not that of the seed, nor that of another leaf. A gradient that the walk
    itself still reads is only written at its end.
    """

    def __init__(self, nodes: Sequence[Node], seed: Storage) -> None:
        self._given = {seed}
        self._left: dict[int, int] = {}
        self._sums: dict[int, tuple[Array, Array]] = {}
        self._late: list[tuple[Array, Array]] = []
        self._watchers: list[GradientWatcher] = []
        read: set[Storage | None] = set()
        for node in nodes:
            read.update(storage() for storage, _ in node.seen)
            for operand, _ in node.operands:
                if operand.requires_grad:
                    self._left[id(operand)] = self._left.get(id(operand), 0) + 1
        self._read = read

    def destination(self, leaf: Array) -> Array | None:
        """Where the only contribution to a leaf's gradient may be written at once."""
        home = leaf.grad_home
        if home is None or leaf.grad is not None or leaf.node is not None or self._left[id(leaf)] != 1:
            return None
        return None if id(leaf) in self._sums or home.storage in self._read else home

    def add(self, leaf: Array, contribution: Array) -> None:
        """Take in what one operation contributes; the last one hands the gradient over."""
        if contribution.shape != leaf.shape:
            raise TapeError(f"internal: a gradient of shape {contribution.shape} for an array of shape {leaf.shape}")
        _, earlier = self._sums.pop(id(leaf), (leaf, None))
        total = contribution if earlier is None else _add(earlier, contribution)
        self._left[id(leaf)] -= 1
        if self._left[id(leaf)]:
            self._sums[id(leaf)] = leaf, total
            return
        target = leaf.grad if leaf.grad is not None else leaf.grad_home
        if target is not None and target.storage in self._read:
            self._late.append((leaf, total))
        else:
            self._hand_over(leaf, total)

    def finish(self) -> None:
        """Write what had to wait, and say that the walk is over."""
        for leaf, total in self._late:
            self._hand_over(leaf, total)
        for watcher in self._watchers:
            watcher.walk_done()

    def _hand_over(self, leaf: Array, gradient: Array) -> None:
        self._deposit(leaf, gradient)
        watcher = leaf.grad_watcher
        if watcher is not None:
            if watcher not in self._watchers:
                self._watchers.append(watcher)
            watcher.gradient_ready(leaf)

    def _deposit(self, leaf: Array, gradient: Array) -> None:
        """Add a gradient to its leaf's ``grad``."""
        if leaf.grad is not None:
            target = leaf.grad
            target.backend.map(
                _sum_of(target.dtype, gradient.dtype), (target.view(), gradient.view()), (target.view(),)
            )
            target.storage.version += 1
            return
        home = leaf.grad_home
        if home is not None:
            if gradient is not home:
                leaf.backend.map(conversion(gradient.dtype, leaf.dtype), (gradient.view(),), (home.view(),))
            home.storage.version += 1
            leaf.grad = home
            return
        storage = gradient.storage
        owns = gradient.is_contiguous and gradient.size == storage.size and storage not in self._given
        if owns and gradient.dtype is leaf.dtype and gradient.node is None:
            self._given.add(storage)
            leaf.grad = gradient
            return
        leaf.grad = leaf.empty_like()
        leaf.backend.map(conversion(gradient.dtype, leaf.dtype), (gradient.view(),), (leaf.grad.view(),))
