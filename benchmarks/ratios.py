"""Rows that are measured, the lines that come of them, their tables, and the options that the scripts share."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from netcl.paired_timing import quartiles

from .sides import QUICK, Build, Method, Side, SideError, Workers, first_run, in_turns

RUNTIMES = {"intel": "opencl:intel", "pocl": "opencl:portable", "numpy": "numpy"}
"""The backends that are compared, and how netcl is asked for them."""


@dataclass(frozen=True)
class Row:
    """netcl on each of its backends beside other sides, all of which take turns.

    Attributes
    ----------
    row : str
    own : callable
        Makes netcl's side for a backend.
    others : mapping
        The sides that are the same for every backend.
    beside : mapping
        What is compared on each OpenCL runtime with a side on that same runtime.
    targets, numpy_targets : mapping
        By the other side's name, the highest wanted ratio: on OpenCL, and on NumPy.
    runtimes : sequence of str
    """

    row: str
    own: Callable[[str], Side]
    others: Mapping[str, Build] = field(default_factory=dict)
    beside: Mapping[str, Callable[[str], Side]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    numpy_targets: Mapping[str, float] = field(default_factory=dict)
    runtimes: Sequence[str] = tuple(RUNTIMES)


@dataclass(frozen=True)
class Ratio:
    """netcl's time over another side's; times are those of a step.

    ``ratio`` is the median of the rounds' ratios, ``low`` to ``high`` the middle half of them, ``processes`` the median
    within each pair of processes, and ``best`` the ratio of the shortest times.
    """

    row: str
    runtime: str
    against: str
    netcl_ms: float
    other_ms: float
    ratio: float
    low: float
    high: float
    best: float
    processes: Sequence[float]
    target: float | None

    @property
    def met(self) -> str:
        return "" if self.target is None else "yes" if self.ratio <= self.target else "no"


@dataclass(frozen=True)
class Figure:
    """A count or a time, with its limit."""

    row: str
    runtime: str
    value: float
    unit: str
    target: float
    note: str = ""

    @property
    def met(self) -> str:
        return "yes" if self.value <= self.target else "no"


@dataclass(frozen=True)
class Start:
    """Seconds from the start of a process to the end of its first step: with empty caches, and in a later process."""

    row: str
    runtime: str
    first_s: float
    later_s: float
    met: str = ""


Line = Ratio | Figure | Start


@dataclass
class Measured:
    """What a script has measured so far; a side that does not survive its row is left out of it, and named."""

    method: Method
    workers: Workers
    runtimes: Mapping[str, str]
    lines: list[Line] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    idle: float = 0.0

    def take(self, name: str, measure: Callable[[], Iterable[Line]]) -> None:
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            self.lines += measure()
        except SideError as error:
            self._fail(name, error)

    def _fail(self, name: str, error: SideError) -> None:
        print(f"{name} is measured without {error}", file=sys.stderr)
        self.failed.append(f"{error.side} in {name}")
        self.workers.close(wait=False)

    def call(self, runtime: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of a module returns in a process that holds netcl's backend alone."""
        if self.method.fresh:
            self.workers.close()
        return self.workers[runtime].ask("call", function, *arguments)

    def compare(self, row: Row) -> Iterable[Line]:
        chosen = [name for name in row.runtimes if name in self.runtimes]
        if not chosen:
            return []
        sides = dict(row.others)
        for runtime in chosen:
            sides[runtime] = partial(row.own, RUNTIMES[runtime])
            if runtime != "numpy":
                for name, build in row.beside.items():
                    sides[f"{name} on {runtime}"] = partial(build, RUNTIMES[runtime])
        while True:
            try:
                turns = in_turns(sides, self.method, self.workers)
                break
            except SideError as error:
                self._fail(row.row, error)
                for name in [name for name in sides if name == error.side or name.endswith(f" on {error.side}")]:
                    del sides[name]
                chosen = [name for name in chosen if name in sides]
                if not chosen or len(sides) == 1:
                    return []
        self.idle = max(self.idle, turns.idle)
        lines = []
        for name in (*row.others, *row.beside):
            for runtime in chosen:
                other = turns.samples.get(name) or turns.samples.get(f"{name} on {runtime}")
                if other:
                    targets = row.numpy_targets if runtime == "numpy" else row.targets
                    lines.append(
                        compared(row.row, runtime, name, turns.samples[runtime], other, targets.get(name)),
                    )
        return lines

    def start(self, row: str, own: Callable[[str], Side], others: Mapping[str, Build]) -> Iterable[Line]:
        self.workers.close()
        sides = {name: partial(own, RUNTIMES[name]) for name in self.runtimes} | dict(others)
        for name, build in sides.items():
            try:
                yield Start(row, name, *first_run(build, name, self.method.processes))
            except SideError as error:
                self._fail(f"the first step of {row}", error)

    def write(self, path: Path, machine: Mapping[str, Any], **more: Any) -> None:
        found = {
            "machine": machine,
            "method": asdict(self.method) | {"idle": self.idle},
            **more,
            "lines": [asdict(line) | {"met": line.met} for line in self.lines],
        }
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def end(self, path: Path | None, machine: Mapping[str, Any], **more: Any) -> None:
        """Print everything and write it; a script that had to leave out a side ends with status 1."""
        self.workers.close()
        print(f"\n{report(self.lines)}\n\nA side that waited took {self.idle:.1%} of a core at most.")
        if path:
            self.write(path, machine, **more)
        if self.failed:
            sys.exit(f"a side's process ended: {', '.join(self.failed)}")


def compared(
    row: str,
    runtime: str,
    against: str,
    own: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    target: float | None,
) -> Ratio:
    """The line that two sides' samples, taken in turns, make: a list for each process, of a sample for each round."""
    ours, theirs = ([seconds for process in side for seconds in process] for side in (own, other))
    each = quartiles(ours, theirs)
    return Ratio(
        row,
        runtime,
        against,
        statistics.median(ours) * 1e3,
        statistics.median(theirs) * 1e3,
        each.middle,
        each.low,
        each.high,
        min(ours) / min(theirs),
        [quartiles(a, b).middle for a, b in zip(own, other, strict=True)],
        target,
    )


def describe(runtime: str) -> tuple[str, str]:
    """What stands behind a backend; or nothing, and why there is none."""
    import netcl

    try:
        device = netcl.get_backend(runtime).device
    except netcl.errors.BackendError as error:
        return "", str(error)
    return f"{device.name} ({device.platform}, {device.driver})", ""


def found_runtimes(chosen: Sequence[str], workers: Workers) -> dict[str, str]:
    """What stands behind each of the chosen backends; one that is missing is named and left out."""
    found = {}
    for name in chosen:
        try:
            device, reason = workers[name].ask("call", describe, RUNTIMES[name])
        except SideError as error:
            device, reason = "", str(error)
        if device:
            found[name] = device
        else:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    return found


def environment(runtimes: Mapping[str, str]) -> dict[str, Any]:
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
        **{name: device for name, device in runtimes.items() if name != "numpy"},
    }


def options(description: str, method: Method) -> argparse.ArgumentParser:
    """The options that the scripts share; ``method`` is what serves without them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, two rounds in one process, no first steps: does it run"
    )
    names = list(RUNTIMES)
    parser.add_argument("--runtime", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--rounds", type=int, help=f"samples of each side in one process (default: {method.rounds})")
    parser.add_argument("--processes", type=int, help=f"processes of each side in turn (default: {method.processes})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.set_defaults(method=method)
    return parser


def begin(chosen: argparse.Namespace) -> Measured:
    method = QUICK if chosen.quick else chosen.method
    asked = {name: getattr(chosen, name) for name in ("rounds", "processes") if getattr(chosen, name)}
    workers = Workers()
    return Measured(replace(method, **asked), workers, found_runtimes(chosen.runtime, workers))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need be; numbers to the right."""
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
    ratios = [
        (
            x.row,
            x.runtime,
            x.against,
            f"{x.netcl_ms:.3f}",
            f"{x.other_ms:.3f}",
            f"{x.ratio:.3f}",
            f"{x.low:.3f} to {x.high:.3f}",
            " ".join(f"{value:.3f}" for value in x.processes),
            f"{x.best:.3f}",
            "" if x.target is None else f"{x.target:.3f}",
            x.met,
        )
        for x in lines
        if isinstance(x, Ratio)
    ]
    starts = [(x.row, x.runtime, f"{x.first_s:.2f}", f"{x.later_s:.2f}") for x in lines if isinstance(x, Start)]
    heads = (
        "time of a step", "runtime", "against", "netcl ms", "its ms", "ratio", "middle half", "each process", "best",
        "at most", "met",
    )  # fmt: skip
    parts = [
        (("counted", "runtime", "value", "unit", "at most", "met", "of"), figures),
        (heads, ratios),
        (("first step of", "runtime", "first process s", "later process s"), starts),
    ]
    return "\n\n".join(table(heads, rows) for heads, rows in parts if rows)
