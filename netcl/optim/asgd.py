"""ASGD: gradient descent with falling steps, and the average of the points that it passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import asgd


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {name: group[name] for name in ("lr", "lambd", "alpha", "t0", "weight_decay")}


_RULE = Rule(asgd, _hyper, ("ax",))

_CHECKS = {
    "lr": validation.not_negative,
    "lambd": validation.not_negative,
    "alpha": validation.not_negative,
    "t0": validation.not_negative,
    "weight_decay": validation.not_negative,
}


class ASGD(Optimizer):
    """Averaged stochastic gradient descent.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        η = lr / (1 + lambd·lr·(t - 1))^alpha
        θ ← θ - η·(g + lambd·θ)
        a ← a + (θ - a) / max(1, t - 1 - t0)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        Learning rate, at least 0.
    lambd : float, default 1e-4
        Decay of the weights and of the steps, at least 0.
    alpha : float, default 0.75
        Power by which the steps fall, at least 0.
    t0 : float, default 1e6
        Number of steps after which averaging begins, at least 0; until then the average is the parameter.
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
    >>> from netcl.optim import ASGD
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = ASGD([w], lr=0.1, t0=0)
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> opt.state_dict()["state"][0]["ax"].round(4).tolist()
    [0.949999988079071, -1.9500000476837158]

    Notes
    -----
    As ``torch.optim.ASGD``; the average ``a`` is the state field ``ax``. η and the weight of the average follow from
    the step count, where torch keeps those of the step before: a new learning rate takes effect one step earlier
    here. Source: B. T. Polyak and A. B. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the
    falling steps: W. Xu, "Towards Optimal One Pass Large Scale Learning with Averaged Stochastic Gradient Descent",
    2011.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
