"""Which backends tests run on: every one at hand, or the one that ``--netcl-backend=NAME`` names.

OpenCL compiles a kernel for each dtype and each combination of options. So OpenCL runtimes leave out rows whose kernels
others of their rows have too (``pytest.mark.compiled``), and get pairs of options in place of all combinations. Where
several of them are at hand, those behind the first get the short table (``pytest.mark.short``), which has every kernel
family on every class of dtypes. ``--netcl-full`` gives everything to every runtime.

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
        parser.addoption("--netcl-full", action="store_true", help="every row of every table on every OpenCL runtime")


def configure(config: Any) -> None:
    """What every run of the tests has: no measured tuning table, and few examples that are always the same."""
    import hypothesis

    for name, which in (("compiled", "OpenCL runtimes"), ("short", "the OpenCL runtimes behind the first")):
        config.addinivalue_line("markers", f"{name}(NAME=values, rows=predicate): the rows that {which} run")
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
    names = own_backends(config)
    if config.getoption("--netcl-backend", None):
        return names
    return {**names, **{name: name for name in _plug_ins()}}


@cache
def _plug_ins() -> tuple[str, ...]:
    """Backends of other packages. Found once: their entry points are read anew each time somebody asks."""
    from netcl.backends import available

    return tuple([name for name in available() if name not in ("numpy", "opencl")])


def shortened(config: Any) -> dict[str, tuple[str, ...]]:
    """The marks by which a backend leaves out rows, by what ``get_backend`` is asked for."""
    if config.getoption("--netcl-backend", None) or config.getoption("--netcl-full", None):
        return {}
    first, *further = opencl_runtimes().values() or [""]
    return {first: ("compiled",), **dict.fromkeys(further, ("compiled", "short"))}


def marks_of(config: Any, row: Any) -> tuple[str, ...]:
    """The marks by which the backend of a test's parameters leaves out rows."""
    return shortened(config).get(str(row.get("backend", row.get("opencl"))), ())


def in_short(config: Any, backend: Any) -> bool:
    """Whether a backend is one of those that run the short table."""
    return "short" in shortened(config).get(str(backend.device), ())


def every_row(config: Any, backend: Any) -> bool:
    """Whether a test tries all combinations on a backend: where each would be a kernel to build, pairs do instead."""
    wanted = config.getoption("--netcl-backend", None) or config.getoption("--netcl-full", None)
    return bool(wanted) or backend.device.backend != "opencl"


def deselect_rows(config: Any, items: list[Any]) -> None:
    """Take out what the marks ``compiled`` and ``short`` do not name of what OpenCL runtimes run.

    A mark gives values of a parameter, or as ``rows`` a function that says of all parameters whether they are run.
    """

    def runs(item: Any) -> bool:
        row = item.callspec.params if hasattr(item, "callspec") else {}
        kinds = marks_of(config, row)
        named = [pair for kind in kinds for mark in item.iter_markers(kind) for pair in mark.kwargs.items()]
        return all(rows(row) if name == "rows" else row[name] in rows for name, rows in named)

    left_out = [item for item in items if not runs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if runs(item)]
