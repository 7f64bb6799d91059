"""The list of optimizers that every property test loops over, each with its formulas in float64.

The oracles are written from the specification, one element at a time in NumPy's float64, with none of netcl's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netcl.optim import SGD, Adam, AdamW, Momentum, RMSProp

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


ORACLES: dict[type, Callable[..., Step]] = {
    SGD: sgd_oracle,
    Momentum: momentum_oracle,
    Adam: adam_oracle,
    AdamW: adamw_oracle,
    RMSProp: rmsprop_oracle,
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
