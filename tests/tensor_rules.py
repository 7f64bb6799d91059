"""The optimizers with values of whole tensors, each with its formulas in float64, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from netcl.optim import LAMB, LARS, Adafactor, Muon

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]


def norm(x):
    return float(np.sqrt(np.sum(np.asarray(x, np.longdouble) ** 2)))


def lamb_oracle(lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, maximize=False) -> Step:
    m = v = 0.0
    t = 0

    def step(theta, g):
        nonlocal m, v, t
        t += 1
        g = -g if maximize else g
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        u = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + weight_decay * theta
        above, below = norm(theta), norm(u)
        return theta - lr * (above / below if above > 0 and below > 0 else 1.0) * u

    return step


def lars_oracle(
    lr=1e-2,
    momentum=0.9,
    weight_decay=0.0,
    trust_coefficient=1e-3,
    eps=0.0,
    nesterov=False,
    joint_norm=False,
    maximize=False,
) -> Step:
    v = 0.0

    def step(theta, g):
        nonlocal v
        g = -g if maximize else g
        decayed = g + weight_decay * theta
        above = norm(theta)
        below = norm(decayed) if joint_norm else norm(g) + weight_decay * above
        d = lr * (trust_coefficient * above / (below + eps) if above > 0 and below > 0 else 1.0) * decayed
        v = momentum * v + d
        return theta - (d + momentum * v if nesterov else v)

    return step


def muon_oracle(
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_coefficients=(3.4445, -4.775, 2.0315),
    eps=1e-7,
    ns_steps=5,
    adjust_lr_fn=None,
    maximize=False,
) -> Step:
    m = 0.0

    def step(theta, g):
        nonlocal m
        g = -g if maximize else g
        m = momentum * m + (1 - momentum) * g
        x = momentum * m + (1 - momentum) * g if nesterov else m
        rows, columns = theta.shape
        x = x.T if rows > columns else x
        x = x / max(norm(x), eps)
        a, b, c = ns_coefficients
        for _ in range(ns_steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        x = x.T if rows > columns else x
        factor = 0.2 * max(rows, columns) ** 0.5 if adjust_lr_fn == "match_rms_adamw" else max(1, rows / columns) ** 0.5
        return theta * (1 - lr * weight_decay) - lr * factor * x

    return step


def adafactor_oracle(
    lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0, weight_decay=0.0, maximize=False, spacing=2.0**-52
) -> Step:
    rows = columns = every = 0.0
    t = 0
    eps1 = spacing if eps[0] is None else eps[0]

    def rms(x):
        return norm(x) / max(1, x.size) ** 0.5

    def step(theta, g):
        nonlocal rows, columns, every, t
        t += 1
        g = -g if maximize else g
        weight = t**beta2_decay
        if theta.ndim > 1:
            rows = (1 - weight) * rows + weight * (g**2).mean(-1, keepdims=True)
            columns = (1 - weight) * columns + weight * (g**2).mean(-2, keepdims=True)
            second = rows * columns / np.maximum(rows.mean(-2, keepdims=True), eps1)
        else:
            second = every = (1 - weight) * every + weight * g**2
        u = g / np.sqrt(np.maximum(second, eps1**2))
        rate = max(eps[1], rms(theta)) * min(lr, t**-0.5)
        return theta * (1 - lr * weight_decay) - rate * u / max(1.0, rms(u) / d)

    return step


ORACLES: dict[type, Callable[..., Step]] = {
    LAMB: lamb_oracle,
    LARS: lars_oracle,
    Muon: muon_oracle,
    Adafactor: adafactor_oracle,
}


@dataclass(frozen=True)
class Case:
    optimizer: type
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.optimizer.__name__ + "".join(f"-{name}={value}" for name, value in self.options.items())

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Equal shapes at even and at uneven distances, several chunks, and none."""
        matrices = [(3, 5), (40, 30), (30, 40), (3, 5), (0, 4), (1, 1), (3, 5), (40, 30)]
        return matrices if self.optimizer is Muon else [*matrices, (7,), (), (2, 3, 40), (2500,), (7,)]

    def oracle(self, dtype: str = "float64") -> Step:
        spacing = {"spacing": 2.0**-23} if self.optimizer is Adafactor and dtype == "float32" else {}
        return ORACLES[self.optimizer](**self.options, **spacing)


CASES = [
    Case(LAMB, {"lr": 0.01}),
    Case(LAMB, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "maximize": True}),
    Case(LARS, {"lr": 0.1, "trust_coefficient": 0.1}),
    Case(LARS, {"lr": 0.1, "trust_coefficient": 0.1, "weight_decay": 0.1, "nesterov": True, "maximize": True}),
    Case(LARS, {"lr": 0.1, "trust_coefficient": 0.1, "weight_decay": 0.1, "joint_norm": True, "eps": 0.01}),
    Case(Muon, {"lr": 0.02}),
    Case(Muon, {"lr": 0.02, "nesterov": False, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}),
    Case(Muon, {"lr": 0.02, "momentum": 0.5, "maximize": True, "ns_coefficients": (2.0, -1.5, 0.5)}),
    Case(Adafactor),
    Case(Adafactor, {"lr": 0.1, "weight_decay": 0.1, "d": 1.5, "maximize": True}),
    Case(Adafactor, {"eps": (1e-10, 1e-2), "beta2_decay": -0.5}),
]
