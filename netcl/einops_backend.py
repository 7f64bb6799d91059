"""What einops calls on Tensors. It is registered when einops is imported, before or after netcl, which never does."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from netcl import creation, functional, ranges
from netcl.tensor import Tensor

BACKENDS = "einops._backends"
"""The module of einops whose AbstractBackend is asked for its subclasses."""

_defined: list[type] = []
"""Holds the backend's class: Python's list of subclasses does not."""


def _define(einops: Any) -> None:
    """Derive a backend from einops' own class, which finds it by that."""

    class NetclBackend(einops.AbstractBackend):  # type: ignore[misc]
        framework_name = "netcl"

        def is_appropriate_type(self, tensor: object) -> bool:
            return isinstance(tensor, Tensor)

        def from_numpy(self, x: Any) -> Tensor:
            return creation.asarray(x)

        def to_numpy(self, x: Tensor) -> Any:
            return x.numpy()

        def arange(self, start: int, stop: int) -> Tensor:
            return ranges.arange(start, stop)

        def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
            return functional.reshape(x, tuple(shape))

        def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
            return functional.permute_dims(x, tuple(axes))

        def reduce(self, x: Tensor, operation: str, axes: Sequence[int]) -> Tensor:
            reduced: Tensor = getattr(functional, operation)(x, axis=tuple(axes))
            return reduced

        def stack_on_zeroth_dimension(self, tensors: list[Tensor]) -> Tensor:
            return functional.stack(tensors)

        def add_axis(self, x: Tensor, new_position: int) -> Tensor:
            return functional.expand_dims(x, axis=new_position)

        def tile(self, x: Tensor, repeats: Sequence[int]) -> Tensor:
            return functional.tile(x, tuple(repeats))

        def concat(self, tensors: list[Tensor], axis: int) -> Tensor:
            return functional.concat(tensors, axis=axis)

        def is_float_type(self, x: Tensor) -> bool:
            return x.dtype.kind in "fc"

        def einsum(self, pattern: str, *x: Tensor) -> Tensor:
            return functional.einsum(pattern, *x)

    _defined.append(NetclBackend)


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the first import of einops' backends, and finds nothing itself."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != BACKENDS:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _define_after(spec.loader)
                return spec
        return None


def _define_after(loader: Any) -> None:
    """Define the backend when ``loader``, which is this one import's, has executed its module."""
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _define(module)

    loader.exec_module = exec_module


def register() -> None:
    """Register with einops now if it is imported, and as soon as it is otherwise."""
    if BACKENDS in sys.modules:
        _define(sys.modules[BACKENDS])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
