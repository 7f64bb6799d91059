"""Every optimizer and option against the float64 oracles, and what an optimizer does with its parameters."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
from netcl.array import Storage
from netcl.backends.reference import ReferenceBackend
from netcl.errors import DeviceMismatchError, DTypeError, HyperParameterError, NetclError, ShapeError, TapeError
from netcl.optim import SGD, Adam, AdamW, Momentum, RMSProp
from tests.optimizers import EVERY, FAMILY_OPTIONS, Case, every_case

pytestmark = pytest.mark.every_runtime

SHAPES = [(3,), (), (1030,), (40, 30), (0,), (2048,), (1,)]


def relative(found, expected) -> float:
    difference = np.concatenate([np.ravel(f - e) for f, e in zip(found, expected, strict=True)])
    return np.linalg.norm(difference) / np.linalg.norm(np.concatenate([np.ravel(e) for e in expected]))


def run(case: Case, backend, dtype: str, steps: int, shapes=SHAPES, seed=0):
    """Parameters after ``steps`` steps, by netcl and by the oracle, from the same random gradients."""
    rng = np.random.default_rng(seed)
    start = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    tensors = [netcl.asarray(x, device=backend.device, copy=True, requires_grad=True) for x in start]
    optimizer = case.optimizer(tensors, **case.options)
    theta = [x.astype(np.float64) for x in start]
    oracles = [case.oracle() for _ in start]
    for _ in range(steps):
        gradients = [np.asarray(rng.standard_normal(shape) * rng.uniform(0.1, 3.0), dtype) for shape in shapes]
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = netcl.asarray(gradient, device=backend.device)
        optimizer.step()
        theta = [oracle(x, g.astype(np.float64)) for oracle, x, g in zip(oracles, theta, gradients, strict=True)]
    return [tensor.numpy() for tensor in tensors], theta


@every_case
def test_follows_the_oracle_in_float32(case, backend):
    found, expected = run(case, backend, "float32", 200)
    assert relative(found, expected) <= 2e-6


@pytest.mark.parametrize("case", EVERY + FAMILY_OPTIONS, ids=str)
def test_follows_the_oracle_in_float64_on_numpy(case):
    found, expected = run(case, netcl.get_backend("numpy"), "float64", 200)
    assert relative(found, expected) <= 1e-12


@every_case
def test_pieces_give_the_bits_of_the_whole(case, backend):
    whole, _ = run(case, backend, "float32", 5, [(5000,)])
    pieces = netcl.asarray(np.random.default_rng(0).standard_normal(5000).astype("float32"), device=backend.device)
    tensors = [netcl.asarray(pieces[i : i + 100], copy=True) for i in range(0, 5000, 100)]
    for tensor in tensors:
        tensor.requires_grad = True
    optimizer = case.optimizer(tensors, **case.options)
    rng = np.random.default_rng(0)
    rng.standard_normal(5000)
    for _ in range(5):
        gradient = np.asarray(rng.standard_normal(5000) * rng.uniform(0.1, 3.0), "float32")
        for i, tensor in enumerate(tensors):
            tensor.grad = netcl.asarray(gradient[100 * i : 100 * i + 100], device=backend.device)
        optimizer.step()
    assert np.array_equal(np.concatenate([tensor.numpy() for tensor in tensors]), whole[0])


def parameter(values, backend, grad=None):
    tensor = netcl.asarray(np.asarray(values, "float32"), device=backend.device, copy=True, requires_grad=True)
    if grad is not None:
        tensor.grad = netcl.asarray(np.asarray(grad, "float32"), device=backend.device)
    return tensor


@every_case
def test_a_parameter_without_a_gradient_rests(case, backend):
    """It is neither moved nor decayed, and goes on later as if the steps in between had not been."""
    rng = np.random.default_rng(1)
    busy, inactive = parameter(rng.standard_normal(10), backend), parameter(rng.standard_normal(1500), backend)
    optimizer = case.optimizer([busy, inactive], **case.options)
    theta, oracle = inactive.numpy().astype("float64"), case.oracle()
    for step in range(12):
        busy.grad = netcl.asarray(rng.standard_normal(10).astype("float32"), device=backend.device)
        before = inactive.numpy()
        if step % 3 == 1:
            gradient = rng.standard_normal(1500).astype("float32")
            inactive.grad = netcl.asarray(gradient, device=backend.device)
            theta = oracle(theta, gradient.astype("float64"))
        optimizer.step()
        optimizer.zero_grad()
        if step % 3 != 1:
            assert np.array_equal(inactive.numpy(), before)
    assert relative([inactive.numpy()], [theta]) <= 2e-6


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("beside", [False, True])
def test_a_parameter_without_elements_counts_its_steps(backend, beside, max_norm):
    """Also where nothing is launched, since all parameters of its dtype are empty."""
    empty = netcl.zeros((0, 3), dtype="float16", device=str(backend.device), requires_grad=True)
    w = parameter([1.0, 2.0], backend, [0.5, 0.5])
    opt = AdamW([empty, w] if beside else [empty])
    for _ in range(3):
        empty.grad = netcl.zeros((0, 3), dtype="float16", device=str(backend.device))
        opt.step(max_norm=max_norm)
    assert [entry["step"] for entry in opt.state_dict()["state"].values()] == [3] * (1 + beside)


def test_a_host_array_without_elements_counts_its_steps():
    empty = np.zeros(0, np.float32)
    opt = SGD([empty, np.ones(2, np.float32)], backend="numpy")
    for _ in range(2):
        opt.step(grads=[empty.copy(), None])
    assert [entry["step"] for entry in opt.state_dict()["state"].values()] == [2, 0]


def test_groups_have_their_own_hyper_parameters(backend):
    a, b = parameter([1.0, 2.0], backend, [1.0, 1.0]), parameter([3.0], backend, [1.0])
    optimizer = SGD([{"params": [a], "lr": 0.5}, {"params": b}], lr=0.1)
    optimizer.step()
    assert a.numpy().tolist() == [0.5, 1.5]
    assert b.numpy() == pytest.approx([2.9])
    optimizer.lr = 0.25
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    optimizer.param_groups[1]["lr"] = 1.0
    optimizer.step()
    assert b.numpy() == pytest.approx([1.9])
    assert a.numpy().tolist() == [0.25, 1.25]


def test_added_groups_take_part(backend):
    a, b = parameter([1.0], backend, [1.0]), parameter([1.0], backend, [1.0])
    optimizer = SGD([a], lr=0.5)
    optimizer.step()
    optimizer.add_param_group({"params": [b], "lr": 0.25})
    optimizer.step()
    assert (a.item(), b.item()) == (0.0, 0.75)
    with pytest.raises(HyperParameterError, match=r"parameter 0 of group 2 is also parameter 0 of group 0"):
        optimizer.add_param_group({"params": [a]})
    assert len(optimizer.param_groups) == 2


@every_case
def test_adding_a_group_carries_the_state_on(case, backend):
    """Everyone moves as if it were alone: those of before, one that was skipped, a view, and the one that is added."""
    rng = np.random.default_rng(8)
    values, gradients = rng.standard_normal((4, 1500)), rng.standard_normal((6, 1500))
    alone = [parameter(v, backend) for v in values]
    peers = [case.optimizer([w], **case.options) for w in alone]
    shelf = netcl.asarray(np.concatenate([values[1], values[1]]).astype("float32"), device=backend.device, copy=True)
    together = [
        parameter(values[0], backend),
        shelf[1500:],
        parameter(values[2], backend),
        parameter(values[3], backend),
    ]
    together[1].requires_grad = True
    optimizer = case.optimizer(together[:3], **case.options)
    for step, gradient in enumerate(gradients):
        if step == 3:
            optimizer.add_param_group({"params": together[3:]})
        active = {0, 1, *([2] if step != 1 else []), *([3] if step > 2 else [])}
        for i in active:
            together[i].grad, alone[i].grad = (parameter(gradient, backend) for _ in range(2))
            peers[i].step()
        optimizer.step()
        optimizer.zero_grad()
    for w, peer in zip(together, alone, strict=True):
        assert np.array_equal(w.numpy(), peer.numpy())
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [6, 6, 5, 3]


def test_a_refused_group_changes_nothing(backend):
    base = netcl.ones(2000, device=backend.device)
    a, b = base[:1000], parameter([1.0], backend, [1.0])
    optimizer = AdamW([a, b], lr=0.5)
    buffer = b.grad_buffer
    for group, error, message in (
        ({"params": [base[500:]]}, ShapeError, "share memory"),
        ({"params": [base[1000:], parameter([1.0], backend)], "lr": -1.0}, HyperParameterError, "lr"),
        ({"params": [base[1000::2]]}, ShapeError, "not one run of memory"),
    ):
        with pytest.raises(error, match=message):
            optimizer.add_param_group(group)
    misfit = base[1000:]
    misfit.gradient = netcl.ones(3, device=backend.device)
    with pytest.raises(ShapeError, match=r"of shape \(1000,\) must have that shape, got \(3,\)"):
        optimizer.add_param_group({"params": [misfit]})
    assert (len(optimizer.param_groups), b.grad_buffer is buffer, misfit.grad_buffer) == (1, True, None)
    optimizer.step()
    assert b.item() == pytest.approx(0.495)


def test_a_group_may_be_assigned_in_every_way(backend):
    w = parameter([8.0], backend, [1.0])
    optimizer = SGD([w], lr=1.0)
    optimizer.step()
    optimizer.param_groups[0] |= {"lr": 2.0}
    optimizer.step()
    optimizer.param_groups[0].update(lr=3.0)
    optimizer.step()
    optimizer.param_groups[0]["maximize"] = True
    optimizer.step()
    assert w.item() == 5.0


def test_changed_betas_correct_the_next_step(backend):
    w = parameter([1.0], backend, [2.0])
    optimizer = Adam([w], lr=0.1, betas=(0.9, 0.99), eps=0.0)
    optimizer.step()
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    optimizer.step()
    m = 0.5 * 0.1 * 2 + 0.5 * 2
    v = 0.5 * 0.01 * 4 + 0.5 * 4
    expected = 0.9 - 0.1 * (m / 0.75) / np.sqrt(v / 0.75)
    assert w.item() == pytest.approx(expected, rel=1e-6)


def test_parameters_keep_their_values_and_views(backend):
    base = netcl.asarray(np.arange(6, dtype="float32"), device=backend.device, copy=True)
    view = netcl.reshape(base, (2, 3))[1, :]
    other = parameter([7.0, 8.0], backend)
    base.requires_grad = True
    optimizer = SGD([base, other], lr=1.0)
    assert base.numpy().tolist() == [0, 1, 2, 3, 4, 5]
    base.grad = netcl.ones(6, device=backend.device)
    other.grad = netcl.ones(2, device=backend.device)
    optimizer.step()
    assert view.numpy().tolist() == [2, 3, 4]
    del optimizer
    gc.collect()
    assert base.numpy().tolist() == [-1, 0, 1, 2, 3, 4]
    assert other.numpy().tolist() == [6, 7]


def test_views_of_a_shared_base_are_updated_in_place(backend):
    base = netcl.asarray(np.zeros(5000, "float32"), device=backend.device, copy=True)
    shards = [base[:2048], base[2048:4000], base[4500:]]
    whole = parameter([5.0], backend, [1.0])
    for shard in shards:
        shard.requires_grad = True
        shard.grad = netcl.ones(shard.shape, device=backend.device)
    optimizer = SGD([*shards, whole], lr=1.0)
    optimizer.step()
    expected = np.zeros(5000)
    expected[:4000] = expected[4500:] = -1
    assert np.array_equal(base.numpy(), expected)
    assert whole.item() == 4.0


def test_two_optimizers_over_one_parameter(backend):
    shared, a, b = (parameter([1.0], backend, [1.0]) for _ in range(3))
    first, second = SGD([shared, a], lr=0.25), SGD([shared, b], lr=0.5)
    first.step()
    second.step()
    first.step()
    assert shared.item() == 0.0
    assert (a.item(), b.item()) == (0.5, 0.5)


def test_tied_parameters_are_optimized_once(backend):
    w = parameter([1.0], backend, [1.0])
    SGD([("encoder.weight", w), ("decoder.weight", w)], lr=0.5).step()
    assert w.item() == 0.5


def test_backward_writes_where_the_optimizer_reads(backend):
    w, b = parameter([1.0, 2.0], backend), parameter([0.5], backend)
    optimizer = SGD([w, b], lr=0.1)
    for _ in range(2):
        with ag.Tape() as tape:
            loss = netcl.sum(w * w) + netcl.sum(b)
        tape.backward(loss)
        assert w.grad is w.grad_buffer.array
        assert w.grad.storage.buffer is b.grad.storage.buffer
        optimizer.step()
        optimizer.zero_grad()
        assert w.grad is None
    assert w.numpy() == pytest.approx([0.64, 1.28])
    assert b.numpy() == pytest.approx([0.3])


def test_gradients_accumulate_until_they_are_cleared(backend):
    w = parameter([1.0], backend)
    optimizer = SGD([w], lr=1.0)
    for expected in (2.0, 4.0):
        with ag.Tape() as tape:
            loss = netcl.sum(w * 2.0)
        tape.backward(loss)
        assert w.grad.item() == expected
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.item() == 0.0


@given(max_norm=st.floats(1e-3, 1e3), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_folded_clipping_is_clipping_and_stepping(max_norm, scale):
    backend = netcl.get_backend("numpy")
    rng = np.random.default_rng(2)
    values, gradients = rng.standard_normal((2, 3, 1500)).astype("float32")
    gradients = gradients * np.float32(scale)
    results = []
    for folded in (True, False):
        tensors = [parameter(v, backend, g) for v, g in zip(values, gradients, strict=True)]
        optimizer = SGD(tensors, lr=1.0)
        if folded:
            optimizer.step(max_norm=max_norm)
        else:
            netcl.optim.clip_grad_norm_device(tensors, max_norm)
            optimizer.step()
        optimizer.zero_grad()
        results.append(np.stack([tensor.numpy() for tensor in tensors]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_plain_steps_follow_clipped_ones_unscaled(backend):
    w = parameter([0.0], backend, [10.0])
    optimizer = SGD([w], lr=1.0)
    optimizer.step(max_norm=1.0)
    assert w.item() == pytest.approx(-1.0)
    optimizer.step()
    assert w.item() == pytest.approx(-11.0)


def test_float64_and_float32_side_by_side():
    a = netcl.asarray(np.ones(3), backend="numpy", requires_grad=True)
    b = netcl.asarray(np.ones(3, "float32"), backend="numpy", requires_grad=True)
    a.grad, b.grad = netcl.ones(3, dtype=netcl.float64, backend="numpy"), netcl.ones(3, backend="numpy")
    AdamW([a, b], lr=0.1).step()
    assert (a.dtype, b.dtype) == (netcl.float64, netcl.float32)
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_parameters(dtype, backend):
    w = netcl.astype(netcl.asarray([1.0, -2.0], device=backend.device), dtype)
    w.requires_grad = True
    w.grad = netcl.astype(netcl.asarray([0.5, 0.25], device=backend.device), dtype)
    SGD([w], lr=1.0).step()
    assert w.numpy().astype("float32").tolist() == [0.5, -2.25]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda w: SGD([w], lr=-1.0), r"lr must be a number, at least 0 and at most 3.40282e\+38, got -1.0"),
        (lambda w: SGD([w], lr=float("nan")), r"lr must be a number, .*, got nan"),
        (lambda w: Adam([w], betas=(0.9, 1.5)), r"beta2 must be a number, at least 0 and less than 1, got 1.5"),
        (lambda w: Adam([w], betas=0.9), r"betas must be a pair"),
        (lambda w: AdamW([w], eps=-1e-8), r"eps must be a number, at least 0"),
        (lambda w: AdamW([w], weight_decay=-0.1), r"weight_decay must be a number, at least 0 .*, got -0.1"),
        (lambda w: RMSProp([w], alpha=1.0), r"alpha must be a number, at least 0 and less than 1, got 1.0"),
        (lambda w: SGD([w], nesterov=True), r"nesterov=True needs momentum > 0"),
        (lambda w: SGD([w], momentum=0.9, dampening=0.1, nesterov=True), r"dampening = 0"),
        (lambda w: Momentum([w], momentum=0.0, nesterov=True), r"nesterov=True needs momentum > 0"),
        (lambda w: SGD([]), r"empty parameter list"),
        (lambda w: SGD([{"params": []}]), r"empty parameter list"),
        (lambda w: SGD(w), r"single Tensor; write \[tensor\]"),
        (lambda w: SGD([w, w]), r"parameter 1 of group 0 is also parameter 0 of group 0"),
        (lambda w: SGD([{"params": [w], "rate": 1}]), r"unknown hyper-parameter\(s\) rate"),
    ],
)
def test_bad_hyper_parameters_are_refused(build, message):
    w = netcl.ones(3, backend="numpy", requires_grad=True)
    with pytest.raises(HyperParameterError, match=message):
        build(w)
    assert w.grad_buffer is None
    assert w.numpy().tolist() == [1, 1, 1]


def test_bad_parameters_are_refused(backend):
    with pytest.raises(DTypeError, match="only floating-point parameters"):
        SGD([netcl.ones(3, dtype=netcl.int32, device=backend.device)])
    with pytest.raises(DTypeError, match="is a list; pass a Tensor"):
        SGD([[1.0]])
    base = netcl.ones((4, 4), device=backend.device)
    with pytest.raises(ShapeError, match="not one run of memory"):
        SGD([base[:, 0]])
    with pytest.raises(ShapeError, match="share memory"):
        SGD([base[:3, :], base[2:, :]])
    w = parameter([1.0], backend)
    with ag.Tape():
        y = w * 2.0
    with pytest.raises(TapeError, match="optimize the leaves"):
        SGD([y])


def test_a_refused_assignment_changes_nothing(backend):
    w = parameter([1.0], backend, [1.0])
    optimizer = SGD([w], lr=0.5)
    with pytest.raises(HyperParameterError, match="lr"):
        optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(HyperParameterError, match="nesterov"):
        optimizer.param_groups[0].update(lr=0.1, nesterov=True)
    assert optimizer.lr == 0.5


def test_step_without_gradients_is_refused(backend):
    w = parameter([1.0], backend)
    with pytest.raises(NetclError, match=r"SGD\.step\(\) found no gradient"):
        SGD([w]).step()


def test_a_gradient_that_ceased_to_fit_is_refused(backend):
    w = parameter([1.0, 2.0], backend)
    optimizer = SGD([w], lr=1.0)
    w.gradient = netcl.ones(3, device=backend.device)
    with pytest.raises(ShapeError, match=r"of shape \(2,\) must have that shape, got \(3,\)"):
        optimizer.step()
    assert w.numpy().tolist() == [1.0, 2.0]


def test_parameters_moved_to_another_device_are_refused(backend):
    w = parameter([1.0, 2.0], backend, [1.0, 1.0])
    optimizer = SGD([w], lr=1.0)
    w.relocate(Storage.empty(ReferenceBackend(), 2, netcl.float32))
    with pytest.raises(DeviceMismatchError, match=r"build the optimizer after model\.to"):
        optimizer.step()


def test_closure_and_repr(backend):
    w = parameter([1.0], backend, [1.0])
    optimizer = AdamW([w])
    assert optimizer.step(lambda: 3) == 3
    assert repr(optimizer).startswith("AdamW(\n    1 parameter(s): lr=0.001, betas=(0.9, 0.999)")


@every_case
def test_resuming_is_bit_exact(case, backend):
    rng = np.random.default_rng(6)
    values, gradients = rng.standard_normal((2, 1500)), rng.standard_normal((8, 1500))
    straight, first = parameter(values[0], backend), parameter(values[0], backend)
    whole, optimizer = case.optimizer([straight], **case.options), case.optimizer([first], **case.options)
    for step, gradient in enumerate(gradients):
        straight.grad, first.grad = (parameter(gradient, backend) for _ in range(2))
        whole.step()
        optimizer.step()
        if step == 3:
            saved, state = first.numpy(), optimizer.state_dict()
            first = parameter(saved, backend)
            optimizer = case.optimizer([first], **case.options)
            optimizer.load_state_dict(state)
    assert np.array_equal(first.numpy(), straight.numpy())


def test_a_parameter_rests_on_after_loading(backend):
    busy, inactive = parameter([1.0], backend, [1.0]), parameter([2.0], backend, [1.0])
    optimizer = Adam([busy, inactive], lr=0.5)
    optimizer.step()
    inactive.grad = None
    optimizer.step()
    before = inactive.item()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert inactive.item() == before
    assert [entry["step"] for entry in optimizer.state_dict()["state"].values()] == [3, 1]


def test_checkpoints_match_by_name(backend):
    a, b = parameter([1.0], backend, [1.0]), parameter([2.0, 3.0], backend, [1.0, 1.0])
    optimizer = AdamW([("a", a), ("b", b)], lr=0.1)
    optimizer.step()
    state = optimizer.state_dict()
    swapped = AdamW([("b", parameter([0.0, 0.0], backend)), ("a", parameter([0.0], backend))], lr=0.5)
    swapped.load_state_dict(state)
    assert swapped.lr == 0.1
    assert swapped.state_dict()["state"][1]["exp_avg"].tolist() == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("state"), "lacks 'state'"),
        (lambda s: s["param_groups"].append(s["param_groups"][0]), "2 parameter group"),
        (lambda s: s["param_groups"][0].update(param_names=["x"]), "no parameter 'w' in group 0; it has x"),
        (lambda s: s["state"][0].pop("exp_avg"), "'w' lacks the field 'exp_avg'"),
        (lambda s: s["state"][0].update(exp_avg=np.ones(3, "float32")), r"'w' has exp_avg of shape \(3,\)"),
        (lambda s: s["state"][0].update(exp_avg=np.ones(1)), "'w' has exp_avg of dtype float64"),
        (lambda s: s["param_groups"][0].update(lr=-1.0), "lr must be a number"),
    ],
)
def test_broken_checkpoints_change_nothing(spoil, message):
    w = netcl.ones(1, backend="numpy", requires_grad=True)
    optimizer = AdamW([("w", w)], lr=0.1)
    w.grad = netcl.ones(1, backend="numpy")
    optimizer.step()
    state, before = optimizer.state_dict(), optimizer.state_dict()
    spoil(state)
    with pytest.raises(NetclError, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"][0]["exp_avg"] == before["state"][0]["exp_avg"]
