"""Parameters and state in 16 bits: how small steps are kept from being rounded away.

A bfloat16 of 1.0 does not move by steps under 2^-9, nor does an average of squares in bfloat16 by a thousandth of
itself. Where no float32 copy is kept (:mod:`netcl.optim.engine.master_weights`), either what was rounded away is kept
in 16 bits more and added again at the next step (Kahan summation: W. Kahan, "Further remarks on reducing truncation
errors", 1965), or the rounding goes up and down at random, right on average (:mod:`netcl.stochastic`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from netcl.backends.base import BlockFormat
from netcl.dtypes import DType, bfloat16, float16, float32
from netcl.errors import HyperParameterError
from netcl.expression import Node, rounded, where
from netcl.optim.engine.checkpoint import COMPENSATION
from netcl.optim.engine.master_weights import as_tuple, keeps_master_weights, with_master_weights
from netcl.optim.rule import Rule
from netcl.stochastic import random_bits, stochastically_rounded

STATE_DTYPES = ("bfloat16", "8bit", "4bit")
"""What the averages of a group may be kept in, other than the compute dtype of its parameters."""

NEAREST, KAHAN, STOCHASTIC = "nearest", "kahan", "stochastic"
ROUNDINGS = (NEAREST, KAHAN, STOCHASTIC)
"""How a 16-bit parameter is rounded after a step."""

_HALF_GAP = {bfloat16: 2.0**-8, float16: 2.0**-11}
"""What is rounded away of a number, at most, as a share of it."""


def stored_narrowly(rule: Rule, dtype: DType, groups: Sequence[Mapping[str, Any]]) -> Rule:
    """``rule`` for parameters of ``dtype`` in these groups, with what their storage in few bits needs.

    All of them have one ``state_dtype``.

    Raises
    ------
    HyperParameterError
        If the rule has no state that may be kept so, or takes values of whole tensors.
    """
    state_dtype = groups[0].get("state_dtype")
    if state_dtype is not None:
        _check_state(rule, dtype, state_dtype)
        rule = with_narrow_state(rule) if state_dtype == "bfloat16" else with_state_in_blocks(rule, state_dtype)
    if dtype.compute is dtype:
        return rule
    roundings = {group.get("rounding", NEAREST) for group in groups}
    if any(keeps_master_weights(group) for group in groups):
        rule = with_master_weights(rule, dtype)
    if roundings - {NEAREST}:
        if rule.per_tensor is not None:
            raise HyperParameterError(
                f"rounding={min(roundings - {NEAREST})!r} is for rules of one pass, and {rule.update.__qualname__} "
                "takes values of whole tensors; keep master weights"
            )
        rule = with_rounding(rule, dtype, frozenset(roundings))
    return rule


@lru_cache(maxsize=64)
def with_rounding(rule: Rule, dtype: DType, roundings: frozenset[str]) -> Rule:
    """``rule`` on parameters of ``dtype``, in the groups that say so compensated or rounded at random."""
    kahan, stochastic = KAHAN in roundings, STOCHASTIC in roundings
    always = roundings == {STOCHASTIC}

    def update(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        held = p
        if kahan:
            # Where the parameter was written to since, what is left of the earlier one may be too much for it.
            fits = abs(s.compensation) <= abs(p) * _HALF_GAP[dtype]
            held = where((h.kahan != 0.0) & fits, p + s.compensation, p)
        updated, *state = as_tuple(rule.update(held, g, s, h))
        stored = updated
        if stochastic:
            drawn = stochastically_rounded(updated, dtype, random_bits(h, 0))
            stored = drawn if always else where(h.stochastic != 0.0, drawn, updated)
        if kahan:
            state.append(where(h.kahan != 0.0, updated - rounded(updated, dtype), 0.0))
        return stored, *state

    def hyper(group: Mapping[str, Any]) -> dict[str, float]:
        chosen = {name: float(group.get("rounding") == name) for name in (KAHAN, STOCHASTIC) if name in roundings}
        return {**rule.hyper(group), **chosen, **(seed_columns(group) if stochastic else {})}

    update.__qualname__ = f"{rule.update.__qualname__}_rounded"
    update.__wrapped__ = rule.update  # type: ignore[attr-defined]  # whose lines an error names
    state = {**rule.started(), **({COMPENSATION: 0.0} if kahan else {})}
    kept = (*rule.kept_as, *(((COMPENSATION, bfloat16),) if kahan else ()))
    return replace(rule, update=update, hyper=hyper, state=state, starts=(), kept_as=kept, fused_adam=False)


@lru_cache(maxsize=64)
def with_narrow_state(rule: Rule) -> Rule:
    """``rule`` with its averages in bfloat16, rounded at random."""
    names = (*rule.signed, *rule.unsigned)

    def update(p: Node, g: Node, s: Any, h: Any) -> tuple[Any, ...]:
        updated, *state = as_tuple(rule.update(p, g, s, h))
        for i, name in enumerate(rule.state):
            if name in names:
                # The first bits of an element are its parameter's.
                state[i] = stochastically_rounded(state[i], bfloat16, random_bits(h, 1 + names.index(name)))
        return updated, *state

    def hyper(group: Mapping[str, Any]) -> dict[str, float]:
        return {**rule.hyper(group), **seed_columns(group)}

    update.__qualname__ = f"{rule.update.__qualname__}_in_bfloat16"
    update.__wrapped__ = rule.update  # type: ignore[attr-defined]  # whose lines an error names
    kept = (*rule.kept_as, *((name, bfloat16) for name in names))
    return replace(rule, update=update, hyper=hyper, kept_as=kept, fused_adam=False)


@lru_cache(maxsize=64)
def with_state_in_blocks(rule: Rule, state_dtype: str) -> Rule:
    """``rule`` with its averages in blocks of 8 or 4 bits."""
    bits = {"8bit": 8, "4bit": 4}[state_dtype]
    kept = [(name, BlockFormat(bits, True)) for name in rule.signed]
    kept += [(name, BlockFormat(bits, False)) for name in rule.unsigned]
    return replace(rule, kept_as=(*rule.kept_as, *kept), fused_adam=False)


def _check_state(rule: Rule, dtype: DType, state_dtype: str) -> None:
    name = rule.update.__qualname__
    if rule.per_tensor is not None:
        raise HyperParameterError(
            f"state_dtype={state_dtype!r} is for rules of one pass, and {name} takes values of whole tensors; leave it "
            "out"
        )
    if dtype.compute is not float32:
        raise HyperParameterError(
            f"state_dtype={state_dtype!r} is for parameters that are computed with in float32, got {dtype}; leave it "
            "out"
        )
    if rule.state and not rule.signed and not rule.unsigned:
        raise HyperParameterError(
            f"state_dtype={state_dtype!r} needs a rule that says which of its state may be kept in fewer bits, and "
            f"{name} names none; leave it out"
        )


def seed_columns(group: Mapping[str, Any]) -> dict[str, float]:
    """The seed of a group in two numbers that float32 holds exactly."""
    seed = group["rounding_seed"]
    return {"seed_low": float(seed & 0xFFFF), "seed_high": float(seed >> 16)}
