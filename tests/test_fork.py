"""A forked child refuses at once what its parent's OpenCL runtime cannot do in it; before any use, a fork is free."""

from __future__ import annotations

import os

import pytest

from netcl.child_process import run_python

pytestmark = [
    pytest.mark.every_runtime,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

SETUP = """
import multiprocessing, os, signal, time
import numpy as np, netcl
from netcl.errors import BackendError
signal.alarm(120)  # ends a child that hangs, which would else outlive this process
name = sys.argv[1]

def use(device=name):
    x = netcl.asarray(np.ones((40, 30), np.float32), device=device)
    return netcl.sum(x @ x.mT).item()

def in_child(work):
    "What work() gives in a forked child, which must not take long."
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        signal.alarm(60)
        began = time.perf_counter()
        try:
            said = repr(work())
        except BackendError as error:
            said = f"refused in {time.perf_counter() - began:.0f} s: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    assert os.waitpid(process, 0)[1] == 0  # this one: PoCL waits for a linker of its own
    return said
"""


def run(backend, code):
    outcome = run_python(f"exec({SETUP + code!r})", str(backend.device), timeout=150)
    assert outcome.status == 0, outcome
    return outcome.output.splitlines()


def test_fork_before_any_use_works(backend):
    assert run(backend, "print(in_child(use)); print(use()); print(in_child(lambda: use('numpy')))") == [
        "48000.0", "48000.0", "48000.0"
    ]  # fmt: skip


REFUSED = """
print(use())
held = netcl.ones(8, device=name)
backend = netcl.get_backend(name)
from netcl.backends.base import Span
span = Span(backend.alloc(3, netcl.float32), 0, 3)
host = np.zeros(3, np.float32)
taken = backend.alloc, backend.download, backend.upload, backend.fill, backend.wrap_host_memory, backend.map_host
alloc, download, upload, fill, wrap, map_host = taken  # looked up before the fork
for work in (
    use, lambda: held + 1, lambda: held.numpy(), lambda: netcl.zeros(3, device=name), backend.synchronize,
    lambda: backend.synchronize(),
    lambda: backend.alloc(3, netcl.float32),
    lambda: netcl.get_backend("opencl:" + str(backend.device.index)).alloc(3, netcl.float32),
    lambda: backend.fill(span, 1), lambda: alloc(3, netcl.float32), lambda: download(span),
    lambda: upload(host, span), lambda: fill(span, 1), lambda: wrap(host, netcl.float32), lambda: map_host(span),
):
    print(in_child(work))
print(in_child(lambda: use("numpy")))
print(use(), netcl.sum(held).item())
"""


def test_fork_after_use_is_refused_at_once(backend):
    if backend.device.backend != "opencl":
        assert run(backend, "print(use()); print(in_child(use))") == ["48000.0", "48000.0"]
        return
    first, *refusals, on_numpy, last = run(backend, REFUSED)
    assert first == on_numpy == "48000.0"
    assert last == "48000.0 8.0"
    assert len(refusals) == 15
    for said in refusals:
        assert said.startswith("refused in 0 s")
        assert 'set_start_method("spawn")' in said


def test_fork_after_a_look_at_the_devices_is_refused_at_once(backend):
    if backend.device.backend == "opencl":
        (said,) = run(backend, "netcl.devices(); print(in_child(use))")
        assert said.startswith("refused in 0 s")
        assert "spawn" in said


def test_fork_while_work_is_under_way(backend):
    code = """
a = netcl.asarray(np.ones((700, 700), np.float32), device=name)
for _ in range(10):
    b = a @ a
print(in_child(lambda: netcl.sum(b).item()))
print(netcl.sum(b).item())
"""
    if backend.device.backend == "opencl":
        said, after = run(backend, code)
        assert "spawn" in said
        assert after == "343000000.0"


SPAWN = """
import pathlib, tempfile
folder = tempfile.mkdtemp()
pathlib.Path(folder, "netcl_spawned.py").write_text(
    "import numpy as np, netcl\\n"
    "def work(name):\\n"
    "    x = netcl.asarray(np.ones((40, 30), np.float32), device=name)\\n"
    "    return netcl.sum(x @ x.mT).item()\\n"
)
sys.path.insert(0, folder)
from netcl_spawned import work
print(use())
with multiprocessing.get_context("spawn").Pool(1) as pool:
    print(pool.apply_async(work, (name,)).get(90))
print(use())
"""


def test_spawn_after_use_works(backend):
    assert run(backend, SPAWN) == ["48000.0"] * 3
