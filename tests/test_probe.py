"""A runtime's defect may cost speed, never the process: devices are tried in children, by family and dtype, twice."""

from __future__ import annotations

import json
import signal
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("pyopencl")

from netcl.backends.opencl.device import probe, selection
from netcl.backends.opencl.device.defects import CLASSES, FAMILIES, Defect, Defects
from netcl.backends.opencl.device.probe import Health
from netcl.backends.opencl.device.probe_cases import BASE, PLAIN, Case, cases
from netcl.backends.opencl.device.queue import Queue
from netcl.backends.opencl.probe_child import TRIALS
from netcl.dtypes import BY_NAME, complex128, float32, float64
from tests.children import is_installed, run_python

WORKS = Health(True, "trial kernels gave the right results")
WHOLE = Health(True, "trial kernels of every family gave the right results", Defects())

# A child that finds every trial right, unless ``body`` has it end otherwise. ``first`` says that the caches are cold.
CHILD = """
import json, os, signal, sys, time
position, cases = json.loads(sys.argv[1])
def say(number, end, said=""):
    print("netcl trial: " + json.dumps([number, end, said]), flush=True)
for number, (family, dtype, plain) in enumerate(cases):
    mark = os.path.join(os.environ["NETCL_CACHE_DIR"], f"{family} {dtype} {plain} mark")
    first = not os.path.exists(mark)
    open(mark, "w").close()
    here = (family, dtype)
    say(number, "begun")
    end = ("passed", "")
    BODY
    say(number, *end)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NETCL_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "netcl"


@pytest.fixture
def device():
    found = [d for d in selection.list_devices() if not selection.is_simulator(d)]
    assert found, 'no OpenCL device; install one with pip install "netcl[cpu]"'
    return found[0]


def child(monkeypatch, body="pass"):
    """Let the children of the probe run ``body`` instead of a trial."""
    monkeypatch.setattr(
        probe, "_CHILD", "exec(" + repr(CHILD.replace("BODY", textwrap.indent(body, "    ").strip())) + ")"
    )


# The whole device


def test_device_that_works_is_healthy(cache, device):
    position = selection.list_devices().index(device)
    assert probe.check(device, position) == WORKS
    (file,) = (cache / "probes").iterdir()
    assert json.loads(file.read_text())["tried"] == []
    found = probe.check(device, position, kinds=["float32"])
    assert found.defects == Defects(tried=frozenset({"float32"}))
    assert found.reason == "trial kernels of every family gave the right results on float32"
    assert json.loads(file.read_text())["tried"] == ["float32"]
    assert probe.check(device, position) == found


def test_classes_are_tried_when_they_are_wanted_and_once(cache, device, monkeypatch):
    child(monkeypatch, "if here == ('softmax', 'float64'): end = ('failed', 'x')")
    tried = []
    attempt = probe._Trials.attempt
    monkeypatch.setattr(
        probe._Trials,
        "attempt",
        lambda self, cases: tried.append({case.dtype for case in cases}) or attempt(self, cases),
    )
    first = probe.check(device, 0, kinds=["float32"])
    assert set().union(*tried) == {"float32"}
    tried.clear()
    assert probe.check(device, 0, kinds=["float32"]) == first
    assert tried == []
    both = probe.check(device, 0, kinds=["float32", "float64"])
    assert set().union(*tried) == {"float64"}
    assert both.defects.tried == {"float32", "float64"}
    assert both.reason.startswith(
        "trial kernels of every family gave the right results on float32, float64, but softmax"
    )
    tried.clear()
    whole = probe.check(device, 0, kinds=CLASSES)
    assert set().union(*tried) == {"float16", "int64", "uint8", "uint32"}
    assert whole.defects == Defects(both.defects.found)
    # The day counts from the oldest answer, though a part of it is younger.
    now = time.time()
    assert whole.since == first.since <= now


def test_a_queue_has_a_class_tried_before_its_first_kernel(device):
    wanted = []

    def try_on(kinds):
        wanted.append(set(kinds))
        return Defects({("map", "float64"): Defect("x", plain=True)}, frozenset({"float32", *kinds}))

    queue = Queue(device, defects=Defects(tried=frozenset({"float32"})), try_on=try_on)
    assert not queue.needs_plain("map", float32, float32)
    assert wanted == []
    assert queue.needs_plain("map", float32, float64)
    assert queue.needs_plain("map", complex128)
    assert not queue.needs_plain("reduce", float64)
    assert wanted == [{"float64"}]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_abort_is_a_reason_not_a_crash(cache, device, monkeypatch):
    child(monkeypatch, "print('error: no linker', file=sys.stderr, flush=True); os.abort()")
    health = probe.check(device, 0)
    assert health == Health(False, f"a trial kernel ended its process with {signal.SIGABRT.name}: error: no linker")


def test_wrong_result_is_a_reason(cache, device, monkeypatch):
    child(monkeypatch, "end = ('failed', 'element 3 is 4 and should be 5')")
    assert probe.check(device, 0) == Health(False, "a trial kernel failed: element 3 is 4 and should be 5")


def test_device_that_hangs_is_a_reason(cache, device, monkeypatch):
    child(monkeypatch, "time.sleep(60)")
    monkeypatch.setattr(probe, "LONGEST", 0.5)
    assert probe.check(device, 0) == Health(False, "a trial kernel did not finish within 0 s")


def test_device_that_spoils_its_own_cache_is_a_reason(cache, device, monkeypatch):
    child(monkeypatch, "if not first and here == ('fill', 'float32'): end = ('failed', 'INVALID_KERNEL_NAME')")
    health = probe.check(device, 0)
    assert not health.healthy
    assert "INVALID_KERNEL_NAME" in health.reason


def test_child_that_never_begins_is_a_reason(cache, device, monkeypatch):
    monkeypatch.setattr(probe, "_CHILD", "sys.exit('no such device')")
    health = probe.check(device, 0)
    assert not health.healthy
    assert "no such device" in health.reason


# Single families


ENDS = {
    "abort": "os.abort()",
    "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exit": "os._exit(0)",
    "wrong": "end = ('failed', 'element 1 is 2')",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("when", ["True", "first", "not first"])
def test_a_family_that_fails_hides_no_other(cache, device, monkeypatch, how, when):
    bad = ("softmax", "float64"), ("gather", "uint8"), ("fused_adam", "float16")
    child(monkeypatch, f"if {when} and here in {bad!r} and not (plain and family == 'softmax'): {ENDS[how]}")
    health = probe.check(device, 0, kinds=CLASSES)
    assert health.healthy
    assert set(health.defects.found) == {
        ("softmax", "float64"), ("gather", "small integers"), ("fused_adam", "16-bit floats")
    }  # fmt: skip
    # Softmax works without vectors; gather has no other form, and that of Adam fails likewise.
    assert [defect.plain for _, defect in sorted(health.defects.found.items())] == [False, False, True]
    assert "softmax of float64 runs without vectors" in health.reason
    assert "gather of small integers is refused" in health.reason


def test_too_many_deaths_end_the_trials(cache, device, monkeypatch):
    child(monkeypatch, f"if here not in {tuple((case.family, case.dtype) for case in BASE)!r}: os._exit(1)")
    monkeypatch.setattr(probe, "DEATHS", 1)
    health = probe.check(device, 0, kinds=CLASSES)
    assert health.healthy
    assert {family for family, _ in health.defects.found} == set(FAMILIES)
    assert any("was not tried" in defect.reason for defect in health.defects.found.values())


def test_trial_that_hangs_ends_by_itself(cache, device, monkeypatch):
    code = """
        from netcl.backends.opencl import probe_child
        import time
        probe_child.PATIENCE = 4
        def hang(*args):
            if args[2].family == "random_bits": time.sleep(60)
        probe_child.try_case = hang
        probe_child.main(sys.argv[1])
    """
    monkeypatch.setattr(probe, "_CHILD", f"exec({textwrap.dedent(code)!r})")
    monkeypatch.setattr(probe, "cases", lambda: [Case("map", "float32"), Case("random_bits", "uint32")])
    health = probe.check(device, selection.list_devices().index(device), kinds=CLASSES)
    assert health.healthy
    assert set(health.defects.found) == {("random_bits", "small integers")}
    assert "did not finish" in health.defects.found["random_bits", "small integers"].reason


def test_dtype_that_the_device_does_not_have_is_no_defect(cache, device, monkeypatch):
    child(monkeypatch, "if dtype == 'float64': end = ('refused', 'no float64')")
    assert probe.check(device, 0, kinds=CLASSES) == WHOLE


def test_every_family_and_class_is_tried():
    tried = {(case.family, case.dtype) for case in (*BASE, *cases())}
    assert {family for family, _ in tried} == set(FAMILIES) == set(TRIALS)
    assert set(PLAIN) <= set(FAMILIES)
    for family in ("fill", "scale", "axpy", "map", "reduce", "arg_reduce", "scatter_add"):
        assert {dtype for name, dtype in tried if name == family} == {"float32", "float16", "float64", "int64", "uint8"}
    assert all(dtype in BY_NAME for _, dtype in tried)


# What is kept


def test_answer_is_kept(cache, device, monkeypatch):
    child(monkeypatch)
    assert probe.check(device, 0).healthy
    child(monkeypatch, "end = ('failed', 'x')")
    assert probe.check(device, 0).healthy
    assert not probe.check(device, 0, fresh=True).healthy
    child(monkeypatch)
    assert not probe.check(device, 0).healthy


@pytest.mark.parametrize("body", ["end = ('failed', 'x')", "if family == 'softmax': end = ('failed', 'x')"])
def test_what_failed_is_tried_again_after_a_day(cache, device, monkeypatch, body):
    child(monkeypatch, body)
    first = probe.check(device, 0, kinds=CLASSES)
    assert first != WHOLE
    child(monkeypatch)
    assert probe.check(device, 0, kinds=CLASSES) == first
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + probe.RETRY + 1)
    assert probe.check(device, 0, kinds=CLASSES) == WHOLE


@pytest.mark.parametrize(
    ("module", "what"), [("processor", "model"), ("program", "fingerprint"), ("processor", "instruction_set")]
)
def test_answer_belongs_to_processor_and_version(cache, device, monkeypatch, module, what):
    child(monkeypatch)
    probe.check(device, 0)
    other = frozenset(["x"]) if what == "instruction_set" else "another"
    monkeypatch.setattr(getattr(probe, module), what, lambda: other)
    probe.check(device, 0)
    monkeypatch.setattr(probe, "__version__", "another")
    probe.check(device, 0)
    assert len(list((cache / "probes").iterdir())) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"healthy": true}', b"\xff\xfe", b'{"healthy":0,"reason":1,"since":"x"}',
        b'{"healthy": true, "reason": "", "tried": [], "defects": [["fill"]], "since": 0}',
        b'{"healthy": true, "reason": "", "tried": 1, "defects": [], "since": 0}',
    ],
)  # fmt: skip
def test_unreadable_answer_is_ignored(cache, device, monkeypatch, content):
    child(monkeypatch)
    probe.check(device, 0)
    (file,) = (cache / "probes").iterdir()
    file.write_bytes(content)
    child(monkeypatch, "end = ('failed', 'x')")
    assert not probe.check(device, 0).healthy
    assert json.loads(file.read_text())["healthy"] is False


def test_cache_that_cannot_be_written_costs_only_time(tmp_path, device, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    child(monkeypatch)
    assert probe.check(device, 0).healthy


def test_without_a_place_for_the_answer_only_the_base_is_tried(tmp_path, device, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("NETCL_CACHE_DIR", str(blocked / "below"))
    tried = []
    monkeypatch.setattr(probe, "_try", lambda position, known, kinds: tried.append(kinds) or WORKS)
    base = probe.check(device, 0)
    known = probe.check(device, 0, kinds=CLASSES, known=base)
    assert known.healthy
    assert known.defects == Defects()  # so that nobody asks again
    assert tried == [frozenset()]


def test_many_writers_leave_one_whole_answer(cache, device, monkeypatch):
    child(monkeypatch)
    with ThreadPoolExecutor(4) as pool:
        assert all(health.healthy for health in pool.map(lambda _: probe.check(device, 0, fresh=True), range(6)))
    (file,) = (cache / "probes").iterdir()
    assert json.loads(file.read_text())["healthy"] is True


def test_processes_that_start_together_try_a_device_once(cache, device, monkeypatch):
    tried = []
    child(monkeypatch)
    monkeypatch.setattr(probe, "cases", lambda: tried.append("once") or [Case("map", "float32")])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: probe.check(device, 0, kinds=CLASSES), range(4)))
    assert found == [WHOLE] * 4
    assert tried == ["once"]


def test_python_that_cannot_start_another_trusts_the_device(cache, device, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert probe.check(device, 0).reason.startswith("not tried: no child process could be started")
    monkeypatch.setattr(sys, "executable", str(cache / "no such python"))
    health = probe.check(device, 0, fresh=True)
    assert health.healthy
    assert health.reason.startswith("not tried: no child process could be started")


def test_defects_are_told_in_words():
    defects = Defects({("softmax", "float64"): Defect("aborts", plain=True), ("map", "float32"): Defect("hangs")})
    assert str(defects) == "softmax of float64 runs without vectors: aborts; map of float32 is refused: hangs"


@pytest.mark.skipif(not is_installed("pocl-binary-distribution"), reason="PoCL from PyPI is not installed")
def test_pocl_without_a_linker_is_reported_and_passed_over(tmp_path):
    code = """
        import netcl
        from netcl.errors import BackendError
        (pocl,) = [row for row in netcl.devices() if row.device.platform.startswith("Portable")]
        print(pocl.healthy, pocl.reason)
        try:
            netcl.get_backend("opencl:pocl")
        except BackendError as error:
            print("refused:", error)
        print("default:", netcl.get_backend().device.platform)
    """
    done = run_python(code, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), POCL_CACHE_DIR=str(tmp_path / "pocl"))
    assert done.returncode == 0, done.stderr
    row, refused, default = done.stdout.splitlines()
    assert row.startswith("False a trial kernel ended its process with SIGABRT: error: ")
    assert '"ld"' in row
    assert refused.startswith("refused: opencl:")
    assert "does not work: a trial kernel ended its process with SIGABRT" in refused
    assert "Portable" not in default
    answers = [json.loads(file.read_text()) for file in (tmp_path / "netcl" / "probes").iterdir()]
    assert [answer["healthy"] for answer in answers].count(False) == 1
