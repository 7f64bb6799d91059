"""decay_groups: the parameters of a model in two groups, with weight decay and without."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from netcl.errors import HyperParameterError
from netcl.nn.layers import Embedding, LayerNorm
from netcl.nn.module import Module
from netcl.optim import validation
from netcl.validation import shown

NO_DECAY: tuple[str | type[Module], ...] = ("bias", "*.bias", LayerNorm, Embedding)
"""What is usually left out: biases by their name, norms and embeddings by the type of their module."""


def decay_groups(
    model: Module, weight_decay: float, *, no_decay: Iterable[str | type[Module]] = NO_DECAY
) -> list[dict[str, Any]]:
    """The parameters of a model as two groups for an optimizer: with weight decay, and without. Does not block.

    Parameters
    ----------
    model : Module
    weight_decay : float
        Of the first group, at least 0; the second has 0.
    no_decay : iterable of str or of classes of modules, default biases, LayerNorm and Embedding
        What belongs to the second group: names of parameters, in which ``*`` and ``?`` stand for anything
        (``"*.bias"``), and modules, whose own parameters are meant.

    Returns
    -------
    list of dict
        Named ``"decay"`` and ``"no_decay"``, with ``(name, Tensor)`` pairs; one without parameters is left out.

    Raises
    ------
    HyperParameterError
        If something is of another kind, ``weight_decay`` is out of range, or the model has no parameters.

    Examples
    --------
    >>> from netcl import nn
    >>> from netcl.optim import AdamW, decay_groups
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> opt = AdamW(decay_groups(model, 0.1), lr=1e-3)
    >>> for group in opt.param_groups:
    ...     print(group["name"], group["weight_decay"], group["names"])
    decay 0.1 ['0.weight']
    no_decay 0.0 ['0.bias', '1.weight', '1.bias']
    """
    if not isinstance(model, Module):
        raise HyperParameterError(f"model must be a Module, got {shown(model)}")
    decay = validation.not_negative("weight_decay", weight_decay)
    rules = [no_decay] if isinstance(no_decay, str | type) else validation.listed("no_decay", no_decay)
    for rule in rules:
        if not isinstance(rule, str) and not (isinstance(rule, type) and issubclass(rule, Module)):
            raise HyperParameterError(f"no_decay must hold names and classes of modules, got {shown(rule)}")
    kinds = tuple(rule for rule in rules if isinstance(rule, type))
    patterns = [rule for rule in rules if isinstance(rule, str)]
    left_out: set[int] = set()
    for _, module in model.named_modules():
        if isinstance(module, kinds):
            left_out |= {id(getattr(module, name)) for name in module._parameter_names}
    decayed: list[tuple[str, Any]] = []
    others: list[tuple[str, Any]] = []
    for name, tensor in model.named_parameters():
        free = id(tensor) in left_out or any(fnmatchcase(name, pattern) for pattern in patterns)
        (others if free else decayed).append((name, tensor))
    if not decayed and not others:
        raise HyperParameterError("the model has no parameters; assign Tensors with requires_grad=True to it")
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": decay, "name": "decay"},
        {"params": others, "weight_decay": 0.0, "name": "no_decay"},
    ]
    return [group for group in groups if group["params"]]
