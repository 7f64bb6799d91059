"""Adafactor, L-BFGS and Muon beside ``torch.optim``, over torch's own list of options and some more."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl.errors import ArgumentError, DTypeError, HyperParameterError, NetclError, StateError
from netcl.optim import LBFGS, Adafactor, Muon
from tests.test_tensor_rules import drawn, error, give, tensors

torch = pytest.importorskip("torch", reason="the parity extra is not installed")
common = pytest.importorskip(
    "torch.testing._internal.common_optimizers", reason="the parity extra is not installed", exc_type=ImportError
)
SHAPES = {"Adafactor": [(3, 5), (40, 30), (7,), (3, 5), (), (2, 3, 40)], "Muon": [(3, 5), (40, 30), (30, 40), (3, 5)]}


def listed(kind):
    """What torch's own tests try."""
    (info,) = [info for info in common.optim_db if info.optim_cls is kind]
    return [given.kwargs for given in info.optim_inputs_func("cpu")]


ADAFACTOR = [*listed(torch.optim.Adafactor), {"lr": 0.01}, {"eps": (1e-10, 1e-2)}]
MUON = [*listed(torch.optim.Muon), {"weight_decay": 0.2, "nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}]


def beside_torch(ours, theirs, options, backend, dtype, steps):
    start = drawn(SHAPES[ours.__name__], 0, dtype)
    parameters, peers = tensors(start, backend, dtype), [torch.nn.Parameter(torch.tensor(x)) for x in start]
    optimizer, peer = ours(parameters, **options), theirs(peers, **options)
    for step in range(steps):
        gradients = drawn(SHAPES[ours.__name__], step + 1, dtype)
        give(parameters, gradients)
        for p, g in zip(peers, gradients, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        peer.step()
    optimizer.load_state_dict(peer.state_dict())
    return max(error(p, q.detach().numpy()) for p, q in zip(parameters, peers, strict=True))


@pytest.mark.parametrize("options", ADAFACTOR, ids=str)
def test_adafactor(options, backend):
    if backend.device.backend == "numpy":
        assert beside_torch(Adafactor, torch.optim.Adafactor, options, backend, "float64", 50) <= 1e-10
    assert beside_torch(Adafactor, torch.optim.Adafactor, options, backend, "float32", 50) <= 1e-5


@pytest.mark.parametrize("options", MUON, ids=str)
def test_muon_as_far_as_bfloat16_goes(options):
    """torch iterates in bfloat16, which keeps three digits."""
    backend = netcl.get_backend("numpy")
    assert beside_torch(Muon, torch.optim.Muon, options, backend, "float32", 10) <= 0.02


class Fit:
    """A sum of fourth powers, here and in torch."""

    def __init__(self, backend, dtype, **options):
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((30, 12)).astype(dtype), rng.standard_normal(30).astype(dtype)
        start = [np.full((3, 4), 0.3, dtype), np.zeros(1, dtype)]
        self.parameters = tensors(start, backend, dtype)
        self.peers = [torch.nn.Parameter(torch.tensor(x)) for x in start]
        self.data = [netcl.asarray(x, device=backend.device) for x in (a, b)]
        self.peer_data = [torch.tensor(x) for x in (a, b)]
        self.optimizer, self.peer = LBFGS(self.parameters, **options), torch.optim.LBFGS(self.peers, **options)
        self.evaluations = 0

    @staticmethod
    def loss(parameters, data):
        r = data[0] @ parameters[0].reshape((12,)) + parameters[1] - data[1]
        return (r * r * r * r).mean() + 0.1 * (r * r).sum()

    def closure(self):
        self.evaluations += 1
        self.optimizer.zero_grad()
        with ag.Tape() as tape:
            loss = self.loss(self.parameters, self.data)
        tape.backward(loss)
        return loss

    def peer_closure(self):
        self.peer.zero_grad()
        loss = self.loss(self.peers, self.peer_data)
        loss.backward()
        return loss

    def values(self):
        return np.concatenate([p.numpy().reshape(-1) for p in self.parameters])

    def distance(self):
        theirs = np.concatenate([p.detach().numpy().reshape(-1) for p in self.peers])
        return np.abs(self.values() - theirs).max()


SEARCH = {"line_search_fn": "strong_wolfe"}
LBFGS_OPTIONS = [
    *listed(torch.optim.LBFGS),
    {"lr": 0.1, "max_iter": 7},
    {**SEARCH, "max_iter": 5, "history_size": 3},
    {**SEARCH, "lr": 0.5, "max_iter": 8, "max_eval": 30},
    {**SEARCH, "lr": 30.0, "max_iter": 4},
]


@pytest.mark.parametrize("options", LBFGS_OPTIONS, ids=str)
def test_lbfgs(options):
    fit = Fit(netcl.get_backend("numpy"), "float64", **options)
    for _ in range(4):
        fit.optimizer.step(fit.closure)
        fit.peer.step(fit.peer_closure)
    assert fit.distance() <= 1e-10
    theirs = fit.peer.state_dict()["state"][0]
    assert fit.evaluations == theirs["func_evals"] == fit.optimizer.state_dict()["state"][0]["func_evals"]
    fit.optimizer.load_state_dict(fit.peer.state_dict())


def test_lbfgs_float32(backend):
    fit = Fit(backend, "float32", **SEARCH, max_iter=5, history_size=3)
    for _ in range(3):
        fit.optimizer.step(fit.closure)
        fit.peer.step(fit.peer_closure)
    assert fit.distance() <= 1e-5


def test_lbfgs_goes_on_bit_for_bit(backend):
    options = {"max_iter": 2, "history_size": 3, "lr": 0.1}
    straight, first = (Fit(backend, "float32", **options) for _ in range(2))
    for step in range(40):
        if step == 20:
            saved, second = pickle.loads(pickle.dumps(first.optimizer.state_dict())), Fit(backend, "float32", **options)
            for p, q in zip(second.parameters, first.parameters, strict=True):
                p.copy_(q) if hasattr(p, "copy_") else p.__setitem__(..., q)
            second.optimizer.load_state_dict(saved)
            first = second
        straight.optimizer.step(straight.closure)
        first.optimizer.step(first.closure)
    np.testing.assert_array_equal(straight.values(), first.values())


def test_what_lbfgs_refuses():
    fit = Fit(netcl.get_backend("numpy"), "float32")
    for wrong in ({}, {"closure": 5}, {"closure": fit.closure, "max_norm": 1.0}, {"closure": fit.closure, "grads": []}):
        with pytest.raises(ArgumentError):
            fit.optimizer.step(**wrong)
    with pytest.raises(ArgumentError, match="must return the loss"):
        fit.optimizer.step(lambda: None)
    with pytest.raises(NetclError, match="found no gradient"):
        fit.optimizer.step(lambda: 1.0)
    one = netcl.ones(2, requires_grad=True)
    with pytest.raises(HyperParameterError, match="one parameter group"):
        fit.optimizer.add_param_group({"params": [one]})
    with pytest.raises(DTypeError, match="float16"):
        LBFGS([netcl.ones(2, dtype=netcl.float16, requires_grad=True)])
    with pytest.raises(DTypeError, match="another library"):
        LBFGS([np.ones(2, "float32")])
    with pytest.raises(NetclError, match="GradScaler"):
        fit.optimizer.scaled_step(None)
    fit.optimizer.step(fit.closure)
    saved = fit.optimizer.state_dict()
    saved["state"][0]["d"] = saved["state"][0]["d"][1:]
    with pytest.raises(StateError, match="all parameters together"):
        fit.optimizer.load_state_dict(saved)


def test_lbfgs_puts_parameters_back_where_a_closure_fails():
    fit = Fit(netcl.get_backend("numpy"), "float32", **SEARCH)
    before = fit.values()

    def failing():
        if fit.evaluations:
            raise RuntimeError("no more")
        return fit.closure()

    with pytest.raises(RuntimeError, match="no more"):
        fit.optimizer.step(failing)
    np.testing.assert_array_equal(fit.values(), before)
