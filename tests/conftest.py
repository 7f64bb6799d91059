"""The ``backend`` fixture: every backend at hand, or the one that ``--netcl-backend=NAME`` names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from netcl.testing import selection

HERE = Path(__file__).parent


def pytest_addoption(parser):
    selection.pytest_addoption(parser)


def pytest_configure(config):
    config.addinivalue_line("markers", "every_runtime: also the OpenCL runtimes behind the first run it")
    selection.configure(config)


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        names = selection.own_backends(metafunc.config)
        metafunc.parametrize("backend", list(names.values()), ids=list(names), indirect=True, scope="session")


def row_of(item):
    """The parameters of a test."""
    return item.callspec.params if hasattr(item, "callspec") else {}


LONGEST = (
    "test_surroundings.py", "test_command_line.py", "test_warm_caches.py", "test_oclgrind.py", "test_functional.py",
    "test_singular_gradients.py", "test_map.py", "test_ordering.py", "test_array_api.py", "test_consumers.py",
    "test_tuning_table.py", "test_binary_cache.py", "test_norms.py", "test_sort.py", "test_probe.py",
)  # fmt: skip
"""Files that take minutes. A worker has a file to itself, so these come first and none is left over for the end."""


def pytest_collection_modifyitems(config, items):
    selection.deselect_rows(config, items)
    deselect_further_runtimes(config, items)
    items.sort(key=lambda item: item.path.name not in LONGEST)


LONG = 8
"""Rows of a table above the backend protocol beyond which OpenCL runs every third, unless a mark names them."""


def deselect_further_runtimes(config, items):
    """Leave to NumPy and the first OpenCL runtime what stands above the backend protocol, and the forms for GPUs.

    Of a long table there OpenCL runs every third row. Every runtime behind the first runs the conformance suite, the
    kernels in the form that its devices use, and the tests marked ``every_runtime``: processes, caches, steps.
    ``--netcl-full`` gives everything to all of them.
    """
    tables = Counter()

    def table(item):
        return item.path, item.originalname, item.callspec.params["backend"]

    def is_long(item):
        return item.path.parent == HERE and not item.get_closest_marker("compiled")

    sizes = Counter(table(item) for item in items if "backend" in row_of(item) and is_long(item))

    def is_left_out(item):
        row = row_of(item)
        kinds = selection.marks_of(config, row)
        if "short" in kinds and item.path.parent == HERE and not item.get_closest_marker("every_runtime"):
            return True
        if "short" in kinds and ("gpu" in (row.get("runtime"), row.get("sort")) or row.get("cpu") is False):
            return True
        if kinds and "backend" in row and is_long(item) and sizes[table(item)] > LONG:
            tables[table(item)] += 1
            return tables[table(item)] % 3 != 1
        return False

    left_out = {item for item in items if is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fewer examples where each is a kernel to build: a third on the OpenCL runtimes behind the first."""
    row = row_of(item)
    chosen = getattr(item.obj, "_hypothesis_internal_use_settings", None)
    if chosen is None or "short" not in selection.marks_of(item.config, row):
        return (yield)
    # Rows share one function, whose settings hypothesis reads when it is called.
    function = getattr(item.obj, "__func__", item.obj)
    function._hypothesis_internal_use_settings = settings(chosen, max_examples=-(-chosen.max_examples // 3))
    try:
        return (yield)
    finally:
        function._hypothesis_internal_use_settings = chosen


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
