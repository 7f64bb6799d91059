"""The examples run, learn, and leave whole files or none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHORT = ["--subset", "--epochs", "2", "--no-progress"]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("fashion_mnist_mlp", EXAMPLES / "fashion_mnist_mlp.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def on_numpy(example):
    return example.main(["--backend", "numpy", *SHORT])


def test_short_run_learns_alike_on_every_backend(example, on_numpy, backend, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    curves, weights = tmp_path / "curves.png", tmp_path / "weights.npz"
    result = example.main(["--backend", str(backend.device), *SHORT, "--plot", str(curves), "--save", str(weights)])
    printed = capsys.readouterr().out
    assert result.accuracy > 0.75
    assert result.epochs[1].loss < result.epochs[0].loss
    assert [epoch.lr for epoch in result.epochs] == pytest.approx([1e-3, 5e-4])
    assert abs(result.epochs[0].loss - on_numpy.epochs[0].loss) < 1e-3
    assert result.source == "the subset shipped with netcl"
    assert printed.splitlines()[0] == f"device: {result.device}"
    assert str(backend.device) in result.device
    assert "6,000 training and 1,000 test images from the subset shipped with netcl" in printed
    assert f"accuracy {result.accuracy:.4f}" in printed.splitlines()[-1]
    assert curves.read_bytes().startswith(b"\x89PNG")
    with np.load(weights) as saved:
        assert [saved[name].shape for name in saved][:2] == [(256, 784), (256,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "weights.npz"]


def test_the_loop_reads_nothing_per_batch(example, backend):
    if not hasattr(backend, "blocking"):
        pytest.skip("only the OpenCL backend counts transfers that wait")
    waits = []
    for limit in ("256", "1024"):
        before = backend.blocking
        example.main(["--backend", str(backend.device), "--subset", "--epochs", "1", "--no-progress", "--limit", limit])
        waits.append(backend.blocking - before)
    assert waits[0] == waits[1] > 0


def test_same_seed_same_run(example, on_numpy):
    again = example.main(["--backend", "numpy", *SHORT])
    assert [(e.loss, e.accuracy) for e in again.epochs] == [(e.loss, e.accuracy) for e in on_numpy.epochs]


def test_interrupt_leaves_files_as_they_were(example, tmp_path, monkeypatch):
    old = tmp_path / "weights.npz"
    old.write_bytes(b"old")

    def interrupted(*_args, **_arrays):
        (tmp_path / "started").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        example.main(["--backend", "numpy", *SHORT, "--limit", "100", "--save", str(old)])
    (tmp_path / "started").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.npz"]
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--batch-size", "-4"], "--batch-size must be at least 1, got -4"),
        (["--plot", "/nonexistent/curves.png"], "/nonexistent/curves.png: the folder does not exist"),
    ],
)
def test_bad_arguments_end_before_the_training(example, arguments, complaint, capsys):
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert complaint in capsys.readouterr().err
