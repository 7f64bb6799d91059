"""What an operation has worked out for operands of one shape, kept for the next ones."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Plan = TypeVar("Plan")

PLANS = 4096
"""Plans that an operation keeps; beyond, all are forgotten, for callers with ever new shapes must not fill memory."""


def remember(plans: dict[Key, Plan], key: Key, plan: Plan, most: int = PLANS) -> None:
    """Keep a plan, and forget the others if there are ``most``."""
    if len(plans) >= most:
        plans.clear()
    plans[key] = plan
