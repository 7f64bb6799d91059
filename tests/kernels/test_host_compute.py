"""How factorizations and transforms reach the host: mapped memory, errors of the device, and what waits at all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import netcl
from netcl import fft, linalg
from netcl.errors import DTypeError, LinAlgError
from netcl.functional import (
    cumulative,
    eigenvalues,
    einstein,
    factorization,
    fourier,
    inversion,
    linalg_extension,
    norms,
    ordering,
    repetition,
    scattering,
    searching,
    sets,
)
from netcl.functional.host_compute import compute_on_host
from tests.valid_calls import ENTRIES

MODULES = (
    linalg_extension, norms, factorization, eigenvalues, inversion, fourier, cumulative, einstein, ordering,
    repetition, scattering, searching, sets,
)  # fmt: skip
NAMES = [name for module in MODULES for name in module.__all__]
COMPLEX = {"eig", "eigvals", "fft", "ifft", "rfft", "ihfft", "fftn", "ifftn", "rfftn"}
"""What gives complex numbers, which a device may not have."""


def regular(opencl, n=3):
    return netcl.asarray(np.eye(n, dtype=np.float32) * 2 + 1, device=opencl.device)


@pytest.mark.short(name=())  # what waits is netcl's own code
@pytest.mark.parametrize("name", NAMES)
def test_a_function_blocks_if_its_documentation_says_so(name, opencl):
    with netcl.use_backend(opencl):
        function, args, named = ENTRIES[f"netcl.functional.{name}"]()
    if name in COMPLEX and not opencl.supports(netcl.complex64):
        with pytest.raises(DTypeError, match="cannot compute in complex64"):
            function(*args, **named)
        return
    with netcl.use_backend(opencl):
        opencl.synchronize()
        before = opencl.blocking
        function(*args, **named)
        waited = opencl.blocking - before
    says = "**Block" in (function.__doc__ or "").partition("\n")[0]
    assert bool(waited) == says, f"{name} waited {waited} times"


def test_shared_memory_is_mapped_and_not_copied(opencl, monkeypatch):
    assert opencl.device.shares_host_memory
    x = regular(opencl, 64)
    seen = []

    def inverse(values):
        seen.append(values)
        return np.linalg.inv(np.asarray(values))

    def refused(span):
        raise AssertionError("downloaded")

    monkeypatch.setattr(opencl, "download", refused)
    (y,) = compute_on_host("inv", inverse, [x], [x.dtype])
    monkeypatch.undo()
    np.testing.assert_allclose(y.numpy(), np.linalg.inv(x.numpy()), rtol=1e-5, atol=1e-6)
    assert not seen[0].flags.owndata


def test_memory_is_given_back_after_a_refusal(opencl):
    x = netcl.ones((2, 2), device=opencl.device)
    for _ in range(3):
        with pytest.raises(LinAlgError) as found:
            linalg.inv(x)
        x += 0.0  # the device writes where the host has read
    assert x.tolist() == [[1.0, 1.0]] * 2
    assert isinstance(pickle.loads(pickle.dumps(found.value)), np.linalg.LinAlgError)


def test_what_the_device_deferred_is_raised(opencl):
    x = regular(opencl)
    x = netcl.take(x, netcl.asarray([0, 9, 1], device=opencl.device), axis=0)
    with pytest.raises(IndexError, match="gather"):
        linalg.vector_norm(linalg.inv(x))
    opencl.synchronize()


def test_views_of_one_buffer_and_what_is_empty(opencl):
    both = netcl.asarray(np.stack([np.eye(3) * 2, np.eye(3) * 4]).astype(np.float32), device=opencl.device)
    assert linalg.solve(both[0], both[1]).tolist() == (np.eye(3) * 2).tolist()
    assert linalg.solve(both[0], both[0]).tolist() == np.eye(3).tolist()
    assert linalg.inv(netcl.zeros((0, 3, 3), device=opencl.device)).shape == (0, 3, 3)
    assert fft.irfft(netcl.zeros((0, 3), device=opencl.device)).shape == (0, 4)


def test_a_device_without_the_hosts_memory_computes_too():
    x = regular(netcl.get_backend("toy"))
    np.testing.assert_allclose(linalg.inv(x).numpy(), np.linalg.inv(x.numpy()), rtol=1e-5, atol=1e-6)
