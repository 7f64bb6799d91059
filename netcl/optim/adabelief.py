"""AdaBelief: Adam that divides by how much the gradients surprise it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adabelief, average_numbers, decay_numbers


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        **average_numbers(beta1=beta1, beta2=beta2),
        "eps": group["eps"],
        "eps_root": group["eps_root"],
        **decay_numbers(group),
    }


_RULE = Rule(adabelief, _hyper, ("exp_avg", "exp_avg_var"), signed=("exp_avg",), unsigned=("exp_avg_var",))

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "eps_root": validation.not_negative,
    "weight_decay": validation.not_negative,
    "decoupled_weight_decay": validation.flag,
}


class AdaBelief(Optimizer):
    """AdaBelief: Adam with the spread of the gradients around their average in place of their second moment.

    For each element θ with gradient g at step t::

        m ← β1·m + (1 - β1)·g
        v ← β2·v + (1 - β2)·(g - m)² + eps_root
        θ ← θ - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages, each in [0, 1).
    eps : float, default 1e-16
        Added to the denominator, at least 0.
    eps_root : float, default 1e-16
        Added to the spread at each step, at least 0.
    weight_decay : float, default 0.0
        Decay of the weights per unit of learning rate; or, if it is not decoupled, an L2 penalty added to the gradient.
    decoupled_weight_decay : bool, default True
        Let the decay act on the weights and not on the gradient: ``θ ← θ - lr·weight_decay·θ`` before the step.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import AdaBelief
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = AdaBelief([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8888999819755554, -1.8889000415802002]

    Notes
    -----
    Defaults and the place of both eps are those of ``optax.adabelief``, which has no decay; the paper's are
    ``eps=1e-8`` twice. The authors' code also rectifies as :class:`RAdam` does, by default. Source: J. Zhuang et al.,
    "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", 2020.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        eps_root: float = 1e-16,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = True,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "eps_root": eps_root,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
