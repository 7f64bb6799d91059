"""HostParameters: parameters and gradients that are arrays of other libraries."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from netcl.array import Array
from netcl.backends.base import Backend
from netcl.dtypes import DType
from netcl.errors import DTypeError, HyperParameterError, ShapeError
from netcl.host_arrays import HostBackedArray, host_memory, writable_memory


class HostParameters:
    """The parameters of an optimizer that was built from host arrays, in the order in which they were given.

    Parameters
    ----------
    backend : Backend
        Where the steps are computed.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._parameters: list[HostBackedArray] = []
        self._places: list[tuple[int, int, int]] = []
        self._gradients: list[HostBackedArray | None] = []

    def take(self, x: Any, label: str) -> Array:
        """What the optimizer keeps in place of one host array.

        Raises
        ------
        DTypeError
            If it is not a writable array in the host's memory.
        ShapeError
            If it is not contiguous, or shares memory with another parameter.
        """
        host, dtype = writable_memory(x, label)
        start = host.ctypes.data
        place = (start, start + host.nbytes, len(self._parameters))
        at = bisect(self._places, place)
        for other in self._places[max(at - 1, 0) : at + 1]:
            if max(other[0], start) < min(other[1], place[1]):
                raise ShapeError(
                    f"{label} shares memory with parameter {other[2]} and would be updated twice; give each element to "
                    "the optimizer once"
                )
        self._places.insert(at, place)
        parameter = HostBackedArray(self.backend, host, dtype)
        self._parameters.append(parameter)
        self._gradients.append(None)
        return parameter.array

    def __len__(self) -> int:
        return len(self._parameters)

    def keep(self, count: int) -> None:
        """Forget all but the first ``count`` parameters, after those that followed were refused."""
        del self._parameters[count:], self._gradients[count:]
        self._places = [place for place in self._places if place[2] < count]

    @contextmanager
    def mapped_for_device(self, grads: Iterable[Any]) -> Iterator[dict[int, Array]]:
        """Let the device have parameters and gradients; yields the gradient of each parameter that has one, by its id.

        At the end the host has all of them back, with the updated parameters: that **blocks**.

        Raises
        ------
        HyperParameterError, ShapeError, DTypeError
            If the gradients do not fit the parameters; nothing is changed then.
        """
        found = self._checked(list(grads))
        gradients: dict[int, Array] = {}
        moved: list[tuple[HostBackedArray, bool]] = []
        try:
            for i, (parameter, gradient) in enumerate(zip(self._parameters, found, strict=True)):
                if gradient is None:
                    continue
                mapped = self._gradient(i, *gradient)
                moved += [(parameter, True), (mapped, False)]
                parameter.map_for_device()
                mapped.map_for_device()
                gradients[id(parameter.array)] = mapped.array
            yield gradients
        finally:
            for each, _ in moved:
                each.start_unmap()
            for each, written in moved:
                each.unmap(written=written)

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Let the device have all parameters. At the end the host has them back, as written: that **blocks**."""
        moved: list[HostBackedArray] = []
        try:
            for parameter in self._parameters:
                moved.append(parameter)
                parameter.map_for_device()
            yield
        finally:
            for parameter in moved:
                parameter.start_unmap()
            for parameter in moved:
                parameter.unmap(written=True)

    def _checked(self, grads: Sequence[Any]) -> list[tuple[np.ndarray[Any, Any], DType] | None]:
        if len(grads) != len(self._parameters):
            raise HyperParameterError(
                f"step(grads=...) got {len(grads)} gradient(s) for {len(self._parameters)} parameter(s); give one for "
                "each parameter in the order of the constructor, None for those that are skipped"
            )
        found: list[tuple[np.ndarray[Any, Any], DType] | None] = []
        for i, (gradient, parameter) in enumerate(zip(grads, self._parameters, strict=True)):
            if gradient is None:
                found.append(None)
                continue
            host, dtype = host_memory(gradient, f"gradient {i}")
            if host.shape != parameter.host.shape:
                raise ShapeError(
                    f"gradient {i} has shape {host.shape} and its parameter {parameter.host.shape}; they must be equal"
                )
            if dtype is not parameter.array.dtype:
                raise DTypeError(
                    f"gradient {i} has dtype {dtype} and its parameter {parameter.array.dtype}; convert it with "
                    "astype()"
                )
            found.append((host, dtype))
        return found

    def _gradient(self, i: int, host: np.ndarray[Any, Any], dtype: DType) -> HostBackedArray:
        """The gradient of parameter ``i``; over the memory of the last step if it is the same."""
        known = self._gradients[i]
        if known is None or not known.is_over(host):
            usable = host.flags.c_contiguous and host.flags.writeable
            if not usable or np.may_share_memory(host, self._parameters[i].host):
                host = np.array(host, order="C")
            known = self._gradients[i] = HostBackedArray(self.backend, host, dtype)
        return known
