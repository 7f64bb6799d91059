"""Choosing a backend: names, devices, the environment, scopes, and what is said when there is none."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import netcl
from netcl import backends
from netcl.backends import available, default_backend, devices, get_backend, set_backend, use_backend
from netcl.backends.base import Backend
from netcl.errors import BackendError

ROOT = Path(netcl.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    """Every test starts without a default, and leaves the one there was."""
    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.setattr(backends, "_why", "")
    monkeypatch.delenv(backends.VARIABLE, raising=False)


def opencl_rows():
    return [row for row in devices() if row.device.backend == "opencl"]


def working(simulators=False):
    rows = [row for row in opencl_rows() if row.healthy and (simulators or row.device.platform != "Oclgrind")]
    if not rows:
        pytest.skip("no OpenCL device works here")
    return rows


def run_python(code, **environment):
    """Run code in a new process in which nothing is decided, and return the finished process."""
    inherited = {k: v for k, v in os.environ.items() if k not in (backends.VARIABLE, "OCL_ICD_VENDORS")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=inherited | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output(code, **environment):
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Names


def test_numpy_is_always_there():
    backend = get_backend("numpy")
    assert str(backend.device) == "numpy"
    assert get_backend("numpy") is get_backend("numpy:0") is get_backend("NumPy") is backend
    assert "numpy" in available()


def test_backend_and_device_stand_for_themselves():
    backend = get_backend("numpy")
    assert get_backend(backend) is backend
    assert get_backend(backend.device) is backend


def test_each_device_has_one_backend_under_all_its_names():
    for row in working():
        device = row.device
        backend = get_backend(device)
        assert backend.device == device
        assert get_backend(str(device)) is backend
        assert get_backend(f"opencl:{device.index}") is backend


def test_opencl_alone_is_the_first_device_that_works():
    first = working()[0].device
    assert get_backend("opencl").device == first
    assert get_backend(f"opencl:{first.kind}").device.kind == first.kind
    assert "opencl" in available()


def test_part_of_a_platform_name_selects_it():
    for row in working():
        part = row.device.platform.split("(")[0].split()[0].lower()
        assert get_backend(f"opencl:{part}").device.platform == row.device.platform
        assert get_backend(part).device.platform == row.device.platform


def test_a_platform_goes_before_a_device_of_another_library_that_is_called_alike():
    """torch's device carries the processor's name, which may be that of a platform's maker."""
    torch = pytest.importorskip("torch")
    get_backend(torch.__name__)
    test_part_of_a_platform_name_selects_it()


def test_pocl_goes_by_its_short_name():
    pocl = [row for row in working() if row.device.platform.startswith("Portable")]
    if not pocl:
        pytest.skip("PoCL is not installed")
    assert get_backend("opencl:pocl").device == pocl[0].device
    assert get_backend("pocl").device == pocl[0].device


def test_bare_part_that_means_several_devices_is_refused():
    if len(working()) < 2:
        pytest.skip("only one OpenCL device works here")
    kind = working()[0].device.kind
    same = [row.device for row in opencl_rows() if row.device.kind == kind and row.device.platform != "Oclgrind"]
    if len(same) < 2:
        pytest.skip("only one device of a kind")
    with pytest.raises(BackendError, match=f"'{kind}' means several devices: {same[0]} .*{same[1]}"):
        get_backend(kind)


def test_simulator_is_used_only_when_named():
    simulators = [row.device for row in opencl_rows() if row.device.platform == "Oclgrind"]
    if not simulators:
        pytest.skip("Oclgrind is not installed")
    working()
    assert default_backend().device.platform != "Oclgrind"
    assert get_backend("opencl:cpu").device.platform != "Oclgrind"
    assert simulators[0].index == max(row.device.index for row in opencl_rows())


@pytest.mark.parametrize("name", ["cuda", "numpi", "", "opencl:no such device", "opencl:99", "numpy:1"])
def test_unknown_name_says_what_there_is_and_how_to_get_more(name):
    before = default_backend()
    with pytest.raises(BackendError) as caught:
        get_backend(name)
    message = str(caught.value)
    assert repr(name.removeprefix("opencl:")).strip("'") in message
    assert "numpy" in message or "opencl:0" in message or "netcl[cpu]" in message
    assert default_backend() is before


def test_unknown_name_lists_what_is_available():
    with pytest.raises(BackendError, match=re.escape(", ".join(available())) + r".*pip install"):
        get_backend("cuda")


@pytest.mark.parametrize("selection", [3, 1.5, b"numpy", object()])
def test_what_is_no_selection_is_refused(selection):
    with pytest.raises(BackendError, match=type(selection).__name__):
        get_backend(selection)


# Plug-ins (tests/plugin registers "toy")


def test_plug_in_is_found_by_its_entry_point():
    toy = get_backend("toy")
    assert toy.device.backend == "toy"
    assert get_backend("toy") is toy is get_backend(toy.device)
    assert "toy" in available()
    assert any(row.device == toy.device and row.healthy for row in devices())


def test_broken_plug_in_is_reported_and_harms_nothing_else(tmp_path, monkeypatch):
    info = tmp_path / "netcl_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: netcl-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[netcl.backends]\nbroken = netcl_module_that_is_missing:factory\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"'broken' .*cannot be imported.*netcl_module_that_is_missing"):
        get_backend("broken")
    (row,) = [row for row in devices() if row.device.backend == "broken"]
    assert not row.healthy
    assert "netcl_module_that_is_missing" in row.reason


# The default


def test_set_backend_is_process_wide():
    assert set_backend("numpy") is get_backend("numpy")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(default_backend()))
    thread.start()
    thread.join()
    assert seen == [get_backend("numpy")]
    assert get_backend() is get_backend("numpy")


def test_set_backend_to_nothing_goes_back_to_the_environment(monkeypatch):
    set_backend("toy")
    monkeypatch.setenv(backends.VARIABLE, "numpy")
    assert set_backend(None).device.backend == "numpy"


def test_refused_set_backend_changes_nothing():
    set_backend("numpy")
    with pytest.raises(BackendError):
        set_backend("cuda")
    assert default_backend() is get_backend("numpy")


def test_environment_names_the_default(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, " toy ")
    assert default_backend() is get_backend("toy")
    (row,) = [row for row in devices() if row.default]
    assert (row.device.backend, row.why) == ("toy", "NETCL_BACKEND=toy")


def test_environment_that_names_nothing_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cuda")
    with pytest.raises(BackendError, match="cuda"):
        default_backend()
    assert not any(row.default for row in devices())


def test_default_is_said_once(caplog):
    with caplog.at_level("INFO", logger="netcl"):
        backend = default_backend()
        default_backend()
    (record,) = [record for record in caplog.records if record.message.startswith("using ")]
    assert str(backend.device) in record.message


def test_scope_ends_with_its_block():
    set_backend("numpy")
    with use_backend("toy") as toy:
        assert default_backend() is toy is get_backend("toy")
        with use_backend("numpy"):
            assert default_backend() is get_backend("numpy")
        assert default_backend() is toy
        set_backend("numpy")
        assert default_backend() is toy
    assert default_backend() is get_backend("numpy")


def test_scope_ends_with_an_exception():
    set_backend("numpy")
    with pytest.raises(ZeroDivisionError), use_backend("toy"):
        raise ZeroDivisionError
    assert default_backend() is get_backend("numpy")


def test_scope_does_not_reach_other_threads_or_tasks():
    set_backend("numpy")

    async def task(name, entered, leave):
        with use_backend(name):
            entered.set()
            await leave.wait()
            return default_backend().device.backend

    async def both():
        events = [asyncio.Event() for _ in range(3)]
        first = asyncio.create_task(task("toy", events[0], events[2]))
        await events[0].wait()
        second = asyncio.create_task(task("numpy", events[1], events[2]))
        await events[1].wait()
        events[2].set()
        return await asyncio.gather(first, second)

    assert asyncio.run(both()) == ["toy", "numpy"]
    with use_backend("toy"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(default_backend).result() is get_backend("numpy")


def test_threads_get_the_same_object(monkeypatch):
    monkeypatch.setattr(backends, "_backends", {})
    names = ["numpy", "toy"] * 8
    barrier = threading.Barrier(len(names))

    def get(name):
        barrier.wait(timeout=30)
        return get_backend(name)

    with ThreadPoolExecutor(len(names)) as pool:
        found = list(pool.map(get, names))
    assert len({id(backend) for backend in found[::2]}) == 1
    assert len({id(backend) for backend in found[1::2]}) == 1


# Processes of their own


def test_importing_netcl_imports_no_opencl():
    assert output("import netcl, sys; print('pyopencl' in sys.modules)") == "False"


def test_without_pyopencl_numpy_is_the_default_and_opencl_says_what_to_install():
    code = """
        import logging, sys
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("pyopencl", "torch", "cupy"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Missing())
        import netcl
        from netcl.errors import BackendError
        assert netcl.get_backend().device.backend == "numpy"
        assert netcl.available() == ("numpy",), netcl.available()
        assert [row.device.backend for row in netcl.devices()] == ["numpy"]
        for name in ("opencl", "opencl:gpu"):
            try:
                netcl.get_backend(name)
            except BackendError as error:
                print("refused:", error)
        try:
            netcl.get_backend("intel")
        except BackendError as error:
            print("unknown:", error)
    """
    said = output(code).splitlines()
    assert said[0].startswith("netcl using numpy")
    assert "pyopencl" in said[0]
    assert len(said) == 4
    for line in said[1:3]:
        assert line.startswith("refused: OpenCL needs pyopencl")
        assert 'pip install "netcl[cpu]" or "netcl[pocl]"' in line
    assert said[3].startswith("unknown: unknown backend 'intel'; available are numpy.")


def test_without_a_platform_numpy_is_the_default_and_opencl_says_what_to_install(tmp_path):
    pytest.importorskip("pyopencl")
    code = """
        import netcl
        from netcl.errors import BackendError
        print(netcl.get_backend().device.backend, tuple(name for name in netcl.available() if name != "torch"))
        for name in ("opencl", "opencl:0", "opencl:gpu"):
            try:
                netcl.get_backend(name)
            except BackendError as error:
                print(error)
    """
    nowhere = str(tmp_path / "nothing")  # a folder that exists would still leave what lies in pyopencl's own
    said = output(code, OCL_ICD_VENDORS=nowhere, OCL_ICD_FILENAMES="").splitlines()
    assert said[0] == "numpy ('numpy',)"
    assert len(said) == 4
    for line in said[1:]:
        assert line.startswith("no OpenCL platform was found")
        assert 'pip install "netcl[cpu]" or "netcl[pocl]"' in line


# Lists of devices


def test_devices_lists_each_device_once_and_one_default():
    rows = devices()
    names = [str(row.device) for row in rows]
    assert names[0] == "numpy"
    assert len(set(names)) == len(names)
    assert [row.device.index for row in opencl_rows()] == list(range(len(opencl_rows())))
    (default,) = [row for row in rows if row.default]
    assert default.device == default_backend().device
    assert default.why
    assert all(row.reason for row in rows)


def test_default_inside_a_scope_is_marked():
    with use_backend("numpy"):
        (default,) = [row for row in devices() if row.default]
    assert (str(default.device), default.why) == ("numpy", "use_backend()")


def test_backends_satisfy_the_protocol(backend):
    calls = {name for name in dir(Backend) if not name.startswith("_")}
    assert {name for name in calls if not hasattr(backend, name)} == set()
