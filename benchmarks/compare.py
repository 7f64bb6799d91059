"""netcl beside torch, and beside kernels that only move the same bytes: ratios, measured in one run.

    python benchmarks/compare.py [--quick] [--runtime intel|pocl|all] [--only NAME ...] [--json FILE]

The sides of a row take turns, round by round, each after an untimed run of its own, so that a change of the machine's
mood meets them all. A ratio is the median of the rounds' ratios; beside it stand the middle half of them, and the ratio
of the best samples, which suffers least from whatever else the machine does. torch runs with two threads.

Whole steps are measured ten in a row, on every side: netcl only enqueues them, as in training, and waits at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import netcl  # noqa: E402
import netcl.autograd as ag  # noqa: E402
from benchmarks.ratios import Figure, Line, Run, environment, ratios, report  # noqa: E402
from benchmarks.steps import (  # noqa: E402
    RUNTIMES,
    STEPS,
    opencl_runtimes,
    own_steps,
    tensors,
    torch_steps,
    torch_tensors,
    traffic,
    values,
)
from netcl import amp, optim  # noqa: E402
from netcl.data import DataLoader  # noqa: E402
from netcl.optim.optimizer import Optimizer  # noqa: E402

ROUNDS = 15


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = ROUNDS
    large: int = 10_000_000
    many: int = 1000
    images: int = 12_800
    host_steps: int = 500
    training_steps: int = 100


QUICK = Size(rounds=3, large=200_000, many=50, images=1280, host_steps=20, training_steps=20)


def sized(row: str, count: int, n: int) -> str:
    return f"{row}, {count:,} × {n:,}"


def step_row(
    row: str,
    build: Callable[[Any], Any],
    build_torch: Callable[[Any], Any],
    target: float | None,
    *,
    layout: Callable[[Size], tuple[int, int]] = lambda size: (1, size.large),
    fields: int | None = None,
    max_norm: float | None = None,
) -> Callable[[str, Any, Size], Iterator[Line]]:
    """A row that compares whole steps of one optimizer."""

    def lines(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
        count, n = layout(size)
        arrays = values(count, n)
        theirs = torch_tensors(arrays)
        sides = {
            "netcl": own_steps(backend, build(tensors(backend, arrays)), max_norm=max_norm),
            "torch": torch_steps(build_torch(theirs), theirs, max_norm),
        }
        targets = {} if target is None else {"torch": target}
        if fields is not None:
            sides["traffic"] = traffic(backend, count * n, updated=1 + fields)
            targets["traffic"] = 1 / 0.95
        yield from ratios(sized(row, count, n), runtime, sides, targets, size.rounds)

    return lines


def scaled(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    """Unscale, look for infinities, clip and step."""
    import torch

    arrays = values(1, size.large)
    params, theirs = tensors(backend, arrays), torch_tensors(arrays)
    optimizer, peer = adamw(params), torch_adamw(theirs)
    # A scale of 1: torch divides its gradients in place, again in every round.
    scaler, peer_scaler = amp.GradScaler(init_scale=1.0), torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(netcl.ones((), device=backend.device))
    peer_scaler.scale(torch.ones(()))

    def run() -> None:
        for _ in range(STEPS):
            scaler.step(optimizer, max_norm=1.0)
            scaler.update()
        backend.synchronize()

    def torch_run() -> None:
        for _ in range(STEPS):
            peer_scaler.unscale_(peer)
            torch.nn.utils.clip_grad_norm_(theirs, 1.0)
            peer_scaler.step(peer)
            peer_scaler.update()

    row = sized("scaler + clip + AdamW", 1, size.large)
    yield from ratios(row, runtime, {"netcl": run, "torch": torch_run}, {"torch": 0.60}, size.rounds)


def adamw(params: Any) -> Any:
    return optim.AdamW(params, lr=1e-3)


def torch_adamw(params: Any) -> Any:
    import torch

    return torch.optim.AdamW(params, lr=1e-3, fused=True)


def sgd(params: Any) -> Any:
    return optim.SGD(params, lr=1e-3, momentum=0.9)


def torch_sgd(params: Any) -> Any:
    import torch

    return torch.optim.SGD(params, lr=1e-3, momentum=0.9, fused=True)


def rmsprop(**options: Any) -> dict[str, Any]:
    def ours(params: Any) -> Any:
        return optim.RMSProp(params, lr=1e-3, **options)

    def theirs(params: Any) -> Any:
        import torch

        return torch.optim.RMSprop(params, lr=1e-3, **options)

    return {"build": ours, "build_torch": theirs}


class TracedAdamW(Optimizer):
    """AdamW whose rule the backend traces, where ``optim.AdamW`` runs the kernel written by hand."""

    def __init__(self, params: Any) -> None:
        source = optim.AdamW([netcl.ones(1, backend="numpy")])
        rule = replace(source._rule, fused_adam=False)
        super().__init__(params, source.defaults, lambda groups: rule, source._check)


def traced(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    arrays = values(1, size.large)
    sides = {
        "netcl": own_steps(backend, TracedAdamW(tensors(backend, arrays))),
        "hand-written": own_steps(backend, adamw(tensors(backend, arrays))),
    }
    yield from ratios(sized("AdamW traced", 1, size.large), runtime, sides, {"hand-written": 1.03}, size.rounds)


def plain_adamw(p: np.ndarray, g: np.ndarray) -> Run:
    """AdamW as one writes it in NumPy, with the roundings of the reference backend."""
    beta1, beta2, one, two, lr, eps, decay = map(np.float32, (0.9, 0.999, 1 - 0.9, 1 - 0.999, 1e-3, 1e-8, 0.01))
    logs = [float(np.float32(math.log(beta))) for beta in (0.9, 0.999)]
    m, v = np.zeros_like(p), np.zeros_like(p)
    t = 0

    def run() -> None:
        nonlocal m, v, t
        t += 1
        c1, c2 = (np.float32(-np.expm1(t * log)) for log in logs)
        m = beta1 * m + one * g
        v = beta2 * v + two * (g * g)
        p[...] = p - lr * ((m / c1) / (np.sqrt(v / c2) + eps) + decay * p)

    return run


def reference(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    backend = netcl.get_backend("numpy")
    arrays = values(1, size.large)
    (ours,) = tensors(backend, arrays)
    theirs = arrays[0][0].copy()
    steps = {"netcl": adamw([ours]).step, "NumPy expressions": plain_adamw(theirs, arrays[0][1])}
    for _ in range(5):
        for run in steps.values():
            run()
    different = int(np.count_nonzero(ours.numpy().view(np.uint32) != theirs.view(np.uint32)))
    row = sized("reference AdamW", 1, size.large)
    yield Figure(row, "numpy", different, "elements that differ after 5 steps", 0)
    yield from ratios(row, "numpy", steps, {"NumPy expressions": 0.5}, size.rounds)


def launches(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    """Kernels enqueued by one step."""
    for count, groups in ((1, 1), (size.many, 1), (10, 10), (size.many, 10)):
        params = tensors(backend, values(count, 100))
        optimizer = optim.AdamW([{"params": params[i::groups], "lr": 1e-3 * (i + 1)} for i in range(groups)])
        scaler = amp.GradScaler(init_scale=1.0)
        scaler.scale(netcl.ones((), device=backend.device))
        for name, step, target in (
            ("plain", optimizer.step, 1),
            ("clipped", partial(optimizer.step, max_norm=1.0), 3),
            ("scaled", partial(scaler.step, optimizer), 3),
            ("scaled and clipped", partial(scaler.step, optimizer, max_norm=1.0), 3),
        ):
            counted = 0
            # The first step, and a plain one after another, prepare the step block anew.
            for _ in range(3):
                before = backend.launches
                step()
                counted = backend.launches - before
                if name.startswith("scaled"):
                    scaler.update()
            note = f"{name}, {count} tensor(s), {groups} group(s)"
            yield Figure("launches per step", runtime, counted, "launches", target, note)


def host_time(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    """What step() takes until it returns; the device is waited for in between."""
    for count, limit in ((1, 60.0), (size.many, 150.0)):
        optimizer = adamw(tensors(backend, values(count, 1000)))
        for options in ({}, {"max_norm": 1.0}):
            samples = []
            for number in range(size.host_steps + 10):
                started = time.perf_counter()
                optimizer.step(**options)
                if number >= 10:
                    samples.append(time.perf_counter() - started)
                backend.synchronize()
            low, middle, _ = statistics.quantiles(samples, n=4)
            note = f"{count} tensor(s){', max_norm' if options else ''}; a quarter of them below {low * 1e6:.0f}"
            yield Figure("host time per step", runtime, middle * 1e6, "µs", limit, note)


def perceptron(device: Any) -> Any:
    from examples.fashion_mnist_mlp import build

    return build(0).to(str(device))


def images(size: Size) -> tuple[np.ndarray, np.ndarray]:
    from examples.fashion_mnist_mlp import standardised_values
    from netcl.data import load_fashion_mnist

    train, _ = load_fashion_mnist()
    return standardised_values(train.images)[train.images[: size.images]], train.labels[: size.images]


def blocking(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    """Transfers that are waited for while a model is trained with clipping and a schedule, without and with AMP."""
    random = np.random.default_rng(0)
    loader = DataLoader(
        (random.standard_normal((1280, 784), dtype=np.float32), random.integers(0, 10, 1280)),
        batch_size=128,
        device=backend.device,
    )
    for enabled in (False, True):
        model = perceptron(backend.device)
        optimizer = adamw(model.parameters())
        schedule = optim.WarmupCosine(optimizer, warmup_steps=10, total_steps=size.training_steps)
        scaler = amp.GradScaler(enabled=enabled)
        batches = chain.from_iterable(repeat(loader))
        before = backend.blocking
        for x, y in islice(batches, size.training_steps):
            with ag.Tape() as tape, amp.autocast(enabled=enabled):
                loss = ag.cross_entropy(model(x), y)
            tape.backward(scaler.scale(loss))
            scaler.unscale_(optimizer)
            optim.clip_grad_norm_device(model.parameters(), max_norm=1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()
        waits = backend.blocking - before
        note = f"{size.training_steps} training steps, clipping and a schedule{', float16 and a scaler' * enabled}"
        yield Figure("blocking transfers", runtime, waits, "transfers", 0, note)
        backend.synchronize()


def main_job(runtime: str, backend: Any, size: Size) -> Iterator[Line]:
    """Training steps of the example, batch 128, beside the same in torch."""
    import torch

    from examples.fashion_mnist_mlp import train_epoch

    data = images(size)
    model = perceptron(backend.device)
    loader = DataLoader(data, 128, shuffle=True, device=str(backend.device))
    optimizer = adamw(model.parameters())

    widths = (784, 256, 128, 100, 10)
    layers: list[Any] = [torch.nn.Flatten()]
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    peer = torch.nn.Sequential(*layers[:-1])
    peer_optimizer = torch_adamw(peer.parameters())
    x_all, y_all = torch.tensor(data[0]), torch.tensor(data[1])

    def torch_epoch() -> float:
        total = torch.zeros(())
        for rows in torch.randperm(len(y_all)).split(128):
            x, y = x_all[rows], y_all[rows]
            loss = torch.nn.functional.cross_entropy(peer(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
            peer_optimizer.step()
            peer_optimizer.zero_grad()
            total += loss.detach() * len(y)
        return total.item()

    scaler = amp.GradScaler(enabled=False)
    sides = {"netcl": lambda: train_epoch(model, loader, optimizer, scaler, None), "torch": torch_epoch}
    target = 1.2 if runtime == "numpy" else 1.5
    yield from ratios(f"main job, {len(loader)} steps", runtime, sides, {"torch": target}, size.rounds)


OPENCL: dict[str, Callable[[str, Any, Size], Iterator[Line]]] = {
    "launches": launches,
    "blocking": blocking,
    "host": host_time,
    "adamw": step_row("AdamW", adamw, torch_adamw, 1.0, fields=2),
    "adamw-200": step_row("AdamW", adamw, torch_adamw, 0.80, layout=lambda s: (200, s.large // 200)),
    "adamw-1000": step_row("AdamW", adamw, torch_adamw, 0.06, layout=lambda s: (s.many, 1000)),
    "clip": step_row("clip + AdamW", adamw, torch_adamw, 0.76, max_norm=1.0),
    "scaler": scaled,
    "sgd": step_row("SGD with momentum", sgd, torch_sgd, 1.0, fields=1),
    "rmsprop": step_row("RMSProp", **rmsprop(), target=0.2, fields=1),
    "rmsprop-centered": step_row("RMSProp centered", **rmsprop(centered=True), target=0.2, fields=2),
    "rmsprop-momentum": step_row("RMSProp with momentum", **rmsprop(momentum=0.9), target=0.2, fields=2),
    "traced": traced,
    "main": main_job,
}
NUMPY = {"reference": reference, "main": main_job}
NAMES = list(dict.fromkeys([*OPENCL, *NUMPY]))


def main(argv: Sequence[str] | None = None) -> list[Line]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it run")
    parser.add_argument("--runtime", choices=[*RUNTIMES, "all"], default="all", help="the OpenCL runtime")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, help=f"samples of each side (default: {ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else Size()
    if options.rounds:
        size = replace(size, rounds=options.rounds)
    import torch

    torch.set_num_threads(2)
    runtimes = opencl_runtimes(options.runtime)
    machine = environment(runtimes)
    for name, value in machine.items():
        print(f"{name}: {value}")

    lines: list[Line] = []
    work = [(name, run, backend, OPENCL) for name in OPENCL for run, backend in runtimes.items()]
    work += [(name, "numpy", netcl.get_backend("numpy"), NUMPY) for name in NUMPY]
    for name, runtime, backend, rows in work:
        if name not in options.only:
            continue
        print(f"… {name}, {runtime}", file=sys.stderr, flush=True)
        lines += rows[name](runtime, backend, size)
        gc.collect()
    print(f"\n{report(lines)}")
    if options.json:
        found = {"machine": machine, "size": asdict(size), "lines": [asdict(x) | {"met": x.met} for x in lines]}
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return lines


if __name__ == "__main__":
    main()
