"""netcl's optimizer steps beside those of torch, optax, MLX and tinygrad: ratios, measured in one run.

    pip install -e ".[cpu,pocl,parity,peers]"
    python benchmarks/peers.py [--quick] [--runtime intel|pocl|all] [--peers NAME ...] [--json FILE]

All run on the processor, with as many threads as it has cores: torch with ``fused=True`` where it has that, optax under
``jax.jit`` with its buffers donated, MLX compiled or not, whichever is faster, tinygrad under ``TinyJit``. What is not
installed is left out; tinygrad also needs clang. Before anything is timed, ten steps of each must give netcl's
parameters. Steps are measured ten in a row.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratios import Line, Run, compared, environment, measure, report  # noqa: E402
from benchmarks.steps import (  # noqa: E402
    RUNTIMES,
    STEPS,
    Arrays,
    opencl_runtimes,
    own_steps,
    tensors,
    torch_steps,
    torch_tensors,
    values,
)
from netcl import optim  # noqa: E402

ROUNDS = 9
LR, MOMENTUM, DECAY, MAX_NORM = 1e-3, 0.9, 0.01, 1.0


@dataclass(frozen=True)
class Work:
    """One row: an optimizer over so many tensors of so many elements."""

    row: str
    optimizer: str
    count: int
    n: int
    max_norm: float | None = None


@dataclass(frozen=True)
class Side:
    """Ten steps, waited for at the end; and the parameters as they are."""

    run: Run
    parameters: Callable[[], list[np.ndarray]]


def works(large: int, many: int) -> list[Work]:
    return [
        Work("AdamW", "AdamW", 1, large),
        Work("AdamW", "AdamW", many // 5, large // (many // 5)),
        Work("AdamW", "AdamW", many, 1000),
        Work("clip + AdamW", "AdamW", 1, large, MAX_NORM),
        Work("SGD with momentum", "SGD", 1, large),
        Work("RMSProp", "RMSProp", 1, large),
    ]


def netcl_side(backend: Any, work: Work, arrays: Arrays) -> Side:
    made = tensors(backend, arrays)
    optimizer = {
        "AdamW": lambda: optim.AdamW(made, lr=LR, weight_decay=DECAY),
        "SGD": lambda: optim.SGD(made, lr=LR, momentum=MOMENTUM),
        "RMSProp": lambda: optim.RMSProp(made, lr=LR),
    }[work.optimizer]()
    return Side(own_steps(backend, optimizer, max_norm=work.max_norm), lambda: [tensor.numpy() for tensor in made])


def torch_side(work: Work, arrays: Arrays) -> Side:
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    made = torch_tensors(arrays)
    optimizer = {
        "AdamW": lambda: torch.optim.AdamW(made, lr=LR, weight_decay=DECAY, fused=True),
        "SGD": lambda: torch.optim.SGD(made, lr=LR, momentum=MOMENTUM, fused=True),
        "RMSProp": lambda: torch.optim.RMSprop(made, lr=LR),
    }[work.optimizer]()
    return Side(torch_steps(optimizer, made, work.max_norm), lambda: [tensor.detach().numpy() for tensor in made])


def optax_side(work: Work, arrays: Arrays) -> Side:
    import jax
    import optax

    rule = {
        "AdamW": lambda: optax.adamw(LR, weight_decay=DECAY),
        "SGD": lambda: optax.sgd(LR, momentum=MOMENTUM),
        "RMSProp": lambda: optax.rmsprop(LR, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    }[work.optimizer]()
    if work.max_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(work.max_norm), rule)
    parameters = [jax.numpy.array(value) for value, _ in arrays]
    gradients = [jax.numpy.array(gradient) for _, gradient in arrays]
    state = rule.init(parameters)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters: Any, state: Any, gradients: Any) -> Any:
        updates, state = rule.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    def run() -> None:
        nonlocal parameters, state
        for _ in range(STEPS):
            parameters, state = step(parameters, state, gradients)
        jax.block_until_ready((parameters, state))

    return Side(run, lambda: [np.asarray(parameter) for parameter in parameters])


def mlx_side(work: Work, arrays: Arrays) -> Side:
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    # What mx.compile makes of a large AdamW is slower than what it is given.
    samples = measure({str(compiled): _mlx(work, arrays, compiled).run for compiled in (False, True)}, 1)
    return _mlx(work, arrays, samples["True"] < samples["False"])


def _mlx(work: Work, arrays: Arrays, compiled: bool) -> Side:
    import mlx.core as mx
    import mlx.optimizers as mlx_optim

    optimizer = {
        "AdamW": lambda: mlx_optim.AdamW(LR, weight_decay=DECAY, bias_correction=True),
        "SGD": lambda: mlx_optim.SGD(LR, momentum=MOMENTUM),
        "RMSProp": lambda: mlx_optim.RMSprop(LR),
    }[work.optimizer]()
    parameters = {str(number): mx.array(value) for number, (value, _) in enumerate(arrays)}
    gradients = {str(number): mx.array(gradient) for number, (_, gradient) in enumerate(arrays)}
    optimizer.init(parameters)
    state = optimizer.state

    def update(parameters: Any, state: Any, gradients: Any) -> Any:
        optimizer.state = state
        if work.max_norm is not None:
            gradients, _ = mlx_optim.clip_grad_norm(gradients, work.max_norm)
        return optimizer.apply_gradients(gradients, parameters), optimizer.state

    step = mx.compile(update) if compiled else update

    def run() -> None:
        nonlocal parameters, state
        for _ in range(STEPS):
            parameters, state = step(parameters, state, gradients)
            mx.async_eval(parameters, state)
        mx.eval(parameters, state)

    return Side(run, lambda: [np.array(parameters[str(number)]) for number in range(len(arrays))])


def tinygrad_side(work: Work, arrays: Arrays) -> Side:
    from tinygrad import Device, Tensor, TinyJit
    from tinygrad.helpers import Context
    from tinygrad.nn import optim as tiny_optim

    if work.optimizer == "RMSProp" or work.max_norm is not None:
        raise NotImplementedError("it has no RMSProp and no clipping")
    made = [Tensor(value).realize() for value, _ in arrays]
    for tensor, (_, gradient) in zip(made, arrays, strict=True):
        tensor.grad = Tensor(gradient).realize()
    optimizer = {
        "AdamW": lambda: tiny_optim.AdamW(made, lr=LR, eps=1e-8, weight_decay=DECAY),
        "SGD": lambda: tiny_optim.SGD(made, lr=LR, momentum=MOMENTUM, weight_decay=0.0),
    }[work.optimizer]()

    @TinyJit
    def step() -> None:
        optimizer.step()

    def run() -> None:
        with Context(TRAINING=1):
            for _ in range(STEPS):
                step()
        Device[Device.DEFAULT].synchronize()

    return Side(run, lambda: [tensor.numpy() for tensor in made])


PEERS: dict[str, tuple[str, Callable[[Work, Arrays], Side]]] = {
    "torch": ("torch", torch_side),
    "optax": ("jax", optax_side),
    "MLX": ("mlx", mlx_side),
    "tinygrad": ("tinygrad", tinygrad_side),
}


def lines(work: Work, backends: dict[str, Any], peers: Sequence[str], rounds: int) -> list[Line]:
    """Every runtime of netcl beside every peer; all of them take turns."""
    arrays = values(work.count, work.n)
    own = {runtime: netcl_side(backend, work, arrays) for runtime, backend in backends.items()}
    others: dict[str, Side] = {}
    for name in peers:
        try:
            others[name] = PEERS[name][1](work, arrays)
        except NotImplementedError as error:
            print(f"  {name}: {error}", file=sys.stderr)
    sides = own | others
    for name, side in sides.items():
        side.run()
        for ours, theirs in zip(next(iter(own.values())).parameters(), side.parameters(), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=2e-4, atol=2e-5, err_msg=f"{name} computes something else")
    samples = measure({name: side.run for name, side in sides.items()}, rounds)
    row = f"{work.row}, {work.count:,} × {work.n:,}"
    return [compared(row, runtime, name, samples[runtime], samples[name], None) for runtime in own for name in others]


def main(argv: Sequence[str] | None = None) -> list[Line]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it run")
    parser.add_argument("--runtime", choices=[*RUNTIMES, "all"], default="all", help="netcl's OpenCL runtime")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args(argv)
    peers = [name for name in options.peers if find_spec(PEERS[name][0])]
    for name in set(options.peers) - set(peers):
        print(f'{name} is left out: not installed; pip install "netcl[peers]"', file=sys.stderr)
    runtimes = opencl_runtimes(options.runtime)
    machine = environment(runtimes) | {name: metadata.version(name.lower()) for name in peers}
    for name, value in machine.items():
        print(f"{name}: {value}")
    found: list[Line] = []
    for work in works(200_000, 50) if options.quick else works(10_000_000, 1000):
        print(f"… {work.row}, {work.count} × {work.n}", file=sys.stderr, flush=True)
        found += lines(work, runtimes, peers, 3 if options.quick else ROUNDS)
        gc.collect()
    print(f"\n{report(found)}")
    if options.json:
        text = json.dumps({"machine": machine, "lines": [asdict(line) for line in found]}, indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
