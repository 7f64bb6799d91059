"""The update rules of Adam, SGD and RMSProp: arithmetic on one element, traced for every backend.

Each takes the parameter ``p``, its gradient ``g``, the state ``s.<name>`` and the hyper-parameters ``h.<name>``, and
returns the new parameter and state. A backend's ``fused_adam`` computes :func:`adam`, or :func:`amsgrad` where there is
a largest second moment.
"""

from __future__ import annotations

import math
from typing import Any

from netcl.expression import Node, maximum, sqrt, where


def adam(p: Node, g: Node, s: Any, h: Any, *, l2: bool | None = True, decay: bool | None = True) -> tuple[Node, ...]:
    """Adam; ``h.l2`` is the decay in the gradient, ``h.decay`` the decoupled one.

    A term that is left out is not there at all, where one of factor 0 makes NaN of infinity. None leaves it out where
    its factor is zero.
    """
    m, v = _moments(p, g, s, h, l2)
    return _descended(p, m, v, h, decay), m, v


def amsgrad(
    p: Node,
    g: Node,
    s: Any,
    h: Any,
    *,
    l2: bool | None = True,
    decay: bool | None = True,
    keeps: bool | None = None,
) -> tuple[Node, ...]:
    """Adam that divides by the largest second moment so far, in the groups that ask for it.

    ``keeps`` says whether this group does, where that is known; by default ``h.amsgrad`` says so.
    """
    m, v = _moments(p, g, s, h, l2)
    if keeps is False:
        return _descended(p, m, v, h, decay), m, v, s.max_exp_avg_sq
    largest = maximum(s.max_exp_avg_sq, v)
    if keeps:
        return _descended(p, m, largest, h, decay), m, v, largest
    asked = h.amsgrad != 0.0
    largest = where(asked, largest, s.max_exp_avg_sq)
    return _descended(p, m, where(asked, largest, v), h, decay), m, v, largest


def _with_term(x: Node, factor: Node, p: Node, there: bool | None) -> Node:
    """x + factor·p if the term is there; None asks the factor."""
    if there is False:
        return x
    return x + factor * p if there else where(factor != 0.0, x + factor * p, x)


def _moments(p: Node, g: Node, s: Any, h: Any, l2: bool | None) -> tuple[Node, Node]:
    g = _with_term(g, h.l2, p, l2)
    return h.beta1 * s.exp_avg + h.one_minus_beta1 * g, h.beta2 * s.exp_avg_sq + h.one_minus_beta2 * (g * g)


def _descended(p: Node, m: Node, v: Node, h: Any, decay: bool | None) -> Node:
    update = _with_term((m / h.bias_correction1) / (sqrt(v / h.bias_correction2) + h.eps), h.decay, p, decay)
    descended: Node = p - h.lr * update
    return descended


def adam_numbers(
    lr: float, betas: tuple[float, float], eps: float, *, l2: float = 0.0, decay: float = 0.0, amsgrad: bool = False
) -> dict[str, float]:
    """The columns of :data:`~netcl.backends.base.ADAM_COLUMNS` that are Adam's own."""
    beta1, beta2 = betas
    # 1 - beta is formed here, in double: in float32 it would be off by 5e-5 at beta = 0.999.
    return {
        "lr": lr,
        "beta1": beta1,
        "one_minus_beta1": 1.0 - beta1,
        "beta2": beta2,
        "one_minus_beta2": 1.0 - beta2,
        "eps": eps,
        "l2": l2,
        "decay": decay,
        "log_beta1": _log(beta1),
        "log_beta2": _log(beta2),
        "amsgrad": float(amsgrad),
    }


def _log(beta: float) -> float:
    """Natural logarithm of a decay rate, with log 0 = -inf."""
    return math.log(beta) if beta > 0.0 else -math.inf


def sgd(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """A step along the gradient."""
    return (p - h.lr * (g + h.weight_decay * p),)


def sgd_with_momentum(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """A step along the velocity, or along the gradient looked up ahead of it."""
    g = g + h.weight_decay * p
    # A group without momentum takes the plain step, and leaves the velocity that it has or is yet to gather alone.
    gathers = h.momentum != 0.0
    velocity = where(gathers, h.momentum * s.momentum_buffer + h.one_minus_dampening * g, s.momentum_buffer)
    ahead = where(h.nesterov != 0.0, g + h.momentum * velocity, velocity)
    return p - h.lr * where(gathers, ahead, g), velocity


def rmsprop(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """RMSProp."""
    return _rmsprop(p, g, s, h, centered=False, momentum=False)


def rmsprop_centered(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """RMSProp with the variance in place of the second moment."""
    return _rmsprop(p, g, s, h, centered=True, momentum=False)


def rmsprop_momentum(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """RMSProp whose steps gather in a velocity."""
    return _rmsprop(p, g, s, h, centered=False, momentum=True)


def rmsprop_centered_momentum(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """RMSProp with both."""
    return _rmsprop(p, g, s, h, centered=True, momentum=True)


def _rmsprop(p: Node, g: Node, s: Any, h: Any, *, centered: bool, momentum: bool) -> tuple[Node, ...]:
    """The rule with the state that some group needs; a group that does not need it leaves it alone."""
    g = g + h.weight_decay * p
    square_avg = h.alpha * s.square_avg + h.one_minus_alpha * (g * g)
    state = [square_avg]
    variance = square_avg
    if centered:
        here = h.centered != 0.0
        grad_avg = where(here, h.alpha * s.grad_avg + h.one_minus_alpha * g, s.grad_avg)
        state.append(grad_avg)
        # Rounding can leave the difference a little below zero, whose root would be NaN.
        variance = where(here, maximum(square_avg - grad_avg * grad_avg, 0.0), square_avg)
    step = g / (sqrt(variance) + h.eps)
    if momentum:
        gathers = h.momentum != 0.0
        gathered = where(gathers, h.momentum * s.momentum_buffer + step, s.momentum_buffer)
        state.append(gathered)
        step = where(gathers, gathered, step)
    return (p - h.lr * step, *state)
