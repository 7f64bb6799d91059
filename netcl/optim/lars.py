"""LARS: momentum whose steps have a length in proportion to that of each tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.expression import where
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import PerTensor, Rule


def lars_direction(p: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """The gradient, with the decay if that belongs to the norm."""
    return g + h.decay_in_norm * p, s.momentum_buffer


def lars_ratio(n: Any, h: Any) -> Any:
    """trust_coefficient·‖θ‖ over the norm of what the tensor is moved by, or 1 where either is zero."""
    length = n.u + h.decay_apart * n.p
    both = (n.p > 0.0) & (length > 0.0)
    return h.lr * where(both, h.trust_coefficient * n.p / where(both, length + h.eps, 1.0), 1.0)


def lars(p: Any, u: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """The momentum of steps that are scaled already."""
    step = h.ratio * (u + h.decay_apart * p)
    v = h.momentum * s.momentum_buffer + step
    return p - where(h.nesterov != 0.0, step + h.momentum * v, v), v


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    decay, apart = group["weight_decay"], not group["joint_norm"]
    return {
        "lr": group["lr"],
        "momentum": group["momentum"],
        "decay_apart": decay * apart,
        "decay_in_norm": decay * (not apart),
        "trust_coefficient": group["trust_coefficient"],
        "eps": group["eps"],
        "nesterov": float(group["nesterov"]),
    }


_RULE = Rule(lars, _hyper, ("momentum_buffer",), per_tensor=PerTensor(lars_direction, lars_ratio))

_CHECKS = {
    "lr": validation.not_negative,
    "momentum": validation.not_negative,
    "weight_decay": validation.not_negative,
    "trust_coefficient": validation.not_negative,
    "eps": validation.not_negative,
    "nesterov": validation.flag,
    "joint_norm": validation.flag,
}


class LARS(Optimizer):
    """LARS: SGD with momentum, at a rate of its own for each tensor.

    For each tensor θ with gradient g, element by element but for the norms::

        r = trust_coefficient·‖θ‖ / (‖g‖ + weight_decay·‖θ‖ + eps)
                                                  or with joint_norm / (‖g + weight_decay·θ‖ + eps)
        r = 1                                     if either norm is zero
        d = lr·r·(g + weight_decay·θ)
        v ← momentum·v + d
        θ ← θ - v                                 or θ - (d + momentum·v) with nesterov

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        Learning rate, at least 0.
    momentum : float, default 0.9
        Share of the velocity that is kept, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient, at least 0.
    trust_coefficient : float, default 1e-3
        How far a tensor moves relative to its norm, at lr 1; at least 0.
    eps : float, default 0.0
        Added to the norm that is divided by, at least 0.
    nesterov : bool, default False
        Step with the velocity of the next step.
    joint_norm : bool, default False
        Divide by the norm of the sum of gradient and decay, as ``optax.lars`` does, instead of the sum of their norms.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import LARS
    >>> w = netcl.ones(4, requires_grad=True)
    >>> w.grad = netcl.ones(4)
    >>> LARS([w], lr=0.5, trust_coefficient=1.0).step()
    >>> print(w.numpy())
    [0.5 0.5 0.5 0.5]

    Notes
    -----
    A step is two launches on OpenCL for any number of tensors and groups, none of which waits for the host: the first
    makes the direction and what its norms are added up from, so that no square overflows, the second steps. In float32
    they move 32 bytes per element. Memory: two fields, of which the direction is not in checkpoints. Clipping, loss
    scaling and master weights are as in every optimizer.

    Biases and norms are usually left as they are: give them a group with ``trust_coefficient`` and ``weight_decay`` of
    their own, or another optimizer.

    Source: Y. You, I. Gitman and B. Ginsburg, "Large Batch Training of Convolutional Networks", 2017, algorithm 1. The
    ratio of 1 at a zero norm is ``optax.lars``'s; torch has no LARS.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 0.0,
        nesterov: bool = False,
        joint_norm: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "nesterov": nesterov,
            "joint_norm": joint_norm,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
