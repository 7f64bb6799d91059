"""What every rank runs: ``mpiexec -n 2 python ranks.py BACKEND``. Each check runs on all ranks, in the same order."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import distributed, nn
from netcl.amp import GradScaler, autocast
from netcl.backends import get_backend
from netcl.data import DataLoader
from netcl.distributed import DataParallel, DistributedSampler
from netcl.distributed.world import current_world
from netcl.errors import DistributedError, StateError
from netcl.optim import SGD, AdamW, Optimizer, Rule, clip_grad_norm

SIZES = (12, 40, 33, 5)
BATCH = 24
STEPS = 50
SPOILT = (10, 30)  # steps in which one rank alone sees an infinite gradient


def build(seed: int, dtype: str = "float32") -> nn.Module:
    random = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(SIZES):
        layers += [nn.Linear(n_in, n_out, generator=random, dtype=dtype), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def samples(*, spoilt: bool = True) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.standard_normal((STEPS * BATCH, SIZES[0])).astype(np.float32)
    if spoilt:
        for step in SPOILT:
            x[step * BATCH + 1] = 3e38  # dealt to rank 1
    return x, random.integers(0, SIZES[-1], len(x))


def everywhere(value: object) -> list:
    return current_world().channel.exchange(value, "a check")


def assert_same_bits(arrays) -> None:
    assert len({b"".join(np.asarray(x).tobytes() for x in rank) for rank in everywhere(list(arrays))}) == 1


def flat(state: dict) -> np.ndarray:
    return np.concatenate([x.ravel() for x in state.values()])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def train(forward, model, opt, loader, scaler, step, amp=None) -> None:
    for x, y in loader:
        with ag.Tape() as tape, autocast(amp or "float16", enabled=amp is not None):
            loss = ag.cross_entropy(forward(x), y)
        tape.backward(scaler.scale(loss))
        step(scaler, opt)
        scaler.update()
        opt.zero_grad()


def clipped_step(scaler, opt) -> None:
    scaler.step(opt, max_norm=0.5)


def dealt(data) -> DataLoader:
    return DataLoader(data, BATCH // distributed.world_size(), sampler=DistributedSampler(len(data[0])))


def alone(data, amp=None) -> tuple[np.ndarray, GradScaler]:
    """The same training in this process alone."""
    model, scaler = build(1), GradScaler(1024.0)
    opt = AdamW(model.named_parameters(), lr=1e-3, weight_decay=0.01)
    train(model, model, opt, DataLoader(data, BATCH), scaler, clipped_step, amp)
    return flat(model.state_dict()), scaler


def check_weights_equal_those_of_a_single_process():
    """AdamW, clipping and loss scaling, with steps that have to be skipped for what one rank saw."""
    data = samples()
    expected, reference = alone(data)
    model, scaler = build(1 + distributed.rank()), GradScaler(1024.0)
    opt = AdamW(model.named_parameters(), lr=1e-3, weight_decay=0.01)
    parallel = DataParallel(model, opt, bucket_bytes=4096)
    train(parallel, model, opt, dealt(data), scaler, clipped_step)
    assert scaler.steps_skipped == reference.steps_skipped == len(SPOILT)
    assert distance(flat(model.state_dict()), expected) < 1e-6
    assert_same_bits(model.state_dict().values())
    assert_same_bits(x for entry in opt.state_dict()["state"].values() for x in entry.values())


def check_weights_under_autocast_equal_those_of_a_single_process():
    """Where each rank's share is a power of two smaller, its 16-bit values are those of the whole batch, scaled.

    What is left is the order of summation: in one process, other orders of the rows in a batch make 1.5e-6.
    """
    if distributed.world_size() == 3:
        return
    for amp in ("float16", "bfloat16"):
        data = samples(spoilt=False)
        expected, _ = alone(data, amp)
        model, scaler = build(1 + distributed.rank()), GradScaler(1024.0)
        opt = AdamW(model.named_parameters(), lr=1e-3, weight_decay=0.01)
        parallel = DataParallel(model, opt, bucket_bytes=4096)
        train(parallel, model, opt, dealt(data), scaler, clipped_step, amp)
        assert distance(flat(model.state_dict()), expected) < 1e-5
        assert_same_bits(model.state_dict().values())


def check_shards_give_the_same_weights_with_a_share_of_the_state():
    data = samples()
    expected, reference = alone(data)
    model, scaler = build(1 + distributed.rank()), GradScaler(1024.0)
    shards = distributed.shard(model.parameters(), bucket_bytes=4096)
    opt = AdamW(shards, lr=1e-3, weight_decay=0.01)

    def step(scaler, opt):
        scaler.unscale_(opt)
        distributed.clip_grad_norm(shards, 0.5)
        scaler.step(opt)
        distributed.gather(shards)

    train(model, model, opt, dealt(data), scaler, step)
    assert scaler.steps_skipped == reference.steps_skipped == len(SPOILT)
    assert distance(flat(model.state_dict()), expected) < 1e-6
    assert_same_bits(model.state_dict().values())
    held = sum(span.size for partition in opt.partitions for span in partition.fields.spans.values())
    whole = AdamW(build(1).parameters(), lr=1e-3)
    total = sum(span.size for partition in whole.partitions for span in partition.fields.spans.values())
    segment = 2 * 1024 * -(-max(p.size for p in model.parameters()) // 1024)
    assert abs(held - total / distributed.world_size()) <= segment
    assert sum(everywhere(held)) >= total


def check_a_shard_accumulates_and_clips_as_one():
    shards = distributed.shard([netcl.zeros(5000, requires_grad=True), netcl.zeros((3, 7), requires_grad=True)])
    (view,) = shards
    rank, ranks = distributed.rank(), distributed.world_size()
    p, _ = current_places(shards)

    def backward():
        with ag.Tape() as tape:
            loss = netcl.sum(p) * float(rank + 1)
        tape.backward(loss)

    with shards.no_sync():
        backward()
        assert view.grad is None
    backward()
    mean = 2 * sum(range(1, ranks + 1)) / ranks
    found = np.concatenate(everywhere(view.grad.numpy()))
    np.testing.assert_allclose(found[:5000], mean, rtol=1e-6)
    assert not found[5000:].any()
    assert p.grad is None
    norm = distributed.clip_grad_norm(shards, 1.0)
    assert math.isclose(norm, mean * math.sqrt(5000), rel_tol=1e-5)
    after = np.concatenate(everywhere(view.grad.numpy()))
    assert math.isclose(np.linalg.norm(after.astype(np.float64)), 1.0, rel_tol=1e-5)
    with pytest.raises(DistributedError, match="zero_grad"):
        backward()
    view.grad = None
    with ag.Tape() as tape:
        loss = netcl.sum(p[:1]) * (math.inf if rank == 1 else 1.0)
    tape.backward(loss)
    assert not np.isfinite(view.grad.numpy()).all()  # in the share of rank 0, and seen by all


def current_places(shards) -> list:
    return [place.parameter for flat in shards._flats for place in flat.synchronizer._places]


def check_a_parameter_that_few_or_none_used():
    used, sometimes, never = (netcl.ones(1500, requires_grad=True) for _ in range(3))
    model = nn.Module()
    model.a, model.b, model.c = used, sometimes, never
    opt = SGD(model.named_parameters(), lr=1.0)
    DataParallel(model, opt, bucket_bytes=4096)
    rank, ranks = distributed.rank(), distributed.world_size()
    for _ in range(2):
        with ag.Tape() as tape:
            loss = netcl.sum(used * 2.0)
            if rank == 1:
                loss = loss + netcl.sum(sometimes * 3.0)
        tape.backward(loss)
        np.testing.assert_allclose(used.grad.numpy(), 2.0, rtol=1e-6)
        np.testing.assert_allclose(sometimes.grad.numpy(), 3.0 / ranks, rtol=1e-6)
        assert never.grad is None
        opt.step()
        opt.zero_grad()
    assert (never.numpy() == 1.0).all()
    assert_same_bits([used.numpy(), sometimes.numpy()])


def check_a_parameter_group_that_comes_later():
    first, second = (netcl.ones(2000, requires_grad=True) for _ in range(2))
    model = nn.Module()
    model.a, model.b = first, second
    opt = SGD([("a", first)], lr=1.0)
    DataParallel(model, opt)
    for expected_steps in (1, 2):
        with ag.Tape() as tape:
            loss = netcl.sum(first + second) * float(distributed.rank())
        tape.backward(loss)
        mean = (distributed.world_size() - 1) / 2
        np.testing.assert_allclose(first.grad.numpy(), mean, rtol=1e-6)
        opt.step()
        np.testing.assert_allclose(first.numpy(), 1.0 - expected_steps * mean, rtol=1e-6)
        if expected_steps == 1:
            opt.zero_grad()
            second.grad = None
            opt.add_param_group({"params": [("b", second)], "lr": 2.0})
    np.testing.assert_allclose(second.numpy(), 1.0 - 2.0 * mean, rtol=1e-6)
    assert_same_bits([first.numpy(), second.numpy()])


def check_a_device_with_memory_of_its_own():
    """As a graphics processor has: the host works on copies."""
    backend = get_backend()
    described = backend.device
    if described.backend != "opencl":
        return
    try:
        backend.device = replace(described, shares_host_memory=False)
        check_a_parameter_that_few_or_none_used()
        check_gradients_may_travel_in_half_precision()
        check_a_shard_accumulates_and_clips_as_one()
    finally:
        backend.device = described


def check_accumulation_without_messages_equals_a_large_batch():
    data = samples(spoilt=False)
    model, other = build(1), build(1)
    opt, plain = (SGD(m.named_parameters(), lr=0.1) for m in (model, other))
    parallel = DataParallel(model, opt)
    parts = list(DataLoader(data, BATCH // distributed.world_size(), sampler=DistributedSampler(len(data[0]))))[:4]

    def backward(forward, batch, share):
        with ag.Tape() as tape:
            loss = ag.cross_entropy(forward(batch[0]), batch[1]) * share
        tape.backward(loss)

    with parallel.no_sync():
        for part in parts[:-1]:
            backward(parallel, part, 0.25)
    backward(parallel, parts[-1], 0.25)
    rows = slice(0, 4 * BATCH)
    whole = tuple(netcl.asarray(x[rows]) for x in data)
    backward(other, whole, 1.0)
    assert distance(flat(grads(model)), flat(grads(other))) < 1e-6
    assert_same_bits(grads(model).values())
    # Another backward adds the mean of what it finds.
    backward(parallel, parts[0], 0.0)
    assert distance(flat(grads(model)), flat(grads(other))) < 1e-6
    plain.step()
    opt.step(max_norm=1e9)
    assert distance(flat(model.state_dict()), flat(other.state_dict())) < 1e-6


def grads(model) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def check_sums_of_every_dtype_carry_infinities():
    backend = get_backend()
    rank, ranks = distributed.rank(), distributed.world_size()
    for dtype in (netcl.float16, netcl.bfloat16, netcl.float32, netcl.float64):
        if not backend.supports(dtype):
            continue
        values = np.arange(1.0, 8.0) * (rank + 1)
        expected = np.arange(1.0, 8.0) * sum(range(1, ranks + 1)) / ranks
        if rank == 1:
            values[2], values[3], values[4] = np.inf, np.nan, np.inf
        if rank == 0:
            values[4] = -np.inf
        expected[2], expected[3], expected[4] = np.inf, np.nan, np.nan
        whole, missing, absent = (netcl.zeros(7, dtype=dtype, requires_grad=True) for _ in range(3))
        whole.grad = netcl.asarray(values, dtype=dtype)
        if rank == 0:
            missing.grad = netcl.ones(7, dtype=dtype)
        distributed.all_reduce_gradients([whole, missing, absent])
        tolerance = {2: 8e-3, 4: 1e-6, 8: 1e-14}[dtype.itemsize]
        np.testing.assert_allclose(whole.grad.numpy(), expected, rtol=tolerance)
        np.testing.assert_allclose(missing.grad.numpy(), 1 / ranks, rtol=tolerance)
        assert absent.grad is None
        assert_same_bits([whole.grad.numpy()])


def check_an_optimizers_gradients_are_reduced_where_they_lie():
    rank, ranks = distributed.rank(), distributed.world_size()
    wide = netcl.zeros((300, 70), requires_grad=True)
    half = netcl.zeros(9, dtype=netcl.float16, requires_grad=True)
    opt = SGD([wide, half], lr=1.0)
    for _ in range(2):
        wide.grad = netcl.full((300, 70), float(rank))
        half.grad = netcl.full((9,), 2.0 * rank, dtype=netcl.float16)
        distributed.all_reduce_gradients(opt)
        mean = sum(range(ranks)) / ranks
        norm = clip_grad_norm([wide, half], 1e9)
        assert math.isclose(norm, mean * math.sqrt(21000 + 4 * 9), rel_tol=1e-3)
        np.testing.assert_allclose(wide.grad.numpy(), mean, rtol=1e-6)
        np.testing.assert_allclose(half.grad.numpy(), 2 * mean, rtol=1e-3)
        opt.step()
        opt.zero_grad()
    np.testing.assert_allclose(wide.numpy(), -2 * mean, rtol=1e-6)


def long_sum(p, g, s, h):
    step = h.lr * g
    for _ in range(1500):
        step = step + h.share * g
    return (p - step,)


class Long(Optimizer):
    """Gradient descent as a sum of many terms."""

    def __init__(self, params):
        rule = Rule(long_sum, lambda group: {"lr": group["lr"], "share": group["lr"] / 1500})
        super().__init__(params, {"lr": 0.25}, rule)


def check_a_rule_of_many_terms_folds_the_mean_over_ranks():
    world = current_world()
    model = nn.Linear(3, 1, bias=False)
    opt = Long(model.parameters())
    parallel = DataParallel(model, opt)
    before = model.weight.numpy()
    with ag.Tape() as tape:
        loss = netcl.sum(parallel(netcl.full((1, 3), float(world.rank + 1))))
    tape.backward(loss)
    opt.step()
    mean = (world.size + 1) / 2
    np.testing.assert_allclose(model.weight.numpy(), before - 0.5 * mean, rtol=1e-4)
    assert_same_bits([model.weight.numpy()])


def check_gradients_may_travel_in_half_precision():
    data = samples(spoilt=False)
    batch = next(iter(dealt(data)))
    for dtype, tolerance in ((None, 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)):
        model, other = build(1), build(1)
        parallel = DataParallel(model, SGD(model.named_parameters()), communication_dtype=dtype, bucket_bytes=4096)
        for forward, (x, y) in ((parallel, batch), (other, [netcl.asarray(part[:BATCH]) for part in data])):
            with ag.Tape() as tape:
                loss = ag.cross_entropy(forward(x), y)
            tape.backward(loss)
        assert distance(flat(grads(model)), flat(grads(other))) < tolerance
        assert_same_bits(grads(model).values())


def check_numbers_and_objects_reach_all():
    rank, ranks = distributed.rank(), distributed.world_size()
    assert distributed.reduce_metric(rank) == (ranks - 1) / 2
    assert distributed.reduce_metric(netcl.asarray(float(rank)), "max") == ranks - 1
    assert distributed.reduce_metric(rank, "sum") == sum(range(ranks))
    assert math.isnan(distributed.reduce_metric(math.nan if rank else 1.0))
    assert distributed.broadcast_object({"from": rank}) == {"from": 0}
    assert distributed.rank_zero_only(lambda: "done")() == ("done" if rank == 0 else None)
    distributed.barrier()


def check_the_samples_are_dealt_once():
    for n in (7, 8, 1):
        for remainder in ("repeat", "drop", "keep"):
            sampler = DistributedSampler(n, shuffle=True, seed=3, remainder=remainder)
            hands = everywhere(sampler.order(5).tolist())
            assert len(hands[distributed.rank()]) == len(sampler)
            count = np.bincount(np.concatenate(hands).astype(int), minlength=n)
            sizes = {len(hand) for hand in hands}
            if remainder == "keep":
                assert (count == 1).all()
                assert max(sizes) - min(sizes) <= 1
            else:
                assert len(sizes) == 1
                assert (count >= 1).all() if remainder == "repeat" else (count <= 1).all()


def check_models_that_differ_are_refused_on_every_rank():
    odd = distributed.rank() == distributed.world_size() - 1
    last = distributed.world_size() - 1

    def refused(make, *parts):
        model = make()
        before = flat(model.state_dict())
        with pytest.raises(DistributedError) as refusal:
            DataParallel(model, SGD(model.named_parameters()))
        messages = everywhere(str(refusal.value))
        assert len(set(messages)) == 1
        assert all(part in messages[0] for part in (*parts, f"rank {last}")), messages[0]
        assert (flat(model.state_dict()) == before).all()

    refused(lambda: nn.Linear(3, 4 + odd), "(4, 3)", "(5, 3)", "'weight'")
    refused(lambda: nn.Sequential(*[nn.Linear(2, 2)] * 1, *([nn.ReLU(), nn.Linear(2, 2)] if odd else [])), "2", "4")
    refused(lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)) if odd else nn.Sequential(nn.Linear(2, 2)), "'1.weight'")
    model = nn.Linear(2, 2)
    with pytest.raises(DistributedError, match="bucket_bytes=2048"):
        DataParallel(model, SGD(model.parameters()), bucket_bytes=2048 if odd else 1024)


def check_whole_state_is_refused_on_every_rank():
    """Before anything is changed, and with one message, whichever rank has the fault."""
    rank, last = distributed.rank(), distributed.world_size() - 1
    model = nn.Linear(40, 70)
    shards = distributed.shard(model.named_parameters())
    opt = AdamW(shards, lr=1e-3)
    shards[0].grad = netcl.ones_like(shards[0])
    opt.step()
    state = distributed.gather_state(opt, shards)
    assert (state is None) == (rank > 0)
    before = opt.state_dict()

    def refused(kind, told, call):
        with pytest.raises(kind) as refusal:
            call()
        messages = everywhere(str(refusal.value))
        assert len(set(messages)) == 1
        assert told in messages[0], messages[0]
        after = opt.state_dict()["state"][0]
        assert all(np.array_equal(after[name], values) for name, values in before["state"][0].items())

    if state is not None:
        state["state"][1]["exp_avg"] = np.ones(3, np.float32)
    refused(StateError, "'bias' has exp_avg of shape (3,)", lambda: distributed.scatter_state(opt, shards, state))
    refused(StateError, "a checkpoint is what", lambda: distributed.scatter_state(opt, shards))
    odd = AdamW([netcl.ones(3, requires_grad=True)]) if rank == last else opt
    refused(DistributedError, f"rank {last}: parameter 0 of group 0", lambda: distributed.gather_state(odd, shards))
    refused(
        DistributedError, f"rank {last}: parameter 0 of group 0", lambda: distributed.scatter_state(odd, shards, state)
    )
    momentum = SGD(shards, lr=1.0) if rank == last else opt
    refused(DistributedError, f"'SGD' on rank {last}", lambda: distributed.gather_state(momentum, shards))
    if rank == last:
        shards[0].grad = netcl.ones_like(shards[0])
        opt.step()
        before = opt.state_dict()
    refused(DistributedError, f"[1] on rank 0 and [2] on rank {last}", lambda: distributed.gather_state(opt, shards))


CHECKS = [function for name, function in list(globals().items()) if name.startswith("check_")]

if __name__ == "__main__":
    distributed.init(sys.argv[1], timeout=60.0)
    for check in CHECKS:
        check()
        distributed.barrier()
        distributed.rank_zero_only(print)("passed", check.__name__, flush=True)
