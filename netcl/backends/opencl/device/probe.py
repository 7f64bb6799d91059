"""What a device gets right, found out in child processes: a broken runtime may abort or hang the process it runs in.

Everything is tried twice: with empty kernel caches, and then with what the first time has left in them, for a runtime
may spoil what it reads back. Two kernels are tried before a device is listed, and every kernel family on a class of
dtypes before the first kernel for such dtypes is built: a program waits for what it needs. The answer is kept on disk
for each driver, processor and version of netcl, so a device is tried once, not once per program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyopencl as cl

from netcl.backends.opencl.device import processor, program, tuning_table
from netcl.backends.opencl.device.defects import CLASSES, Defect, Defects, dtype_class
from netcl.backends.opencl.device.icd import (
    CACHE_VARIABLE,
    POCL_VARIABLE,
    cache_subfolder,
    report_cache,
    scratch_folder,
)
from netcl.backends.opencl.device.probe_cases import BASE, MARK, PATIENCE, PLAIN, Case, cases
from netcl.child_process import Outcome, run_python
from netcl.dtypes import BY_NAME
from netcl.files import parse_json, read_regular, write_private
from netcl.version import __version__

FOLDER = "probes"

RETRY = 24 * 3600.0
"""Seconds after which what failed is tried again: its cause may have been repaired."""

LONGEST = 300.0
"""Seconds after which a child is ended that does not end a hanging trial itself."""

DEATHS = 5
"""Trials that may end their process; then the rest counts as failed too."""

LARGEST = 1 << 20
"""Bytes of the largest answer that is read."""

WORKERS = min(4, os.cpu_count() or 1)
"""Children at a time."""

EVERY_CLASS = frozenset(CLASSES)

UNTRIED = Defects(tried=frozenset())
"""What is known of a device before any class of dtypes was tried."""

# The child lists the devices as the parent did and takes the one at a position, for pointers mean nothing to it.
_CHILD = "from netcl.backends.opencl.probe_child import main; main(sys.argv[1])"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a device works, and what is known of it.

    Attributes
    ----------
    healthy : bool
        Whether it is right about the two kernels that everything stands on.
    reason : str
        How that is known, or why it does not work.
    defects : Defects
        What else it gets wrong, as far as that was tried.
    since : float
        When the oldest of it was found out, in seconds since 1970.
    """

    healthy: bool
    reason: str
    defects: Defects = UNTRIED
    since: float = field(default_factory=lambda: time.time(), compare=False)


class NotTriedError(Exception):
    """No child process could be started."""


def check(
    cl_device: cl.Device,
    position: int,
    *,
    fresh: bool = False,
    kinds: Collection[str] = (),
    known: Health | None = None,
) -> Health:
    """The health of a device. **Blocks** the first time, for some seconds if classes are named; later it reads a file.

    Parameters
    ----------
    cl_device : pyopencl.Device
    position : int
        Where it stands in ``selection.list_devices()``, which the child processes list again.
    fresh : bool, default False
        Try it, on every class, even if the answer is known.
    kinds : collection of str, optional
        Classes of dtypes on which every kernel family is tried, if the device works at all and there is a place to keep
        the answer.
    known : Health, optional
        What this process knows of it.
    """
    file = f"{_key(cl_device)}.json"
    wanted = EVERY_CLASS if fresh else frozenset(kinds)
    # A simulator is too slow, and without a place for the answer every process would have to wait for all the trials:
    # there only what everything stands on is tried.
    if _is_simulator(cl_device) or (wanted and not fresh and not _can_keep()):
        base = _check(file, position, known, frozenset(), fresh=fresh)
        return replace(base, defects=replace(base.defects, tried=EVERY_CLASS)) if wanted else base
    return _check(file, position, known, wanted, fresh=fresh)


def _check(file: str, position: int, known: Health | None, wanted: frozenset[str], *, fresh: bool) -> Health:
    def look() -> Health | None:
        return None if fresh else _read(file) or known

    def suffices(found: Health | None) -> bool:
        return found is not None and (not found.healthy or wanted <= found.defects.tried)

    found = look()
    if not suffices(found):
        with _one_at_a_time() if wanted else contextlib.nullcontext():
            found = look()
            if not suffices(found):
                try:
                    found = _try(position, found, wanted)
                except NotTriedError as error:
                    return Health(True, f"not tried: {error}", Defects())
                _write(file, found)
    assert found is not None
    return found


def _is_simulator(cl_device: cl.Device) -> bool:
    return "oclgrind" in cl_device.platform.name.lower()


def _can_keep() -> bool:
    """Whether there is a place to keep an answer."""
    try:
        return os.access(cache_subfolder(FOLDER), os.W_OK)
    except OSError:
        return False


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let processes that start together wait for the first one's answer, where the system has such locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(cache_subfolder(FOLDER), os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # ends with its process
        yield


def _try(position: int, known: Health | None, wanted: frozenset[str]) -> Health:
    """What is ``known`` of a device, if anything, and what it does on further classes of dtypes."""
    environment = os.environ | {tuning_table.VARIABLE: "none"}  # a mistake in the user's table is none of the device
    with scratch_folder() as folder:
        if folder is not None:
            # Empty kernel caches, for a kernel that is found there does not show that one can be built.
            environment |= {POCL_VARIABLE: str(folder / "pocl"), CACHE_VARIABLE: str(folder)}
        trials = _Trials(position, environment)
        if known is None:
            failed = trials.attempt(BASE) or trials.attempt(BASE)
            for case in BASE:
                if case in failed:
                    return Health(False, f"a trial kernel {failed[case]}")
            known = Health(True, "trial kernels gave the right results")
        wanted -= known.defects.tried
        if not wanted:
            return known
        failed = trials.twice([case for case in cases() if dtype_class(BY_NAME[case.dtype]) in wanted])
        plain = [case._replace(plain=True) for case in failed if case.family in PLAIN]
        still_failed = trials.twice(plain)
    found = dict(known.defects.found)
    for case, reason in failed.items():
        key = (case.family, dtype_class(BY_NAME[case.dtype]))
        other = case._replace(plain=True)
        works = other in plain and other not in still_failed
        if key not in found or not works:
            found[key] = Defect(reason, works)
    defects = Defects(found, known.defects.tried | wanted)
    on = "" if defects.tried == EVERY_CLASS else f" on {', '.join(kind for kind in CLASSES if kind in defects.tried)}"
    but = f", but {defects}" if defects else ""
    return Health(True, f"trial kernels of every family gave the right results{on}{but}", defects, known.since)


class _Trials:
    """Runs trials of one device in child processes that share kernel caches, which are empty at first."""

    def __init__(self, position: int, environment: Mapping[str, str]) -> None:
        self.position = position
        self.environment = environment

    def twice(self, cases: Sequence[Case]) -> dict[Case, str]:
        """How trials failed, with cold or with warm caches."""
        failed = self.at_once(cases)
        again = self.attempt([case for case in cases if case not in failed])  # quick, so by one child
        return failed | {case: f"{reason}, in a process that met warm caches" for case, reason in again.items()}

    def at_once(self, cases: Sequence[Case]) -> dict[Case, str]:
        """How trials failed, run by several children."""
        shares = [share for share in (cases[start::WORKERS] for start in range(WORKERS)) if share]
        failed: dict[Case, str] = {}
        with ThreadPoolExecutor(WORKERS) as threads:
            for found in threads.map(self.attempt, shares):
                failed |= found
        return failed

    def attempt(self, cases: Sequence[Case]) -> dict[Case, str]:
        """How trials failed; where one ends its process, another goes on behind it.

        Raises
        ------
        NotTriedError
        """
        failed: dict[Case, str] = {}
        deaths = 0
        while cases:
            outcome, ends = self._child(cases)
            for number, (end, said) in ends.items():
                if end == "failed":
                    failed[cases[number]] = f"failed: {said}"
            begun = max(ends, default=0)
            if not ends or ends[begun][0] == "begun":
                failed[cases[begun]] = _fate(outcome)
                deaths += 1
            cases = cases[begun + 1 :]
            if deaths >= DEATHS:
                failed |= dict.fromkeys(cases, f"was not tried after {deaths} that ended their process")
                break
        return failed

    def _child(self, cases: Sequence[Case]) -> tuple[Outcome, dict[int, tuple[str, str]]]:
        """How a child ended, and what it last said of each trial."""
        request = json.dumps([self.position, cases])
        outcome = run_python(_CHILD, request, timeout=LONGEST, environment=self.environment)
        if not outcome.started:
            raise NotTriedError(outcome.failure)
        ends: dict[int, tuple[str, str]] = {}
        for line in outcome.output.splitlines():  # among whatever the runtime has to say
            if line.startswith(MARK):
                number, end, said = json.loads(line.removeprefix(MARK))
                ends[number] = (end, said)
        return outcome, ends


def _fate(outcome: Outcome) -> str:
    """What became of a child, with the lines of its error output that say most."""
    if "Timeout (" in outcome.errors:  # faulthandler's
        return f"did not finish within {PATIENCE:.0f} s"
    said = [line.strip() for line in outcome.errors.splitlines() if line.strip()]
    errors = [line for line in said if line.lower().startswith(("error", "fatal"))]
    telling = "; ".join((errors or said[-1:])[:2])
    return f"{outcome.failure or 'ended early'}{': ' if telling else ''}{telling}"


def _key(cl_device: cl.Device) -> str:
    platform = cl_device.platform
    # PoCL links with the system's linker, so whether it works also depends on the search path.
    parts = [platform.name, platform.version, cl_device.driver_version, cl_device.name, str(shutil.which("ld"))]
    parts += [processor.model(), " ".join(sorted(processor.instruction_set())), __version__, program.fingerprint()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _read(name: str) -> Health | None:
    """The answer on disk."""
    try:
        entry = parse_json(read_regular(cache_subfolder(FOLDER) / name, LARGEST, private=True))
        found = {(str(f), str(k)): Defect(str(reason), bool(plain)) for f, k, plain, reason in entry["defects"]}
        defects = Defects(found, EVERY_CLASS.intersection(map(str, entry["tried"])))
        health = Health(bool(entry["healthy"]), str(entry["reason"]), defects, float(entry["since"]))
        if (health.healthy and not found) or 0 <= time.time() - health.since < RETRY:
            return health
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(name: str, health: Health) -> None:
    found, tried = health.defects.found, sorted(health.defects.tried)
    entry: dict[str, Any] = {"healthy": health.healthy, "reason": health.reason, "tried": tried, "since": health.since}
    entry["defects"] = [[*key, defect.plain, defect.reason] for key, defect in found.items()]
    try:
        write_private(cache_subfolder(FOLDER) / name, json.dumps(entry).encode())
    except OSError as error:
        report_cache(error)
