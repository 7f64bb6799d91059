"""Programs on disk: used again by the next process, and no damaged file harms."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from netcl.backends.opencl import binaries, program

cl = pytest.importorskip("pyopencl")  # after netcl, which lets it see all runtimes

TEXT = "__kernel void count(__global int *x) { x[get_global_id(0)] = (int)get_global_id(0) + START; }"
OPTIONS = ["-cl-std=CL1.2"]


@pytest.fixture
def folder(monkeypatch, tmp_path, opencl):
    if not binaries._kept_here(opencl.cl_device):
        # PoCL keeps its binaries itself; that netcl could do so for it too is what is tested there.
        monkeypatch.setattr(binaries, "has_src_build_cache", lambda device: False)
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "programs"


@pytest.fixture(autouse=True)
def kernel_file(monkeypatch):
    texts = {"count.cl": TEXT, "target.clh": ""}
    monkeypatch.setattr(program, "source", texts.__getitem__)


def built(opencl, start=7):
    """Whether the program came from a file; it is run, and has to give the right result."""
    made = program.build(opencl.context, "count.cl", (("START", start),))
    with cl.CommandQueue(opencl.context) as queue:
        memory = cl.Buffer(opencl.context, cl.mem_flags.READ_WRITE, 16)
        cl.Kernel(made, "count")(queue, (4,), (1,), memory)
        found = np.empty(4, np.int32)
        cl.enqueue_copy(queue, found, memory)
    assert found.tolist() == [start, start + 1, start + 2, start + 3]
    return not made.get_info(cl.program_info.SOURCE)


def test_what_was_built_is_used_again(opencl, folder):
    assert not built(opencl)
    assert built(opencl)
    assert not built(opencl, start=8)  # another define is another program
    assert built(opencl, start=8)
    assert len(list(folder.iterdir())) == 2


def cut(content):
    return content[:-1]


def swapped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def refused(content):
    """Whole, but nothing that a driver takes."""
    binary = b"no program"
    return binaries._MAGIC + hashlib.sha256(binary).digest() + binary


@pytest.mark.parametrize("damage", [cut, swapped, refused, lambda content: b""], ids=["cut", "bit", "refused", "empty"])
def test_a_damaged_file_is_written_anew(damage, opencl, folder):
    built(opencl)
    (file,) = folder.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert not built(opencl)
    assert built(opencl)
    assert list(folder.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_does_no_harm(opencl, folder):
    folder.parent.write_text("a file where a folder should be")
    assert not built(opencl)
    assert not built(opencl)


def test_the_oldest_files_go_first(opencl, folder, monkeypatch):
    for start in range(4):
        built(opencl, start)
    size = sum(file.stat().st_size for file in folder.iterdir()) // 4
    assert built(opencl, 0)  # now the one that was used last
    monkeypatch.setattr(binaries, "LARGEST", int(3.5 * size))
    built(opencl, 4)
    assert built(opencl, 0)
    assert not built(opencl, 1)


def test_a_file_that_vanishes_while_the_folder_is_read_does_no_harm(opencl, folder):
    """As when another process renames what it has written: the entry is there, and the file is not."""
    folder.mkdir(parents=True)
    (folder / "gone.tmp").symlink_to(folder / "nowhere")
    assert not built(opencl)
    assert built(opencl)
