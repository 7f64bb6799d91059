"""Optimizer state as plain data, in the layout of ``torch.optim``, and its way back.

``{"optimizer": kind, "state": {index: {"step": …, field: array}}, "param_groups": [{hyper-parameters, "params":
[index, …], "param_names": [name, …]}]}``. Reading checks everything and changes nothing: a checkpoint is adopted whole,
with the hyper-parameters of its groups and the state that they call for, or refused by name.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netcl.array import Array
from netcl.dtypes import DType
from netcl.errors import HyperParameterError, NetclError, StateError
from netcl.host_dtypes import STORAGE
from netcl.narrow_arrays import blocks_of
from netcl.optim.engine.group import ParameterGroup, is_note
from netcl.optim.rule import Rule
from netcl.validation import shown

_FORMER_NAMES = {"SGD": {"velocity": "momentum_buffer"}}
"""What old checkpoints call a field, by the kind of optimizer."""

_SWITCHES: Mapping[str, tuple[str, Any]] = {
    "momentum_buffer": ("momentum", 0.5),
    "grad_avg": ("centered", True),
    "max_exp_avg_sq": ("amsgrad", True),
}
"""For each field that only some hyper-parameters call for: the one that does, and a value with which it does."""

_PART_OF_THE_KIND = ("amsgrad",)
"""Hyper-parameters that make another algorithm: they are not taken from a checkpoint but must agree with it."""

_NEVER_NEGATIVE = (
    "exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "square_avg", "sum", "acc_delta", "exp_inf", "step_size",
    "weight_sum", "row_var", "col_var", "variance",
)  # fmt: skip
"""Averages and sums of squares, and sizes: a negative value would become NaN under the root, or turn a step around."""

COMPENSATION = "compensation"
"""The field that holds what was rounded away of a 16-bit parameter."""

_ONE_NUMBER = ("mu_product",)
"""Fields of which torch has one number for all elements of a parameter."""

_FOLLOW = {"ASGD": ("eta", "mu")}
"""Fields of torch that follow from hyper-parameters and the step count, by the kind of optimizer."""

_OF_TORCH = {"foreach", "fused", "capturable", "differentiable"}
"""How torch runs a step: keys of its groups without a meaning here."""

_OF_TORCHS_SCHEDULES = {"max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}
"""What its schedules leave in a group."""

_SINCE = {"rounding", "state_dtype", "rounding_seed"}
"""What old checkpoints do not have."""

_MAY_LACK = {"maximize", "master_weights", *_SINCE}
"""What torch's groups do not have, or did not always have."""

_MOST_STEPS = 1 << 63

Choose = Callable[[Sequence[Mapping[str, Any]]], Rule]


@dataclass(slots=True)
class Entry:
    """What a checkpoint says about one parameter."""

    step: int
    fields: dict[str, np.ndarray[Any, Any]]


@dataclass(slots=True)
class Loaded:
    """A checkpoint that fits.

    Attributes
    ----------
    groups : list of dict
        What each parameter group is to hold.
    entries : dict of int to Entry
        By the id of each parameter.
    """

    groups: list[dict[str, Any]]
    entries: dict[int, Entry]


def pack(
    kind: str,
    groups: Sequence[Mapping[str, Any]],
    entries: Mapping[int, tuple[int, Mapping[str, np.ndarray[Any, Any]]]],
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
    return {"optimizer": kind, "state": state, "param_groups": packed}


def switched_on(groups: Sequence[Mapping[str, Any]], fields: Iterable[str]) -> list[dict[str, Any]]:
    """The groups with the hyper-parameters that call for these fields, as far as they have such."""
    on = dict(_SWITCHES[field] for field in fields if field in _SWITCHES)
    return [{**group, **{name: value for name, value in on.items() if name in group}} for group in groups]


def with_state(
    groups: Sequence[Mapping[str, Any]], entries: Mapping[int, Entry], choose: Choose
) -> list[dict[str, Any]]:
    """The groups as they have to be for a moment, so that there is state for every field of the entries."""
    lacking = {field for entry in entries.values() for field in entry.fields} - set(choose(groups).state)
    return switched_on(groups, lacking)


def refuse_untied_copies(name: str, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to copy an optimizer whose copy would update what nothing refers to.

    Raises
    ------
    NetclError
        If the parameters are arrays of another library, or views of larger arrays.
    """
    for number, group in enumerate(groups):
        for i, p in enumerate(group["params"]):
            if p.storage.fixed:
                raise NetclError(
                    f"{name} updates arrays of another library in place, and a copy of it would update arrays that "
                    "nobody holds; save its state_dict(), and load that into an optimizer of the copied arrays"
                )
            if p.storage.size != p.size:
                raise NetclError(
                    f"parameter {i} of group {number} is a view of a larger array, which a copy of {name} would lose "
                    "sight of; save its state_dict(), and load that into an optimizer of the copied views"
                )


def read(checkpoint: Any, kind: str, groups: Sequence[ParameterGroup], choose: Choose) -> Loaded:
    """What a checkpoint holds for an optimizer of this kind, with these groups.

    Parameters
    ----------
    checkpoint : mapping
        A ``state_dict()`` of netcl or ``torch.optim``.
    kind : str
        What the optimizer calls its kind in its own checkpoints.
    groups : sequence of ParameterGroup
    choose : callable
        The rule for some groups, whose state fields are those that the groups call for.

    Raises
    ------
    StateError
        At the first thing that does not fit, by its name.
    """
    state, saved = _outline(checkpoint, kind, groups)
    ours = "optimizer" in checkpoint
    hyper = [_hyper(n, *pair, kind, state, ours) for n, pair in enumerate(zip(saved, groups, strict=True))]
    _refuse_repeated(saved)
    widest = choose(switched_on(hyper, _SWITCHES))
    every = ours or any("master_weights" in source for source in saved)
    former = _FORMER_NAMES.get(kind, {})
    entries: dict[int, Entry] = {}
    left = set(state)
    for number, (source, group) in enumerate(zip(saved, groups, strict=True)):
        rule = choose([hyper[number]])
        for label, index, parameter in _matched(number, source, group):
            if index in left:
                left.remove(index)
            elif not every:  # torch writes nothing for a parameter that never moved
                entries[id(parameter)] = Entry(0, {})
                continue
            else:
                raise StateError(f"the checkpoint lacks the state of {label}, which its groups list as {index}")
            known = widest.shapes(parameter.shape)
            if parameter.dtype.compute is not parameter.dtype:
                known |= dict.fromkeys(("master", COMPENSATION), parameter.shape)
            needed = set(rule.shapes(parameter.shape))
            values = state[index]
            if not every and isinstance(values, Mapping):
                values = {name: value for name, value in values.items() if name not in _FOLLOW.get(kind, ())}
            entries[id(parameter)] = _entry(label, values, parameter, known, needed, every, former)
    if left:
        raise StateError(
            f"the checkpoint has state for {min(left)}, which is not a parameter of its groups; it must come from an "
            "optimizer's state_dict()"
        )
    return Loaded(hyper, entries)


def _outline(
    checkpoint: Any, kind: str, groups: Sequence[ParameterGroup]
) -> tuple[dict[int, Any], list[Mapping[str, Any]]]:
    """The state by the index of a parameter, and the groups, of a checkpoint with the right outline."""
    if not isinstance(checkpoint, Mapping):
        raise StateError(f"a checkpoint is what an optimizer's state_dict() returns, a dict, got {shown(checkpoint)}")
    for name in ("state", "param_groups"):
        if name not in checkpoint:
            raise StateError(f"the checkpoint lacks {name!r}; it must come from an optimizer's state_dict()")
    for name in checkpoint:
        if name not in ("optimizer", "state", "param_groups"):
            raise StateError(
                f"the checkpoint has {shown(name)} beside its state and param_groups; keep what is not an optimizer's "
                "elsewhere"
            )
    saved_kind = checkpoint.get("optimizer", kind)
    if saved_kind != kind:
        raise StateError(
            f"the checkpoint is of the optimizer {shown(saved_kind)} and cannot be loaded into {kind}; build the "
            "optimizer that it was saved from"
        )
    state, saved = checkpoint["state"], checkpoint["param_groups"]
    if not isinstance(state, Mapping):
        raise StateError(f"the checkpoint's state must be a dict by parameter index, got {shown(state)}")
    if not isinstance(saved, list | tuple) or not all(isinstance(source, Mapping) for source in saved):
        raise StateError(f"the checkpoint's param_groups must be a list of dicts, got {shown(saved)}")
    if len(saved) != len(groups):
        raise StateError(
            f"the checkpoint has {len(saved)} parameter group(s) and the optimizer {len(groups)}; "
            "build the optimizer with the same groups"
        )
    by_index: dict[int, Any] = {}
    for key, values in state.items():
        # JSON turns the keys of a dict into strings.
        index = _index(f"the key {shown(key)} of the checkpoint's state", int(key) if _is_digits(key) else key)
        if index in by_index:
            raise StateError(f"the checkpoint has the state of parameter {index} twice")
        by_index[index] = values
    return by_index, list(saved)


def _is_digits(key: Any) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdigit()


def _index(what: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        index = operator.index(value)
    except Exception:  # an array refuses in its own way
        index = -1
    if index < 0:
        raise StateError(f"{what} must be the index of a parameter, an integer of at least 0, got {shown(value)}")
    return index


def _refuse_repeated(saved: Sequence[Mapping[str, Any]]) -> None:
    indices = [operator.index(index) for source in saved for index in source["params"]]
    counts = Counter(indices)
    for index in indices:
        if counts[index] > 1 or index >= len(indices):
            raise StateError(
                f'the groups of the checkpoint have {index} in "params"; each of {len(indices)} parameter(s) has an '
                f"index of its own, from 0 to {len(indices) - 1}"
            )


def _hyper(
    number: int, source: Mapping[str, Any], group: ParameterGroup, kind: str, state: Mapping[int, Any], ours: bool
) -> dict[str, Any]:
    """What a group holds with the hyper-parameters of the checkpoint, which may be torch's or an old one of netcl."""
    where = f"parameter group {number} of the checkpoint"
    indices, own = source.get("params"), group["params"]
    if not isinstance(indices, list | tuple):
        raise StateError(f'{where} must have a list of indices as "params", got {shown(indices)}')
    if len(indices) != len(own):
        raise StateError(
            f"parameter group {number} has {len(indices)} parameter(s) in the checkpoint and {len(own)} in the "
            "optimizer; they must be of the same model"
        )
    for index in indices:
        _index(f'an item of "params" of {where}', index)
    changes = {name: value for name, value in source.items() if name not in ("params", "param_names")}
    if not ours:
        _take_out_torchs(where, changes, kind, "decoupled_weight_decay" in group)
    # Before amsgrad and centered were hyper-parameters of a group, only the state said so.
    if not ours and "master_weights" in changes:
        held = {field for index in indices for field in _fields_of(state.get(operator.index(index)))}
        for field, (name, _) in _SWITCHES.items():
            if name in group and name not in changes and name != "momentum":
                changes[name] = field in held
    for name in group:
        needed = name not in ("params", "names", *(_SINCE if ours else _MAY_LACK)) and not is_note(name, group)
        if needed and name not in changes:
            raise StateError(f"{where} lacks the hyper-parameter {name!r}; it has {', '.join(map(str, source))}")
    for name in changes:
        if name not in group and not is_note(name, group):
            raise StateError(
                f"{where} has the hyper-parameter {shown(name)}, which {kind} does not know; build the optimizer that "
                "it was saved from"
            )
    try:
        checked = group.checked(changes)
    except (HyperParameterError, TypeError, ValueError) as error:
        raise StateError(f"{where} does not fit: {error}") from error
    if "state_dtype" in group:  # what state is kept in is the optimizer's own affair: a checkpoint has its numbers
        checked["state_dtype"] = group["state_dtype"]
    for name in _PART_OF_THE_KIND:
        if name in group and checked[name] != group[name]:
            raise StateError(
                f"{where} has {name}={checked[name]} and the optimizer {name}={group[name]}, which is another "
                f"algorithm; build the optimizer with {name}={checked[name]}"
            )
    return checked


def _take_out_torchs(where: str, changes: dict[str, Any], kind: str, known_decoupled: bool) -> None:
    """Leave out the keys of torch that have no meaning here, after they were asked for the kind of optimizer."""
    for name in _OF_TORCH | _OF_TORCHS_SCHEDULES:
        changes.pop(name, None)
    # Where both are one class, the group says which; else they are two kinds.
    decoupled = None if known_decoupled else changes.pop("decoupled_weight_decay", None)
    if decoupled is not None and (kind not in ("Adam", "AdamW") or decoupled != (kind == "AdamW")):
        raise StateError(
            f"{where} is of torch's {'AdamW' if decoupled else 'Adam'} (decoupled_weight_decay={shown(decoupled)}) and "
            f"cannot be loaded into {kind}; build the optimizer that it was saved from"
        )


def _fields_of(values: Any) -> list[str]:
    return [name for name, value in values.items() if value is not None] if isinstance(values, Mapping) else []


def _matched(number: int, source: Mapping[str, Any], group: Mapping[str, Any]) -> list[tuple[str, int, Array]]:
    """Label, index and tensor of each parameter of a group: by name if both sides have names, else by position."""
    indices, names = [operator.index(index) for index in source["params"]], source.get("param_names", ())
    has_names = "param_names" in source
    tensors, own = group["params"], group["names"]
    if has_names:
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise StateError(
                f"param_names of group {number} of the checkpoint must be a list of names, got {shown(names)}"
            )
        if len(names) != len(indices) or len(set(names)) != len(names):
            raise StateError(
                f"param_names of group {number} of the checkpoint must name each of its {len(indices)} parameter(s) "
                f"once, got {shown(names)}"
            )
    if not has_names or None in own:
        pairs = zip(indices, tensors, strict=True)
        return [(f"parameter {i} of group {number}", *pair) for i, pair in enumerate(pairs)]
    position = dict(zip(names, indices, strict=True))
    for name in own:
        if name not in position:
            raise StateError(f"the checkpoint has no parameter {name!r} in group {number}; it has {', '.join(names)}")
    return [(repr(name), position[name], tensor) for name, tensor in zip(own, tensors, strict=True)]


def _entry(
    label: str,
    values: Any,
    parameter: Array,
    known: Mapping[str, tuple[int, ...]],
    needed: set[str],
    every: bool,
    former: Mapping[str, str],
) -> Entry:
    """One parameter's state, of a checkpoint that has steps and fields for ``every`` parameter, or of torch."""
    if not isinstance(values, Mapping):
        raise StateError(f"the state of {label} must be a dict of its step and fields, got {shown(values)}")
    found: dict[str, Any] = {}
    for given in values:
        field = former.get(given, given)
        if given == "step" or values[given] is None:
            continue
        if field not in known:
            raise StateError(
                f"{label} has the field {shown(given)} in the checkpoint, which this optimizer does not keep; it keeps "
                f"{', '.join(sorted(known)) or 'none'}. Build the optimizer that the checkpoint was saved from"
            )
        if field in found:
            raise StateError(f"{label} has {field} twice in the checkpoint, once as {shown(given)}")
        one_number = not every and given in _ONE_NUMBER
        found[field] = _array(label, given, values[given], parameter.dtype.compute, known[field], one_number)
    # torch's SGD counts no steps.
    counted = "step" in values or every or bool(set(found) - {"momentum_buffer"})
    step = _step(label, values.get("step")) if counted else 0
    for field in sorted(needed):
        if field not in found and (every or step or found):
            raise StateError(
                f"{label} lacks the field {field!r} in the checkpoint; it has {', '.join(map(str, values))}"
            )
    return Entry(step, found)


def _array(
    label: str, field: str, value: Any, compute: DType, shape: tuple[int, ...], one_number: bool
) -> np.ndarray[Any, Any]:
    array = as_host(value, f"{field} of {label} in the checkpoint")
    if one_number and array.shape == () and array.dtype.kind == "f":
        array = np.full(shape, array, STORAGE[compute])
    if array.shape != shape:
        raise StateError(
            f"{label} has {field} of shape {array.shape} in the checkpoint and shape {shape} in the "
            "optimizer; they must be of the same model"
        )
    expected = compute.name
    if array.dtype.name != expected:
        raise StateError(
            f"{label} has {field} of dtype {array.dtype} in the checkpoint where the optimizer keeps {expected}; "
            f"convert it with astype({expected!r}) if that is meant"
        )
    if field in _NEVER_NEGATIVE and bool((array < 0.0).any()):
        raise StateError(
            f"{label} has {field} with {array.min()} in the checkpoint; an average of squares is never negative"
        )
    return array


def _step(label: str, value: Any) -> int:
    """A step count: torch has it as a float32 tensor."""
    rule = f"the step of {label} in the checkpoint must be an integer from 0 to 2**63 - 1, got {shown(value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        try:
            array = _as_host(value)
            if array.shape != () or array.dtype.kind not in "iuf":
                raise TypeError
            count = int(array)
            if count != array:
                raise ValueError
        except Exception:  # None, text, NaN, infinity, a fraction, or a library's own refusal
            raise StateError(rule) from None
    if not 0 <= count < _MOST_STEPS:
        raise StateError(rule)
    return count


def as_host(value: Any, what: str) -> np.ndarray[Any, Any]:
    """A value of a checkpoint as a NumPy array.

    Raises
    ------
    StateError
        If it is none.
    """
    try:
        return _as_host(value)
    except Exception as error:  # every library refuses in its own way
        raise StateError(f"{what} is {shown(value)}, which is not an array on the host: {error}") from error


def _as_host(value: Any) -> np.ndarray[Any, Any]:
    if blocks_of(value) is not None:
        return value  # type: ignore[no-any-return]
    for convert in ("detach", "cpu"):
        value = getattr(value, convert, lambda value=value: value)()
    array: np.ndarray[Any, Any] = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
    return array
