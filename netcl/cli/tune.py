"""``python -m netcl tune``: find the knobs with which the kernels are fastest on a device, and keep them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netcl.backends import get_backend
from netcl.cli.table import show
from netcl.errors import BackendError, TuningError

if TYPE_CHECKING:
    from netcl.backends.opencl.backend import OpenCLBackend
    from netcl.backends.opencl.tuner.search import Measurement, Result

HEADS = ("kernel", "knobs", "µs", "GB/s", "of present", "middle half", "of memory", "")

BUSY = 0.1
"""Noise above which a result says more about the machine than about the kernel."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the command line."""
    parser = subparsers.add_parser(
        "tune",
        help="measure which work-group sizes, vector widths and other knobs are fastest on a device, and keep them",
        description="Builds every candidate, checks it against the reference backend, and measures the fastest in "
        "turns with the present choice. What beats it by more than the noise goes into the user's tuning table.",
    )
    parser.add_argument(
        "--device", "--backend", default="opencl", help="opencl, opencl:gpu, opencl:Intel, ... (default: opencl)"
    )
    parser.add_argument("--kernel", nargs="+", metavar="NAME", help="such as fused_adam (default: all)")
    parser.add_argument("--quick", action="store_true", help="try only candidates that differ in one knob; seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the table to write (default: the user's own)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tune, report, and return the exit status. **Blocks** for seconds per kernel with ``--quick``, else minutes.

    Raises
    ------
    TuningError
        If a kernel has no knobs, there is no table to write, or the one that is there is broken.
    BackendError
        If the device is not there, or none of OpenCL.
    """
    from netcl.backends.opencl.device.icd import require

    require()
    from netcl.backends.opencl.device import tuning_table
    from netcl.backends.opencl.tuner import search

    kernels = arguments.kernel or list(tuning_table.KNOBS)
    for kernel in kernels:
        if kernel not in tuning_table.KNOBS:
            raise TuningError(f"--kernel must name kernels with knobs: {', '.join(tuning_table.KNOBS)}; got {kernel!r}")
    file = arguments.output or tuning_table.user_file()
    if arguments.output is None and os.environ.get(tuning_table.VARIABLE) and file is not None:
        tuning_table.begin(file)  # a device refuses a table that is named and missing
    backend = _own_backend(arguments.device)
    if file is None:
        raise TuningError(f"{tuning_table.VARIABLE}=none leaves no table to write; name one with --output, or unset it")
    tuning_table.read(file)
    budget = search.QUICK if arguments.quick else search.SearchBudget()
    results, written = [], []
    for kernel in kernels:
        result = search.tune(backend, kernel, budget, _progress)
        results.append(result)
        if result.winner is not None:
            # At once, for a driver may take the process down at the next kernel.
            tuning_table.save(file, backend.queue.kind, backend.queue.target.device, {kernel: result.winner.knobs})
            written.append(kernel)
    if arguments.json:
        print(json.dumps(_as_json(backend, results, file, written), indent=2))
        return 0
    print(f"{backend.device}: {backend.device.name} ({backend.device.platform}, {backend.device.driver})\n")
    show("", HEADS, rows(results))
    print()
    print("\n".join(verdict(result) for result in results))
    print(f"\n{', '.join(written)}: written to {file}" if written else f"\nnothing to write to {file}")
    return 0


def _own_backend(device: str) -> OpenCLBackend:
    """A backend that nobody else uses, for its knobs are changed."""
    found = get_backend(device)
    if found.device.backend != "opencl":
        raise BackendError(f'tune measures OpenCL devices, got {device!r}; pass --device opencl or "opencl:..."')
    from netcl.backends.opencl.backend import OpenCLBackend
    from netcl.backends.opencl.device.queue import Queue

    assert isinstance(found, OpenCLBackend)
    return OpenCLBackend(Queue(found.queue.cl_device, found.device.index))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """What was measured: the present choice of each kernel, then the fastest others.

    ``of present`` is the time over that of the present choice, ``of memory`` the rate over that of bare memory traffic.
    """
    return [_row(result, line) for result in results for line in (result.current, *result.candidates)]


def _row(result: Result, line: Measurement) -> tuple[str, ...]:
    from netcl.backends.opencl.device.tuning_table import knob_text

    present = line is result.current
    return (
        result.kernel if present else "",
        knob_text(line.knobs),
        f"{line.seconds * 1e6:.0f}",
        f"{line.rate:.1f}",
        "1" if present else f"{line.vs_current:.3f}",
        f"± {result.noise:.3f}" if present else f"{line.low:.3f} to {line.high:.3f}",
        "-" if math.isnan(line.vs_traffic) else f"{line.vs_traffic:.3f}",
        "present" if present else "chosen" if line == result.winner else "",
    )


def verdict(result: Result) -> str:
    """What came of one kernel: the choice, and which candidates were discarded for what reason."""
    from netcl.backends.opencl.device.tuning_table import knob_text

    if result.winner is None:
        said = f"nothing beats the present choice by more than the noise of {result.noise:.1%}"
        if result.noise > BUSY:
            said += ", for the machine is busy: run again when it is not"
    else:
        said = f"{knob_text(result.winner.knobs)} takes {result.winner.vs_current:.3f} of the present time"
    lines = [f"{result.kernel}: {said}; {result.tried} tried, {len(result.discarded)} discarded"]
    for knobs, reason in result.discarded.items():
        lines.append(f"  {knob_text(knobs)}: {reason.splitlines()[0]}")
    return "\n".join(lines)


def _as_json(backend: OpenCLBackend, results: Sequence[Result], file: Path, written: Sequence[str]) -> dict[str, Any]:
    def line(of: Measurement) -> dict[str, Any]:
        return {
            "knobs": dict(of.knobs),
            "seconds": of.seconds,
            "rate": of.rate,
            "of_present": of.vs_current,
            "low": of.low,
            "high": of.high,
            "of_traffic": None if math.isnan(of.vs_traffic) else of.vs_traffic,
        }

    return {
        "device": str(backend.device),
        "target": dataclasses.asdict(backend.queue.target),
        "kind": backend.queue.kind,
        "file": str(file),
        "written": list(written),
        "kernels": [
            {
                "kernel": result.kernel,
                "noise": result.noise,
                "tried": result.tried,
                "present": line(result.current),
                "finalists": [line(of) for of in result.candidates],
                "winner": None if result.winner is None else dict(result.winner.knobs),
                "discarded": [{"knobs": dict(knobs), "reason": why} for knobs, why in result.discarded.items()],
            }
            for result in results
        ],
    }
