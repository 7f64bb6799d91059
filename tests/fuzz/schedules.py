"""The oracle of the schedules: the specification's closed forms, and the plateau's counting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from netcl.optim import CosineAnnealingLR, Optimizer, ReduceLROnPlateau, WarmupCosine

KINDS = {"cosine": CosineAnnealingLR, "warmup": WarmupCosine, "plateau": ReduceLROnPlateau}


def made(options: Mapping[str, Any], optimizer: Optimizer) -> Any:
    """netcl's schedule with these options."""
    return KINDS[options["name"]](optimizer, **{name: value for name, value in options.items() if name != "name"})


class Schedule:
    """Sets ``lr`` in each of ``groups``; one that joins later starts from the rate that it has at the next step."""

    def __init__(self, options: Mapping[str, Any], groups: Sequence[dict[str, Any]]) -> None:
        self.options = options
        self.groups = groups
        self.base: list[float] = []
        self.count = 0
        self.best = math.inf if options.get("mode", "min") == "min" else -math.inf
        self.bad = self.cooling = 0
        self._apply()

    def step(self, metric: float) -> None:
        """One call of the schedule's ``step``."""
        self.count += 1
        if self.options["name"] == "plateau":
            self._measure(metric)
        else:
            self._apply()

    def assigned(self, number: int, value: float) -> None:
        """A learning rate that a user sets: the schedule goes on from it."""
        if number < len(self.base):
            rate = self.groups[number]["lr"]
            self.base[number] = self.base[number] * (value / rate) if rate else value

    def _apply(self) -> None:
        if self.options["name"] == "plateau":
            return
        self.base += [group["lr"] for group in self.groups[len(self.base) :]]
        for group, base in zip(self.groups, self.base, strict=True):
            group["lr"] = self._rate(base)

    def _rate(self, base: float) -> float:
        o, e = self.options, self.count
        if o["name"] == "cosine":
            return o["eta_min"] + (base - o["eta_min"]) * (1 + math.cos(math.pi * e / o["T_max"])) / 2
        warmup, total = o["warmup_steps"], o["total_steps"]
        if e < warmup:
            return base * (o["warmup_start"] + (1 - o["warmup_start"]) * e / warmup)
        if e >= total:
            return o["eta_min"]
        return o["eta_min"] + (base - o["eta_min"]) * (1 + math.cos(math.pi * (e - warmup) / (total - warmup))) / 2

    def _measure(self, metric: float) -> None:
        o = self.options
        sign = 1 if o["mode"] == "min" else -1
        margin = 1e-4 * (abs(self.best) if o["threshold_mode"] == "rel" else 1.0)
        improved = metric != self.best if math.isinf(self.best) else sign * (self.best - metric) > margin
        if improved and not math.isnan(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.cooling:
            self.cooling, self.bad = self.cooling - 1, 0
        if self.bad > o["patience"]:
            for group in self.groups:
                lower = max(group["lr"] * o["factor"], o["min_lr"])
                if group["lr"] - lower > 1e-8:
                    group["lr"] = lower
            self.cooling, self.bad = o["cooldown"], 0
