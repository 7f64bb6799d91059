"""What can be counted of netcl's steps on a backend: launches, transfers that are waited for, and the host's time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat

import numpy as np

import netcl
import netcl.autograd as ag
from netcl import amp, optim
from netcl.data import DataLoader

from .ratios import RUNTIMES, Figure
from .steps import Work, expressions_side, netcl_side, tensors, values


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    large: int = 10_000_000
    many: int = 1000
    images: int = 6_000
    host_steps: int = 500
    training_steps: int = 100


QUICK = Size(large=200_000, many=50, images=1280, host_steps=20, training_steps=20)


def launches(runtime: str, size: Size) -> list[Figure]:
    """Kernels enqueued by one step."""
    return list(_launches(runtime, size))


def _launches(runtime: str, size: Size) -> Iterator[Figure]:
    backend = netcl.get_backend(RUNTIMES[runtime])
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


def host_time(runtime: str, size: Size) -> list[Figure]:
    """What step() takes until it returns; the device is waited for in between."""
    backend, found = netcl.get_backend(RUNTIMES[runtime]), []
    for count, limit in ((1, 60.0), (size.many, 150.0)):
        optimizer = optim.AdamW(tensors(backend, values(count, 1000)), lr=1e-3)
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
            found.append(Figure("host time per step", runtime, middle * 1e6, "µs", limit, note))
    return found


def blocking(runtime: str, size: Size) -> list[Figure]:
    """Transfers that are waited for while a model is trained with clipping and a schedule, without and with AMP."""
    from examples.fashion_mnist_mlp import build

    backend, found = netcl.get_backend(RUNTIMES[runtime]), []
    random = np.random.default_rng(0)
    data = random.standard_normal((1280, 784), dtype=np.float32), random.integers(0, 10, 1280)
    loader = DataLoader(data, batch_size=128, device=backend.device)
    for enabled in (False, True):
        model = build(0).to(str(backend.device))
        optimizer = optim.AdamW(model.parameters(), lr=1e-3)
        schedule = optim.WarmupCosine(optimizer, warmup_steps=10, total_steps=size.training_steps)
        scaler = amp.GradScaler(enabled=enabled)
        before = backend.blocking
        for x, y in islice(chain.from_iterable(repeat(loader)), size.training_steps):
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
        found.append(Figure("blocking transfers", runtime, waits, "transfers", 0, note))
        backend.synchronize()
    return found


def different(runtime: str, size: Size) -> list[Figure]:
    """Elements that differ, in any bit, between the reference backend and AdamW written in NumPy."""
    work = Work("reference AdamW", "AdamW", 1, size.large)
    sides = netcl_side(RUNTIMES[runtime], work), expressions_side(size.large)
    bits = []
    for side in sides:
        side.run(5)
        bits.append(side.result()[0].view(np.uint32))
    count = int(np.count_nonzero(bits[0] != bits[1]))
    return [Figure(work.row, runtime, count, "elements that differ after 5 steps", 0)]


COUNTS = {
    "launches": (launches, ("intel", "pocl")),
    "blocking": (blocking, ("intel", "pocl")),
    "host": (host_time, ("intel", "pocl")),
    "different": (different, ("numpy",)),
}
"""What is counted, and on which backends."""
