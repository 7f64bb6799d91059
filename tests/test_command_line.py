"""``python -m netcl``: each subcommand as it is called, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import netcl
from netcl.__main__ import main
from netcl.backends import DeviceStatus, devices
from netcl.backends.base import Device
from netcl.cli import demo
from netcl.cli.bench import ROOFLINE
from netcl.cli.devices import report
from netcl.cli.hardware import findings
from netcl.cli.table import show
from tests.children import one_runtime, take_over_probes, trials_of_the_base

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["--size", "20000", "--seconds", "0"]


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python -m netcl`` in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "NETCL_BACKEND"}
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "netcl", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_devices_prints_a_table(capsys):
    assert main(["devices"]) == 0
    text = capsys.readouterr().out
    head = text.splitlines()[0]
    assert head.split() == ["device", "name", "platform", "kind", "memory", "fp16", "fp64", "works"]
    for row in devices():
        (line,) = [line for line in text.splitlines() if line[2:].startswith(f"{row.device} ")]
        assert line.startswith("*") == row.default
        assert line.find(row.device.kind, head.index("kind")) == head.index("kind")
    assert "* default: " in text


def test_devices_prints_json(capsys):
    assert main(["devices", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [str(row.device) for row in devices()]
    assert set(rows[0]) == {"id", "device", "healthy", "reason", "default", "why"}
    assert {"name", "platform", "driver", "memory", "float16", "float64"} <= set(rows[0]["device"])


def test_devices_says_why_one_does_not_work(capsys):
    report(
        [
            DeviceStatus(Device("numpy", name="NumPy"), True, "always works", True, "set_backend()"),
            DeviceStatus(
                Device("opencl", 0, "A", "B", memory=3 << 29, float16=True, float64=False), False, "no linker"
            ),
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["*", "numpy", "NumPy", "-", "cpu", "-", "no", "yes", "yes"]
    assert lines[2].split() == ["opencl:0", "A", "B", "cpu", "1.5", "GiB", "yes", "no", "NO"]
    assert lines[4:] == ["  opencl:0: no linker", "* default: numpy, because of set_backend()"]


def test_tables_are_drawn_in_a_terminal_and_plain_in_a_pipe(monkeypatch, capsys):
    pytest.importorskip("rich")
    columns, rows = ("work", "GB/s"), [("[scale]", "9.5")]
    show("title", columns, rows)
    assert capsys.readouterr().out == "title\nwork     GB/s\n[scale]   9.5\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show("title", columns, rows)
    drawn = capsys.readouterr().out
    assert "─" in drawn
    assert "[scale]" in drawn


@pytest.fixture(scope="module")
def examined():
    done = call("doctor", "--json", **one_runtime())
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_trains_on_every_device_that_works(examined):
    """Of one runtime, for it tries everything anew. The gate calls it with all of them."""
    status, checks = examined
    assert status == 0
    trained = {name: check["state"] for name, check in checks.items() if name.startswith("train on ")}
    assert trained == {"train on numpy": "ok", "train on opencl:0": "ok"}
    assert checks["default"]["found"].startswith("opencl:0")
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")


def test_doctor_names_the_remedy_where_nothing_works(tmp_path):
    done = call("doctor", NETCL_BACKEND="opencl", OCL_ICD_VENDORS=str(tmp_path / "none.so"))
    assert done.returncode == 1
    assert "NETCL_BACKEND=opencl does not work" in done.stdout
    assert "name one that does: numpy" in done.stdout
    assert f"names {tmp_path / 'none.so'}, which does not exist" in done.stdout
    assert 'pip install "netcl[cpu]"' in done.stdout


def test_doctor_fails_for_a_backend_that_is_asked_for(tmp_path):
    done = call("doctor", "--backend", "opencl:nonsense", "--json", OCL_ICD_VENDORS=str(tmp_path / "none.so"))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["ok"]
    (failed,) = [check for check in found["checks"] if check["state"] == "FAILED"]
    assert failed["name"] == "train on opencl:nonsense"
    assert "BackendError" in failed["found"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_doctor_survives_a_runtime_that_kills_its_process(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'netcl.cli.trial' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    done = call("doctor", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 1
    assert "listing them ended its process with SIGSEGV" in done.stdout
    assert "OCL_ICD_VENDORS" in done.stdout
    assert done.stderr == ""


def test_doctor_passes_on_what_a_child_refuses(tmp_path):
    path = os.pathsep.join([trials_of_the_base(tmp_path), str(ROOT)])
    variables = {"NETCL_TUNING": str(tmp_path / "missing.json"), "PYTHONPATH": path}
    variables["NETCL_CACHE_DIR"] = str(take_over_probes(tmp_path / "cache"))
    done = call("doctor", "--json", **variables, **one_runtime())
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "devices"]
    assert "missing.json, which does not exist" in check["found"]
    assert check["remedy"] == "do as the message says"


def test_hardware_without_a_driver_is_found(tmp_path):
    for number, vendor in ((128, "0x8086"), (129, "0x1002")):
        node = tmp_path / f"dev/dri/renderD{number}"
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
        about = tmp_path / f"sys/class/drm/renderD{number}/device/vendor"
        about.parent.mkdir(parents=True)
        about.write_text(f"{vendor}\n")
    (tmp_path / "dev/nvidiactl").touch()
    (tmp_path / "etc/OpenCL/vendors").mkdir(parents=True)
    (tmp_path / "etc/OpenCL/vendors/gone.icd").write_text("/opt/gone/libOpenCL.so\n")
    found = list(findings(["AMD Accelerated Parallel Processing"], tmp_path))
    assert ["Intel" in found[0].found, "NVIDIA" in found[1].found, "gone.icd" in found[2].found] == [True] * 3
    assert "intel-opencl-icd" in found[0].remedy
    everything = ["AMD Accelerated Parallel Processing", "Intel(R) OpenCL Graphics", "NVIDIA CUDA"]
    assert [finding.found for finding in findings(everything, tmp_path)] == [found[2].found]


def test_bench_measures_every_work(capsys):
    assert main(["bench", "--json", *SHORT]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"]["id"] == str(netcl.get_backend().device)
    shares = {row["work"]: row["roofline_share"] for row in found["rows"]}
    assert max(shares[work] for work in ROOFLINE) == 1
    for row in found["rows"]:
        assert row["rate"] > 0
        assert (row["numpy_rate"] is None) == (found["device"]["backend"] == "numpy")


def test_bench_prints_a_table_and_refuses_what_is_too_small(capsys):
    assert main(["bench", "--backend", "numpy", *SHORT]) == 0
    said = capsys.readouterr().out
    assert "20,000 float32 elements" in said
    assert "AdamW, 1000 tensors" in said
    assert main(["bench", "--backend", "numpy", "--size", "10"]) == 1
    assert "--size must be at least 1000, got 10" in capsys.readouterr().err


def test_demo_trains_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "demo.png"
    assert main(["demo", "--backend", "numpy", "--subset", "--epochs", "1", "--output", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "6,000 training and 1,000 test images from the subset shipped with netcl" in said
    assert float(said.split("accuracy ")[-1].split()[0]) > 0.6
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def test_demo_refuses_before_it_trains(capsys):
    assert main(["demo", "--epochs", "0"]) == 2
    assert main(["demo", "--output", "/nonexistent/demo.png"]) == 2
    said = capsys.readouterr()
    assert "--epochs must be at least 1, got 0" in said.err
    assert "the folder does not exist" in said.err
    assert said.out == ""


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_told_in_a_line(fault, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "demo.png"
    monkeypatch.setattr(demo, "fit", lambda train, test, epochs: (demo.Curves([1.0], [0.5], [0.1]), test.labels))
    real = os.open

    def failing(path, flags, *arguments, **named):
        if str(path).startswith(str(tmp_path)) and flags & os.O_WRONLY:
            raise OSError(fault, os.strerror(fault), str(path))
        return real(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", failing)
    assert main(["demo", "--backend", "numpy", "--subset", "--epochs", "1", "--output", str(picture)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("netcl demo: ")
    assert os.strerror(fault) in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a folder is closed in other ways on Windows")
def test_doctor_says_that_a_cache_cannot_be_used(tmp_path, monkeypatch):
    from netcl.cli.doctor import _cache

    monkeypatch.setenv("NETCL_CACHE_DIR", str(tmp_path / "own"))
    (check,) = _cache()
    assert (check.state, check.found) == ("ok", str(tmp_path / "own"))
    assert list((tmp_path / "own").iterdir()) == []
    for place in (os.devnull, os.path.join(os.devnull, "below")):
        monkeypatch.setenv("NETCL_CACHE_DIR", place)
        (check,) = _cache()
        assert check.state == "warning"
        assert "NETCL_CACHE_DIR" in check.remedy
        assert "None" not in check.found


def test_an_unknown_backend_is_refused_without_a_traceback(capsys):
    assert main(["demo", "--backend", "nonsense"]) == 1
    assert "netcl demo: unknown backend 'nonsense'" in capsys.readouterr().err


def test_without_a_command_it_lists_them(capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(f"\n    {command} " in printed.err for command in ("devices", "doctor", "bench", "tune", "demo"))


def test_module_runs():
    assert call("--version").stdout.strip() == f"netcl {netcl.__version__}"


def test_import_of_netcl_leaves_the_command_line_alone():
    code = "import sys, netcl; print([name for name in sys.modules if name.startswith('netcl.cli')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error on Windows")
def test_a_reader_that_has_enough_ends_it_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "netcl", "devices", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
