"""Programs on disk: used again by the next process, and no damaged file harms."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from netcl.backends.opencl.device import binary_cache, icd, program
from tests.children import take_over_probes

cl = pytest.importorskip("pyopencl")  # after netcl, which lets it see all runtimes

TEXT = "__kernel void count(__global int *x) { x[get_global_id(0)] = (int)get_global_id(0) + START; }"
OPTIONS = ["-cl-std=CL1.2"]


@pytest.fixture
def folder(monkeypatch, tmp_path, opencl):
    if not binary_cache._kept_here(opencl.queue.cl_device):
        # PoCL keeps its binaries itself; that netcl could do so for it too is what is tested there.
        monkeypatch.setattr(binary_cache, "has_src_build_cache", lambda device: False)
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "programs"


@pytest.fixture(autouse=True)
def kernel_file(monkeypatch):
    texts = {"count.cl": TEXT, "target.clh": ""}
    monkeypatch.setattr(program, "source", texts.__getitem__)


def built(opencl, start=7):
    """Whether the program came from a file; it is run, and has to give the right result."""
    made = program.build(opencl.queue.context, "count.cl", (("START", start),))
    with cl.CommandQueue(opencl.queue.context) as queue:
        memory = cl.Buffer(opencl.queue.context, cl.mem_flags.READ_WRITE, 16)
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


def files(folder):
    return sorted(folder.iterdir())


def test_the_folder_and_what_is_in_it_are_the_owners_alone(opencl, folder):
    before = os.umask(0)
    try:
        built(opencl)
    finally:
        os.umask(before)
    for path, mode in ((folder.parent, 0o700), (folder, 0o700), (files(folder)[0], 0o600)):
        assert path.stat().st_mode & 0o777 == (mode if os.name == "posix" else path.stat().st_mode & 0o777)


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def swapped(file):
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def of_another_program(file):
    """A file that netcl wrote and a driver takes, under the name of another."""
    (other,) = (path for path in files(file.parent) if path != file)
    file.write_bytes(other.read_bytes())


def huge(file):
    os.truncate(file, binary_cache.LARGEST + 1)  # sparse
    os.utime(file, (0, 0))  # the oldest, so that it alone is deleted to make room


def linked(file):
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def writable(file):
    file.chmod(0o666)


def a_pipe(file):
    file.unlink()
    os.mkfifo(file)


DAMAGES = (cut, swapped, of_another_program, huge, lambda file: file.write_bytes(b""))
POSIX_DAMAGES = (linked, writable, a_pipe) if os.name == "posix" else ()


@pytest.mark.parametrize("damage", [*DAMAGES, *POSIX_DAMAGES], ids=lambda damage: damage.__name__.strip("<>"))
def test_a_damaged_file_is_written_anew(damage, opencl, folder):
    built(opencl)
    (file,) = files(folder)
    built(opencl, start=8)
    damage(file)
    assert not built(opencl)
    assert built(opencl)
    assert file in files(folder)
    assert len(files(folder)) == 2
    assert file.is_file()
    assert not file.is_symlink()


def test_what_a_driver_refuses_is_written_anew(opencl, folder, monkeypatch):
    honest = binary_cache.sealed
    monkeypatch.setattr(binary_cache, "sealed", lambda key, binary: honest(key, b"no program"))
    built(opencl)
    monkeypatch.setattr(binary_cache, "sealed", honest)
    (file,) = files(folder)
    content = file.read_bytes()
    assert not built(opencl)
    assert built(opencl)
    assert file.read_bytes() != content


def test_a_folder_that_is_removed_meanwhile_is_made_anew(opencl, folder):
    for gone in (folder, folder.parent):
        built(opencl)
        shutil.rmtree(gone)
        assert not built(opencl)
        assert built(opencl)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["open", "replace", "mkdir"])
def test_a_disk_that_takes_nothing_costs_a_build_and_one_warning(call, fault, opencl, folder, monkeypatch, caplog):
    real = getattr(os, call)

    def failing(path, *arguments, **named):
        if str(path).startswith(str(folder.parent)) and (call != "open" or arguments[0] & os.O_WRONLY):
            raise OSError(fault, os.strerror(fault))
        return real(path, *arguments, **named)

    monkeypatch.setattr(icd, "_reported", [])
    monkeypatch.setattr(os, call, failing)
    for _ in range(2):
        assert not built(opencl)
    monkeypatch.undo()
    assert len(caplog.records) == 1
    assert [path for path in folder.parent.rglob("*") if path.is_file()] == []


@pytest.fixture
def answers(tmp_path):
    """What is known of the devices, in the folder that ``folder`` lets processes use."""
    return take_over_probes(tmp_path / "cache")


def test_processes_that_build_at_once_leave_whole_files(opencl, answers, folder):
    code = (
        "import netcl\n"
        f"with netcl.use_backend({str(opencl.device)!r}):\n"
        "    assert netcl.sum(netcl.ones(1000) * 2.0).item() == 2000.0\n"
    )
    environment = os.environ | {"NETCL_CACHE_DIR": str(folder.parent)}
    for _ in range(2):
        started = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
        assert [process.wait(120) for process in started] == [0, 0, 0]
    assert [file for file in folder.glob("*") if file.suffix != ".bin"] == []


def test_a_folder_that_cannot_be_written_does_no_harm(opencl, folder):
    folder.parent.write_text("a file where a folder should be")
    assert not built(opencl)
    assert not built(opencl)


def test_the_oldest_files_go_first(opencl, folder, monkeypatch):
    for start in range(4):
        built(opencl, start)
    size = sum(file.stat().st_size for file in folder.iterdir()) // 4
    assert built(opencl, 0)  # now the one that was used last
    monkeypatch.setattr(binary_cache, "LARGEST", int(3.5 * size))
    built(opencl, 4)
    assert built(opencl, 0)
    assert not built(opencl, 1)


def test_a_file_that_vanishes_while_the_folder_is_read_does_no_harm(opencl, folder):
    """As when another process renames what it has written: the entry is there, and the file is not."""
    folder.mkdir(parents=True)
    (folder / "gone.tmp").symlink_to(folder / "nowhere")
    assert not built(opencl)
    assert built(opencl)
