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
from netcl.backends.opencl.tuner.cases import Case, Operands, Run
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
class SearchBudget:
    """How much is measured.

    Attributes
    ----------
    traffic : int
        Bytes that one launch moves: more than a cache holds.
    rounds : int
        Samples of each candidate.
    candidates : int
        How many of the candidates are measured in rounds.
    neighbours : bool
        Whether only candidates are tried that differ from the current choice in one knob.
    """

    traffic: int = 1 << 28
    rounds: int = 15
    candidates: int = 6
    neighbours: bool = False


QUICK = SearchBudget(traffic=1 << 26, rounds=5, candidates=3, neighbours=True)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One choice of knobs, measured.

    Attributes
    ----------
    knobs : tuple of (name, value)
    seconds : float
        Median of a launch.
    rate : float
        Bytes moved per second, in 10⁹.
    vs_current, vs_traffic : float
        Median of the rounds' ratios of the time to that of the current choice, and of bare memory traffic to it:
        below 1 it is faster than the current choice, and at 1 as fast as memory. ``vs_traffic`` is NaN where a kernel
        does not move memory by the megabyte.
    low, high : float
        The middle half of the ratios to the current choice.
    """

    knobs: Knobs
    seconds: float
    rate: float
    vs_current: float
    low: float
    high: float
    vs_traffic: float


@dataclass(frozen=True, slots=True)
class Result:
    """What tuning one kernel found.

    Attributes
    ----------
    kernel : str
    current : Measurement
        The choice that the tables make now.
    candidates : list of Measurement
        The fastest others, the best first.
    noise : float
        How far the ratio of the current choice to itself strays from 1.
    winner : Measurement or None
        A candidate that beats the current choice by more than the noise.
    tried : int
        Candidates built and checked.
    discarded : dict
        Why, for each candidate that was not timed.
    """

    kernel: str
    current: Measurement
    candidates: list[Measurement]
    noise: float
    winner: Measurement | None
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


def tune(
    backend: OpenCLBackend, kernel: str, budget: SearchBudget = QUICK, progress: Progress = lambda line: None
) -> Result:
    """Try the candidates for one kernel. **Blocks** until all are measured.

    Parameters
    ----------
    backend : OpenCLBackend
        One that nobody else uses: its knobs change meanwhile, and are the current ones again afterwards.
    kernel : str
        A key of :data:`~netcl.backends.opencl.device.tuning_table.KNOBS`.
    budget : SearchBudget
    progress : callable
        Is told, in a line, what goes on.
    """
    current = backend.queue.knobs(kernel)
    with _knobs(backend, kernel, current):
        return _tune(backend, kernel, current, budget, progress)


def _tune(backend: OpenCLBackend, kernel: str, current: Knobs, budget: SearchBudget, progress: Progress) -> Result:
    case = cases.CASES[kernel]
    others = [knobs for knobs in tuning_table.candidates(kernel, backend.queue.target) if knobs != current]
    if budget.neighbours:
        others = [knobs for knobs in others if _differences(knobs, current) == 1]
    sound, discarded = _checked(backend, kernel, [current, *others], progress)
    if current in discarded:
        raise TuningError(
            f"{kernel} with its present knobs {tuning_table.knob_text(current)} is wrong on {backend.device}: "
            f"{discarded[current]}; try another driver or runtime, and report it"
        )
    sound.remove(current)
    n = _elements(backend, kernel, case, budget)
    operands = Operands(backend)
    case.prepare(operands, n, False)
    runs = {knobs: _bound(backend, kernel, case, operands, knobs) for knobs in (current, *sound)}
    progress(f"{kernel}: timing {len(runs)} of them on {n:,} elements")
    with _without_collector():
        first = {knobs: min(sample(run, 1, backend.synchronize) for _ in range(2)) for knobs, run in runs.items()}
        best = sorted(sound, key=first.__getitem__)[: budget.candidates]
        sides: dict[Knobs | str, Run] = {knobs: runs[knobs] for knobs in (current, *best)}
        sides["current"] = _bound(backend, kernel, case, operands, current)
        if kernel != "prepare_step":
            sides["traffic"] = bare_traffic(backend, n, read=case.read, updated=case.updated, written=case.written)
        samples = in_turns(sides, budget.rounds, backend.synchronize)
    twin = quartiles(samples[current], samples["current"])
    noise = max(LEAST_NOISE, twin.high - 1, 1 - twin.low)
    lines = {knobs: _line(knobs, samples, case.bytes * n) for knobs in (current, *best)}
    candidates = sorted((lines[knobs] for knobs in best), key=lambda line: line.vs_current)
    winner = next((line for line in candidates if max(line.vs_current, line.high) < 1 - noise), None)
    return Result(kernel, lines[current], candidates, noise, winner, len(others) + 1, discarded)


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


def _bound(backend: OpenCLBackend, kernel: str, case: Case, operands: Operands, knobs: Knobs) -> Run:
    """A launch that has these knobs whenever it runs. It runs once."""
    with _knobs(backend, kernel, knobs):
        run = case.bind(operands)
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
    case, wanted = cases.CASES[kernel], cases.expected(kernel, CHECKED)
    operands = Operands(backend)
    case.prepare(operands, CHECKED, True)
    sound: list[Knobs] = []
    discarded: dict[Knobs, str] = {}
    said = time.monotonic()
    progress(f"{kernel}: building and checking {len(candidates)} candidates")
    for number, knobs in enumerate(candidates):
        try:
            operands.restore()
            with _knobs(backend, kernel, knobs):
                case.bind(operands)()
                wrong = cases.disagreement(case.result(operands), wanted)
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


def _elements(backend: OpenCLBackend, kernel: str, case: Case, budget: SearchBudget) -> int:
    """Elements that make a launch move so many bytes, but no more than an eighth of the device's memory."""
    if kernel == "prepare_step":
        return RECORDS
    arrays = case.read + case.updated + case.written
    most = min(backend.queue.cl_device.max_mem_alloc_size // 8, backend.device.memory // (8 * 4 * arrays))
    return max(1, min(budget.traffic // case.bytes, most))


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _line(knobs: Knobs, samples: Mapping[Knobs | str, Sequence[float]], nbytes: int) -> Measurement:
    own = samples[knobs]
    seconds = statistics.median(own)
    low, middle, high = quartiles(own, samples["current"])
    traffic = samples.get("traffic")
    vs_traffic = math.nan if traffic is None else quartiles(traffic, own).middle
    return Measurement(knobs, seconds, nbytes / seconds / 1e9, middle, low, high, vs_traffic)
