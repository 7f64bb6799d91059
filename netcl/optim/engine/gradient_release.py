"""GradientRelease: a step for each parameter as soon as its gradient is complete, in the backward pass itself.

So the gradients of a whole model never exist at once: each is let go of when its parameter was updated. Source: K. Lv
et al., "Full Parameter Fine-tuning for Large Language Models with Limited Resources", 2023.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from netcl.array import Array, GradientHook
from netcl.backends.base import Span
from netcl.errors import HyperParameterError, NetclError
from netcl.optim.engine.partition import Partition, measurable_together


class Stepper(Protocol):
    """What steps a parameter: a :class:`~netcl.optim.engine.step_engine.StepEngine`."""

    @property
    def partitions(self) -> Sequence[Partition]: ...

    def step_one(
        self, partition: Partition, p: Array, gradient: Array, max_norm: float | None, records: Span | None
    ) -> None: ...


class GradientRelease:
    """The hook of every parameter of an optimizer that steps during the backward pass.

    Parameters
    ----------
    engine : Stepper
        Neither it nor the state is kept alive, for the parameters hold this hook: without it gradients stay where they
        are.
    max_norm : float or None
        Clip to this norm by the norm of all gradients of the last backward pass, for that of the present one is known
        at its end alone. The first pass is not clipped.

    Raises
    ------
    NetclError
        If a parameter has a hook already, such as that of a data-parallel model.
    HyperParameterError
        If ``max_norm`` is given for parameters of several devices or precisions.
    """

    writes = True
    """The backward pass calls it when nothing is left that reads the parameter."""

    def __init__(self, engine: Stepper, max_norm: float | None) -> None:
        self._engine = weakref.ref(engine)
        self.max_norm = max_norm
        partitions = engine.partitions
        if max_norm is not None and not measurable_together(partitions):
            raise HyperParameterError(
                f"max_norm={max_norm} takes one norm, in one precision on one device; release the gradients without it"
            )
        numbered = [(number, p) for number, partition in enumerate(partitions) for p in partition.parameters]
        for _, p in numbered:
            if p.grad_hook is not None and not _is_over(p.grad_hook):
                raise NetclError(
                    "a parameter's gradient is waited for already, by a data-parallel model or another optimizer that "
                    "releases gradients; release them in one place"
                )
        self._number = {id(p): number for number, p in numbered}
        self._known = False
        if max_norm is not None:
            backend, compute = partitions[0].backend, partitions[0].compute
            counts = [2 * backend.norm_partials(p.size) for _, p in numbered]
            ends = accumulate(counts)
            self._place = {id(p): (end - n, n) for (_, p), n, end in zip(numbered, counts, ends, strict=True)}
            self._last, self._now = (Span(backend.alloc(sum(counts), compute), 0, sum(counts)) for _ in range(2))
            backend.fill(self._now, 0)
        for partition in partitions:
            partition.arena.let_go()
            partition.pending = partition.arena.pending
            partition.use_gradients({})
        for _, p in numbered:
            p.grad_hook = self

    def gradient_ready(self, leaf: Array) -> None:
        """Step one parameter, and forget its gradient. Does not block."""
        engine, gradient = self._engine(), leaf.gradient
        if engine is None or gradient is None:
            return
        leaf.gradient = None
        partition = engine.partitions[self._number[id(leaf)]]
        if self.max_norm is not None:
            start, count = self._place[id(leaf)]
            partition.backend.norm_reduce(gradient.span(), self._now.part(start, count), 2.0)
        clips = self.max_norm is not None and self._known
        engine.step_one(partition, leaf, gradient, self.max_norm if clips else None, self._last if clips else None)

    def backward_done(self) -> None:
        """Let the norm of this pass be the last one."""
        engine = self._engine()
        if self.max_norm is not None and engine is not None:
            self._last, self._now, self._known = self._now, self._last, True
            engine.partitions[0].backend.fill(self._now, 0)


def _is_over(hook: GradientHook) -> bool:
    """Whether a hook is that of an optimizer which is gone."""
    return isinstance(hook, GradientRelease) and hook._engine() is None
