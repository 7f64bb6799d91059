"""Sides of a comparison, each in a process of its own, that take turns.

A library's threads go on spinning when their work is done, torch's for up to 0.2 s. In one process, on few cores, they
would take a core from whatever is measured next. Here each side has a process, and while one is measured the others
wait for a line from a pipe. A side answers only when its own threads have gone to sleep, and says what processor time
it took while it should have been idle.

Imports nothing but NumPy, so that a side's process holds only what the side itself imports.
"""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent

STEPS = 10
"""Steps between two waits, on every side of a comparison: netcl only enqueues them, as in training."""

SAMPLE = 50e-3
"""Seconds that one sample takes at least; shorter work is repeated."""

LONGEST = 300.0
"""Seconds after which a side that does not answer is ended."""

QUIET = 20e-3
"""A side is idle when, for so many seconds, it takes next to no processor time."""


@dataclass(frozen=True)
class Method:
    """How often is measured.

    Attributes
    ----------
    rounds : int
        Samples of each side in one process.
    processes : int
        Of each side, one after the other: where a process's memory lies changes what it takes.
    warm : float
        Seconds for which a side runs before its first sample.
    fresh : bool
        Whether each row begins with new processes; without, they are kept from row to row, which saves their starts.
    """

    rounds: int = 5
    processes: int = 3
    warm: float = 0.3
    fresh: bool = True


QUICK = Method(rounds=2, processes=1, warm=0.0, fresh=False)
"""Does it run: for the figures, it is too little."""


@dataclass(frozen=True)
class Side:
    """What a process measures: ``run`` takes so many steps and waits for them.

    ``result`` gives what all sides of a comparison must agree on after as many steps.
    """

    run: Callable[[int], Any]
    result: Callable[[], Sequence[np.ndarray]] | None = None
    steps: int = STEPS


Build = Callable[[], Side]
"""Makes a side in its process. Sent by name, so it is a function of a module, or a partial one, and not of a script."""


class SideError(RuntimeError):
    """A side's process ended before it answered; ``side`` names it."""

    def __init__(self, side: str, status: int) -> None:
        super().__init__(f"{side}: its process ended with status {status}; what it said is above")
        self.side = side


class Meter:
    """In a side's process: the side, and how it is measured."""

    def __init__(self) -> None:
        self.side = Side(lambda steps: None)
        self.repeats = 1
        self.answered = time.process_time()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def build(self, build: Build) -> None:
        """Make a side, in place of the one before, whose memory is given back first."""
        self.side = Side(lambda steps: None)
        gc.enable()
        gc.collect()
        self.side = build()

    def result(self) -> list[np.ndarray] | None:
        """What the side computes in its first steps; ``None`` if it has nothing to show."""
        if self.side.result is None:
            return None
        self.side.run(self.side.steps)
        return [np.asarray(array) for array in self.side.result()]

    def warm(self, seconds: float) -> None:
        """Run until kernels are built and threads started, and find how many runs make a sample."""
        self.side.run(1)
        best, begun = SAMPLE, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            self.side.run(self.side.steps)
            best = min(best, time.perf_counter() - started)
        self.repeats = math.ceil(SAMPLE / best)
        gc.collect()
        gc.disable()
        self._settle()

    def sample(self) -> tuple[float, float]:
        """Seconds per step; and the processor's seconds that this process took since its last answer."""
        while_idle = time.process_time() - self.answered
        # The caches hold another side's data, and the threads sleep.
        for _ in range(self.repeats):
            self.side.run(1)
        started = time.perf_counter()
        for _ in range(self.repeats):
            self.side.run(self.side.steps)
        seconds = (time.perf_counter() - started) / (self.repeats * self.side.steps)
        self._settle()
        return seconds, while_idle

    def _settle(self) -> None:
        """Wait until the threads of this process sleep."""
        for _ in range(200):
            before = time.process_time()
            time.sleep(QUIET)
            if time.process_time() - before < QUIET / 20:
                break
        else:
            raise RuntimeError("this side's threads go on taking processor time when nothing is asked of them")
        self.answered = time.process_time()


def serve() -> None:
    """Answer what the process that started this one asks, until it hangs up."""
    # What libraries print must not come between the answers.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    meter = Meter()
    while True:
        try:
            name, arguments = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(getattr(meter, name)(*arguments), answers)
        answers.flush()


# The search path comes first; this package is then taken from its file, for asv does not have it on its path.
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("benchmarks", sys.argv[2], submodule_search_locations=[sys.argv[3]])
sys.modules["benchmarks"] = module_from_spec(spec)
from benchmarks.sides import serve
serve()
"""


class Worker:
    """A process that measures a side. Each request must be answered before the next one.

    Parameters
    ----------
    name : str
        For messages.
    environment : mapping, optional
        What its environment variables have beside this process's.
    """

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        # Without the folder of a script: its files' names are no modules of the program's.
        path = [entry for entry in map(str, sys.path) if entry and Path(entry).resolve() != HERE]
        files = (str(HERE / "__init__.py"), str(HERE))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, json.dumps(path), *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | dict(environment or {}),
        )

    def close(self, *, wait: bool = True) -> None:
        """End the process; by itself if there is time for that."""
        if wait:
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=30)
        self._process.kill()
        self._process.communicate()

    def send(self, request: str, *arguments: Any) -> None:
        """Ask for a method of :class:`Meter`."""
        try:
            pickle.dump((request, arguments), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> Any:
        # A runtime may hang, not only crash.
        alarm = threading.Timer(LONGEST, self._process.kill)
        alarm.start()
        try:
            return pickle.load(self._process.stdout)
        except EOFError:
            raise self._ended() from None
        finally:
            alarm.cancel()

    def ask(self, request: str, *arguments: Any) -> Any:
        self.send(request, *arguments)
        return self.receive()

    def _ended(self) -> SideError:
        return SideError(self.name, self._process.wait())


class Workers:
    """A process for each name, started when it is first asked for."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self._running: dict[str, Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(wait=kind is None)

    def __getitem__(self, name: str) -> Worker:
        if name not in self._running:
            self._running[name] = Worker(name, self._environment)
        return self._running[name]

    def close(self, *, wait: bool = True) -> None:
        """End them all; they start anew when they are asked for again."""
        while self._running:
            self._running.popitem()[1].close(wait=wait)


@dataclass(frozen=True)
class Turns:
    """Seconds per step of each side, by process and round; and the largest share of a core that a waiting side took."""

    samples: Mapping[str, Sequence[Sequence[float]]]
    idle: float


def agree(workers: Mapping[str, Worker]) -> None:
    """Every side that has a result must have computed the same."""
    first: tuple[str, Any] | None = None
    for name, worker in workers.items():
        found = worker.ask("result")
        if found is None:
            continue
        first = first or (name, found)
        for ours, theirs in zip(first[1], found, strict=True):
            message = f"{name} computes something else than {first[0]}"
            np.testing.assert_allclose(theirs, ours, rtol=2e-4, atol=2e-5, err_msg=message)


def in_turns(builds: Mapping[str, Build], method: Method, workers: Workers) -> Turns:
    """Measure sides that take turns: each round measures all of them once, every other round in the reverse order."""
    samples: dict[str, list[list[float]]] = {name: [] for name in builds}
    idle = 0.0
    for number in range(method.processes):
        if method.fresh:
            workers.close()
        for name, build in builds.items():
            workers[name].send("build", build)
        for name in builds:
            workers[name].receive()
        if number == 0:
            agree({name: workers[name] for name in builds})
        for name in builds:
            workers[name].ask("warm", method.warm)
        left: dict[str, float] = {}
        for found in samples.values():
            found.append([])
        for turn in range(method.rounds):
            order = list(builds)
            for name in order if (turn + number) % 2 == 0 else order[::-1]:
                waited = time.perf_counter() - left.get(name, math.inf)
                seconds, while_idle = workers[name].ask("sample")
                left[name] = time.perf_counter()
                samples[name][-1].append(seconds)
                if waited > QUIET:  # not measured twice in succession, at the turn of the order
                    idle = max(idle, while_idle / waited)
    return Turns(samples, idle)


def ratio(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The median over all rounds of the ratio within a round."""
    # Not through netcl.paired_timing: asv runs this file with netcl as it was before it had that.
    rounds = zip(chain.from_iterable(own), chain.from_iterable(other), strict=True)
    return statistics.median(a / b for a, b in rounds)


def first_run(build: Build, name: str, processes: int) -> tuple[float, float]:
    """Seconds from the start of a process to the end of its first step: with empty caches, and in a later process.

    Medians over so many pairs of processes.
    """
    found: list[tuple[float, float]] = []
    for _ in range(processes):
        with tempfile.TemporaryDirectory() as folder:
            caches = {"XDG_CACHE_HOME": folder}
            caches |= {f"{owner}_CACHE_DIR": str(Path(folder, owner)) for owner in ("NETCL", "POCL")}
            found.append((_first_step(build, name, caches), _first_step(build, name, caches)))
    first, later = zip(*found, strict=True)
    return statistics.median(first), statistics.median(later)


def _first_step(build: Build, name: str, caches: Mapping[str, str]) -> float:
    started = time.time()
    with Workers(caches) as workers:
        return workers[name].ask("call", _built_and_run, build) - started


def _built_and_run(build: Build) -> float:
    build().run(1)
    return time.time()
