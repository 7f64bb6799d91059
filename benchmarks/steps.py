"""Optimizer steps, ten in a row: of netcl, of torch, and of a kernel that only moves the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import netcl
from netcl.errors import BackendError

from .ratios import Run

RUNTIMES = {"intel": "opencl:intel", "pocl": "opencl:portable"}
"""The OpenCL runtimes that are compared, and the devices that stand for them."""

STEPS = 10
"""Steps between two waits, on every side of a comparison: netcl only enqueues them, as in training."""

Arrays = Sequence[tuple[np.ndarray, np.ndarray]]


def opencl_runtimes(chosen: str) -> dict[str, Any]:
    """The backend of the chosen runtime, or of ``"all"``; one that is missing is named and left out."""
    found = {}
    for name in RUNTIMES if chosen == "all" else [chosen]:
        try:
            found[name] = netcl.get_backend(RUNTIMES[name])
        except BackendError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found


def values(count: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters and gradients."""
    random = np.random.default_rng(0)
    return [
        (random.standard_normal(n, dtype=np.float32), random.standard_normal(n, dtype=np.float32)) for _ in range(count)
    ]


def tensors(backend: Any, arrays: Arrays) -> list[Any]:
    made = []
    for value, gradient in arrays:
        tensor = netcl.asarray(value, device=backend.device, copy=True, requires_grad=True)
        tensor.grad = netcl.asarray(gradient, device=backend.device, copy=True)
        made.append(tensor)
    return made


def own_steps(backend: Any, optimizer: Any, **options: Any) -> Run:
    def run() -> None:
        for _ in range(STEPS):
            optimizer.step(**options)
        backend.synchronize()

    return run


def torch_tensors(arrays: Arrays) -> list[Any]:
    import torch

    made = []
    for value, gradient in arrays:
        tensor = torch.tensor(value, requires_grad=True)
        tensor.grad = torch.tensor(gradient)
        made.append(tensor)
    return made


def torch_steps(optimizer: Any, tensors: Sequence[Any], max_norm: float | None = None) -> Run:
    import torch

    def run() -> None:
        for _ in range(STEPS):
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(tensors, max_norm)
            optimizer.step()

    return run


def traffic(backend: Any, n: int, *, read: int = 1, updated: int = 0, written: int = 0) -> Run:
    """Launches that move the bytes of so many arrays of float32, each read, read and written, or written."""
    from netcl.backends.opencl.tuner import bare_traffic

    launch = bare_traffic(backend, n, read=read, updated=updated, written=written)

    def run() -> None:
        for _ in range(STEPS):
            launch()
        backend.synchronize()

    return run
