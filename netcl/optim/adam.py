"""Adam and AdamW: adaptive moments with bias correction, the decay in the gradient or decoupled from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import adam, adam_numbers, amsgrad


def _hyper(group: Mapping[str, Any], **decay: float) -> dict[str, float]:
    return adam_numbers(group["lr"], group["betas"], group["eps"], amsgrad=group["amsgrad"], **decay)


def _hyper_adam(group: Mapping[str, Any]) -> dict[str, float]:
    return _hyper(group, l2=group["weight_decay"])


def _hyper_adamw(group: Mapping[str, Any]) -> dict[str, float]:
    return _hyper(group, decay=group["weight_decay"])


_MOMENTS = ("exp_avg", "exp_avg_sq")
_RULES = {
    (decoupled, largest): Rule(
        update=amsgrad if largest else adam,
        hyper=_hyper_adamw if decoupled else _hyper_adam,
        state=(*_MOMENTS, "max_exp_avg_sq") if largest else _MOMENTS,
        fused_adam=True,
        signed=("exp_avg",),
        unsigned=("exp_avg_sq", "max_exp_avg_sq") if largest else ("exp_avg_sq",),
    )
    for decoupled in (False, True)
    for largest in (False, True)
}


def _adam_rule(groups: Sequence[Mapping[str, Any]]) -> Rule:
    return _RULES[False, any(group["amsgrad"] for group in groups)]


def _adamw_rule(groups: Sequence[Mapping[str, Any]]) -> Rule:
    return _RULES[True, any(group["amsgrad"] for group in groups)]


_CHECKS = {
    "lr": validation.not_negative,
    "betas": validation.betas,
    "eps": validation.not_negative,
    "weight_decay": validation.not_negative,
    "amsgrad": validation.flag,
}


class Adam(Optimizer):
    """Adam: exponential moving averages of the gradient and of its square, corrected for their start at zero.

    For each element θ with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        m ← β1·m + (1 - β1)·g
        v ← β2·v + (1 - β2)·g²
        θ ← θ - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        Decay rates of the two averages, each in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    amsgrad : bool, default False
        Divide by the largest second moment so far (Reddi et al., 2018). Each group may choose when
        it is made.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> import netcl.autograd as ag
    >>> from netcl.optim import Adam
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = Adam([w], lr=0.1)
    >>> with ag.Tape() as tape:
    ...     loss = netcl.sum(w * w)
    >>> tape.backward(loss)
    >>> opt.step()
    >>> w.numpy().round(4).tolist()
    [0.8999999761581421, -1.899999976158142]

    Notes
    -----
    As ``torch.optim.Adam``. The bias correction is ``-expm1(t·log β)``, which stays exact where ``1 - β^t`` in float32
    is off by 1e-5. Source: D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2014.
    """

    _fixed = ("amsgrad",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        amsgrad: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        }
        super().__init__(params, defaults, _adam_rule, _CHECKS, common=common)


class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    As :class:`Adam`, but the decay acts on the weights and not on the gradient::

        θ ← θ - lr · ((m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps) + weight_decay·θ)

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize, master_weights, backend
        As in :class:`Adam`.
    weight_decay : float, default 0.01
        Decay of the weights per unit of learning rate.

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import AdamW
    >>> w = netcl.ones(3, requires_grad=True)
    >>> opt = AdamW([w], lr=3e-4, weight_decay=0.01)
    >>> opt.lr
    0.0003

    Notes
    -----
    As ``torch.optim.AdamW``. Source: I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2017.
    """

    _fixed = ("amsgrad",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        amsgrad: bool = False,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
        }
        super().__init__(params, defaults, _adamw_rule, _CHECKS, common=common)
