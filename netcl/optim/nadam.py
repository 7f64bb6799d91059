"""NAdam: Adam that looks ahead along its momentum, which is warmed up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import average_numbers, decay_numbers, nadam


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        **average_numbers(beta1=beta1, beta2=beta2),
        "eps": group["eps"],
        **decay_numbers(group),
        "log_decay": group["momentum_decay"] * math.log(0.96),
    }


_RULE = Rule(
    nadam,
    _hyper,
    {"exp_avg": 0.0, "exp_avg_sq": 0.0, "mu_product": 1.0},
    signed=("exp_avg",),
    unsigned=("exp_avg_sq",),
)

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
    "momentum_decay": validation.not_negative,
    "decoupled_weight_decay": validation.flag,
}


class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's momentum.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        μ_t = β1·(1 - 0.96^(t·momentum_decay) / 2)
        m ← β1·m + (1 - β1)·g
        v ← β2·v + (1 - β2)·g²
        n = (1 - μ_t) / (1 - μ_1⋯μ_t) · g + μ_{t+1} / (1 - μ_1⋯μ_{t+1}) · m
        θ ← θ - lr · n / (sqrt(v / (1 - β2^t)) + eps)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 2e-3
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient; or, decoupled, decay of the weights per unit of learning rate.
    momentum_decay : float, default 4e-3
        How fast the momentum is warmed up, at least 0.
    decoupled_weight_decay : bool, default False
        Let the decay act on the weights and not on the gradient: ``θ ← θ - lr·weight_decay·θ`` before the step.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import NAdam
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = NAdam([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8944000005722046, -1.8944000005722046]

    Notes
    -----
    As ``torch.optim.NAdam``. The product of the μ has no closed form once betas or momentum_decay may change, so that
    it is kept for each element, as a third state field: 4 bytes of memory and 8 of traffic per float32 element, which
    one number for each parameter would save. Source: T. Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
