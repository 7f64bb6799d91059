"""Python in a process of its own: it runs what it is told to, nothing from the working directory, and never raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netcl.child_process import run_module, run_python
from tests.hostile import marks, plant

ROOT = Path(__file__).resolve().parents[1]

IMPORTS = "import json, random, logging, subprocess, typing, numpy, netcl, netcl.errors; print(netcl.__file__)"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    folder = plant(tmp_path / "hostile", tmp_path / "marks")
    monkeypatch.chdir(folder)
    return tmp_path / "marks"


def test_the_trap_closes(hostile):
    """Without the precautions, what lies in the working directory does run."""
    subprocess.run([sys.executable, "-c", "import json"], check=False, capture_output=True)
    assert "json" in marks(hostile)


@pytest.mark.parametrize("entry", [None, "", ".", "working", "relative"])
def test_nothing_runs_from_the_working_directory(hostile, monkeypatch, entry):
    """Nor where PYTHONPATH or the program has put it on the search path."""
    if entry is not None:
        place = {"working": os.getcwd(), "relative": "below"}.get(entry, entry)
        monkeypatch.syspath_prepend(place)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([place, str(ROOT), ""]))
    for done in (run_python(IMPORTS, timeout=60), run_module("netcl", "--version", timeout=60)):
        assert done.failure == "", done.errors
        assert "netcl" in done.output
    assert marks(hostile) == []


def test_what_this_process_can_import_the_child_can(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("said = 'found'")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_python("import only_here; print(only_here.said)", timeout=60).output.strip() == "found"


def test_the_standard_library_comes_first(tmp_path, monkeypatch):
    """A script's own folder stands before it on the search path, and may hold a random.py."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('not this one')")
    monkeypatch.syspath_prepend(tmp_path)
    assert run_python("import colorsys; print(colorsys.rgb_to_hsv)", timeout=60).failure == ""


@pytest.mark.parametrize("place", ["numpy's", "the standard library's", "gone"])
def test_the_working_directory_may_be_any_folder(place, tmp_path, monkeypatch):
    import numpy

    there = {"numpy's": Path(numpy.__file__).parents[1], "the standard library's": Path(os.__file__).parent}
    folder = there.get(place, tmp_path / "gone")
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    if place == "gone":
        folder.rmdir()
    done = run_python(IMPORTS, timeout=60)
    assert done.failure == "", done.errors


def test_arguments_and_output_arrive_whole():
    arguments = ["a b", "", "--flag", "é\n", "$(exit 3)", "'; x"]
    done = run_python("print(sys.argv[1:]); print('said', file=sys.stderr)", *arguments, timeout=60)
    assert (done.output.strip(), done.errors.strip(), done.status) == (repr(arguments), "said", 0)


@pytest.mark.parametrize(
    ("code", "status", "failure"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, "ended with status 3"),
        ("raise ValueError", 1, "ended with status 1"),
        ("for x in 1, 2: pass", 0, ""),
        ("sys.stdout.buffer.write(bytes(range(256)))", 0, ""),
    ],
)
def test_the_ending_is_told(code, status, failure):
    done = run_python(code, timeout=60)
    assert (done.status, done.failure, done.started) == (status, failure, True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_signal_is_told_by_its_name():
    done = run_python("import os; os.abort()", timeout=60)
    assert (done.status, done.failure) == (-signal.SIGABRT, "ended its process with SIGABRT")


def test_a_child_that_hangs_is_ended():
    done = run_python("import time; time.sleep(600)", timeout=0.5)
    assert (done.status, done.failure, done.started) == (None, "did not finish within 0 s", True)


@pytest.mark.parametrize("executable", ["", "no such python"])
def test_a_python_that_cannot_start_another_says_so(executable, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable and str(tmp_path / executable))
    done = run_python("", timeout=60)
    assert not done.started
    assert done.failure.startswith("no child process could be started (")


def test_an_argument_that_no_process_takes_is_told():
    assert not run_python("", "null\0character", timeout=60).started
