"""asv finds the benchmarks by importing every file of their folder, in environments without the optional packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("matplotlib", "mpi4py", "pyopencl", "torch")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_importing_needs_no_optional_package(name):
    code = f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\nimport benchmarks.{name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
