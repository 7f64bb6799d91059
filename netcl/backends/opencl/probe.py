"""Whether a device computes at all, found out in a child process: a broken runtime may abort the process it runs in.

The answer is kept on disk for each device and driver, so a device is tried once, not once per program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyopencl as cl

from netcl.backends.base import Span
from netcl.backends.opencl import tuning
from netcl.backends.opencl.runtime import CACHE_VARIABLE, cache_folder
from netcl.dtypes import float32

TIMEOUT = 60.0
"""Seconds after which a device counts as hanging."""

RETRY = 24 * 3600.0
"""Seconds after which a device that failed is tried again: its cause may have been repaired."""

# The child compares pointers of nothing: it lists the devices as the parent did and takes the one at a position.
_CHILD = """\
import json, sys
position, path = json.loads(sys.argv[1])
sys.path[:] = path
from netcl.backends.opencl.probe import try_device
try_device(position)
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
    file = cache_folder() / "probes" / f"{_key(cl_device)}.json"
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
    if not sys.executable or getattr(sys, "frozen", False):
        return Health(True, "not tried: this Python cannot start another")
    with tempfile.TemporaryDirectory(prefix="netcl-probe-") as folder:
        # Empty kernel caches, for a kernel that is found there does not show that one can be built; and no table of the
        # user's, for a mistake in it does not show that the device is broken.
        environment = os.environ | {"POCL_CACHE_DIR": folder, CACHE_VARIABLE: folder, tuning.VARIABLE: "none"}
        command = [sys.executable, "-c", _CHILD, json.dumps([position, [str(entry) for entry in sys.path]])]
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return Health(False, f"a trial kernel did not finish within {TIMEOUT:.0f} s")
        except OSError as error:
            return Health(True, f"not tried: no child process could be started ({error})")
    if done.returncode == 0:
        return Health(True, "a trial kernel gave the right result")
    said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return Health(False, f"a trial kernel {_ending(done.returncode)}{': ' if said else ''}{_telling(said)}")


def _ending(returncode: int) -> str:
    if returncode < 0:
        with contextlib.suppress(ValueError):
            return f"ended its process with {signal.Signals(-returncode).name}"
    return "failed"


def _telling(said: list[str]) -> str:
    """The lines of an error output that say most: those that speak of an error, else the last one."""
    errors = [line for line in said if line.lower().startswith(("error", "fatal"))]
    return "; ".join((errors or said[-1:])[:2])


def _key(cl_device: cl.Device) -> str:
    platform = cl_device.platform
    # PoCL links with the system's linker, so whether it works also depends on the search path.
    parts = (platform.name, platform.version, cl_device.driver_version, cl_device.name, str(shutil.which("ld")))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _read(file: Path) -> Health | None:
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        health = Health(bool(entry["healthy"]), str(entry["reason"]))
        if health.healthy or time.time() - float(entry["time"]) < RETRY:
            return health
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(file: Path, health: Health) -> None:
    text = json.dumps({"healthy": health.healthy, "reason": health.reason, "time": time.time()})
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, file)
