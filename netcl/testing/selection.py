"""Which backends tests run on: every one at hand, or the one that ``--netcl-backend=NAME`` names.

A pytest plug-in, for an option must be known before the tests that have it are found.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import Any

PLATFORMS = {"intel": "opencl-intel", "portable computing": "opencl-pocl"}


def pytest_addoption(parser: Any) -> None:
    """Add ``--netcl-backend``, unless that has been done."""
    with contextlib.suppress(ValueError):
        parser.addoption(
            "--netcl-backend", metavar="NAME", help="run on this backend alone, such as opencl:gpu or a plug-in's name"
        )


def configure() -> None:
    """What every run of the tests has: no measured tuning table, and few examples that are always the same."""
    import hypothesis

    os.environ["NETCL_TUNING"] = "none"  # what somebody measured on this machine is not what is tested
    hypothesis.settings.register_profile(
        "netcl", deadline=None, max_examples=15, derandomize=True, database=None, print_blob=False
    )
    hypothesis.settings.load_profile("netcl")


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


def own_backends(config: Any) -> dict[str, str]:
    """What ``get_backend`` is asked for, by readable name: NumPy and each OpenCL CPU runtime, or what is named."""
    chosen = config.getoption("--netcl-backend", None)
    if chosen:
        return {chosen: opencl_runtimes().get(chosen, chosen) if chosen.startswith("opencl-") else chosen}
    return {"numpy": "numpy", **opencl_runtimes()}


def every_backend(config: Any) -> dict[str, str]:
    """The same, and the backends of other libraries and packages."""
    from netcl.backends import available

    names = own_backends(config)
    if config.getoption("--netcl-backend", None):
        return names
    return {**names, **{name: name for name in available() if name not in ("numpy", "opencl")}}
