"""Master weights: a float32 copy of float16 and bfloat16 parameters, updated in the same pass.

A 16-bit parameter of 1.0 does not move by steps under half its spacing, 2^-9 or 2^-12. So the rule reads and writes a
float32 copy, and the parameter is that copy, rounded. Wherever the parameter is not the rounded copy, it was written
from outside (or there is no copy yet), and the rule continues from the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from netcl.dtypes import DType
from netcl.expression import Node, equal, rounded, where
from netcl.optim.rule import Rule


def keeps_master_weights(group: Mapping[str, Any]) -> bool:
    """Whether 16-bit parameters of a group have float32 copies: a rounding of another kind takes their place."""
    return bool(group["master_weights"]) and group.get("rounding", "nearest") == "nearest"


@lru_cache(maxsize=64)
def with_master_weights(rule: Rule, dtype: DType) -> Rule:
    """``rule`` on float32 copies of parameters of ``dtype``, in the groups that ask for it."""

    def current(p: Node, s: Any, h: Any) -> Node:
        return where(h.master_weights != 0.0, where(equal(rounded(s.master, dtype), p), s.master, p), p)

    def direction(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        assert rule.per_tensor is not None
        held = current(p, s, h)
        u, *state = as_tuple(rule.per_tensor.direction(held, g, s, h))
        return u, *state, where(h.master_weights != 0.0, held, 0.0)

    def update(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        updated, *state = as_tuple(rule.update(current(p, s, h), g, s, h))
        return updated, *state, where(h.master_weights != 0.0, updated, 0.0)

    def hyper(group: Mapping[str, Any]) -> dict[str, float]:
        return {**rule.hyper(group), "master_weights": float(keeps_master_weights(group))}

    update.__qualname__ = f"{rule.update.__qualname__}_with_master_weights"
    update.__wrapped__ = rule.update  # type: ignore[attr-defined]  # whose lines an error names
    per_tensor = rule.per_tensor
    if per_tensor is not None:
        direction.__qualname__ = f"{per_tensor.direction.__qualname__}_with_master_weights"
        direction.__wrapped__ = per_tensor.direction  # type: ignore[attr-defined]
        per_tensor = replace(per_tensor, direction=direction)
    state = {**rule.started(), "master": 0.0}
    return replace(rule, update=update, hyper=hyper, state=state, starts=(), per_tensor=per_tensor, fused_adam=False)


def as_tuple(returned: Any) -> tuple[Any, ...]:
    """What an update returned, which may be the parameter alone."""
    return tuple(returned) if isinstance(returned, tuple | list) else (returned,)
