"""The ``backend`` fixture: every backend at hand, or the one that ``--netcl-backend=NAME`` names."""

from __future__ import annotations

import pytest

from netcl.testing import selection


def pytest_addoption(parser):
    selection.pytest_addoption(parser)


def pytest_configure(config):
    selection.configure()


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = selection.own_backends(metafunc.config)
        metafunc.parametrize("backend", list(names.values()), ids=list(names), indirect=True, scope="session")


def pytest_report_header(config):
    names = selection.every_backend(config)
    return f"netcl backends: {', '.join(f'{name} ({where})' for name, where in names.items())}"


@pytest.fixture(scope="session")
def backend(request):
    from netcl.backends import get_backend

    return get_backend(request.param)
