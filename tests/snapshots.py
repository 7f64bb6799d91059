"""What must not change when a call is refused: everything that an optimizer, schedule or scaler says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def frozen(value: Any) -> Any:
    """``value`` as something that compares bit for bit, NaN included."""
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(frozen, value))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value) if isinstance(value, float) else value


def snapshot(optimizer: Any, *others: Any) -> Any:
    """An optimizer's state, groups, parameters and gradients, and the states of schedules and scalers beside it."""
    tensors = [p for group in optimizer.param_groups for p in group["params"]]
    return (
        frozen(optimizer.state_dict()),
        [{key: frozen(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups],
        [(id(p), _contents(p), None if p.grad is None else _contents(p.grad)) for p in tensors],
        [frozen(other.state_dict()) for other in others],
    )


def _contents(p: Any) -> Any:
    # What stands for a host array has no values of its own: its owner has them.
    return frozen(p.numpy()) if hasattr(p, "numpy") else None


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every item of nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What stands at the end of a path."""
    for key in path:
        value = value[key]
    return value
