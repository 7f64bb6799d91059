"""The state of random numbers: taken, given back, refused whole, and carried to another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import netcl
from netcl import nn
from netcl import random as netcl_random
from netcl.errors import StateError
from netcl.random import Generator

pytestmark = pytest.mark.every_runtime

ROOT = Path(__file__).resolve().parents[1]


def draws():
    """What comes next, of dropout and of initial weights."""
    netcl.random.default_generator.take(3)
    with netcl.use_backend("numpy"):
        dropped = netcl.functional.dropout(netcl.ones(50)).tolist()
    return dropped, netcl.random.host_generator().standard_normal(3).tolist(), nn.Linear(3, 2).weight.tolist()


@pytest.fixture(autouse=True)
def restored():
    before = netcl.random.get_state()
    yield
    netcl.random.set_state(before)


@pytest.mark.parametrize(
    "carried", [lambda state: state, lambda state: json.loads(json.dumps(state))], ids=["", "JSON"]
)
def test_what_was_drawn_after_a_state_is_drawn_again(carried):
    netcl.manual_seed(3)
    draws()
    state = netcl.random.get_state()
    first = draws()
    assert draws() != first
    netcl.random.set_state(carried(state))
    assert draws() == first


GOOD = {"seed": 3, "offset": 8}
WRONG = [
    None, 3, "state", [], {}, {"seed": 3}, {**GOOD, "more": 1}, {**GOOD, "seed": -1}, {**GOOD, "seed": 2**64},
    {**GOOD, "seed": 1.5}, {**GOOD, "seed": "3"}, {**GOOD, "seed": True}, {**GOOD, "offset": -4}, {**GOOD, "offset": 2},
    {**GOOD, "offset": float("nan")}, {**GOOD, "offset": None}, {**GOOD, "offset": np.array([4, 8])},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_state_is_refused_and_changes_nothing(wrong):
    generator = Generator(7)
    generator.take(5)
    before, everything = generator.state(), netcl.random.get_state()
    with pytest.raises(StateError, match=r"generator's state must"):
        generator.set_state(wrong)
    with pytest.raises(StateError, match=r"generator's state must"):
        netcl.random.set_state({**everything, "default": wrong})
    assert (generator.state(), netcl.random.get_state()) == (before, everything)
    generator.set_state({name: np.int64(value) for name, value in GOOD.items()})
    assert generator.state() == GOOD


HOST = netcl_random.get_state()["host"]


@pytest.mark.parametrize(
    "wrong",
    [
        *(None, 3, {}, {**HOST, "bit_generator": "MT19937"}, {**HOST, "state": None}),
        *({**HOST, "state": {"state": value, "inc": 1}} for value in (-1, 1 << 200, "x", None)),
    ],
)
def test_a_wrong_state_of_the_host_is_refused_and_changes_nothing(wrong):
    before = netcl.random.get_state()
    with pytest.raises(StateError, match="'host' in a random state must be the state of NumPy's PCG64"):
        netcl.random.set_state({"default": GOOD, "host": wrong})
    assert netcl.random.get_state() == before
    for other in (None, {}, {"default": GOOD}, {**before, "more": 1}):
        with pytest.raises(StateError, match="must have the entries 'default' and 'host'"):
            netcl.random.set_state(other)


TRAINING = """\
import json
import pickle
import sys

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.data import DataLoader
from netcl.optim import AdamW, WarmupCosine

first, last, folder, backend = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
netcl.set_backend(backend)
own = netcl.random.Generator(11)
if first == 0:
    netcl.manual_seed(5)
layers = nn.Linear(6, 16, generator=1), nn.Dropout(0.4), nn.Dropout(0.2, generator=own), nn.Linear(16, 3, generator=2)
model = nn.Sequential(*layers)
opt = AdamW(model.named_parameters(), lr=1e-2)
sched = WarmupCosine(opt, warmup_steps=2, total_steps=20)
draw = np.random.default_rng(0)
data = draw.standard_normal((40, 6), dtype=np.float32), draw.integers(0, 3, 40)
loader = DataLoader(data, batch_size=8, shuffle=True)
if first:
    with open(f"{folder}/{first}", "rb") as file:
        saved = pickle.load(file)
    model.load_state_dict(saved["model"])
    opt.load_state_dict(saved["optimizer"])
    sched.load_state_dict(saved["schedule"])
    loader.set_epoch(saved["epoch"])
    own.set_state(saved["own"])
    netcl.random.set_state(json.loads(saved["random"]))
for epoch in range(first, last):
    for x, y in loader:
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(x), y)
        tape.backward(loss)
        opt.step()
        opt.zero_grad()
    sched.step()
    state = {"model": model.state_dict(), "optimizer": opt.state_dict(), "schedule": sched.state_dict()}
    state |= {"epoch": loader.epoch, "own": own.state(), "random": json.dumps(netcl.random.get_state())}
    with open(f"{folder}/{epoch + 1}", "wb") as file:
        pickle.dump(state, file)
print(json.dumps({name: array.tobytes().hex() for name, array in model.state_dict().items()}))
"""


def train(first, last, folder, backend):
    """Some epochs in a process of their own, with a checkpoint after each; the weights at the end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", TRAINING, *map(str, (first, last, folder, backend))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_model_with_dropout_goes_on_in_another_process_bit_for_bit(backend, tmp_path):
    whole = train(0, 2, tmp_path, backend.device)
    assert train(1, 2, tmp_path, backend.device) == whole
