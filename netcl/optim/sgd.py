"""SGD and Momentum: a step along the gradient, or along a velocity that gathers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from netcl.errors import HyperParameterError
from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import sgd, sgd_with_momentum


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {"lr": group["lr"], "weight_decay": group["weight_decay"]}


def _hyper_momentum(group: Mapping[str, Any]) -> dict[str, float]:
    return _hyper(group) | {
        "momentum": group["momentum"],
        "one_minus_dampening": 1.0 - group["dampening"],
        "nesterov": float(group["nesterov"]),
    }


_PLAIN = Rule(sgd, _hyper)
_MOMENTUM = Rule(sgd_with_momentum, _hyper_momentum, state=("momentum_buffer",), signed=("momentum_buffer",))

_CHECKS = {
    "lr": validation.not_negative,
    "momentum": validation.not_negative,
    "dampening": validation.real,
    "weight_decay": validation.not_negative,
    "nesterov": validation.flag,
}


def _rule(groups: Sequence[Mapping[str, Any]]) -> Rule:
    return _MOMENTUM if any(group["momentum"] > 0.0 for group in groups) else _PLAIN


def _check_group(group: Mapping[str, Any]) -> None:
    if group["nesterov"] and (group["momentum"] <= 0.0 or group["dampening"] != 0.0):
        raise HyperParameterError(
            f"nesterov=True needs momentum > 0 and dampening = 0, got momentum={group['momentum']} and "
            f"dampening={group['dampening']}; set momentum=0.9, or nesterov=False"
        )


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's variant.

    For each element θ with gradient g, with ``g ← g + weight_decay·θ`` first::

        v ← momentum·v + (1 - dampening)·g        if momentum > 0
        θ ← θ - lr·(g + momentum·v)               with nesterov
        θ ← θ - lr·v                              with momentum
        θ ← θ - lr·g                              without

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        Learning rate, at least 0.
    momentum : float, default 0.0
        Share of the velocity that is kept, at least 0.
    dampening : float, default 0.0
        Share of the gradient that does not enter the velocity.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    nesterov : bool, default False
        Step along ``g + momentum·v``; needs momentum and no dampening.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range or nesterov lacks momentum.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.optim import SGD
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = SGD([w], lr=0.25)
    >>> with ag.Tape() as tape:
    ...     loss = netcl.sum(w * w)
    >>> tape.backward(loss)
    >>> opt.step()
    >>> w.numpy()
    array([ 0.5, -1. ], dtype=float32)

    Notes
    -----
    The velocity starts at zero, so the formula holds from the first step on; ``torch.optim.SGD`` leaves the dampening
    out of the first one. Sources: B. T. Polyak, 1964; Y. Nesterov, 1983; I. Sutskever et al., 2013.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, _rule, _CHECKS, _check_group, common=common)


class Momentum(Optimizer):
    """SGD with classical (Polyak) momentum and no dampening; the formulas are those of :class:`SGD`.

    Parameters
    ----------
    params, nesterov, maximize, master_weights, backend
        As in :class:`SGD`.
    lr : float, default 1e-2
        Learning rate, at least 0.
    momentum : float, default 0.9
        Share of the velocity that is kept, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range or nesterov lacks momentum.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Momentum
    >>> w = netcl.ones(3, requires_grad=True)
    >>> opt = Momentum([w], lr=1e-2, momentum=0.9, weight_decay=1e-4, nesterov=False)
    >>> opt.param_groups[0]["momentum"]
    0.9

    Notes
    -----
    Source: B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": 0.0,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults, _rule, _CHECKS, _check_group, common=common)
