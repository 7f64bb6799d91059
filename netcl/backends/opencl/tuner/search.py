"""Finding the knobs with which a kernel is fastest on a device: every candidate is checked, then timed."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from netcl.backends.base import Span
from netcl.backends.opencl.backend import OpenCLBackend
from netcl.backends.opencl.device import tuning_table
from netcl.backends.opencl.device.fused_launch import Sharing
from netcl.backends.opencl.device.memory import cl_buffer
from netcl.backends.opencl.device.tuning_table import Knobs
from netcl.backends.opencl.tuner import cases
from netcl.backends.opencl.tuner.cases import Operands, Run, Trial
from netcl.dtypes import float32
from netcl.errors import TuningError
from netcl.paired_timing import in_turns, quartiles, sample

CHECKED = 2 * 65536 + 1029
"""Elements of a check: over two of the largest pieces, and a tail that fills neither chunk nor vector."""

RECORDS = 4096
"""Values of the records that prepare_step is timed with: those of some ten million elements."""

LEAST_NOISE = 0.01
"""A gain smaller than this counts for none, however quiet the machine."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes
    ----------
    traffic : int
        Bytes that one launch moves: more than a cache holds.
    rounds : int
        Samples of each finalist.
    finalists : int
        How many of the candidates are measured in rounds.
    neighbours : bool
        Whether only candidates are tried that differ from the present choice in one knob.
    """

    traffic: int = 1 << 28
    rounds: int = 15
    finalists: int = 6
    neighbours: bool = False


QUICK = Effort(traffic=1 << 26, rounds=5, finalists=3, neighbours=True)


@dataclass(frozen=True, slots=True)
class Line:
    """One choice of knobs, measured.

    Attributes
    ----------
    knobs : tuple of (name, value)
    seconds : float
        Median of a launch.
    rate : float
        Bytes moved per second, in 10⁹.
    of_present, of_traffic : float
        Median of the rounds' ratios of the time to that of the present choice, and of bare memory traffic to it:
        below 1 it is faster than the present choice, and at 1 as fast as memory. ``of_traffic`` is NaN where a kernel
        does not move memory by the megabyte.
    low, high : float
        The middle half of the ratios to the present choice.
    """

    knobs: Knobs
    seconds: float
    rate: float
    of_present: float
    low: float
    high: float
    of_traffic: float


@dataclass(frozen=True, slots=True)
class Result:
    """What tuning one kernel found.

    Attributes
    ----------
    kernel : str
    present : Line
        The choice that the tables make now.
    finalists : list of Line
        The fastest others, the best first.
    noise : float
        How far the ratio of the present choice to itself strays from 1.
    winner : Line or None
        A finalist that beats the present choice by more than the noise.
    tried : int
        Candidates built and checked.
    discarded : dict
        Why, for each candidate that was not timed.
    """

    kernel: str
    present: Line
    finalists: list[Line]
    noise: float
    winner: Line | None
    tried: int
    discarded: dict[Knobs, str] = field(default_factory=dict)


Progress = Callable[[str], None]


def bare_traffic(backend: OpenCLBackend, n: int, *, read: int = 1, updated: int = 0, written: int = 0) -> Run:
    """A launch of ``kernels/traffic.cl`` over ``n`` float32 elements of arrays of its own, shaped like fused_adam."""
    queue = backend.queue
    sharing = Sharing.of(queue.knobs("fused_adam"))
    count = 1 + updated + written
    spans = [Span(backend.alloc(n, float32), 0, n) for _ in range(count)]
    for span in spans:
        backend.upload(np.full(n, 1e-3, np.float32), span)
    defines = (*sharing.defines(), ("READ", read), ("UPDATED", updated), ("WRITTEN", written))
    types = (np.uint64, np.uint64, *(None,) * count)
    kernel = queue.kernels.own("traffic.cl", "traffic", defines, arguments=types)
    size, group = sharing.groups(n) * sharing.group, sharing.group

    def run() -> None:
        queue.launch(kernel, (size,), (group,), n, 0, *map(cl_buffer, spans))

    return run


def tune(backend: OpenCLBackend, kernel: str, effort: Effort = QUICK, progress: Progress = lambda line: None) -> Result:
    """Try the candidates for one kernel. **Blocks** until all are measured.

    Parameters
    ----------
    backend : OpenCLBackend
        One that nobody else uses: its knobs change meanwhile, and are the present ones again afterwards.
    kernel : str
        A key of :data:`~netcl.backends.opencl.device.tuning_table.KNOBS`.
    effort : Effort
    progress : callable
        Is told, in a line, what goes on.
    """
    present = backend.queue.knobs(kernel)
    with _knobs(backend, kernel, present):
        return _tune(backend, kernel, present, effort, progress)


def _tune(backend: OpenCLBackend, kernel: str, present: Knobs, effort: Effort, progress: Progress) -> Result:
    trial = cases.TRIALS[kernel]
    others = [knobs for knobs in tuning_table.candidates(kernel, backend.queue.target) if knobs != present]
    if effort.neighbours:
        others = [knobs for knobs in others if _differences(knobs, present) == 1]
    sound, discarded = _checked(backend, kernel, [present, *others], progress)
    if present in discarded:
        raise TuningError(
            f"{kernel} with its present knobs {tuning_table.knob_text(present)} is wrong on {backend.device}: "
            f"{discarded[present]}; try another driver or runtime, and report it"
        )
    sound.remove(present)
    n = _elements(backend, kernel, trial, effort)
    operands = Operands(backend)
    trial.prepare(operands, n, False)
    runs = {knobs: _bound(backend, kernel, trial, operands, knobs) for knobs in (present, *sound)}
    progress(f"{kernel}: timing {len(runs)} of them on {n:,} elements")
    with _without_collector():
        first = {knobs: min(sample(run, 1, backend.synchronize) for _ in range(2)) for knobs, run in runs.items()}
        best = sorted(sound, key=first.__getitem__)[: effort.finalists]
        sides: dict[Knobs | str, Run] = {knobs: runs[knobs] for knobs in (present, *best)}
        sides["present"] = _bound(backend, kernel, trial, operands, present)
        if kernel != "prepare_step":
            sides["traffic"] = bare_traffic(backend, n, read=trial.read, updated=trial.updated, written=trial.written)
        samples = in_turns(sides, effort.rounds, backend.synchronize)
    twin = quartiles(samples[present], samples["present"])
    noise = max(LEAST_NOISE, twin.high - 1, 1 - twin.low)
    lines = {knobs: _line(knobs, samples, trial.bytes * n) for knobs in (present, *best)}
    finalists = sorted((lines[knobs] for knobs in best), key=lambda line: line.of_present)
    winner = next((line for line in finalists if max(line.of_present, line.high) < 1 - noise), None)
    return Result(kernel, lines[present], finalists, noise, winner, len(others) + 1, discarded)


def _differences(a: Knobs, b: Knobs) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


@contextmanager
def _knobs(backend: OpenCLBackend, kernel: str, knobs: Knobs) -> Iterator[None]:
    """Other knobs in a ``with`` block, and afterwards those that held before it."""
    before = backend.queue.knobs(kernel)
    backend.queue.set_knobs(kernel, knobs)
    try:
        yield
    finally:
        backend.queue.set_knobs(kernel, before)


def _bound(backend: OpenCLBackend, kernel: str, trial: Trial, operands: Operands, knobs: Knobs) -> Run:
    """A launch that has these knobs whenever it runs. It runs once."""
    with _knobs(backend, kernel, knobs):
        run = trial.bind(operands)
        run()

    def launch() -> None:
        # What a step block keeps does not change, but the flat calls look their knobs up.
        backend.queue.set_knobs(kernel, knobs)
        run()

    return launch


def _checked(
    backend: OpenCLBackend, kernel: str, candidates: Sequence[Knobs], progress: Progress
) -> tuple[list[Knobs], dict[Knobs, str]]:
    """Those that build, run, give the reference's result and touch nothing else; and of the others, why not."""
    trial, wanted = cases.TRIALS[kernel], cases.expected(kernel, CHECKED)
    operands = Operands(backend)
    trial.prepare(operands, CHECKED, True)
    sound: list[Knobs] = []
    discarded: dict[Knobs, str] = {}
    said = time.monotonic()
    progress(f"{kernel}: building and checking {len(candidates)} candidates")
    for number, knobs in enumerate(candidates):
        try:
            operands.restore()
            with _knobs(backend, kernel, knobs):
                trial.bind(operands)()
                wrong = cases.disagreement(trial.result(operands), wanted)
        except Exception as error:  # whatever a driver raises is a reason not to take the candidate
            wrong = f"{type(error).__name__}: {str(error).strip()}"
        if wrong:
            discarded[knobs] = wrong
        else:
            sound.append(knobs)
        if time.monotonic() - said > 5:
            said = time.monotonic()
            progress(f"{kernel}: {number + 1} of {len(candidates)} checked")
    return sound, discarded


def _elements(backend: OpenCLBackend, kernel: str, trial: Trial, effort: Effort) -> int:
    """Elements that make a launch move so many bytes, but no more than an eighth of the device's memory."""
    if kernel == "prepare_step":
        return RECORDS
    arrays = trial.read + trial.updated + trial.written
    most = min(backend.queue.cl_device.max_mem_alloc_size // 8, backend.device.memory // (8 * 4 * arrays))
    return max(1, min(effort.traffic // trial.bytes, most))


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _line(knobs: Knobs, samples: Mapping[Knobs | str, Sequence[float]], nbytes: int) -> Line:
    own = samples[knobs]
    seconds = statistics.median(own)
    low, middle, high = quartiles(own, samples["present"])
    traffic = samples.get("traffic")
    of_traffic = math.nan if traffic is None else quartiles(traffic, own).middle
    return Line(knobs, seconds, nbytes / seconds / 1e9, middle, low, high, of_traffic)
