"""What the kinds of case share: how a case is drawn, how its values are made, and what a disagreement says."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

SPECIAL = (0.0, -0.0, float("inf"), float("-inf"), float("nan"))


class Disagreement(AssertionError):
    """What a backend answered and what was expected. ``category`` is what a smaller case must still show."""

    def __init__(self, category: str, message: str) -> None:
        super().__init__(f"{category}: {message}")
        self.category = category


def source(seed: int, kind: str, number: int) -> random.Random:
    """The random numbers of one case; the same on every machine and for every run."""
    return random.Random(f"{seed}/{kind}/{number}")


@dataclass(frozen=True)
class Values:
    """The elements of an array: a shape, a style and a seed.

    Styles: ``normal``, ``small`` (1e-4), ``wide`` (over many orders of magnitude), ``zeros`` (some exact), ``tiny``
    (about the smallest normal numbers of float32), ``huge`` (squares overflow in float32), ``special`` (some
    infinite, some NaN), ``infinite``, ``integers`` (small whole numbers), ``positive``, ``ones``, ``halfway`` (hardly
    off the middle of two 16-bit numbers).
    """

    shape: tuple[int, ...]
    style: str = "normal"
    seed: int = 0

    def array(self) -> Any:
        """The elements in float64."""
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal(self.shape)
        if self.style == "small":
            x = x * 1e-4
        elif self.style == "wide":
            x = x * 10.0 ** rng.uniform(-6, 3, self.shape)
        elif self.style == "zeros":
            x = np.where(rng.random(self.shape) < 0.5, 0.0, x)
        elif self.style == "tiny":
            x = x * 10.0 ** rng.uniform(-42, -30, self.shape)
        elif self.style == "huge":
            x = np.copysign(rng.uniform(1e18, 3e38, self.shape), x)
        elif self.style in ("special", "infinite"):
            chosen = rng.choice(SPECIAL if self.style == "special" else SPECIAL[2:4], self.shape)
            x = np.where(rng.random(self.shape) < 0.2, chosen, x)
        elif self.style == "integers":
            x = rng.integers(-8, 9, self.shape).astype(np.float64)
        elif self.style == "halfway":
            digits = rng.choice([128, 1024], self.shape)  # of bfloat16 and of float16
            middle = digits + np.floor(rng.random(self.shape) * digits) + 0.5
            x = np.copysign(
                middle * (1 + rng.choice([-1e-12, 0, 1e-12], self.shape)) / 2.0 ** rng.integers(0, 12, self.shape), x
            )
        elif self.style == "positive":
            x = np.abs(x) + 0.1
        elif self.style == "ones":
            x = np.ones(self.shape)
        return np.asarray(x, np.float64)

    def simpler(self) -> Iterator[Values]:
        """Fewer elements, then plainer ones."""
        for i, extent in enumerate(self.shape):
            for less in sorted({1, extent // 2, extent - 1}):
                if 0 < less < extent:
                    yield replace(self, shape=(*self.shape[:i], less, *self.shape[i + 1 :]))
        if self.style != "ones":
            yield replace(self, style="ones")
            if self.style not in ("integers", "special"):
                yield replace(self, style="integers")
        if self.seed:
            yield replace(self, seed=0)


def reseeded(case: Any, by: int) -> Any:
    """The same case with other elements, for which a device has built every kernel already."""
    if is_dataclass(case) and not isinstance(case, type):
        return replace(case, **{each.name: _reseeded(each.name, getattr(case, each.name), by) for each in fields(case)})
    if isinstance(case, tuple):
        return tuple(reseeded(each, by) for each in case)
    if isinstance(case, dict):
        return {name: _reseeded(name, value, by) for name, value in case.items()}
    return case


def _reseeded(name: str, value: Any, by: int) -> Any:
    return value + by if name == "seed" else reseeded(value, by)


def stored(x: Any, dtype: str) -> Any:
    """``x`` rounded to a floating dtype, once and to nearest even, back in float64."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        if dtype != "bfloat16":
            return x.astype(dtype).astype(np.float64)
        last = np.maximum(np.frexp(x)[1], -125) - 8
        rounded = np.ldexp(np.rint(np.ldexp(x, -last)), last)
        rounded = np.where(np.abs(rounded) > float.fromhex("0x1.fep+127"), np.copysign(np.inf, x), rounded)
        return np.where(np.isfinite(x), rounded, x)


def without(items: Sequence[T], least: int = 0) -> Iterator[tuple[T, ...]]:
    """``items`` with fewer of them: halves first, then one less."""
    n = len(items)
    size = n // 2
    while size >= 1:
        for start in range(0, n, size):
            kept = (*items[:start], *items[start + size :])
            if len(kept) >= least:
                yield kept
        size //= 2


def each(items: Sequence[T], simpler: Any) -> Iterator[tuple[T, ...]]:
    """``items`` with one of them made simpler."""
    for i, item in enumerate(items):
        for other in simpler(item):
            yield (*items[:i], other, *items[i + 1 :])


def weighted(r: random.Random, **weights: float) -> str:
    """One of the names, by weight."""
    return r.choices(list(weights), list(weights.values()))[0]
