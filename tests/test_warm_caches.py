"""The second process does what the first did: a runtime may spoil what it reads back from its kernel cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from netcl.child_process import run_python

pytestmark = pytest.mark.every_runtime

SMOKE = Path(__file__).with_name("warm_run.py")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty kernel caches. What is known of the devices is taken over, so that they are not tried again."""
    pytest.importorskip("pyopencl")
    from tests.children import take_over_probes

    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NETCL_CACHE_DIR", str(take_over_probes(tmp_path / "netcl")))


def test_second_process_does_what_the_first_did(caches, backend):
    said = []
    for _ in range(2):
        run = f"runpy.run_path({str(SMOKE)!r}, run_name='__main__')"
        outcome = run_python(run, str(backend.device), timeout=300)
        assert outcome.status == 0, outcome
        said.append(outcome.output.splitlines())
    assert len(said[0]) == 13
    assert said[0] == said[1]
