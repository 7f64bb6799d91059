"""Trials in a child process, for a broken OpenCL runtime may take down the process that lists or uses it.

python -m netcl.cli.trial list             prints the devices as JSON
python -m netcl.cli.trial train opencl:0   trains a few steps there and on NumPy, and prints how far they differ
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from netcl.child_process import run_module

TIMEOUT = 300.0
"""Seconds after which a child counts as hanging; a driver may take a minute or two to build its first kernels."""

TOLERANCE = 1e-5
"""By how much parameters may differ from those trained on NumPy."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a child printed, or why there is nothing."""

    value: Any = None
    failure: str = ""
    broke: bool = False
    """Whether it was ended by a signal or for its time, and not by an error of Python's."""


def in_child(*arguments: str) -> Outcome:
    """Run this module with ``arguments`` in a process of its own. **Blocks**, up to :data:`TIMEOUT`; never raises."""
    done = run_module("netcl.cli.trial", *arguments, timeout=TIMEOUT)
    if not done.failure:
        # A runtime may write to the same stream; the answer comes last.
        with contextlib.suppress(ValueError, IndexError):
            return Outcome(json.loads(done.output.strip().splitlines()[-1]))
    said = done.errors.strip().splitlines()
    failure = done.failure or "gave no answer"
    said_last = f"{failure}{': ' if said else ''}{said[-1] if said else ''}"
    return Outcome(failure=said_last, broke=done.started and (done.status is None or done.status < 0))


def train(name: str) -> dict[str, float]:
    """Five clipped AdamW steps of a small perceptron on a device and on NumPy: seconds, and the largest difference."""
    import numpy as np

    import netcl
    import netcl.autograd as ag
    from netcl import nn
    from netcl.optim import AdamW

    random = np.random.default_rng(0)
    x, y = random.standard_normal((32, 8), dtype=np.float32), random.integers(0, 3, 32)

    def trained() -> list[Any]:
        model = nn.Sequential(nn.Linear(8, 16, generator=1), nn.ReLU(), nn.Linear(16, 3, generator=2))
        opt = AdamW(model.parameters(), lr=1e-2, eps=1e-3)  # an update that does not magnify roundings
        for _ in range(5):
            with ag.Tape() as tape:
                loss = ag.cross_entropy(model(netcl.asarray(x)), netcl.asarray(y))
            tape.backward(loss)
            opt.step(max_norm=1.0)
            opt.zero_grad()
        return [parameter.numpy() for parameter in model.parameters()]

    started = time.perf_counter()
    with netcl.use_backend(name):
        there = trained()
    seconds = time.perf_counter() - started
    with netcl.use_backend("numpy"):
        here = trained()
    return {"seconds": seconds, "difference": max(float(abs(a - b).max()) for a, b in zip(there, here, strict=True))}


def main(arguments: Sequence[str]) -> None:
    """What the child does."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # an abort is expected and needs no core file
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if list(arguments[:1]) == ["train"]:
        print(json.dumps(train(arguments[1])))
    else:
        from netcl.backends import devices
        from netcl.cli.devices import as_json

        devices(probe=True)
        print(json.dumps(as_json(devices())))


if __name__ == "__main__":
    main(sys.argv[1:])
