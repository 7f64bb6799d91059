"""Tuning tables: what they say, what is refused, and that knobs change nothing but the speed."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netcl import dtypes, paired_timing
from netcl.backends.base import Span
from netcl.backends.opencl.device import tuning_table
from netcl.backends.opencl.device.program import read_kernel
from netcl.backends.opencl.device.tuning_table import KINDS, KNOBS, Target
from netcl.backends.opencl.tuner import cases, search
from netcl.cli import tune as command
from netcl.errors import TuningError
from tests.kernels.forms import own_backend
from tests.kernels.steps import Block, Model, adam_rule

GPU = Target("Radeon 9", "gfx1100", "AMD", 1024)
ADAM = {"WIDTH": 4, "RUN": 1, "WORK_GROUP_SIZE": 256, "INTERLEAVED": 1}
SMALL = search.SearchBudget(traffic=1 << 16, rounds=3, candidates=2, neighbours=True)


def table(root, file="own.json"):
    return tuning_table.parse(json.dumps({"version": 1, **root}), file)


def fused(**changed):
    return {"gpu": {"default": {"fused_adam": {**ADAM, **changed}}}}


# -- tables ------------------------------------------------------------------------------------------------------------


def test_the_shipped_table_has_a_default_for_every_kernel():
    shipped = json.loads(read_kernel("tuning.json"))
    for kind in KINDS:
        assert list(shipped[kind]["default"]) == list(KNOBS)
    assert tuning_table.choose(GPU, "gpu", (tuning_table.shipped(),))["prepare_step"] == (("WORK_GROUP_SIZE", 64),)


def test_the_example_in_the_documentation_is_a_table():
    page = (Path(__file__).resolve().parents[2] / "docs/tuning.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert tuning_table.parse(example, "the page").defaults["gpu"]["fused_adam"][0] == ("WIDTH", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_particular_entry_of_the_first_table_counts(kind):
    def entry(group):
        return {"prepare_step": {"WORK_GROUP_SIZE": group}}

    levels = {"device": "Radeon 9", "architecture": "gfx1100", "vendor": "AMD"}
    section = {"default": entry(1)}
    for group, level in ((2, "vendor"), (4, "architecture"), (8, "device")):
        section[level] = {levels[level]: entry(group), "another": entry(128)}
        chosen = tuning_table.choose(GPU, kind, (table({kind: section}), tuning_table.shipped()))
        assert chosen["prepare_step"] == (("WORK_GROUP_SIZE", group),)
        assert chosen["fill"] == dict(tuning_table.shipped().defaults[kind])["fill"]
    own = table({kind: {"default": entry(16)}})
    chosen = tuning_table.choose(GPU, kind, (own, table({kind: section}), tuning_table.shipped()))
    assert chosen["prepare_step"] == (("WORK_GROUP_SIZE", 16),)


def test_work_groups_are_as_large_as_a_device_takes():
    small = Target("x", "", "y", 96)
    chosen = tuning_table.choose(small, "gpu", (tuning_table.shipped(),))
    assert dict(chosen["fused_adam"]) == {"WIDTH": 1, "RUN": 16, "WORK_GROUP_SIZE": 64, "INTERLEAVED": 1}
    assert dict(chosen["norm_reduce"])["LANES"] == 64
    for knobs in chosen.values():
        assert tuning_table.violated_constraint(dict(knobs)) == ""


@pytest.mark.parametrize("kernel", KNOBS)
def test_candidates_are_legal_and_contain_the_defaults(kernel):
    found = list(tuning_table.candidates(kernel, GPU))
    assert len(set(found)) == len(found)
    for kind in KINDS:
        assert tuning_table.shipped().defaults[kind][kernel] in found
    for knobs in found:
        table({"gpu": {"device": {"x": {kernel: dict(knobs)}}}})
    assert all(
        dict(knobs).get("WORK_GROUP_SIZE", 1) <= 8 for knobs in tuning_table.candidates(kernel, Target("", "", "", 8))
    )


@pytest.mark.parametrize(
    ("root", "key", "rule"),
    [
        ({"version": 2}, "version", "must be 1"),
        ({"fpga": {}}, "'fpga'", "must be one of version, cpu, gpu"),
        ({"gpu": {"default": {"softmax": {}}}}, "gpu.default has the key 'softmax'", "must be one of fill, scale"),
        ({"gpu": {"board": {}}}, "gpu has the key 'board'", "must be one of default, device, architecture, vendor"),
        ({"gpu": {"vendor": [1]}}, "gpu.vendor", r"must be an object, got \[1\]"),
        ({"cpu": {"device": {"A B": {"fill": 8}}}}, "cpu.device.'A B'.fill", "must be an object, got 8"),
        ({"cpu": {"default": {"fill": {"WIDTH": 8, "RUN": 1}}}}, "cpu.default.fill", "must have the key 'WORK_GROUP"),
        (fused(LANES=1), "gpu.default.fused_adam has the key 'LANES'", "must be one of WIDTH"),
        (fused(WIDTH=16), "gpu.default.fused_adam.WIDTH", "must be one of 1, 2, 4, 8, got 16"),
        (fused(WIDTH=3), "gpu.default.fused_adam.WIDTH", "got 3"),
        (fused(WIDTH=4.0), "gpu.default.fused_adam.WIDTH", "got 4.0"),
        (fused(INTERLEAVED=True), "gpu.default.fused_adam.INTERLEAVED", "must be one of 0, 1, got True"),
        (fused(RUN="4"), "gpu.default.fused_adam.RUN", "got '4'"),
        (fused(RUN=[4]), "gpu.default.fused_adam.RUN", r"got \[4\]"),
        (fused(RUN=4), "gpu.default.fused_adam", "WORK_GROUP_SIZE = 4096 must be at most 1024 elements"),
        (fused(RUN=64, INTERLEAVED=0), "gpu.default.fused_adam", "= 65536 must be at most 16384 elements"),
    ],
)
def test_a_wrong_table_is_refused_with_file_key_and_rule(root, key, rule):
    with pytest.raises(TuningError, match=rule) as refusal:
        table(root)
    assert str(refusal.value).startswith("own.json: ")
    assert key in str(refusal.value)
    assert "NETCL_TUNING=none" in str(refusal.value)


NESTED = b'{"version": 1, "gpu": ' + b'{"default": ' * 100_000 + b"1" + b"}" * 100_001
BROKEN = {
    "half": b"{",
    "list": b"[]",
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "NaN": b'{"version": NaN}',
    "infinity": b'{"version": -Infinity}',
    "true": b'{"version": true}',
    "float": b'{"version": 1.0}',
    "digits": b'{"version": ' + b"1" * 10_000 + b"}",
    "exponent": b'{"version": 1e999}',
    "twice": b'{"version": 1, "version": 1}',
    "knob twice": b'{"version": 1, "gpu": {"default": {"prepare_step": {"WORK_GROUP_SIZE": 1, "WORK_GROUP_SIZE": 2}}}}',
    "nested lists": b"[" * 100_000,
    "nested objects": NESTED,
    "nested value": b'{"version": ' + b"[" * 900 + b"]" * 900 + b"}",
    "long name": b'{"version": 1, "' + b"x" * 100_000 + b'": 1}',
    "too large": b" " * (tuning_table.LARGEST_FILE + 1),
    "much too large": None,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_is_refused_when_a_backend_is_opened(opencl, broken, tmp_path, monkeypatch):
    file = tmp_path / "tuning.json"
    file.write_bytes(BROKEN[broken] or b"")
    if BROKEN[broken] is None:
        os.truncate(file, 1 << 40)
    monkeypatch.setenv("NETCL_TUNING", str(file))
    with pytest.raises(TuningError, match=r"tuning\.json.*correct the file") as refusal:
        own_backend(opencl)
    assert len(str(refusal.value)) < 1000
    monkeypatch.setenv("NETCL_TUNING", "none")
    own_backend(opencl)


@pytest.mark.skipif(os.name != "posix", reason="these kinds of files are those of POSIX")
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket", "loop"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind, tmp_path, monkeypatch):
    file = tmp_path / "table"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(file)
    else:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("table")
    for call in (lambda: tuning_table.read(file), lambda: tuning_table.save(file, "cpu", "A", {})):
        with pytest.raises(TuningError, match=r"table cannot be read \(.+\); correct the file"):
            call()


def test_a_table_that_is_named_and_missing_is_refused(opencl, tmp_path, monkeypatch):
    monkeypatch.setenv("NETCL_TUNING", str(tmp_path / "missing.json"))
    with pytest.raises(TuningError, match=r"NETCL_TUNING=.*missing\.json, which does not exist; correct it") as refusal:
        own_backend(opencl)
    assert "NETCL_TUNING=none" in str(refusal.value)
    monkeypatch.delenv("NETCL_TUNING")
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path))
    own_backend(opencl)  # where none is named, there need be none


def test_a_home_that_is_closed_to_this_process_holds_no_table(opencl, tmp_path, monkeypatch):
    def closed(file, *arguments, **named):
        raise PermissionError(f"[Errno 13] Permission denied: {str(file)!r}")

    monkeypatch.setattr(tuning_table, "read_regular", closed)
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NETCL_TUNING", str(tmp_path / "mine.json"))
    with pytest.raises(TuningError, match="Permission denied"):
        own_backend(opencl)
    monkeypatch.delenv("NETCL_TUNING")
    own_backend(opencl)


def test_the_users_table_overrides_the_shipped_one(opencl, tmp_path, monkeypatch):
    monkeypatch.setenv("NETCL_TUNING", str(tmp_path / "mine.json"))
    tuning_table.begin(tmp_path / "mine.json")
    assert own_backend(opencl).queue.knobs("fill") == opencl.queue.knobs("fill")
    other = (("WIDTH", 4), ("RUN", 2), ("WORK_GROUP_SIZE", 16))
    tuning_table.save(tmp_path / "mine.json", opencl.queue.kind, opencl.queue.target.device, {"fill": other})
    backend = own_backend(opencl)
    assert backend.queue.knobs("fill") == other
    assert backend.queue.knobs("scale") == opencl.queue.knobs("scale")
    x = Span(backend.alloc(1003, dtypes.float64), 1, 1001)
    backend.fill(x, 2.5)
    assert (backend.download(x) == 2.5).all()


def test_the_users_table_is_in_the_cache_folder_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NETCL_TUNING")
    assert tuning_table.user_file() == tmp_path / "tuning.json"
    monkeypatch.setenv("NETCL_TUNING", "None")
    assert tuning_table.user_file() is None
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETCL_TUNING", "~/mine.json")
    assert tuning_table.user_file() == tmp_path / "home/mine.json"


def test_saving_keeps_what_is_there_and_leaves_no_other_file(tmp_path):
    file = tmp_path / "new" / "tuning.json"
    tuning_table.save(file, "cpu", "A", {"prepare_step": (("WORK_GROUP_SIZE", 8),)})
    tuning_table.save(file, "cpu", "B", {"prepare_step": (("WORK_GROUP_SIZE", 4),)})
    tuning_table.save(file, "gpu", "A", {"fused_adam": tuple(ADAM.items())})
    norm = (("WIDTH", 8), ("LANES", 1), ("PIECE", 4096))
    tuning_table.save(file, "cpu", "A", {"prepare_step": (("WORK_GROUP_SIZE", 2),), "norm_reduce": norm})
    assert json.loads(file.read_text()) == {
        "version": 1,
        "cpu": {
            "device": {
                "A": {"prepare_step": {"WORK_GROUP_SIZE": 2}, "norm_reduce": {"WIDTH": 8, "LANES": 1, "PIECE": 4096}},
                "B": {"prepare_step": {"WORK_GROUP_SIZE": 4}},
            }
        },
        "gpu": {"device": {"A": {"fused_adam": ADAM}}},
    }
    assert [path.name for path in file.parent.iterdir()] == ["tuning.json"]


def test_saving_changes_nothing_where_it_is_refused(tmp_path):
    file = tmp_path / "tuning.json"
    file.write_text('{"version": 1, "gpu": {"default": {"fill": {}}}}')
    before = file.read_bytes()
    with pytest.raises(TuningError, match="must have the key 'WIDTH'"):
        tuning_table.save(file, "cpu", "A", {"prepare_step": (("WORK_GROUP_SIZE", 8),)})
    assert file.read_bytes() == before
    with pytest.raises(TuningError, match="WORK_GROUP_SIZE must be one of"):
        tuning_table.save(tmp_path / "other.json", "cpu", "A", {"prepare_step": (("WORK_GROUP_SIZE", 3),)})
    with pytest.raises(TuningError, match="cannot be written"):
        tuning_table.save(file / "below.json", "cpu", "A", {"prepare_step": (("WORK_GROUP_SIZE", 8),)})
    assert [path.name for path in tmp_path.iterdir()] == ["tuning.json"]


# -- knobs -------------------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(data=st.data(), n=st.integers(1, 5000))
def test_fused_updates_give_the_same_bits_with_any_knobs(opencl, data, n):
    backend = own_backend(opencl)
    found = []
    for knobs in (None, data.draw(st.sampled_from(list(tuning_table.candidates("fused_adam", backend.queue.target))))):
        for kernel in ("fused_adam", "fused_update"):
            backend.queue.set_knobs(kernel, knobs or backend.queue.knobs(kernel))
        block, rows = Block(backend, [{"decay": 0.1}, {"active": 0.0}]), np.arange(-(-n // 1024)) % 2
        model, by_rule = Model(backend, n, rows=rows), Model(backend, n, rows=rows)
        model.adam(backend, block, advance=True)
        by_rule.update(backend, adam_rule(), block)
        found.append([*model.bytes(), *by_rule.bytes(), block.counters[1].bytes()])
    assert found[0] == found[1]


@pytest.mark.short(kernel=["axpy", "norm_reduce"])
@pytest.mark.parametrize("kernel", ["fill", "scale", "axpy", "norm_reduce", "prepare_step"])
@settings(max_examples=4)
@given(data=st.data(), n=st.integers(2, 40000))
def test_other_kernels_agree_with_the_reference_with_any_knobs(opencl, kernel, data, n):
    backend = own_backend(opencl)
    knobs = data.draw(st.sampled_from(list(tuning_table.candidates(kernel, backend.queue.target))))
    backend.queue.set_knobs(kernel, knobs)
    operands = cases.Operands(backend)
    cases.CASES[kernel].prepare(operands, n, True)
    cases.CASES[kernel].bind(operands)()
    assert cases.disagreement(cases.CASES[kernel].result(operands), cases.expected(kernel, n)) == ""


# -- the tuner ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(search, "CHECKED", 2 * 1024 + 13)
    monkeypatch.setattr(paired_timing, "SAMPLE", 1e-5)
    monkeypatch.setattr(search, "QUICK", SMALL)


@pytest.mark.compiled(kernel=["fill", "fused_update"])
@pytest.mark.short(rows=lambda row: False)  # what the tuner makes of times is the same on each
@pytest.mark.parametrize("kernel", ["fill", "norm_reduce", "fused_update"])
def test_tuning_tries_every_neighbour_and_restores_the_knobs(opencl, kernel, small):
    backend = own_backend(opencl)
    present = backend.queue.knobs(kernel)
    result = search.tune(backend, kernel, SMALL)
    assert backend.queue.knobs(kernel) == present
    near = [
        k
        for k in tuning_table.candidates(kernel, backend.queue.target)
        if sum(map(lambda a, b: a != b, k, present)) == 1
    ]
    assert result.tried == 1 + len(near)
    assert result.discarded == {}
    assert result.current.knobs == present
    assert {line.knobs for line in result.candidates} <= set(near)
    assert len(result.candidates) == 2
    assert all(line.seconds > 0 and line.rate > 0 for line in (result.current, *result.candidates))


def test_candidates_that_are_wrong_write_beside_or_fail_are_discarded(opencl, small, monkeypatch):
    backend = own_backend(opencl)
    narrow, group = (
        (("WIDTH", 4), ("RUN", 1), ("WORK_GROUP_SIZE", 256)),
        (("WIDTH", 8), ("RUN", 1), ("WORK_GROUP_SIZE", 8)),
    )
    beside = (("WIDTH", 2), ("RUN", 1), ("WORK_GROUP_SIZE", 256))
    honest = backend.fill

    def fill(x, a):
        knobs = backend.queue.knobs("fill")
        if knobs == group:
            raise RuntimeError("out of resources\nand more")
        honest(Span(x.buffer, x.offset, x.size + (knobs == beside)), a + (knobs == narrow))

    monkeypatch.setattr(backend, "fill", fill)
    result = search.tune(backend, "fill", SMALL)
    assert result.discarded[narrow] == "x[0] is 1.1 where the reference has 0.1"
    assert result.discarded[beside] == "ArithmeticError: wrote beside x"
    assert result.discarded[group].startswith("RuntimeError: out of resources")
    assert len(result.discarded) == 3
    assert "WIDTH=4 RUN=1 WORK_GROUP_SIZE=256: x[0] is 1.1" in command.verdict(result)


@pytest.mark.short(rows=lambda row: False)  # what the tuner makes of times is the same on each
def test_a_winner_beats_the_present_choice_by_more_than_the_noise(opencl, small, monkeypatch):
    """With a clock of its own: the present choice varies by 10 %, one other takes 0.95 of it, one half of it."""
    backend = own_backend(opencl)
    present = backend.queue.knobs("prepare_step")
    ratios = {128: 0.95}

    def rounds(sides, count, wait):
        steady = {side: [ratios.get(dict(side)["WORK_GROUP_SIZE"], 2.0)] * 3 for side in sides if side != "current"}
        return {**steady, present: [1.0, 1.0, 1.0], "current": [0.9, 1.0, 1.1]}

    monkeypatch.setattr(search, "in_turns", rounds)
    monkeypatch.setattr(search, "sample", lambda run, repeats, wait: run() or 1.0)
    everything = search.SearchBudget(traffic=1 << 16, rounds=3, candidates=99)
    assert search.tune(backend, "prepare_step", everything).winner is None
    ratios[32] = 0.5
    result = search.tune(backend, "prepare_step", everything)
    assert result.winner.knobs == (("WORK_GROUP_SIZE", 32),)
    assert result.noise == pytest.approx(1 / 0.9 - 1)


def test_a_kernel_that_is_wrong_as_it_is_ends_the_tuning(opencl, small, monkeypatch):
    backend = own_backend(opencl)
    monkeypatch.setattr(backend, "fill", lambda x, a: None)
    with pytest.raises(TuningError, match="fill with its present knobs WIDTH=8"):
        search.tune(backend, "fill", SMALL)


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments):
    from netcl.__main__ import main

    return main(["tune", "--quick", *arguments])


@pytest.mark.short(rows=lambda row: False)  # what the tuner makes of times is the same on each
def test_the_command_reports_and_writes_winners(opencl, small, tmp_path, monkeypatch, capsys):
    file = tmp_path / "tuned.json"
    arguments = ("--device", str(opencl.device), "--kernel", "prepare_step", "fill", "--output", str(file))
    monkeypatch.setattr(search, "LEAST_NOISE", 1.0)
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert f"nothing to write to {file}" in said.out
    assert "prepare_step: timing" in said.err
    assert not file.exists()
    honest = search.tune

    def improved(*given):
        result = honest(*given)
        return search.Result(
            **{name: getattr(result, name) for name in result.__slots__} | {"winner": result.candidates[0]}
        )

    monkeypatch.setattr(search, "tune", improved)
    assert run(*arguments, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["written"] == ["prepare_step", "fill"]
    written = json.loads(file.read_text())[opencl.queue.kind]["device"][opencl.queue.target.device]
    assert written == {entry["kernel"]: entry["winner"] for entry in report["kernels"]}


@pytest.mark.short(rows=lambda row: False)  # what the tuner makes of times is the same on each
def test_the_command_makes_the_table_that_the_variable_names(opencl, small, tmp_path, monkeypatch, capsys):
    """A device refuses a table that is named and missing, and this is how it comes to be."""
    file = tmp_path / "new/mine.json"
    monkeypatch.setenv("NETCL_TUNING", str(file))
    monkeypatch.setattr(search, "LEAST_NOISE", 1.0)
    assert run("--kernel", "softmax") == 1
    assert not file.exists()
    assert run("--device", str(opencl.device), "--kernel", "prepare_step") == 0
    assert f"nothing to write to {file}" in capsys.readouterr().out
    assert tuning_table.read(file) == tuning_table.parse('{"version": 1}', str(file))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kernel", "softmax"), "got 'softmax'"),
        (("--device", "numpy"), "tune measures OpenCL devices, got 'numpy'"),
        (("--kernel", "fill"), "NETCL_TUNING=none leaves no table to write"),
    ],
)
def test_the_command_refuses_before_it_measures(arguments, said, capsys):
    assert run(*arguments) == 1
    assert said in capsys.readouterr().err


def test_the_command_refuses_a_broken_table_before_it_measures(tmp_path, capsys):
    file = tmp_path / "tuned.json"
    file.write_text("{")
    assert run("--kernel", "fill", "--output", str(file)) == 1
    assert "is not a JSON table" in capsys.readouterr().err
    assert file.read_text() == "{"
