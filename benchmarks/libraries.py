"""Optimizer steps of optax, MLX and tinygrad as sides of a comparison."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from shutil import which
from typing import Any

import numpy as np

from .sides import Side
from .steps import Work, torch_side, values


def optax_side(work: Work) -> Side:
    import jax
    import optax

    lr = work.arguments["lr"]
    rule = {
        "AdamW": lambda: optax.adamw(lr, weight_decay=work.arguments["weight_decay"]),
        "SGD": lambda: optax.sgd(lr, momentum=work.arguments["momentum"]),
        "RMSProp": lambda: optax.rmsprop(lr, decay=0.99, eps=1e-8, eps_in_sqrt=False),
    }[work.optimizer]()
    if work.max_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(work.max_norm), rule)
    arrays = values(work.count, work.n)
    parameters = [jax.numpy.array(value) for value, _ in arrays]
    gradients = [jax.numpy.array(gradient) for _, gradient in arrays]
    state = rule.init(parameters)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters: Any, state: Any, gradients: Any) -> Any:
        updates, state = rule.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    def run(steps: int) -> None:
        nonlocal parameters, state
        for _ in range(steps):
            parameters, state = step(parameters, state, gradients)
        jax.block_until_ready((parameters, state))

    return Side(run, lambda: [np.asarray(parameter) for parameter in parameters])


def mlx_side(work: Work) -> Side:
    """Compiled or not, whichever is faster: what mx.compile makes of a large AdamW is slower than what it is given."""

    def seconds(compiled: bool) -> float:
        side = _mlx(work, compiled)
        side.run(1)
        started = time.perf_counter()
        side.run(3)
        return time.perf_counter() - started

    return _mlx(work, seconds(True) < seconds(False))


def _mlx(work: Work, compiled: bool) -> Side:
    import mlx.core as mx
    import mlx.optimizers as mlx_optim

    mx.set_default_device(mx.cpu)
    lr = work.arguments["lr"]
    optimizer = {
        "AdamW": lambda: mlx_optim.AdamW(lr, weight_decay=work.arguments["weight_decay"], bias_correction=True),
        "SGD": lambda: mlx_optim.SGD(lr, momentum=work.arguments["momentum"]),
        "RMSProp": lambda: mlx_optim.RMSprop(lr),
    }[work.optimizer]()
    arrays = values(work.count, work.n)
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

    def run(steps: int) -> None:
        nonlocal parameters, state
        for _ in range(steps):
            parameters, state = step(parameters, state, gradients)
            mx.async_eval(parameters, state)
        mx.eval(parameters, state)

    return Side(run, lambda: [np.array(parameters[str(number)]) for number in range(len(arrays))])


def tinygrad_side(work: Work) -> Side:
    from tinygrad import Device, Tensor, TinyJit
    from tinygrad.helpers import Context
    from tinygrad.nn import optim as tiny_optim

    arrays = values(work.count, work.n)
    made = [Tensor(value).realize() for value, _ in arrays]
    for tensor, (_, gradient) in zip(made, arrays, strict=True):
        tensor.grad = Tensor(gradient).realize()
    lr = work.arguments["lr"]
    optimizer = {
        "AdamW": lambda: tiny_optim.AdamW(made, lr=lr, eps=1e-8, weight_decay=work.arguments["weight_decay"]),
        "SGD": lambda: tiny_optim.SGD(made, lr=lr, momentum=work.arguments["momentum"], weight_decay=0.0),
    }[work.optimizer]()

    @TinyJit
    def step() -> None:
        optimizer.step()

    def run(steps: int) -> None:
        with Context(TRAINING=1):
            for _ in range(steps):
                step()
        Device[Device.DEFAULT].synchronize()

    return Side(run, lambda: [tensor.numpy() for tensor in made])


PEERS: dict[str, tuple[str, Callable[[Work], Side]]] = {
    "torch": ("torch", torch_side),
    "optax": ("jax", optax_side),
    "MLX": ("mlx", mlx_side),
    "tinygrad": ("tinygrad", tinygrad_side),
}
"""The libraries that netcl is compared with, the module that each needs, and its side."""


def missing(name: str) -> str:
    """What a library needs that is not installed; empty if nothing is."""
    if not find_spec(PEERS[name][0]):
        return 'not installed; pip install "netcl[peers]"'
    return "it needs clang, which is not on the path" if name == "tinygrad" and not which("clang") else ""


def can(name: str, work: Work) -> bool:
    """Whether a library has what a row needs: tinygrad has no RMSProp and no clipping."""
    return name != "tinygrad" or (work.optimizer != "RMSProp" and work.max_norm is None)
