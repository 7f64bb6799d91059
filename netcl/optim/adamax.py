"""Adamax: Adam with the largest gradient, discounted, in place of the second moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adamax, average_numbers


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        **average_numbers(beta1=beta1),
        "beta2": beta2,
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
    }


_RULE = Rule(adamax, _hyper, ("exp_avg", "exp_inf"), signed=("exp_avg",), unsigned=("exp_inf",))

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
}


class Adamax(Optimizer):
    """Adamax: Adam in the infinity norm.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        m ← β1·m + (1 - β1)·g
        u ← max(β2·u, |g| + eps)
        θ ← θ - lr / (1 - β1^t) · m / u

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 2e-3
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the average and of the largest gradient, each in [0, 1).
    eps : float, default 1e-8
        Added to the size of the gradient, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Adamax
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Adamax([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8999999761581421, -1.899999976158142]

    Notes
    -----
    As ``torch.optim.Adamax``. Source: D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2014,
    section 7.1; the paper has no eps.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
