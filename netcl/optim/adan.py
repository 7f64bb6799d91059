"""Adan: Nesterov's momentum from differences of gradients, with adaptive steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adan, average_numbers


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2, beta3 = group["betas"]
    decay, before = group["lr"] * group["weight_decay"], group["no_prox"]
    return {
        "lr": group["lr"],
        **average_numbers(beta1=beta1, beta2=beta2, beta3=beta3),
        "eps": group["eps"],
        # A factor near 1 would be rounded, at each step alike.
        "before": decay if before else 0.0,
        "after": 0.0 if before else decay / (1.0 + decay),
    }


_RULE = Rule(
    adan,
    _hyper,
    ("exp_avg", "exp_avg_diff", "exp_avg_sq", "pre_grad"),
    signed=("exp_avg", "exp_avg_diff", "pre_grad"),
    unsigned=("exp_avg_sq",),
)

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.three_betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
    "no_prox": validation.flag,
}


class Adan(Optimizer):
    """Adan: adaptive Nesterov momentum.

    For each element θ with gradient g at step t, the gradient ``h`` of the step before, and ``Δ = g - h``, 0 at first::

        m ← β1·m + (1 - β1)·g
        d ← β2·d + (1 - β2)·Δ
        n ← β3·n + (1 - β3)·(g + β2·Δ)²
        u = (m / (1 - β1^t) + β2·d / (1 - β2^t)) / (sqrt(n / (1 - β3^t)) + eps)
        θ ← (θ - lr·u) / (1 + lr·weight_decay)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : three floats, default (0.98, 0.92, 0.99)
        Decay rates of the three averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        Decay of the weights per unit of learning rate.
    no_prox : bool, default False
        Decay as AdamW does: ``θ ← θ - lr·(u + weight_decay·θ)``.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Adan
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Adan([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8999999761581421, -1.899999976158142]

    Notes
    -----
    Names and defaults are those of the authors' code, whose betas are 1 less the paper's. ``optax.adan`` multiplies Δ
    and d by 1 - β2 where paper and authors have β2, adds 1e-8 under the root as well, and decays as ``no_prox`` does.
    Source: X. Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", 2022.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_prox: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "no_prox": no_prox,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
