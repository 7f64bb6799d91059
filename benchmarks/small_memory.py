"""Bytes of state, time of a step and distance from float32, for every way to keep parameters and state in few bits.

    python benchmarks/small_memory.py [--n N] [--rounds N] [--backend NAME ...]

AdamW on one tensor of ten million elements. Bytes are those of the state of one element; the ratio of times is to
float32 with state in full, the median over rounds in turns with its quartiles; the distance is the mean over elements
after a hundred steps of 1e-3, as a share of how far float32 has moved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import netcl
from netcl.backends import get_backend
from netcl.backends.base import Backend, BlockSpan
from netcl.optim import AdamW
from netcl.paired_timing import in_turns, quartiles

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float32, bfloat16 state": ("float32", {"state_dtype": "bfloat16"}),
    "float32, 8-bit state": ("float32", {"state_dtype": "8bit"}),
    "float32, 4-bit state": ("float32", {"state_dtype": "4bit"}),
    "bfloat16, master weights": ("bfloat16", {}),
    "bfloat16, Kahan": ("bfloat16", {"rounding": "kahan"}),
    "bfloat16, Kahan, bfloat16 state": ("bfloat16", {"rounding": "kahan", "state_dtype": "bfloat16"}),
    "bfloat16, stochastic": ("bfloat16", {"rounding": "stochastic"}),
    "bfloat16, stochastic, bfloat16 state": ("bfloat16", {"rounding": "stochastic", "state_dtype": "bfloat16"}),
    "bfloat16, stochastic, 8-bit state": ("bfloat16", {"rounding": "stochastic", "state_dtype": "8bit"}),
}
"""The dtype of the parameters, and the options."""


def optimizer_of(backend: Backend, n: int, way: str) -> tuple[Any, AdamW]:
    """A parameter of ones with a gradient, and its optimizer."""
    dtype, options = WAYS[way]
    p = netcl.astype(netcl.ones(n, device=backend), dtype)
    p.requires_grad = True
    gradient = np.random.default_rng(0).standard_normal(n, dtype="f4") * 0.3 + 1.0
    p.grad = netcl.astype(netcl.asarray(gradient, device=backend), dtype)
    return p, AdamW([p], lr=1e-3, **options)


def bytes_of_state(optimizer: AdamW) -> float:
    """Bytes for each element."""
    (partition,) = optimizer.partitions
    total = 0
    for field in partition.fields.spans.values():
        spans = (field.codes, field.scales) if isinstance(field, BlockSpan) else (field,)
        total += sum(span.size * span.dtype.itemsize for span in spans)
    return total / partition.arena.layout.size


def parameters_after(backend: Backend, way: str, n: int = 65_536, steps: int = 100) -> Any:
    """The parameters after some steps with gradients that differ from step to step."""
    p, optimizer = optimizer_of(backend, n, way)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        gradient = rng.standard_normal(n, dtype="f4") * 0.3 + 1.0
        p.grad = netcl.astype(netcl.asarray(gradient, device=backend), WAYS[way][0])
        optimizer.step()
    return netcl.astype(p, "float32").numpy()


def table(name: str, n: int, rounds: int) -> list[tuple[str, float, tuple[float, float, float], float]]:
    """(way, bytes, quartiles of the time beside float32, distance) of each way on a backend."""
    backend = get_backend(name)
    runs: dict[str, Callable[[], object]] = {}
    sizes: dict[str, float] = {}
    for way in WAYS:
        _, optimizer = optimizer_of(backend, n, way)
        runs[way], sizes[way] = optimizer.step, bytes_of_state(optimizer)
    samples = in_turns(runs, rounds, backend.synchronize)
    full = parameters_after(backend, "float32")
    moved = float(np.abs(full - 1.0).mean())
    found = []
    for way in WAYS:
        error = float(np.abs(parameters_after(backend, way) - full).mean()) / moved
        found.append((way, sizes[way], tuple(quartiles(samples[way], samples["float32"])), error))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways to keep parameters and state in few bits, beside float32.")
    parser.add_argument("--n", type=int, default=10_000_000, help="elements")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backend", action="append", help="as for netcl; by default each OpenCL device that works")
    chosen = parser.parse_args()
    names = chosen.backend or [str(row.device) for row in netcl.devices() if row.healthy and row.device.index >= 0]
    for name in names:
        if name == "numpy" and not chosen.backend:
            continue
        device = get_backend(name).device
        print(f"\n{device} ({device.name}, {device.platform}), {chosen.n:,} elements\n")
        print("| parameters and state | bytes of state | time (quartiles) | distance |")
        print("|---|---|---|---|")
        for way, size, (low, middle, high), error in table(name, chosen.n, chosen.rounds):
            print(f"| {way} | {size:.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) | {error:.1e} |")


if __name__ == "__main__":
    main()
