"""asv finds the benchmarks by importing every file of their folder, in environments without the optional packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import sides
from benchmarks.ratios import Measured, Row, compared
from benchmarks.sides import QUICK, Method, Side, SideError, Workers, _first_step, first_run, in_turns, ratio
from benchmarks.steps import Work, netcl_side

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("jax", "matplotlib", "mlx", "mpi4py", "pyopencl", "tinygrad", "torch")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py")))
def test_importing_needs_no_optional_package(name):
    code = f"import sys\nfor name in {OPTIONAL!r}: sys.modules[name] = None\nimport benchmarks.{name}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def workers():
    with Workers() as found:
        yield found


class Scripted:
    """In place of processes: samples from lists, and the order in which they were asked for."""

    def __init__(self, samples):
        self.samples, self.asked, self.closed = samples, [], 0

    def __getitem__(self, name):
        nothing = lambda *_: None  # noqa: E731
        return SimpleNamespace(send=nothing, receive=nothing, ask=partial(self.answer, name))

    def close(self):
        self.closed += 1

    def answer(self, name, request, *arguments):
        if request != "sample":
            return None
        self.asked.append(name)
        return self.samples[name].pop(0), 0.0


def test_sides_take_turns_in_both_orders():
    scripted = Scripted({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 2.0, 12.0, 2.0]})
    turns = in_turns({"a": None, "b": None}, Method(rounds=2, processes=2, warm=0.0), scripted)
    assert scripted.asked == ["a", "b", "b", "a", "b", "a", "a", "b"]
    assert scripted.closed == 2
    assert turns.samples == {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [[2.0, 2.0], [12.0, 2.0]]}
    # Within a round, never across: 1/2, 2/2, 3/12, 4/2.
    assert ratio(turns.samples["a"], turns.samples["b"]) == 0.75
    line = compared("row", "numpy", "b", turns.samples["a"], turns.samples["b"], 0.7)
    assert (line.ratio, line.low, line.high, line.best, line.met) == (0.75, 0.5, 1.0, 0.5, "no")
    assert line.processes == [0.75, 1.125]


def test_a_side_is_measured_in_a_process_of_its_own(workers):
    turns = in_turns({"a": partial(Side, abs), "b": partial(Side, abs)}, QUICK, workers)
    assert [len(rounds) for rounds in turns.samples["a"]] == [2]
    assert all(0 < seconds < 1 for side in turns.samples.values() for rounds in side for seconds in rounds)
    ids = {workers[name].ask("call", os.getpid) for name in ("a", "b")}
    assert len(ids | {os.getpid()}) == 3


def test_a_side_imports_nothing_of_another():
    code = (
        "import benchmarks.sides, sys; print([name for name in ('netcl', 'pyopencl', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_side_whose_process_ends_is_named(workers):
    with pytest.raises(SideError, match=r"^broken: its process ended with status 1"):
        in_turns({"a": partial(Side, abs), "broken": partial(Side, os._exit)}, QUICK, workers)


def test_the_first_process_finds_empty_caches_and_a_later_one_what_it_left(monkeypatch):
    found = []

    def first_step(build, name, caches):
        left = Path(caches["NETCL_CACHE_DIR"], "left")
        assert all(Path(folder).is_relative_to(caches["XDG_CACHE_HOME"]) for folder in caches.values())
        found.append(left.exists())
        left.parent.mkdir(exist_ok=True)
        left.touch()
        return 3.0 if len(found) % 2 else 1.0

    monkeypatch.setattr(sides, "_first_step", first_step)
    assert first_run(partial(Side, abs), "a", 2) == (3.0, 1.0)
    assert found == [False, True, False, True]


def test_the_first_step_is_timed_from_the_start_of_its_process():
    before, started = time.perf_counter(), _first_step(partial(Side, abs), "a", {})
    assert 0 < started <= time.perf_counter() - before


def test_a_row_is_measured_without_a_side_that_dies(workers):
    own = partial(netcl_side, work=Work("AdamW", "AdamW", 1, 10))
    row = Row("row", own, others={"fine": partial(Side, abs), "broken": partial(Side, os._exit)})
    measured = Measured(QUICK, workers, {"numpy": ""})
    measured.take("row", partial(measured.compare, row))
    assert [(line.runtime, line.against) for line in measured.lines] == [("numpy", "fine")]
    assert measured.failed == ["broken in row"]
    with pytest.raises(SystemExit, match="broken in row"):
        measured.end(None, {})


def test_sides_that_disagree_are_not_compared(workers):
    builds = {name: partial(Side, abs, partial(list, [np.full(3, value)])) for name, value in (("a", 1.0), ("b", 1.01))}
    with pytest.raises(AssertionError, match="b computes something else than a"):
        in_turns(builds, QUICK, workers)


def test_a_side_runs_no_file_of_the_working_directory(workers, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert workers["a"].ask("call", abs, -2) == 2


@pytest.mark.parametrize("name", ["page", "readme"])
def test_tables_are_what_was_measured(name):
    from benchmarks.tables import PAGE, README, filled, filled_readme

    path, fill = {"page": (PAGE, filled), "readme": (README, filled_readme)}[name]
    text = path.read_text(encoding="utf-8")
    assert fill(text) == text, f"run benchmarks/tables.py: {path.name} differs from benchmarks/results"
    assert fill(text.replace("0", "1")) != text.replace("0", "1")


@pytest.mark.parametrize(("load", "expected"), [([9.3, 1.0, 1.0], True), ([1.2, 9.0, 9.0], False), ([], False)])
def test_a_measurement_on_a_busy_machine_is_known(load, expected):
    from benchmarks.tables import busy

    assert busy({"machine": {"load": load}}) is expected


def test_every_table_has_its_place():
    from benchmarks.tables import PAGE, PARTS

    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in PARTS if text.count(f"<!-- measured: {name} -->") != 1] == []


def test_the_history_that_asv_publishes():
    """At least ten commits, measured on machines that are described."""
    folder = ROOT / "benchmarks/results/asv"
    results = [path for path in folder.glob("*/*.json") if path.name != "machine.json"]
    commits = set()
    for path in results:
        found = json.loads(path.read_text(encoding="utf-8"))
        commits.add(found["commit_hash"])
        assert {"cpu", "os", "ram"} <= found["params"].keys()
    assert len(commits) >= 10
