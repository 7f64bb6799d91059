"""The ``backend`` fixture: every backend at hand, or the one that ``--netcl-backend=NAME`` names."""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

import hypothesis
import pytest

os.environ["NETCL_TUNING"] = "none"  # what somebody measured on this machine is not what is tested

CONTRACT = Path(__file__).parent / "contract"
PLATFORMS = {"intel": "opencl-intel", "portable computing": "opencl-pocl"}

hypothesis.settings.register_profile(
    "netcl", deadline=None, max_examples=15, derandomize=True, database=None, print_blob=False
)
hypothesis.settings.load_profile("netcl")


def pytest_addoption(parser):
    parser.addoption(
        "--netcl-backend", metavar="NAME", help="run on this backend alone, such as opencl:gpu or a plug-in's name"
    )


def pytest_configure(config):
    # A package that registers backends, as importlib.metadata finds an installed one.
    sys.path.insert(0, str(CONTRACT / "plugin"))


@cache
def opencl_runtimes() -> dict[str, str]:
    """The first device of each OpenCL CPU runtime that works, by readable name. Oclgrind is too slow to be one."""
    from netcl.backends import devices

    found: dict[str, str] = {}
    for row in devices():
        device, platform = row.device, row.device.platform.lower()
        if device.backend == "opencl" and device.kind == "cpu" and row.healthy and platform != "oclgrind":
            known = [name for start, name in PLATFORMS.items() if platform.startswith(start)]
            found.setdefault(known[0] if known else f"opencl-{platform}", str(device))
    return found


def backends(config) -> dict[str, str]:
    """What ``get_backend`` is asked for, by readable name."""
    chosen = config.getoption("--netcl-backend")
    if chosen:
        return {chosen: opencl_runtimes().get(chosen, chosen) if chosen.startswith("opencl-") else chosen}
    return {"numpy": "numpy", **opencl_runtimes()}


def plugins(config) -> dict[str, str]:
    """The backends of the plug-in, for the contract suite."""
    if config.getoption("--netcl-backend"):
        return {}
    torch = {"torch": "torch"} if importlib.util.find_spec("torch") else {}
    return {**torch, "toy": "toy"}


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = backends(metafunc.config)
        if metafunc.definition.path.is_relative_to(CONTRACT):
            names = {**names, **plugins(metafunc.config)}
        metafunc.parametrize("backend", list(names.values()), ids=list(names), indirect=True, scope="session")


def pytest_report_header(config):
    return f"netcl backends: {', '.join(f'{name} ({where})' for name, where in backends(config).items())}"


@pytest.fixture(scope="session")
def backend(request):
    from netcl.backends import get_backend

    return get_backend(request.param)
