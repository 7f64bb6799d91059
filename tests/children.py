"""Python in a process of its own, with the runtimes that nobody has chosen: for tests of what a fresh process finds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

from netcl.backends.opencl.device import icd

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_CHOICE = {k: v for k, v in os.environ.items() if k not in (*icd.USER_VARIABLES, "NETCL_BACKEND")}


def run_python(code, **environment):
    """Run ``code``, with warnings as errors."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=WITHOUT_CHOICE | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def is_installed(distribution):
    """Whether pip has installed it."""
    try:
        return bool(metadata.distribution(distribution))
    except metadata.PackageNotFoundError:
        return False
