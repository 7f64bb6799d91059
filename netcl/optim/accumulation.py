"""Gradients of several backward passes in one step, whose pass takes their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, final

from netcl.backends.base import Span
from netcl.errors import HyperParameterError, NetclError, StateError
from netcl.optim import validation
from netcl.optim.extensions import from_one
from netcl.optim.optimizer import Optimizer
from netcl.optim.per_label import PerLabel
from netcl.validation import shown

T = TypeVar("T")


def average_gradients(optimizer: Optimizer | PerLabel, count: int) -> None:
    """Say that the gradients are sums over so many backward passes, and let the coming step take their mean.

    The division costs no pass: the step folds it, and the norm of ``max_norm`` is that of the mean. Reading a gradient
    before that divides all of them. Enqueues work; does not block.

    Parameters
    ----------
    optimizer : Optimizer or PerLabel
    count : int
        At least 1.

    Raises
    ------
    HyperParameterError
        If ``count`` is no integer of at least 1, or ``optimizer`` no optimizer.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.optim import SGD, average_gradients
    >>> w = netcl.asarray([1.0], requires_grad=True)
    >>> opt = SGD([w], lr=0.5)
    >>> for x in (1.0, 3.0):
    ...     with ag.Tape() as tape:
    ...         loss = netcl.sum(w * x)
    ...     tape.backward(loss)
    >>> average_gradients(opt, 2)
    >>> opt.step()
    >>> w.item()
    0.0
    """
    number = from_one("count", count)
    _check_optimizer("average_gradients", optimizer)
    for partition in optimizer.partitions:
        with partition.lock:
            partition.arena.check()
            if partition.gather_gradients():
                partition.average(number)


@final
class MultiSteps:
    """Let an optimizer step at every k-th call, with the mean of the gradients of k backward passes.

    The usual loop stays as it is: gradients add up in the arena, the calls of :meth:`step` in between do nothing, and
    the k-th is one launch of the optimizer, which divides by k in its own pass. Afterwards the gradients are cleared.

    Parameters
    ----------
    optimizer : Optimizer or PerLabel
        A schedule takes this one, not the ``MultiSteps``.
    every_k : int
        At least 1.

    Attributes
    ----------
    optimizer : Optimizer or PerLabel
    every_k : int
    calls : int
        How many calls of :meth:`step` wait for the next update.

    Raises
    ------
    HyperParameterError
        If ``every_k`` is no integer of at least 1, or ``optimizer`` no optimizer.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.optim import SGD, MultiSteps
    >>> w = netcl.asarray([1.0], requires_grad=True)
    >>> opt = MultiSteps(SGD([w], lr=0.5), every_k=2)
    >>> for x in (1.0, 3.0):
    ...     opt.zero_grad()
    ...     with ag.Tape() as tape:
    ...         loss = netcl.sum(w * x)
    ...     tape.backward(loss)
    ...     opt.step()
    >>> w.item()
    0.0

    Notes
    -----
    As ``optax.MultiSteps``, without a second copy of the gradients. The gradients of a part of a cycle are those of the
    parameters, and not in :meth:`state_dict`.
    """

    def __init__(self, optimizer: Optimizer | PerLabel, every_k: int) -> None:
        _check_optimizer("MultiSteps", optimizer)
        self.every_k = from_one("every_k", every_k)
        self.optimizer = optimizer
        self.calls = 0

    @property
    def param_groups(self) -> Sequence[Mapping[str, Any]]:
        """Those of the optimizer."""
        return self.optimizer.param_groups

    def step(self, closure: Callable[[], T] | None = None, *, max_norm: float | None = None) -> T | None:
        """Count a backward pass, and update the parameters at every k-th. Does not block.

        Parameters
        ----------
        closure : callable, optional
            Called first; its result is returned.
        max_norm : float, optional
            Clip the mean of the gradients to this norm.

        Raises
        ------
        NetclError
            If the k-th call finds no gradient; it does not count then.
        HyperParameterError
            If ``max_norm`` is out of range.
        """
        validation.function("closure", closure)
        if max_norm is not None:
            max_norm = validation.bound("max_norm", max_norm)
        result = None if closure is None else closure()
        if self.calls + 1 < self.every_k:
            self.calls += 1
            return result
        average_gradients(self.optimizer, self.every_k)
        self.optimizer.step(max_norm=max_norm)
        self._cleared()
        return result

    def scaled_step(self, loss_scale: Span, max_norm: float | None = None) -> Iterable[Span]:
        """The step of :class:`netcl.amp.GradScaler`: nothing but at every k-th call. Does not block."""
        if self.calls + 1 < self.every_k:
            self.calls += 1
            return []
        average_gradients(self.optimizer, self.every_k)
        flags = self.optimizer.scaled_step(loss_scale, max_norm)
        self._cleared()
        return flags

    def unscale_gradients(self, loss_scale: Span) -> Iterable[Span]:
        """Divide the gradients by the loss scale in place, for the scaler. Does not block.

        Raises
        ------
        NetclError
            If the next step does not update the parameters: gradients to come would be added in another scale.
        """
        if self.calls + 1 < self.every_k:
            raise NetclError(
                f"unscale_() before call {self.calls + 1} of {self.every_k}, which updates nothing; unscale before the "
                "last one, where calls == every_k - 1"
            )
        return self.optimizer.unscale_gradients(loss_scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, unless some wait for an update. Does not block."""
        if self.calls == 0:
            self.optimizer.zero_grad(set_to_none)
        else:
            validation.flag("set_to_none", set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state. **Blocks**.

        Raises
        ------
        NetclError
            Within a cycle, whose gradients no state has.
        """
        if self.calls:
            raise NetclError(
                f"state_dict() after {self.calls} of {self.every_k} backward passes would lose their gradients; save "
                "where calls == 0"
            )
        return {"every_k": self.every_k, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, at the start of a cycle.

        Raises
        ------
        StateError
            If it is not of a ``MultiSteps`` with this ``every_k``, or does not fit the optimizer.
        """
        if not isinstance(state, Mapping) or set(state) != {"every_k", "optimizer"}:
            raise StateError(
                f"the state of a MultiSteps is a dict of every_k and optimizer, got {shown(state)}; it must come from "
                "state_dict()"
            )
        if state["every_k"] != self.every_k:
            raise StateError(
                f"the state has every_k={shown(state['every_k'])} and this MultiSteps {self.every_k}; build it alike"
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.calls = 0

    def _cleared(self) -> None:
        self.calls = 0
        self.optimizer.zero_grad()

    def __repr__(self) -> str:
        return f"MultiSteps({self.optimizer!r}, every_k={self.every_k})"


def _check_optimizer(call: str, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer | PerLabel):
        raise HyperParameterError(f"{call} takes an optimizer of netcl.optim, got {shown(optimizer)}")
