"""A child process that runs cases, so that a runtime that crashes or hangs costs one case and not the run."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tests.fuzz.case import Disagreement

Run = Callable[..., None]


@dataclass(frozen=True)
class Failure:
    """What went wrong: a word for its kind, which a smaller case has to show as well, and a sentence."""

    category: str
    message: str


def attempt(run: Run, *arguments: Any) -> Failure | None:
    """Call ``run`` and say what it raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            run(*arguments)
    except Disagreement as error:
        return Failure(error.category, str(error))
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        places = ", ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
        return Failure(type(error).__name__, f"{type(error).__name__}: {error} ({places})")
    return None


def _serve(connection: Connection, run: Run, log: str) -> None:
    with open(log, "w") as file:
        faulthandler.enable(file)
        connection.send(None)
        while (arguments := connection.recv()) is not None:
            connection.send(attempt(run, *arguments))


class Worker:
    """Runs ``run(*arguments)`` in a process that is started again when it has died, and every so many cases.

    Parameters
    ----------
    run : callable
        A function of a module; it raises :class:`Disagreement`, or whatever goes wrong.
    seconds : float
        How long one case may take.
    batch : int
        Cases to a process.
    """

    def __init__(self, run: Run, seconds: float = 120.0, batch: int = 1000) -> None:
        self.seconds = seconds
        self._run, self._batch = run, batch
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._log = tempfile.NamedTemporaryFile("r", prefix="fuzz-", suffix=".log")  # noqa: SIM115 - closed in close()
        self._count = 0

    def run(self, *arguments: Any) -> Failure | None:
        """What went wrong with one case, or None. **Blocks**."""
        if self._process is None:
            self._start()
        self._count += 1
        with suppress(EOFError, OSError):
            self._connection.send(arguments)
            if not self._connection.poll(self.seconds):
                return self._hung()
            answer: Failure | None = self._connection.recv()
            if self._count >= self._batch:
                self.stop()
            return answer
        self._process.join(10)
        status = self._process.exitcode
        how = signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
        self._process = None
        return Failure(f"died with {how}", f"the process ended with {how}; {self._trace()}")

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._run, self._log.name), daemon=True)
        self._process.start()
        theirs.close()
        self._count = 0
        with suppress(EOFError):
            self._connection.recv()  # that it is there; imports do not count as the case's time

    def _hung(self) -> Failure:
        os.kill(self._process.pid, signal.SIGABRT)  # faulthandler writes where it was
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None
        return Failure("hung", f"no answer within {self.seconds:g} s; {self._trace()}")

    def _trace(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if "File" in line]
        return "it was at " + (", ".join(lines[:4]) or "a place that it did not tell")

    def stop(self) -> None:
        """End the process; the next case starts another."""
        if self._process is None:
            return
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
        self._process = None

    def close(self) -> None:
        """End the process for good."""
        self.stop()
        self._log.close()
