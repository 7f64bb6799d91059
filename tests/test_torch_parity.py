"""Every optimizer that torch and netcl both have, over torch's own list of options, on the same gradients."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import netcl
from netcl import optim

torch = pytest.importorskip("torch", reason="the parity extra is not installed")
common = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="the parity extra is not installed", exc_type=ImportError
)

ELSEWHERE = {
    "Adafactor": "in test_tensor_parity.py",
    "LBFGS": "in test_tensor_parity.py",
    "Muon": "in test_tensor_parity.py",
    "SparseAdam": "gradients are dense",
}
"""What torch has and this test does not compare, each with the reason."""

DIFFERENT = {
    (
        "SGD",
        "dampening",
    ): "torch leaves the dampening out of the first step; the formula holds from the first step here",
}
"""Options with which the two differ on purpose, each with the reason."""

HOW_TORCH_RUNS = ("foreach", "fused", "capturable", "differentiable")


def listed():
    for info in common.optim_db:
        name = info.optim_cls.__name__
        if name in ELSEWHERE:
            continue
        for given in info.optim_inputs_func("cpu"):
            options = {key: value for key, value in given.kwargs.items() if key not in HOW_TORCH_RUNS}
            yield pytest.param(name, options, id=f"{name}-{given.desc}")


LISTED = list(listed())


def agreeing():
    return [each for each in LISTED if not any((each.values[0], key) in DIFFERENT for key in each.values[1])]


def distance(name, options, dtype, backend):
    """The largest difference after 50 steps, relative to the largest parameter."""
    kind = getattr(torch.optim, name)
    single = {"foreach": False} if "foreach" in inspect.signature(kind).parameters else {}
    defaults = {"lr": inspect.signature(kind).parameters["lr"].default}
    rng = np.random.default_rng(11)
    start = rng.standard_normal(1050).astype(dtype)
    theirs = torch.tensor(start, requires_grad=True)
    ours = netcl.asarray(start, device=backend.device, copy=True, requires_grad=True)
    peer = kind([theirs], **single, **options)
    optimizer = getattr(optim, name)([ours], **{**defaults, **options})
    for _ in range(50):
        gradient = (rng.standard_normal(1050) * rng.uniform(0.1, 3.0)).astype(dtype)
        ours.grad, theirs.grad = netcl.asarray(gradient, device=backend.device), torch.tensor(gradient)
        optimizer.step()
        peer.step()
    found, expected = ours.numpy(), theirs.detach().numpy()
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture
def doubles():
    """torch keeps the numbers of a whole parameter, such as the product of NAdam, in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "options"), agreeing())
def test_float64_on_numpy(name, options, doubles):
    assert distance(name, options, "float64", netcl.get_backend("numpy")) <= 1e-10


@pytest.mark.parametrize(("name", "options"), agreeing())
def test_float32(name, options, backend):
    assert distance(name, options, "float32", backend) <= 1e-5


@pytest.mark.parametrize(("name", "option"), DIFFERENT)
def test_what_differs_does(name, option, doubles):
    """Else the table above says what is no longer so."""
    cases = [each.values for each in LISTED if each.values[0] == name and option in each.values[1]]
    assert cases
    for _, options in cases:
        assert distance(name, options, "float64", netcl.get_backend("numpy")) > 1e-3


def test_every_optimizer_of_torch_is_here_or_elsewhere():
    names = {info.optim_cls.__name__ for info in common.optim_db}
    assert {each.values[0] for each in LISTED} == names - set(ELSEWHERE)
    assert all(hasattr(optim, name) for name in names - set(ELSEWHERE))
