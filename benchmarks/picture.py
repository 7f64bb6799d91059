"""Draw the README's picture: training curves of the main job, and the speed beside torch that compare.py measured.

python benchmarks/picture.py            draws from what was measured before
python benchmarks/picture.py --train    trains anew on OpenCL and on NumPy first (minutes)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CURVES = ROOT / "docs/_static/curves.json"
PICTURE = ROOT / "docs/_static/netcl.png"
COLORS = ("#1f6fb4", "#7fb2dd")


def train(epochs: int) -> dict[str, Any]:
    """The main job on OpenCL and on NumPy, as plain data."""
    sys.path.insert(0, str(ROOT))
    from examples.fashion_mnist_mlp import main as example

    found = {}
    for backend in ("opencl", "numpy"):
        result = example(["--backend", backend, "--epochs", str(epochs), "--no-progress"])
        found[backend] = {
            "device": result.device,
            "source": result.source,
            "loss": [round(epoch.loss, 5) for epoch in result.epochs],
            "accuracy": [epoch.accuracy for epoch in result.epochs],
        }
    return found


def beside_torch() -> tuple[list[str], dict[str, list[float | None]]]:
    """The works that were measured beside torch, and the ratios of each OpenCL runtime."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.tables import RUNTIMES, load, ratios, short

    shown = [name for name in RUNTIMES if name != "numpy"]
    rows = {
        row: lines
        for (row, against), lines in ratios(load("compare")).items()
        if against == "torch" and not lines.keys().isdisjoint(shown)
    }
    return [short(row) for row in rows], {
        RUNTIMES[name]: [lines[name]["ratio"] if name in lines else None for lines in rows.values()] for name in shown
    }


def draw(curves: dict[str, Any], path: Path = PICTURE) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    accuracy_axis = left.twinx()
    for number, (backend, run) in enumerate(curves.items()):
        epochs = range(1, len(run["loss"]) + 1)
        style = {"linewidth": 4, "alpha": 0.35} if number == 0 else {"linewidth": 1.4}
        label = {"opencl": "OpenCL", "numpy": "NumPy"}[backend]
        left.plot(epochs, run["loss"], color="tab:blue", label=f"training loss, {label}", **style)
        accuracy_axis.plot(epochs, run["accuracy"], color="tab:green", label=f"test accuracy, {label}", **style)
    left.set(xlabel="epoch", ylabel="cross-entropy", title="Fashion-MNIST: one program, two backends")
    accuracy_axis.set(ylabel="share of test images")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.grid(alpha=0.3)
    handles = [*left.lines, *accuracy_axis.lines]
    accuracy_axis.legend(handles=handles, loc="center right", fontsize=9)

    works, ratios = beside_torch()
    height = 0.38
    for number, (runtime, values) in enumerate(ratios.items()):
        places = [row + (number - 0.5) * height for row in range(len(works))]
        bars = right.barh(places, [value or 0 for value in values], height, color=COLORS[number], label=runtime)
        right.bar_label(bars, [f"{value:.2f}" if value else "" for value in values], padding=3, fontsize=8)
    right.set_yticks(range(len(works)), works)
    right.invert_yaxis()
    right.margins(x=0.1)
    right.axvline(1, color="tab:red", linestyle="--", linewidth=1)
    right.set(
        xlabel="time over torch's, two CPU cores (shorter is faster)",
        title="Beside torch, fused where it can be",
    )
    right.legend(loc="best", title="OpenCL runtime", fontsize=9)
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train first")
    parser.add_argument("--epochs", type=int, default=15, help="default: 15")
    options = parser.parse_args(argv)
    if options.train:
        CURVES.write_text(json.dumps(train(options.epochs), indent=1) + "\n", encoding="utf-8")
    draw(json.loads(CURVES.read_text(encoding="utf-8")))
    print(PICTURE)


if __name__ == "__main__":
    main()
