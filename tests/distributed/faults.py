"""What goes wrong on rank 1 while the others train: ``mpiexec -n 2 python faults.py FAULT [FILE]``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from fashion_mnist_mlp import write

import netcl
import netcl.autograd as ag
from netcl import distributed, nn
from netcl.distributed import DataParallel
from netcl.optim import SGD


def train(fault: str, file: Path | None) -> None:
    if fault == "device":
        os.environ["NETCL_DEVICE"] = "numpy,opencl:99"
    if fault == "uninitialised":
        distributed.rank()
    distributed.init(None if fault == "device" else "numpy", timeout=1.5 if fault == "hang" else 60.0)
    model = nn.Linear(300, 200)
    opt = SGD(model.parameters(), lr=0.1)
    parallel = DataParallel(model, opt)

    @distributed.rank_zero_only
    def save() -> None:
        assert file is not None
        write(file, lambda name: np.savez(name, **model.state_dict()))

    for step in range(1000):
        if step == 3:
            print("under way", flush=True)
        if step == 3 and distributed.rank() == 1:
            if fault == "raise":
                raise ValueError("the data are spoilt")
            if fault == "exit":
                sys.exit()
            if fault == "kill":
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hang":
                time.sleep(600)
        if fault == "kill" and step == 3:
            while True:
                save()
        with ag.Tape() as tape:
            loss = netcl.sum(parallel(netcl.ones((4, 300))))
        tape.backward(loss)
        opt.step()
        opt.zero_grad()


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
