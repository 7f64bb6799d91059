"""Numbers that all ranks have a part in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from netcl.distributed.world import current_world
from netcl.errors import DistributedError
from netcl.tensor import Tensor
from netcl.validation import one_of, real

_OPERATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda values: math.fsum(values) / len(values),
    "max": max,
    "min": min,
}


def reduce_metric(value: float | Tensor, op: str = "mean") -> float:
    """One number from every rank's, the same on all of them. **Blocks**.

    Parameters
    ----------
    value : float or Tensor
        A number, or a Tensor with one element.
    op : {"mean", "sum", "max", "min"}
        The mean gives each rank the same weight; for ranks with different numbers of samples, divide two sums. NaN on
        one rank gives NaN.

    Raises
    ------
    DistributedError
        If there is no such operation, or a rank does not take part.

    Examples
    --------
    >>> from netcl import distributed
    >>> distributed.reduce_metric(0.5), distributed.reduce_metric(12, "sum")
    (0.5, 12.0)
    """
    one_of("op", op, _OPERATIONS, error=DistributedError)
    if isinstance(value, Tensor):
        value = value.item()
    # NaN is a metric too: one rank's makes the result NaN.
    own = math.nan if isinstance(value, float) and math.isnan(value) else real("value", value, finite=False)
    values = current_world().channel.exchange(own, "reduce_metric()")
    if any(math.isnan(x) for x in values):
        return math.nan
    # Sums of infinities of both signs are not a number, and fsum would raise.
    if op in ("sum", "mean") and {math.inf, -math.inf} <= set(values):
        return math.nan
    return float(_OPERATIONS[op](values))
