"""netcl beside torch, and beside kernels that only move the same bytes: ratios, measured in turns.

    python benchmarks/compare.py [--quick] [--runtime NAME ...] [--only NAME ...] [--json FILE]

Each side has a process of its own, and waits in it while another is measured (benchmarks/sides.py). A round measures
every side once; a ratio is the median of the ratios of all rounds, over several processes of each side. Beside it stand
the middle half of them, the median in each pair of processes, and the ratio of the best samples, which suffers least
from whatever else the machine does. torch runs with as many threads as there are cores.

Steps are taken ten in a row, on every side: netcl only enqueues them, as in training, and waits at the end. The first
step of a process is measured apart: with empty caches, and in a later process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.counts import COUNTS, QUICK, Size  # noqa: E402
from benchmarks.models import netcl_job, netcl_training, torch_job, torch_training  # noqa: E402
from benchmarks.ratios import Line, Row, begin, environment, options  # noqa: E402
from benchmarks.sides import Method, Side  # noqa: E402
from benchmarks.steps import FAMILY_OF_TORCH, Work, expressions_side, netcl_side, torch_side, traffic_side  # noqa: E402

TRAFFIC = 1 / 0.95
"""The most that a step may take of the time that moving its bytes takes."""


def own(side: Callable[..., Side], **arguments: Any) -> Callable[[str], Side]:
    """netcl's side, which wants to be told the backend."""
    return partial(side, **arguments)


def step(work: Work, target: float, fields: int | None = None) -> Row:
    """Whole steps of one optimizer, beside torch's, and beside bare traffic if its fields of state are given."""
    beside, targets = {}, {"torch": target}
    if fields is not None:
        beside["traffic"] = own(traffic_side, n=work.count * work.n, updated=1 + fields)
        targets["traffic"] = TRAFFIC
    return Row(work.row, own(netcl_side, work=work), {"torch": partial(torch_side, work)}, beside, targets)


def training(model: str, batch: int) -> Row:
    """Training steps of a model."""
    sides = own(netcl_training, name=model, batch=batch), {"torch": partial(torch_training, model, batch)}
    return Row(f"{model} step, batch {batch}", *sides, targets={"torch": 1.0})


def rows(size: Size) -> dict[str, Row]:
    large, many = size.large, size.many
    adamw = Work("AdamW", "AdamW", 1, large)
    reference = Work("reference AdamW", "AdamW", 1, large)
    expressions = partial(expressions_side, large)
    return {
        "adamw": step(adamw, 1.0, 2),
        "adamw-200": step(Work("AdamW", "AdamW", 200, large // 200), 0.80),
        "adamw-1000": step(Work("AdamW", "AdamW", many, 1000), 0.06),
        "clip": step(Work("clip + AdamW", "AdamW", 1, large, max_norm=1.0), 0.76),
        "scaler": step(Work("scaler + clip + AdamW", "AdamW", 1, large, max_norm=1.0, scaled=True), 0.60),
        "sgd": step(Work("SGD with momentum", "SGD", 1, large), 1.0, 1),
        "rmsprop": step(Work("RMSProp", "RMSProp", 1, large), 0.2, 1),
        "rmsprop-centered": step(Work("RMSProp centered", "RMSProp", 1, large, {"centered": True}), 0.2, 2),
        "rmsprop-momentum": step(Work("RMSProp with momentum", "RMSProp", 1, large, {"momentum": 0.9}), 0.2, 2),
        **{name.lower(): step(Work(name, name, 1, large), 1.0) for name in FAMILY_OF_TORCH},
        **{f"{name.lower()}-1000": step(Work(name, name, many, 1000), 0.1) for name in FAMILY_OF_TORCH},
        "traced": Row(
            Work("AdamW traced", "AdamW", 1, large).row,
            own(netcl_side, work=adamw, traced=True),
            beside={"hand-written": own(netcl_side, work=adamw)},
            targets={"hand-written": 1.03},
            runtimes=("intel", "pocl"),
        ),
        "mlp": training("MLP", 128),
        "mlp-1024": training("MLP", 1024),
        "conv": training("conv net", 64),
        "transformer": training("transformer block", 16),
        "main": Row(
            f"main job, {-(-size.images // 128)} steps",
            own(netcl_job, count=size.images),
            {"torch": partial(torch_job, size.images)},
            targets={"torch": 1.5},
            numpy_targets={"torch": 1.2},
        ),
        "reference": Row(
            reference.row,
            own(netcl_side, work=reference),
            {"NumPy expressions": expressions},
            numpy_targets={"NumPy expressions": 0.5},
            runtimes=("numpy",),
        ),
    }


def starts() -> dict[str, tuple[Callable[[str], Side], dict[str, Callable[[], Side]]]]:
    """What the first step of a process is measured of."""
    work = Work("clip + AdamW", "AdamW", 1, 1000, max_norm=1.0)
    return {
        work.row: (own(netcl_side, work=work), {"torch": partial(torch_side, work)}),
        "MLP, batch 128": (own(netcl_training, name="MLP", batch=128), {"torch": partial(torch_training, "MLP", 128)}),
    }


NAMES = [*COUNTS, *rows(QUICK), "start"]
FAMILY = [f"{name.lower()}{end}" for name in FAMILY_OF_TORCH for end in ("", "-1000")]
"""Rows that are measured when they are asked for."""


def main(argv: Sequence[str] | None = None) -> list[Line]:
    parser = options(__doc__.splitlines()[0], Method())
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NAMES,
        metavar="NAME",
        default=[name for name in NAMES if name not in FAMILY],
        help=", ".join(NAMES),
    )
    chosen = parser.parse_args(argv)
    size = QUICK if chosen.quick else Size()
    measured = begin(chosen)
    machine = environment(measured.runtimes)
    for name, value in machine.items():
        print(f"{name}: {value}")

    for name, (count, backends) in COUNTS.items():
        for runtime in measured.runtimes:
            if name in chosen.only and runtime in backends:
                measured.take(f"{name}, {runtime}", partial(measured.call, runtime, count, runtime, size))
    for name, row in rows(size).items():
        if name in chosen.only:
            measured.take(name, partial(measured.compare, row))
    if "start" in chosen.only and not chosen.quick:
        for name, sides in starts().items():
            measured.take(f"first step of {name}", partial(measured.start, name, *sides))
    measured.end(chosen.json, machine, size=asdict(size))
    return measured.lines


if __name__ == "__main__":
    main()
