"""Releasing: the side of an optimizer that steps during the backward pass."""

from __future__ import annotations

from abc import abstractmethod

from netcl.errors import NetclError
from netcl.optim import validation
from netcl.optim.engine.group_factory import GroupFactory
from netcl.optim.engine.step_engine import StepEngine


class Releasing:
    """What an optimizer has for gradients that do not outlive the step of their parameter."""

    _engine: StepEngine
    _factory: GroupFactory

    @abstractmethod
    def _refuse_if_held(self, call: str) -> None: ...

    def release_gradients(self, max_norm: float | None = None) -> None:
        """Step each parameter in the backward pass from now on, as soon as its gradient is complete. Does not block.

        The gradient is let go of at once, so that the gradients of a whole model never exist together: the memory of a
        backward pass is that of what the tape keeps and of the largest gradient. There is a launch for each parameter.
        Every ``backward`` is a step; :meth:`step` is not called any more, ``grad`` stays None, and step hooks are not
        run.

        Parameters
        ----------
        max_norm : float, optional
            Scale the gradients by ``min(1, max_norm / norm)``, where norm is the L2 norm of all gradients of the last
            backward pass, for that of the present one is known at its end alone. The first pass is not clipped.

        Raises
        ------
        NetclError
            If the parameters are arrays of another library, or a gradient is waited for already, as it is in
            data-parallel training. Nothing is changed then.
        HyperParameterError
            If ``max_norm`` is not a number of at least 0, or the parameters are on several devices.

        Examples
        --------
        >>> import netcl
        >>> import netcl.autograd as ag
        >>> from netcl.optim import SGD
        >>> w = netcl.ones(3, requires_grad=True)
        >>> opt = SGD([w], lr=0.25)
        >>> opt.release_gradients()
        >>> with ag.Tape() as tape:
        ...     loss = netcl.sum(w * w)
        >>> tape.backward(loss)
        >>> w.tolist(), w.grad
        ([0.5, 0.5, 0.5], None)

        Notes
        -----
        Gradients that there are already are forgotten. Loss scaling, which decides by all gradients whether to step,
        is refused, and so are further parameter groups.
        """
        if max_norm is not None:
            max_norm = validation.bound("max_norm", max_norm)
        with self._engine.lock:
            self._refuse_if_held("release_gradients()")
            if self._factory.host is not None:
                raise NetclError(
                    "the gradients of host arrays are given to step(grads=[...]), not made by a backward pass; build "
                    "the optimizer from Tensors to release them"
                )
            self._engine.release_gradients(max_norm)

    def _refuse_if_released(self, call: str) -> None:
        """Refuse a call that needs all gradients at once."""
        if self._engine.release is not None:
            raise NetclError(
                f"{call} needs the gradients of all parameters, and this optimizer steps each of them in the backward "
                "pass since release_gradients(); leave the call out, or build an optimizer that keeps gradients"
            )
