"""Every snippet of the optimizer page runs as it stands, on every backend.

The snippets are taken from the page and executed unchanged. A prelude gives the names that they leave to the reader.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.data import DataLoader
from netcl.optim import SGD, Optimizer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "optim.md"
BLOCKS = [
    (PAGE.read_text(encoding="utf-8")[: match.start()].count("\n") + 2, match[1])
    for match in re.finditer(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
FULL_LOOP = BLOCKS[-1][1]


class Prelude:
    """What the reader brings: a model with gradients, data, an optimizer, a loop, and a metric that never improves."""

    def __init__(self, backend) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(48, 6)).astype(np.float32)
        y = (x @ rng.normal(size=(6, 3))).argmax(1)
        self.model = nn.Sequential(nn.Linear(6, 16, generator=1), nn.ReLU(), nn.Linear(16, 3, generator=2))
        self.loader = DataLoader((x, y), batch_size=16, shuffle=True)
        self.x, self.y = netcl.asarray(x), netcl.asarray(y)
        self.loss_fn = nn.CrossEntropyLoss()
        self.backward()
        self.opt = SGD(self.model.parameters(), lr=0.5)
        self.trained = 0

    def loss(self) -> float:
        return self.loss_fn(self.model(self.x), self.y).item()

    def backward(self) -> None:
        with ag.Tape() as tape:
            loss = self.loss_fn(self.model(self.x), self.y) * 100.0
        tape.backward(loss)

    def train(self, *_: object) -> None:
        self.trained += 1

    def names(self) -> dict[str, object]:
        return {
            "model": self.model,
            "params": list(self.model.parameters()),
            "parameters": list(self.model.parameters()),
            "loader": self.loader,
            "loss_fn": self.loss_fn,
            "opt": self.opt,
            "optimizer": self.opt,
            "epochs": 7,
            "train": self.train,
            "validate": lambda *_: 1.0,
        }


@pytest.fixture
def prelude(backend):
    with netcl.use_backend(backend):
        yield Prelude(backend)


def run(text: str, prelude: Prelude) -> dict[str, object]:
    names = prelude.names()
    exec(compile(text, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize("text", [text for _, text in BLOCKS], ids=[f"line{line}" for line, _ in BLOCKS])
def test_block_runs_as_written(text, prelude):
    run(text, prelude)


def constructed(prelude: Prelude) -> dict[str, Optimizer]:
    """The optimizers that the page makes with all their hyper-parameters written out."""
    made = [x for _, text in BLOCKS if text != FULL_LOOP for x in run(text, prelude).values()]
    return {type(x).__name__: x for x in made if isinstance(x, Optimizer) and x is not prelude.opt}


def test_every_optimizer_of_the_page_takes_a_step(prelude):
    optimizers = constructed(prelude)
    assert sorted(optimizers) == ["Adam", "AdamW", "Momentum", "RMSProp", "SGD"]
    for name, optimizer in optimizers.items():
        before = prelude.model.state_dict()
        prelude.backward()
        optimizer.step()
        after = prelude.model.state_dict()
        assert all((before[key] != after[key]).any() for key in before), name


def test_written_hyper_parameters_are_the_defaults(prelude):
    """Only the page's Momentum is given a decay of its own."""
    for name, optimizer in constructed(prelude).items():
        written = {**optimizer.defaults, **({"weight_decay": 0.0} if name == "Momentum" else {})}
        assert written == type(optimizer)(prelude.model.parameters()).defaults, name


def test_clipping_block_limits_the_norm(prelude):
    (text,) = [text for _, text in BLOCKS if "clip_grad_norm_device(parameters" in text]
    run(text, prelude)
    norm = math.sqrt(sum(float((p.grad.numpy().astype(float) ** 2).sum()) for p in prelude.model.parameters()))
    assert norm == pytest.approx(1.0, rel=1e-5)


def test_cosine_block_anneals_to_zero(prelude):
    (text,) = [text for _, text in BLOCKS if "train(...)" in text]
    run(text, prelude)
    assert prelude.trained == 50
    assert prelude.opt.lr == pytest.approx(0.0, abs=1e-12)


def test_warmup_block_starts_from_zero(prelude):
    (text,) = [text for _, text in BLOCKS if "WarmupCosine(opt" in text]
    names = run(text, prelude)
    assert prelude.opt.lr == 0.0
    names["sched"].step()
    assert prelude.opt.lr == pytest.approx(0.5 / 500)


def test_plateau_block_halves_the_rate_once(prelude):
    (text,) = [text for _, text in BLOCKS if "validate(...)" in text]
    run(text, prelude)
    assert prelude.opt.lr == 0.25, "seven epochs: one best, then more than patience=5 without improvement"


def test_amp_loop_trains(prelude):
    (text,) = [text for _, text in BLOCKS if "autocast()" in text]
    before = prelude.loss()
    names = run(text, prelude)
    assert prelude.loss() != before
    assert names["scaler"].get_scale() == 65536.0 / 2.0 ** names["scaler"].steps_skipped


def test_full_loop_trains(prelude):
    before = prelude.loss()
    names = run(FULL_LOOP, prelude)
    assert prelude.loss() < before - 0.02
    assert names["opt"].lr == pytest.approx(0.0, abs=1e-12)
    assert all(p.grad is None for p in prelude.model.parameters())
