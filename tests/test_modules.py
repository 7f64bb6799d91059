"""Modules: the tree, modes, moving between devices, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import nn
from netcl.errors import BackendError, StateError
from netcl.nn import init

# ---- the tree


class Block(nn.Module):
    """Modules as attributes, in a list and in a dict; a tied weight; a buffer; no call of super().__init__()."""

    def __init__(self, device="numpy") -> None:
        self.scale = netcl.ones(2, device=device, requires_grad=True)
        self.layers = [nn.Linear(2, 2, device=device, generator=i) for i in range(2)]
        self.heads = {"left": nn.Linear(2, 1, bias=False, device=device, generator=2)}
        self.tied = nn.Linear(2, 2, bias=False, device=device)
        self.tied.weight = self.layers[0].weight
        self.shared = self.layers[1]
        self.register_buffer("offset", netcl.zeros(2, device=device))
        self.plain = netcl.zeros(3, device=device)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) * self.scale
        return self.heads["left"](self.tied(x) + self.offset)


NAMES = ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias", "heads.left.weight"]


def test_parameters_are_found_once_in_order():
    block = Block()
    assert [name for name, _ in block.named_parameters()] == NAMES
    assert len(list(block.parameters())) == 6
    assert next(name for name, _ in block.named_parameters("model")) == "model.scale"
    assert [name for name, _ in block.named_buffers()] == ["offset"]
    assert [name for name, _ in block.named_modules()] == ["", "layers.0", "layers.1", "heads.left", "tied"]
    assert sum(1 for _ in block.modules()) == 5


def test_a_parameter_stays_one_when_frozen_and_leaves_when_removed():
    layer = nn.Linear(2, 2, device="numpy")
    layer.weight.requires_grad = False
    assert "weight" in dict(layer.named_parameters())
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    del layer.weight
    assert list(layer.parameters()) == []


def test_train_and_eval_reach_every_module():
    block = Block()
    assert all(module.training for module in block.modules())
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    assert all(module.training for module in block.train().modules())


def test_zero_grad_forgets():
    block = Block()
    with ag.Tape() as tape:
        loss = netcl.sum(block(netcl.ones((1, 2), device="numpy")))
    tape.backward(loss)
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())


def test_repr_is_torch_like():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(2, 3, device="numpy"), nn.Dropout(0.1)), nn.GELU())
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Flatten(start_dim=1, end_dim=-1)\n"
        "  (1): Sequential(\n"
        "    (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        "  (2): GELU(approximate='none')\n"
        ")"
    )
    assert repr(nn.LayerNorm(3, device="numpy")) == "LayerNorm((3,), eps=1e-05, elementwise_affine=True)"
    assert repr(nn.Conv2d(1, 2, 3, dilation=2, bias=False, device="numpy")) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), dilation=(2, 2), bias=False)"
    )
    assert repr(nn.MaxPool2d(3, 1)) == "MaxPool2d(kernel_size=(3, 3), stride=(1, 1), padding=(0, 0))"
    assert repr(nn.Embedding(3, 2, device="numpy")) == "Embedding(3, 2)"
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss(reduction='mean', ignore_index=-100, label_smoothing=0.0)"


def test_sequential_is_a_sequence():
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    assert len(model) == 2
    assert isinstance(model[-1], nn.Tanh)
    assert [type(module) for module in model] == [nn.ReLU, nn.Tanh]


# ---- moving


def test_to_moves_in_place(backend):
    block = Block()
    x = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    with ag.Tape() as tape:
        loss = netcl.sum(block(netcl.asarray(x, device="numpy")))
    tape.backward(loss)
    before, tensors = block.state_dict(), [*block.parameters(), *block.buffers()]
    gradients = [p.grad.numpy() for p in block.parameters()]
    expected = block(netcl.asarray(x, device="numpy")).numpy()
    assert block.to(backend) is block
    assert all(a is b for a, b in zip([*block.parameters(), *block.buffers()], tensors, strict=True))
    assert all(tensor.backend is backend for tensor in tensors)
    assert block.tied.weight is block.layers[0].weight
    for name, array in block.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    for p, gradient in zip(block.parameters(), gradients, strict=True):
        assert p.grad.backend is backend
        np.testing.assert_array_equal(p.grad.numpy(), gradient)
    np.testing.assert_allclose(block(netcl.asarray(x, device=backend)).numpy(), expected, rtol=1e-5)
    block.to("numpy")
    assert all(tensor.backend is netcl.get_backend("numpy") for tensor in tensors)


def test_moved_parameters_train(backend):
    model = nn.Linear(2, 1, device="numpy", generator=0).to(backend)
    optimizer = netcl.optim.SGD(model.parameters(), lr=0.1)
    with ag.Tape() as tape:
        loss = netcl.sum(model(netcl.ones((1, 2), device=backend)))
    tape.backward(loss)
    before = model.weight.numpy()
    optimizer.step()
    np.testing.assert_allclose(model.weight.numpy(), before - np.float32(0.1), rtol=1e-6)


def test_to_refuses_before_it_moves():
    model = Block()
    with pytest.raises(BackendError, match="nosuch"):
        model.to("nosuch")
    assert all(p.backend is netcl.get_backend("numpy") for p in model.parameters())


# ---- checkpoints


def test_state_round_trip(backend):
    a, b = Block(backend), Block(backend)
    for number, p in enumerate(a.parameters()):
        init.normal_(p, generator=number)
    init.constant_(a.offset, 3)
    state = a.state_dict()
    assert sorted(state) == sorted([*NAMES, "tied.weight", "shared.weight", "shared.bias", "offset"])
    assert b.load_state_dict(state) == ([], [])
    for name, array in b.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    state["scale"][:] = 99
    assert (b.scale.numpy() != 99).all(), "the model keeps no hold on the arrays it was loaded from"
    assert (a.scale.numpy() != 99).all()


def test_state_round_trip_of_16_bit_floats(backend):
    for dtype in ("float16", "bfloat16"):
        a = nn.Linear(5, 3, device=backend, dtype=dtype, generator=0)
        b = nn.Linear(5, 3, device=backend, dtype=dtype, generator=1)
        b.load_state_dict(a.state_dict())
        np.testing.assert_array_equal(b.weight.numpy(), a.weight.numpy())


def change(name, value):
    def edit(state):
        state[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda state: state.pop("layers.1.bias"), "the state lacks 'layers.1.bias'; it must name all of .* 10"),
        (change("extra", np.zeros(1)), "the state names 'extra', which this model does not have; pass strict=False"),
        (change("scale", np.zeros((2, 3), np.float32)), r"'scale' has shape \(2, 3\) in the state and \(2,\)"),
        (change("heads.left.weight", np.zeros((1, 2))), r"has dtype float64 .* and float32 .* astype\('float32'\)"),
        (change("tied.weight", np.zeros((2, 2), np.float32)), "0.weight' and 'tied.weight' are one tied parameter but"),
    ],
)  # fmt: skip
def test_state_refusals_change_nothing(edit, complaint):
    block = Block()
    before = block.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    edit(state)
    with pytest.raises(StateError, match=complaint):
        block.load_state_dict(state)
    for name, array in block.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_loose_loading_reports_what_it_passed_over():
    layer = nn.Linear(2, 2, device="numpy")
    bias = layer.bias.numpy()
    keys = layer.load_state_dict({"weight": np.ones((2, 2), np.float32), "gain": np.ones(1)}, strict=False)
    assert (keys.missing, keys.unexpected) == (["bias"], ["gain"])
    assert layer.weight.numpy().tolist() == [[1, 1], [1, 1]]
    np.testing.assert_array_equal(layer.bias.numpy(), bias)
    with pytest.raises(StateError, match="'weight' has shape"):
        layer.load_state_dict({"weight": np.ones(3, np.float32)}, strict=False)
