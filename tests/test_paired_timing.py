"""Times of work that takes turns, with a clock that the work itself moves."""

from __future__ import annotations

import pytest

from netcl import paired_timing
from netcl.paired_timing import in_turns, quartiles, sample


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: now[0])
    return now


def takes(clock, seconds, called=None, name=""):
    def run():
        clock[0] += seconds
        if called is not None:
            called.append(name)

    return run


def test_a_sample_counts_neither_the_first_run_nor_forgets_to_wait(clock):
    waits = []

    def wait():
        waits.append(clock[0])
        clock[0] += 1.0

    assert sample(takes(clock, 2.0), 4, wait) == (4 * 2.0 + 1.0) / 4
    assert waits == [2.0, 11.0]


def test_sides_take_turns_and_who_begins_changes(clock):
    called = []
    sides = {name: takes(clock, seconds, called, name) for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0))}
    found = in_turns(sides, 3)
    assert found == {"a": [1.0] * 3, "b": [3.0] * 3, "c": [2.0] * 3}
    # Four runs each find out how long one takes; a sample is one that does not count and one that does.
    assert "".join(called[12::2]) == "abcbcacab"


def test_short_work_is_repeated(clock):
    called = []
    in_turns({"a": takes(clock, 0.25, called, "a")}, 2, least=2.0)
    assert len(called) == 4 + 2 * (1 + 8)


def test_a_burst_that_slows_both_sides_down_changes_no_ratio():
    steady, burst = [1.0, 1.0, 1.0, 1.0], [1.0, 9.0, 9.0, 1.0]
    doubled = [2 * seconds for seconds in burst]
    assert quartiles(doubled, burst) == (2, 2, 2)
    assert quartiles(doubled, steady).high == 18
