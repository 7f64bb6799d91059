"""The oracle of the optimizers: the specification's formulas, one tensor at a time, in float64 with error bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fuzz import rules
from tests.fuzz.bounds import FORMATS, Bounded, Format, compute_format

FIELDS = {
    "SGD": {"momentum_buffer": "momentum"},
    "Momentum": {"momentum_buffer": "momentum"},
    "Adam": {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"},
    "AdamW": {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"},
    "RMSProp": {"square_avg": None, "grad_avg": "centered", "momentum_buffer": "momentum"},
    "Own": {"memory": None},
}
"""The state fields of each optimizer, and the hyper-parameter without which one is not needed."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-2, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
    "Momentum": {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False},
    "Adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False},
    "AdamW": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False},
    "RMSProp": {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
    "Own": {"lr": 0.1, "rate": 0.5},
}
"""The specification's."""


@dataclass
class Parameter:
    """A parameter with its state, as far as it can be known."""

    value: Bounded
    dtype: str
    group: int
    state: dict[str, Bounded] = field(default_factory=dict)
    steps: int = 0

    @property
    def format(self) -> Format:
        return compute_format(self.dtype)

    @property
    def narrow(self) -> bool:
        return self.dtype in ("float16", "bfloat16")

    def stored(self) -> Bounded:
        """What memory holds of it."""
        return self.value.stored(FORMATS[self.dtype]) if self.narrow else self.value


def step(name: str, p: Parameter, g: Bounded, h: Mapping[str, Any], rule: Any = None) -> None:
    """One step of optimizer ``name`` with hyper-parameters ``h`` and the gradient ``g``, unscaled and clipped."""
    p.steps += 1
    keeps = p.narrow and h.get("master_weights", True)
    theta = p.value if keeps else p.stored()
    before = theta
    state = {field: p.state.get(field, Bounded(np.zeros(theta.value.shape), p.format)) for field in FIELDS[name]}
    if h.get("maximize"):
        g = -g
    number = {key: Bounded.number(h[key], p.format) for key in h if isinstance(h[key], int | float)}
    if name in ("SGD", "Momentum"):
        theta = _sgd(theta, g, state, h, number)
    elif name in ("Adam", "AdamW"):
        theta = _adam(theta, g, state, h, number, p.steps, decoupled=name == "AdamW")
    elif name == "RMSProp":
        theta = _rmsprop(theta, g, state, h, number)
    else:
        leaves = {"p": theta, "g": g, "s": state["memory"], "rate": number["rate"]}
        theta, state["memory"] = theta - number["lr"] * rules.bounded(rule[0], leaves), rules.bounded(rule[1], leaves)
        state["memory"] = state["memory"] + np.zeros(theta.value.shape)
    # An element whose parameter is no longer finite is lost: with a weight decay of 0, 0·inf is left out by a kernel
    # and not by a formula.
    lost = ~np.isfinite(before.value) | np.isinf(before.error)
    for each in (theta, *state.values()):
        each.error = np.where(lost, np.inf, each.error)
    p.value, p.state = theta, state
    if not keeps:
        p.value = p.stored()


def _sgd(theta: Bounded, g: Bounded, s: dict[str, Bounded], h: Mapping[str, Any], n: Mapping[str, Bounded]) -> Bounded:
    if h["weight_decay"] > 0:
        g = g + n["weight_decay"] * theta
    if h["momentum"] > 0:
        share = Bounded.number(1 - h.get("dampening", 0.0), g.format)
        velocity = s["momentum_buffer"] = n["momentum"] * s["momentum_buffer"] + share * g
        g = g + n["momentum"] * velocity if h["nesterov"] else velocity
    return theta - n["lr"] * g


def _correction(beta: float, steps: int, format: Format) -> Bounded:
    exact = -math.expm1(steps * math.log(beta)) if beta > 0 else 1.0
    return Bounded(exact, format, 0.0 if beta == 0 else 10 * format.unit * exact)


def _adam(
    theta: Bounded,
    g: Bounded,
    s: dict[str, Bounded],
    h: Mapping[str, Any],
    n: Mapping[str, Bounded],
    t: int,
    *,
    decoupled: bool,
) -> Bounded:
    if not decoupled and h["weight_decay"] > 0:
        g = g + n["weight_decay"] * theta
    beta1, beta2 = h["betas"]
    format = g.format
    s["exp_avg"] = Bounded.number(beta1, format) * s["exp_avg"] + Bounded.number(1 - beta1, format) * g
    s["exp_avg_sq"] = Bounded.number(beta2, format) * s["exp_avg_sq"] + Bounded.number(1 - beta2, format) * g.squared()
    second = s["exp_avg_sq"]
    if h.get("amsgrad"):
        second = s["max_exp_avg_sq"] = s["max_exp_avg_sq"].maximum(second)
    m_hat = s["exp_avg"] / _correction(beta1, t, format)
    v_hat = second / _correction(beta2, t, format)
    update = m_hat / (v_hat.root() + n["eps"])
    if decoupled and h["weight_decay"] > 0:
        update = update + n["weight_decay"] * theta
    return theta - n["lr"] * update


def _rmsprop(
    theta: Bounded, g: Bounded, s: dict[str, Bounded], h: Mapping[str, Any], n: Mapping[str, Bounded]
) -> Bounded:
    if h["weight_decay"] > 0:
        g = g + n["weight_decay"] * theta
    rest = Bounded.number(1 - h["alpha"], g.format)
    s["square_avg"] = variance = n["alpha"] * s["square_avg"] + rest * g.squared()
    if h.get("centered"):
        s["grad_avg"] = n["alpha"] * s["grad_avg"] + rest * g
        variance = (variance - s["grad_avg"].squared()).maximum(0.0)
    update = g / (variance.root() + n["eps"])
    if h["momentum"] > 0:
        update = s["momentum_buffer"] = n["momentum"] * s["momentum_buffer"] + update
    return theta - n["lr"] * update


def norm(gradients: Sequence[Bounded], p: float) -> Bounded:
    """The p-norm of all gradients together. The sum may be taken in any order, in chunks of some square root of n."""
    format = max((g.format for g in gradients), key=lambda format: format.unit, default=FORMATS["float32"])
    with np.errstate(all="ignore"):
        exact, above, below = (
            _norm([np.maximum(np.abs(g.value) + sign * g.error, 0.0) for g in gradients], p) for sign in (0, 1, -1)
        )
    n = sum(g.value.size for g in gradients)
    units = (24 if p in (1.0, 2.0, math.inf) else 96 * max(1.0, 1 / p)) + 2 * math.sqrt(n)
    carried = above - below if math.isfinite(exact) else 0.0
    return Bounded(exact, format, carried + units * format.unit * exact + format.tiny if math.isfinite(exact) else 0.0)


def _norm(arrays: Sequence[Any], p: float) -> float:
    flat = np.concatenate([np.ravel(x) for x in arrays]) if arrays else np.zeros(0)
    largest = float(np.max(flat, initial=0.0))
    if not 0 < largest < math.inf or p == math.inf:
        return largest
    root = float(np.sum((flat / largest) ** p) ** (1 / p))
    return largest * root


def clip_factor(total: Bounded, max_norm: float) -> Bounded:
    """``min(1, max_norm / total)``; 1 for a norm that is zero or not finite."""
    known = float(total.value)
    if not math.isfinite(known) or known == 0.0:
        return Bounded(1.0, total.format)
    return (Bounded.number(max_norm, total.format) / total).minimum(1.0)


@dataclass
class LossScale:
    """The loss scale of the specification's scaler, in float32."""

    scale: float
    growth: float
    backoff: float
    interval: int
    least: float
    tracker: int = 0
    skipped: int = 0

    def update(self, overflow: bool) -> None:
        """After a step that was skipped, or not."""
        if overflow:
            self.scale = max(float(np.float32(self.scale * np.float32(self.backoff))), self.least)
            self.tracker, self.skipped = 0, self.skipped + 1
            return
        self.tracker += 1
        if self.tracker >= self.interval:
            self.tracker = 0
            with np.errstate(over="ignore"):
                grown = float(np.float32(self.scale) * np.float32(self.growth))
            self.scale = grown if math.isfinite(grown) else self.scale
