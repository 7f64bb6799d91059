"""Python in a process of its own, for a broken OpenCL runtime may take down the process that uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The parent's search path is taken over after everything that this line itself needs has been imported.
_START = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1))\n"

_NOT_STARTED = "no child process could be started"

_MODULE = "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child process ended.

    Attributes
    ----------
    status : int or None
        Its exit status, negative for a signal; None if it did not start or did not finish in time.
    output, errors : str
        What it wrote.
    failure : str
        Empty for status 0; else how it ended, such as ``"ended its process with SIGABRT"``.
    started : bool
        False if there was no child, which says nothing about what it was to do.
    """

    status: int | None
    output: str = ""
    errors: str = ""
    failure: str = ""
    started: bool = True


def run_python(code: str, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run ``code`` with ``arguments`` in ``sys.argv[1:]``. **Blocks** up to ``timeout`` seconds; never raises.

    The child finds what this process can import, but nothing in the working directory: a ``json.py`` there, a common
    accident, must not run. Nor does a module of the standard library come from elsewhere.

    Parameters
    ----------
    code : str
    *arguments : str
    timeout : float
        Seconds.
    environment : mapping of str, optional
        In place of this process's own. What it says of the working directory in ``PYTHONPATH`` is left out.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return Outcome(None, failure=f"{_NOT_STARTED} (this Python cannot start another)", started=False)
    command = [sys.executable, "-P", "-c", _START + code, json.dumps(_search_path()), *arguments]
    try:
        done = subprocess.run(
            command,
            env=_without_working_folder(os.environ if environment is None else environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, failure=f"did not finish within {timeout:.0f} s")
    except (OSError, ValueError) as error:  # the latter for a null character in an argument
        return Outcome(None, failure=f"{_NOT_STARTED} ({error})", started=False)
    output, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Outcome(done.returncode, output, errors, _ending(done.returncode))


def run_module(module: str, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """As :func:`run_python`, of a module as ``python -m`` runs it."""
    # Its name is an argument of its own, so that a list of processes shows what runs.
    return run_python(_MODULE, module, *arguments, timeout=timeout, environment=environment)


def _search_path() -> Sequence[str]:
    """This process's search path: the standard library first, and without the working directory."""
    library = os.path.dirname(os.__file__)
    installed = {os.path.realpath(folder) for folder in (library, *site.getsitepackages())}
    kept = [str(e) for e in sys.path if not _is_working_folder(str(e)) or os.path.realpath(e) in installed]
    own = str(Path(__file__).resolve().parents[1])
    if (
        _is_working_folder(own) and own not in installed
    ):  # netcl itself comes from there; last, so that it hides nothing
        kept.append(own)
    return sorted(kept, key=lambda entry: entry not in (library, os.path.join(library, "lib-dynload")))


def _is_working_folder(entry: str) -> bool:
    """Whether an entry of a search path means the folder that the process works in, or something in it."""
    if not os.path.isabs(entry):
        return not entry or os.path.exists(entry)  # what names no file is an import hook's
    try:
        return os.path.realpath(entry) == os.path.realpath(os.curdir)
    except OSError:  # the folder is gone
        return False


def _without_working_folder(environment: Mapping[str, str]) -> dict[str, str]:
    kept = dict(environment)
    entries = [
        e for e in kept.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(e) and not _is_working_folder(e)
    ]
    return kept | {"PYTHONPATH": os.pathsep.join(entries)} if entries else kept


def _ending(status: int) -> str:
    if status == 0:
        return ""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"ended its process with {signal.Signals(-status).name}"
    return f"ended with status {status}"
