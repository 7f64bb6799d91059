"""``netcl demo``: train a small network on real images, with a progress bar and a picture at the end."""

from __future__ import annotations

import argparse
import io
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.data import DataLoader, ImageSet, load_fashion_mnist
from netcl.files import write_atomically
from netcl.optim import AdamW, CosineAnnealingLR

SHOWN = 12
"""How many classified images the picture shows."""


@dataclass
class Curves:
    """What each epoch gave."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of ``netcl``."""
    parser = subparsers.add_parser(
        "demo",
        help="train a small network on Fashion-MNIST and write a picture",
        description="Train a 784-256-128-10 perceptron on Fashion-MNIST: the full set where it is found, else the "
        "6,000 images that ship with netcl.",
    )
    parser.add_argument("--backend", metavar="NAME", help="such as opencl:gpu (default: the best device there is)")
    parser.add_argument("--epochs", type=int, default=5, help="default: 5")
    parser.add_argument("--subset", action="store_true", help="take the images that ship with netcl in any case")
    parser.add_argument("--output", type=Path, default=Path("netcl-demo.png"), metavar="FILE", help="the picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, print a line per epoch, write the picture. **Blocks**; the exit status is 0, or 2 for a wrong argument."""
    picture: Path = arguments.output
    if arguments.epochs < 1:
        return _refuse(f"--epochs must be at least 1, got {arguments.epochs}")
    if not picture.absolute().parent.is_dir():
        return _refuse(f"--output {picture}: the folder does not exist; create it first")
    can_draw = find_spec("matplotlib") is not None
    if not can_draw:
        print('no picture will be drawn: pip install "netcl[plot]" brings matplotlib')
    with netcl.use_backend(arguments.backend) as backend:
        device = backend.device
        print(f"device: {device.name} ({device})")
        train, test = load_fashion_mnist(subset=arguments.subset)
        print(f"data:   {len(train):,} training and {len(test):,} test images from {train.source}", flush=True)
        started = time.perf_counter()
        curves, predicted = fit(train, test, arguments.epochs)
        seconds = time.perf_counter() - started
    print(f"{curves.accuracy[-1]:.1%} of the test images are classified rightly, after {seconds:.1f} s")
    if can_draw:
        title = f"Fashion-MNIST on {device.name}: {curves.accuracy[-1]:.1%} of the test images right"
        draw(picture, title, curves, test, predicted)
        print(f"picture: {picture.absolute()}")
    return 0


def _refuse(message: str) -> int:
    print(f"netcl demo: {message}", file=sys.stderr)
    return 2


def fit(train: ImageSet, test: ImageSet, epochs: int) -> tuple[Curves, NDArray[np.int64]]:
    """Train on the default device. **Blocks**.

    Returns
    -------
    (Curves, numpy.ndarray)
        What each epoch gave, and the class that each test image was given at the end.
    """
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256, generator=1),
        nn.ReLU(),
        nn.Linear(256, 128, generator=2),
        nn.ReLU(),
        nn.Linear(128, 10, generator=3),
    )
    grey = (np.arange(256) / 255).astype(np.float32)
    batches = DataLoader((grey[train.images], train.labels), 128, shuffle=True, progress=find_spec("tqdm") is not None)
    held_out = DataLoader((grey[test.images],), 1000)
    opt = AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    sched = CosineAnnealingLR(opt, T_max=epochs)
    curves = Curves()
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        total = netcl.zeros(())
        for x, y in batches:
            with ag.Tape() as tape:
                loss = ag.cross_entropy(model(x), y)
            tape.backward(loss)
            opt.step(max_norm=1.0)
            opt.zero_grad()
            total = total + loss * len(y)
        curves.loss.append(total.item() / len(train))
        speed = len(train) / (time.perf_counter() - started)
        predicted = np.concatenate([netcl.argmax(model(x), axis=1).numpy() for (x,) in held_out])
        curves.accuracy.append(float((predicted == test.labels).mean()))
        curves.lr.append(opt.lr)
        sched.step()
        print(
            f"epoch {epoch:>{len(str(epochs))}}/{epochs}  loss {curves.loss[-1]:.4f}  "
            f"accuracy {curves.accuracy[-1]:.4f}  {speed:,.0f} images/s",
            flush=True,
        )
    return curves, predicted


def draw(path: Path, title: str, curves: Curves, test: ImageSet, predicted: NDArray[np.int64]) -> None:
    """Write the curves and some classified test images as a picture; ``path`` is old or new, never half of either."""
    figure = import_module("matplotlib.figure").Figure(figsize=(11, 6.5), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2))
    left, right = above.subplots(1, 2)
    numbers = range(1, len(curves.loss) + 1)
    left.plot(numbers, curves.loss, "o-", color="tab:blue")
    left.set(xlabel="epoch", ylabel="cross-entropy", title="Training loss")
    right.plot(numbers, curves.accuracy, "o-", color="tab:green")
    right.set(xlabel="epoch", ylabel="share of test images", title="Test accuracy")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    wrong = np.flatnonzero(predicted != test.labels)[: SHOWN // 3]
    right_ones = np.flatnonzero(predicted == test.labels)[: SHOWN - len(wrong)]
    for axis, index in zip(below.subplots(2, SHOWN // 2).flat, [*right_ones, *wrong], strict=False):
        axis.imshow(test.images[index], cmap="gray_r")
        said, is_right = test.classes[predicted[index]], predicted[index] == test.labels[index]
        label = said if is_right else f"{said}\n(is {test.classes[test.labels[index]]})"
        axis.set_xlabel(label, fontsize=8, color="black" if is_right else "tab:red")
        axis.set(xticks=(), yticks=())
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format=path.suffix[1:] or "png")
    write_atomically(path, content.getvalue())
