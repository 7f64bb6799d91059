"""Programs that a runtime's own cache gives back without their kernels are built anew, past that cache."""

from __future__ import annotations

import sys

import pyopencl as cl
import pytest

from netcl.backends.opencl.device import processor, program, selection
from netcl.child_process import run_python
from netcl.errors import KernelBuildError

# A void function that takes 64 bytes by value: PoCL 3.0 reads such a program back without its kernels, on processors
# that its LLVM does not know.
PLANTED = """
void keep(ulong8 v, __global ulong *p, size_t i) { vstore8(v, 0, p + i); }
__kernel void planted(__global int *x) { x[0] = 7; }
"""

CHILD = """
import numpy as np, pyopencl as cl
from netcl.backends.opencl.device import program, selection
program.compose = lambda *given: sys.argv[2]
device = selection.list_devices()[int(sys.argv[1])]
context = cl.Context([device])
built = program.build(context, "planted.cl")
queue, found = cl.CommandQueue(context), np.zeros(1, np.int32)
x = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4)
kernel = cl.Kernel(built, "planted")
kernel.set_args(x)
cl.enqueue_nd_range_kernel(queue, kernel, (1,), (1,))
cl.enqueue_copy(queue, found, x)
print(built.num_kernels, found[0])
"""


class Program:
    """What pyopencl would build, with as many kernels as ``counts`` says next."""

    counts: list[int]
    texts: list[str]

    def __init__(self, context, text):
        self.texts.append(text)

    def build(self, options, cache_dir):
        self.num_kernels = self.counts.pop(0)
        return self


@pytest.fixture
def planted(opencl, monkeypatch):
    def build(*counts):
        monkeypatch.setattr(Program, "counts", list(counts), raising=False)
        monkeypatch.setattr(Program, "texts", [], raising=False)
        monkeypatch.setattr(cl, "Program", Program)
        monkeypatch.setattr(program.binary_cache, "load", lambda *given: None)
        monkeypatch.setattr(program.binary_cache, "store", lambda *given: None)
        return program.build(opencl.queue.context, "fill.cl")

    return build


def test_whole_program_is_built_once(planted):
    assert planted(1).num_kernels == 1
    assert len(Program.texts) == 1


def test_program_without_kernels_is_built_again_under_another_text(planted):
    assert planted(0, 1).num_kernels == 1
    first, second = Program.texts
    assert second.startswith(first)
    assert second != first


def test_program_that_stays_without_kernels_is_refused(planted):
    with pytest.raises(KernelBuildError, match=r"fill\.cl does not build .*\n.*\n.*\nlog: .*no kernel"):
        planted(0, 0)


def test_kept_binary_without_kernels_is_built_again(planted, opencl, monkeypatch):
    planted(1)
    empty = Program(None, "")
    empty.num_kernels = 0
    monkeypatch.setattr(Program, "counts", [1])
    monkeypatch.setattr(program.binary_cache, "load", lambda *given: empty)
    assert program.build(opencl.queue.context, "fill.cl").num_kernels == 1


def test_planted_program_runs_in_every_process(opencl, tmp_path, monkeypatch):
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path))
    for _ in range(3):
        outcome = run_python(
            f"exec({CHILD!r})", str(selection.list_devices().index(opencl.queue.cl_device)), PLANTED, timeout=120
        )
        assert outcome.output.split() == ["1", "7"], outcome


def test_built_ins_and_kernels_are_compiled_for_one_processor(opencl, monkeypatch):
    pocl = "Portable" in opencl.queue.cl_device.platform.name
    monkeypatch.setattr(processor, "instruction_set", lambda: program.AVX512)
    assert ("-DAVX512_BUILT_INS" in program.build_options(opencl.queue.cl_device)) == pocl
    monkeypatch.setattr(processor, "instruction_set", lambda: program.AVX512 - {"avx512vl"})
    assert "-DAVX512_BUILT_INS" not in program.build_options(opencl.queue.cl_device)


def test_the_processor_is_known_where_linux_says_it():
    if sys.platform == "linux":
        assert processor.instruction_set()
        assert processor.model()
