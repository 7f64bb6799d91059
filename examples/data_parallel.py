"""Train the perceptron of fashion_mnist_mlp.py on several devices or machines at once.

    mpiexec -n 2 python examples/data_parallel.py --backend opencl

Without mpiexec it is the same training in one process: the ranks share each batch, so the weights agree but for the
order in which float32 numbers are added.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fashion_mnist_mlp import build, standardised_values

import netcl
import netcl.autograd as ag
from netcl import distributed, nn
from netcl.data import DataLoader, load_fashion_mnist
from netcl.distributed import DataParallel, DistributedSampler
from netcl.optim import AdamW, CosineAnnealingLR, clip_grad_norm_device


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", help='such as "numpy", "opencl" or "opencl:gpu": each rank takes one of these devices'
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128, help="of all ranks together (default: 128)")
    parser.add_argument("--lr", type=float, default=1e-3, help="initial learning rate (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the images")
    parser.add_argument("--subset", action="store_true", help="use the 6,000 images that ship with netcl")
    parser.add_argument("--limit", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the weights as safetensors after every epoch")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    return parser.parse_args(argv)


def train_epoch(model: DataParallel, loader: DataLoader, opt: AdamW) -> float:
    """The mean loss over the samples of all ranks."""
    total, samples = netcl.zeros(()), 0
    for x, y in loader:
        with ag.Tape() as tape:
            loss = ag.cross_entropy(model(x), y)
        tape.backward(loss)  # leaves the mean gradient of all ranks
        clip_grad_norm_device(model.model.parameters(), max_norm=1.0)
        opt.step()
        opt.zero_grad()
        total, samples = total + loss * len(y), samples + len(y)
    return distributed.reduce_metric(total.item(), "sum") / distributed.reduce_metric(samples, "sum")


def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """The share of images that are classified rightly; each rank looks at its own."""
    model.eval()
    right = netcl.zeros((), dtype=netcl.int64)
    for x, y in loader:
        right = right + netcl.sum(netcl.astype(netcl.argmax(model(x), axis=1) == y, netcl.int64))
    model.train()
    return distributed.reduce_metric(right.item(), "sum") / len(loader.dataset)


@distributed.rank_zero_only
def save(model: nn.Module, path: Path) -> None:
    netcl.save(path, model=model)


@distributed.rank_zero_only
def report(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> float:
    options = parse(argv)
    device = distributed.init(options.backend)
    ranks = distributed.world_size()
    if options.batch_size % ranks:
        raise SystemExit(f"--batch-size {options.batch_size} cannot be shared by {ranks} ranks; give a multiple")
    train, test = load_fashion_mnist(subset=options.subset)
    images, labels = train.images[: options.limit], train.labels[: options.limit]
    report(f"{ranks} rank(s), the first on {device.name} ({device})")
    report(f"data:   {len(images):,} training and {len(test):,} test images from {train.source}")

    values = standardised_values(images)
    batches = DataLoader(
        (values[images], labels),
        options.batch_size // ranks,
        sampler=DistributedSampler(len(images), shuffle=True, seed=options.seed),
        progress=distributed.rank() == 0 and not options.no_progress,
    )
    held_out = DataLoader(
        (values[test.images], test.labels), 1000, sampler=DistributedSampler(len(test), remainder="keep")
    )
    model = build(options.seed)
    opt = AdamW(model.named_parameters(), lr=options.lr, weight_decay=0.01)
    sched = CosineAnnealingLR(opt, T_max=options.epochs)
    parallel = DataParallel(model, opt)

    accuracy = 0.0
    for number in range(1, options.epochs + 1):
        started = time.perf_counter()
        loss = train_epoch(parallel, batches, opt)
        speed = len(images) / (time.perf_counter() - started)
        accuracy = evaluate(model, held_out)
        report(f"epoch {number}/{options.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}  {speed:,.0f} images/s")
        if options.save:
            save(model, options.save)
        sched.step()
    return accuracy


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
