"""The update rules of the optimizers: arithmetic on one element, traced for every backend.

Each takes the parameter ``p``, its gradient ``g``, the state ``s.<name>`` and the hyper-parameters ``h.<name>``, and
returns the new parameter and state. A backend's ``fused_adam`` computes :func:`adam`, or :func:`amsgrad` where there is
a largest second moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from netcl.expression import Node, exp, expm1, log1p, maximum, minimum, sign, sqrt, where


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


def average_numbers(**rates: float) -> dict[str, float]:
    """Decay rates of averages by name, what is left of each, and their logarithms, which bias corrections take."""
    numbers: dict[str, float] = {}
    for name, rate in rates.items():
        numbers |= {name: rate, f"one_minus_{name}": 1.0 - rate, f"log_{name}": _log(rate)}
    return numbers


def decay_numbers(group: Mapping[str, Any]) -> dict[str, float]:
    """The decay in the gradient and the decoupled one per step, of a group that says which of the two it has."""
    decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]
    return {"l2": 0.0, "decay": group["lr"] * decay} if decoupled else {"l2": decay, "decay": 0.0}


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


def adagrad(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Adagrad; ``h.start`` is what the sum of squares starts at."""
    g = g + h.weight_decay * p
    total = _started(s.sum, h.start, h) + g * g
    return p - (h.lr / (1.0 + (h.step - 1.0) * h.lr_decay)) * g / (sqrt(total) + h.eps), total


def _started(field: Node, start: Node, h: Any) -> Node:
    """A state field that starts at what a hyper-parameter, or the parameter, is at the first step."""
    return where(h.step == 1.0, start, field)


def adadelta(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Adadelta."""
    g = g + h.weight_decay * p
    square_avg = h.rho * s.square_avg + h.one_minus_rho * (g * g)
    delta = sqrt(s.acc_delta + h.eps) / sqrt(square_avg + h.eps) * g
    return p - h.lr * delta, square_avg, h.rho * s.acc_delta + h.one_minus_rho * (delta * delta)


def adamax(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Adamax."""
    g = g + h.weight_decay * p
    m = h.beta1 * s.exp_avg + h.one_minus_beta1 * g
    u = maximum(h.beta2 * s.exp_inf, abs(g) + h.eps)
    return p - (h.lr / h.bias_correction1) * m / u, m, u


def nadam(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """NAdam; ``h.log_decay`` is the logarithm of what a step leaves of the momentum's warm-up."""
    g = g + h.l2 * p
    m, v = _moments(p, g, s, h, False)
    mu = h.beta1 * (1.0 - 0.5 * exp(h.step * h.log_decay))
    next_mu = h.beta1 * (1.0 - 0.5 * exp((h.step + 1.0) * h.log_decay))
    product = s.mu_product * mu
    ahead = ((1.0 - mu) / (1.0 - product)) * g + (next_mu / (1.0 - product * next_mu)) * m
    return p - h.decay * p - h.lr * ahead / (sqrt(v / h.bias_correction2) + h.eps), m, v, product


RECTIFIED_ABOVE = 5.0
"""RAdam: from how many terms of its average on a variance is trusted."""

# x / (exp(x) - 1) = 1 - x/2 + sum of B_2k / (2k)! x^2k, of Bernoulli's numbers; the sum's terms from k = 1.
_BERNOULLI = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
)


def radam(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """RAdam.

    The length of the average is ``rho_inf - 2·t·β2^t / (1 - β2^t)``, a small difference of large numbers. With
    ``x = -t·log β2`` it is ``h.length_offset + h.length_scale·(1 - x / (exp(x) - 1))``, all of whose terms are of its
    own size.
    """
    m, v = _moments(p, g + h.l2 * p, s, h, False)
    x = -h.step * h.log_beta2
    square = x * x
    series = _BERNOULLI[-1] * square
    for coefficient in reversed(_BERNOULLI[:-1]):
        series = (coefficient + series) * square
    length = h.length_offset + h.length_scale * where(x < 0.5, 0.5 * x - series, 1.0 - x / expm1(x))
    trusted = length > RECTIFIED_ABOVE
    rectified = sqrt(where(trusted, h.rectifier * (length - 4.0) * (length - 2.0) / length, 1.0) * h.bias_correction2)
    plain = (h.lr / h.bias_correction1) * m
    return p - h.decay * p - where(trusted, rectified * plain / (sqrt(v) + h.eps), plain), m, v


def radam_numbers(beta2: float) -> dict[str, float]:
    """What :func:`radam` needs of its second decay rate, besides its logarithm."""
    longest = 2.0 / (1.0 - beta2) - 1.0
    scale = 2.0 / -math.log(beta2) if beta2 > 0.0 else 0.0
    trusted = longest > RECTIFIED_ABOVE
    return {
        "length_offset": longest - scale,
        "length_scale": scale,
        "rectifier": longest / ((longest - 4.0) * (longest - 2.0)) if trusted else 0.0,
    }


def asgd(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Averaged stochastic gradient descent."""
    before = h.step - 1.0
    rate = h.lr * exp(-h.alpha * log1p(h.lambd * h.lr * before))
    moved = p - rate * (g + (h.weight_decay + h.lambd) * p)
    averaged = before - h.t0
    return moved, where(averaged > 1.0, s.ax + (moved - s.ax) / maximum(averaged, 1.0), moved)


def rprop(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Rprop: after a change of sign an element rests for a step."""
    agrees = sign(g) * sign(s.prev)
    turned = agrees < 0.0
    factor = where(agrees > 0.0, h.etaplus, where(turned, h.etaminus, 1.0))
    size = minimum(maximum(_started(s.step_size, h.lr, h) * factor, h.step_size_min), h.step_size_max)
    g = where(turned, 0.0, g)
    return p - sign(g) * size, g, size


def lion(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Lion."""
    direction = sign(h.beta1 * s.exp_avg + h.one_minus_beta1 * g)
    return p - h.lr * (direction + h.weight_decay * p), h.beta2 * s.exp_avg + h.one_minus_beta2 * g


def adan(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Adan; the decay takes ``h.before`` of the parameter before the step, or ``h.after`` of it afterwards."""
    change = where(h.step == 1.0, 0.0, g - s.pre_grad)
    m = h.beta1 * s.exp_avg + h.one_minus_beta1 * g
    d = h.beta2 * s.exp_avg_diff + h.one_minus_beta2 * change
    ahead = g + h.beta2 * change
    n = h.beta3 * s.exp_avg_sq + h.one_minus_beta3 * (ahead * ahead)
    denominator = sqrt(n / -expm1(h.step * h.log_beta3)) + h.eps
    update = (m / h.bias_correction1 + h.beta2 * (d / h.bias_correction2)) / denominator
    moved = p - h.before * p - h.lr * update
    return moved - h.after * moved, m, d, n, g


def adabelief(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """AdaBelief."""
    g = g + h.l2 * p
    m = h.beta1 * s.exp_avg + h.one_minus_beta1 * g
    surprise = g - m
    v = h.beta2 * s.exp_avg_var + h.one_minus_beta2 * (surprise * surprise) + h.eps_root
    update = (m / h.bias_correction1) / (sqrt(v / h.bias_correction2) + h.eps)
    return p - h.decay * p - h.lr * update, m, v


def schedule_free_sgd(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Schedule-free gradient descent; the parameter is where the gradient is taken."""
    p, z, total = _schedule_free(p, g + h.weight_decay * p, s, h)
    return p, z, total


def schedule_free_adamw(p: Node, g: Node, s: Any, h: Any) -> tuple[Node, ...]:
    """Schedule-free AdamW without bias correction of the first moment, which it does not keep."""
    v = h.beta2 * s.exp_avg_sq + h.one_minus_beta2 * (g * g)
    step = g / (sqrt(v / h.bias_correction2) + h.eps) + h.weight_decay * p
    return *_schedule_free(p, step, s, h), v


def _schedule_free(p: Node, step: Node, s: Any, h: Any) -> tuple[Node, Node, Node]:
    """The parameter, the base sequence and the sum of weights after a step of the base."""
    warmth = minimum(h.step * h.warmup, 1.0)
    lr = h.lr * warmth
    weight = h.step**h.r * h.weight * warmth**h.weight_lr_power
    total = s.weight_sum + weight
    share = where(total > 0.0, weight / total, 0.0)
    z = _started(s.z, p, h)
    return p + share * (z - p) - (lr * (1.0 - h.interpolation * (1.0 - share))) * step, z - lr * step, total
