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

from netcl.array import Array, Storage
from netcl.dtypes import DType
from netcl.errors import DeviceMismatchError, ShapeError, TapeError
from netcl.expression import Expression, conversion, trace

VJP: TypeAlias = Callable[[Any], Any]
"""Takes the gradient of the output, returns the gradient of one operand: a vector-Jacobian product."""


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
        self.retain = retain
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
        leaves: dict[int, tuple[Array, Array]] = {}
        with no_grad():
            for node in nodes:
                gradient = gradients.pop(node)
                for operand, vjp in node.operands:
                    contribution = vjp(gradient)
                    if self._made(operand):
                        known = gradients.get(operand.node)
                        gradients[operand.node] = contribution if known is None else _add(known, contribution)
                    if operand.requires_grad:
                        _, earlier = leaves.get(id(operand), (operand, None))
                        total = contribution if earlier is None else _add(earlier, contribution)
                        leaves[id(operand)] = (operand, total)
                if not self.retain:
                    # The derivatives hold the arrays that hold this node: cutting here frees them without a collection.
                    node.operands = []
            _deposit(list(leaves.values()), {start.storage})

    def _checked(self, output: Any) -> Node:
        if not isinstance(output, Array):
            raise TapeError(f"backward takes a Tensor, got {type(output).__name__}")
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
    if seed.device != output.device:
        raise DeviceMismatchError(f"the seed is on {seed.device} and the output on {output.device}; move it with to()")
    return seed


def _describe(x: Any) -> str:
    return f"a Tensor of shape {x.shape}" if isinstance(x, Array) else type(x).__name__


@cache
def _sum_of(a: DType, b: DType) -> Expression:
    return trace(lambda x, y: x + y, (a, b), stored=(a,))


def _add(a: Array, b: Array) -> Array:
    total = a.empty_like()
    a.backend.map(_sum_of(a.dtype, b.dtype), (a.view(), b.view()), (total.view(),))
    return total


def _deposit(leaves: Sequence[tuple[Array, Array]], given: set[Storage]) -> None:
    """Add each gradient to its leaf's ``grad``; every leaf ends up with memory of its own, none of it ``given``."""
    for leaf, gradient in leaves:
        if gradient.shape != leaf.shape:
            raise TapeError(f"internal: a gradient of shape {gradient.shape} for an array of shape {leaf.shape}")
        if leaf.grad is not None:
            target = leaf.grad
            target.backend.map(
                _sum_of(target.dtype, gradient.dtype), (target.view(), gradient.view()), (target.view(),)
            )
            continue
        home = leaf.grad_home
        storage = gradient.storage
        owns = gradient.is_contiguous and gradient.size == storage.size and storage not in given
        if home is None and owns and gradient.dtype is leaf.dtype and gradient.node is None:
            given.add(storage)
            leaf.grad = gradient
            continue
        leaf.grad = leaf.empty_like() if home is None else home
        leaf.backend.map(conversion(gradient.dtype, leaf.dtype), (gradient.view(),), (leaf.grad.view(),))
