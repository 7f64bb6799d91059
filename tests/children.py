"""Python in a process of its own, with the runtimes that nobody has chosen: for tests of what a fresh process finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

from netcl.backends import devices
from netcl.backends.opencl.device import icd, selection
from netcl.backends.opencl.device.defects import CLASSES

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_CHOICE = {k: v for k, v in os.environ.items() if k not in (*icd.USER_VARIABLES, "NETCL_BACKEND")}


def take_over_probes(folder):
    """Let processes that keep their files in ``folder`` know what this one knows of the devices: they try none again.

    A whole trial takes half a minute of processor time. Tests of the trial itself begin without.
    """
    for row in devices():
        if row.device.backend == "opencl" and row.healthy:
            selection.defects_on(row.device.index, CLASSES)
    known = icd.cache_folder() / "probes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if known.is_dir():
        shutil.copytree(known, folder / "probes", dirs_exist_ok=True)
    return folder


def one_runtime():
    """Variables for a process that is to find one OpenCL runtime alone: what tries every kernel family tries each."""
    listed = sorted(Path(os.environ.get("OCL_ICD_VENDORS", "")).glob("netcl-*.icd"))
    return {"OCL_ICD_VENDORS": listed[0].read_text(encoding="utf-8").strip()} if listed else {}


def trials_of_the_base(folder):
    """A folder for PYTHONPATH that keeps the child of netcl doctor from trying every kernel family."""
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'netcl.cli.trial' in sys.orig_argv:\n"
        "    from netcl.backends.opencl.device import probe\n    probe.cases = list\n"
    )
    return str(folder)


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
