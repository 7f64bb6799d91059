"""The ``backend`` fixture of the suite, wherever it runs."""

from __future__ import annotations

import pytest

from netcl.testing import selection


def pytest_addoption(parser):
    selection.pytest_addoption(parser)


def pytest_configure(config):
    selection.configure(config)


def pytest_collection_modifyitems(config, items):
    selection.deselect_rows(config, items)


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = selection.every_backend(metafunc.config)
        metafunc.parametrize("backend", list(names.values()), ids=list(names), indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request):
    from netcl.backends import get_backend

    return get_backend(request.param)


@pytest.fixture(scope="session")
def every_row(request, backend):
    """Whether all combinations are tried, or pairs of options."""
    return selection.every_row(request.config, backend)
