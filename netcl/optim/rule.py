"""Rule: what an optimizer author writes. The state each parameter keeps, and the arithmetic of one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from netcl.backends.base import ADAM_COLUMNS, COUNTERS, ROW
from netcl.dtypes import DType
from netcl.errors import TraceError
from netcl.expression import Expression, Node, build

Update = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One elementwise update, written once for every backend.

    Parameters
    ----------
    update : callable
        ``update(p, g, s, h) -> (p, *state)``: plain arithmetic (``+ - * /`` and the functions of
        :mod:`netcl.expression`) on one element of the parameter ``p``, its gradient ``g``, the state ``s.<name>`` and
        the hyper-parameters ``h.<name>``. Besides the rule's own names ``h`` has ``step`` (from 1), and
        ``bias_correction1`` and ``bias_correction2`` if ``hyper`` gives ``log_beta1`` and ``log_beta2``.
        It must map zeros to zeros, which is what padding holds.
    hyper : callable
        ``hyper(group) -> dict``: the numbers that ``h`` holds, made in double from a parameter group.
    state : tuple of str
        Names of the state fields; each starts at zero, in the parameter's compute dtype.
    fused_adam : bool, default False
        The backend's own ``fused_adam`` runs this update; ``update`` then only states what it computes.
    """

    update: Update
    hyper: Callable[[Mapping[str, Any]], Mapping[str, float]]
    state: tuple[str, ...] = ()
    fused_adam: bool = False

    def columns(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """The hyper-parameter columns, in the order in which the device holds them."""
        return ADAM_COLUMNS if self.fused_adam else (*ROW, *self.hyper(group))

    def expression(self, parameter: DType, gradient: DType, columns: tuple[str, ...]) -> Expression:
        """The traced update for parameters and gradients of these dtypes.

        Raises
        ------
        TraceError
            If the update branches on a value, calls what is not an operator, or returns the wrong number of values.
        """
        return _trace(self.update, self.state, parameter, gradient, columns)


@lru_cache(maxsize=256)
def _trace(
    update: Update, state: tuple[str, ...], parameter: DType, gradient: DType, columns: tuple[str, ...]
) -> Expression:
    compute = parameter.compute
    inputs = (parameter, gradient, *(compute for _ in state))
    p, g, *fields = (Node("input", (), dtype.compute, i) for i, dtype in enumerate(inputs))
    hyper = {name: Node("hyper", (), compute, name) for name in (*columns[len(ROW) :], *COUNTERS[:3])}
    returned = update(p, g, SimpleNamespace(**dict(zip(state, fields, strict=True))), SimpleNamespace(**hyper))
    outputs = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    if len(outputs) != 1 + len(state):
        raise TraceError(
            f"{update.__qualname__} must return (p, {', '.join(state)}): {1 + len(state)} value(s), got {len(outputs)}"
        )
    return build(outputs, inputs, stored=(parameter, *(compute for _ in state)), name=update.__qualname__)
