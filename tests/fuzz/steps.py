"""Kind ``steps``: optimizer configurations and what is done with them over several steps."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.fuzz import rules
from tests.fuzz.case import Values, each, source, weighted, without

SIZES = (0, 1, 2, 7, 64, 1023, 1024, 1025, 5000)
DTYPES = ("float32", "float16", "bfloat16", "float64")
LATE = {
    "SGD": ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "lr", "master_weights"),
    "Momentum": ("momentum", "weight_decay", "nesterov", "maximize", "lr"),
    "Adam": ("betas", "eps", "weight_decay", "amsgrad", "maximize", "lr", "master_weights"),
    "AdamW": ("betas", "eps", "weight_decay", "amsgrad", "maximize", "lr"),
    "RMSProp": ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize", "lr"),
    "Own": ("lr", "rate"),
}


@dataclass(frozen=True)
class Weights:
    """One parameter."""

    values: Values
    dtype: str

    def simpler(self) -> Iterator[Weights]:
        for values in self.values.simpler():
            yield replace(self, values=values)
        if self.dtype != "float32":
            yield replace(self, dtype="float32")


@dataclass(frozen=True)
class Group:
    """A parameter group with its own hyper-parameters."""

    hyper: dict[str, Any]
    weights: tuple[Weights, ...]

    def simpler(self) -> Iterator[Group]:
        for weights in without(self.weights, 1):
            yield replace(self, weights=weights)
        for name in self.hyper:
            yield replace(self, hyper={other: value for other, value in self.hyper.items() if other != name})
        for weights in each(self.weights, Weights.simpler):
            yield replace(self, weights=weights)


@dataclass(frozen=True)
class Action:
    """Something that is done to the optimizer; what it says of tensors that are not there does not count."""

    name: str
    options: dict[str, Any]

    def simpler(self) -> Iterator[Action]:
        plain = {
            "style": "ones",
            "missing": (),
            "how": "assign",
            "odd": None,
            "max_norm": None,
            "unscale": False,
            "where": "same",
        }
        for name, value in self.options.items():
            if name in plain and value != plain[name]:
                yield replace(self, options={**self.options, name: plain[name]})
        if self.name == "add_group":
            for group in self.options["group"].simpler():
                yield replace(self, options={"group": group})


@dataclass(frozen=True)
class Steps:
    """One optimizer, its parameters, and the actions in order."""

    optimizer: str
    groups: tuple[Group, ...]
    actions: tuple[Action, ...]
    defaults: dict[str, Any]
    rule: Any = None
    memory: str = "tensors"
    scaler: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None

    def simpler(self) -> Iterator[Steps]:
        for actions in without(self.actions, 1):
            yield replace(self, actions=actions)
        for groups in without(self.groups, 1):
            yield replace(self, groups=groups)
        for name in ("schedule", "scaler"):
            if getattr(self, name) is not None:
                yield replace(self, **{name: None})
        if self.memory != "tensors":
            yield replace(self, memory="tensors")
        for name in self.defaults:
            yield replace(self, defaults={other: value for other, value in self.defaults.items() if other != name})
        for groups in each(self.groups, Group.simpler):
            yield replace(self, groups=groups)
        for actions in each(self.actions, Action.simpler):
            yield replace(self, actions=actions)


def draw(seed: int, number: int) -> Steps:
    """The configuration with this number."""
    r = source(seed, "steps", number)
    name = weighted(r, SGD=3, Momentum=1, Adam=2, AdamW=3, RMSProp=3, Own=2)
    memory = weighted(r, tensors=8, shared=1, plain=1)
    few = r.random() < 0.75
    dtypes = [r.choice(DTYPES[:1] * 3 + DTYPES)] if r.random() < 0.6 else r.sample(DTYPES, r.randint(2, 4))
    if memory == "plain":
        dtypes = [dtype for dtype in dtypes if dtype != "bfloat16"] or ["float32"]
    rule = None
    if name == "Own":
        # Few enough rules that most are built already.
        one = random.Random(f"{seed}/rule/{r.randrange(24)}")
        rule = (rules.draw(one, 3), rules.draw(one, 3))
    groups = tuple(_group(r, name, dtypes, memory, few) for _ in range(1 if r.random() < 0.6 else r.randint(2, 4)))
    scaler = None
    if memory != "plain" and r.random() < 0.3:
        scaler = {
            "init_scale": r.choice([1.0, 8.0, 1024.0, 65536.0, 2.0**24]),
            "growth_factor": r.choice([2.0, 1.5, 4.0]),
            "backoff_factor": r.choice([0.5, 0.25, 0.9]),
            "growth_interval": r.choice([1, 2, 3, 2000]),
            "min_scale": r.choice([1.0, 1.0, 0.5]),
        }
    actions = tuple(
        action for _ in range(r.choice([1, 2, 2, 3, 3, 4, 6])) for action in _round(r, name, dtypes, memory, scaler)
    )
    schedule = _schedule(r) if r.random() < 0.25 else None
    if schedule:
        actions = tuple(
            each
            for action in actions
            for each in (
                [action, Action("schedule", {"metric": r.choice([1.0, 0.5, 2.0, math.nan])})]
                if action.name == "step"
                else [action]
            )
        )
    return Steps(
        name, groups, (*actions, Action("read", {})), _hyper(r, name, r.random() < 0.8), rule, memory, scaler, schedule
    )


def _group(r: random.Random, name: str, dtypes: list[str], memory: str, few: bool) -> Group:
    count = r.randint(1, 3) if few else r.randint(4, 20)
    weights = []
    for _ in range(count):
        size = r.choice(SIZES[:6] if r.random() < 0.7 else SIZES)
        shape: tuple[int, ...] = (size,)
        if memory == "tensors" and r.random() < 0.3:
            shape = r.choice([(), (3, 5), (2, 1, 4), (0, 3), (33, 31)])
        style = weighted(r, normal=8, small=1, zeros=1, wide=2, ones=1, integers=1)
        weights.append(Weights(Values(shape, style, r.randrange(1 << 30)), r.choice(dtypes)))
    return Group(_hyper(r, name, r.random() < 0.4), tuple(weights))


def _hyper(r: random.Random, name: str, some: bool) -> dict[str, Any]:
    if not some:
        return {}
    names = [each for each in LATE[name] if r.random() < 0.5 and each not in ("amsgrad", "centered")]
    if name in ("Adam", "AdamW"):
        names += ["amsgrad"] * (r.random() < 0.3)
    if name == "RMSProp":
        names += ["centered"] * (r.random() < 0.4)
    hyper = {each: value(r, each) for each in names}
    if hyper.get("nesterov"):
        hyper |= {"momentum": r.choice([0.5, 0.9]), **({"dampening": 0.0} if name == "SGD" else {})}
    elif "nesterov" in hyper:
        del hyper["nesterov"]
    return hyper


def value(r: random.Random, name: str) -> Any:
    """A value of a hyper-parameter, the ends of its range among them."""
    rates = (0.0, 0.5, 0.9, 0.99, 0.999, 0.999999)
    match name:
        case "lr":
            return r.choice([0.0, 1e-8, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0])
        case "betas":
            return (r.choice(rates), r.choice(rates))
        case "alpha":
            return r.choice(rates)
        case "momentum":
            return r.choice([0.0, 0.0, 0.5, 0.9, 0.999, 1.5])
        case "dampening":
            return r.choice([0.0, 0.1, 0.5, 1.0, -0.5])
        case "eps":
            return r.choice([0.0, 1e-12, 1e-8, 1e-8, 1e-3, 1.0])
        case "weight_decay":
            return r.choice([0.0, 1e-4, 1e-2, 0.5, 2.0])
        case "rate":
            return r.choice([0.0, 0.25, 1.0, -2.0])
    return r.random() < 0.5


def _schedule(r: random.Random) -> dict[str, Any]:
    match r.choice(["cosine", "warmup", "plateau"]):
        case "cosine":
            return {"name": "cosine", "T_max": r.choice([1, 2, 3, 50]), "eta_min": r.choice([0.0, 1e-3])}
        case "warmup":
            steps = r.choice([0, 1, 2, 5])
            return {
                "name": "warmup",
                "warmup_steps": steps,
                "total_steps": steps + r.choice([1, 2, 10]),
                "eta_min": r.choice([0.0, 1e-3]),
                "warmup_start": r.choice([0.0, 0.5]),
            }
    return {
        "name": "plateau",
        "mode": r.choice(["min", "max"]),
        "factor": r.choice([0.5, 0.1]),
        "patience": r.choice([0, 1, 3]),
        "threshold_mode": r.choice(["rel", "abs"]),
        "cooldown": r.choice([0, 2]),
        "min_lr": r.choice([0.0, 1e-3]),
    }


def _round(r: random.Random, name: str, dtypes: list[str], memory: str, scaler: Any) -> Iterator[Action]:
    """What happens from one step to the next."""
    tensors = memory != "plain"
    if r.random() < 0.15:
        names = LATE[name]
        late = r.choice(names)
        yield Action("set", {"group": r.randrange(4), "name": late, "value": value(r, late)})
    if r.random() < 0.06:
        yield Action("add_group", {"group": _group(r, name, dtypes, memory, True)})
    if tensors and r.random() < 0.06:
        yield Action("write", {"index": r.randrange(20), "style": "normal", "seed": r.randrange(1 << 30)})
    yield _gradients(r, scaler, False)
    if tensors and r.random() < 0.15:
        yield _gradients(r, scaler, True)
    if tensors and r.random() < 0.1:
        yield Action("hold", {"index": r.randrange(20)})
    if tensors and not scaler and r.random() < 0.25:
        kind = r.choice(["host", "device", "device", "value"])
        yield Action(
            "clip", {"kind": kind, "max_norm": _max_norm(r), "norm_type": r.choice([2.0, 2.0, 1.0, 3.0, 0.5, math.inf])}
        )
        if r.random() < 0.3:
            yield Action("read_gradients", {})
    max_norm = _max_norm(r) if r.random() < 0.25 else None
    yield Action("step", {"max_norm": max_norm, "unscale": bool(scaler) and r.random() < 0.25})
    if r.random() < 0.5:
        yield Action("read", {})
    if tensors and r.random() < 0.8:
        yield Action("zero", {"to_none": r.random() < 0.75})
    if r.random() < 0.12:
        yield Action(
            "reload", {"where": r.choice(["same", "fresh", "other", "other"] if tensors else ["same", "fresh"])}
        )


def _max_norm(r: random.Random) -> float:
    return r.choice([1e-3, 0.1, 1.0, 10.0, 1e6, math.inf])


def _gradients(r: random.Random, scaler: Any, again: bool) -> Action:
    style = weighted(r, normal=10, small=2, zeros=2, wide=3, tiny=1, huge=0.7, special=0.4, integers=1)
    missing = tuple(i for i in range(24) if r.random() < 0.3) if r.random() < 0.3 else ()
    options: dict[str, Any] = {
        "style": style,
        "seed": r.randrange(1 << 30),
        "missing": missing,
        "how": "accumulate" if again else r.choice(["assign", "backward"]),
        "odd": None,
    }
    if r.random() < (0.35 if scaler else 0.04):
        options["odd"] = (r.randrange(20), "infinite" if scaler else r.choice(["special", "huge", "tiny", "zeros"]))
    return Action("gradients", options)
