"""The optimizers beside ``torch.optim``, wherever the design says that the two agree."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.optim import SGD, Adam, AdamW, CosineAnnealingLR, Momentum, ReduceLROnPlateau, RMSProp
from tests.optimizers import CASES, Case

torch = pytest.importorskip("torch", reason="the parity extra is not installed")

PEERS = {
    SGD: (torch.optim.SGD, {"lr": 1e-2}),
    Momentum: (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    Adam: (torch.optim.Adam, {}),
    AdamW: (torch.optim.AdamW, {}),
    RMSProp: (torch.optim.RMSprop, {"lr": 1e-3}),
}

# torch leaves the dampening out of SGD's first step.
AGREEING = [case for case in CASES if not case.options.get("dampening")]


def trajectories(case: Case, backend, dtype: str):
    rng = np.random.default_rng(4)
    start = rng.standard_normal((30, 40)).astype(dtype)
    ours = netcl.asarray(start, device=backend.device, copy=True, requires_grad=True)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = case.optimizer([ours], **case.options)
    kind, defaults = PEERS[case.optimizer]
    peer = kind([theirs], **{**defaults, **case.options})
    for _ in range(100):
        gradient = rng.standard_normal((30, 40)).astype(dtype)
        ours.grad = netcl.asarray(gradient, device=backend.device)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        peer.step()
    found, expected = ours.numpy(), theirs.detach().numpy()
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("case", AGREEING, ids=str)
def test_float64_on_numpy(case):
    assert trajectories(case, netcl.get_backend("numpy"), "float64") <= 1e-12


@pytest.mark.parametrize("case", AGREEING, ids=str)
def test_float32(case, backend):
    # Both round in float32, so that they may differ by what each differs from the exact trajectory.
    assert trajectories(case, backend, "float32") <= 4e-6


def test_cosine_annealing():
    optimizer = SGD([netcl.ones(1, backend="numpy")], lr=0.1)
    peer = torch.optim.SGD([torch.ones(1)], lr=0.1)
    ours = CosineAnnealingLR(optimizer, 20, eta_min=0.01)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(peer, 20, eta_min=0.01)
    for _ in range(20):
        peer.step()
        ours.step()
        theirs.step()
        assert optimizer.lr == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"mode": "max"}, {"cooldown": 3}, {"threshold_mode": "abs", "threshold": 0.1}])
def test_plateau(options):
    rng = np.random.default_rng(5)
    optimizer = SGD([netcl.ones(1, backend="numpy")], lr=0.1)
    peer = torch.optim.SGD([torch.ones(1)], lr=0.1)
    ours = ReduceLROnPlateau(optimizer, patience=2, factor=0.5, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, patience=2, factor=0.5, **options)
    for metric in rng.uniform(1, 2, 60):
        ours.step(metric)
        theirs.step(metric)
        assert optimizer.lr == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize("case", AGREEING, ids=str)
def test_state_of_torch_is_taken_over(case):
    rng = np.random.default_rng(7)
    start, gradients = rng.standard_normal(50), rng.standard_normal((6, 50))
    theirs = torch.tensor(start, requires_grad=True)
    kind, defaults = PEERS[case.optimizer]
    peer = kind([theirs], **{**defaults, **case.options})
    for gradient in gradients[:3]:
        theirs.grad = torch.tensor(gradient)
        peer.step()
    ours = netcl.asarray(theirs.detach().numpy(), backend="numpy", copy=True, requires_grad=True)
    optimizer = case.optimizer([ours], **case.options)
    optimizer.load_state_dict(peer.state_dict())
    for gradient in gradients[3:]:
        theirs.grad, ours.grad = torch.tensor(gradient), netcl.asarray(gradient, backend="numpy")
        peer.step()
        optimizer.step()
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-12)
