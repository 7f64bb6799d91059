"""A run in parts: ``mpiexec -n 2 python whole_state.py BACKEND plain|sharded LOAD SAVE BEGIN END``; - loads nothing."""

from __future__ import annotations

import sys

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import distributed, nn
from netcl.optim import AdamW

BATCH = 24


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """This rank's rows."""
    random = np.random.default_rng(step)
    x, y = random.standard_normal((BATCH, 40)).astype("f4"), random.integers(0, 5, BATCH)
    share = BATCH // distributed.world_size()
    rows = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    return x[rows], y[rows]


def main(kind: str, load: str, save: str, begin: int, end: int) -> None:
    """Train from step ``begin`` to step ``end``."""
    random = np.random.default_rng(0 if load == "-" else 9)
    model = nn.Sequential(nn.Linear(40, 70, generator=random), nn.ReLU(), nn.Linear(70, 5, generator=random))
    names = dict(model.named_parameters())
    bias = names.pop("2.bias")
    if kind == "plain":
        parts: list = [names.items(), [("2.bias", bias)]]
    else:
        parts = [distributed.shard(names.items()), distributed.shard([("2.bias", bias)])]
    lr = 1e-2 if load == "-" else 1.0
    opt = AdamW([{"params": parts[0], "lr": lr}, {"params": parts[1], "lr": lr / 2, "weight_decay": 0.0}])
    if load != "-" and kind == "plain":
        netcl.load(load, model=model, optimizer=opt)
    elif load != "-":
        netcl.load(load, model=model)
        distributed.scatter_state(opt, parts, netcl.load(load)["optimizer"] if distributed.rank() == 0 else None)
    for step in range(begin, end):
        x, y = batch(step)
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(netcl.asarray(x)), netcl.asarray(y))
        tape.backward(loss)
        opt.step()
        opt.zero_grad()
        if kind == "sharded":
            for shards in parts:
                distributed.gather(shards)
    state = opt if kind == "plain" else distributed.gather_state(opt, parts)
    distributed.rank_zero_only(netcl.save)(save, model=model, optimizer=state)


if __name__ == "__main__":
    distributed.init(sys.argv[1], timeout=60.0)
    main(*sys.argv[2:5], *map(int, sys.argv[5:]))
