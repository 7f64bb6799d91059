"""Optimizer state as plain data, in the layout of ``torch.optim``, and its way back.

``{"state": {index: {"step": …, field: array}}, "param_groups": [{hyper-parameters, "params": [index, …],
"param_names": [name, …]}]}``. Loading checks everything first and changes nothing if anything does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netcl.array import Array
from netcl.errors import StateError

_TORCH_FIELDS = {"velocity": "momentum_buffer"}
"""Where torch calls a field by another name."""


@dataclass(slots=True)
class Entry:
    """What a checkpoint says of one parameter."""

    step: int
    fields: dict[str, np.ndarray[Any, Any]]


def pack(
    groups: Sequence[Mapping[str, Any]], entries: Mapping[int, tuple[int, Mapping[str, np.ndarray[Any, Any]]]]
) -> dict[str, Any]:
    """The state dict of these parameter groups; ``entries`` maps the id of a parameter to its step and fields."""
    state: dict[int, dict[str, Any]] = {}
    packed = []
    for group in groups:
        indices = range(len(state), len(state) + len(group["params"]))
        for index, parameter in zip(indices, group["params"], strict=True):
            step, fields = entries[id(parameter)]
            state[index] = {"step": step, **fields}
        entry = {name: value for name, value in group.items() if name not in ("params", "names")}
        entry["params"] = list(indices)
        if None not in group["names"]:
            entry["param_names"] = list(group["names"])
        packed.append(entry)
    return {"state": state, "param_groups": packed}


def unpack(
    checkpoint: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], fields: Mapping[int, Sequence[str]]
) -> tuple[list[dict[str, Any]], dict[int, Entry]]:
    """The hyper-parameters of each group, and what the checkpoint says of each parameter (by its id).

    ``fields`` names the state fields of each parameter (by its id).

    Raises
    ------
    StateError
        At the first thing that does not fit, by its name.
    """
    for name in ("state", "param_groups"):
        if name not in checkpoint:
            raise StateError(f"the checkpoint lacks {name!r}; it must come from an optimizer's state_dict()")
    saved = checkpoint["param_groups"]
    if len(saved) != len(groups):
        raise StateError(
            f"the checkpoint has {len(saved)} parameter group(s) and the optimizer {len(groups)}; "
            "build the optimizer with the same groups"
        )
    hyper = []
    entries: dict[int, Entry] = {}
    for number, (source, group) in enumerate(zip(saved, groups, strict=True)):
        hyper.append({name: source[name] for name in group if name in source and name not in ("params", "names")})
        for label, index, parameter in _matched(number, source, group):
            values = checkpoint["state"].get(index, checkpoint["state"].get(str(index)))
            entries[id(parameter)] = _entry(label, values, parameter, fields[id(parameter)])
    return hyper, entries


def _matched(number: int, source: Mapping[str, Any], group: Mapping[str, Any]) -> list[tuple[str, Any, Array]]:
    indices, names = list(source["params"]), source.get("param_names")
    tensors, own = group["params"], group["names"]
    if len(indices) != len(tensors):
        raise StateError(
            f"parameter group {number} has {len(indices)} parameter(s) in the checkpoint and {len(tensors)} in the "
            "optimizer; they must be of the same model"
        )
    if names is None or None in own:
        pairs = zip(indices, tensors, strict=True)
        return [(f"parameter {i} of group {number}", *pair) for i, pair in enumerate(pairs)]
    position = dict(zip(names, indices, strict=True))
    for name in own:
        if name not in position:
            raise StateError(f"the checkpoint has no parameter {name!r} in group {number}; it has {', '.join(names)}")
    return [(repr(name), position[name], tensor) for name, tensor in zip(own, tensors, strict=True)]


def _entry(label: str, values: Mapping[str, Any] | None, parameter: Array, fields: Sequence[str]) -> Entry:
    """One parameter's state; torch writes none for a parameter that never moved."""
    if not values:
        return Entry(0, {})
    found = {}
    for field in fields:
        value = values.get(field, values.get(_TORCH_FIELDS.get(field, field)))
        if value is None:
            # Without a master weight the parameter itself is where the next step starts from.
            if field != "master" and (values.get("step", 0) or len(values) > 1):
                raise StateError(f"{label} lacks the field {field!r} in the checkpoint; it has {', '.join(values)}")
            continue
        array = _as_host(value)
        if array.shape != parameter.shape:
            raise StateError(
                f"{label} has {field} of shape {array.shape} in the checkpoint and shape {parameter.shape} in the "
                "optimizer; they must be of the same model"
            )
        expected = parameter.dtype.compute.name
        if array.dtype.name != expected:
            raise StateError(
                f"{label} has {field} of dtype {array.dtype} in the checkpoint where the optimizer keeps {expected}; "
                f"convert it with astype({expected!r}) if that is meant"
            )
        found[field] = array
    return Entry(int(float(values.get("step", 0))), found)


def _as_host(value: Any) -> np.ndarray[Any, Any]:
    for convert in ("detach", "cpu"):
        value = getattr(value, convert, lambda value=value: value)()
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
