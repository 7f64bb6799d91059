"""Write the tables of docs/performance.md, and a row of the README's, from what was measured.

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
PEERS = ("torch", "optax", "MLX", "tinygrad")
README_ROW = "netcl's time over theirs"

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
    """compare.py's ratios, a row for each target; what misses it is bold."""
    rows = []
    for (row, against), by_runtime in ratios(load("compare")).items():
        for target in dict.fromkeys(line["target"] for line in by_runtime.values()):
            cells = []
            for runtime in RUNTIMES:
                line = by_runtime.get(runtime)
                shown = number(line["ratio"]) if line and line["target"] == target else ""
                cells.append(f"**{shown}**" if shown and line and line["met"] == "no" else shown)
            rows.append((short(row), against, *cells, number(target)))
    return table(("work", "against", *RUNTIMES.values(), "target"), rows)


def counted() -> str:
    """compare.py's counts and host times, the highest where only the number of tensors and groups differs."""
    by_row: dict[tuple[str, str, str, float], dict[str, float]] = {}
    for line in load("compare")["lines"]:
        if "value" in line:
            note = re.sub(r", \d+ tensor\(s\), \d+ group\(s\)$", ", any number of tensors and groups", line["note"])
            note = re.sub(r"; a quarter.*", "", note).replace("1 tensor(s)", "1 tensor").replace("(s)", "s")
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


def machine(name: str) -> str:
    """What it was measured on and with."""
    found = ((key, value) for key, value in load(name)["machine"].items() if key != "load")
    return "Measured on: " + "; ".join(f"{NAMES.get(key, key)} {value}" for key, value in found) + "."


def readme_row() -> str:
    """The middle of the runtimes' ratios, for one tensor of ten million and for a thousand of a thousand."""
    found = ratios(load("peers"))
    cells = []
    for peer in PEERS:
        pair = []
        for row in ("AdamW, 1 × 10,000,000", "AdamW, 1,000 × 1,000"):
            lines = found.get((row, peer), {}).values()
            values = [line["ratio"] for line in lines]
            pair.append(number(sum(values) / len(values)) if values else "-")
        cells.append(" and ".join(pair))
    label = f"{README_ROW}, AdamW on two CPU cores: 10 M floats in one tensor, and 1 M in 1000"
    return f"| [{label}](docs/performance.md#beside-other-libraries) | 1 and 1 | {' | '.join(cells)} |"


PARTS: dict[str, Callable[[], str]] = {
    "machine": lambda: machine("compare"),
    "comparison": comparison,
    "counted": counted,
    "peers machine": lambda: machine("peers"),
    "peers": peers,
}


def filled(page: str) -> str:
    """The page with every table as it was measured."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{PARTS[match[2]]()}\n\n<!-- end -->"

    return re.sub(r"(<!-- measured: ([\w ]+) -->)\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def filled_readme(text: str) -> str:
    return re.sub(rf"^\| \[{README_ROW}.*$", lambda match: readme_row(), text, flags=re.MULTILINE)


def main() -> None:
    for path, fill in ((PAGE, filled), (README, filled_readme)):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
