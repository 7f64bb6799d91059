"""The ``opencl`` fixture: the backend of every OpenCL device that works, simulators apart."""

from __future__ import annotations

import pytest

from netcl.backends import devices, get_backend


def pytest_generate_tests(metafunc):
    if "opencl" in metafunc.fixturenames:
        found = [row.device for row in devices() if row.device.backend == "opencl" and row.healthy]
        found = [device for device in found if device.platform != "Oclgrind"]
        names = [f"{device.platform.split()[0].split('(')[0].lower()}-{device.index}" for device in found]
        metafunc.parametrize("opencl", found, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def opencl(request):
    return get_backend(request.param)
