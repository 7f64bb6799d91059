"""Backends of every OpenCL device that works, simulators apart: ``opencl``, and ``forms`` or ``runtime``, whose kernels
have the shape that suits a CPU or the one that suits a GPU.
"""

from __future__ import annotations

from functools import cache

import pytest

from netcl.backends import devices, get_backend
from netcl.testing import selection
from tests.kernels.forms import own_backend


@cache
def healthy_devices():
    found = [row.device for row in devices() if row.device.backend == "opencl" and row.healthy]
    return [device for device in found if device.platform != "Oclgrind"]


def pytest_generate_tests(metafunc):
    if "opencl" in metafunc.fixturenames:
        found = healthy_devices()
        names = [f"{device.platform.split()[0].split('(')[0].lower()}-{device.index}" for device in found]
        metafunc.parametrize("opencl", found, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def opencl(request):
    return get_backend(request.param)


@pytest.fixture(scope="session")
def every_row(request, opencl):
    """Whether all combinations are tried, or pairs of options."""
    return selection.every_row(request.config, opencl)


@pytest.fixture(scope="session")
def forms(opencl):
    """A backend for each shape of the kernels: adjacent elements per work-item, and work-items that take turns."""
    made = {form: own_backend(opencl) for form in ("cpu", "gpu")}
    for form, backend in made.items():
        backend.queue.is_cpu = form == "cpu"
    return made


@pytest.fixture(params=("cpu", "gpu"))
def runtime(forms, request):
    return forms[request.param]
