"""The optimizers beside ``torch.optim``, wherever the design says that the two agree."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
from netcl.errors import StateError
from netcl.optim import SGD, Adam, AdamW, CosineAnnealingLR, Momentum, ReduceLROnPlateau, RMSProp
from tests.optimizers import CASES, FAMILY, Case
from tests.snapshots import snapshot

torch = pytest.importorskip("torch", reason="the parity extra is not installed")

SAME_NAMES = ("ASGD", "Adadelta", "Adagrad", "Adamax", "NAdam", "RAdam", "Rprop")
PEERS = {
    SGD: (torch.optim.SGD, {"lr": 1e-2}),
    Momentum: (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    Adam: (torch.optim.Adam, {}),
    AdamW: (torch.optim.AdamW, {}),
    RMSProp: (torch.optim.RMSprop, {"lr": 1e-3}),
    **{getattr(netcl.optim, name): (getattr(torch.optim, name), {}) for name in SAME_NAMES},
}

# torch leaves the dampening out of SGD's first step.
AGREEING = [case for case in CASES if not case.options.get("dampening")]
TOGETHER = [*AGREEING, *(case for case in FAMILY if case.optimizer in PEERS)]


@pytest.fixture
def doubles():
    """torch keeps the numbers of a whole parameter in its default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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


@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_float64_on_numpy(case, doubles):
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


@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_state_of_torch_is_taken_over(case, doubles):
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


@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_a_checkpoint_of_torch_is_adopted_whole(case, doubles):
    """By an optimizer with other hyper-parameters, and with a parameter that never moved; only amsgrad has to agree."""
    rng = np.random.default_rng(6)
    theirs = [torch.tensor(rng.standard_normal(n), requires_grad=True) for n in (3, 1500, 2)]
    kind, defaults = PEERS[case.optimizer]
    options = {**defaults, **case.options}
    changed = {"lr": 0.05} if kind is torch.optim.Rprop else {"lr": 0.05, "weight_decay": 0.2}
    peer = kind([{"params": theirs[:2]}, {"params": theirs[2:], **changed}], **options)
    for step in range(3):
        for p in theirs[1:]:
            p.grad = torch.tensor(rng.standard_normal(p.shape))
        peer.step()
        assert step or theirs[0].grad is None
    ours = [netcl.asarray(p.detach().numpy(), device="numpy", copy=True, requires_grad=True) for p in theirs]
    kept = {name: value for name, value in case.options.items() if name == "amsgrad"}
    optimizer = case.optimizer([{"params": ours[:2]}, {"params": ours[2:]}], lr=7.0, **kept)
    optimizer.load_state_dict(peer.state_dict())
    for _ in range(3):
        for their, our in zip(theirs, ours, strict=True):
            gradient = rng.standard_normal(our.shape)
            their.grad, our.grad = torch.tensor(gradient), netcl.asarray(gradient, device="numpy")
        peer.step()
        optimizer.step()
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(our.numpy(), their.detach().numpy(), rtol=1e-12)
    for group, theirs_group in zip(optimizer.param_groups, peer.param_groups, strict=True):
        shared = set(group) & set(theirs_group) - {"params"}
        assert {name: group[name] for name in shared} == {name: theirs_group[name] for name in shared}


def test_names_and_rates_of_torch_come_along():
    theirs = [torch.ones(n, dtype=torch.float64, requires_grad=True) for n in (3, 2)]
    peer = torch.optim.Adam([("a", theirs[0]), ("b", theirs[1])], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(peer, max_lr=0.5, total_steps=10)
    for p in theirs:
        p.grad = torch.full_like(p, float(p.numel()))
    peer.step()
    schedule.step()
    ours = [netcl.ones(n, dtype="float64", device="numpy", requires_grad=True) for n in (2, 3)]
    optimizer = Adam([("b", ours[0]), ("a", ours[1])])
    optimizer.load_state_dict(peer.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["initial_lr"]) == (peer.param_groups[0]["lr"], peer.param_groups[0]["initial_lr"])
    assert optimizer.state_dict()["state"][1]["exp_avg"].tolist() == peer.state[theirs[0]]["exp_avg"].tolist()


FOREIGN = [
    (torch.optim.AdamW, {}, Adam, "of torch's AdamW"),
    (torch.optim.Adam, {}, AdamW, "of torch's Adam "),
    (torch.optim.RAdam, {}, Adam, "lacks the hyper-parameter 'amsgrad'"),
    (torch.optim.NAdam, {}, Adam, "momentum_decay"),
    (torch.optim.Adamax, {}, Adam, "lacks the hyper-parameter 'amsgrad'"),
    (torch.optim.Adagrad, {}, RMSProp, "lacks the hyper-parameter"),
    (torch.optim.Adam, {}, SGD, "of torch's Adam"),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, RMSProp, "lacks the hyper-parameter"),
    (torch.optim.RMSprop, {}, SGD, "lacks the hyper-parameter"),
    (torch.optim.Adam, {"amsgrad": True}, Adam, "build the optimizer with amsgrad=True"),
]


@pytest.mark.parametrize(("kind", "options", "target", "message"), FOREIGN)
def test_another_kind_of_torch_is_refused(kind, options, target, message):
    p = torch.ones(3, requires_grad=True)
    peer = kind([p], **options)
    p.grad = torch.ones(3)
    peer.step()
    optimizer = target([netcl.ones(3, device="numpy", requires_grad=True)])
    before = snapshot(optimizer)
    with pytest.raises(StateError, match=message):
        optimizer.load_state_dict(peer.state_dict())
    assert snapshot(optimizer) == before


def test_states_that_older_torch_wrote():
    """An empty momentum buffer, integer steps, no maximize and no keys that came later."""
    optimizer = SGD([netcl.ones(2, device="numpy", requires_grad=True)])
    group = {"lr": 0.1, "momentum": 0.0, "dampening": 0, "weight_decay": 0, "nesterov": False, "params": [0]}
    optimizer.load_state_dict({"state": {0: {"momentum_buffer": None}}, "param_groups": [group]})
    assert (optimizer.lr, optimizer.state_dict()["state"][0]["step"]) == (0.1, 0)
    optimizer = Adam([netcl.ones(2, device="numpy", requires_grad=True)])
    group = {"lr": 0.1, "betas": [0.9, 0.99], "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": [0]}
    ones = torch.ones(2)
    optimizer.load_state_dict({"state": {0: {"step": 3, "exp_avg": ones, "exp_avg_sq": ones}}, "param_groups": [group]})
    assert optimizer.state_dict()["state"][0]["step"] == 3


def test_sixteen_bit_state_is_refused_by_name():
    p = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    peer = torch.optim.Adam([p])
    p.grad = torch.ones_like(p)
    peer.step()
    optimizer = Adam([netcl.ones(3, dtype="bfloat16", device="numpy", requires_grad=True)])
    with pytest.raises(StateError, match="exp_avg of parameter 0 of group 0 in the checkpoint"):
        optimizer.load_state_dict(peer.state_dict())
