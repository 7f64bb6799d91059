"""The examples run, learn, and leave whole files or none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import netcl

pytestmark = pytest.mark.every_runtime

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
    curves, weights = tmp_path / "curves.png", tmp_path / "weights.safetensors"
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
    saved = netcl.load(weights)["model"]
    assert [saved[name].shape for name in saved][:2] == [(256, 784), (256,)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "weights.safetensors"]


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
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    old = tmp_path / "curves.png"
    old.write_bytes(b"old")

    def interrupted(*_args, **_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        example.main(["--backend", "numpy", *SHORT, "--limit", "100", "--plot", str(old)])
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert old.read_bytes() == b"old"


def test_an_interrupted_run_goes_on_as_if_nothing_had_been(example, on_numpy, tmp_path, monkeypatch, capsys):
    """The main example with --checkpoint, interrupted in its second epoch and started again."""
    arguments = ["--backend", "numpy", *SHORT, "--checkpoint", str(tmp_path / "run")]
    calls = []

    def interrupted(*given, train_epoch=example.train_epoch):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_epoch(*given)

    with monkeypatch.context() as patch:
        patch.setattr(example, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            example.main(arguments)
    result = example.main(arguments)
    assert "going on from" in capsys.readouterr().out
    assert [(e.loss, e.accuracy, e.lr) for e in result.epochs] == [(e.loss, e.accuracy, e.lr) for e in on_numpy.epochs]


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
