"""Runtimes that pip installed are found, and runtimes that are broken do not take the program down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest

import netcl

pytest.importorskip("pyopencl")

from netcl.backends.opencl import devices, probe, runtime
from netcl.backends.opencl.probe import Health

ROOT = Path(netcl.__file__).resolve().parents[1]
WITHOUT_CHOICE = {k: v for k, v in os.environ.items() if k not in (*runtime.USER_VARIABLES, "NETCL_BACKEND")}


def run_python(code, **environment):
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
    try:
        return bool(metadata.distribution(distribution))
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NETCL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "netcl"


@pytest.fixture
def unset(monkeypatch):
    for name in runtime.USER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


# Finding runtimes


def test_cache_folder_follows_the_variables_and_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "own"))
    assert runtime.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("NETCL_CACHE_DIR")
    assert runtime.cache_folder() == tmp_path / "netcl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert runtime.cache_folder() == tmp_path / ".cache" / "netcl"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.cache_folder() == tmp_path / "Library" / "Caches" / "netcl"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert runtime.cache_folder() == tmp_path / "local" / "netcl" / "Cache"


def test_folder_names_libraries_and_repeats_the_systems(cache, tmp_path):
    system = tmp_path / "vendors"
    system.mkdir()
    (system / "gpu.icd").write_text("libgpu.so\n")
    (system / "notes.txt").write_text("not a runtime")
    folder = runtime.vendors_folder([tmp_path / "libone.so"], system)
    assert folder.parent == cache
    assert {icd.name: icd.read_text() for icd in folder.iterdir()} == {
        "gpu.icd": "libgpu.so\n",
        "netcl-libone.so.icd": f"{tmp_path / 'libone.so'}\n",
    }


def test_folder_is_made_once_and_again_when_something_changes(cache, tmp_path):
    first = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    stamp = (first / "netcl-libone.so.icd").stat().st_mtime_ns
    assert runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none") == first
    assert (first / "netcl-libone.so.icd").stat().st_mtime_ns == stamp
    assert runtime.vendors_folder([tmp_path / "libtwo.so"], tmp_path / "none") != first


def test_damaged_folder_is_not_used(cache, tmp_path):
    folder = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    (folder / "netcl-libone.so.icd").write_text("/elsewhere/lib.so\n")
    again = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    assert (again / "netcl-libone.so.icd").read_text() == f"{tmp_path / 'libone.so'}\n"


def test_folder_without_a_writable_cache(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    folder = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    assert (folder / "netcl-libone.so.icd").read_text() == f"{tmp_path / 'libone.so'}\n"
    shutil.rmtree(folder)


def test_many_processes_may_make_the_folder(cache, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runtime.vendors_folder([tmp_path / "lib.so"], tmp_path / "none"), range(32)))
    assert all((folder / "netcl-lib.so.icd").is_file() for folder in folders)


@pytest.mark.parametrize("name", runtime.USER_VARIABLES)
def test_what_the_user_set_is_left_alone(unset, monkeypatch, name):
    monkeypatch.setenv(name, "chosen")
    monkeypatch.setattr(runtime, "installed_libraries", lambda: pytest.fail("looked for runtimes"))
    before = dict(os.environ)
    runtime.expose()
    assert dict(os.environ) == before


def test_nothing_to_add_leaves_the_loader_alone(unset, monkeypatch):
    monkeypatch.setattr(runtime, "installed_libraries", list)
    runtime.expose()
    assert not any(name in os.environ for name in runtime.USER_VARIABLES)


def test_pyopencl_that_came_first_is_logged(unset, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "installed_libraries", lambda: [Path("/x/libone.so")])
    with caplog.at_level("INFO", logger="netcl"):
        runtime.expose()
    assert "libone.so" in caplog.text
    assert "OCL_ICD_VENDORS" not in os.environ


@pytest.mark.parametrize(
    ("platform", "variable"), [("linux", "OCL_ICD_VENDORS"), ("win32", "OCL_ICD_FILENAMES"), ("darwin", None)]
)
def test_each_platform_has_its_variable(unset, monkeypatch, cache, tmp_path, platform, variable):
    monkeypatch.setattr(runtime, "installed_libraries", lambda: [tmp_path / "libone.so"])
    monkeypatch.delitem(sys.modules, "pyopencl")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(runtime, "cache_folder", lambda: cache)
    for name in runtime.USER_VARIABLES:  # so that what is set here is taken back afterwards
        monkeypatch.setenv(name, "")
    runtime.expose()
    assert [name for name in runtime.USER_VARIABLES if os.environ[name]] == ([variable] if variable else [])


def test_intel_without_its_libraries_is_reported(monkeypatch, caplog):
    monkeypatch.setattr(runtime, "_library", lambda name, _: [Path("/x/libintelocl.so")] if "intel" in name else [])
    monkeypatch.setattr(runtime, "_is_installed", lambda name: False)
    assert runtime.installed_libraries() == []
    assert "pip install intel-cmplr-lib-rt" in caplog.text


@pytest.mark.skipif(not is_installed("intel-opencl-rt"), reason="intel-opencl-rt is not installed")
def test_intels_runtime_is_found_by_itself(tmp_path):
    code = """
        import netcl
        print(*(row.device.platform for row in netcl.devices() if row.device.backend == "opencl"), sep="\\n")
    """
    done = run_python(code, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    platforms = done.stdout.splitlines()
    assert platforms.count("Intel(R) OpenCL") == 1
    if is_installed("pocl-binary-distribution"):
        assert platforms.count("Portable Computing Language") == 1


def test_platform_listed_twice_counts_once(monkeypatch):
    import pyopencl as cl

    platforms = cl.get_platforms()
    if not platforms:
        pytest.skip("no OpenCL platform")
    expected = devices.listing()
    monkeypatch.setattr(cl, "get_platforms", lambda: [*platforms, *platforms])
    assert devices.listing.__wrapped__() == expected


# Trying devices


@pytest.fixture
def device():
    found = [d for d in devices.listing() if not devices.is_simulator(d)]
    if not found:
        pytest.skip("no OpenCL device")
    return found[0]


def child(monkeypatch, code):
    """Let the child process run ``code``; each run leaves a mark in the returned list's file."""
    monkeypatch.setattr(probe, "_CHILD", textwrap.dedent(code))


def test_device_that_works_is_healthy(cache, device):
    health = probe.check(device, devices.listing().index(device))
    assert health == Health(True, "a trial kernel gave the right result")
    (file,) = (cache / "probes").iterdir()
    assert json.loads(file.read_text())["healthy"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_abort_is_a_reason_not_a_crash(cache, device, monkeypatch):
    child(monkeypatch, "import os, sys; print('error: no linker', file=sys.stderr, flush=True); os.abort()")
    health = probe.check(device, 0)
    assert health == Health(False, f"a trial kernel ended its process with {signal.SIGABRT.name}: error: no linker")


def test_wrong_result_is_a_reason(cache, device, monkeypatch):
    child(monkeypatch, "import sys; sys.exit('wrong results: 2 * x + 1')")
    assert probe.check(device, 0) == Health(False, "a trial kernel failed: wrong results: 2 * x + 1")


def test_device_that_hangs_is_a_reason(cache, device, monkeypatch):
    child(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(probe, "TIMEOUT", 0.5)
    assert probe.check(device, 0) == Health(False, "a trial kernel did not finish within 0 s")


def test_answer_is_kept(cache, device, monkeypatch):
    child(monkeypatch, "")
    assert probe.check(device, 0).healthy
    child(monkeypatch, "import sys; sys.exit(1)")
    assert probe.check(device, 0).healthy
    assert not probe.check(device, 0, fresh=True).healthy
    child(monkeypatch, "")
    assert not probe.check(device, 0).healthy


def test_failure_is_tried_again_after_a_day(cache, device, monkeypatch):
    child(monkeypatch, "import sys; sys.exit(1)")
    assert not probe.check(device, 0).healthy
    child(monkeypatch, "")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + probe.RETRY + 1)
    assert probe.check(device, 0).healthy


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"healthy": true}', b"\xff\xfe", b'{"healthy":0,"reason":1,"time":"x"}']
)
def test_unreadable_answer_is_ignored(cache, device, monkeypatch, content):
    child(monkeypatch, "")
    probe.check(device, 0)
    (file,) = (cache / "probes").iterdir()
    file.write_bytes(content)
    child(monkeypatch, "import sys; sys.exit(1)")
    assert not probe.check(device, 0).healthy
    assert json.loads(file.read_text())["healthy"] is False


def test_cache_that_cannot_be_written_costs_only_time(tmp_path, device, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    child(monkeypatch, "")
    assert probe.check(device, 0).healthy


def test_many_writers_leave_one_whole_answer(cache, device, monkeypatch):
    child(monkeypatch, "")
    with ThreadPoolExecutor(4) as pool:
        assert all(health.healthy for health in pool.map(lambda _: probe.check(device, 0, fresh=True), range(8)))
    (file,) = (cache / "probes").iterdir()
    assert json.loads(file.read_text())["healthy"] is True


def test_python_that_cannot_start_another_trusts_the_device(cache, device, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert probe.check(device, 0) == Health(True, "not tried: this Python cannot start another")
    monkeypatch.setattr(sys, "executable", str(cache / "no such python"))
    assert probe.check(device, 0, fresh=True).reason.startswith("not tried: no child process could be started")


@pytest.mark.skipif(not is_installed("pocl-binary-distribution"), reason="PoCL from PyPI is not installed")
def test_pocl_without_a_linker_is_reported_and_passed_over(tmp_path):
    code = """
        import netcl
        from netcl.errors import BackendError
        (pocl,) = [row for row in netcl.devices() if row.device.platform.startswith("Portable")]
        print(pocl.healthy, pocl.reason)
        try:
            netcl.get_backend("opencl:pocl")
        except BackendError as error:
            print("refused:", error)
        print("default:", netcl.get_backend().device.platform)
    """
    done = run_python(code, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), POCL_CACHE_DIR=str(tmp_path / "pocl"))
    assert done.returncode == 0, done.stderr
    row, refused, default = done.stdout.splitlines()
    assert row.startswith("False a trial kernel ended its process with SIGABRT: error: ")
    assert '"ld"' in row
    assert refused.startswith("refused: opencl:")
    assert "does not work: a trial kernel ended its process with SIGABRT" in refused
    assert "Portable" not in default
    answers = [json.loads(file.read_text()) for file in (tmp_path / "netcl" / "probes").iterdir()]
    assert [answer["healthy"] for answer in answers].count(False) == 1
