"""Times of work that takes turns, so that what slows the machine down for a while slows all of it down alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

Run: TypeAlias = Callable[[], object]
Side = TypeVar("Side", bound=Hashable)

SAMPLE = 20e-3
"""Seconds that one sample takes at least; shorter work is repeated."""


class Quartiles(NamedTuple):
    """Of the ratios of two sides' times, within each round."""

    low: float
    middle: float
    high: float


def sample(run: Run, repeats: int, wait: Run = lambda: None) -> float:
    """Seconds per run, after one that is not counted; ``wait`` returns when what was enqueued is done. **Blocks**."""
    run()
    wait()
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return (time.perf_counter() - started) / repeats


def in_turns(
    sides: Mapping[Side, Run], rounds: int, wait: Run = lambda: None, *, least: float | None = None
) -> dict[Side, list[float]]:
    """Seconds per run of each side, one sample a round; who begins changes. **Blocks**.

    Parameters
    ----------
    sides : mapping
    rounds : int
    wait : callable
        As in :func:`sample`.
    least : float, optional
        Seconds of a sample, :data:`SAMPLE` by default.
    """
    least = SAMPLE if least is None else least
    repeats = {side: max(1, math.ceil(least / sample(run, 3, wait))) for side, run in sides.items()}
    samples: dict[Side, list[float]] = {side: [] for side in sides}
    names = list(sides)
    for number in range(rounds):
        shift = number % len(names)
        for side in names[shift:] + names[:shift]:
            samples[side].append(sample(sides[side], repeats[side], wait))
    return samples


def quartiles(own: Sequence[float], other: Sequence[float]) -> Quartiles:
    """Quartiles of ``own`` over ``other``, round by round.

    Examples
    --------
    >>> from netcl.paired_timing import quartiles
    >>> quartiles([1.0, 2.0, 6.0, 8.0, 5.0], [1.0, 1.0, 2.0, 2.0, 1.0])
    Quartiles(low=2.0, middle=3.0, high=4.0)
    """
    each = sorted(a / b for a, b in zip(own, other, strict=True))
    return Quartiles(each[len(each) // 4], statistics.median(each), each[-1 - len(each) // 4])
