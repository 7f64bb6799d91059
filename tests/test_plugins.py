"""A package that registers backends is found, chosen, and held to the contract like netcl's own."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from netcl.backends import available, get_backend
from netcl.backends.base import Span
from netcl.dtypes import float32
from netcl.errors import BackendError

TESTS = Path(__file__).parent


def test_the_plug_in_is_found_through_its_entry_point():
    assert "toy" in {point.name for point in metadata.entry_points(group="netcl.backends")}
    assert "toy" in available()


def test_the_plug_in_is_opened_once_and_computes():
    backend = get_backend("toy")
    assert str(backend.device) == "toy:0"
    assert get_backend(backend.device) is backend
    x = Span(backend.alloc(3, float32), 0, 3)
    backend.fill(x, 2.0)
    backend.axpy(0.5, x, x)
    np.testing.assert_array_equal(backend.download(x), [3.0, 3.0, 3.0])


def test_a_plug_in_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    folder = tmp_path / "netcl_broken-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: netcl-broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[netcl.backends]\nbroken = netcl_nowhere:open\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"'broken'.*netcl_nowhere"):
        get_backend("broken")


@pytest.mark.parametrize("name", ["toy", "numpy"])
def test_the_contract_suite_runs_on_one_named_backend(name):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--netcl-backend={name}", "-rA"]
    done = subprocess.run(
        [*command, str(TESTS / "contract" / "test_random_bits.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"test_any_size[{name}-" in done.stdout
    assert "opencl" not in done.stdout
