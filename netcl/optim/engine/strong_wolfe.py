"""The line search of L-BFGS: a step along a direction that satisfies the strong Wolfe conditions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from netcl.backends.base import Span

SUFFICIENT, CURVATURE = 1e-4, 0.9
"""The constants c1 and c2 of the two conditions."""


@dataclass(frozen=True, slots=True)
class Point:
    """A step length, the loss there, its slope along the direction, and the gradient."""

    t: float
    loss: float
    slope: float
    gradient: Span

    @property
    def height(self) -> float:
        """The loss, infinite where it is not a number."""
        return math.inf if math.isnan(self.loss) else self.loss


def search(
    evaluate: Callable[[float], Point], start: Point, t: float, largest: float, most: int, tolerance: float = 1e-9
) -> tuple[Point, int]:
    """The point to go to, and how many points were evaluated.

    Parameters
    ----------
    evaluate : callable
    start : Point
        At step length 0.
    t : float
        The length to try first.
    largest : float
        The largest absolute element of the direction.
    most : int
        How many more evaluations than the first may be made.
    tolerance : float, default 1e-9
        Brackets in which no element moves by so much are not searched further.

    Notes
    -----
    Source: J. Nocedal and S. Wright, "Numerical Optimization", 2nd edition, 2006, algorithms 3.5 and 3.6, with the
    cubic interpolation of equation 3.59. The bounds on its steps are those of ``torch.optim.LBFGS``.
    """
    bracket, count = _bracket(evaluate, start, t, most)
    if len(bracket) == 1:
        return bracket[0], count + 1
    low, high = sorted(bracket, key=lambda point: point.height)
    stuck = False
    while count < most and abs(high.t - low.t) * largest >= tolerance:
        stuck, t = _trial(low, high, stuck)
        point = evaluate(t)
        count += 1
        if _too_high(point, start) or point.height >= low.height:
            low, high = (low, point) if low.height <= point.height else (point, low)
            continue
        if abs(point.slope) <= -CURVATURE * start.slope:
            return point, count + 1
        if point.slope * (high.t - low.t) >= 0.0:
            high = low
        low = point
    return low, count + 1


def _too_high(point: Point, start: Point) -> bool:
    return point.height > start.loss + SUFFICIENT * point.t * start.slope


def _bracket(evaluate: Callable[[float], Point], start: Point, t: float, most: int) -> tuple[list[Point], int]:
    """Two points with a good one between them, or one that is good itself, and how many followed the first."""
    before, point = start, evaluate(t)
    for count in range(most):
        if _too_high(point, start) or (count > 1 and point.height >= before.height):
            return [before, point], count
        if abs(point.slope) <= -CURVATURE * start.slope:
            return [point], count
        if point.slope >= 0.0:
            return [before, point], count
        bounds = point.t + 0.01 * (point.t - before.t), 10.0 * point.t
        before, point = point, evaluate(_interpolated(before, point, bounds))
    return [start, point], most


def _trial(low: Point, high: Point, stuck: bool) -> tuple[bool, float]:
    """Where to look between two points, and whether that is near an end."""
    left, right = min(low.t, high.t), max(low.t, high.t)
    first, second = (low, high) if low.t <= high.t else (high, low)
    t = _interpolated(first, second, (left, right))
    margin = 0.1 * (right - left)
    if min(right - t, t - left) >= margin:
        return False, t
    if stuck or t >= right or t <= left:
        return False, right - margin if abs(t - right) < abs(t - left) else left + margin
    return True, t


def _interpolated(a: Point, b: Point, bounds: tuple[float, float]) -> float:
    """The minimum of the cubic through two points and slopes, ``a`` left of ``b``; the middle if there is none."""
    least, most = bounds
    d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t)
    squared = d1 * d1 - a.slope * b.slope
    if not squared >= 0.0:
        return (least + most) / 2.0
    d2 = math.sqrt(squared)
    divisor = b.slope - a.slope + 2.0 * d2
    if divisor == 0.0:
        return (least + most) / 2.0
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / divisor)
    return min(max(t, least), most)
