"""RMSProp: each element's step divided by the root of a moving average of its squared gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import rmsprop, rmsprop_centered, rmsprop_centered_momentum, rmsprop_momentum


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        "lr": group["lr"],
        "alpha": group["alpha"],
        "one_minus_alpha": 1.0 - group["alpha"],
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
        "momentum": group["momentum"],
        "centered": float(group["centered"]),
    }


_RULES = {
    (False, False): Rule(rmsprop, _hyper, ("square_avg",), unsigned=("square_avg",)),
    (True, False): Rule(rmsprop_centered, _hyper, ("square_avg", "grad_avg")),
    (False, True): Rule(
        rmsprop_momentum,
        _hyper,
        ("square_avg", "momentum_buffer"),
        signed=("momentum_buffer",),
        unsigned=("square_avg",),
    ),
    # The centered variance is a small difference, which fewer bits would make negative.
    (True, True): Rule(
        rmsprop_centered_momentum,
        _hyper,
        ("square_avg", "grad_avg", "momentum_buffer"),
        signed=("momentum_buffer",),
    ),
}


def _rule(groups: Sequence[Mapping[str, Any]]) -> Rule:
    return _RULES[any(group["centered"] for group in groups), any(group["momentum"] > 0.0 for group in groups)]


_CHECKS = {
    "lr": validation.not_negative,
    "alpha": validation.fraction,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
    "momentum": validation.not_negative,
    "centered": validation.flag,
}


class RMSProp(Optimizer):
    """RMSProp, plain or centered, with or without momentum.

    For each element θ with gradient g, with ``g ← g + weight_decay·θ`` first::

        v ← alpha·v + (1 - alpha)·g²
        a ← alpha·a + (1 - alpha)·g               if centered
        d = sqrt(v) + eps                         or sqrt(max(v - a², 0)) + eps if centered
        b ← momentum·b + g / d                    if momentum > 0
        θ ← θ - lr·b                              with momentum
        θ ← θ - lr·g / d                          without

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0 (torch's default is 1e-2).
    alpha : float, default 0.99
        Decay rate of the averages, in [0, 1).
    eps : float, default 1e-8
        Added to the root, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    momentum : float, default 0.0
        Share of the velocity that is kept, at least 0.
    centered : bool, default False
        Divide by an estimate of the standard deviation instead of the root mean square. Each group may choose
        when it is made.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import RMSProp
    >>> w = netcl.ones(3, requires_grad=True)
    >>> opt = RMSProp([w], lr=1e-3, centered=True)
    >>> opt.param_groups[0]["alpha"]
    0.99

    Notes
    -----
    The centered variance is clamped at zero, where torch makes NaN. Source: T. Tieleman and G. Hinton, 2012; centered:
    A. Graves, "Generating Sequences With Recurrent Neural Networks", 2013.
    """

    _fixed = ("centered",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(params, defaults, _rule, _CHECKS, common=common)


RMSprop = RMSProp
"""torch's spelling of the same class."""
