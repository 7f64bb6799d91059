"""Python in a process of its own, for a broken OpenCL runtime may take down the process that uses it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The parent's search path is taken over after everything that this line itself needs has been imported.
_START = "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "


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
    """

    status: int | None
    output: str = ""
    errors: str = ""
    failure: str = ""


def run_python(code: str, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run ``code`` with ``arguments`` in ``sys.argv[1:]``. **Blocks** up to ``timeout`` seconds; never raises.

    The child finds what this process can import, but nothing in the working directory: a ``json.py`` there, a common
    accident, must not run.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return Outcome(None, failure="no child process could be started (this Python cannot start another)")
    command = [sys.executable, "-P", "-c", _START + code, json.dumps(_search_path()), *arguments]
    try:
        done = subprocess.run(
            command,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None, failure=f"did not finish within {timeout:.0f} s")
    except OSError as error:
        return Outcome(None, failure=f"no child process could be started ({error})")
    output, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Outcome(done.returncode, output, errors, _ending(done.returncode))


def run_module(module: str, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """As :func:`run_python`, of a module as ``python -m`` runs it."""
    code = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return run_python(code, *arguments, timeout=timeout, environment=environment)


def _search_path() -> Sequence[str]:
    """This process's search path without the working directory, unless netcl itself comes from there."""
    own = str(Path(__file__).resolve().parents[1])
    here = os.path.realpath(os.curdir)
    kept = [str(entry) for entry in sys.path if entry and os.path.realpath(entry) != here]
    return kept if own != here else [*kept, own]  # last, so that it hides nothing


def _ending(status: int) -> str:
    if status == 0:
        return ""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"ended its process with {signal.Signals(-status).name}"
    return f"ended with status {status}"
