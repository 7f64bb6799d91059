"""What a loss scale is made of: numbers that float32 holds, and the arithmetic on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from netcl import validation
from netcl.backends.base import Backend, Span
from netcl.dtypes import DType, float32
from netcl.errors import HyperParameterError
from netcl.expression import Expression, Node, logical_and, maximum, trace, where

SMALLEST, LARGEST = 2.0**-126, 2.0**126
"""Between these a float32 number and its inverse are both normal: devices may take what is less for zero."""


def unscaled_pair(backend: Backend, flags: Sequence[Span]) -> Span:
    """A loss scale of 1, for gradients that were unscaled, and what was found then."""
    pair = Span(backend.alloc(2, float32), 0, 2)
    backend.fill(pair.element(0), 1)
    combine(backend, flags, pair.element(1))
    return pair


def combine(backend: Backend, flags: Sequence[Span], out: Span) -> None:
    """Make ``out`` nonzero if any of the flags is."""
    backend.fill(out, 0)
    for flag in flags:
        backend.map(_larger(flag.dtype), (out.view(), flag.view()), (out.view(),))


def rounded(name: str, value: Any, *, above: float, below: float = math.inf) -> float:
    """``value`` rounded to float32, if it lies between ``above`` and ``below`` before and after."""
    number = validation.real(name, value, above=above, below=below, error=HyperParameterError)
    held = float(np.float32(number)) if number <= LARGEST else math.inf
    if not above < held < below or held < SMALLEST:
        raise HyperParameterError(
            f"{name}={validation.shown(value)} is {held} in float32, which the device computes in; it must be a number "
            f"greater than {above:g}{'' if below == math.inf else f' and less than {below:g}'} there too"
        )
    return number


def checked_scale(name: str, value: Any) -> float:
    """``value`` rounded to float32, if that and its inverse are normal numbers."""
    number = validation.real(name, value, above=0.0, finite=False, error=HyperParameterError)
    if not SMALLEST <= number <= LARGEST:
        raise HyperParameterError(
            f"{name} must be a number of at least 2**-126 and at most 2**126, so that float32 holds it and its "
            f"inverse, got {validation.shown(value)}"
        )
    return float(np.float32(number))


@cache
def times(x: DType, stored: DType) -> Expression:
    """Elements times the loss scale."""
    return trace(lambda x, factor: x * factor, (x, float32), stored=(stored,))


@cache
def _larger(flag: DType) -> Expression:
    return trace(maximum, (float32, flag), stored=(float32,))


@cache
def updated(flag: DType) -> Expression:
    """The scale, the finite steps in a row and the steps skipped, after an update."""

    def update(
        scale: Node, tracker: Node, skipped: Node, found: Node, growth: Node, backoff: Node, interval: Node, floor: Node
    ) -> tuple[Node, Node, Node]:
        bad = found != 0
        finite_steps = where(bad, 0.0, tracker + 1)
        grows = finite_steps >= interval
        grown = scale * growth
        # A scale beyond this would make gradients infinite, or its inverse less than devices keep.
        larger = where(logical_and(grows, grown <= LARGEST), grown, scale)
        smaller = maximum(scale * backoff, floor)
        return where(bad, smaller, larger), where(grows, 0.0, finite_steps), skipped + where(bad, 1.0, 0.0)

    return trace(update, (float32, float32, float32, flag), (float32,) * 4, stored=(float32,) * 3)
