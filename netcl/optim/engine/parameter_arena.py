"""ParameterArena: the parameters of one device and dtype in one buffer, and their gradients in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

from netcl.arena import Arena, ArenaGradient, GradientArena
from netcl.array import UNTRACKED, Array, Storage, VersionCounter, check_gradient, storage_generation
from netcl.backends.base import Span
from netcl.errors import DeviceMismatchError
from netcl.expression import conversion
from netcl.optim.engine.pending import PendingFactors


class ParameterArena:
    """Where parameters and gradients lie. Making one takes all memory; :meth:`adopt` then moves them in.

    Parameters
    ----------
    parameters : sequence of Array
        All of one backend and dtype.
    owner : callable
        Returns what steps with them, or None when that is gone: a weak reference.

    Attributes
    ----------
    layout : Arena
        Where each parameter lies, in its own buffer and in those of gradients and state.
    parameters : list of Array
        In the order of the layout.
    from_host : bool
        They are arrays of another library, whose gradients come with each step.
    given : bool
        Gradients come with each step and have no memory here: those of arrays of another library, and released ones.
    gradients : Span
        All gradients.
    pending : PendingFactors
        What the gradients are still to be multiplied by.
    """

    def __init__(self, parameters: Sequence[Array], owner: Callable[[], Any]) -> None:
        self.layout = Arena(parameters)
        self.backend, self.dtype = self.layout.backend, self.layout.dtype
        self.parameters = [segment.array for segment in self.layout.segments]
        self.from_host = self.parameters[0].storage.fixed
        self.gradients = (
            Span(self.backend.alloc(0, self.dtype), 0, 0) if self.from_host else self.layout.like(self.dtype)
        )
        self.pending = PendingFactors(self.backend, self.gradients, owner)
        segments = [] if self.from_host else self.layout.segments
        places = [(type(segment.array), segment.array.shape, segment.offset) for segment in segments]
        self._owner = owner
        self._buffers = GradientArena(self.backend, self.gradients, places, self.pending, owner)
        self.given = self.from_host
        # Which parameters have a gradient, as the step table says; None if all of them.
        self._active: list[bool] | None = None
        self._counter = VersionCounter()
        self._counted_apart: list[Storage] = []
        self._checked_at = -1

    def adopt(self, earlier: ParameterArena | None) -> None:
        """Move in the parameters and their gradients; some may lie in an earlier arena. Takes no memory."""
        known = {} if earlier is None else {id(p): i for i, p in enumerate(earlier.parameters)}
        self.layout.gather()
        if not self.from_host:
            for i, p in enumerate(self.parameters):
                gradient, position = p.gradient, known.get(id(p), -1)
                if earlier is not None and position >= 0 and gradient is earlier._buffers.arrays[position]:
                    self._buffers.take_over(i, earlier._buffers, position)
                elif gradient is not None:
                    p.gradient = self._copy_in(gradient, self._buffers.arrays[i])
                p.grad_buffer = self._buffers.buffer_of(i)
        self._checked_at = storage_generation.count
        self._share_versions()

    def let_go(self) -> None:
        """Have no memory for gradients from now on: they are given to each step. Those there are, are forgotten."""
        self.given = True
        self.gradients = Span(self.backend.alloc(0, self.dtype), 0, 0)
        self.pending = PendingFactors(self.backend, self.gradients, self._owner)
        self._buffers = GradientArena(self.backend, self.gradients, [], self.pending, self._owner)
        for p in self.parameters:
            p.gradient = p.grad_buffer = None

    def buffer_of(self, index: int) -> ArenaGradient:
        """Where the gradient of one parameter belongs."""
        return self._buffers.buffer_of(index)

    def _copy_in(self, gradient: Array, place: Array) -> Array:
        self.backend.map(conversion(gradient.dtype, place.dtype), (gradient.view(),), (place.view(),))
        return place

    def _share_versions(self) -> None:
        """Let each parameter's storage count the steps as writes, also one that counts another optimizer's."""
        self._counted_apart = []
        for p in self.parameters:
            if p.storage.counter is UNTRACKED:
                p.storage.share_version(self._counter)
            elif p.storage.counter is not self._counter:
                self._counted_apart.append(p.storage)

    def count_step(self) -> None:
        """Count a step as a write to every parameter."""
        self._counter.bump()
        for storage in self._counted_apart:
            storage.version += 1

    def check(self) -> None:
        """Refuse what the coming step cannot do, before anything is changed."""
        if self._checked_at == storage_generation.count:
            return
        for p in self.parameters:
            if p.backend is not self.backend or p.dtype is not self.dtype:
                raise DeviceMismatchError(
                    f"a parameter was {self.dtype} on {self.backend.device} when the optimizer was built and is now "
                    f"{p.dtype} on {p.device}; build the optimizer after model.to(...)"
                )
        self._buffers.recover()
        for i, p in enumerate(self.parameters):
            if p.grad_buffer is None and not self.given:
                p.grad_buffer = self._buffers.buffer_of(i)  # it came back from another device
        self._share_versions()
        self._checked_at = storage_generation.count

    def gather_gradients(self, activate: Callable[[set[int]], None]) -> None:
        """Bring gradients given from elsewhere into the arena, and note which are missing.

        ``activate`` is told which parameters have one, if they are others than so far; it may fail for want of memory.
        """
        gradients = [p.gradient for p in self.parameters]
        arrays, active = self._buffers.arrays, self._active
        if active is None:
            known = all(map(is_, gradients, arrays))
        else:
            known = all(
                map(is_, gradients, [array if there else None for array, there in zip(arrays, active, strict=True)])
            )
        if known:
            return
        present = {i for i, gradient in enumerate(gradients) if gradient is not None}
        given = [i for i in present if gradients[i] is not arrays[i]]
        for i in given:
            check_gradient(gradients[i], self.parameters[i])
        places = [self._buffers.claim(i) for i in given]
        activate(present)
        for i, place in zip(given, places, strict=True):
            gradient = gradients[i]
            assert gradient is not None
            self.parameters[i].gradient = self._copy_in(gradient, place)
        some_inactive = len(present) < len(gradients)
        self._active = [i in present for i in range(len(gradients))] if some_inactive else None

    def all_active(self) -> None:
        """Note that the step table has all parameters active, as it has after a checkpoint."""
        self._active = None

    def detach_inactive(self) -> None:
        """See that what is done to all gradients at once reaches none that is kept though its parameter gave it up.

        To be called after :meth:`gather_gradients`.
        """
        if self._active is not None:
            self._buffers.detach(i for i, there in enumerate(self._active) if not there)

    def detach_others(self) -> bool:
        """As :meth:`detach_inactive`, at any time. Returns whether there were none to detach."""
        gradients, arrays = [p.gradient for p in self.parameters], self._buffers.arrays
        if all(map(is_, gradients, arrays)):
            return True
        others = [i for i, array in enumerate(arrays) if gradients[i] is not array]
        del gradients  # which would count as a reference to them
        self._buffers.detach(others)
        return False

    def release_gradients(self, *, set_to_none: bool) -> None:
        """Forget the gradients, or set them to zero in place."""
        if set_to_none:
            for p in self.parameters:
                p.gradient = None
            pending = self.pending
            if (pending.clip is not None or pending.workers != 1) and not self._buffers.anybody_sees():
                pending.drop()
            return
        everywhere = self.detach_others()
        self.pending.drop()
        self.backend.fill(self.gradients, 0)
        if not everywhere:
            for p, array in zip(self.parameters, self._buffers.arrays, strict=True):
                if p.gradient is not None:
                    p.gradient = array

    def has_gradients(self) -> bool:
        """Whether any parameter has its gradient in the arena, or one is kept there."""
        return (
            any(map(is_, [p.gradient for p in self.parameters], self._buffers.arrays)) or self._buffers.anybody_sees()
        )

    def holds_all_of(self, owners: Sequence[Array]) -> bool:
        """Whether ``owners`` are all parameters that have a gradient, each in the arena."""
        held = {id(p) for p, array in zip(self.parameters, self._buffers.arrays, strict=True) if p.gradient is array}
        return held == set(map(id, owners)) and held == {id(p) for p in self.parameters if p.gradient is not None}
