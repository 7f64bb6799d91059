"""Every optimizer with a scaler and a schedule: 40 steps are 20, a file, a new process, and 20 more, bit for bit."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

import netcl
import netcl.autograd as ag
from netcl import optim
from netcl.child_process import run_python
from tests import test_saved_runs
from tests.test_saved_runs import KINDS, Run

pytestmark = pytest.mark.every_runtime

NAMES = [kind.__name__ for kind in KINDS]
SHORT = ["AdamW", "SGD", "LAMB", "Adafactor"]
"""Those that further runtimes run."""

FEW_BITS = {"rounding": "kahan", "state_dtype": "8bit"}


def start(name: str, seed: int) -> Run:
    """A run of the optimizer of this name; ``AdamW in 8 bits`` keeps its state in blocks."""
    kind = getattr(optim, name.split()[0])
    options = FEW_BITS if " " in name else {}

    def made(named):
        parameters = list(named)
        matrices = [(label, p) for label, p in parameters if p.ndim == 2]
        return kind(matrices if kind is optim.Muon else parameters, lr=1e-2, **options)

    test_saved_runs.OPTIMIZERS[name] = made
    return Run(name, seed)


def digest(run: Run) -> str:
    return sha256(repr(run.everything()[:2]).encode()).hexdigest()


class LBFGSRun:
    """L-BFGS takes a function and neither a scaler nor a schedule that multiplies."""

    def __init__(self) -> None:
        self.w = netcl.asarray([3.0, -2.0], requires_grad=True)
        self.optimizer = optim.LBFGS([("w", self.w)], lr=0.1, max_iter=2, history_size=3)

    def go(self, steps: int) -> str:
        def closure():
            self.optimizer.zero_grad()
            with ag.Tape() as tape:
                loss = netcl.sum((self.w - 1.0) ** 4)
            tape.backward(loss)
            return loss

        for _ in range(steps):
            self.optimizer.step(closure)
        return repr(self.w.tolist())


def go_on(folder: str, backend: str, names: list[str]) -> dict[str, str]:
    """What a new process makes of the files in ``folder``."""
    netcl.set_backend(backend)
    found = {}
    for name in names:
        run = start(name, 9)
        run.go(netcl.load(Path(folder) / name, **run.parts), 40)
        found[name] = digest(run)
    other = LBFGSRun()
    other.w[...] = netcl.asarray(netcl.load(Path(folder) / "LBFGS")["model"]["w"])
    netcl.load(Path(folder) / "LBFGS", optimizer=other.optimizer)
    found["LBFGS"] = other.go(20)
    return found


CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.test_resumed_processes import go_on
print("\\n" + json.dumps(go_on(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))))
"""


def test_a_new_process_goes_on_bit_for_bit(backend, in_short, tmp_path):
    name = str(backend.device)
    if name.split(":")[0] not in ("numpy", "opencl"):
        pytest.skip("a backend of the tests alone, which no other process knows")
    names = [*(SHORT if in_short else NAMES), "AdamW in 8 bits"]
    expected = {}
    with netcl.use_backend(backend):
        for each in names:
            begun = start(each, 0)
            begun.go(0, 20)
            netcl.save(tmp_path / each, **begun.parts, extra=20)
            straight = start(each, 0)
            straight.go(0, 40)
            expected[each] = digest(straight)
        begun, straight = LBFGSRun(), LBFGSRun()
        begun.go(20)
        netcl.save(tmp_path / "LBFGS", model={"w": begun.w}, optimizer=begun.optimizer)
        expected["LBFGS"] = straight.go(40)
    root = str(Path(__file__).resolve().parents[1])
    outcome = run_python(f"exec({CHILD!r})", root, str(tmp_path), name, json.dumps(names), timeout=300)
    assert outcome.status == 0, outcome
    assert json.loads(outcome.output.splitlines()[-1]) == expected
