"""One training step of a small model, and the memory that the process holds while it trains."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import amp, nn, optim

from .common import RUNTIMES, normal, require


@lru_cache(maxsize=1)
def training(runtime: str) -> SimpleNamespace:
    """A 784-256-128-10 perceptron and one batch of 128 images."""
    backend = require(runtime)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    ).to(backend.device)  # fmt: skip
    return SimpleNamespace(
        backend=backend,
        model=model,
        optimizer=optim.AdamW(model.parameters(), lr=1e-3),
        scaler=amp.GradScaler(),
        x=netcl.asarray(normal(128, 784), device=backend.device),
        y=netcl.asarray(np.arange(128) % 10, device=backend.device),
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

    def time_perceptron_in_float16(self, runtime: str) -> None:
        o = self.o
        with ag.Tape() as tape, amp.autocast():
            loss = ag.cross_entropy(o.model(o.x), o.y)
        tape.backward(o.scaler.scale(loss))
        o.scaler.step(o.optimizer, max_norm=1.0)
        o.scaler.update()
        o.optimizer.zero_grad()
        o.backend.synchronize()

    def peakmem_perceptron(self, runtime: str) -> None:
        for _ in range(20):
            self.time_perceptron(runtime)
