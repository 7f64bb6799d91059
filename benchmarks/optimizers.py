"""Whole optimizer steps over many tensors, plain, clipped and with a scaler. Every step is waited for."""

from __future__ import annotations

from functools import lru_cache, partial
from types import SimpleNamespace

import netcl
from netcl import amp, optim

from .common import RUNTIMES, SHORT, normal, require

# How many float32 tensors of how many elements.
LAYOUTS = {"3 x 1000": (3, 1000)} if SHORT else {
    "1 x 10M": (1, 10_000_000), "200 x 50k": (200, 50_000), "1000 x 1000": (1000, 1000)
}  # fmt: skip
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=1e-3),
    "Momentum": lambda params: optim.Momentum(params, lr=1e-3),
    "Adam": lambda params: optim.Adam(params, lr=1e-3),
    "AdamW": lambda params: optim.AdamW(params, lr=1e-3),
    "RMSProp": lambda params: optim.RMSProp(params, lr=1e-3, centered=True),
}

# What came later: plain steps of the whole size alone, and none in the short form.
FAMILY = () if SHORT else (
    "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop", "Lion", "Adan", "AdaBelief", "ScheduleFreeSGD",
    "ScheduleFreeAdamW",
)  # fmt: skip
OPTIMIZERS |= {name: partial(getattr(optim, name), lr=1e-3) for name in FAMILY}
FIRST = tuple(name for name in OPTIMIZERS if name not in FAMILY)


@lru_cache(maxsize=1)
def parameters(runtime: str, layout: str, optimizer: str) -> SimpleNamespace:
    """An optimizer with its parameters and gradients, kept from one sample to the next."""
    backend = require(runtime)
    count, n = LAYOUTS[layout]
    values = normal(n)
    tensors = [netcl.asarray(values, device=backend.device, copy=True, requires_grad=True) for _ in range(count)]
    for tensor in tensors:
        tensor.grad = netcl.asarray(values, device=backend.device, copy=True)
    scaler = amp.GradScaler(init_scale=1.0)
    scaler.scale(netcl.ones((), device=backend.device))
    return SimpleNamespace(backend=backend, tensors=tensors, optimizer=OPTIMIZERS[optimizer](tensors), scaler=scaler)


class OptimizerStep:
    """``step()``: alone, after clipping, with the clipping folded in, and through a scaler."""

    params = (RUNTIMES, tuple(LAYOUTS), FIRST[-2:] if SHORT else FIRST)
    param_names = ("runtime", "layout", "optimizer")
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, layout: str, optimizer: str) -> None:
        self.o = parameters(runtime, layout, optimizer)

    def time_step(self, runtime: str, layout: str, optimizer: str) -> None:
        self.o.optimizer.step()
        self.o.backend.synchronize()

    def time_clip_and_step(self, runtime: str, layout: str, optimizer: str) -> None:
        optim.clip_grad_norm_device(self.o.tensors, max_norm=1.0)
        self.o.optimizer.step()
        self.o.backend.synchronize()

    def time_clipped_step(self, runtime: str, layout: str, optimizer: str) -> None:
        self.o.optimizer.step(max_norm=1.0)
        self.o.backend.synchronize()

    def time_scaled_step(self, runtime: str, layout: str, optimizer: str) -> None:
        self.o.scaler.step(self.o.optimizer, max_norm=1.0)
        self.o.scaler.update()
        self.o.backend.synchronize()


class FamilyStep:
    """``step()`` of each optimizer of the family, over one tensor and over many."""

    params = (RUNTIMES, tuple(name for name in LAYOUTS if name != "200 x 50k"), FAMILY or ("none",))
    param_names = ("runtime", "layout", "optimizer")
    warmup_time = 0.3
    rounds = 1
    timeout = 120

    def setup(self, runtime: str, layout: str, optimizer: str) -> None:
        if optimizer == "none":
            raise NotImplementedError("the short form leaves the family out")
        self.o = parameters(runtime, layout, optimizer)

    def time_step(self, runtime: str, layout: str, optimizer: str) -> None:
        self.o.optimizer.step()
        self.o.backend.synchronize()


SCHEDULES = {
    "CosineAnnealingLR": lambda opt: optim.CosineAnnealingLR(opt, T_max=1_000_000),
    "WarmupCosine": lambda opt: optim.WarmupCosine(opt, warmup_steps=100, total_steps=1_000_000),
    "ReduceLROnPlateau": lambda opt: optim.ReduceLROnPlateau(opt),
}


class Schedules:
    """A hundred steps of a schedule, which the host computes alone."""

    params = tuple(SCHEDULES)
    param_names = ("schedule",)

    def setup(self, schedule: str) -> None:
        with netcl.use_backend("numpy"):
            self.schedule = SCHEDULES[schedule](optim.SGD([netcl.ones(1, requires_grad=True)], lr=0.1))
        self.arguments = (1.0,) if schedule == "ReduceLROnPlateau" else ()

    def time_hundred_steps(self, schedule: str) -> None:
        for _ in range(100):
            self.schedule.step(*self.arguments)
