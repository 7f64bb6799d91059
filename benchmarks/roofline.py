"""How far steps are from what the machine allows, and from torch: ratios, measured side by side. 1 is perfect."""

from __future__ import annotations

import statistics
from importlib.util import find_spec
from typing import Any

import numpy as np

import netcl
from netcl import optim

from .common import RUNTIMES, SHORT, normal, require
from .ratios import Run, measure

N = 100_000 if SHORT else 10_000_000
ROUNDS = 1 if SHORT else 9

# The optimizer, its state fields, and the one of torch.
WORK = {
    "SGD": (lambda p: optim.SGD(p, lr=1e-3, momentum=0.9), 1, ("SGD", {"momentum": 0.9, "fused": True})),
    "AdamW": (lambda p: optim.AdamW(p, lr=1e-3), 2, ("AdamW", {"fused": True})),
    "RMSProp": (lambda p: optim.RMSProp(p, lr=1e-3), 1, ("RMSprop", {})),
}


def bare(backend: Any, fields: int) -> Run:
    """What moves the bytes of an update with so many state fields, and computes next to nothing."""
    if backend.device.backend == "opencl":
        from .compare import traffic

        return traffic(backend, N, fields)
    g, *written = (np.full(N, 1e-3, np.float32) for _ in range(2 + fields))

    def run() -> None:
        for start in range(0, N, 16_384):  # blocks that stay in the cache, as those of the backend
            block = slice(start, start + 16_384)
            for array in written:
                array[block] += g[block]

    return run


def torch_step(name: str, options: dict[str, Any]) -> Run:
    import torch

    parameter = torch.tensor(normal(N), requires_grad=True)
    parameter.grad = torch.tensor(normal(N))
    step: Run = getattr(torch.optim, name)([parameter], lr=1e-3, **options).step
    return step


class Ratios:
    """The median of paired ratios over a few rounds."""

    params = (RUNTIMES, tuple(WORK))
    param_names = ("runtime", "optimizer")
    unit = "ratio"
    timeout = 240

    def setup(self, runtime: str, optimizer: str) -> None:
        backend = require(runtime)
        tensor = netcl.asarray(normal(N), device=backend.device, copy=True, requires_grad=True)
        tensor.grad = netcl.asarray(normal(N), device=backend.device, copy=True)
        stepped = WORK[optimizer][0]([tensor])

        def step() -> None:
            stepped.step()
            backend.synchronize()

        self.backend, self.step = backend, step

    def against(self, other: Run) -> float:
        samples = measure({"netcl": self.step, "other": other}, ROUNDS)
        return statistics.median(a / b for a, b in zip(samples["netcl"], samples["other"], strict=True))

    def track_roofline_over_achieved(self, runtime: str, optimizer: str) -> float:
        return self.against(bare(self.backend, WORK[optimizer][1]))

    def track_ratio_to_torch(self, runtime: str, optimizer: str) -> float:
        if not find_spec("torch"):
            return float("nan")
        return self.against(torch_step(*WORK[optimizer][2]))
