"""A little of everything on one backend, for a process that starts with what an earlier one left in the caches.

``python warm_run.py NAME`` prints a line per check; test_warm_caches.py compares what two such processes print.
"""

from __future__ import annotations

import sys

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.optim import SGD, Adam, AdamW, Momentum, RMSProp

OPTIMIZERS = {
    "SGD": lambda params: SGD(params, lr=0.05),
    "Momentum": lambda params: Momentum(params, lr=0.05),
    "Adam": lambda params: Adam(params, lr=0.01),
    "AdamW": lambda params: AdamW(params, lr=0.01),
    "RMSProp": lambda params: RMSProp(params, lr=0.01),
}


def train(name, dtype):
    """A small network learns its own labels."""
    random = np.random.default_rng(0)
    first, last = (nn.Linear(n, m, generator=random, dtype=dtype) for n, m in ((9, 17), (17, 5)))
    model = nn.Sequential(first, nn.ReLU(), last)
    x = netcl.asarray(random.standard_normal((23, 9)), dtype=dtype)
    y = netcl.asarray(random.integers(0, 5, 23))
    opt = OPTIMIZERS[name](list(model.parameters()))
    losses = []
    for _ in range(3):
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(x), y)
        tape.backward(loss)
        netcl.optim.clip_grad_norm(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[-1] > 0
    return losses


def arithmetic(dtype):
    """Operators and reductions, exact in every dtype."""
    host = np.arange(35).reshape(5, 7) % 6
    x = netcl.asarray(host, dtype=dtype)
    wanted = [host + host, host * 2, host.sum(axis=0), host.sum(axis=1), host.max()]
    found = [x + x, x * 2, netcl.sum(x, axis=0), netcl.sum(x, axis=1), netcl.max(x)]
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(netcl.astype(got, netcl.float32).numpy(), expected)
    return int(wanted[-1])


def main(device):
    netcl.set_backend(device)
    for n in (1, 4, 32, 33, 1000):
        for dtype in ("int64", "uint64", "float64"):
            np.testing.assert_array_equal(netcl.full((n,), 5, dtype=dtype).numpy(), np.full(n, 5, dtype))
    for dtype in ("float32", "float64"):
        for name in OPTIMIZERS if dtype == "float32" else ("AdamW", "Momentum"):
            print(name, dtype, train(name, dtype))
        for shape in ((3, 5), (4, 8), (7, 33), (1, 1)):
            x = np.random.default_rng(1).standard_normal(shape)
            shares = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            got = ag.softmax(netcl.asarray(x, dtype=dtype), axis=1).numpy()
            np.testing.assert_allclose(got, shares, rtol=1e-5)
        a, b = np.random.default_rng(2).standard_normal((2, 13, 13))
        got = (netcl.asarray(a, dtype=dtype) @ netcl.asarray(b, dtype=dtype)).numpy()
        np.testing.assert_allclose(got, a @ b, rtol=1e-4, atol=1e-4)
        print("functions", dtype, netcl.sum(netcl.exp(netcl.tanh(netcl.asarray(a, dtype=dtype)))).item())
    for dtype in ("uint8", "int64", "float16", "float64"):
        print("arithmetic", dtype, arithmetic(getattr(netcl, dtype)))


if __name__ == "__main__":
    main(sys.argv[1])
