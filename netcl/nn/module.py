"""Module: a tree of layers with named parameters that can be moved, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netcl.array import Storage, storage_generation
from netcl.backends import Selection, get_backend
from netcl.dtypes import bfloat16
from netcl.errors import ArgumentError, DTypeError, ShapeError, StateError
from netcl.functional.casting import assign
from netcl.functional.host import from_host, read_values
from netcl.tensor import Tensor
from netcl.validation import flag, shown


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` passed over."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """Base class of every layer and model: assign parameters and modules as attributes, write ``forward``.

    A Tensor with ``requires_grad`` becomes a parameter when it is assigned; freezing it later leaves it one. Modules
    are found as attributes and inside lists, tuples and dicts that are attributes. Any other Tensor that belongs to the
    state is announced with :meth:`register_buffer`.

    Attributes
    ----------
    training : bool
        Set by :meth:`train` and :meth:`eval`; read by layers such as Dropout.

    Examples
    --------
    >>> import netcl
    >>> from netcl import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self, n):
    ...         self.gain = netcl.ones(n, requires_grad=True)
    ...     def forward(self, x):
    ...         return x * self.gain
    >>> model = nn.Sequential(Scale(3), nn.ReLU())
    >>> [name for name, _ in model.named_parameters()]
    ['0.gain']
    >>> model(netcl.asarray([[1.0, -2.0, 3.0]])).numpy()
    array([[1., 0., 3.]], dtype=float32)
    """

    training: bool
    _parameter_names: dict[str, None]
    _buffer_names: dict[str, None]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # Here and not in __init__, so that a subclass need not call super().__init__().
        self = super().__new__(cls)
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "_parameter_names", {})
        object.__setattr__(self, "_buffer_names", {})
        return self

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, Tensor) and value.requires_grad and name not in self._buffer_names:
            self._parameter_names[name] = None
        elif not isinstance(value, Tensor):
            self._parameter_names.pop(name, None)
            self._buffer_names.pop(name, None)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._parameter_names.pop(name, None)
        self._buffer_names.pop(name, None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes. A subclass writes it; callers call the module itself."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward(); write one, it is what calling a module runs"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def register_buffer(self, name: str, tensor: Tensor) -> None:
        """Make ``tensor`` the attribute ``name``: moved and saved with the module, but not trained.

        Raises
        ------
        ArgumentError
            If ``name`` is not an attribute's name, or ``tensor`` is not a Tensor.
        """
        if not isinstance(name, str) or not name or "." in name:
            raise ArgumentError(f"the name of a buffer must be a string without dots, got {shown(name)}")
        if not isinstance(tensor, Tensor):
            raise ArgumentError(f"the buffer {name!r} must be a Tensor, got {shown(tensor)}; use netcl.asarray(x)")
        self._buffer_names[name] = None
        setattr(self, name, tensor)

    # ---- the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        for name, value in vars(self).items():
            yield from _modules_in(name, value)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under the name ``prefix``) and all below it, each once."""
        yield from self._tree(prefix, tied=False)

    def _tree(self, prefix: str, tied: bool) -> list[tuple[str, Module]]:
        if not isinstance(prefix, str):
            raise ArgumentError(f"prefix must be a string, got {shown(prefix)}")
        found: list[tuple[str, Module]] = []
        _walk(self, prefix, set(), tied, found)
        return found

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every parameter with its dotted name, such as ``"0.weight"``; a tied one once, under its first name."""
        yield from _once(self._named_tensors("_parameter_names", prefix, tied=False))

    def parameters(self) -> Iterator[Tensor]:
        """Every parameter, once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Every Tensor announced with :meth:`register_buffer`, with its dotted name; each once."""
        yield from _once(self._named_tensors("_buffer_names", prefix, tied=False))

    def buffers(self) -> Iterator[Tensor]:
        """Every buffer, once."""
        for _, buffer in self.named_buffers():
            yield buffer

    def _named_tensors(self, kind: str, prefix: str, tied: bool) -> Iterator[tuple[str, Tensor]]:
        for path, module in self._tree(prefix, tied):
            for name in getattr(module, kind):
                yield (f"{path}.{name}" if path else name), getattr(module, name)

    def named_state(self) -> list[tuple[str, Tensor]]:
        """Every parameter and buffer under every name it has, tied ones several times.

        Examples
        --------
        >>> from netcl import nn
        >>> [(name, tensor.shape) for name, tensor in nn.Linear(2, 3).named_state()]
        [('weight', (3, 2)), ('bias', (3,))]
        """
        kinds = ("_parameter_names", "_buffer_names")
        return [named for kind in kinds for named in self._named_tensors(kind, "", tied=True)]

    # ---- modes

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` on this module and all below it, and return this module."""
        mode = flag("mode", mode)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """``train(False)``: Dropout passes its input through."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget every gradient: the next backward writes instead of adding. Touches no device memory."""
        for parameter in self.parameters():
            parameter.grad = None

    # ---- devices and checkpoints

    def to(self, device: Selection) -> Self:
        """Move every parameter, gradient and buffer to a device, in place, and return this module.

        The Tensor objects stay the same. What an optimizer keeps for them does not move along, so build it afterwards.

        Parameters
        ----------
        device : str, Device or Backend
            Such as ``"numpy"``, ``"opencl"`` or ``"opencl:gpu"``.

        Raises
        ------
        BackendError
            If there is no such device.
        DTypeError
            If the device cannot compute with the dtype of a parameter. Nothing is moved then.

        Notes
        -----
        **Blocks** when something has to move: every storage is read once.

        Examples
        --------
        >>> from netcl import nn
        >>> nn.Linear(2, 3).to("numpy").weight.device.backend
        'numpy'
        """
        backend = get_backend(device)
        for name, tensor in self.named_state():
            if not backend.supports(tensor.dtype):
                raise DTypeError(
                    f"{name} has dtype {tensor.dtype}, with which {backend.device} ({backend.device.name}) cannot "
                    "compute; build the model with dtype=float32"
                )
        tensors = [*self.parameters(), *self.buffers()]
        tensors += [tensor.grad for tensor in tensors if tensor.grad is not None]
        leaving = [tensor for tensor in tensors if tensor.backend is not backend]
        # Tensors over one storage share it afterwards too. All memory is taken before anything moves.
        moved = {old: Storage.empty(backend, old.size, old.dtype) for old in {tensor.storage for tensor in leaving}}
        for old, new in moved.items():
            backend.upload(old.backend.download(old.span()), new.span())
        for tensor in leaving:
            tensor.storage = moved[tensor.storage]
            tensor.grad_buffer = None  # it lies on the device that was left
            storage_generation.count += 1
        return self

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Every parameter and buffer as a host array under its dotted name, tied ones under each of their names.

        Notes
        -----
        **Blocks**: every value is read.

        Examples
        --------
        >>> from netcl import nn
        >>> {name: array.shape for name, array in nn.Linear(2, 3).state_dict().items()}
        {'weight': (3, 2), 'bias': (3,)}
        """
        return {name: tensor.numpy() for name, tensor in self.named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Set every parameter and buffer from host arrays, in place. All is checked before anything is changed.

        Parameters
        ----------
        state : mapping of str to array_like
            As :meth:`state_dict` gives it.
        strict : bool, default True
            Refuse names that are missing or unknown; otherwise pass over and return them.

        Returns
        -------
        IncompatibleKeys
            ``missing`` and ``unexpected``, both empty when ``strict``.

        Raises
        ------
        StateError
            On the first name, shape or dtype that does not fit, and when two names of one tied parameter differ.

        Examples
        --------
        >>> from netcl import nn
        >>> a, b = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> b.load_state_dict(a.state_dict())
        IncompatibleKeys(missing=[], unexpected=[])
        """
        found, take_up = self.prepared_state(state, strict)
        take_up()
        return found

    def prepared_state(
        self, state: Mapping[str, Any], strict: bool = True
    ) -> tuple[IncompatibleKeys, Callable[[], None]]:
        """What :meth:`load_state_dict` passes over, and what sets the values. Changes nothing before that is called.

        All checks are made and all memory is taken here, so that several things can be restored together or not at all.

        Raises
        ------
        StateError
            As :meth:`load_state_dict`.

        Examples
        --------
        >>> from netcl import nn
        >>> a, b = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> _, take_up = b.prepared_state(a.state_dict())
        >>> take_up()
        >>> bool((a.weight.numpy() == b.weight.numpy()).all())
        True
        """
        if not isinstance(state, Mapping):
            raise StateError(f"the state must be a mapping from names to arrays, got {shown(state)}")
        strict = flag("strict", strict)
        own = dict(self.named_state())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        if strict and missing:
            raise StateError(
                f"the state lacks {missing[0]!r}; it must name all of this model's {len(own)} tensors{_LOOSE}"
            )
        if strict and unexpected:
            raise StateError(f"the state names {unexpected[0]!r}, which this model does not have{_LOOSE}")
        checked: dict[int, tuple[str, Tensor, NDArray[Any]]] = {}
        for name, tensor in own.items():
            if name not in state:
                continue
            array = _fitting(name, tensor, state[name])
            first = checked.setdefault(id(tensor), (name, tensor, array))
            if first[2] is not array and not np.array_equal(first[2], array):
                raise StateError(
                    f"{first[0]!r} and {name!r} are one tied parameter but differ in the state; "
                    "give both the same values"
                )
        # What takes memory, and may find none, comes before any tensor is changed.
        sources = [
            array.copy() if _takes(tensor, array) else from_host(Tensor, array.copy(), tensor.backend, tensor.dtype)
            for _, tensor, array in checked.values()
        ]

        def take_up() -> None:
            for (_, tensor, _), source in zip(checked.values(), sources, strict=True):
                if isinstance(source, Tensor):
                    assign(tensor, source)
                elif tensor.size:
                    tensor.backend.upload(source.reshape(-1), tensor.span())
                tensor.storage.version += 1

        return IncompatibleKeys(missing, unexpected), take_up

    # ---- text

    def extra_repr(self) -> str:
        """What stands between the parentheses in this module's own line of ``repr``."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({extra})"
        return "\n  ".join([f"{type(self).__name__}(", *([extra] if extra else []), *children]) + "\n)"


_CONTAINERS = (list, tuple, dict)
_LOOSE = "; pass strict=False to load what fits"


def _modules_in(name: str, value: object) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _modules_in(f"{name}.{index}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _modules_in(f"{name}.{key}", item)


def _walk(module: Module, path: str, seen: set[int], tied: bool, found: list[tuple[str, Module]]) -> None:
    """Append every module with its path to ``found``: each once, or with ``tied`` under each of its names."""
    if id(module) in seen:
        return
    if tied:
        seen = seen | {id(module)}  # only a cycle ends this
    else:
        seen.add(id(module))
    found.append((path, module))
    for name, value in vars(module).items():
        # Training loops ask for the parameters on every step, so the common cases come without a generator.
        if isinstance(value, Module):
            _walk(value, f"{path}.{name}" if path else name, seen, tied, found)
        elif isinstance(value, _CONTAINERS):
            for inner, child in _modules_in(name, value):
                _walk(child, f"{path}.{inner}" if path else inner, seen, tied, found)


def _once(named: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for name, tensor in named:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _takes(tensor: Tensor, array: NDArray[Any]) -> bool:
    """Whether the values may go to the tensor's memory as they are."""
    return tensor.is_contiguous and array.dtype.isnative and array.dtype.name == tensor.dtype.name


def _fitting(name: str, tensor: Tensor, value: Any) -> NDArray[Any]:
    try:
        array = value.numpy() if isinstance(value, Tensor) else read_values(value)[0]
    except (DTypeError, ShapeError) as error:
        raise StateError(f"{name!r} in the state is not an array of numbers: {error}") from error
    if array.shape != tensor.shape:
        raise StateError(
            f"{name!r} has shape {array.shape} in the state and {tensor.shape} in this model; they must be equal"
        )
    expected = "float32" if tensor.dtype is bfloat16 else tensor.dtype.name  # NumPy has no bfloat16
    if array.dtype.name != expected:
        raise StateError(
            f"{name!r} has dtype {array.dtype} in the state and {tensor.dtype} in this model; "
            f"convert it with astype({expected!r})"
        )
    return array
