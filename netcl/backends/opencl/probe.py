"""Whether a device computes at all, found out in a child process: a broken runtime may abort the process it runs in.

The answer is kept on disk for each device and driver, so a device is tried once, not once per program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass

import numpy as np
import pyopencl as cl

from netcl.backends.base import Span
from netcl.backends.opencl import tuning
from netcl.backends.opencl.runtime import (
    CACHE_VARIABLE,
    POCL_VARIABLE,
    cache_subfolder,
    report_cache,
    scratch_folder,
)
from netcl.child_process import run_python
from netcl.dtypes import float32
from netcl.files import parse_json, read_regular, write_private

TIMEOUT = 60.0
"""Seconds after which a device counts as hanging."""

LARGEST = 1 << 16
"""Bytes of a kept answer that are read at most."""

RETRY = 24 * 3600.0
"""Seconds after which a device that failed is tried again: its cause may have been repaired."""

# The child compares pointers of nothing: it lists the devices as the parent did and takes the one at a position.
_CHILD = """\
from netcl.backends.opencl.probe import try_device
try_device(int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a device works, and if not, why."""

    healthy: bool
    reason: str


def check(cl_device: cl.Device, position: int, *, fresh: bool = False) -> Health:
    """The health of a device. **Blocks** for about a second the first time; afterwards the answer is read from a file.

    Parameters
    ----------
    cl_device : pyopencl.Device
    position : int
        Where it stands in ``netcl.backends.opencl.devices.listing()``, which the child process lists again.
    fresh : bool, default False
        Try it even if the answer is known.
    """
    file = f"{_key(cl_device)}.json"
    known = None if fresh else _read(file)
    if known is None:
        known = _try_in_child(position)
        if known.healthy or known.reason:
            _write(file, known)
    return known


def try_device(position: int) -> None:
    """What the child does: build two kernels, run them, and end with an error unless the result is right."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # an abort is expected and needs no core file
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from netcl.backends.opencl.devices import listing
    from netcl.backends.opencl.flat import FlatCalls

    device = FlatCalls(listing()[position])
    n = 1003
    x, y = (Span(device.alloc(n, float32), 0, n) for _ in range(2))
    host = np.arange(n, dtype=np.float32)
    device.upload(host, x)
    device.fill(y, 1.0)
    device.axpy(2.0, x, y)
    if not np.array_equal(device.download(y), 2.0 * host + 1.0):
        sys.exit("wrong results: 2 * x + 1 was computed incorrectly")


def _try_in_child(position: int) -> Health:
    environment = os.environ | {tuning.VARIABLE: "none"}  # a mistake in the user's table is none of the device
    with scratch_folder() as folder:
        if folder is not None:
            # Empty kernel caches, for a kernel that is found there does not show that one can be built.
            environment |= {POCL_VARIABLE: str(folder / "pocl"), CACHE_VARIABLE: str(folder)}
        done = run_python(_CHILD, str(position), timeout=TIMEOUT, environment=environment)
    if not done.failure:
        return Health(True, "a trial kernel gave the right result")
    if not done.started:
        return Health(True, f"not tried: {done.failure}")
    said = [line.strip() for line in done.errors.splitlines() if line.strip()]
    how = "failed" if done.status is not None and done.status > 0 else done.failure
    return Health(False, f"a trial kernel {how}{': ' if said else ''}{_telling(said)}")


def _telling(said: list[str]) -> str:
    """The lines of an error output that say most: those that speak of an error, else the last one."""
    errors = [line for line in said if line.lower().startswith(("error", "fatal"))]
    return "; ".join((errors or said[-1:])[:2])


def _key(cl_device: cl.Device) -> str:
    platform = cl_device.platform
    # PoCL links with the system's linker, so whether it works also depends on the search path.
    parts = (platform.name, platform.version, cl_device.driver_version, cl_device.name, str(shutil.which("ld")))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _read(name: str) -> Health | None:
    try:
        content = read_regular(cache_subfolder("probes") / name, LARGEST, private=True)
        entry = parse_json(content)
        health = Health(bool(entry["healthy"]), str(entry["reason"]))
        if health.healthy or 0 <= time.time() - float(entry["time"]) < RETRY:
            return health
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(name: str, health: Health) -> None:
    text = json.dumps({"healthy": health.healthy, "reason": health.reason, "time": time.time()})
    try:
        write_private(cache_subfolder("probes") / name, text.encode())
    except OSError as error:
        report_cache(error)
