"""Write the tables of docs/performance.md, and two rows of the README's, from what was measured.

    python benchmarks/compare.py --json benchmarks/results/compare.json
    python benchmarks/peers.py --json benchmarks/results/peers.json
    python benchmarks/tables.py

A table stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/performance.md"
README = ROOT / "README.md"

RUNTIMES = {"intel": "Intel", "pocl": "PoCL", "numpy": "NumPy backend"}
QUIET = 2.0
"""The load average up to which a machine of two cores is taken for quiet; the run before may have left as much."""

PEERS = ("torch", "optax", "MLX", "tinygrad")
README_LABELS = ("netcl's time over theirs", "its time over theirs, a training step")
README_LINKS = ("docs/performance.md#beside-other-libraries", "docs/performance.md#measured")
TRAININGS = {
    "MLP": "MLP step, batch 128",
    "conv net": "conv net step, batch 64",
    "transformer block": "transformer block step, batch 16",
}

Measured = dict[str, Any]
"""A line, or a file of them."""


def load(name: str) -> Measured:
    """What a script wrote with ``--json``."""
    found: Measured = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (heads, ["---"] * len(heads), *rows)
    return "\n".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in line)}|" for line in lines)


def number(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def short(row: str) -> str:
    return row.replace("1 × 10,000,000", "10 M")


def ratios(found: Measured) -> dict[tuple[str, str], dict[str, Measured]]:
    """The lines that compare, by row and other side, then by runtime."""
    by_row: dict[tuple[str, str], dict[str, Measured]] = {}
    for line in found["lines"]:
        if "ratio" in line:
            by_row.setdefault((line["row"], line["against"]), {})[line["runtime"]] = line
    return by_row


def comparison() -> str:
    """compare.py's ratios; what misses its target is bold."""
    rows = []
    for (row, against), by_runtime in ratios(load("compare")).items():
        cells, targets = [], {}
        for runtime in RUNTIMES:
            line = by_runtime.get(runtime)
            shown = number(line["ratio"]) if line else ""
            cells.append(f"**{shown}**" if line and line["met"] == "no" else shown)
            if line and line["target"] is not None:
                targets.setdefault(number(line["target"]), runtime)
        wanted = [f"{target} ({RUNTIMES[name]})" if name == "numpy" else target for target, name in targets.items()]
        rows.append((short(row), against, *cells, ", ".join(wanted)))
    return table(("work", "against", *RUNTIMES.values(), "target"), rows)


def spread() -> str:
    """How far the ratios beside torch lie apart: the middle half of the rounds, and the processes' medians."""
    rows = [
        (short(row), RUNTIMES[line["runtime"]], *map(number, (line["low"], line["high"])), *map(number, _ends(line)))
        for (row, against), by_runtime in ratios(load("compare")).items()
        if against == "torch"
        for line in by_runtime.values()
    ]
    return table(("work", "netcl on", "a quarter below", "a quarter above", "lowest process", "highest process"), rows)


def _ends(line: Measured) -> tuple[float, float]:
    return min(line["processes"]), max(line["processes"])


def start() -> str:
    """Seconds until a process has taken its first step: the first process, whose caches are empty, and a later one."""
    by_row: dict[str, dict[str, Measured]] = {}
    for line in load("compare")["lines"]:
        if "first_s" in line:
            by_row.setdefault(line["row"], {})[line["runtime"]] = line
    columns = {**RUNTIMES, "torch": "torch"}
    rows = [
        (short(row), label, *(f"{lines[name][key]:.1f}" if name in lines else "" for name in columns))
        for row, lines in by_row.items()
        for label, key in (("first", "first_s"), ("later", "later_s"))
    ]
    return table(("first step of", "process", *columns.values()), rows)


def missed() -> str:
    """The lines that miss their target, one after the other."""
    found = []
    for line in load("compare")["lines"]:
        if line["met"] == "no":
            unit = "" if "ratio" in line else f" {line['unit']}"
            value = number(line["ratio"]) if "ratio" in line else f"{line['value']:.0f}"
            against = f" beside {line['against']}" if "ratio" in line else f", {readable(line['note'])}"
            found.append(f"{short(line['row'])}{against}, {RUNTIMES[line['runtime']]} ({value}{unit})")
    return f"Missed: {'; '.join(found)}." if found else "None is."


def method() -> str:
    """How often each side was measured, and how idle the others were."""
    found = load("compare")["method"]
    return (
        f"Each ratio is the median of {found['rounds'] * found['processes']} rounds, {found['rounds']} in each of "
        f"{found['processes']} processes a side. A side that waited took at most {found['idle']:.1%} of a core."
    )


def readable(note: str) -> str:
    return re.sub(r"; a quarter.*", "", note).replace("1 tensor(s)", "1 tensor").replace("(s)", "s")


def counted() -> str:
    """compare.py's counts and host times, the highest where only the number of tensors and groups differs."""
    by_row: dict[tuple[str, str, str, float], dict[str, float]] = {}
    for line in load("compare")["lines"]:
        if "value" in line:
            note = re.sub(r", \d+ tensor\(s\), \d+ group\(s\)$", ", any number of tensors and groups", line["note"])
            note = readable(note)
            highest = by_row.setdefault((line["row"], note, line["unit"], line["target"]), {})
            highest[line["runtime"]] = max(line["value"], highest.get(line["runtime"], 0))
    rows = []
    for (row, note, unit, target), highest in by_row.items():
        cells = [f"{highest[runtime]:.0f}" if runtime in highest else "" for runtime in RUNTIMES]
        missed = [runtime in highest and highest[runtime] > target for runtime in RUNTIMES]
        bold = [f"**{cell}**" if miss else cell for cell, miss in zip(cells, missed, strict=True)]
        rows.append((short(row), note or unit, *bold, f"{target:.0f} µs" if unit == "µs" else f"{target:.0f}"))
    return table(("counted", "of", *RUNTIMES.values(), "at most"), rows)


def peers() -> str:
    """peers.py's ratios: a row for each work and runtime, a column for each library."""
    by_work: dict[tuple[str, str], dict[str, str]] = {}
    for line in load("peers")["lines"]:
        by_work.setdefault((line["row"], line["runtime"]), {})[line["against"]] = number(line["ratio"])
    rows = [
        (short(row), RUNTIMES[runtime], *(cells.get(peer, "") for peer in PEERS))
        for (row, runtime), cells in by_work.items()
    ]
    return table(("work", "netcl on", *PEERS), rows)


NAMES = {"cpu": "processor", "python": "Python", "numpy": "NumPy", "intel": "Intel's runtime", "pocl": "PoCL"}


def busy(found: Measured) -> bool:
    """Whether other programs ran when the measurement began: torch's steps then take many times as long."""
    return any(value > QUIET for value in found["machine"]["load"][:1])


def machine(name: str) -> str:
    """What it was measured on and with, and how busy it was when that began."""
    found = load(name)
    parts = [f"{NAMES.get(key, key)} {value}" for key, value in found["machine"].items() if key != "load"]
    load_average = ", ".join(f"{value:.1f}" for value in found["machine"]["load"])
    warning = " **Other programs ran meanwhile: these are no figures to rely on.**" if busy(found) else ""
    return f"Measured on: {'; '.join(parts)}. Load average when it began: {load_average}.{warning}"


def readme_rows() -> dict[str, str]:
    """By their labels: of optimizer steps the middle of the OpenCL runtimes' ratios, and of training steps each."""
    found = ratios(load("peers"))
    cells = []
    for peer in PEERS:
        pair = []
        for row in ("AdamW, 1 × 10,000,000", "AdamW, 1,000 × 1,000"):
            lines = found.get((row, peer), {})
            values = [line["ratio"] for runtime, line in lines.items() if runtime != "numpy"]
            pair.append(number(sum(values) / len(values)) if values else "-")
        cells.append(" and ".join(pair))
    steps = f"{README_LABELS[0]}, AdamW on two CPU cores: 10 M floats in one tensor, and 1 M in 1000"
    rows = {README_LABELS[0]: f"| [{steps}]({README_LINKS[0]}) | 1 and 1 | {' | '.join(cells)} |"}

    compare = load("compare")
    measured = {} if busy(compare) else ratios(compare)
    each = []
    for name, row in TRAININGS.items():
        lines = measured.get((row, "torch"), {})
        values = [number(line["ratio"]) for runtime, line in lines.items() if runtime != "numpy"]
        each.append(f"{name} {' and '.join(values) or '-'}")
    runtimes = " and ".join(label for name, label in RUNTIMES.items() if name != "numpy")
    training = f"{README_LABELS[1]} on two CPU cores, {runtimes}"
    empty = " |" * (len(PEERS) - 1)
    rows[README_LABELS[1]] = f"| [{training}]({README_LINKS[1]}) | 1 | {'; '.join(each)}{empty} |"
    return rows


PARTS: dict[str, Callable[[], str]] = {
    "machine": lambda: machine("compare"),
    "method": method,
    "comparison": comparison,
    "spread": spread,
    "start": start,
    "counted": counted,
    "missed": missed,
    "peers machine": lambda: machine("peers"),
    "peers": peers,
}


def filled(page: str) -> str:
    """The page with every table as it was measured."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{PARTS[match[2]]()}\n\n<!-- end -->"

    return re.sub(r"(<!-- measured: ([\w ]+) -->)\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def filled_readme(text: str) -> str:
    """The README with the rows as they were measured; a row that it lacks comes after the one before it."""
    lines = [line for line in text.splitlines() if not line.startswith(f"| [{README_LABELS[1]}")]
    rows = readme_rows()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"| [{README_LABELS[0]}"))
    lines[at : at + 1] = rows.values()
    return "\n".join(lines) + "\n"


def main() -> None:
    for path, fill in ((PAGE, filled), (README, filled_readme)):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
