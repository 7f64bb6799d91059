"""GradScaler: a loss scale that grows while gradients are finite and falls when one is not, decided on the device."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, overload

import numpy as np

from netcl import validation
from netcl.amp.scale_arithmetic import checked_scale, combine, rounded, times, unscaled_pair, updated
from netcl.array import Array
from netcl.backends import Selection, get_backend
from netcl.backends.base import Backend, Span, View
from netcl.dtypes import float32
from netcl.errors import ArgumentError, DeviceMismatchError, DTypeError, HyperParameterError, NetclError, StateError

A = TypeVar("A", bound=Array)

_FIELDS = ("scale", "found_nonfinite", "growth_tracker", "steps_skipped")
"""What the scaler keeps on the device; the first two are what ``prepare_step`` reads."""

_SAVED = ("scale", "growth_factor", "backoff_factor", "growth_interval", "growth_tracker")
"""What every scaler's state has, torch's too."""

_MOST_COUNTED = 1 << 24
"""Up to here float32, which is what the device counts in, has every integer."""


class ScaledStep(Protocol):
    """What a scaler needs of an optimizer."""

    def scaled_step(self, loss_scale: Span, max_norm: float | None) -> Sequence[Span]:
        """A step that divides the gradients by the loss scale and changes nothing if one is not finite.

        Returns one-element spans, nonzero where a gradient was not finite.
        """
        ...

    def unscale_gradients(self, loss_scale: Span) -> Sequence[Span]:
        """Divide the gradients in place; returns as ``scaled_step``."""
        ...


class GradScaler:
    """Loss scaling for mixed-precision training. Nothing here waits for the device but reading a value.

    ``scale`` multiplies the loss, and with it every gradient, by the loss scale; ``step`` divides the gradients by it
    within the optimizer's own pass, and changes no byte of parameters or state if one of them is NaN or infinite;
    ``update`` then multiplies the scale by ``backoff_factor``, or by ``growth_factor`` after ``growth_interval`` finite
    steps in a row.

    Parameters
    ----------
    init_scale : float, default 65536.0
        First loss scale, from 2**-126 to 2**126: there float32 holds it and its inverse.
    growth_factor : float, default 2.0
        Greater than 1.
    backoff_factor : float, default 0.5
        In (0, 1).
    growth_interval : int, default 2000
        Finite steps in a row before the scale grows, from 1 to 2**24, which is as far as the device counts.
    enabled : bool, default True
        With False every method passes through, so that one script trains with and without.
    min_scale : float, default 1.0
        The scale does not fall below this.
    device : str, Device or Backend, optional
        Where the scale is kept; by default that of the first loss.

    Raises
    ------
    HyperParameterError
        If a value is out of range.
    BackendError
        If there is no such device.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.amp import GradScaler
    >>> from netcl.optim import SGD
    >>> w = netcl.asarray([1.0], requires_grad=True)
    >>> opt, scaler = SGD([w], lr=0.25), GradScaler(init_scale=8.0)
    >>> with ag.Tape() as tape:
    ...     loss = netcl.sum(w * w)
    >>> tape.backward(scaler.scale(loss))
    >>> w.grad.item()
    16.0
    >>> scaler.step(opt)
    >>> scaler.update()
    >>> w.item(), scaler.get_scale(), scaler.steps_skipped
    (0.5, 8.0, 0)

    Notes
    -----
    As ``torch.amp.GradScaler``, whose first parameter is ``device``, with a floor under the scale (in torch 200
    overflows drive it to 0), a growth that stops at 2**126, and skipped steps that can be counted. Source: P.
    Micikevicius et al., 2017.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        min_scale: float = 1.0,
        device: Selection = None,
    ) -> None:
        if isinstance(init_scale, str):
            raise HyperParameterError(
                f"init_scale must be a number, got {init_scale!r}; a device is named by device={init_scale!r}"
            )
        self._enabled = validation.flag("enabled", enabled, error=HyperParameterError)
        scale = checked_scale("init_scale", init_scale)
        self._settle(growth_factor, backoff_factor, growth_interval)
        self.min_scale = checked_scale("min_scale", min_scale)
        if self.min_scale > scale:
            raise HyperParameterError(
                f"min_scale must be at most init_scale={init_scale!r}, got {min_scale!r}; the scale starts above it"
            )
        self._values = np.array([scale, 0.0, 0.0, 0.0], np.float32)
        self._backend: Backend | None = None
        self._state: Span | None = None
        self._unscaled: dict[int, list[Span]] = {}
        self._stepped: dict[int, Sequence[Span]] = {}
        if device is not None and self._enabled:
            self._on(get_backend(device))

    def _settle(self, growth_factor: float, backoff_factor: float, growth_interval: int) -> None:
        """Keep these settings, if the float32 numbers that the device computes with are right too."""
        growth = rounded("growth_factor", growth_factor, above=1.0)
        backoff = rounded("backoff_factor", backoff_factor, above=0.0, below=1.0)
        interval = validation.integer(
            "growth_interval", growth_interval, least=1, most=_MOST_COUNTED, error=HyperParameterError
        )
        self.growth_factor, self.backoff_factor, self.growth_interval = growth, backoff, interval

    def is_enabled(self) -> bool:
        """Whether losses are scaled."""
        return self._enabled

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after enough finite steps."""
        return self.growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Take another ``growth_factor``; it must be greater than 1, or HyperParameterError is raised."""
        self._settle(new_factor, self.backoff_factor, self.growth_interval)

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after a gradient that is not finite."""
        return self.backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Take another ``backoff_factor``; it must lie in (0, 1), or HyperParameterError is raised."""
        self._settle(self.growth_factor, new_factor, self.growth_interval)

    def get_growth_interval(self) -> int:
        """How many finite steps in a row the scale grows after."""
        return self.growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Take another ``growth_interval``; it must be at least 1, or HyperParameterError is raised."""
        self._settle(self.growth_factor, self.backoff_factor, new_interval)

    @overload
    def scale(self, outputs: A) -> A: ...

    @overload
    def scale(self, outputs: list[A]) -> list[A]: ...

    @overload
    def scale(self, outputs: tuple[A, ...]) -> tuple[A, ...]: ...

    def scale(self, outputs: Any) -> Any:
        """``outputs`` multiplied by the loss scale, for ``tape.backward``. Inside the tape's block or after it.

        Parameters
        ----------
        outputs : Tensor, or list or tuple of Tensor
            The loss, or several.

        Returns
        -------
        Tensor, or list or tuple of Tensor
            In float32 or wider. Enqueues work; does not block.

        Raises
        ------
        DTypeError
            If one of ``outputs`` is not a floating-point Tensor.
        """
        if isinstance(outputs, list | tuple) and outputs:
            return type(outputs)([self._scaled(each) for each in outputs])
        return self._scaled(outputs)

    def _scaled(self, outputs: A) -> A:
        if not isinstance(outputs, Array):
            raise DTypeError(f"scale() takes the loss, a Tensor, or a list of losses, got {validation.shown(outputs)}")
        if not outputs.dtype.is_floating:
            raise DTypeError(
                f"scale() takes a floating-point loss, got one of dtype {outputs.dtype}; only such a loss has gradients"
            )
        if not self._enabled:
            return outputs
        backend, state = self._on(outputs.backend)
        dtype = outputs.dtype.compute
        scaled = outputs.empty_like(dtype=dtype)
        factor = View(state.buffer, state.offset, outputs.shape, (0,) * outputs.ndim)
        backend.map(times(outputs.dtype, dtype), (outputs.view(), factor), (scaled.view(),))
        if outputs.node is not None:

            def vjp(gradient: Any) -> Any:
                result = outputs.empty_like()
                backend.map(times(gradient.dtype, outputs.dtype), (gradient.view(), factor), (result.view(),))
                return result

            outputs.node.tape.add(scaled, ((outputs, vjp),), "scale")
        return scaled

    def unscale_(self, optimizer: ScaledStep) -> None:
        """Divide the optimizer's gradients by the loss scale in place, so that they can be clipped or looked at.

        Enqueues work; does not block. Without this call ``step`` does it in its own pass, which saves one.

        Raises
        ------
        NetclError
            If it was called already since the last ``update``, or after ``step``.
        """
        _check_optimizer("unscale_()", optimizer)
        if not self._enabled:
            return
        if id(optimizer) in self._unscaled or id(optimizer) in self._stepped:
            raise NetclError("unscale_() was already called for this optimizer, or its step(), since the last update()")
        self._unscaled[id(optimizer)] = list(optimizer.unscale_gradients(self._loss_scale()))

    def step(self, optimizer: Any, *, max_norm: float | None = None) -> None:
        """Step the optimizer, or skip the step if a gradient is not finite. Enqueues work; does not block.

        Parameters
        ----------
        optimizer : Optimizer
        max_norm : float, optional
            Clip the unscaled gradients to this norm in the same pass, as ``optimizer.step(max_norm=...)``.

        Raises
        ------
        NetclError
            If the optimizer was stepped already since the last ``update``, or has no gradients.
        """
        _check_optimizer("step()", optimizer)
        if not self._enabled:
            optimizer.step(max_norm=max_norm)
            return
        if id(optimizer) in self._stepped:
            raise NetclError("step() was already called for this optimizer since the last update(); update() first")
        flags = self._unscaled.get(id(optimizer))
        loss_scale = self._loss_scale() if flags is None else self._already_unscaled(flags)
        self._stepped[id(optimizer)] = optimizer.scaled_step(loss_scale, max_norm)

    def update(self, new_scale: float | None = None) -> None:
        """Adjust the loss scale after the steps since the last call. Enqueues work; does not block.

        Parameters
        ----------
        new_scale : float, optional
            Take this scale instead; at least ``min_scale``.

        Raises
        ------
        HyperParameterError
            If ``new_scale`` is out of range.
        NetclError
            If no optimizer was stepped or unscaled since the last call.
        """
        if new_scale is not None:
            new_scale = checked_scale("new_scale", new_scale)
            if new_scale < self.min_scale:
                raise HyperParameterError(
                    f"new_scale must be at least min_scale={self.min_scale}, got {new_scale}; build the scaler with a "
                    "lower min_scale"
                )
        if not self._enabled:
            return
        if new_scale is not None:
            self._values[0] = new_scale
            if self._backend is not None and self._state is not None:
                self._backend.fill(self._state.element(0), new_scale)
            self._forget()
            return
        flags = [flag for found in (*self._stepped.values(), *self._unscaled.values()) for flag in found]
        if not (self._stepped or self._unscaled) or self._backend is None or self._state is None:
            raise NetclError("update() found no step since the last call; call scaler.step(optimizer) first")
        if not flags:  # steps that only gathered gradients
            self._forget()
            return
        found = flags[0] if len(flags) == 1 else self._combined(flags)
        names = ("scale", "growth_tracker", "steps_skipped")
        views = [self._state.element(_FIELDS.index(name)).view() for name in names]
        numbers = (self.growth_factor, self.backoff_factor, float(self.growth_interval), self.min_scale)
        self._backend.map(updated(found.dtype), (*views, found.view()), views, numbers)
        self._forget()

    def get_scale(self) -> float:
        """The loss scale. **Blocks**. 1.0 when disabled."""
        return float(self._read()[0]) if self._enabled else 1.0

    @property
    def steps_skipped(self) -> int:
        """How many updates found a gradient that was not finite, so that steps were skipped. Reading it **blocks**."""
        return int(self._read()[_FIELDS.index("steps_skipped")])

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here; empty when disabled. **Blocks**."""
        if not self._enabled:
            return {}
        values = self._read()
        return {
            "scale": float(values[0]),
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "min_scale": self.min_scale,
            "growth_tracker": int(values[2]),
            "steps_skipped": int(values[3]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`, or from one of ``torch.amp.GradScaler``.

        Raises
        ------
        StateError
            If an entry is missing (``_growth_tracker`` counts as torch's name), unknown or out of range; nothing is
            changed then.
        """
        if not isinstance(state, Mapping):
            raise StateError(
                f"a scaler's state is what its state_dict() returns, a dict, got {validation.shown(state)}"
            )
        if not self._enabled:
            return
        values = dict(state)
        if "growth_tracker" not in values and "_growth_tracker" in values:
            values["growth_tracker"] = values.pop("_growth_tracker")
        for name in _SAVED:
            if name not in values:
                held = ", ".join(map(str, state)) or "nothing"
                raise StateError(f"the scaler's state lacks {name!r}; it has {held}, and must come from state_dict()")
        for name in values:
            if name not in (*_SAVED, "min_scale", "steps_skipped"):
                raise StateError(
                    f"the scaler's state has {validation.shown(name)}, which no scaler knows; it must come from "
                    "state_dict()"
                )
        counts = [
            validation.integer(name, values.get(name, 0), least=0, most=_MOST_COUNTED, error=StateError)
            for name in ("growth_tracker", "steps_skipped")
        ]
        settings = [values[name] for name in ("growth_factor", "backoff_factor", "growth_interval")]
        try:
            scale = checked_scale("scale", values["scale"])
            # torch's scalers have no floor: where one went below this scaler's, that gives way.
            floor = values["min_scale"] if "min_scale" in values else min(self.min_scale, scale)
            fresh = GradScaler(scale, *settings, min_scale=floor)
        except HyperParameterError as error:
            raise StateError(f"the scaler's state does not fit: {error}") from error
        loaded = np.array([scale, 0.0, *counts], np.float32)
        if self._backend is not None and self._state is not None:
            self._backend.upload(loaded.copy(), self._state)
        self._values = loaded
        self.growth_factor, self.backoff_factor = fresh.growth_factor, fresh.backoff_factor
        self.growth_interval, self.min_scale = fresh.growth_interval, fresh.min_scale
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle starts from; it moves to a device with its first loss. **Blocks**."""
        if self._unscaled or self._stepped:
            raise NetclError(
                "a scaler can be copied or pickled between update() and the next step, and a step waits for its "
                "update(); call update() first"
            )
        return {**self.__dict__, "_values": self._read().copy(), "_backend": None, "_state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._unscaled, self._stepped = {}, {}

    def __copy__(self) -> GradScaler:
        return copy.deepcopy(self)

    def _forget(self) -> None:
        self._unscaled.clear()
        self._stepped.clear()

    def _on(self, backend: Backend) -> tuple[Backend, Span]:
        """The device that holds the scale: that of the first loss."""
        if self._state is None:
            self._backend = backend
            self._state = Span(backend.alloc(len(_FIELDS), float32), 0, len(_FIELDS))
            backend.upload(self._values.copy(), self._state)
        if self._backend is not backend:
            raise DeviceMismatchError(
                f"this scaler's loss scale is on {self._backend.device if self._backend else '?'} and the loss on "
                f"{backend.device}; use one scaler for each device"
            )
        return backend, self._state

    def _loss_scale(self) -> Span:
        if self._state is None:
            raise NetclError("no loss has been scaled yet; call tape.backward(scaler.scale(loss)) first")
        return self._state.part(0, 2)

    def _already_unscaled(self, flags: Sequence[Span]) -> Span:
        """A loss scale of 1, with what ``unscale_`` found."""
        assert self._backend is not None
        return unscaled_pair(self._backend, flags)

    def _combined(self, flags: Sequence[Span]) -> Span:
        assert self._backend is not None
        found = Span(self._backend.alloc(1, float32), 0, 1)
        combine(self._backend, flags, found)
        return found

    def _read(self) -> np.ndarray[Any, Any]:
        if self._backend is None or self._state is None:
            return self._values
        values: np.ndarray[Any, Any] = self._backend.download(self._state)
        return values


def _check_optimizer(call: str, optimizer: Any) -> None:
    methods = ("step", "scaled_step", "unscale_gradients")
    if isinstance(optimizer, type) or not all(callable(getattr(optimizer, name, None)) for name in methods):
        raise ArgumentError(f"{call} takes an optimizer of netcl.optim, got {validation.shown(optimizer)}")
