"""Runtimes that pip installed are found, and runtimes that are broken do not take the program down."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("pyopencl")

from netcl.backends.opencl.device import icd as runtime
from netcl.backends.opencl.device import selection
from tests.children import is_installed, run_python


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


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("NETCL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_cache_folder_follows_the_variables_and_the_platform(home, monkeypatch, tmp_path):
    assert runtime.cache_folder() == home / ".cache/netcl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert runtime.cache_folder() == tmp_path / "caches/netcl"
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "own"))
    assert runtime.cache_folder() == tmp_path / "own"
    monkeypatch.setenv("NETCL_CACHE_DIR", " ~/own ")
    assert runtime.cache_folder() == home / "own"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETCL_CACHE_DIR", "own")
    assert runtime.cache_folder() == tmp_path / "own"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize("own", ["", "~/own", "~nobody_of_that_name/own"])
def test_without_a_home_there_is_no_cache_and_no_folder_called_tilde(own, monkeypatch, tmp_path):
    """As in a container whose user has no entry in /etc/passwd."""
    import pwd

    def unknown(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETCL_CACHE_DIR", own)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="there is no home folder"):
        runtime.cache_subfolder("programs")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_does_not_exist_is_not_made(home, monkeypatch):
    home.rmdir()
    with pytest.raises(OSError, match="there is no home folder"):
        runtime.cache_subfolder("programs")
    assert not home.exists()


def everybodys(folder):
    folder.mkdir()
    folder.chmod(0o777)


def linked(folder):
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("name", [".", "probes"])
@pytest.mark.parametrize(
    "made", [everybodys, linked, lambda folder: folder.write_text("")], ids=["open", "link", "file"]
)
def test_a_folder_that_is_not_this_users_alone_is_refused(made, name, tmp_path, monkeypatch):
    own = tmp_path / "own"
    monkeypatch.setenv("NETCL_CACHE_DIR", str(own))
    if name != ".":
        own.mkdir()
    made(own if name == "." else own / name)
    with pytest.raises(OSError, match=r"is a symbolic link or not a folder|make it yours|exists|Not a directory"):
        runtime.cache_subfolder("probes")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "own"))
    runtime.cache_subfolder("probes")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="belongs to, or can be written by, somebody else"):
        runtime.cache_subfolder("probes")


def test_that_the_cache_is_not_used_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(runtime, "_reported", [])
    for number in range(3):
        runtime.report_cache(OSError(f"reason {number}"))
    (record,) = caplog.records
    assert "reason 0" in record.message
    assert "NETCL_CACHE_DIR" in record.message


def test_a_scratch_folder_is_gone_afterwards(cache, monkeypatch):
    with runtime.scratch_folder() as folder:
        (folder / "file").write_text("")
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), runtime.scratch_folder() as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_without_any_place_there_is_no_scratch_folder(monkeypatch):
    def full():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setenv("NETCL_CACHE_DIR", os.path.join(os.devnull, "below"))
    monkeypatch.setattr(runtime.tempfile, "gettempdir", full)
    with runtime.scratch_folder() as folder:
        assert folder is None


def test_a_full_disk_is_no_place_for_pocl(cache, unset, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "_reported", [])
    monkeypatch.setenv("POCL_CACHE_DIR", "")
    monkeypatch.setattr(runtime, "installed_libraries", list)
    monkeypatch.setattr(runtime.shutil, "disk_usage", lambda folder: type("", (), {"free": 1000}))
    runtime.register_installed_icds()
    assert os.environ["POCL_CACHE_DIR"] == ""
    assert "has less than" in caplog.text


def test_pocl_keeps_its_kernels_in_netcls_folder_unless_the_user_says_where(cache, unset, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "installed_libraries", list)
    monkeypatch.setenv("POCL_CACHE_DIR", "")
    runtime.register_installed_icds()
    assert os.environ["POCL_CACHE_DIR"] == str(cache / "pocl")
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path / "chosen"))
    runtime.register_installed_icds()
    assert os.environ["POCL_CACHE_DIR"] == str(tmp_path / "chosen")


@pytest.mark.parametrize(("before", "there"), [(None, True), ("0", False), ("1", True)])
def test_pyopencls_own_cache_is_left_out_unless_the_user_decides(before, there, tmp_path):
    code = """
        import os
        before = dict(os.environ)
        import netcl
        netcl.backends.available()
        import pyopencl
        changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
        print(bool(pyopencl._PYOPENCL_NO_CACHE), sorted(changed - {"OCL_ICD_VENDORS", "POCL_CACHE_DIR"}))
    """
    chosen = {} if before is None else {"PYOPENCL_NO_CACHE": before}
    done = run_python(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), **chosen)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{there} []"


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


def test_a_folder_that_was_tampered_with_is_made_good(cache, tmp_path):
    folder = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    icd = folder / "netcl-libone.so.icd"
    for tampered in (lambda: icd.write_bytes(b"/evil.so\n" * 100_000), icd.unlink, lambda: icd.chmod(0o666)):
        tampered()
        again = runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none") / icd.name
        assert (again.read_text(), again.stat().st_mode & 0o777) == (f"{tmp_path / 'libone.so'}\n", 0o600)
    icd.unlink()
    icd.symlink_to(tmp_path / "elsewhere")
    runtime.vendors_folder([tmp_path / "libone.so"], tmp_path / "none")
    assert not icd.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_without_a_writable_cache_runtimes_are_asked_directly(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("NETCL_CACHE_DIR", os.path.join(os.devnull, "below"))
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(runtime, "installed_libraries", lambda: [tmp_path / "libone.so"])
    monkeypatch.setattr(runtime, "_unlisted", [])
    monkeypatch.delitem(sys.modules, "pyopencl")
    monkeypatch.setattr(runtime, "_import_pyopencl", lambda: None)
    runtime.register_installed_icds()
    assert not any(os.environ.get(name) for name in runtime.USER_VARIABLES)
    assert runtime._unlisted == [tmp_path / "libone.so"]


def test_many_processes_may_make_the_folder(cache, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runtime.vendors_folder([tmp_path / "lib.so"], tmp_path / "none"), range(32)))
    assert all((folder / "netcl-lib.so.icd").is_file() for folder in folders)


@pytest.mark.parametrize("name", runtime.USER_VARIABLES)
def test_what_the_user_set_is_left_alone(unset, monkeypatch, name):
    monkeypatch.setenv(name, "chosen")
    monkeypatch.setattr(runtime, "installed_libraries", lambda: pytest.fail("looked for runtimes"))
    before = dict(os.environ)
    runtime.register_installed_icds()
    assert dict(os.environ) == before


def test_nothing_to_add_leaves_the_loader_alone(unset, monkeypatch):
    monkeypatch.setattr(runtime, "installed_libraries", list)
    runtime.register_installed_icds()
    assert not any(name in os.environ for name in runtime.USER_VARIABLES)


def test_a_runtime_that_cannot_be_asked_is_reported_with_cause_and_remedy(unset, monkeypatch, caplog, tmp_path):
    (tmp_path / "libone.so").write_text("no library")
    monkeypatch.setattr(runtime, "_unlisted", [tmp_path / "libone.so"])
    monkeypatch.setattr(selection.cl, "get_platforms", list)
    assert runtime.platforms() == []
    for said in (caplog.text, runtime.unlisted()):
        assert "libone.so" in said
        assert "pyopencl was imported and used before netcl" in said
        assert f"set OCL_ICD_VENDORS={tmp_path / 'libone.so'} in the environment" in said


def test_a_list_that_the_user_made_is_told_from_netcls_own(unset, monkeypatch, cache, tmp_path):
    monkeypatch.setattr(runtime, "installed_libraries", lambda: [tmp_path / "libone.so"])
    monkeypatch.setenv("OCL_ICD_VENDORS", "/mine")
    assert not runtime.is_own("OCL_ICD_VENDORS")
    assert runtime.unlisted() == "OCL_ICD_VENDORS=/mine hides libone.so, which is installed: unset it"
    monkeypatch.setenv("OCL_ICD_VENDORS", f"/mine:{tmp_path / 'libone.so'}")
    assert runtime.unlisted() == ""
    # As a child process has it from its parent.
    monkeypatch.setenv("OCL_ICD_VENDORS", str(runtime.vendors_folder([tmp_path / "libone.so"], tmp_path)))
    assert runtime.is_own("OCL_ICD_VENDORS")


@pytest.mark.parametrize(
    ("platform", "variable"), [("linux", "OCL_ICD_VENDORS"), ("win32", "OCL_ICD_FILENAMES"), ("darwin", None)]
)
def test_each_platform_has_its_variable(unset, monkeypatch, cache, tmp_path, platform, variable):
    monkeypatch.setattr(runtime, "installed_libraries", lambda: [tmp_path / "libone.so"])
    monkeypatch.delitem(sys.modules, "pyopencl")
    monkeypatch.setattr(runtime, "_import_pyopencl", lambda: None)
    monkeypatch.setattr(runtime, "cache_folder", lambda: cache)
    monkeypatch.setattr(sys, "platform", platform)
    for name in runtime.USER_VARIABLES:  # so that what is set here is taken back afterwards
        monkeypatch.setenv(name, "")
    runtime.register_installed_icds()
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
    expected = selection.list_devices()
    monkeypatch.setattr(cl, "get_platforms", lambda: [*platforms, *platforms])
    assert selection.list_devices.__wrapped__() == expected
