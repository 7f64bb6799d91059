"""The ``backend`` fixture: every backend at hand, or the one that ``--netcl-backend=NAME`` names."""

from __future__ import annotations

import pytest

from netcl.testing import selection


def pytest_addoption(parser):
    selection.pytest_addoption(parser)


def pytest_configure(config):
    selection.configure(config)


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = selection.own_backends(metafunc.config)
        metafunc.parametrize("backend", list(names.values()), ids=list(names), indirect=True, scope="session")


LONGEST = (
    "test_surroundings.py", "test_command_line.py", "test_warm_caches.py", "test_oclgrind.py", "test_functional.py",
    "test_singular_gradients.py", "test_map.py", "test_ordering.py", "test_array_api.py", "test_consumers.py",
    "test_tuning_table.py", "test_binary_cache.py", "test_norms.py", "test_sort.py", "test_probe.py",
)  # fmt: skip
"""Files that take minutes. A worker has a file to itself, so these come first and none is left over for the end."""


def pytest_collection_modifyitems(config, items):
    selection.deselect_rows(config, items)
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_report_header(config):
    names = selection.every_backend(config)
    return f"netcl backends: {', '.join(f'{name} ({where})' for name, where in names.items())}"


@pytest.fixture(scope="session")
def backend(request):
    from netcl.backends import get_backend

    return get_backend(request.param)


@pytest.fixture(scope="session")
def every_row(request, backend):
    """Whether all combinations are tried, or pairs of options."""
    return selection.every_row(request.config, backend)


@pytest.fixture(scope="session")
def in_short(request, backend):
    """Whether the backend is an OpenCL runtime behind the first, which runs the short table."""
    return selection.in_short(request.config, backend)
