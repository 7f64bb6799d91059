"""RAdam: Adam whose first steps, where the second moment cannot be trusted, are without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import average_numbers, decay_numbers, radam, radam_numbers


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        **average_numbers(beta1=beta1, beta2=beta2),
        "eps": group["eps"],
        **decay_numbers(group),
        **radam_numbers(beta2),
    }


_RULE = Rule(radam, _hyper, ("exp_avg", "exp_avg_sq"), signed=("exp_avg",), unsigned=("exp_avg_sq",))

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
    "decoupled_weight_decay": validation.flag,
}


class RAdam(Optimizer):
    """RAdam: Adam with a rectified variance.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        m ← β1·m + (1 - β1)·g
        v ← β2·v + (1 - β2)·g²
        ρ∞ = 2 / (1 - β2) - 1
        ρ = ρ∞ - 2·t·β2^t / (1 - β2^t)
        r = sqrt((ρ - 4)·(ρ - 2)·ρ∞ / ((ρ∞ - 4)·(ρ∞ - 2)·ρ))
        θ ← θ - lr · m / (1 - β1^t) · r·sqrt(1 - β2^t) / (sqrt(v) + eps)    if ρ > 5
        θ ← θ - lr · m / (1 - β1^t)                                         else

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient; or, decoupled, decay of the weights per unit of learning rate.
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
    >>> from netcl.optim import RAdam
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = RAdam([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.949999988079071, -1.9500000476837158]

    Notes
    -----
    As ``torch.optim.RAdam``, whose threshold of 5 and whose eps are not the paper's (4, and none). ρ is formed from
    ``x / expm1(x)`` with ``x = -t·log β2``, and so keeps its digits in float32. Source: L. Liu et al., "On the
    Variance of the Adaptive Learning Rate and Beyond", 2019.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
