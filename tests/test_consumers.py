"""Code written against the Array API standard computes on netcl: a quick share of SciPy's and scikit-learn's own tests.

``python -m tests.consumers`` runs ten modules of each.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from netcl.testing.selection import opencl_runtimes
from tests.consumers.__main__ import run

SHARES = {
    "sklearn": (
        ["sklearn.preprocessing.tests.test_label", "sklearn.linear_model.tests.test_ridge"],
        "array_api_strict and (test_label or (RidgeCV and input_and_values))", 8,
    ),
    "scipy": (
        ["scipy.constants.tests.test_constants", "scipy.linalg.tests.test_procrustes"],
        "array_api_strict", 10,
    ),
}  # fmt: skip


# PoCL compiles hundreds of kernels for them.
DEVICES = ["numpy", *[device for name, device in opencl_runtimes().items() if name != "opencl-pocl"]]


@pytest.mark.parametrize("library", SHARES)
@pytest.mark.parametrize("device", DEVICES)
def test_their_own_tests_pass(library, device):
    if not find_spec(library):
        pytest.skip(f"{library} is not installed")
    modules, expression, least = SHARES[library]
    done = run(modules, device, ["-k", expression])
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert passed is not None
    assert int(passed[1]) >= least
