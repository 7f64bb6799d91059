"""Kind ``narrow``: steps with parameters and state in few bits, each against the same step in float64.

What a step begins with is read back from the backend, so rounding at random leaves nothing open: the parameter must be
one of the two numbers beside the exact result, and each number of the state the nearest that its storage has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import netcl
from netcl.backends import get_backend
from netcl.backends.base import BlockFormat
from netcl.errors import DTypeError
from netcl.optim import SGD, AdamW, Lion, RMSprop
from netcl.testing.conformance.blocks import code_of, shares
from tests.fuzz.case import Disagreement, Values, source, stored, weighted, without

OPTIMIZERS: Mapping[str, Any] = {"AdamW": AdamW, "SGD": SGD, "Lion": Lion, "RMSprop": RMSprop}
UNSIGNED = ("exp_avg_sq", "square_avg")
DIGITS = {"bfloat16": 8, "float16": 11}


@dataclass(frozen=True)
class Narrow:
    """Some tensors of one dtype, and a few steps with gradients of one style."""

    optimizer: str
    dtype: str
    options: dict[str, Any]
    parameters: tuple[Values, ...]
    gradients: tuple[Values, ...]
    """For each step; every tensor takes what it needs from the first element on."""

    def simpler(self) -> Iterator[Narrow]:
        for parameters in without(self.parameters, 1):
            yield replace(self, parameters=parameters)
        for gradients in without(self.gradients, 1):
            yield replace(self, gradients=gradients)
        for name in ("parameters", "gradients"):
            values = getattr(self, name)
            for i, value in enumerate(values):
                for other in value.simpler() if name == "parameters" else _plainer(value):
                    yield replace(self, **{name: (*values[:i], other, *values[i + 1 :])})


def _plainer(values: Values) -> Iterator[Values]:
    if values.style not in ("integers", "ones"):
        yield replace(values, style="integers")


def draw(seed: int, number: int) -> Narrow:
    """The case with this number."""
    r = source(seed, "narrow", number)
    optimizer = r.choice(list(OPTIMIZERS))
    dtype = weighted(r, float32=2, bfloat16=2, float16=1)
    state = r.choice([None, "bfloat16", "8bit", "4bit"])
    options: dict[str, Any] = {"lr": r.choice([1e-3, 0.03, 2.0**-6]), "state_dtype": state}
    options["weight_decay"] = r.choice([0.0, 0.1])
    if optimizer == "SGD":
        options["momentum"] = r.choice([0.5, 0.9])
    if dtype != "float32":
        options["rounding"] = r.choice(["nearest", "kahan", "stochastic"])
        options["master_weights"] = r.random() < 0.5
    options["rounding_seed"] = r.randrange(1 << 32)
    sizes = [r.choice([1, 7, 128, 255, 256, 257, 1000, 1024, 1025, 2500]) for _ in range(r.randint(1, 3))]
    parameters = tuple(Values((n,), weighted(r, normal=3, small=1, zeros=1), r.randrange(1 << 30)) for n in sizes)
    style = weighted(r, normal=4, small=1, zeros=2, integers=1, wide=1)
    gradients = tuple(Values((2500,), style, r.randrange(1 << 30)) for _ in range(r.randint(1, 4)))
    return Narrow(optimizer, dtype, options, parameters, gradients)


def run(case: Narrow, backend: str) -> None:
    """Run a case; raises what is wrong."""
    device = get_backend(backend).device
    try:
        tensors = [_tensor(values.array(), case.dtype, device) for values in case.parameters]
    except DTypeError:  # a device without this dtype
        return
    options = dict(case.options)
    optimizer = OPTIMIZERS[case.optimizer](tensors, **options)
    for step, values in enumerate(case.gradients, 1):
        drawn = values.array()
        before = [_numbers(p) for p in tensors]
        state = optimizer.state_dict()["state"]
        gradients = [stored(drawn[: p.size], case.dtype) for p in tensors]
        for p, g in zip(tensors, gradients, strict=True):
            p.grad = _tensor(g, case.dtype, device)
        optimizer.step()
        after = optimizer.state_dict()["state"]
        for i, p in enumerate(tensors):
            where = f"tensor {i}, step {step}"
            _check(case, where, step, before[i], state[i], gradients[i], _numbers(p), after[i])


def _tensor(values: Any, dtype: str, device: Any) -> Any:
    x = netcl.astype(netcl.asarray(np.asarray(values, "f4"), device=device), dtype)
    x.requires_grad = True
    return x


def _numbers(p: Any) -> Any:
    return netcl.astype(p, "float32").numpy().astype("f8")


def _held(case: Narrow, p: Any, state: Mapping[str, Any]) -> Any:
    """What a parameter stands for before a step."""
    if "master" in state:
        master = state["master"].astype("f8")
        return np.where(stored(master, case.dtype) == p, master, p)
    if "compensation" in state:
        c = state["compensation"].astype("f8")
        return np.where(np.abs(c) <= np.abs(p) * 2.0 ** -DIGITS[case.dtype], p + c, p)
    return p


def _exact(case: Narrow, step: int, p: Any, g: Any, state: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """Parameter and state after a step, and the size of what was added to the parameter."""
    h = case.options
    s = {name: value.astype("f8") for name, value in state.items() if name not in ("step", "master", "compensation")}
    lr, decay = h["lr"], h["weight_decay"]
    if case.optimizer == "AdamW":
        m, v = 0.9 * s["exp_avg"] + 0.1 * g, 0.999 * s["exp_avg_sq"] + 0.001 * g * g
        c1, c2 = 1 - 0.9**step, 1 - 0.999**step
        change = lr * ((m / c1) / (np.sqrt(v / c2) + 1e-8) + decay * p)
        return p - change, {"exp_avg": m, "exp_avg_sq": v}, np.abs(change)
    if case.optimizer == "Lion":
        direction = 0.9 * s["exp_avg"] + (1 - 0.9) * g
        change = lr * (np.sign(direction) + decay * p)
        unsure = np.abs(direction) <= 1e-6 * (np.abs(s["exp_avg"]) + np.abs(g))  # its sign may be either, or none
        slack = np.abs(change) + np.where(unsure, 1e7 * lr, 0.0)
        return p - change, {"exp_avg": 0.99 * s["exp_avg"] + (1 - 0.99) * g}, slack
    of_gradient = np.abs(g) + decay * np.abs(p)  # which may cancel
    g = g + decay * p
    if case.optimizer == "SGD":
        velocity = h["momentum"] * s["momentum_buffer"] + g
        parts = h["momentum"] * np.abs(s["momentum_buffer"]) + of_gradient
        return p - lr * velocity, {"momentum_buffer": velocity}, lr * parts
    average = 0.99 * s["square_avg"] + 0.01 * g * g
    rate = lr / (np.sqrt(average) + 1e-8)
    return p - rate * g, {"square_avg": average}, rate * of_gradient


def _check(
    case: Narrow, where: str, step: int, p: Any, state: Mapping[str, Any], g: Any, found: Any, after: Mapping[str, Any]
) -> None:
    exact, fields, size = _exact(case, step, _held(case, p, state), g, state)
    slack = 4e-6 * (np.abs(exact) + size) + 1e-12
    label = f"{case.optimizer} in {case.dtype}, {where}"
    if case.dtype == "float32":
        _within(f"parameter of {label}", found, exact, slack)
    else:
        gap = _gap(np.abs(exact) + slack, case.dtype)
        rounding = case.options.get("rounding")
        most = gap if rounding == "stochastic" else gap / 2
        _within(f"parameter of {label}", found, exact, most * (1 + 1e-3) + slack)
        if "master" in after:
            _within(f"master of {label}", after["master"], exact, slack)
        if "compensation" in after:
            c = after["compensation"].astype("f8")
            _within(f"compensated parameter of {label}", found + c, exact, np.abs(c) * 2.0**-8 + slack)
    for name, wanted in fields.items():
        kept, actual = case.options["state_dtype"], after[name].astype("f8")
        parts = 4e-6 * np.abs(wanted) + 4e-6 * _parts(case, name, p, g, state)
        if kept in ("8bit", "4bit"):
            _check_codes(f"{name} of {label}", actual, wanted, parts, BlockFormat(int(kept[0]), name not in UNSIGNED))
        else:
            most = _gap(np.abs(wanted) + parts, "bfloat16") * (1 + 1e-3) if kept == "bfloat16" else 0.0
            _within(f"{name} of {label}", actual, wanted, most + parts + 1e-37)


def _parts(case: Narrow, name: str, p: Any, g: Any, state: Mapping[str, Any]) -> Any:
    """The size of what the new average is a sum of, which may cancel."""
    g = np.abs(g) + (case.options["weight_decay"] * np.abs(p) if case.optimizer in ("SGD", "RMSprop") else 0.0)
    return np.abs(state[name].astype("f8")) + (g * g if name in UNSIGNED else g)


def _gap(x: Any, dtype: str) -> Any:
    """The distance between the two numbers of a dtype beside ``x``."""
    exponent = np.frexp(np.abs(x))[1] - DIGITS[dtype]
    return np.ldexp(1.0, np.maximum(exponent, -24 if dtype == "float16" else -133))


def _within(what: str, found: Any, wanted: Any, most: Any) -> None:
    wrong = ~(np.abs(found - wanted) <= most)
    if wrong.any():
        i = int(np.argmax(wrong))
        message = f"{what}: element {i} is {found[i]!r}, should be {wanted[i]!r}, within {np.ravel(most)[i]!r}"
        raise Disagreement(what.split(",")[0], message)


def _check_codes(what: str, found: Any, wanted: Any, slack: Any, format: BlockFormat) -> None:
    """The scale of every block, and codes that are those of a number next to the exact one."""
    n = wanted.size
    rows, behind = (-1, format.block), (0, -n % format.block)
    found, wanted, slack = (np.pad(np.broadcast_to(x, (n,)), behind) for x in (found, wanted, slack))
    scale, exact = np.abs(found.reshape(rows)).max(1), np.abs(wanted.reshape(rows)).max(1)
    tiny = exact < 2.0**-125  # counts as zero, or nearly
    _within(f"scale of {what}", np.where(tiny, 0, scale), np.where(tiny, 0, exact), slack.reshape(rows).max(1) + 1e-37)
    scale, known = np.repeat(scale, format.block), np.repeat(~tiny, format.block) & (np.arange(wanted.size) < n)
    least = -1.0 if format.signed else 0.0
    with np.errstate(all="ignore"):
        low, high = (code_of(np.clip((wanted + s * slack) / scale, least, 1), format) for s in (-1.01, 1.01))
    worth = shares(format)
    between = [worth[np.where(np.isnan(code), 0, code).astype(int)] * scale for code in (low, high)]
    lower, upper = np.minimum(*between), np.maximum(*between)
    wrong = known & ~((found >= lower - 1e-6 * scale) & (found <= upper + 1e-6 * scale))
    if wrong.any():
        i = int(np.argmax(wrong))
        message = f"{what}: element {i} is {found[i]!r}, which stands for {wanted[i]!r} in a block of {scale[i]!r}"
        raise Disagreement(what.split(",")[0], message)
