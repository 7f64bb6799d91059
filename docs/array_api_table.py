"""Which of the Array API's functions are computed where, and which have a derivative: found out by calling them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import netcl
from netcl import autograd
from netcl.functional import array_api

NAMESPACES = {"netcl": netcl, "netcl.linalg": netcl.linalg, "netcl.fft": netcl.fft}


def rows() -> list[tuple[str, str, str]]:
    """For each function its name, where it computes and whether it waits, and whether a tape follows it."""
    found = []
    for prefix, namespace in NAMESPACES.items():
        listed = array_api.__all__ if namespace is netcl else namespace.__all__
        for name in sorted(listed):
            function = getattr(namespace, name)
            found.append((f"{prefix}.{name}", _place(function), "yes" if _has_derivative(function) else "–"))
    return found


def _place(function: Any) -> str:
    text = (inspect.getdoc(function) or "").lower()
    if "on the host" in text:
        return "host; waits"
    return "device; waits" if "**block" in text else "device"


def _has_derivative(function: Any) -> bool:
    with netcl.use_backend("numpy"):
        for make in _operands():
            with contextlib.suppress(Exception), autograd.Tape():
                out = function(*make)
                first = out[0] if isinstance(out, tuple) else out
                if first.node is not None and first.node.operands:
                    return True
    return False


def _operands() -> Iterator[tuple[Any, ...]]:
    """Arguments of the kinds that functions take, floating ones with a gradient."""

    def matrix() -> netcl.Tensor:
        return netcl.asarray([[2.0, 0.5], [0.5, 3.0]], requires_grad=True)

    def vector() -> netcl.Tensor:
        return netcl.asarray([0.25, 0.5, 0.75], requires_grad=True)

    places = netcl.asarray([0, 1])
    yield (matrix(),)
    yield (vector(),)
    yield matrix(), matrix()
    yield vector(), vector()
    yield ([vector(), vector()],)
    for argument in (0, 1, (1, 0), (4,), (2, 2, 2), (1, 1), netcl.float64, places):
        yield matrix(), argument
    yield vector(), (3, 3)
    yield netcl.asarray([[0.25, 0.5]], requires_grad=True), 0
    yield vector(), places
    yield matrix(), 0, 1
    yield netcl.asarray([True, False]), netcl.ones(2, requires_grad=True), netcl.zeros(2)
    yield matrix(), places[None, :]
