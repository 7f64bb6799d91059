"""LAMB: Adam's direction, at each tensor's own rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from netcl.expression import sqrt, where
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import PerTensor, Rule


def lamb_direction(p: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """Adam's step without its rate, and the decay."""
    m = h.beta1 * s.exp_avg + h.one_minus_beta1 * g
    v = h.beta2 * s.exp_avg_sq + h.one_minus_beta2 * (g * g)
    u = (m / h.bias_correction1) / (sqrt(v / h.bias_correction2) + h.eps) + h.weight_decay * p
    return u, m, v


def lamb_ratio(n: Any, h: Any) -> Any:
    """‖θ‖ / ‖u‖, or 1 where either is zero."""
    both = (n.p > 0.0) & (n.u > 0.0)
    return h.lr * where(both, n.p / where(both, n.u, 1.0), 1.0)


def lamb(p: Any, u: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """The step along the direction."""
    return p - h.ratio * u, s.exp_avg, s.exp_avg_sq


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0.0 else -math.inf


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        "beta1": beta1,
        "one_minus_beta1": 1.0 - beta1,
        "beta2": beta2,
        "one_minus_beta2": 1.0 - beta2,
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "log_beta1": _log(beta1),
        "log_beta2": _log(beta2),
    }


_RULE = Rule(lamb, _hyper, ("exp_avg", "exp_avg_sq"), per_tensor=PerTensor(lamb_direction, lamb_ratio))

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
}


class LAMB(Optimizer):
    """LAMB: Adam with decoupled weight decay, whose step has a length in proportion to that of each tensor.

    For each tensor θ with gradient g, at step t, element by element but for the norms::

        m ← β1·m + (1 - β1)·g
        v ← β2·v + (1 - β2)·g²
        u = (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps) + weight_decay·θ
        r = ‖θ‖ / ‖u‖                             or 1 if either norm is zero
        θ ← θ - lr·r·u

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0: the relative change of a tensor in one step.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the averages, in [0, 1).
    eps : float, default 1e-6
        Added to the root, at least 0.
    weight_decay : float, default 0.0
        Decoupled decay, added to the direction before its norm is taken.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import LAMB
    >>> w = netcl.ones(4, requires_grad=True)
    >>> w.grad = netcl.ones(4)
    >>> LAMB([w], lr=0.5, eps=0.0).step()
    >>> print(w.numpy())
    [0.5 0.5 0.5 0.5]

    Notes
    -----
    A step is two launches on OpenCL for any number of tensors and groups, none of which waits for the host: the first
    makes the direction and what its norms are added up from, so that no square overflows, the second steps. In float32
    they move 40 bytes per element. Memory: three fields, of which the direction is not in checkpoints. Clipping, loss
    scaling and master weights are as in every optimizer.

    Source: Y. You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020, algorithm 2
    with φ(z) = z. Defaults and the ratio of 1 at a zero norm are ``optax.lamb``'s; torch has no LAMB.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
