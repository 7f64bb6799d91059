"""Schedule-free SGD and AdamW: an average in place of a learning-rate schedule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Unpack

from netcl.optim import validation
from netcl.optim.engine.averaging import exchange
from netcl.optim.engine.group_factory import Check
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import Rule
from netcl.update_rules import average_numbers, schedule_free_adamw, schedule_free_sgd


def _interpolation(group: Mapping[str, Any]) -> float:
    share: float = group["momentum"] if "momentum" in group else group["betas"][0]
    return share


def _shared(group: Mapping[str, Any]) -> dict[str, float]:
    steps = group["warmup_steps"]
    return {
        "lr": group["lr"],
        "interpolation": _interpolation(group),
        "weight_decay": group["weight_decay"],
        "warmup": 1.0 / steps if steps else 1.0,
        "r": group["r"],
        "weight": group["lr"] ** group["weight_lr_power"],
        "weight_lr_power": group["weight_lr_power"],
    }


def _hyper_adamw(group: Mapping[str, Any]) -> dict[str, float]:
    beta2 = group["betas"][1]
    return {**_shared(group), **average_numbers(beta2=beta2), "eps": group["eps"]}


_SGD = Rule(schedule_free_sgd, _shared, ("z", "weight_sum"))
_ADAMW = Rule(schedule_free_adamw, _hyper_adamw, ("z", "weight_sum", "exp_avg_sq"), unsigned=("exp_avg_sq",))


def _positive_fraction(name: str, value: Any) -> float:
    share = validation.fraction(name, value)
    if share == 0.0:
        validation.positive(name, share)
    return share


def _betas(name: str, value: Any) -> tuple[float, float]:
    beta1, beta2 = validation.betas(name, value)
    return _positive_fraction("beta1", beta1), beta2


def _steps(name: str, value: Any) -> int:
    return validation.integer(name, value, 0)


_CHECKS: Mapping[str, Check] = {
    "lr": validation.not_negative,
    "weight_decay": validation.not_negative,
    "warmup_steps": _steps,
    "r": validation.not_negative,
    "weight_lr_power": validation.not_negative,
    "train_mode": validation.flag,
}


class ScheduleFree(Optimizer):
    """What the schedule-free optimizers share: parameters that are one point in training and another in evaluation."""

    _fixed = ("train_mode",)

    @abstractmethod
    def __init__(
        self,
        params: Parameters,
        defaults: Mapping[str, Any],
        rule: Rule,
        check: Mapping[str, Check],
        common: CommonOptions,
    ) -> None:
        super().__init__(params, {**defaults, "train_mode": True}, rule, {**_CHECKS, **check}, common=common)

    def eval(self) -> None:
        """Put the average in place of every parameter, for evaluation and for saving the model. Does not block.

        Until :meth:`train` is called, ``step()`` is refused. A second call changes nothing. With parameters that are
        host arrays the call **blocks**.
        """
        exchange(self._engine, self._factory.host, train=False, interpolation=_interpolation)

    def train(self) -> None:
        """Put the point at which gradients are taken in place of every parameter again. Does not block.

        An optimizer starts like that. A second call changes nothing. With parameters that are host arrays the call
        **blocks**.
        """
        exchange(self._engine, self._factory.host, train=True, interpolation=_interpolation)


class ScheduleFreeSGD(ScheduleFree):
    """Gradient descent that averages instead of lowering the learning rate.

    A parameter θ is where gradients are taken: between the base sequence z, which starts at θ, and the average x. For
    each element with gradient g at step t, with ``g ← g + weight_decay·θ`` first::

        γ = lr · min(1, t / warmup_steps)
        z ← z - γ·g
        w = t^r · γ^weight_lr_power
        x ← x + w / (sum of all w so far) · (z - x)
        θ ← (1 - momentum)·z + momentum·x

    Call :meth:`eval` before evaluating or saving the model, which puts x in place of θ, and :meth:`train` before the
    next step.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1.0
        Learning rate, at least 0; larger than one that is lowered later.
    momentum : float, default 0.9
        How far θ is on the way from z to x, in (0, 1).
    weight_decay : float, default 0.0
        L2 penalty, added to the gradient.
    warmup_steps : int, default 0
        Steps in which the learning rate rises.
    r : float, default 0.0
        Power of the step count in the weights of the average, at least 0.
    weight_lr_power : float, default 2.0
        Power of the learning rate in the weights of the average, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import ScheduleFreeSGD
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = ScheduleFreeSGD([w], lr=0.5)
    >>> for _ in range(2):
    ...     w.grad = netcl.asarray([0.5, -0.5])
    ...     opt.step()
    >>> opt.eval()
    >>> w.numpy().round(4).tolist()
    [0.625, -1.625]
    >>> opt.train()

    Notes
    -----
    x is not kept: it follows from θ and z, so that :meth:`eval` and :meth:`train` round. The sum of the weights is
    kept for each element, since it has no closed form once a learning rate may change: 4 bytes of memory and 8 of
    traffic per float32 element, which one number for each parameter would save. The weights are the paper's; the
    authors' code takes the largest γ so far in them, which is the same unless the learning rate falls. Source: A.
    Defazio et al., "The Road Less Scheduled", 2024; the defaults are those of the authors' ``SGDScheduleFree``.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
        }
        super().__init__(params, defaults, _SGD, {"momentum": _positive_fraction}, common)


class ScheduleFreeAdamW(ScheduleFree):
    """AdamW that averages instead of lowering the learning rate.

    As :class:`ScheduleFreeSGD`, with steps divided as in Adam::

        v ← β2·v + (1 - β2)·g²
        z ← z - γ·(g / (sqrt(v / (1 - β2^t)) + eps) + weight_decay·θ)
        θ ← (1 - β1)·z + β1·x

    Parameters
    ----------
    params, warmup_steps, r, weight_lr_power, maximize, master_weights, backend
        As in :class:`ScheduleFreeSGD`.
    lr : float, default 0.0025
        Learning rate, at least 0.
    betas : pair of float, default (0.9, 0.999)
        How far θ is on the way from z to x, in (0, 1), and the decay rate of the second moment, in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        Decay of the weights per unit of learning rate.

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import ScheduleFreeAdamW
    >>> w = netcl.asarray([1.0, -2.0], requires_grad=True)
    >>> opt = ScheduleFreeAdamW([w], lr=0.5)
    >>> for _ in range(2):
    ...     w.grad = netcl.asarray([0.5, -0.5])
    ...     opt.step()
    >>> opt.eval()
    >>> w.numpy().round(4).tolist()
    [0.25, -1.25]
    >>> opt.train()

    Notes
    -----
    As in :class:`ScheduleFreeSGD`, with the authors' ``AdamWScheduleFree``; the learning rate is not multiplied by
    ``sqrt(1 - β2^t)`` as in the paper, since v is corrected. Source: A. Defazio et al., "The Road Less Scheduled",
    2024.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
        }
        super().__init__(params, defaults, _ADAMW, {"betas": _betas, "eps": validation.not_negative}, common)
