"""What ``ComposedOperations`` derives, beyond what the conformance suite asks of the plug-in that inherits it."""

import math

import numpy as np
import pytest

import netcl
from netcl import autograd, dtypes, functional, nn, optim
from netcl.backends import get_backend
from netcl.backends.base import COUNT_BASE, ArrayOperations, Backend, HostOperations, UpdateOperations
from netcl.backends.composed import ComposedOperations
from netcl.backends.reference import ReferenceBackend
from netcl.errors import BackendError
from netcl.expression import Node, trace
from netcl.testing.conformance.operands import Operand
from netcl.testing.conformance.step_block import Block


@pytest.fixture(scope="module")
def composed():
    return get_backend("composed")


def members(*protocols):
    return {name for protocol in protocols for name in vars(protocol) if name[0] != "_"}


def test_it_has_every_member_of_the_protocol_and_asks_for_ten(composed):
    every = members(UpdateOperations, ArrayOperations, HostOperations, Backend)
    assert every == members(ComposedOperations)
    assert len(ComposedOperations.__abstractmethods__) == 10
    assert members(type(composed)) == ComposedOperations.__abstractmethods__


def test_memory_of_the_host_is_refused_by_name(composed):
    with pytest.raises(BackendError, match=r"composed:0 does not share the host's memory; upload"):
        composed.wrap_host_memory(np.zeros(3, "f4"), dtypes.float32)


@pytest.mark.parametrize("step", [1, COUNT_BASE - 1, COUNT_BASE, COUNT_BASE**2 - 1, 2**53 + 1, 2**62 + 12345])
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
def test_steps_are_counted_exactly(composed, step, dtype):
    found, expected = (
        Block(backend, rows=[{"step": step}, {"step": step, "active": 0}], dtype=dtype)
        for backend in (composed, ReferenceBackend())
    )
    for block in (found, expected):
        block.backend.prepare_step(block.step)
    for slot in (0, 1):
        for one, other in zip(found.counters(slot), expected.counters(slot), strict=True):
            corrections = {name: other.pop(name) for name in ("bias_correction1", "bias_correction2")}
            for name, value in corrections.items():
                assert one.pop(name) == pytest.approx(value, rel=1e-6)
            assert one == other


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("max_norm", [1e-6, 1.0, 1e3])
def test_gradients_are_shifted_where_the_multiplier_is_tiny(composed, dtype, max_norm):
    """A gradient of nearly the largest norm there is moves a parameter by the maximal norm."""
    size = 3e38 if dtype is dtypes.float32 else 1.5e308
    block = Block(composed, rows=[{"lr": 1.0}], dtype=dtype)
    p, g = Operand(composed, np.zeros(3), dtype), Operand(composed, [size, 0.0, 0.0], dtype)
    rows = Operand(composed, [0], dtypes.uint16)
    partials = Operand(composed, np.zeros(2 * composed.norm_partials(3)), dtype)
    composed.norm_reduce(g.span, partials.span, 2.0)
    composed.prepare_step(block.step, partials.span, max_norm=max_norm)
    tiny = max_norm / size < np.finfo(dtype.name).smallest_normal
    assert (block.header()["shift"] != 0) == tiny
    composed.fused_update(descent(dtype), p.span, g.span, [], block.step, rows.span, advance=False)
    np.testing.assert_allclose(p.values, [-max_norm, 0.0, 0.0], rtol=1e-6)


def descent(dtype):
    return trace(lambda p, g: (p - Node("hyper", (), dtype, "lr") * g,), (dtype, dtype), stored=(dtype,))


def trained(backend, optimizer, **options):
    """Losses and parameters of a small classifier after a few clipped steps, from the same random bits."""
    rng = np.random.default_rng(0)
    with netcl.use_backend(backend):
        netcl.manual_seed(3)
        model = nn.Linear(8, 3)
        x, labels = netcl.asarray(rng.standard_normal((32, 8)).astype("f4")), netcl.asarray(rng.integers(0, 3, 32))
        updates = optimizer(model.parameters(), **options)
        losses = []
        for _ in range(5):
            with autograd.Tape() as tape:
                loss = functional.cross_entropy(model(x), labels, label_smoothing=0.1)
            tape.backward(loss)
            updates.step(max_norm=0.5)
            updates.zero_grad()
            losses.append(float(loss))
        return losses, model.weight.numpy()


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (optim.AdamW, {"lr": 0.1, "amsgrad": True}),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (optim.RMSProp, {"lr": 0.01, "centered": True}),
    ],
    ids=["AdamW", "SGD", "RMSProp"],
)
def test_it_trains_as_the_reference_does(composed, optimizer, options):
    found, expected = (trained(backend, optimizer, **options) for backend in (composed, ReferenceBackend()))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)
    assert all(math.isfinite(loss) for loss in found[0])
    assert found[0][-1] < found[0][0]
