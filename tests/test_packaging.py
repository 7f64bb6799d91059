"""What an installed netcl consists of, and what importing it costs."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import netcl

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]

LINUX = {"platform_system": "Linux", "platform_machine": "x86_64", "sys_platform": "linux"}
ARM = {"platform_system": "Linux", "platform_machine": "aarch64", "sys_platform": "linux"}
MAC = {"platform_system": "Darwin", "platform_machine": "arm64", "sys_platform": "darwin"}
WINDOWS = {"platform_system": "Windows", "platform_machine": "AMD64", "sys_platform": "win32"}

OPENCL = {"pyopencl", "platformdirs"}


def resolve(extra: str, platform: dict[str, str]) -> set[str]:
    """The distributions that ``netcl[extra]`` names on a platform."""
    names: set[str] = set()
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate(platform):
            continue
        if requirement.name == "netcl":
            names.update(*(resolve(other, platform) for other in requirement.extras))
        else:
            names.add(requirement.name)
    return names


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_that_is_not_needed():
    heavy = "pyopencl torch matplotlib tqdm mpi4py scipy PIL"
    loaded = run_python(f"import sys, netcl; print([name for name in {heavy.split()!r} if name in sys.modules])")
    assert loaded == "[]"


def test_numpy_backend_works_where_pyopencl_is_missing():
    said = run_python(
        "import sys; sys.modules['pyopencl'] = None\n"
        "import netcl\n"
        "with netcl.use_backend('numpy'):\n"
        "    print(float(netcl.sum(netcl.asarray([1.0, 2.0]))))\n"
        "try:\n"
        "    netcl.asarray([1.0], backend='opencl')\n"
        "except netcl.errors.BackendError as error:\n"
        "    print(error)\n"
    )
    assert said.startswith("3.0\n")
    assert "pip install" in said
    assert "netcl[" in said


def test_every_package_is_listed():
    found = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("netcl/**/__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"netcl.kernels"}


def test_every_data_file_is_shipped():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for folder, package in ((ROOT / "netcl/data", "netcl.data"), (ROOT / "kernels", "netcl.kernels")):
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns[package]), f"{name} is not shipped"
    assert (ROOT / "netcl/py.typed").is_file()


def test_shipped_data_stays_small():
    assert sum(path.stat().st_size for path in (ROOT / "netcl/data/fashion_mnist").iterdir()) <= 4_000_000
    assert "MIT" in resources.files("netcl.data").joinpath("fashion_mnist/LICENSE").read_text(encoding="utf-8")


def test_versions_agree():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", netcl.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == ("Unreleased" if ".dev" in netcl.__version__ else netcl.__version__)


def test_core_dependencies_are_two():
    assert {Requirement(line).name for line in PROJECT["project"]["dependencies"]} == {"numpy", "array-api-compat"}


@pytest.mark.parametrize(
    ("extra", "platform", "expected"),
    [
        ("opencl", MAC, OPENCL),
        ("cpu", LINUX, {*OPENCL, "intel-opencl-rt", "intel-cmplr-lib-rt"}),
        ("cpu", WINDOWS, {*OPENCL, "intel-opencl-rt", "intel-cmplr-lib-rt"}),
        ("cpu", ARM, OPENCL),
        ("cpu", MAC, OPENCL),
        ("pocl", LINUX, {*OPENCL, "pocl-binary-distribution"}),
        ("pocl", ARM, OPENCL),
        ("pocl", WINDOWS, OPENCL),
    ],
)
def test_extras_ask_for_what_the_platform_has(extra, platform, expected):
    assert resolve(extra, platform) == expected


@pytest.mark.parametrize("platform", [LINUX, ARM, MAC, WINDOWS])
def test_extra_all_is_the_sum_of_the_others(platform):
    assert resolve("all", platform) == set().union(*(resolve(extra, platform) for extra in EXTRAS))


def test_torch_is_asked_for_by_parity_alone():
    for extra in set(EXTRAS) - {"parity", "all"}:
        assert "torch" not in resolve(extra, LINUX)
