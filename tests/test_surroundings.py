"""Where netcl finds itself: folders with hostile files, homes that cannot be written, pyopencl that came first.

Each test is a process or several of its own. They run on whatever OpenCL devices there are.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from netcl.backends import devices
from tests.children import one_runtime, take_over_probes, trials_of_the_base
from tests.hostile import NAMES, marks, plant

pytest.importorskip("pyopencl")

from netcl.backends.opencl.device import icd

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).with_name("netcl")

USED = """\
import json
import netcl

rows = [row for row in netcl.devices() if row.device.backend == "opencl" and row.healthy is not None]
for row in rows:
    if row.healthy:
        assert netcl.ones((3, 5), device=row.device).numpy().sum() == 15.0, row
print(json.dumps({row.device.platform: row.healthy for row in rows}))
"""


def clean(**variables):
    """This process's environment, without what netcl or the tests have set in it."""
    own = {
        *icd.USER_VARIABLES,
        "NETCL_BACKEND",
        "NETCL_TUNING",
        "NETCL_CACHE_DIR",
        "POCL_CACHE_DIR",
        "XDG_CACHE_HOME",
    }
    if not icd._registered.keys() >= {"OCL_ICD_VENDORS"}:  # else the runtimes were chosen from outside
        own -= set(icd.USER_VARIABLES)
    own |= {"PYOPENCL_NO_CACHE"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path} | {name: str(value) for name, value in variables.items()}


def run(*command, folder, umask=-1, **variables):
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=clean(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        umask=umask,
    )


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A script in a folder of its own."""
    script = tmp_path_factory.mktemp("script") / "used.py"
    script.write_text(USED)
    return script


@pytest.fixture(scope="module")
def healthy():
    """What each platform is in this process."""
    return {row.device.platform: row.healthy for row in devices() if row.device.backend == "opencl" and row.healthy}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return plant(folder / "here", folder / "marks"), folder / "marks"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return take_over_probes(tmp_path_factory.mktemp("cache") / "kept")


@pytest.fixture(scope="module")
def tried(tmp_path_factory, hostile):
    """A folder with a home, and the hostile folder before every device was tried anew there, and what was said.

    That takes half a minute of processor time, so it is done once for all tests that need a home without any answer.
    """
    folder = tmp_path_factory.mktemp("tried")
    for name in ("home", "tmp", "here"):
        (folder / name).mkdir()
    netcl = [SCRIPT] if SCRIPT.exists() else [sys.executable, "-P", "-m", "netcl"]
    homes = {"HOME": folder / "home", "TMPDIR": folder / "tmp", **one_runtime()}
    before = sorted(os.listdir(hostile[0]))
    return folder, before, run(*netcl, "devices", "--probe", folder=hostile[0], umask=0, **homes)


# Folders that a command or a script is started in


def assert_works(found, healthy):
    working = {platform: health for platform, health in json.loads(found).items() if platform in healthy}
    assert working == healthy


@pytest.mark.parametrize(("place", "time"), [("hostile", "first"), ("hostile", "second"), ("empty", "third")])
def test_a_script_uses_devices_in_any_folder(place, time, used, hostile, cache, tmp_path, healthy):
    """With cold kernel caches and with warm ones, which one folder leaves for the other."""
    folder, marked = hostile
    done = run(sys.executable, used, folder=folder if place == "hostile" else tmp_path, NETCL_CACHE_DIR=cache)
    assert (done.returncode, done.stderr) == (0, "")
    assert_works(done.stdout, healthy)
    assert marks(marked) == []
    assert list(tmp_path.iterdir()) == []


COMMANDS = {
    "devices": ("devices", "--json"),
    "doctor": ("doctor", "--json"),
    "bench": ("bench", "--size", "1000", "--seconds", "0", "--json"),
    "tune": ("tune", "--quick", "--kernel", "prepare_step", "--output", "{output}"),
    "demo": ("demo", "--backend", "numpy", "--subset", "--epochs", "1", "--output", "{output}.png"),
    "version": ("--version",),
    "nothing": (),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_nothing_from_the_working_directory(command, hostile, cache, tmp_path, healthy):
    folder, marked = hostile
    before = sorted(os.listdir(folder))
    netcl = [SCRIPT] if SCRIPT.exists() else [sys.executable, "-P", "-m", "netcl"]
    arguments = [part.format(output=tmp_path / "written") for part in COMMANDS[command]]
    variables = {"NETCL_CACHE_DIR": cache, "MPLCONFIGDIR": tmp_path}
    if command == "doctor":
        variables |= {**one_runtime(), "PYTHONPATH": os.pathsep.join([trials_of_the_base(tmp_path), str(ROOT)])}
    done = run(*netcl, *arguments, folder=folder, **variables)
    assert done.returncode == (2 if command == "nothing" else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert marks(marked) == []
    assert sorted(os.listdir(folder)) == before
    if command == "devices":
        rows = json.loads(done.stdout)
        assert_works(json.dumps({row["device"]["platform"]: row["healthy"] for row in rows}), healthy)
    if command == "doctor":
        checks = json.loads(done.stdout)["checks"]
        assert [check for check in checks if check["name"].startswith("train") and check["state"] != "ok"] == []


def test_devices_tried_anew_run_nothing_from_the_working_directory(tried, hostile, healthy):
    folder, marked = hostile
    before, done = tried[1:]
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert any(platform in done.stdout for platform in healthy)
    assert marks(marked) == []
    assert sorted(os.listdir(folder)) == before


def test_files_may_have_any_name(hostile, tmp_path, used):
    """As a cache folder, a table, a data folder: what is there is refused by name or used, and nothing is run."""
    folder, marked = hostile
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from netcl.backends.opencl.device import tuning_table
        from netcl.data import load_fashion_mnist
        from netcl.errors import TuningError

        for name in sys.argv[1:]:
            for call in (lambda: tuning_table.read(Path(name)), lambda: load_fashion_mnist(root=name)):
                try:
                    call()
                except (TuningError, FileNotFoundError, ValueError) as error:
                    assert name in str(error) or repr(name)[1:-1] in str(error), error
                else:
                    raise AssertionError(name)
        """
    )
    script = tmp_path / "names.py"
    script.write_text(code)
    done = run(sys.executable, script, *NAMES, folder=folder, NETCL_CACHE_DIR=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert marks(marked) == []


# Homes


# Ways in which there is no place to keep anything, in the test's own folder.
HOMES = {
    "home below a file": ("HOME", "{}/file/below"),
    "home missing": ("HOME", "{}/missing"),
    "own folder below a file": ("NETCL_CACHE_DIR", "{}/file/below"),
    "own folder is everybody's": ("NETCL_CACHE_DIR", "{}/open"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are those of POSIX")
@pytest.mark.parametrize("case", HOMES)
def test_devices_work_without_a_place_to_keep_anything(case, tmp_path, used, healthy):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("tmp", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    name, place = HOMES[case]
    variables = {"TMPDIR": tmp_path / "tmp", name: place.format(tmp_path)}
    if case != "home below a file":  # without a place every process tries the devices: all of them once
        variables |= one_runtime()
    before = sorted(tmp_path.rglob("*"))
    done = run(sys.executable, used, folder=tmp_path / "here", **variables)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert_works(done.stdout, healthy if "OCL_ICD_VENDORS" not in variables else {p: healthy[p] for p in found})
    assert found
    (line,) = done.stderr.splitlines()
    assert "NETCL_CACHE_DIR" in line
    assert sorted(tmp_path.rglob("*")) == before  # nothing is left behind, in the temporary folder neither


def test_all_that_is_written_lies_in_one_folder(tried, used, healthy):
    """Of its owner alone, whatever the umask; a second process finds it and changes nothing that was written once."""
    folder, *_ = tried
    home, kept = folder / "home", folder / "home/.cache/netcl"
    variables = {"HOME": home, "TMPDIR": folder / "tmp", **one_runtime()}
    for _ in range(2):
        done = run(sys.executable, used, folder=folder / "here", umask=0, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        assert_works(done.stdout, {platform: healthy[platform] for platform in json.loads(done.stdout)})
    assert [path for path in folder.iterdir() if path.name != "home" and any(path.iterdir())] == []
    outside = [path for path in home.rglob("*") if not path.is_relative_to(kept) and not kept.is_relative_to(path)]
    assert outside == []
    if os.name == "posix":
        own = [path for path in (kept, *kept.rglob("*")) if not path.is_relative_to(kept / "pocl")] + [kept / "pocl"]
        assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in own if path.is_dir()} == {"0o700"}
        assert {oct(stat.S_IMODE(path.stat().st_mode)) for path in own if path.is_file()} == {"0o600"}


def test_nothing_is_unpickled(tmp_path, used):
    """A row planted in pyopencl's cache would run; neither that cache nor any other is one of pickles."""
    trap = "import pickle\npickle.loads = pickle.load = pickle.Unpickler = None\n"
    code = f"{trap}exec(open({str(used)!r}).read())"
    take_over_probes(tmp_path / ".cache/netcl")
    for _ in range(2):
        done = run(sys.executable, "-c", code, folder=tmp_path, HOME=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / ".cache/pytools").exists()


# pyopencl that came first


@pytest.mark.parametrize("first", ["pass", "cl.get_platforms()", "kernel()"])
def test_a_program_may_import_pyopencl_first(first, cache, tmp_path, healthy):
    """Even if it has listed platforms, or used one with kernels of its own, and goes on to do so."""
    code = f"""
        import pyopencl as cl
        def kernel():
            context = cl.Context([cl.get_platforms()[-1].get_devices()[0]])
            queue = cl.CommandQueue(context)
            text = "__kernel void f(__global int *x) {{ x[0] = 7; }}"
            memory = cl.Buffer(context, cl.mem_flags.READ_WRITE, 4)
            cl.Kernel(cl.Program(context, text).build(), "f")(queue, (1,), (1,), memory)
            queue.finish()
        {first}
    """
    script = tmp_path / "first.py"
    script.write_text(textwrap.dedent(code) + USED + "if kernel: kernel()\n" * (first == "kernel()"))
    done = run(sys.executable, "-W", "ignore", script, folder=tmp_path, NETCL_CACHE_DIR=cache, HOME=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert_works(done.stdout, healthy)


def test_a_list_that_the_user_made_is_said_to_hide_what_is_installed(tmp_path):
    try:
        metadata.distribution("intel-opencl-rt")
    except metadata.PackageNotFoundError:
        pytest.skip("no runtime that the loader does not find by itself")
    code = "import netcl; netcl.get_backend('opencl')"
    nowhere = tmp_path / "nowhere"
    done = run(sys.executable, "-c", code, folder=tmp_path, NETCL_CACHE_DIR=tmp_path, OCL_ICD_VENDORS=nowhere)
    last = done.stderr.splitlines()[-1]
    assert f"OCL_ICD_VENDORS={nowhere} hides libintelocl.so, which is installed: unset it" in last
