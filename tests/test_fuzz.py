"""The fuzz itself: it finds what is planted, makes it small, draws the same cases again, and outlives a crash."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl import tape
from netcl.backends.reference import numpy_operators
from netcl.optim import clip
from tests.fuzz import __main__ as command
from tests.fuzz import kinds, operations, rules
from tests.fuzz.bounds import FORMATS, Bounded, worst
from tests.fuzz.case import Values, source, stored
from tests.fuzz.shrink import shrink
from tests.fuzz.worker import Failure, Worker, attempt
from tests.misbehaving import misbehave

ROOT = Path(__file__).parent.parent


# -- what it draws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_case_depends_on_seed_kind_and_number_alone(kind):
    alone = repr(kinds.draw(f"{kind}:5:12"))
    for number in (3, 40):
        kinds.draw(f"{kind}:5:{number}")
    np.random.default_rng().random()
    assert repr(kinds.draw(f"{kind}:5:12")) == alone
    assert repr(kinds.draw(f"{kind}:6:12")) != alone
    assert repr(kinds.draw(f"{kind}:5:13")) != alone


def test_programs_have_every_special_function():
    assert set(netcl.special.__all__) - {"psi"} <= set(operations.OPERATIONS)  # which is digamma


def test_the_kinds_take_turns():
    order = command.tokens("all", 4, 10)
    assert [next(order) for _ in range(7)] == [
        "steps:4:10", "arrays:4:10", "steps:4:11", "arrays:4:11", "gradients:4:10", "narrow:4:10", "steps:4:12",
    ]  # fmt: skip
    assert next(command.tokens("arrays", 0, 0)) == "arrays:0:0"
    again = command.tokens("steps", 0, 3, 2)
    assert [next(again) for _ in range(4)] == ["steps:0:3", "steps:0:3:1", "steps:0:3:2", "steps:0:4"]


def elements(case):
    """The elements of a case, and what else it says."""
    if isinstance(case, Values):
        return [case.array().tolist()], (case.shape, case.style)
    if is_dataclass(case):
        case = {each.name: getattr(case, each.name) for each in fields(case)}
    parts = case.items() if isinstance(case, dict) else enumerate(case) if isinstance(case, tuple) else ()
    found = [elements(part) for name, part in parts if name != "seed"]
    rest = [name for name, _ in parts] if found else case
    return [x for inner, _ in found for x in inner], (rest, [other for _, other in found])


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_case_again_has_other_elements_alone(kind):
    changed = 0
    for number in range(20):
        one, other = (elements(kinds.draw(f"{kind}:1:{number}{again}")) for again in ("", ":1"))
        assert repr(one[1]) == repr(other[1])
        changed += repr(one[0]) != repr(other[0])
    assert changed > 15


# -- what it finds -----------------------------------------------------------------------------------------------------


def _wrong_log(beta):
    return (math.log(beta) if beta > 0 else -math.inf) * 1.0001


def _first_contribution(known, contribution):
    return known


def _forgetful(parameters, clip_value):
    """Clips all gradients but the last."""
    _CLIP_VALUE([p for p in parameters if p.grad is not None][:-1], clip_value)


_CLIP_VALUE = clip.clip_grad_value
_TANH = netcl.tanh


_LOG_NDTR = netcl.special.log_ndtr


def _inexact(x):
    return _TANH(x) * 1.05


def _inexact_log_ndtr(x):
    return _LOG_NDTR(x) * 1.05


def _inexact_rounding(values, bits, dtype):
    return _STOCHASTIC(values * np.float32(1.05), bits, dtype)


_STOCHASTIC = numpy_operators.stochastic


PLANTED = {
    "stochastic rounding": ("narrow", numpy_operators, "stochastic", _inexact_rounding, r"of \w+ in"),
    "bias correction": ("steps", "netcl.update_rules", "_log", _wrong_log, r"parameter \d"),
    "clipping by value": ("steps", "tests.fuzz.stepping", "clip_grad_value", _forgetful, r"parameter \d|gradient"),
    "tanh": ("arrays", netcl, "tanh", _inexact, r"tanh\("),
    "log_ndtr": ("arrays", netcl.special, "log_ndtr", _inexact_log_ndtr, r"log_ndtr\("),
    "sum of contributions": ("gradients", tape, "_add", _first_contribution, r"gradient of leaf|slope of leaf"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_made_small(name, monkeypatch):
    kind, place, attribute, fault, words = PLANTED[name]
    target = sys.modules[place] if isinstance(place, str) and place in sys.modules else place
    if isinstance(target, str):
        target = __import__(target, fromlist=["_"])
    cases = [kinds.draw(f"{kind}:1:{number}") for number in range(400)]
    sound = (case for case in cases if attempt(kinds.run, case, "numpy") is None)

    def failure(case):
        with monkeypatch.context() as patched:
            patched.setattr(target, attribute, fault)
            return attempt(kinds.run, case, "numpy")

    case, first = next((case, found) for case in sound if (found := failure(case)) is not None)

    def fails(candidate):
        found = failure(candidate)
        return found is not None and found.category == first.category and attempt(kinds.run, candidate, "numpy") is None

    small = shrink(case, fails, attempts=300)
    assert fails(small)
    assert re.search(words, failure(small).message)
    assert _size(small) <= max(_size(case) // 2, 6)


def _size(case):
    """Actions, calls or steps."""
    names = ("actions", "calls", "steps", "gradients")
    return len(next(found for name in names if (found := getattr(case, name, None))))


def test_shrinking_stops_where_nothing_simpler_fails():
    case = kinds.draw("gradients:0:3")
    assert shrink(case, lambda candidate: False) == case
    smallest = shrink(case, lambda candidate: True)
    assert len(smallest.steps) <= 1
    assert smallest.constant == ()


# -- the error model ---------------------------------------------------------------------------------------------------


def _in_float32(tree, leaves):
    if not isinstance(tree, tuple):
        return leaves[tree] if isinstance(tree, str) else np.float32(tree)
    name, *args = tree
    a, *rest = (_in_float32(arg, leaves) for arg in args)
    half = np.float32(0.5)
    return {
        "add": lambda: a + rest[0], "subtract": lambda: a - rest[0], "multiply": lambda: a * rest[0],
        "over": lambda: a / (abs(rest[0]) + half), "root": lambda: np.sqrt(abs(a)), "decay": lambda: np.exp(-abs(a)),
        "where": lambda: np.where(a > rest[0], rest[1], rest[2]), "tanh": lambda: np.tanh(a), "abs": lambda: abs(a),
        "maximum": lambda: np.maximum(a, rest[0]), "minimum": lambda: np.minimum(a, rest[0]),
        "sign": lambda: np.sign(a),
    }[name]()  # fmt: skip


@given(number=st.integers(0, 10_000), style=st.sampled_from(["normal", "wide", "zeros", "integers", "tiny", "huge"]))
def test_a_bound_holds_what_float32_makes_of_an_expression(number, style):
    tree = rules.draw(source(0, "bounds", number), 3)
    values = {name: Values((40,), style, i).array().astype(np.float32) for i, name in enumerate("pgs")}
    values["rate"] = np.float32(0.3)
    with np.errstate(all="ignore"):
        actual = np.broadcast_to(_in_float32(tree, values), (40,))
    exact = {name: Bounded(x.astype(np.float64), FORMATS["float32"]) for name, x in values.items()}
    expected = rules.bounded(tree, exact) + np.zeros(40)
    assert worst(actual, expected, slack=1.0) is None


def test_a_bound_tells_a_few_digits_apart():
    x = Bounded(np.linspace(0.5, 2.0, 50), FORMATS["float32"])
    y = (x * 1.1 + 0.3) / (x.squared().root() + 1e-8)
    assert worst(y.value.astype(np.float32), y) is None
    assert worst(y.value * (1 + 1e-5), y) is not None
    assert worst(np.where(np.arange(50) == 7, np.nan, y.value), y) is not None
    overflown = Bounded(1e30, FORMATS["float32"]).squared()
    assert worst(np.inf, overflown) is None
    assert worst(3e38, overflown) is not None
    unsure = Bounded(0.0, FORMATS["float32"], 1e31).squared()
    assert worst(0.0, unsure) is None


@given(st.floats(allow_nan=False, width=64))
def test_rounding_to_bfloat16_is_to_the_nearest(x):
    found = float(stored(x, "bfloat16"))
    if abs(x) > 3.3961775292304000e38:  # beyond the middle of the largest number and the next that there is not
        assert found == math.copysign(math.inf, x)
        return
    bits = int(np.float32(found).view(np.uint32))
    assert bits & 0xFFFF == 0
    neighbours = [bits + step for step in (-0x10000, 0x10000) if 0 <= bits + step < 1 << 32]
    around = [float(np.uint32(neighbour).view(np.float32)) for neighbour in neighbours]
    assert all(abs(found - x) <= abs(other - x) for other in around if math.isfinite(other))


# -- crashes, hangs and the command line -------------------------------------------------------------------------------


def test_a_worker_outlives_what_it_runs():
    worker = Worker(misbehave, seconds=60.0, batch=2)
    try:
        assert worker.run("nothing") is None
        assert worker.run("disagree") == Failure("number", "number: 5 where 4 was expected")
        assert worker.run("raise").category == "ZeroDivisionError"
        died = worker.run("die")
        assert died.category == "died with SIGABRT"
        assert "misbehaving.py" in died.message
        assert worker.run("nothing") is None
        worker.seconds = 0.5
        hung = worker.run("hang")
        worker.seconds = 60.0
        assert hung.category == "hung"
        assert "misbehaving.py" in hung.message
        assert worker.run("nothing") is None
    finally:
        worker.close()


class _InProcess:
    def __init__(self, run, timeout):
        self._run = run

    def run(self, *arguments):
        return attempt(self._run, *arguments)

    def close(self):
        pass


def test_a_disagreement_ends_the_command_with_1(monkeypatch, capsys):
    monkeypatch.setattr(command, "Worker", _InProcess)
    monkeypatch.setattr(netcl, "tanh", _inexact)
    cases = (kinds.draw(f"arrays:2:{n}") for n in range(1000))
    number = next(
        n for n, case in enumerate(cases) if case.calls[0].name == "tanh" and attempt(kinds.run, case, "numpy")
    )
    assert command.main(["--replay", f"arrays:2:{number}"]) == 1
    said = capsys.readouterr().out
    assert f"arrays:2:{number} on numpy: tanh" in said
    assert "smallest found: Program(" in said
    assert f"--replay arrays:2:{number}" in said
    assert said.splitlines()[-1].startswith("fuzz: 1 cases on numpy, 1 disagreements (arrays 1), seed 0")


def test_the_command_says_what_it_ran():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--cases", "10", "--seed", "3", "--backend", "numpy"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    summary = r"fuzz: 10 cases on numpy, 0 disagreements \(steps 4, arrays 4, gradients 1, narrow 1\), seed 3, \d+ s"
    assert re.fullmatch(summary, done.stdout.splitlines()[-1])


def test_seconds_are_shared_by_the_backends(monkeypatch, capsys):
    monkeypatch.setattr(command, "Worker", _InProcess)
    assert command.main(["--seconds", "0", "--backend", "numpy", "--backend", "numpy"]) == 0
    assert capsys.readouterr().out.count("fuzz: 0 cases on numpy, 0 disagreements") == 2
