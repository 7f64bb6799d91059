"""A whole run in one file: weights, optimizer, schedule, scaler, loader, random state and whatever else is given."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, final

from netcl import random
from netcl.checkpoint import foreign
from netcl.checkpoint.encoding import decode, elements_of, encode
from netcl.checkpoint.safetensors import Elements, Reader, header, read_all, write
from netcl.errors import ArgumentError, NetclError, StateError
from netcl.files import parse_json
from netcl.functional.host import to_host
from netcl.host_dtypes import values_of
from netcl.narrow_arrays import asking_as_kept
from netcl.nn.module import Module
from netcl.validation import flag, shown
from netcl.version import __version__

FilePath: TypeAlias = "str | os.PathLike[str]"

STATEFUL = ("optimizer", "schedule", "scaler", "loader")
"""The parts that have state_dict() and load_state_dict(), in the order in which they are restored."""

_DESCRIPTION = "netcl"
_LAYOUT = 1
_WITH_BLOCKS = 2
"""The layout of files with state in few bits, which earlier versions of netcl do not read."""


@final
class PendingSave:
    """A file that is being written while the run goes on."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(write,), name="netcl.save")
        self._thread.start()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error

    @property
    def done(self) -> bool:
        """Whether the writing has ended, well or not. Does not block."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """**Blocks** until the disk has the file.

        Raises
        ------
        OSError
            If it could not be written; an older file of that name is as it was.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error


def save(
    path: FilePath,
    *,
    model: Any = None,
    optimizer: Any = None,
    schedule: Any = None,
    scaler: Any = None,
    loader: Any = None,
    extra: Any = None,
    wait: bool = True,
) -> PendingSave | None:
    """Write a run to one safetensors file, whole or not at all.

    The file takes its name in one step after the disk has all of it: whenever the process is killed, there is the old
    file or the new one. The weights stand under their own names, so that every reader of safetensors finds them; all
    else is in tensors with a ``/`` in their names, and in the file's metadata as JSON. The random state of
    :mod:`netcl.random`, which dropout draws from, is always part of it. State of an optimizer in 8 or 4 bits stays so:
    a tensor of codes and one of scales. Nothing is pickled.

    Parameters
    ----------
    path : str or path
        In a folder that exists; ``.safetensors`` is the usual ending.
    model : Module, or mapping of str to Module or array, optional
        With a mapping, weights are called ``key.name``.
    optimizer, schedule, scaler, loader : object with state_dict(), or list, tuple or dict of such, optional
        For an optimizer also what its ``state_dict()`` or :func:`netcl.distributed.gather_state` returned.
    extra : optional
        Plain data of your own: None, bools, numbers, strings, lists, tuples, dicts, NumPy arrays and Tensors.
    wait : bool, default True
        False writes in another thread, and returns what to wait for. The values are copied before the call returns, so
        that the run can go on.

    Returns
    -------
    PendingSave or None

    Raises
    ------
    StateError
        If something is not what a checkpoint can hold; nothing is written then.
    OSError
        If the file cannot be written; an older one of that name is as it was.

    Notes
    -----
    **Blocks**: what is on a device is read. With several processes, each saves to a file of its own, or one of them
    saves what all have alike, or what :func:`netcl.distributed.gather_state` brought together.

    Examples
    --------
    >>> import os, tempfile, netcl
    >>> from netcl import nn
    >>> from netcl.optim import AdamW
    >>> model = nn.Linear(2, 1)
    >>> opt = AdamW(model.parameters())
    >>> file = os.path.join(tempfile.mkdtemp(), "run.safetensors")
    >>> netcl.save(file, model=model, optimizer=opt, extra={"epoch": 3})
    >>> netcl.load(file, model=model, optimizer=opt)
    {'epoch': 3}
    """
    target = _path(path)
    wait = flag("wait", wait)
    tensors = {} if model is None else _weights(model)
    weights = list(tensors)
    parts: dict[str, Any] = {}
    for name, part in zip(STATEFUL, (optimizer, schedule, scaler, loader), strict=True):
        if part is not None:
            with asking_as_kept():
                states = _each(name, part, lambda where, one: one.state_dict())
            parts[name] = encode(name, states, tensors)
    parts["random"] = encode("random", random.get_state(), tensors)
    parts["extra"] = encode("extra", extra, tensors)
    run = {
        "layout": _WITH_BLOCKS if "$blocks" in _marks(parts) else _LAYOUT,
        "netcl": __version__,
        "weights": weights if model is not None else None,
        "device": _device(model),
        "parts": parts,
    }
    metadata = {"format": "pt", _DESCRIPTION: json.dumps(run, allow_nan=False)}
    header({name: (dtype, stored.shape) for name, (dtype, stored) in tensors.items()}, metadata)  # refuses early
    if not wait:
        return PendingSave(lambda: write(target, tensors, metadata))
    write(target, tensors, metadata)
    return None


def load(
    path: FilePath,
    *,
    model: Any = None,
    optimizer: Any = None,
    schedule: Any = None,
    scaler: Any = None,
    loader: Any = None,
    strict: bool = True,
) -> Any:
    """Restore a run in place from what :func:`save` wrote, or read a file's parts.

    Everything is checked before anything is changed. Parts of the file that are not asked for are passed over; what is
    asked for must be there. With ``optimizer`` the random state comes back too, so that the run goes on bit for bit.
    State in 8 or 4 bits is taken up as it is where the group has that ``state_dtype``, and by its numbers elsewhere.

    Parameters
    ----------
    path : str or path
        Of :func:`save`, any other safetensors file (of weights), or, where torch is installed, what ``torch.save``
        wrote: a state dict, or a dict with ``"model"`` (or ``"model_state_dict"``, ``"state_dict"``) and
        ``"optimizer"`` (or ``"optimizer_state_dict"``). torch reads it with ``weights_only=True``, which executes
        nothing.
    model : Module, or mapping of str to Module, optional
    optimizer, schedule, scaler, loader : object with load_state_dict(), or list, tuple or dict of such, optional
        As they were given to :func:`save`.
    strict : bool, default True
        Refuse weights that are missing or unknown; otherwise restore those that there are.

    Returns
    -------
    object
        With parts to restore: the ``extra`` of the file. Without: a dict of ``"model"``, ``"optimizer"``,
        ``"schedule"``, ``"scaler"``, ``"loader"``, ``"random"`` and ``"extra"``, as far as the file has them, as plain
        data with NumPy arrays (bfloat16, and state in few bits, as float32 of the same values).

    Raises
    ------
    StateError
        If the file is not whole, or something does not fit; nothing is changed then.
    OSError
        If the file cannot be read.

    Notes
    -----
    **Blocks** while the file is read; what goes to a device is enqueued.

    Examples
    --------
    >>> import os, tempfile, netcl
    >>> from netcl import nn
    >>> file = os.path.join(tempfile.mkdtemp(), "weights.safetensors")
    >>> netcl.save(file, model=nn.Linear(2, 1))
    >>> {name: array.shape for name, array in netcl.load(file)["model"].items()}
    {'weight': (1, 2), 'bias': (1,)}
    """
    source, strict = _path(path), flag("strict", strict)
    wanted = dict(zip(("model", *STATEFUL), (model, optimizer, schedule, scaler, loader), strict=True))
    wanted = {name: part for name, part in wanted.items() if part is not None}
    weights, parts = _read(source, wanted)
    if not wanted:
        return (
            {} if weights is None else {"model": {n: values_of(e.stored, e.dtype) for n, e in weights.items()}}
        ) | parts
    for name in wanted:
        if (weights if name == "model" else parts.get(name)) is None:
            held = ", ".join([*(["model"] if weights is not None else []), *parts]) or "nothing"
            raise StateError(f"{source} holds no {name}; it holds {held}. Leave {name}= out, or save with it")
    take_up = None if model is None else _prepared_weights(source, model, weights or {}, strict)
    stateful = {name: wanted[name] for name in STATEFUL if name in wanted}
    _restore(stateful, parts, continues=optimizer is not None and "random" in parts)
    if take_up is not None:
        take_up()
    return parts.get("extra")


def _restore(wanted: Mapping[str, Any], parts: Mapping[str, Any], *, continues: bool) -> None:
    """Load the states of all parts, and the random state, or of none if one is refused."""
    pairs = {name: _paired(name, part, parts[name]) for name, part in wanted.items()}
    optimizers = pairs.pop("optimizer", [])
    others = [pair for each in pairs.values() for pair in each]
    with ExitStack() as undo:
        if continues:
            undo.callback(random.set_state, random.get_state())
            random.set_state(parts["random"])
        # Those whose state is a few numbers are loaded twice: first to see that they take it.
        with ExitStack() as trial:
            for pair in others:
                _load(*pair, trial)
        # An optimizer changes nothing when it refuses; only with several of them a copy of the state is needed.
        for pair in optimizers:
            _load(*pair, undo if len(optimizers) > 1 else None)
        for pair in others:
            _load(*pair, undo)
        undo.pop_all()


def _load(where: str, part: Any, state: Any, undo: ExitStack | None) -> None:
    before = None if undo is None else part.state_dict()
    groups = getattr(getattr(part, "optimizer", None), "param_groups", ())  # a schedule sets their learning rates
    held = [dict(group) for group in groups]
    try:
        part.load_state_dict(state)
    except NetclError as error:
        raise StateError(f"{where} does not fit: {error}") from error
    if undo is not None:
        for group, values in zip(groups, held, strict=True):
            undo.callback(group.replace, values)
        undo.callback(part.load_state_dict, before)


def _paired(where: str, part: Any, state: Any) -> list[tuple[str, Any, Any]]:
    """Each object of a part with the state that the file has for it."""
    if hasattr(part, "load_state_dict"):
        return [(where, part, state)]
    if isinstance(part, Mapping):
        if not isinstance(state, Mapping) or set(state) != set(part):
            raise StateError(f"{where} is a dict of {', '.join(map(str, part))} here and {shown(state)} in the file")
        pairs = [(f"{where}[{key!r}]", part[key], state[key]) for key in part]
    elif isinstance(part, list | tuple):
        if not isinstance(state, list | tuple) or len(state) != len(part):
            raise StateError(f"{where} is a list of {len(part)} here and {shown(state)} in the file")
        pairs = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(part, state, strict=True))]
    else:
        raise _without_state(where, part)
    return [each for pair in pairs for each in _paired(*pair)]


def _each(where: str, part: Any, call: Callable[[str, Any], Any]) -> Any:
    """What ``call`` returns for an object, or for each object of a list, tuple or dict of such."""
    if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
        return call(where, part)
    if isinstance(part, Mapping) and {"state", "param_groups"} <= set(part):  # what an optimizer's state_dict() gave
        return part
    if isinstance(part, Mapping):
        return {key: _each(f"{where}[{key!r}]", one, call) for key, one in part.items()}
    if isinstance(part, list | tuple):
        return [_each(f"{where}[{i}]", one, call) for i, one in enumerate(part)]
    raise _without_state(where, part)


def _without_state(where: str, part: Any) -> ArgumentError:
    return ArgumentError(
        f"{where} must be an object with state_dict() and load_state_dict(), or a list or dict of such, got "
        f"{shown(part)}"
    )


def _weights(model: Any) -> dict[str, Elements]:
    """The weights of a model by name."""
    if isinstance(model, Module):
        return {name: Elements(tensor.dtype, to_host(tensor)) for name, tensor in model.named_state()}
    found: dict[str, Elements] = {}
    for key, part in _models(model).items():
        each = elements_of(f"model[{key!r}]", part)
        named = {key: each} if each is not None else {f"{key}.{name}": e for name, e in _weights(part).items()}
        if taken := [name for name in named if name in found]:
            raise StateError(f"two weights of the model are called {taken[0]!r}; give its parts other keys")
        found |= named
    return found


def _models(model: Any) -> Mapping[str, Any]:
    if not isinstance(model, Mapping) or not all(isinstance(key, str) and "/" not in key for key in model):
        raise ArgumentError(f"model must be a Module, or a dict of Modules or arrays by name, got {shown(model)}")
    for key, part in model.items():
        if not isinstance(part, Module) and elements_of(f"model[{key!r}]", part) is None:
            raise ArgumentError(f"model[{key!r}] must be a Module or an array, got {shown(part)}")
    return model


def _prepared_weights(source: Path, model: Any, weights: Mapping[str, Elements], strict: bool) -> Callable[[], None]:
    """What sets the weights of a model, after all checks and with all memory."""
    if not isinstance(model, Module):
        modules = _models(model)
        for key, part in modules.items():
            if not isinstance(part, Module):
                raise ArgumentError(f"model[{key!r}] must be a Module to be restored in place, got {shown(part)}")
        own = {name for key, part in modules.items() for name in (f"{key}.{n}" for n, _ in part.named_state())}
        if strict and (surplus := [name for name in weights if name not in own]):
            raise StateError(f"{source} has the weight {surplus[0]!r}, which this model does not have")
        calls = []
        for key, part in modules.items():
            inner = {name.removeprefix(f"{key}."): e for name, e in weights.items() if name.startswith(f"{key}.")}
            calls.append(_prepared_weights(source, part, inner, strict))

        def take_up() -> None:
            for call in calls:
                call()

        return take_up
    for name, tensor in model.named_state():
        if name in weights and weights[name].dtype is not tensor.dtype:
            raise StateError(
                f"{source} has {name!r} in {weights[name].dtype}, and the model in {tensor.dtype}; build the model "
                f"with dtype={weights[name].dtype}, or convert the arrays of netcl.load(path)['model']"
            )
    values = {name: values_of(each.stored, each.dtype) for name, each in weights.items()}
    return model.prepared_state(values, strict)[1]


def _read(source: Path, wanted: Mapping[str, Any]) -> tuple[dict[str, Elements] | None, dict[str, Any]]:
    """Weights by name, and the other parts as plain data; only those that are wanted, if any are."""
    if foreign.is_torchs(source):
        return foreign.read(source)
    with Reader(source) as reader:
        run = described(source, reader)
        if run is None:
            return read_all(reader), {}
        names = run["weights"]
        weights: dict[str, Elements] | None = None if names is None else {}
        if names is not None and (not wanted or "model" in wanted):
            weights = read_all(reader, names)
        chosen = {n: p for n, p in run["parts"].items() if not wanted or n in wanted or n in ("random", "extra")}
        try:
            return weights, {n: decode(part, reader.read, in_blocks=n in wanted) for n, part in chosen.items()}
        except RecursionError:
            raise StateError(f"{source} has a description that is nested too deeply; save it again") from None


def described(source: Path, reader: Reader) -> dict[str, Any] | None:
    """What a file says of itself; None if it is of weights alone, from elsewhere.

    Raises
    ------
    StateError
        If its description is broken, or of a later layout.
    """
    text = reader.metadata.get(_DESCRIPTION)
    if text is None:
        return None
    try:
        run = parse_json(text)
        layout, parts, names = run["layout"], run["parts"], run["weights"]
        if layout not in (_LAYOUT, _WITH_BLOCKS):
            raise StateError(
                f"{source} has layout {shown(layout)}, written by netcl {shown(run.get('netcl'))}, and this version "
                f"reads {_LAYOUT} and {_WITH_BLOCKS}; install that version"
            )
        if (
            not isinstance(parts, dict)
            or not _are_names(names, reader)
            or not set(_tensors_of(parts)) <= set(reader.tensors)
        ):
            raise ValueError("it names tensors that the file does not have")
        # A small file could take much memory by naming one tensor many times.
        if (counts := Counter([*(names or ()), *_tensors_of(parts)])) and max(counts.values()) > 1:
            raise ValueError(f"it names the tensor {max(counts, key=counts.__getitem__)!r} twice")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(
            f"{source} has a description that netcl.save() does not write: {error!r}; save it again"
        ) from None
    return dict(run)


def _are_names(names: Any, reader: Reader) -> bool:
    return names is None or (isinstance(names, list) and all(isinstance(n, str) and n in reader.tensors for n in names))


def _tensors_of(value: Any) -> list[str]:
    """The names of all tensors that a description refers to."""
    return [held for mark, held in _marked(value) if mark == "$tensor" and isinstance(held, str)]


def _marks(value: Any) -> set[str]:
    """All marks of a description."""
    return {mark for mark, _ in _marked(value)}


def _marked(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a description that begins with a dollar, and what it has."""
    if isinstance(value, list):
        for each in value:
            yield from _marked(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key.startswith("$"):
                yield key, each
            yield from _marked(each)


def _device(model: Any) -> str | None:
    """Where the model was, for whoever reads the file."""
    if isinstance(model, Module):
        for _, tensor in model.named_state():
            return f"{tensor.device} ({tensor.device.name})"
    return None


def _path(path: Any) -> Path:
    try:
        if isinstance(path, bytes) or not os.fspath(path) or "\0" in os.fspath(path):
            raise TypeError
        return Path(path)
    except TypeError:
        raise ArgumentError(f"path must name a file, such as 'run.safetensors', got {shown(path)}") from None
