"""asv finds the benchmarks by importing every file of their folder, in environments without the optional packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("jax", "matplotlib", "mlx", "mpi4py", "pyopencl", "tinygrad", "torch")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_importing_needs_no_optional_package(name):
    code = f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\nimport benchmarks.{name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["page", "readme"])
def test_tables_are_what_was_measured(name):
    from benchmarks.tables import PAGE, README, filled, filled_readme

    path, fill = {"page": (PAGE, filled), "readme": (README, filled_readme)}[name]
    text = path.read_text(encoding="utf-8")
    assert fill(text) == text, f"run benchmarks/tables.py: {path.name} differs from benchmarks/results"
    assert fill(text.replace("0", "1")) != text.replace("0", "1")


def test_the_history_that_asv_publishes():
    """At least ten commits, measured on machines that are described."""
    folder = ROOT / "benchmarks/results/asv"
    results = [path for path in folder.glob("*/*.json") if path.name != "machine.json"]
    commits = set()
    for path in results:
        found = json.loads(path.read_text(encoding="utf-8"))
        commits.add(found["commit_hash"])
        assert {"cpu", "os", "ram"} <= found["params"].keys()
    assert len(commits) >= 10
