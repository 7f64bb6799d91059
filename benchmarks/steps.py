"""Optimizer steps as sides of a comparison: of netcl, of torch, and of a kernel that only moves the same bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import netcl
from netcl import amp, optim
from netcl.optim.optimizer import Optimizer

from .sides import Side

Arrays = Sequence[tuple[np.ndarray, np.ndarray]]
Step = Callable[[], Any]

FAMILY_OF_TORCH = ("Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop")
"""What torch has besides, under the same names."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "AdamW": {"lr": 1e-3, "weight_decay": 0.01},
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "RMSProp": {"lr": 1e-3},
    **{name: {"lr": 1e-3} for name in FAMILY_OF_TORCH},
}
"""The optimizers that are compared, and their options."""


@dataclass(frozen=True)
class Work:
    """One row: an optimizer over so many tensors of so many elements.

    Attributes
    ----------
    name : str
    optimizer : str
        A key of :data:`OPTIONS`.
    count, n : int
        So many tensors of so many elements.
    options : mapping
        Beside those of :data:`OPTIONS`.
    max_norm : float, optional
        Gradients are clipped before the step.
    scaled : bool
        Gradients are unscaled and looked through for infinities before that.
    """

    name: str
    optimizer: str
    count: int
    n: int
    options: Mapping[str, Any] = field(default_factory=dict)
    max_norm: float | None = None
    scaled: bool = False

    @property
    def row(self) -> str:
        return f"{self.name}, {self.count:,} × {self.n:,}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the optimizer."""
        return {**OPTIONS[self.optimizer], **self.options}


def values(count: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters and gradients."""
    random = np.random.default_rng(0)
    return [
        (random.standard_normal(n, dtype=np.float32), random.standard_normal(n, dtype=np.float32)) for _ in range(count)
    ]


def tensors(backend: Any, arrays: Arrays) -> list[Any]:
    made = []
    for value, gradient in arrays:
        tensor = netcl.asarray(value, device=backend.device, copy=True, requires_grad=True)
        tensor.grad = netcl.asarray(gradient, device=backend.device, copy=True)
        made.append(tensor)
    return made


def waited(backend: Any, step: Step) -> Callable[[int], None]:
    """So many steps in a row; only the last is waited for."""

    def run(steps: int) -> None:
        for _ in range(steps):
            step()
        backend.synchronize()

    return run


def repeated(step: Step) -> Callable[[int], None]:
    """So many steps that each end by themselves."""

    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


class TracedAdamW(Optimizer):
    """AdamW whose rule the backend traces, where ``optim.AdamW`` runs the kernel written by hand."""

    def __init__(self, params: Any, **options: Any) -> None:
        source = optim.AdamW([netcl.ones(1, backend="numpy")], **options)
        rule = replace(source._choose_rule(source.param_groups), fused_adam=False)
        super().__init__(params, source.defaults, rule)


def netcl_side(runtime: str, work: Work, traced: bool = False) -> Side:
    """netcl's optimizer on one of its backends; ``traced`` is for AdamW."""
    backend = netcl.get_backend(runtime)
    params = tensors(backend, values(work.count, work.n))
    optimizer = (TracedAdamW if traced else getattr(optim, work.optimizer))(params, **work.arguments)
    # A scale of 1: torch divides its gradients in place, again in every round.
    scaler = amp.GradScaler(init_scale=1.0)
    scaler.scale(netcl.ones((), device=backend.device))

    def scaled() -> None:
        scaler.step(optimizer, max_norm=work.max_norm)
        scaler.update()

    def plain() -> None:
        optimizer.step(max_norm=work.max_norm)

    return Side(waited(backend, scaled if work.scaled else plain), lambda: [param.numpy() for param in params])


def traffic_side(runtime: str, n: int, *, read: int = 1, updated: int = 0, written: int = 0) -> Side:
    """Launches that move the bytes of so many arrays of float32, each read, read and written, or written."""
    from netcl.backends.opencl.tuner.search import bare_traffic

    backend = netcl.get_backend(runtime)
    return Side(waited(backend, bare_traffic(backend, n, read=read, updated=updated, written=written)))


def use_torch() -> Any:
    """torch, with as many threads as the machine has cores."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    return torch


def torch_side(work: Work) -> Side:
    torch = use_torch()
    params = []
    for value, gradient in values(work.count, work.n):
        param = torch.tensor(value, requires_grad=True)
        param.grad = torch.tensor(gradient)
        params.append(param)
    optimizer = {
        "AdamW": lambda **options: torch.optim.AdamW(params, fused=True, **options),
        "SGD": lambda **options: torch.optim.SGD(params, fused=True, **options),
        "RMSProp": lambda **options: torch.optim.RMSprop(params, **options),
        "Adagrad": lambda **options: torch.optim.Adagrad(params, fused=True, **options),
        # The others have no fused form. Many small tensors are faster in its form for lists, one large one is not.
        **{
            name: partial(getattr(torch.optim, name), params, foreach=work.count > 1)
            for name in FAMILY_OF_TORCH
            if name != "Adagrad"
        },
    }[work.optimizer](**work.arguments)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))

    def clip() -> None:
        if work.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, work.max_norm)

    def scaled() -> None:
        scaler.unscale_(optimizer)
        clip()
        scaler.step(optimizer)
        scaler.update()

    def plain() -> None:
        clip()
        optimizer.step()

    return Side(repeated(scaled if work.scaled else plain), lambda: [param.detach().numpy() for param in params])


def expressions_side(n: int) -> Side:
    """AdamW as one writes it in NumPy, with the roundings of the reference backend."""
    ((p, g),) = values(1, n)
    beta1, beta2, one, two, lr, eps, decay = map(np.float32, (0.9, 0.999, 1 - 0.9, 1 - 0.999, 1e-3, 1e-8, 0.01))
    logs = [float(np.float32(math.log(beta))) for beta in (0.9, 0.999)]
    m, v = np.zeros_like(p), np.zeros_like(p)
    t = 0

    def step() -> None:
        nonlocal m, v, t
        t += 1
        c1, c2 = (np.float32(-np.expm1(t * log)) for log in logs)
        m = beta1 * m + one * g
        v = beta2 * v + two * (g * g)
        p[...] = p - lr * ((m / c1) / (np.sqrt(v / c2) + eps) + decay * p)

    return Side(repeated(step), lambda: [p])
