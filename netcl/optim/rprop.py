"""Rprop: steps whose size follows from the sign of the gradient alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import rprop
from netcl.validation import shown


def _etas(name: str, value: Any) -> tuple[float, float]:
    smaller, larger = validation.pair(name, value, "(0.5, 1.2)")
    if not 0.0 < smaller < 1.0 < larger:
        raise HyperParameterError(
            f"{name} must be two factors below and above 1, such as (0.5, 1.2), got {shown(value)}"
        )
    return smaller, larger


def _step_sizes(name: str, value: Any) -> tuple[float, float]:
    smallest, largest = validation.pair(name, value, "(1e-6, 50.0)")
    if smallest > largest:
        raise HyperParameterError(f"{name} must be the smallest and the largest in this order, got {shown(value)}")
    return smallest, largest


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    (etaminus, etaplus), (smallest, largest) = group["etas"], group["step_sizes"]
    return {
        "lr": group["lr"],
        "etaminus": etaminus,
        "etaplus": etaplus,
        "step_size_min": smallest,
        "step_size_max": largest,
    }


_RULE = Rule(rprop, _hyper, ("prev", "step_size"))

_CHECKS = {
    "lr": validation.not_negative,
    "etas": _etas,
    "step_sizes": _step_sizes,
}


class Rprop(Optimizer):
    """Resilient propagation: each element has a step size of its own, which grows while the gradient keeps its sign.

    For each element θ with gradient g, the gradient ``h`` of the step before and the step size s, from lr::

        s ← min(max(s·η, smallest), largest)      η = η+ if g·h > 0, η- if g·h < 0, else 1
        g ← 0                                     if g·h < 0
        θ ← θ - sign(g)·s
        h ← g

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        What the step sizes start at, at least 0. Assigned after the first step it has no effect.
    etas : pair of float, default (0.5, 1.2)
        Factors ``(η-, η+)`` with 0 < η- < 1 < η+.
    step_sizes : pair of float, default (1e-6, 50.0)
        The smallest and the largest step size, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Rprop
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Rprop([w])
    >>> w.grad = netcl.asarray([0.5, -0.5])
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.9900000095367432, -1.9900000095367432]

    Notes
    -----
    As ``torch.optim.Rprop``, but that takes the sign of the product g·h, which is 0 where the product is too small for
    its dtype. For whole batches: noise in the gradients makes their signs useless. Source: M. Riedmiller and H. Braun,
    "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm", 1993, without its step back.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
