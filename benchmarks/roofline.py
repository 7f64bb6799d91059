"""How far calls and steps are from what the machine allows, and steps from torch's. Ratios of times: 1 is perfect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from netcl.dtypes import float32

from .common import RUNTIMES, SHORT, normal, require, spread
from .sides import QUICK, Build, Method, Side, Workers, in_turns, ratio
from .steps import Work, netcl_side, repeated, torch_side, traffic_side, waited

N = 100_000 if SHORT else 10_000_000
METHOD = QUICK if SHORT else Method(rounds=7, processes=1)
WORKERS = Workers()

# State fields beside the parameters.
FIELDS = {"SGD": 1, "AdamW": 2, "RMSProp": 1}


def against(own: Build, other: Build) -> float:
    """The median ratio of two sides that take turns."""
    samples = in_turns({"own": own, "other": other}, METHOD, WORKERS).samples
    if METHOD.fresh:
        WORKERS.close()
    return ratio(samples["own"], samples["other"])


def blocks_side(fields: int) -> Side:
    """What moves the bytes of an update on NumPy: additions in blocks that stay in the cache, as the backend's."""
    g, *written = (np.full(N, 1e-3, np.float32) for _ in range(2 + fields))

    def step() -> None:
        for start in range(0, N, 16_384):
            block = slice(start, start + 16_384)
            for array in written:
                array[block] += g[block]

    return Side(repeated(step))


class Ratios:
    """Steps of ten million elements beside bare memory traffic, and beside torch; each side in a process of its own."""

    params = (RUNTIMES, tuple(FIELDS))
    param_names = ("runtime", "optimizer")
    unit = "ratio"
    timeout = 240

    def setup(self, runtime: str, optimizer: str) -> None:
        require(runtime)
        self.work = Work(optimizer, optimizer, 1, N)
        self.own = partial(netcl_side, runtime, self.work)

    def track_roofline_over_achieved(self, runtime: str, optimizer: str) -> float:
        fields = FIELDS[optimizer]
        traffic = partial(traffic_side, runtime, N, updated=1 + fields)
        return against(self.own, partial(blocks_side, fields) if runtime == "numpy" else traffic)

    def track_ratio_to_torch(self, runtime: str, optimizer: str) -> float:
        if not find_spec("torch"):
            return float("nan")
        return against(self.own, partial(torch_side, self.work))


# The arrays that each call reads, reads and writes, and writes.
CALLS = {"fill": (0, 0, 1), "scale": (0, 1, 0), "axpy": (1, 1, 0), "norm_reduce": (1, 0, 0)}


def call_side(runtime: str, call: str) -> Side:
    """A flat call of the backend protocol, again and again."""
    backend = require(runtime)
    x, y = (spread(backend, normal(N), float32) for _ in range(2))
    partials = spread(backend, np.zeros(2 * backend.norm_partials(N), np.float32), float32)
    calls: dict[str, Callable[[], Any]] = {
        "fill": lambda: backend.fill(x, 0.5),
        "scale": lambda: backend.scale(-1.0, x),
        "axpy": lambda: backend.axpy(1e-6, x, y),
        "norm_reduce": lambda: backend.norm_reduce(x, partials, 2.0),
    }
    return Side(waited(backend, calls[call]))


class CallRatios:
    """The flat calls of the backend protocol on ten million elements beside bare memory traffic, on OpenCL."""

    params = (RUNTIMES, tuple(CALLS))
    param_names = ("runtime", "call")
    unit = "ratio"
    timeout = 240

    def setup(self, runtime: str, call: str) -> None:
        if runtime == "numpy":
            raise NotImplementedError("NumPy has no kernel that only moves memory")
        require(runtime)

    def track_roofline_over_achieved(self, runtime: str, call: str) -> float:
        read, updated, written = CALLS[call]
        traffic = partial(traffic_side, runtime, N, read=read, updated=updated, written=written)
        return against(partial(call_side, runtime, call), traffic)
