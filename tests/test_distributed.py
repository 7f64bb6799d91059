"""Data parallel: ranks under mpiexec, on every backend, and what happens when one of them fails."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import netcl
import netcl.autograd as ag
from netcl import distributed, nn, optim
from netcl.distributed.buckets import even_shares
from netcl.distributed.placement import place
from netcl.distributed.wire_format import WireFormat
from netcl.errors import BackendError, DTypeError, StateError
from netcl.optim import AdamW
from tests.snapshots import frozen, snapshot

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "tests" / "distributed"
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
    reason='MPI is not installed: pip install "netcl[mpi]"',
)


def launch(ranks: int, *command: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run Python under mpiexec; one that hangs fails the test and is killed with all its ranks."""
    prefix = [str(MPIEXEC), "-n", str(ranks)] if ranks else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*prefix, sys.executable, *command],
        capture_output=True, text=True, timeout=timeout, env=environment, check=False,
    )  # fmt: skip


def checks() -> list[str]:
    return re.findall(r"^def (check_\w+)", (PROGRAMS / "ranks.py").read_text(encoding="utf-8"), re.MULTILINE)


def assert_all_pass(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("passed")] == checks()


@needs_mpi
@pytest.mark.parametrize("ranks", [3, 4])
def test_ranks_agree(ranks):
    assert_all_pass(launch(ranks, "-W", "error", str(PROGRAMS / "ranks.py"), "numpy"))


@needs_mpi
def test_two_ranks_agree_on_every_backend(backend):
    assert_all_pass(launch(2, "-W", "error", str(PROGRAMS / "ranks.py"), str(backend.device)))


@needs_mpi
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raise", ["ValueError: the data are spoilt", "rank 1 ended with ValueError: the data are spoilt"]),
        ("exit", ["the reduction of gradients cannot be completed: rank 1 has ended"]),
        ("hang", ["the reduction of gradients was not completed within 1.5 s: rank 1 did not take part"]),
        ("device", ["rank 0 of 2", "rank 1 of 2", "1 of 2 ranks have no device; rank 1: no device matches"]),
        ("uninitialised", ["this process is one of 2 ranks; call netcl.distributed.init() first"]),
    ],
)
def test_a_fault_of_one_rank_ends_all_with_its_cause(fault, told):
    started = time.monotonic()
    result = launch(2, str(PROGRAMS / "faults.py"), fault)
    assert result.returncode != 0
    for part in told:
        assert part in result.stderr
    assert ("under way" in result.stdout) == (fault in ("raise", "exit", "hang"))
    assert time.monotonic() - started < 100  # the program itself would take ten minutes


@needs_mpi
def test_a_rank_that_is_killed_ends_all_and_leaves_whole_checkpoints(tmp_path):
    checkpoint = tmp_path / "weights.npz"
    result = launch(2, str(PROGRAMS / "faults.py"), "kill", str(checkpoint))
    assert result.returncode != 0
    with np.load(checkpoint) as saved:
        assert {name: saved[name].shape for name in saved} == {"weight": (200, 300), "bias": (200,)}


def test_without_mpi_one_process_is_a_world_of_its_own():
    program = """
import sys
sys.modules["mpi4py"] = None
from netcl import distributed
device = distributed.init("numpy")
distributed.barrier()
print(device, distributed.rank(), distributed.world_size(), distributed.local_rank())
"""
    result = launch(0, "-c", program)
    assert result.stdout.split() == ["numpy", "0", "1", "0"], result.stderr


@pytest.mark.parametrize("present", [False, pytest.param(True, marks=needs_mpi)])
def test_ranks_without_their_mpi_are_refused(present, monkeypatch):
    """Otherwise each of them would train on its own, and nobody would notice."""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    hide = "" if present else "sys.modules['mpi4py'] = None; "
    result = launch(0, "-c", f"import sys; {hide}from netcl import distributed; distributed.init('numpy')")
    assert result.returncode != 0
    told = "the launcher started 2 ranks, but" if present else 'MPI cannot be used: .*pip install "netcl\\[mpi\\]"'
    assert re.search(f"DistributedError: .*{told}", result.stderr), result.stderr


@needs_mpi
def test_the_example_learns_as_one_process_does(tmp_path):
    command = [str(ROOT / "examples/data_parallel.py"), "--backend", "numpy", "--subset", "--epochs", "1"]
    command += ["--no-progress", "--limit", "2000", "--save"]
    weights = []
    for ranks in (0, 2):
        path = tmp_path / f"{ranks}.safetensors"
        result = launch(ranks, *command, str(path))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("epoch 1/1") == 1
        saved = netcl.load(path)["model"]
        weights.append(np.concatenate([array.ravel() for array in saved.values()]))
    single, double = weights
    assert np.linalg.norm(double - single) < 1e-5 * np.linalg.norm(single)


def test_ranks_of_one_machine_take_the_listed_devices(monkeypatch):
    monkeypatch.setenv("NETCL_DEVICE", "numpy, numpy")
    assert [place(None, rank).device.backend for rank in (0, 1)] == ["numpy", "numpy"]
    with pytest.raises(BackendError, match="names 2 devices, and this is rank 2 of its machine"):
        place(None, 2)
    monkeypatch.setenv("NETCL_DEVICE", "nonsense")
    with pytest.raises(BackendError, match="'nonsense'"):
        place(None, 0)
    assert place("numpy", 5).device.backend == "numpy"


def test_parts_of_a_device_stand_for_devices(backend):
    if backend.device.kind != "cpu" or backend.device.backend != "opencl":
        pytest.skip("only OpenCL CPU devices can be divided")
    name = str(backend.device)
    parts = [place(f"{name}/2", rank) for rank in range(3)]
    assert [str(part.device) for part in parts] == [f"{name}/0of2", f"{name}/1of2", f"{name}/0of2"]
    assert parts[0] is parts[2]
    assert parts[0] is not parts[1]
    sums = [netcl.sum(netcl.arange(1000.0, device=part)).item() for part in parts]
    assert sums == [499500.0] * 3
    for impossible in (f"{name}/2of2", f"{name}/0of100000"):
        with pytest.raises(BackendError, match="parts"):
            netcl.get_backend(impossible)


def test_one_process_trains_its_shard_of_everything(backend):
    """The views are the parameters themselves, so a step is that of the plain optimizer."""
    random = np.random.default_rng(0)
    values = [random.standard_normal(shape).astype(np.float32) for shape in ((30, 50), (7,))]
    plain, sharded = ([netcl.asarray(x, device=backend, requires_grad=True) for x in values] for _ in range(2))
    shards = distributed.shard(sharded)
    optimizers = AdamW(plain, lr=0.1), AdamW(shards, lr=0.1)
    for _ in range(3):
        for parameters, opt in zip((plain, sharded), optimizers, strict=True):
            with ag.Tape() as tape:
                loss = netcl.sum(parameters[0] ** 2) + netcl.sum(parameters[1] ** 3)
            tape.backward(loss)
            opt.step()
            opt.zero_grad()
        shards.gather()
    for a, b in zip(plain, sharded, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@needs_mpi
def test_a_sharded_run_goes_on_with_any_number_of_ranks(backend, tmp_path):
    """Saved whole by two ranks and taken up by one or three, and the other way round; within the order of summation."""

    def run(ranks, kind, load, begin, end):
        file = str(tmp_path / f"{ranks}-{kind}-{begin}-{end}-{Path(load).name}")
        command = [str(PROGRAMS / "whole_state.py"), str(backend.device), kind, load, file, str(begin), str(end)]
        result = launch(ranks, "-W", "error", *command)
        assert result.returncode == 0, result.stderr
        return file

    def numbers(file):
        parts = netcl.load(file)
        state = parts["optimizer"]["state"]
        fields = [state[i][name] for i in range(4) for name in ("exp_avg", "exp_avg_sq")]
        return np.concatenate([x.ravel() for x in (*parts["model"].values(), *fields)])

    straight = numbers(run(0, "plain", "-", 0, 12))
    one, two = run(0, "plain", "-", 0, 6), run(2, "sharded", "-", 0, 6)
    described = [netcl.load(file)["optimizer"]["param_groups"] for file in (one, two)]
    assert described[0] == described[1]
    assert described[0][0]["param_names"] == ["0.weight", "0.bias", "2.weight"]
    for ranks, kind, load in ((0, "plain", two), (2, "sharded", one), (3, "sharded", two), (0, "sharded", two)):
        found = numbers(run(ranks, kind, load, 6, 12))
        assert np.linalg.norm(found - straight) < 2e-6 * np.linalg.norm(straight), (ranks, kind)
    # Dealt out and gathered again, everything is as it was, bit for bit.
    np.testing.assert_array_equal(numbers(run(3, "sharded", two, 6, 6)), numbers(two))


SHARDED = {
    "AdamW": lambda p: AdamW(p, lr=0.1, amsgrad=True),
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.5),
    "Rprop": optim.Rprop,
    "ScheduleFreeAdamW": optim.ScheduleFreeAdamW,
    "8bit": lambda p: AdamW(p, lr=0.1, state_dtype="8bit"),
    "bfloat16 state": lambda p: optim.Lion(p, lr=0.1, state_dtype="bfloat16"),
}


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("kind", SHARDED)
def test_whole_state_is_that_of_an_optimizer_without_shards(kind, names, backend, tmp_path):
    """Of several dtypes, whose views are apart; also as a file, and back."""
    random = np.random.default_rng(0)
    shapes = {"a": ((30, 50), "float32"), "b": ((7,), "bfloat16"), "c": ((3, 1), "float32")}
    values = {name: random.standard_normal(shape).astype("f4") for name, (shape, _) in shapes.items()}

    def tensors():
        made = []
        for name, (_, dtype) in shapes.items():
            p = netcl.astype(netcl.asarray(values[name], device=backend.device, copy=True), dtype)
            p.requires_grad = True
            made.append((name, p) if names else p)
        return made

    def go(given, optimizer, begin, end):
        for step in range(begin, end):
            with ag.Tape() as tape:
                found = [p for _, p in given] if names else given
                terms = [netcl.sum(netcl.astype(p, "float32") ** 2) for p in found]
                loss = (terms[0] + terms[1] + terms[2]) * (step + 1.0)
            tape.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

    plain, sharded, again = tensors(), tensors(), tensors()
    first, second = distributed.shard(sharded), distributed.shard(again)
    optimizers = [SHARDED[kind](x) for x in (plain, first, second)]
    go(plain, optimizers[0], 0, 3)
    go(sharded, optimizers[1], 0, 3)
    whole = distributed.gather_state(optimizers[1], first)
    if "bit" not in kind and "state" not in kind:  # blocks and random bits are those of the place in the arena
        assert frozen(whole) == frozen(optimizers[0].state_dict())
    netcl.save(tmp_path / "run", optimizer=whole)
    netcl.load(tmp_path / "run", optimizer=optimizers[0])
    distributed.scatter_state(optimizers[2], second, netcl.load(tmp_path / "run")["optimizer"])
    assert frozen(distributed.gather_state(optimizers[2], second)) == frozen(whole)
    assert [group["lr"] for group in optimizers[2].param_groups] == [group["lr"] for group in whole["param_groups"]]


def one_step_less(state):
    state["state"][1]["step"] = 2
    state["state"][0]["step"] = 3


def of_another_shape(state):
    state["state"][1]["exp_avg"] = np.ones(3, "f4")


def of_another_name(state):
    state["param_groups"][0]["param_names"] = ["a", "c"]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (one_step_less, "a has taken 3 steps in the checkpoint and b 2"),
        (of_another_shape, "'b' has exp_avg of shape (3,) in the checkpoint and shape (2,)"),
        (of_another_name, "the checkpoint has no parameter 'b' in group 0"),
        (lambda state: state.pop("state"), "lacks 'state'"),
        (lambda state: state.update(optimizer="SGD"), "cannot be loaded into AdamW"),
    ],
)
def test_whole_state_that_does_not_fit_changes_nothing(spoil, told):
    named = [("a", netcl.ones(3, requires_grad=True)), ("b", netcl.ones(2, requires_grad=True))]
    shards = distributed.shard(named)
    optimizer = AdamW(shards)
    state = distributed.gather_state(optimizer, shards)
    spoil(state)
    before = snapshot(optimizer)
    with pytest.raises(StateError, match=re.escape(told)):
        distributed.scatter_state(optimizer, shards, state)
    assert snapshot(optimizer) == before


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (lambda _: AdamW([netcl.ones(3)]), "parameter 0 of group 0, of shape (3,), is no view of these shards"),
        (optim.Adafactor, "Adafactor takes values of whole tensors or of all of them"),
        (optim.LBFGS, "LBFGS takes values of whole tensors or of all of them"),
        (lambda shards: shards, "optimizer must be one of netcl.optim"),
    ],
)
def test_optimizers_whose_state_cannot_be_gathered(optimizer, told):
    shards = distributed.shard([netcl.ones(3)])
    for call in (distributed.gather_state, distributed.scatter_state):
        with pytest.raises(netcl.errors.NetclError) as refusal:
            call(optimizer(shards), shards)
        assert told in str(refusal.value)


def test_names_of_shards_are_their_own():
    with pytest.raises(netcl.errors.DistributedError, match="two parameters called 'a'"):
        distributed.shard([("a", netcl.ones(3)), ("a", netcl.ones(2))])


def test_a_world_of_one_leaves_everything_as_it_is():
    model = nn.Linear(3, 2).to("numpy")
    before = model.state_dict()
    opt = AdamW(model.parameters(), lr=1e-3)
    parallel = distributed.DataParallel(model, opt)
    with parallel.no_sync(), ag.Tape() as tape:
        loss = netcl.sum(parallel(netcl.ones((1, 3), device="numpy")))
    tape.backward(loss)
    distributed.all_reduce_gradients(opt)
    assert model.bias.grad.tolist() == [1.0, 1.0]
    assert all((model.state_dict()[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("sent", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("stored", [netcl.float32, netcl.float64, netcl.float16, netcl.bfloat16], ids=str)
def test_parts_are_added_in_the_order_of_ranks(stored, sent):
    wire_format = WireFormat(stored, sent)
    random = np.random.default_rng(0)
    wide = random.standard_normal((4, 100)) * [[1e4], [1.0], [-1e4], [1e-4]]
    narrow = np.dtype("uint16" if stored is netcl.bfloat16 else stored.name)
    parts = []
    for row in wide:
        values = (row.astype(np.float32).view(np.uint32) >> 16) if stored is netcl.bfloat16 else row
        part = np.empty(100, wire_format.dtype)
        if wire_format.converts:
            wire_format.encode(values.astype(narrow), part)
        else:
            part[:] = values
        parts.append(part)
    results = []
    for own in range(4):
        copies = [part.copy() for part in parts]
        wire_format.add(copies, copies[own])
        results.append(copies[own].tobytes())
    assert len(set(results)) == 1  # whichever rank adds them up
    total = np.empty(100, narrow)
    sums = np.frombuffer(results[0], wire_format.dtype)
    if wire_format.converts:
        wire_format.decode(sums, total)
    else:
        total[:] = sums
    found = (total.astype(np.uint32) << 16).view(np.float32) if stored is netcl.bfloat16 else total
    width = min(stored.itemsize, 2 if sent else 8)
    relative = {2: 2e-2, 4: 1e-6, 8: 1e-14}[width]
    assert (np.abs(found - wide.sum(axis=0)) <= relative * np.abs(wide).sum(axis=0)).all()


def test_sixteen_bits_are_rounded_to_nearest_even():
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, np.nan, -np.inf, 3.4e38, -0.0], np.float32)
    expected = {
        "bfloat16": [1.0, 1 + 2**-6, 1 + 2**-7, np.nan, -np.inf, np.inf, 0.0],
        "float16": [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8, np.nan, -np.inf, np.inf, 0.0],
    }
    for name, rounded in expected.items():
        wire_format = WireFormat(netcl.float32, name)
        sent, found = np.empty(7, wire_format.dtype), np.empty(7, np.float32)
        wire_format.encode(values, sent)
        wire_format.decode(sent, found)
        np.testing.assert_array_equal(found, np.array(rounded, np.float32))


def test_a_wire_format_of_another_width_is_refused():
    with pytest.raises(DTypeError, match="float16 or bfloat16, got float64"):
        WireFormat(netcl.float32, "float64")


@pytest.mark.parametrize(("size", "ranks"), [(10, 3), (3, 4), (0, 2), (1024, 7)])
def test_shares_cover_everything_once(size, ranks):
    shares = even_shares(size, ranks)
    assert [start for start, _ in shares] == [sum(n for _, n in shares[:rank]) for rank in range(ranks)]
    assert sum(n for _, n in shares) == size
    assert max(n for _, n in shares) - min(n for _, n in shares) <= 1


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: distributed.init("numpy", timeout=0), "timeout must be a number, finite and greater than 0, got 0"),
        (
            lambda: distributed.reduce_metric(1.0, "median"),
            "op must be one of 'sum', 'mean', 'max', 'min', got 'median'",
        ),
        (lambda: distributed.shard([]), "shard() got no parameters"),
        (lambda: distributed.DistributedSampler(0), "the number of samples must be an integer of at least 1"),
        (lambda: distributed.DistributedSampler(3, remainder="half"), "one of 'repeat', 'drop', 'keep', got 'half'"),
        (lambda: distributed.DistributedSampler(3, seed=-1), "seed must be an integer of at least 0"),
        (lambda: distributed.all_reduce_gradients([3.0]), "takes Tensors, got 3.0"),
    ],
)
def test_refusals_name_value_and_rule(call, complaint):
    with pytest.raises((netcl.errors.NetclError, ValueError)) as refusal:
        call()
    assert complaint in str(refusal.value)
