"""Whole optimizer steps over many tensors, and one training step of a small model. Every step is waited for."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import nn, optim

from .common import RUNTIMES, require

# How many float32 tensors of how many elements.
LAYOUTS = {"1 x 10M": (1, 10_000_000), "200 x 50k": (200, 50_000), "1000 x 1000": (1000, 1000)}
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=1e-3, momentum=0.9),
    "AdamW": lambda params: optim.AdamW(params, lr=1e-3),
    "RMSProp": lambda params: optim.RMSProp(params, lr=1e-3, centered=True),
}


@lru_cache(maxsize=1)
def parameters(runtime: str, layout: str, optimizer: str) -> SimpleNamespace:
    """An optimizer with its parameters and gradients, kept from one sample to the next."""
    backend = require(runtime)
    count, n = LAYOUTS[layout]
    values = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    tensors = [netcl.asarray(values, device=backend.device, copy=True, requires_grad=True) for _ in range(count)]
    for tensor in tensors:
        tensor.grad = netcl.asarray(values, device=backend.device, copy=True)
    return SimpleNamespace(backend=backend, tensors=tensors, optimizer=OPTIMIZERS[optimizer](tensors))


class OptimizerStep:
    """``step()``, alone and after clipping."""

    params = (RUNTIMES, tuple(LAYOUTS), tuple(OPTIMIZERS))
    param_names = ("runtime", "layout", "optimizer")
    warmup_time = 0.3
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


@lru_cache(maxsize=1)
def training(runtime: str) -> SimpleNamespace:
    """A 784-256-128-10 perceptron and one batch of 128 images."""
    backend = require(runtime)
    random = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    ).to(backend.device)  # fmt: skip
    return SimpleNamespace(
        backend=backend,
        model=model,
        optimizer=optim.AdamW(model.parameters(), lr=1e-3),
        x=netcl.asarray(random.standard_normal((128, 784), dtype=np.float32), device=backend.device),
        y=netcl.asarray(random.integers(0, 10, 128), device=backend.device),
    )


class TrainingStep:
    """Forward, backward, clipping and AdamW."""

    params = (RUNTIMES,)
    param_names = ("runtime",)
    warmup_time = 0.3
    timeout = 120

    def setup(self, runtime: str) -> None:
        self.o = training(runtime)

    def time_perceptron(self, runtime: str) -> None:
        o = self.o
        with ag.Tape() as tape:
            loss = ag.cross_entropy(o.model(o.x), o.y)
        tape.backward(loss)
        optim.clip_grad_norm_device(o.model.parameters(), max_norm=1.0)
        o.optimizer.step()
        o.optimizer.zero_grad()
        o.backend.synchronize()
