"""PerLabel: several optimizers in one, each with the parameters of its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar, final

from netcl.amp.scale_arithmetic import unscaled_pair
from netcl.array import Array
from netcl.backends.base import Span
from netcl.errors import DeviceMismatchError, HyperParameterError, NetclError, StateError
from netcl.optim import validation
from netcl.optim.clip import clip_grad_norm_device
from netcl.optim.engine.partition import Partition
from netcl.optim.optimizer import Optimizer
from netcl.validation import shown

T = TypeVar("T")
Labels = Mapping[str, str] | Callable[[str, Any], str]


@final
class PerLabel:
    """Optimize parameters with different optimizers, as one object with one step.

    Parameters
    ----------
    params : iterable of (name, Tensor)
        As from ``model.named_parameters()``.
    optimizers : mapping of str to callable
        For each label what makes its optimizer of ``(name, Tensor)`` pairs: a class, or ``functools.partial`` of one
        with its hyper-parameters. A label that no parameter has makes none.
    labels : mapping of str to str, or callable
        The label of each parameter: ``{pattern: label}``, where the first pattern counts that fits the name as
        ``fnmatch`` says (``"*.bias"``, ``"*"``), or ``label(name, tensor)``.

    Attributes
    ----------
    optimizers : dict of str to Optimizer
        By label. A schedule takes one of these.

    Raises
    ------
    HyperParameterError
        If a parameter has no label, or one without an optimizer, or something is of another kind.

    Examples
    --------
    >>> from functools import partial
    >>> import netcl
    >>> from netcl import nn
    >>> from netcl.optim import SGD, AdamW, PerLabel
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> opt = PerLabel(
    ...     model.named_parameters(),
    ...     {"weights": partial(AdamW, lr=1e-3), "biases": partial(SGD, lr=0.1)},
    ...     {"*.bias": "biases", "*": "weights"},
    ... )
    >>> opt.optimizers["biases"].param_groups[0]["names"]
    ['0.bias', '2.bias']

    Notes
    -----
    A step costs the launches of each optimizer that has a gradient. With ``max_norm`` the norm is that of all gradients
    together, which takes a launch for it and one that multiplies; a scaler's step takes one that divides. As
    ``optax.multi_transform``.
    """

    def __init__(
        self,
        params: Any,
        optimizers: Mapping[str, Callable[[list[tuple[str, Any]]], Optimizer]],
        labels: Labels,
    ) -> None:
        if not isinstance(optimizers, Mapping) or not all(map(callable, optimizers.values())):
            raise HyperParameterError(
                f"optimizers must be a dict of classes or functions by label, got {shown(optimizers)}"
            )
        if not callable(labels) and not isinstance(labels, Mapping):
            raise HyperParameterError(f"labels must be a dict by pattern, or a function, got {shown(labels)}")
        given: dict[str, list[tuple[str, Any]]] = {label: [] for label in optimizers}
        for item in validation.listed("params", params):
            if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)):
                raise HyperParameterError(
                    f"params must be (name, Tensor) pairs, as from model.named_parameters(), got {shown(item)}"
                )
            name, tensor = item
            if not isinstance(tensor, Array):
                raise HyperParameterError(f"{name} must be a Tensor, got {shown(tensor)}")
            label = _asked(name, tensor, labels) if callable(labels) else _first_fit(name, labels)
            if label not in given:
                raise HyperParameterError(
                    f"{name} has the label {shown(label)}, for which there is no optimizer; there are "
                    f"{', '.join(map(repr, optimizers)) or 'none'}"
                )
            given[label].append(item)
        if not any(given.values()):
            raise HyperParameterError("params is empty; pass model.named_parameters() of a model that has some")
        self.optimizers = {label: optimizers[label](items) for label, items in given.items() if items}
        for label, made in self.optimizers.items():
            if not isinstance(made, Optimizer):
                raise HyperParameterError(f"what makes the optimizer of {label!r} returned {shown(made)}")

    @property
    def param_groups(self) -> list[Any]:
        """The parameter groups of all of them."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    @property
    def partitions(self) -> Sequence[Partition]:
        """The partitions of all of them."""
        return tuple(partition for optimizer in self.optimizers.values() for partition in optimizer.partitions)

    def step(self, closure: Callable[[], T] | None = None, *, max_norm: float | None = None) -> T | None:
        """Step each optimizer that has a gradient. Does not block.

        Parameters
        ----------
        closure : callable, optional
            Called first; its result is returned.
        max_norm : float, optional
            Scale the gradients in place by ``min(1, max_norm / norm)`` first, where norm is the L2 norm of all of them.

        Raises
        ------
        NetclError
            If no parameter has a gradient.
        HyperParameterError, DeviceMismatchError
            If ``max_norm`` is out of range, or the gradients are on several devices.
        """
        validation.function("closure", closure)
        if max_norm is not None:
            max_norm = validation.bound("max_norm", max_norm)
        result = None if closure is None else closure()
        live = self._live()
        if max_norm is not None:
            clip_grad_norm_device(_parameters(live), max_norm)
        for optimizer in live:
            optimizer.step()
        return result

    def scaled_step(self, loss_scale: Span, max_norm: float | None = None) -> list[Span]:
        """The step of :class:`netcl.amp.GradScaler`: all of them, or none if a gradient is not finite."""
        live = self._live()
        flags = self.unscale_gradients(loss_scale)
        if max_norm is not None:
            clip_grad_norm_device(_parameters(live), max_norm)
        pair = unscaled_pair(live[0].partitions[0].backend, flags)
        for optimizer in live:
            optimizer.scaled_step(pair)
        return flags

    def unscale_gradients(self, loss_scale: Span) -> list[Span]:
        """Divide the gradients by the loss scale in place, for :class:`netcl.amp.GradScaler`. Does not block."""
        live = self._live()
        devices = {id(partition.backend): str(partition.backend.device) for partition in self.partitions}
        if len(devices) > 1:
            raise DeviceMismatchError(
                f"a scaler steps parameters of one device, and these are on {' and '.join(devices.values())}; give "
                "each device a PerLabel and a scaler of its own"
            )
        return [flag for optimizer in live for flag in optimizer.unscale_gradients(loss_scale)]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients. Does not block."""
        validation.flag("set_to_none", set_to_none)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state dict of each optimizer, by label. **Blocks**."""
        return {label: optimizer.state_dict() for label, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`.

        Raises
        ------
        StateError
            If it has other labels, or what it has does not fit an optimizer; all of them are as they were then.
        """
        if not isinstance(state, Mapping) or set(state) != set(self.optimizers):
            raise StateError(
                f"the state must be a dict by label, of {', '.join(self.optimizers)}, got {shown(state)}; it must come "
                "from state_dict()"
            )
        before: dict[str, Any] = {}
        try:
            for label, optimizer in self.optimizers.items():
                kept = optimizer.state_dict()
                optimizer.load_state_dict(state[label])
                before[label] = kept
        except BaseException:
            for label, kept in before.items():
                self.optimizers[label].load_state_dict(kept)
            raise

    def _live(self) -> list[Optimizer]:
        """The optimizers that have a gradient."""
        live = [
            optimizer
            for optimizer in self.optimizers.values()
            if any(p.gradient is not None for group in optimizer.param_groups for p in group["params"])
        ]
        if not live:
            raise NetclError(
                "PerLabel found no gradient on any of its parameters; call tape.backward(loss) first, and make sure "
                "that the loss depends on them"
            )
        return live

    def __repr__(self) -> str:
        return "\n".join(f"{label!r}: {optimizer!r}" for label, optimizer in self.optimizers.items())


def _asked(name: str, tensor: Any, labels: Callable[[str, Any], str]) -> str:
    try:
        return labels(name, tensor)
    except Exception as error:  # whatever goes wrong in a user's function, the parameter is named
        raise HyperParameterError(
            f"labels fails for {name} with {type(error).__name__}: {error}; it gets a name and a Tensor, and returns a "
            "label"
        ) from error


def _first_fit(name: str, labels: Mapping[str, str]) -> str:
    for pattern, label in labels.items():
        if fnmatchcase(name, pattern):
            return label
    raise HyperParameterError(
        f'{name} fits none of the patterns {", ".join(map(repr, labels)) or "(none)"}; add a last one "*" for the rest'
    )


def _parameters(optimizers: Sequence[Optimizer]) -> list[Any]:
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
