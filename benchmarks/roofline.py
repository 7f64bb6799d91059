"""How far calls and steps are from what the machine allows, and steps from torch's. Ratios of times: 1 is perfect."""

from __future__ import annotations

import statistics
from importlib.util import find_spec
from typing import Any

import numpy as np

from netcl import optim
from netcl.dtypes import float32

from .common import RUNTIMES, SHORT, normal, require, spread
from .ratios import Run, measure
from .steps import STEPS, own_steps, tensors, torch_steps, torch_tensors, traffic, values

N = 100_000 if SHORT else 10_000_000
ROUNDS = 1 if SHORT else 7

# The optimizer, its state fields, and the one of torch.
WORK = {
    "SGD": (lambda p: optim.SGD(p, lr=1e-3, momentum=0.9), 1, ("SGD", {"momentum": 0.9, "fused": True})),
    "AdamW": (lambda p: optim.AdamW(p, lr=1e-3), 2, ("AdamW", {"fused": True})),
    "RMSProp": (lambda p: optim.RMSProp(p, lr=1e-3), 1, ("RMSprop", {})),
}


def against(own: Run, other: Run) -> float:
    """The median ratio of two sides that take turns."""
    samples = measure({"own": own, "other": other}, ROUNDS)
    return statistics.median(a / b for a, b in zip(samples["own"], samples["other"], strict=True))


def blocks(fields: int) -> Run:
    """What moves the bytes of an update on NumPy: additions in blocks that stay in the cache, as the backend's."""
    g, *written = (np.full(N, 1e-3, np.float32) for _ in range(2 + fields))

    def run() -> None:
        for _ in range(STEPS):
            for start in range(0, N, 16_384):
                block = slice(start, start + 16_384)
                for array in written:
                    array[block] += g[block]

    return run


class Ratios:
    """Steps of ten million elements beside bare memory traffic, and beside torch."""

    params = (RUNTIMES, tuple(WORK))
    param_names = ("runtime", "optimizer")
    unit = "ratio"
    timeout = 240

    def setup(self, runtime: str, optimizer: str) -> None:
        self.backend = require(runtime)
        self.step = own_steps(self.backend, WORK[optimizer][0](tensors(self.backend, values(1, N))))

    def track_roofline_over_achieved(self, runtime: str, optimizer: str) -> float:
        fields = WORK[optimizer][1]
        bare = blocks(fields) if runtime == "numpy" else traffic(self.backend, N, updated=1 + fields)
        return against(self.step, bare)

    def track_ratio_to_torch(self, runtime: str, optimizer: str) -> float:
        if not find_spec("torch"):
            return float("nan")
        import torch

        name, options = WORK[optimizer][2]
        theirs = torch_tensors(values(1, N))
        return against(self.step, torch_steps(getattr(torch.optim, name)(theirs, lr=1e-3, **options), theirs))


# The arrays that each call reads, reads and writes, and writes.
CALLS = {"fill": (0, 0, 1), "scale": (0, 1, 0), "axpy": (1, 1, 0), "norm_reduce": (1, 0, 0)}


class CallRatios:
    """The flat calls of the seam on ten million elements beside bare memory traffic, on OpenCL."""

    params = (RUNTIMES, tuple(CALLS))
    param_names = ("runtime", "call")
    unit = "ratio"
    timeout = 240

    def setup(self, runtime: str, call: str) -> None:
        if runtime == "numpy":
            raise NotImplementedError("NumPy has no kernel that only moves memory")
        self.backend = require(runtime)

    def track_roofline_over_achieved(self, runtime: str, call: str) -> float:
        backend = self.backend
        x, y = (spread(backend, normal(N), float32) for _ in range(2))
        partials = spread(backend, np.zeros(2 * backend.norm_partials(N), np.float32), float32)
        calls: dict[str, Any] = {
            "fill": lambda: backend.fill(x, 0.5),
            "scale": lambda: backend.scale(-1.0, x),
            "axpy": lambda: backend.axpy(1e-6, x, y),
            "norm_reduce": lambda: backend.norm_reduce(x, partials, 2.0),
        }
        launch = calls[call]

        def run() -> None:
            for _ in range(STEPS):
                launch()
            backend.synchronize()

        read, updated, written = CALLS[call]
        return against(run, traffic(backend, N, read=read, updated=updated, written=written))
