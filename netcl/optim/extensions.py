"""Extensions of an optimizer's rule: what is done to the gradient before it and to the parameter after it, in its pass.

An extension brings settings, which become hyper-parameters of the groups, and state fields, which start as copies of
the parameters. It is traced into the rule's own expressions, so that a step takes no launch more: of a rule of two
passes, what precedes it into the first and what follows into the second. The backend's hand-written ``fused_adam``
knows none, and gives way to the traced rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, final

from netcl.expression import Node, apply, maximum, where
from netcl.optim import validation
from netcl.optim.engine.master_weights import as_tuple
from netcl.optim.rule import Rule, RuleChoice

Check = Callable[[str, Any], Any]


class Extension(Protocol):
    """What follows and precedes a rule. One that is equal to another does the same."""

    def fields(self) -> tuple[str, ...]:
        """State fields, each of which starts as a copy of the parameters."""
        ...

    def settings(self) -> Mapping[str, tuple[Any, Check]]:
        """Hyper-parameters of each group by name: the default, and the check of a value."""
        ...

    def columns(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        """The numbers that ``h`` holds for the two methods below."""
        ...

    def before(self, g: Node, h: Any) -> Node:
        """The gradient that the rule gets."""
        ...

    def after(self, p: Node, s: Any, h: Any) -> tuple[Node, ...]:
        """The parameter after the step, and the new values of the fields."""
        ...


class ExtensibleChoice:
    """The rule that an optimizer chooses for its groups, with the extensions that it has.

    Attributes
    ----------
    extensions : tuple of Extension
        In the order in which they act.
    """

    def __init__(self, choice: RuleChoice) -> None:
        self._choice = choice
        self.extensions: tuple[Extension, ...] = ()

    def __call__(self, groups: Sequence[Mapping[str, Any]]) -> Rule:
        rule = self._choice(groups)
        return extended(rule, self.extensions) if self.extensions else rule

    def fields(self) -> tuple[str, ...]:
        """The state fields of all extensions."""
        return tuple(name for extension in self.extensions for name in extension.fields())


@lru_cache(maxsize=256)
def extended(rule: Rule, extensions: tuple[Extension, ...]) -> Rule:
    """``rule`` between what its extensions do."""
    fields = [name for extension in extensions for name in extension.fields()]

    def direction(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        assert rule.per_tensor is not None
        for extension in extensions:
            g = extension.before(g, h)
        return (*as_tuple(rule.per_tensor.direction(p, g, s, h)), *(getattr(s, name) for name in fields))

    def update(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        for extension in extensions if rule.per_tensor is None else ():
            g = extension.before(g, h)
        new, *state = as_tuple(rule.update(p, g, s, h))
        for extension in extensions:
            new, *more = extension.after(new, s, h)
            state += more
        return (new, *state)

    def hyper(group: Mapping[str, Any]) -> dict[str, float]:
        numbers = dict(rule.hyper(group))
        for extension in extensions:
            numbers |= extension.columns(group)
        return numbers

    update.__qualname__ = f"{rule.update.__qualname__}_extended"
    update.__wrapped__ = rule.update  # type: ignore[attr-defined]  # whose lines an error names
    per_tensor = rule.per_tensor
    if per_tensor is not None:
        direction.__qualname__ = f"{per_tensor.direction.__qualname__}_extended"
        direction.__wrapped__ = per_tensor.direction  # type: ignore[attr-defined]
        per_tensor = replace(per_tensor, direction=direction)
    state = {**rule.started(), **dict.fromkeys(fields, 0.0)}
    return replace(rule, update=update, hyper=hyper, state=state, starts=(), per_tensor=per_tensor, fused_adam=False)


@final
@dataclass(frozen=True)
class Averaging:
    """An average of the parameters in the field ``name``.

    With u steps since the start, of which every k-th enters: up to u = k the average is the parameter; from then on,
    where k divides u, ``average += weight·(p - average)``.

    Attributes
    ----------
    name : str
    equal : bool
        Weights of k/u, which make it the mean; otherwise a moving average.
    warmup : bool
        Weights of at least ``9 / (9 + u/k)``.
    """

    name: str
    equal: bool
    warmup: bool
    decay: float = 0.0
    start: int = 0
    every: int = 1

    def fields(self) -> tuple[str, ...]:
        return (self.name,)

    def settings(self) -> Mapping[str, tuple[Any, Check]]:
        made: dict[str, tuple[Any, Check]] = {
            f"{self.name}_start": (self.start, _from_zero),
            f"{self.name}_every": (self.every, from_one),
        }
        if not self.equal:
            made[f"{self.name}_decay"] = (self.decay, validation.fraction)
        return made

    def columns(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        made = {f"{self.name}_{part}": float(group[f"{self.name}_{part}"]) for part in ("start", "every")}
        if not self.equal:
            made[f"{self.name}_weight"] = 1.0 - group[f"{self.name}_decay"]
        return made

    def before(self, g: Node, h: Any) -> Node:
        return g

    def after(self, p: Node, s: Any, h: Any) -> tuple[Node, ...]:
        average = getattr(s, self.name)
        every = getattr(h, f"{self.name}_every")
        steps = h.step - getattr(h, f"{self.name}_start")
        entered = apply("round", maximum(steps, every) / every)
        if self.equal:
            weight = 1.0 / entered
        else:
            weight = getattr(h, f"{self.name}_weight")
            if self.warmup:
                weight = maximum(weight, 9.0 / (9.0 + entered))
        moved = where(entered * every == steps, average + weight * (p - average), average)
        return p, where(steps <= every, p, moved)


@final
@dataclass(frozen=True)
class SlowWeights:
    """Lookahead: at every k-th step the slow weights go a part of the way to the parameters, which go back to them."""

    k: int
    alpha: float

    def fields(self) -> tuple[str, ...]:
        return ("slow",)

    def settings(self) -> Mapping[str, tuple[Any, Check]]:
        return {"lookahead_k": (self.k, from_one), "lookahead_alpha": (self.alpha, share)}

    def columns(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        return {name: float(group[name]) for name in ("lookahead_k", "lookahead_alpha")}

    def before(self, g: Node, h: Any) -> Node:
        return g

    def after(self, p: Node, s: Any, h: Any) -> tuple[Node, ...]:
        due = apply("round", h.step / h.lookahead_k) * h.lookahead_k == h.step
        slow = where(due, s.slow + h.lookahead_alpha * (p - s.slow), s.slow)
        return where(due, slow, p), slow


@final
@dataclass(frozen=True)
class ZeroedNaNs:
    """Elements of gradients that are NaN count as zero."""

    def fields(self) -> tuple[str, ...]:
        return ()

    def settings(self) -> Mapping[str, tuple[Any, Check]]:
        return {}

    def columns(self, group: Mapping[str, Any]) -> Mapping[str, float]:
        return {}

    def before(self, g: Node, h: Any) -> Node:
        return where(apply("isnan", g), 0.0, g)

    def after(self, p: Node, s: Any, h: Any) -> tuple[Node, ...]:
        return (p,)


def _from_zero(name: str, value: Any) -> int:
    return validation.integer(name, value, 0)


def from_one(name: str, value: Any) -> int:
    """``value`` as an int, if it is a whole number of at least 1."""
    return validation.integer(name, value, 1)


def share(name: str, value: Any) -> float:
    """``value`` as a float, if it lies in [0, 1]."""
    return validation.at_most_one(name, value)
