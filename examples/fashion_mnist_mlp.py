"""Train a multilayer perceptron, 784-256-128-100-10, on Fashion-MNIST.

    python examples/fashion_mnist_mlp.py --backend opencl --plot curves.png

The loop is the one of docs/optim.md with the clipping left to the step, so nothing in it waits: the loss is added up on
the device and read once per epoch. ``--amp float16`` or ``--amp bfloat16`` trains in mixed precision. With
``--checkpoint FILE`` a run that was interrupted or killed goes on after its last whole epoch when it is started again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.amp import GradScaler, autocast
from netcl.data import DataLoader, load_fashion_mnist
from netcl.optim import AdamW, CosineAnnealingLR

PUBLISHED = 0.8833  # test accuracy of a 256-128-100 MLP in the data set's own benchmark


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: the mean training loss, the test accuracy, the learning rate, images per second."""

    loss: float
    accuracy: float
    lr: float
    speed: float


@dataclass(frozen=True)
class Result:
    """A finished run."""

    device: str
    source: str
    epochs: list[Epoch]

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch."""
        return self.epochs[-1].accuracy


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", help='such as "numpy", "opencl" or "opencl:gpu" (default: the best device there is)'
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--amp", choices=("float16", "bfloat16"), help="take matrix products in 16 bits")
    parser.add_argument("--lr", type=float, default=1e-3, help="initial learning rate (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the images")
    parser.add_argument("--subset", action="store_true", help="use the 6,000 images that ship with netcl")
    parser.add_argument("--limit", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the curves")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the weights as safetensors")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="save the run here; go on from it if it is there"
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    options = parser.parse_args(argv)
    for name in ("epochs", "batch_size", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    for path in (options.plot, options.save, options.checkpoint):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"{path}: the folder does not exist; create it first")
    return options


def build(seed: int) -> nn.Module:
    random = np.random.default_rng(seed)
    sizes = (784, 256, 128, 100, 10)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out, generator=random), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def standardised_values(images: np.ndarray) -> np.ndarray:
    """What each of the 256 grey values becomes: in [0, 1], less the mean of these images, over their deviation."""
    grey = np.arange(256) / 255
    share = np.bincount(images.reshape(-1), minlength=256) / images.size
    mean = share @ grey
    return ((grey - mean) / np.sqrt(share @ (grey - mean) ** 2)).astype(np.float32)


def evaluate(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = netcl.zeros((), dtype=netcl.int64, device=loader.device)
    for x, y in loader:
        right = right + netcl.sum(netcl.astype(netcl.argmax(model(x), axis=1) == y, netcl.int64))
    model.train()
    return right.item() / len(loader.dataset)


def train_epoch(model: nn.Module, loader: DataLoader, opt: AdamW, scaler: GradScaler, amp: str | None) -> float:
    total = netcl.zeros((), device=loader.device)
    for x, y in loader:
        with ag.Tape() as tape, autocast(dtype=amp or "float16", enabled=amp is not None):
            loss = ag.cross_entropy(model(x), y)
        tape.backward(scaler.scale(loss))
        scaler.step(opt, max_norm=1.0)
        scaler.update()
        opt.zero_grad()
        total = total + loss * len(y)
    return total.item() / len(loader.dataset)


def write(path: Path, save: Callable[[str], object]) -> None:
    """Write to a file beside ``path`` and rename it, so that ``path`` is old or new but never half of either."""
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.absolute().parent)
    os.close(handle)
    try:
        save(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())  # before it takes the name, or a power failure may leave half of it under that
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def plot(result: Result, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(f"Fashion-MNIST on {result.device}: test accuracy {result.accuracy:.4f}")
    left, right = figure.subplots(1, 2)
    numbers = range(1, len(result.epochs) + 1)
    (loss,) = left.plot(numbers, [e.loss for e in result.epochs], "o-", color="tab:blue", label="training loss")
    left.set(xlabel="epoch", ylabel="cross-entropy", title="Loss and learning rate")
    rate_axis = left.twinx()
    (rate,) = rate_axis.plot(numbers, [e.lr for e in result.epochs], "--", color="tab:gray", label="learning rate")
    rate_axis.set(ylabel="learning rate", ylim=(0, None))
    left.legend(handles=[loss, rate], loc="upper right")
    right.plot(numbers, [e.accuracy for e in result.epochs], "o-", color="tab:green", label="test accuracy")
    right.axhline(PUBLISHED, linestyle=":", color="tab:red", label=f"published, {PUBLISHED}")
    right.set(xlabel="epoch", ylabel="share of test images", title="Accuracy")
    right.legend(loc="lower right")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    write(path, lambda name: figure.savefig(name, dpi=120))


def main(argv: Sequence[str] | None = None) -> Result:
    options = parse(argv)
    if options.plot:
        import matplotlib.figure  # noqa: F401 - fail before the training, not after it
    with netcl.use_backend(options.backend):
        return run(options)


def run(options: argparse.Namespace) -> Result:
    model = build(options.seed)
    device = next(iter(model.parameters())).device
    name = f"{device.name} ({device})"
    train, test = load_fashion_mnist(subset=options.subset)
    images, labels = train.images[: options.limit], train.labels[: options.limit]
    print(f"device: {name}")
    print(f"data:   {len(images):,} training and {len(test):,} test images from {train.source}", flush=True)

    values = standardised_values(images)
    batches = DataLoader(
        (values[images], labels),
        options.batch_size,
        shuffle=True,
        seed=options.seed,
        device=str(device),
        progress=not options.no_progress,
    )
    held_out = DataLoader((values[test.images], test.labels), 1000, device=str(device))
    opt = AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    scaler = GradScaler(enabled=options.amp is not None)
    sched = CosineAnnealingLR(opt, T_max=options.epochs)

    result = Result(name, train.source, [])
    parts = {"model": model, "optimizer": opt, "schedule": sched, "scaler": scaler, "loader": batches}
    if options.checkpoint and options.checkpoint.exists():
        result.epochs.extend([Epoch(**epoch) for epoch in netcl.load(options.checkpoint, **parts)["epochs"]])
        print(f"going on from {options.checkpoint}, after {len(result.epochs)} epoch(s)", flush=True)
    for number in range(len(result.epochs) + 1, options.epochs + 1):
        started = time.perf_counter()
        lr, loss = opt.lr, train_epoch(model, batches, opt, scaler, options.amp)
        speed = len(images) / (time.perf_counter() - started)
        epoch = Epoch(loss, evaluate(model, held_out), lr, speed)
        result.epochs.append(epoch)
        print(
            f"epoch {number:>{len(str(options.epochs))}}/{options.epochs}  loss {epoch.loss:.4f}  "
            f"accuracy {epoch.accuracy:.4f}  lr {epoch.lr:.2e}  {epoch.speed:,.0f} images/s",
            flush=True,
        )
        sched.step()
        if options.checkpoint:
            netcl.save(options.checkpoint, **parts, extra={"epochs": [asdict(epoch) for epoch in result.epochs]})
    if options.save:
        netcl.save(options.save, model=model)
    if options.plot:
        plot(result, options.plot)
    return result


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; with --checkpoint FILE the same command goes on after the last whole epoch")
