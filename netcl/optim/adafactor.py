"""Adafactor: second moments of matrices kept as a row times a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.errors import HyperParameterError
from netcl.expression import maximum, minimum, rsqrt, sqrt, where
from netcl.optim import validation
from netcl.optim.engine.factored_moments import FactoredMoments, factored_fields
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import PerTensor, Rule
from netcl.validation import shown


def adafactor_direction(p: Any, g: Any, s: Any, h: Any) -> Any:
    """The gradient; the moments are those of whole tensors."""
    return g


def adafactor_ratio(n: Any, h: Any) -> Any:
    """The rate relative to the tensor's root mean square, and the clipping of the direction's."""
    root = sqrt(n.size)
    rate = maximum(h.eps2, n.p / root) * minimum(h.lr, rsqrt(h.step))
    return where(n.size > 0.0, rate / maximum(1.0, n.u / (root * h.d)), 0.0)


def adafactor(p: Any, u: Any, s: Any, h: Any) -> Any:
    """The decay, and the step along the direction."""
    return p - h.decay * p - h.ratio * u


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    eps1, eps2 = group["eps"]
    return {
        "lr": group["lr"],
        "beta2_decay": group["beta2_decay"],
        "eps1": -1.0 if eps1 is None else eps1,
        "eps2": eps2,
        "d": group["d"],
        "decay": group["lr"] * group["weight_decay"],
    }


_RULE = Rule(
    adafactor,
    _hyper,
    per_tensor=PerTensor(adafactor_direction, adafactor_ratio, between=FactoredMoments, fields=factored_fields),
)


def _eps(name: str, value: Any) -> tuple[float | None, float]:
    items = validation.listed(name, value)
    if len(items) != 2:
        raise HyperParameterError(f"{name} must be a pair such as (None, 1e-3), got {shown(value)}")
    first = None if items[0] is None else validation.not_negative("eps[0]", items[0])
    return first, validation.not_negative("eps[1]", items[1])


def _not_positive(name: str, value: Any) -> float:
    number = validation.real(name, value)
    if number > 0.0:
        raise HyperParameterError(f"{name} must be at most 0, got {number}; -0.8 is usual")
    return number


def _at_least_one(name: str, value: Any) -> float:
    number = validation.real(name, value)
    if number < 1.0:
        raise HyperParameterError(f"{name} must be at least 1, got {number}")
    return number


_CHECKS = {
    "lr": validation.not_negative,
    "beta2_decay": _not_positive,
    "eps": _eps,
    "d": _at_least_one,
    "weight_decay": validation.not_negative,
}


class Adafactor(Optimizer):
    """Adafactor: Adam's scaling, with a row and a column in place of a matrix of second moments.

    For each tensor θ with gradient g, at step t, where RMS is the root mean square of a tensor::

        w = t^beta2_decay
        R ← R + w·(mean over columns of g² - R)   for matrices, and the last two axes of larger tensors
        C ← C + w·(mean over rows of g² - C)
        V = R·C / max(mean(R), eps1)              V ← V + w·(g² - V) for vectors and scalars
        u = g / max(sqrt(V), eps1)
        a = max(eps2, RMS(θ))·min(lr, 1/sqrt(t))
        θ ← θ - lr·weight_decay·θ - a·u / max(1, RMS(u)/d)

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-2
        Largest relative rate, at least 0.
    beta2_decay : float, default -0.8
        Exponent of the step in the weight of new squares, at most 0.
    eps : pair, default (None, 1e-3)
        eps1, the least root that is divided by, or None for the spacing of the parameter dtype's numbers at 1; and
        eps2, the least root mean square that the rate is relative to. At least 0.
    d : float, default 1.0
        Largest root mean square of the direction, at least 1.
    weight_decay : float, default 0.0
        Decoupled decay, at least 0.
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Adafactor
    >>> w = netcl.ones((2, 3), requires_grad=True)
    >>> opt = Adafactor([w])
    >>> [field for field in opt.state_dict()["state"][0]]
    ['step', 'row_var', 'col_var']

    Notes
    -----
    A step is six launches, and seven for each shape of matrix and two for each shape of vector, batched over all
    tensors of that shape; two more where those do not lie at even distances in memory. None waits for the host.
    Checkpoints hold R and C alone, or V; on the device there is the direction besides, of the parameters' size.
    Clipping, loss scaling and master weights are as in every optimizer.

    Source: N. Shazeer and M. Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, as
    ``torch.optim.Adafactor`` has it: without momentum, with eps1 below the root instead of added to the squares. A
    direction whose squares underflow is 0 here, and NaN in torch.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {"lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay}
        super().__init__(params, defaults, _RULE, _CHECKS, common=common)
