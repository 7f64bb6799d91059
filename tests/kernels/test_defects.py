"""What a runtime gets wrong is served in another form of the kernel, or refused by name before anything is launched."""

from __future__ import annotations

import numpy as np
import pytest

from netcl.backends.opencl import probe_child
from netcl.backends.opencl.device.defects import CLASSES, FAMILIES, Defect, Defects, dtype_class
from netcl.backends.opencl.device.probe_cases import DTYPES, PLAIN, Case
from netcl.backends.opencl.probe_child import TRIALS, try_case
from netcl.backends.reference import ReferenceBackend
from netcl.dtypes import ALL, BY_NAME, bfloat16, bool_, float16, float64, int64, uint64
from netcl.errors import BackendError
from tests.kernels.forms import own_backend

FORMS = [Case(family, dtype.name, plain=True) for family in PLAIN for dtype in DTYPES[family]]


@pytest.fixture
def device(opencl):
    """A backend whose defects may be set."""
    return own_backend(opencl)


@pytest.fixture(scope="module")
def reference():
    return ReferenceBackend()


@pytest.mark.short(family=PLAIN[::3])
@pytest.mark.parametrize("family", PLAIN)
def test_plain_form_computes_the_same(device, reference, family):
    for case in FORMS:
        if case.family == family:
            try_case(device, reference, case)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_work_is_refused_by_name(device, family):
    trial, dtypes = TRIALS[family], DTYPES[family]
    dtype = dtypes[0]
    device.queue.defects = Defects({(family, dtype_class(dtype)): Defect("it aborts")})
    before = device.launches
    with pytest.raises(BackendError, match=f"{family} of {dtype_class(dtype)} does not work on .*: it aborts; cast to"):
        trial(device, dtype)
    # A norm's records are what a step is prepared from.
    assert device.launches - before == (1 if family == "prepare_step" else 0)


def test_other_families_and_dtypes_go_on(device, reference):
    device.queue.defects = Defects({("softmax", "float64"): Defect("it aborts")})
    for family, dtype in (("softmax", "float32"), ("scale", "float64")):
        trial = TRIALS[family]
        for got, wanted in zip(trial(device, BY_NAME[dtype]), trial(reference, BY_NAME[dtype]), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_every_operand_counts(device):
    x, y = probe_child.span(device, np.ones(5), float16), probe_child.span(device, np.ones(5), float64)
    device.queue.defects = Defects({("axpy", "16-bit floats"): Defect("it hangs")})
    with pytest.raises(BackendError, match="axpy of 16-bit floats"):
        device.axpy(1, x, y)
    device.axpy(1, y, y)
    np.testing.assert_array_equal(device.download(y), 2 * np.ones(5))


def test_every_dtype_has_a_class():
    assert {dtype_class(dtype) for dtype in ALL if dtype.kind != "c"} == set(CLASSES)
    assert dtype_class(bool_) == "small integers"
    assert dtype_class(bfloat16) == "16-bit floats"
    assert dtype_class(int64) == dtype_class(uint64) == "64-bit integers"


def test_wrong_result_of_a_trial_is_found(device, reference, monkeypatch):
    monkeypatch.setattr(device, "fill", lambda x, a: None)
    with pytest.raises(ValueError, match=r"element 0 is 0.* and should be 5"):
        try_case(device, reference, Case("fill", "float32"))
