"""The state of an optimizer over shards, made whole as if nothing had been sharded, and dealt out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.distributed.sharding import Flat, Named, Shards, check_shards, contents
from netcl.distributed.world import current_world
from netcl.errors import ArgumentError, DistributedError, NetclError, StateError
from netcl.optim.engine import checkpoint
from netcl.optim.lbfgs import LBFGS
from netcl.optim.optimizer import Optimizer
from netcl.validation import shown

_TAG = 0
"""Of the messages; objects have a tag of their own."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A parameter group over shards: its views with their buffers, and the parameters that lie in these."""

    flats: list[Flat]
    named: Named


def gather_state(optimizer: Optimizer, shards: Shards | Sequence[Shards]) -> dict[str, Any] | None:
    """The ``state_dict()`` that the optimizer would have without sharding, on rank 0. **Blocks**. All ranks call it.

    State of each parameter has its shape, and its name if :func:`shard` got names. :func:`netcl.save` takes the result
    as ``optimizer``, and an optimizer of the parameters themselves loads it, in one process or in several.

    Parameters
    ----------
    optimizer : Optimizer
        Over the views of ``shards``.
    shards : Shards, or list of Shards
        What :func:`shard` returned; several where parameter groups were sharded apart.

    Returns
    -------
    dict or None
        None on the other ranks.

    Raises
    ------
    DistributedError
        If a parameter is no view of these, the rule takes more than one element at a time, as that of LAMB does, or the
        ranks' optimizers differ; on every rank.

    Notes
    -----
    Rank 0 needs memory for the whole state on the host. State in few bits is gathered in float32.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed, nn
    >>> from netcl.optim import AdamW
    >>> model = nn.Linear(3, 2)
    >>> shards = distributed.shard(model.named_parameters())
    >>> opt = AdamW(shards, lr=1e-3)
    >>> state = distributed.gather_state(opt, shards)
    >>> state["param_groups"][0]["param_names"], state["state"][0]["exp_avg"].shape
    (['weight', 'bias'], (2, 3))
    """
    listed = _checked(optimizer, shards)
    groups: list[_Group] = []
    entries: list[dict[str, Any]] = []
    problem = ""
    try:
        groups = _groups(optimizer, listed)
        state = optimizer.state_dict()["state"]
        entries = [dict(state[i]) for i in range(len(_flats(groups)))]
    except NetclError as error:
        problem = str(error)
    steps = [entry.pop("step") for entry in entries] if not problem else []
    fields = [sorted((name, values.dtype.str) for name, values in entry.items()) for entry in entries]
    _agree("gather_state()", problem, {**_described(optimizer, groups), "step counts": steps, "state fields": fields})
    whole: dict[int, dict[str, NDArray[Any]]] = {id(p): {} for group in groups for _, p in group.named}
    for flat, entry in zip(_flats(groups), entries, strict=True):
        for name in sorted(entry):
            values = _gathered(flat, entry[name])
            if values is not None:
                for p, offset in zip(flat.parameters, flat.offsets, strict=True):
                    whole[id(p)][name] = values[offset : offset + p.size].reshape(p.shape).copy()
    if current_world().rank:
        return None
    step_of = {id(p): step for flat, step in zip(_flats(groups), steps, strict=True) for p in flat.parameters}
    held = [
        {**values, "params": [p for _, p in group.named], "names": [name for name, _ in group.named]}
        for values, group in zip(optimizer.param_groups, groups, strict=True)
    ]
    return checkpoint.pack(optimizer._kind(), held, {key: (step_of[key], whole[key]) for key in whole})


def scatter_state(
    optimizer: Optimizer, shards: Shards | Sequence[Shards], state: Mapping[str, Any] | None = None
) -> None:
    """Have each rank's optimizer go on with its part of a whole ``state_dict()``. **Blocks**. All ranks call it.

    It may come from :func:`gather_state` on any number of ranks, from an optimizer that was not sharded, or from one of
    ``torch.optim``. Parameters are matched by name if both sides have names, else by position.

    Parameters
    ----------
    optimizer : Optimizer
        Over the views of ``shards``.
    shards : Shards, or list of Shards
        What :func:`shard` returned; several where parameter groups were sharded apart.
    state : mapping, optional
        Rank 0's is taken; the other ranks need none.

    Raises
    ------
    StateError
        If it does not fit, as in ``load_state_dict()``, or parameters of one view have taken different numbers of
        steps, for a view has one step count; on every rank, before anything is changed.
    DistributedError
        As in :func:`gather_state`; on every rank.

    Notes
    -----
    State in few bits is quantized again, for the blocks of a share are others.

    Examples
    --------
    >>> import netcl
    >>> from netcl import distributed, nn
    >>> from netcl.optim import AdamW
    >>> model = nn.Linear(3, 2)
    >>> saved = AdamW(model.named_parameters(), lr=1e-2).state_dict()
    >>> shards = distributed.shard(model.named_parameters())
    >>> opt = AdamW(shards)
    >>> distributed.scatter_state(opt, shards, saved)
    >>> opt.lr
    0.01
    """
    listed = _checked(optimizer, shards)
    groups: list[_Group] = []
    plan: _Plan | None = None
    problem, refusal = "", ""
    try:
        groups = _groups(optimizer, listed)
        if current_world().rank == 0:
            plan = _planned(optimizer, groups, state)
    except StateError as error:
        refusal = str(error)
    except NetclError as error:
        problem = str(error)
    _agree("scatter_state()", problem, _described(optimizer, groups))
    refusal, hyper, steps, fields = current_world().channel.exchange(
        (refusal, *((plan.hyper, plan.steps, plan.fields) if plan is not None else ([], [], []))), "scatter_state()"
    )[0]
    if refusal:
        raise StateError(refusal)
    entries = {}
    for i, flat in enumerate(_flats(groups)):
        own = {name: _dealt(flat, dtype, None if plan is None else plan.whole(i, name)) for name, dtype in fields[i]}
        entries[id(flat.view)] = (steps[i], own)
    held = [
        {**values, "params": group["params"], "names": group["names"]}
        for values, group in zip(hyper, optimizer.param_groups, strict=True)
    ]
    try:
        optimizer.load_state_dict(checkpoint.pack(optimizer._kind(), held, entries))
    except NetclError as error:
        refusal = str(error)
    for rank, told in enumerate(current_world().channel.exchange(refusal, "scatter_state()")):
        if told:
            raise StateError(f"the state does not fit on rank {rank}: {told}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """A whole state that fits: hyper-parameters by group, and by flat buffer steps, fields and their dtypes."""

    flats: list[Flat]
    loaded: checkpoint.Loaded
    hyper: list[dict[str, Any]]
    steps: list[int]
    fields: list[list[tuple[str, str]]]

    def whole(self, i: int, name: str) -> NDArray[Any]:
        """A field in the layout of a flat buffer."""
        flat = self.flats[i]
        made = np.zeros(flat.size, dict(self.fields[i])[name])
        for p, offset in zip(flat.parameters, flat.offsets, strict=True):
            fields = self.loaded.entries[id(p)].fields
            if name in fields:
                made[offset : offset + p.size] = fields[name].reshape(-1)
        return made


def _planned(optimizer: Optimizer, groups: Sequence[_Group], state: Any) -> _Plan:
    unsharded = [
        held.over([p for _, p in group.named], [name for name, _ in group.named])
        for held, group in zip(optimizer.param_groups, groups, strict=True)
    ]
    loaded = checkpoint.read(state, optimizer._kind(), unsharded, optimizer._choose_rule)
    names = {id(p): name for group in groups for name, p in group.named}
    steps, fields = [], []
    for flat in _flats(groups):
        entries = [loaded.entries[id(p)] for p in flat.parameters]
        for p, entry in zip(flat.parameters, entries, strict=True):
            if entry.step != entries[0].step:
                first, other = (names[id(x)] or f"a parameter of shape {x.shape}" for x in (flat.parameters[0], p))
                raise StateError(
                    f"{first} has taken {entries[0].step} steps in the checkpoint and {other} {entry.step}, and a "
                    "shard has one step count; shard them apart, each with a parameter group of its own"
                )
        steps.append(entries[0].step)
        fields.append(sorted({(name, values.dtype.str) for entry in entries for name, values in entry.fields.items()}))
    hyper = [{name: x for name, x in held.items() if name not in ("params", "names")} for held in loaded.groups]
    return _Plan(_flats(groups), loaded, hyper, steps, fields)


def _checked(optimizer: Any, shards: Any) -> list[Shards]:
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(f"optimizer must be one of netcl.optim, over what shard() returned, got {shown(optimizer)}")
    listed = list(shards) if isinstance(shards, list | tuple) else [shards]
    for each in listed:
        check_shards(each)
    return listed


def _groups(optimizer: Optimizer, shards: Sequence[Shards]) -> list[_Group]:
    """What lies in the views of each parameter group; parameters in the order in which shard() got them."""
    if isinstance(optimizer, LBFGS) or optimizer._choose_rule(optimizer.param_groups).per_tensor is not None:
        raise DistributedError(
            f"{optimizer._kind()} takes values of whole tensors or of all of them, so that its shards are no part of "
            "an unsharded run; let each rank save its own state_dict()"
        )
    flats = {id(flat.view): flat for each in shards for flat in contents(each)[0]}
    found = []
    for number, group in enumerate(optimizer.param_groups):
        for i, view in enumerate(group["params"]):
            if id(view) not in flats:
                raise DistributedError(
                    f"parameter {i} of group {number}, of shape {view.shape}, is no view of these shards; build the "
                    "optimizer over what shard() returned, and give all of that"
                )
        own = [flats[id(view)] for view in group["params"]]
        held = {id(p) for flat in own for p in flat.parameters}
        found.append(_Group(own, [pair for each in shards for pair in contents(each)[1] if id(pair[1]) in held]))
    return found


def _flats(groups: Sequence[_Group]) -> list[Flat]:
    return [flat for group in groups for flat in group.flats]


def _described(optimizer: Optimizer, groups: Sequence[_Group]) -> dict[str, Any]:
    """What all ranks must have alike."""
    listed = [[(name or "", p.shape, p.dtype.name) for name, p in group.named] for group in groups]
    return {"class": optimizer._kind(), "parameters": listed}


def _agree(call: str, problem: str, described: Mapping[str, Any]) -> None:
    """Raise, on every rank, the problem of one, or that what they describe is not alike. **Blocks**."""
    told = current_world().channel.exchange((problem, described), call)
    for rank, (other, _) in enumerate(told):
        if other:
            raise DistributedError(other if len(told) == 1 else f"rank {rank}: {other}")
    for what, first in told[0][1].items():
        for rank, (_, found) in enumerate(told):
            if found[what] != first:
                raise DistributedError(
                    f"the {what} of the optimizer are {shown(first)} on rank 0 and {shown(found[what])} on rank "
                    f"{rank}; build the same optimizer on every rank, and let all take the same steps"
                )


def _gathered(flat: Flat, own: NDArray[Any]) -> NDArray[Any] | None:
    """On rank 0 what all ranks have, in the layout of the buffer. **Blocks**."""
    channel = current_world().channel
    start, size = flat.shares[channel.rank]
    if channel.rank:
        channel.finish([(0, channel.send(np.ascontiguousarray(own), 0, _TAG))], "gather_state()")
        return None
    whole = np.empty(flat.size, own.dtype)
    whole[start : start + size] = own
    requests = []
    for rank in channel.peers:
        start, size = flat.shares[rank]
        requests.append((rank, channel.receive(whole[start : start + size], rank, _TAG)))
    channel.finish(requests, "gather_state()")
    return whole


def _dealt(flat: Flat, dtype: str, whole: NDArray[Any] | None) -> NDArray[Any]:
    """This rank's share of what rank 0 has. **Blocks**."""
    channel = current_world().channel
    start, size = flat.shares[channel.rank]
    if whole is None:
        own = np.empty(size, dtype)
        channel.finish([(0, channel.receive(own, 0, _TAG))], "scatter_state()")
        return own
    requests = []
    for rank in channel.peers:
        begin, count = flat.shares[rank]
        requests.append((rank, channel.send(whole[begin : begin + count], rank, _TAG)))
    channel.finish(requests, "scatter_state()")
    return whole[start : start + size].copy()
