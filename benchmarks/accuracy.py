"""Test accuracy of the main job for ways to keep parameters and state in few bits.

    python benchmarks/accuracy.py [--epochs N] [--seeds N] [--backend NAME] [--subset]

The network, its data, optimizer, batch size and schedule are those of ``examples/fashion_mnist_mlp.py``; a seed gives
the same weights and order of images in every way.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import pairwise
from typing import Any

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.data import load_fashion_mnist
from netcl.optim import AdamW, CosineAnnealingLR

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32": ("float32", {}),
    "float32, 8-bit state": ("float32", {"state_dtype": "8bit"}),
    "float32, 4-bit state": ("float32", {"state_dtype": "4bit"}),
    "bfloat16, Kahan": ("bfloat16", {"rounding": "kahan"}),
    "bfloat16, stochastic": ("bfloat16", {"rounding": "stochastic"}),
    "bfloat16, stochastic, 8-bit state": ("bfloat16", {"rounding": "stochastic", "state_dtype": "8bit"}),
}
"""The dtype of the parameters, and the options."""


def standardised(images: Any, mean: float, deviation: float, dtype: str) -> netcl.Tensor:
    """Grey values less the mean of the training images, over their deviation."""
    return netcl.astype(netcl.asarray(((images / 255 - mean) / deviation).astype(np.float32)), dtype)


def accuracy(way: str, seed: int, epochs: int, train: Any, test: Any) -> float:
    """Percent of the test images that a run gets right."""
    dtype, options = WAYS[way]
    random = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((784, 256, 128, 100, 10)):
        layers += [nn.Linear(n_in, n_out, generator=random, dtype=dtype), nn.ReLU()]
    model = nn.Sequential(nn.Flatten(), *layers[:-1])
    opt = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, **options)
    schedule = CosineAnnealingLR(opt, T_max=epochs)
    mean, deviation = train.images.mean() / 255, train.images.std() / 255
    x = standardised(train.images, mean, deviation, dtype)
    held_out = standardised(test.images, mean, deviation, dtype)
    y = netcl.asarray(train.labels.astype(np.int64))
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(train.labels))
        for start in range(0, len(order) - 127, 128):
            chosen = netcl.asarray(order[start : start + 128])
            with ag.Tape() as tape:
                loss = ag.cross_entropy(model(netcl.take(x, chosen, axis=0)), netcl.take(y, chosen))
            tape.backward(loss)
            opt.step(max_norm=1.0)
            opt.zero_grad()
        schedule.step()
    right = np.asarray(netcl.argmax(model(held_out), axis=1)) == test.labels
    return 100.0 * float(right.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backend")
    parser.add_argument("--subset", action="store_true", help="the 6,000 images that ship with netcl")
    options = parser.parse_args()
    train, test = load_fashion_mnist(subset=options.subset)
    with netcl.use_backend(options.backend):
        print(f"{netcl.get_backend().device.name}, {options.epochs} epochs, {len(train.labels):,} images\n")
        print("| parameters and state | test accuracy, % | mean less that of float32 |\n|---|---|---|")
        base = None
        for way in WAYS:
            found = [accuracy(way, seed, options.epochs, train, test) for seed in range(options.seeds)]
            mean = statistics.mean(found)
            base = mean if base is None else base
            print(f"| {way} | {', '.join(f'{one:.2f}' for one in found)} | {mean - base:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
