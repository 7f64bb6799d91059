"""Sides that take turns, the ratios of their times, and tables of them."""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE = 20e-3
"""Seconds that one sample takes at least; shorter work is repeated."""

SETTLE = 30e-3
"""Seconds for which the threads of OpenMP and OpenBLAS may spin after their work is done."""

Run = Callable[[], Any]


@dataclass(frozen=True)
class Ratio:
    """One line of the table: netcl's time over another side's."""

    row: str
    runtime: str
    against: str
    netcl_ms: float
    other_ms: float
    ratio: float
    low: float
    high: float
    best: float
    target: float | None

    @property
    def met(self) -> str:
        return "" if self.target is None else "yes" if self.ratio <= self.target else "no"


@dataclass(frozen=True)
class Figure:
    """One line of the other table: a count or a time with its limit."""

    row: str
    runtime: str
    value: float
    unit: str
    target: float
    note: str = ""

    @property
    def met(self) -> str:
        return "yes" if self.value <= self.target else "no"


Line = Ratio | Figure


def measure(sides: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds per run of each side, one sample a round."""
    repeats = {}
    for name, run in sides.items():
        run()
        started = time.perf_counter()
        run()
        repeats[name] = max(1, math.ceil(SAMPLE / (time.perf_counter() - started)))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                run = sides[name]
                # The threads of the side before still spin, and the caches hold its data.
                time.sleep(SETTLE)
                run()
                started = time.perf_counter()
                for _ in range(repeats[name]):
                    run()
                samples[name].append((time.perf_counter() - started) / repeats[name])
    finally:
        gc.enable()
    return samples


def compared(
    row: str, runtime: str, against: str, own: Sequence[float], other: Sequence[float], target: float | None
) -> Ratio:
    """The line that two sides' samples, taken in turns, make."""
    each = sorted(a / b for a, b in zip(own, other, strict=True))
    return Ratio(
        row,
        runtime,
        against,
        statistics.median(own) * 1e3,
        statistics.median(other) * 1e3,
        statistics.median(each),
        each[len(each) // 4],
        each[-1 - len(each) // 4],
        min(own) / min(other),
        target,
    )


def ratios(row: str, runtime: str, sides: Mapping[str, Run], targets: Mapping[str, float], rounds: int) -> list[Line]:
    """Measure the side ``"netcl"`` against all others."""
    samples = measure(sides, rounds)
    own = samples.pop("netcl")
    return [compared(row, runtime, name, own, other, targets.get(name)) for name, other in samples.items()]


def environment(runtimes: Mapping[str, Any]) -> dict[str, Any]:
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        cpu = models[0].split(":")[1].strip() if models else cpu
    return {
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": metadata.version("torch") if find_spec("torch") else "not installed",
        **{
            name: f"{backend.device.name} ({backend.device.platform}, {backend.device.driver})"
            for name, backend in runtimes.items()
        },
    }


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need be; the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def report(lines: Sequence[Line]) -> str:
    figures = [
        (x.row, x.runtime, f"{x.value:.0f}", x.unit, f"{x.target:.0f}", x.met, x.note)
        for x in lines
        if isinstance(x, Figure)
    ]
    compared = [
        (
            x.row,
            x.runtime,
            x.against,
            f"{x.netcl_ms:.2f}",
            f"{x.other_ms:.2f}",
            f"{x.ratio:.3f}",
            f"{x.low:.3f} to {x.high:.3f}",
            f"{x.best:.3f}",
            "" if x.target is None else f"{x.target:.3f}",
            x.met,
        )
        for x in lines
        if isinstance(x, Ratio)
    ]
    parts = []
    if figures:
        parts.append(table(("counted", "runtime", "value", "unit", "at most", "met", "of"), figures))
    if compared:
        heads = ("time", "runtime", "against", "netcl ms", "its ms", "ratio", "middle half", "best", "at most", "met")
        parts.append(table(heads, compared))
    return "\n\n".join(parts)
