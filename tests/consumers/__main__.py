"""``python -m tests.consumers``: array-API tests that SciPy and scikit-learn ship, on netcl for array-api-strict."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCIKIT_LEARN = tuple([f"sklearn.{package}tests.test_{name}" for package, name in (
    ("utils.", "array_api"), ("metrics.", "common"), ("metrics.", "pairwise"), ("decomposition.", "pca"),
    ("linear_model.", "ridge"), ("preprocessing.", "data"), ("preprocessing.", "label"), ("model_selection.", "split"),
    ("model_selection.", "search"), ("mixture.", "gaussian_mixture"),
)])  # fmt: skip
SCIPY = tuple([f"scipy.{package}.tests.test_{name}" for package, name in (
    ("cluster", "vq"), ("constants", "constants"), ("differentiate", "differentiate"), ("fft", "helper"),
    ("fft", "fftlog"), ("integrate", "quadrature"), ("linalg", "procrustes"), ("signal", "windows"),
    ("special", "logsumexp"), ("stats", "variation"),
)])  # fmt: skip
MODULES = {"sklearn": SCIKIT_LEARN, "scipy": SCIPY}


def run(modules: Sequence[str], backend: str, more: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the tests of installed ``modules`` that are meant for array-api-strict, in a process of their own."""
    default = {"SCIPY_DEFAULT_DTYPE": "float64"} if modules[0].startswith("scipy") else {}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "pytest.ini")  # theirs, not this project's
        settings.write_text("[pytest]\n", encoding="utf-8")
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-c",
                str(settings),
                "-p",
                "no:cacheprovider",
                "-p",
                "no:netcl",
                "-p",
                "tests.consumers.stand_in",
                "-k",
                "array_api_strict",
                *more,
                "--pyargs",
                *modules,
            ],
            env=os.environ | {"NETCL_BACKEND": backend, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | default,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.consumers", description=__doc__)
    made.add_argument("library", choices=sorted(MODULES))
    made.add_argument("--backend", default="numpy", help="such as opencl:intel (default numpy)")
    made.add_argument("modules", nargs="*", help="others than the ten that are listed in this file")
    chosen = made.parse_intermixed_args()
    done = run(chosen.modules or MODULES[chosen.library], chosen.backend)
    print(done.stdout, done.stderr, sep="", end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
