"""Adadelta: steps in the units of the parameters, from averages of squared gradients and of squared steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adadelta


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        "lr": group["lr"],
        "rho": group["rho"],
        "one_minus_rho": 1.0 - group["rho"],
        "eps": group["eps"],
        "weight_decay": group["weight_decay"],
    }


_RULE = Rule(adadelta, _hyper, ("square_avg", "acc_delta"), unsigned=("square_avg", "acc_delta"))

_CHECKS = {
    "lr": validation.not_negative,
    "rho": validation.fraction,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
}


class Adadelta(Optimizer):
    """Adadelta: steps whose size follows from those before, without a learning rate to find.

    For each element θ with gradient g, with ``g ← g + weight_decay·θ`` first::

        v ← rho·v + (1 - rho)·g²
        d = sqrt(u + eps) / sqrt(v + eps) · g
        u ← rho·u + (1 - rho)·d²
        θ ← θ - lr·d

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1.0
        What the steps are multiplied by, at least 0.
    rho : float, default 0.9
        Decay rate of the averages, in [0, 1).
    eps : float, default 1e-6
        Added under both roots, at least 0; the first steps grow with it.
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
    >>> from netcl.optim import Adadelta
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Adadelta([w])
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> (w - netcl.asarray([1.0, -2.0])).numpy().round(4).tolist()
    [-0.0031999999191612005, 0.0031999999191612005]

    Notes
    -----
    As ``torch.optim.Adadelta``, but that takes a rho of 1. Source: M. D. Zeiler, "ADADELTA: An Adaptive Learning Rate
    Method", 2012.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
