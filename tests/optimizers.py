"""The list of optimizers that every property test loops over, each with its formulas in float64.

The oracles are written from the specification, one element at a time in NumPy's float64, with none of netcl's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from netcl.optim import (
    ASGD,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    Lion,
    Momentum,
    NAdam,
    RAdam,
    RMSProp,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sgd_oracle(lr=1e-2, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False) -> Step:
    v = 0.0

    def step(theta, g):
        nonlocal v
        g = -g if maximize else g
        if weight_decay > 0:
            g = g + weight_decay * theta
        if momentum > 0:
            v = momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        return theta - lr * g

    return step


def momentum_oracle(lr=1e-2, momentum=0.9, weight_decay=0.0, nesterov=False, maximize=False) -> Step:
    return sgd_oracle(lr, momentum, 0.0, weight_decay, nesterov, maximize)


def adam_oracle(
    lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, decoupled=False
) -> Step:
    m = v = largest = 0.0
    t = 0

    def step(theta, g):
        nonlocal m, v, largest, t
        t += 1
        g = -g if maximize else g
        if not decoupled:
            g = g + weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v)
        m_hat = m / (1 - betas[0] ** t)
        v_hat = (largest if amsgrad else v) / (1 - betas[1] ** t)
        update = m_hat / (np.sqrt(v_hat) + eps)
        if decoupled:
            update = update + weight_decay * theta
        return theta - lr * update

    return step


def adamw_oracle(weight_decay=0.01, **options) -> Step:
    return adam_oracle(weight_decay=weight_decay, decoupled=True, **options)


def rmsprop_oracle(
    lr=1e-3, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, maximize=False
) -> Step:
    v = g_avg = b = 0.0

    def step(theta, g):
        nonlocal v, g_avg, b
        g = -g if maximize else g
        g = g + weight_decay * theta
        v = alpha * v + (1 - alpha) * g**2
        variance = v
        if centered:
            g_avg = alpha * g_avg + (1 - alpha) * g
            variance = np.maximum(v - g_avg**2, 0.0)
        update = g / (np.sqrt(variance) + eps)
        if momentum > 0:
            b = momentum * b + update
            update = b
        return theta - lr * update

    return step


def adagrad_oracle(
    lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10, maximize=False
) -> Step:
    total, t = initial_accumulator_value, 0

    def step(theta, g):
        nonlocal total, t
        t += 1
        g = (-g if maximize else g) + weight_decay * theta
        total = total + g**2
        return theta - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(total) + eps)

    return step


def adadelta_oracle(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False) -> Step:
    v = u = 0.0

    def step(theta, g):
        nonlocal v, u
        g = (-g if maximize else g) + weight_decay * theta
        v = rho * v + (1 - rho) * g**2
        delta = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * delta**2
        return theta - lr * delta

    return step


def adamax_oracle(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False) -> Step:
    m = u = 0.0
    t = 0

    def step(theta, g):
        nonlocal m, u, t
        t += 1
        g = (-g if maximize else g) + weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        u = np.maximum(betas[1] * u, np.abs(g) + eps)
        return theta - lr / (1 - betas[0] ** t) * m / u

    return step


def nadam_oracle(
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    maximize=False,
) -> Step:
    m = v = 0.0
    product, t = 1.0, 0

    def mu(t):
        return betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def step(theta, g):
        nonlocal m, v, product, t
        t += 1
        g = -g if maximize else g
        if not decoupled_weight_decay:
            g = g + weight_decay * theta
        product *= mu(t)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        ahead = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        if decoupled_weight_decay:
            theta = theta - lr * weight_decay * theta
        return theta - lr * ahead / (np.sqrt(v / (1 - betas[1] ** t)) + eps)

    return step


def radam_oracle(
    lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False, maximize=False
) -> Step:
    m = v = 0.0
    t = 0
    longest = 2 / (1 - betas[1]) - 1

    def step(theta, g):
        nonlocal m, v, t
        t += 1
        g = -g if maximize else g
        if decoupled_weight_decay:
            theta = theta - lr * weight_decay * theta
        else:
            g = g + weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat = m / (1 - betas[0] ** t)
        length = longest - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        if length <= 5:
            return theta - lr * m_hat
        r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        return theta - lr * m_hat * r * np.sqrt(1 - betas[1] ** t) / (np.sqrt(v) + eps)

    return step


def asgd_oracle(lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0, maximize=False) -> Step:
    t = 0

    def step(theta, g):
        nonlocal t
        eta = lr / (1 + lambd * lr * t) ** alpha
        t += 1
        g = (-g if maximize else g) + weight_decay * theta
        return theta * (1 - lambd * eta) - eta * g

    return step


def rprop_oracle(lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0), maximize=False) -> Step:
    size, before = lr, 0.0

    def step(theta, g):
        nonlocal size, before
        g = -g if maximize else g
        agrees = np.sign(g) * np.sign(before)
        size = np.clip(size * np.select([agrees > 0, agrees < 0], [etas[1], etas[0]], 1.0), *step_sizes)
        before = g = np.where(agrees < 0, 0.0, g)
        return theta - np.sign(g) * size

    return step


def lion_oracle(lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, maximize=False) -> Step:
    m = 0.0

    def step(theta, g):
        nonlocal m
        g = -g if maximize else g
        direction = np.sign(betas[0] * m + (1 - betas[0]) * g)
        m = betas[1] * m + (1 - betas[1]) * g
        return theta - lr * (direction + weight_decay * theta)

    return step


def adan_oracle(
    lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False, maximize=False, ahead=None
) -> Step:
    """``ahead`` is the factor of what looks ahead, where it is not the second beta."""
    ahead = betas[1] if ahead is None else ahead
    m = d = n = 0.0
    before = None
    t = 0

    def step(theta, g):
        nonlocal m, d, n, before, t
        t += 1
        g = -g if maximize else g
        change = 0.0 if before is None else g - before
        before = g
        m = betas[0] * m + (1 - betas[0]) * g
        d = betas[1] * d + (1 - betas[1]) * change
        n = betas[2] * n + (1 - betas[2]) * (g + ahead * change) ** 2
        eta = lr / (np.sqrt(n / (1 - betas[2] ** t)) + eps)
        update = eta * (m / (1 - betas[0] ** t) + ahead * d / (1 - betas[1] ** t))
        if no_prox:
            return theta - lr * weight_decay * theta - update
        return (theta - update) / (1 + lr * weight_decay)

    return step


def adabelief_oracle(
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-16,
    eps_root=1e-16,
    weight_decay=0.0,
    decoupled_weight_decay=True,
    maximize=False,
) -> Step:
    m = s = 0.0
    t = 0

    def step(theta, g):
        nonlocal m, s, t
        t += 1
        g = -g if maximize else g
        if not decoupled_weight_decay:
            g = g + weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        s = betas[1] * s + (1 - betas[1]) * (g - m) ** 2 + eps_root
        update = m / (1 - betas[0] ** t) / (np.sqrt(s / (1 - betas[1] ** t)) + eps)
        if decoupled_weight_decay:
            update = update + weight_decay * theta
        return theta - lr * update

    return step


def schedule_free_oracle(
    lr=1.0,
    momentum=0.9,
    weight_decay=0.0,
    warmup_steps=0,
    r=0.0,
    weight_lr_power=2.0,
    maximize=False,
    second=lambda g, t: 1.0,
) -> Step:
    """With all three sequences. ``step.average`` is that of evaluation; ``second(g, t)`` divides the gradient."""
    z = x = None
    total, t = 0.0, 0

    def step(theta, g):
        nonlocal z, x, total, t
        t += 1
        g = -g if maximize else g
        if z is None:
            z = x = theta
        gamma = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
        z = z - gamma * (g / second(g, t) + weight_decay * theta)
        weight = t**r * gamma**weight_lr_power
        total += weight
        x = x + (weight / total if total else 0.0) * (z - x)
        step.average = x
        return (1 - momentum) * z + momentum * x

    return step


def schedule_free_adamw_oracle(lr=0.0025, betas=(0.9, 0.999), eps=1e-8, **options) -> Step:
    v = 0.0

    def second(g, t):
        nonlocal v
        v = betas[1] * v + (1 - betas[1]) * g**2
        return np.sqrt(v / (1 - betas[1] ** t)) + eps

    return schedule_free_oracle(lr, betas[0], second=second, **options)


ORACLES: dict[type, Callable[..., Step]] = {
    SGD: sgd_oracle,
    Momentum: momentum_oracle,
    Adam: adam_oracle,
    AdamW: adamw_oracle,
    RMSProp: rmsprop_oracle,
    Adagrad: adagrad_oracle,
    Adadelta: adadelta_oracle,
    Adamax: adamax_oracle,
    NAdam: nadam_oracle,
    RAdam: radam_oracle,
    ASGD: asgd_oracle,
    Rprop: rprop_oracle,
    Lion: lion_oracle,
    Adan: adan_oracle,
    AdaBelief: adabelief_oracle,
    ScheduleFreeSGD: schedule_free_oracle,
    ScheduleFreeAdamW: schedule_free_adamw_oracle,
}


@dataclass(frozen=True)
class Case:
    optimizer: type
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.optimizer.__name__ + "".join(f"-{name}={value}" for name, value in self.options.items())

    def oracle(self) -> Step:
        return ORACLES[self.optimizer](**self.options)


CASES = [
    Case(SGD),
    Case(SGD, {"lr": 0.1, "weight_decay": 0.01}),
    Case(SGD, {"momentum": 0.9}),
    Case(SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 1e-3}),
    Case(SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    Case(SGD, {"momentum": 0.9, "maximize": True}),
    Case(Momentum),
    Case(Momentum, {"weight_decay": 1e-4, "nesterov": True}),
    Case(Momentum, {"momentum": 0.0}),
    Case(Adam),
    Case(Adam, {"lr": 1e-2, "weight_decay": 0.1}),
    Case(Adam, {"amsgrad": True}),
    Case(Adam, {"betas": (0.0, 0.9), "eps": 1e-4}),
    Case(Adam, {"maximize": True}),
    Case(AdamW),
    Case(AdamW, {"lr": 1e-2, "weight_decay": 0.2}),
    Case(AdamW, {"weight_decay": 0.0, "amsgrad": True}),
    Case(AdamW, {"betas": (0.95, 0.9999), "maximize": True}),
    Case(RMSProp),
    Case(RMSProp, {"weight_decay": 0.01, "alpha": 0.9}),
    Case(RMSProp, {"centered": True}),
    Case(RMSProp, {"momentum": 0.9}),
    Case(RMSProp, {"momentum": 0.5, "centered": True, "weight_decay": 1e-3, "eps": 1e-5}),
    Case(RMSProp, {"maximize": True, "momentum": 0.9}),
]

FAMILY = [
    Case(Adagrad, {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1}),
    Case(Adadelta, {"weight_decay": 0.01}),
    Case(Adamax, {"lr": 1e-2, "weight_decay": 0.01}),
    Case(NAdam, {"lr": 1e-2, "weight_decay": 0.01}),
    Case(RAdam, {"lr": 1e-2, "weight_decay": 0.01}),
    Case(ASGD, {"lr": 0.02, "lambd": 0.1, "t0": 3.0}),
    Case(Rprop, {"lr": 1e-3}),
    Case(Lion, {"lr": 1e-3, "weight_decay": 0.1}),
    Case(Adan, {"lr": 1e-2, "weight_decay": 0.1}),
    Case(AdaBelief, {"lr": 1e-2, "weight_decay": 0.01}),
    Case(ScheduleFreeSGD, {"lr": 0.1, "weight_decay": 0.01, "warmup_steps": 3, "r": 0.5}),
    Case(ScheduleFreeAdamW, {"lr": 1e-2, "weight_decay": 0.01, "warmup_steps": 3}),
]
"""One for each rule that came later: a kernel each, where the options of one rule share a kernel."""

FAMILY_OPTIONS = [
    *(Case(case.optimizer, {"maximize": True}) for case in FAMILY),
    Case(NAdam, {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    Case(NAdam, {"betas": (0.0, 0.9)}),
    Case(RAdam, {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    Case(RAdam, {"betas": (0.9, 0.95)}),
    Case(RAdam, {"betas": (0.9, 0.55)}),
    Case(RAdam, {"betas": (0.5, 0.0)}),
    Case(ASGD, {"lambd": 0.0, "alpha": 0.0, "weight_decay": 0.1}),
    Case(Rprop, {"lr": 0.1, "etas": (0.7, 1.5), "step_sizes": (0.01, 0.2)}),
    Case(Lion, {"betas": (0.0, 0.0)}),
    Case(Adan, {"weight_decay": 0.1, "no_prox": True, "betas": (0.9, 0.5, 0.0)}),
    Case(AdaBelief, {"eps": 1e-8, "eps_root": 1e-8, "weight_decay": 0.1, "decoupled_weight_decay": False}),
    Case(ScheduleFreeSGD, {"lr": 0.0}),
    Case(ScheduleFreeSGD, {"momentum": 0.5, "weight_lr_power": 0.0, "r": 1.0}),
    Case(ScheduleFreeAdamW, {"betas": (0.98, 0.0), "warmup_steps": 300}),
]
"""The rest of their options, which are the same kernels."""

EVERY = [*CASES, *FAMILY]

SHORT = [
    Case(SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}), Case(Adam, {"amsgrad": True}), Case(AdamW),
    Case(RMSProp, {"momentum": 0.5, "centered": True, "weight_decay": 1e-3, "eps": 1e-5}), *FAMILY[-5:-4], FAMILY[-1],
]  # fmt: skip
"""For the OpenCL runtimes behind the first: a rule of each kind, with most of the fields it may have."""


def every_case(test: Callable[..., None]) -> Any:
    """Run a test on each of EVERY, and on the OpenCL runtimes behind the first on each of SHORT."""
    return pytest.mark.short(case=SHORT)(pytest.mark.parametrize("case", EVERY, ids=str)(test))
