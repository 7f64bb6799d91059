"""Adagrad: each element's step divided by the root of the sum of its squared gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adagrad


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        "lr": group["lr"],
        "lr_decay": group["lr_decay"],
        "weight_decay": group["weight_decay"],
        "start": group["initial_accumulator_value"],
        "eps": group["eps"],
    }


_RULE = Rule(adagrad, _hyper, ("sum",), unsigned=("sum",))

_CHECKS = {
    "lr": validation.not_negative,
    "lr_decay": validation.not_negative,
    "weight_decay": validation.not_negative,
    "initial_accumulator_value": validation.not_negative,
    "eps": validation.not_negative,
}


class Adagrad(Optimizer):
    """Adagrad: steps divided by the root of all squared gradients so far.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        s ← s + g²                                            from initial_accumulator_value
        θ ← θ - lr / (1 + (t - 1)·lr_decay) · g / (sqrt(s) + eps)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        Learning rate, at least 0.
    lr_decay : float, default 0.0
        How fast the learning rate falls, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    initial_accumulator_value : float, default 0.0
        What the sums start at, at least 0. Each group may say for itself.
    eps : float, default 1e-10
        Added to the root, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Adagrad
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Adagrad([w], lr=0.1)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8999999761581421, -1.899999976158142]

    Notes
    -----
    As ``torch.optim.Adagrad``, which keeps the start value of the optimizer for all groups. Gradients are dense.
    Source: J. Duchi, E. Hazan and Y. Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
