"""Weights and optimizer states of torch, in and out, where torch is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from netcl.checkpoint.safetensors import Elements, first_bytes
from netcl.dtypes import bfloat16
from netcl.errors import ArgumentError, StateError
from netcl.functional.host import host_dtype, to_host
from netcl.nn.module import Module
from netcl.optim.optimizer import Optimizer
from netcl.validation import shown

_MODEL = ("model", "model_state_dict", "state_dict")
_OPTIMIZER = ("optimizer", "optimizer_state_dict")
_OWN = ("params", "param_names", "master_weights")
_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02")
"""How the files of torch.save begin: a zip archive, and before version 1.6 a pickle."""


def is_torchs(path: Path) -> bool:
    """Whether a file begins as those of ``torch.save`` do.

    The length of a safetensors header may begin with the same bytes, but then its brace stands in the ninth place.
    """
    begin = first_bytes(path, 9)
    return begin.startswith(_BEGINNINGS) and begin[8:] != b"{"


def read(path: Path) -> tuple[dict[str, Elements] | None, dict[str, Any]]:
    """Weights, and the optimizer's state as plain data, of what ``torch.save`` wrote.

    Raises
    ------
    ModuleNotFoundError
        If torch is not installed.
    StateError
        If torch refuses the file, or it holds neither.
    """
    torch = _torch(f"{path} is a file of torch.save(), and reading it")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch refuses in many ways
        raise StateError(
            f"torch cannot read {path} as weights alone: {error}; save the state_dict() of the model and of the "
            "optimizer"
        ) from error
    if not isinstance(held, Mapping):
        raise StateError(f"{path} holds {shown(held)}; save the state_dict() of a model")
    weights = next((held[name] for name in _MODEL if isinstance(held.get(name), Mapping)), None)
    optimizer = next((held[name] for name in _OPTIMIZER if isinstance(held.get(name), Mapping)), None)
    if weights is None and optimizer is None:
        if "param_groups" in held:
            optimizer = held
        else:
            weights = held
    parts = {} if optimizer is None else {"optimizer": _plain(torch, optimizer)}
    if weights is None:
        return None, parts
    if unfit := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise StateError(
            f"{path} has {unfit[0]!r}, which is no tensor; save the state_dict() of a model, or a dict with 'model' "
            "and 'optimizer'"
        )
    return {name: _elements(torch, value) for name, value in weights.items()}, parts


def to_torch_state_dict(part: Any) -> dict[str, Any]:
    """What the torch counterpart of a model or an optimizer takes in ``load_state_dict``. **Blocks**.

    Parameters
    ----------
    part : Module or Optimizer
        Layers have torch's names and shapes, and optimizers torch's fields.

    Returns
    -------
    dict
        Of torch tensors on the CPU, bfloat16 kept; for an optimizer, ``"state"`` and ``"param_groups"`` of torch.

    Raises
    ------
    ModuleNotFoundError
        If torch is not installed.
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> import netcl
    >>> from netcl import nn
    >>> import torch  # doctest: +SKIP
    >>> theirs = torch.nn.Linear(2, 3)  # doctest: +SKIP
    >>> theirs.load_state_dict(netcl.to_torch_state_dict(nn.Linear(2, 3)))  # doctest: +SKIP
    <All keys matched successfully>
    """
    if isinstance(part, Module):
        torch = _torch("to_torch_state_dict()")
        found = {}
        for name, tensor in part.named_state():
            stored = torch.from_numpy(to_host(tensor))
            found[name] = stored.view(torch.bfloat16) if tensor.dtype is bfloat16 else stored
        return found
    if isinstance(part, Optimizer):
        torch = _torch("to_torch_state_dict()")
        saved = part.state_dict()
        state = {}
        for index, entry in saved["state"].items():
            fields = {name: _tensor(torch, value) for name, value in entry.items() if name != "step"}
            state[index] = {"step": torch.tensor(float(entry["step"])), **fields}
        groups = []
        for group in saved["param_groups"]:
            kept = {name: value for name, value in group.items() if name not in _OWN}
            if saved["optimizer"] in ("Adam", "AdamW"):
                kept["decoupled_weight_decay"] = saved["optimizer"] == "AdamW"
            groups.append({**kept, "params": list(group["params"])})
        return {"state": state, "param_groups": groups}
    raise ArgumentError(f"to_torch_state_dict() takes a Module or an Optimizer, got {shown(part)}")


def _torch(what: str) -> Any:
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} needs torch: pip install torch") from error


def _elements(torch: Any, tensor: Any) -> Elements:
    plain = tensor.detach().contiguous()
    if plain.dtype is torch.bfloat16:
        return Elements(bfloat16, plain.view(torch.int16).numpy().view(np.uint16))
    array = plain.numpy()
    return Elements(host_dtype(array), array)


def _tensor(torch: Any, value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _plain(torch: Any, value: Any) -> Any:
    """Nested data with NumPy arrays in place of torch's tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, Mapping):
        return {key: _plain(torch, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(torch, each) for each in value]
    return value
