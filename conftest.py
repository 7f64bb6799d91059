"""Doctests run on the NumPy backend, so that what the docstrings print is the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("pyopencl") else ["netcl/backends/opencl/*"]


@pytest.fixture(autouse=True)
def _numpy_backend_in_doctests(request: pytest.FixtureRequest) -> Iterator[None]:
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    import netcl

    with netcl.use_backend("numpy"):
        yield
