"""Muon: momentum, made orthogonal, for the matrices of hidden layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from netcl.errors import HyperParameterError
from netcl.expression import where
from netcl.optim import validation
from netcl.optim.engine.orthogonal import Orthogonalization
from netcl.optim.optimizer import Optimizer, Parameters
from netcl.optim.options import CommonOptions
from netcl.optim.rule import PerTensor, Rule
from netcl.validation import shown


def muon_direction(p: Any, g: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """The momentum, or with nesterov that of the next step."""
    m = s.momentum_buffer + h.one_minus_momentum * (g - s.momentum_buffer)
    return where(h.nesterov != 0.0, g + h.momentum * (m - g), m), m


def muon_ratio(n: Any, h: Any) -> Any:
    """The learning rate: what a matrix's shape asks for is in the direction."""
    return h.lr


def muon(p: Any, u: Any, s: Any, h: Any) -> tuple[Any, ...]:
    """The decay, and the step along the orthogonal direction."""
    return p - h.decay * p - h.ratio * u, s.momentum_buffer


def _hyper(group: Mapping[str, Any]) -> dict[str, float]:
    return {
        "lr": group["lr"],
        "momentum": group["momentum"],
        "one_minus_momentum": 1.0 - group["momentum"],
        "nesterov": float(group["nesterov"]),
        "decay": group["lr"] * group["weight_decay"],
    }


_RULE = Rule(
    muon, _hyper, ("momentum_buffer",), per_tensor=PerTensor(muon_direction, muon_ratio, between=Orthogonalization)
)


def _coefficients(name: str, value: Any) -> tuple[float, float, float]:
    items = validation.listed(name, value)
    if len(items) != 3:
        raise HyperParameterError(f"{name} must be three numbers such as (3.4445, -4.775, 2.0315), got {shown(value)}")
    a, b, c = (validation.real(f"{name}[{i}]", item) for i, item in enumerate(items))
    return a, b, c


def _steps(name: str, value: Any) -> int:
    steps = validation.integer(name, value, 0)
    if steps >= 100:
        raise HyperParameterError(f"{name} must lie below 100, got {steps}; 5 are usual")
    return steps


def _adjust(name: str, value: Any) -> str | None:
    if value not in (None, "original", "match_rms_adamw"):
        raise HyperParameterError(f"{name} must be None, 'original' or 'match_rms_adamw', got {shown(value)}")
    chosen: str | None = value
    return chosen


def _matrices(group: Mapping[str, Any]) -> None:
    for i, p in enumerate(group.get("params", ())):
        if len(p.shape) != 2:
            raise HyperParameterError(
                f"Muon updates matrices, and parameter {i} of a group has shape {p.shape}; give biases, norms and "
                "embeddings to AdamW"
            )


_CHECKS = {
    "lr": validation.not_negative,
    "weight_decay": validation.not_negative,
    "momentum": validation.not_negative,
    "nesterov": validation.flag,
    "ns_coefficients": _coefficients,
    "eps": validation.not_negative,
    "ns_steps": _steps,
    "adjust_lr_fn": _adjust,
}


class Muon(Optimizer):
    """Muon: the momentum of each matrix, with singular values brought near 1.

    For each matrix θ (A rows, B columns) with gradient g::

        m ← momentum·m + (1 - momentum)·g
        u = m                                     or g + momentum·(m - g) with nesterov
        x = u / max(‖u‖, eps)                     transposed if A > B
        x ← a·x + (b·X + c·X²)·x, X = x·xᵀ        ns_steps times
        θ ← θ - lr·weight_decay·θ - lr·f·x        f = sqrt(max(1, A/B)), or 0.2·sqrt(max(A, B))

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        Matrices; a dict is a parameter group with its own hyper-parameters beside ``"params"``.
    lr : float, default 1e-3
        Learning rate, at least 0.
    weight_decay : float, default 0.1
        Decoupled decay, at least 0.
    momentum : float, default 0.95
        Decay rate of the average of gradients, at least 0.
    nesterov : bool, default True
        Use the average of the next step, as far as it is known.
    ns_coefficients : three floats, default (3.4445, -4.775, 2.0315)
        a, b and c of the Newton-Schulz iteration.
    eps : float, default 1e-7
        The least norm that is divided by, at least 0.
    ns_steps : int, default 5
        Iterations, from 0 to 99.
    adjust_lr_fn : {None, "original", "match_rms_adamw"}, default None
        f: None and "original" are sqrt(max(1, A/B)), "match_rms_adamw" is 0.2·sqrt(max(A, B)).
    **common

    Raises
    ------
    HyperParameterError
        If a hyper-parameter is out of range, or a parameter is not a matrix.

    Examples
    --------
    >>> import netcl
    >>> from netcl.optim import Muon
    >>> w = netcl.zeros((2, 3), requires_grad=True)
    >>> opt = Muon([w], lr=0.02)
    >>> opt.param_groups[0]["ns_steps"]
    5

    Notes
    -----
    The iterations run in float32, or float64 for float64 parameters, where ``torch.optim.Muon`` runs them in bfloat16:
    the directions differ by what bfloat16 loses, some percent.

    A step is two launches, and for each shape of matrix 4 + 5·ns_steps, batched over all matrices of that shape in
    groups of the same ``ns_coefficients``, ``ns_steps``, ``eps`` and ``adjust_lr_fn``; two more where those matrices do
    not lie at even distances in memory. None waits for the host. Memory: the momentum, the direction, and two copies of
    each matrix with two products for the iterations. Clipping, loss scaling and master weights are as in every
    optimizer.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; "match_rms_adamw": J. Liu
    et al., "Muon is Scalable for LLM Training", 2025.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, _RULE, _CHECKS, _matrices, common=common)
