"""Lion: steps of one size along the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import lion


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    beta1, beta2 = group["betas"]
    return {
        "lr": group["lr"],
        "beta1": beta1,
        "one_minus_beta1": 1.0 - beta1,
        "beta2": beta2,
        "one_minus_beta2": 1.0 - beta2,
        "weight_decay": group["weight_decay"],
    }


_RULE = Rule(lion, _hyper, ("exp_avg",), signed=("exp_avg",))

_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "weight_decay": validation.not_negative,
}


class Lion(Optimizer):
    """Lion: evolved sign momentum.

    For each element θ with gradient g::

        c = β1·m + (1 - β1)·g
        θ ← θ - lr·(sign(c) + weight_decay·θ)
        m ← β2·m + (1 - β2)·g

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-4
        Learning rate, at least 0; usually 3 to 10 times smaller than AdamW's.
    betas : pair of float, default (0.9, 0.99)
        Share of the momentum in the step, and its decay rate, each in [0, 1).
    weight_decay : float, default 0.0
        Decay of the weights per unit of learning rate; usually 3 to 10 times AdamW's.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Lion
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Lion([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8999999761581421, -1.899999976158142]

    Notes
    -----
    The defaults are those of the authors' code; ``optax.lion`` has a weight decay of 1e-3. Source: X. Chen et al.,
    "Symbolic Discovery of Optimization Algorithms", 2023.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
