"""State in 16, 8 and 4 bits on disk: kept as it is, taken up bit for bit, refused by name where a file is damaged."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import netcl
from netcl import optim
from netcl.backends import get_backend
from netcl.backends.base import BlockSpan
from netcl.checkpoint.safetensors import Reader, read_all, write
from netcl.dtypes import float32, int8
from netcl.errors import StateError
from tests.snapshots import snapshot

OPTIMIZERS = {
    "Adam": lambda p, **more: optim.Adam(p, lr=1e-2, weight_decay=0.1, **more),
    "AdamW": lambda p, **more: optim.AdamW(p, lr=1e-2, **more),
    "AMSGrad": lambda p, **more: optim.AdamW(p, lr=1e-2, amsgrad=True, **more),
    "Lion": lambda p, **more: optim.Lion(p, lr=1e-3, **more),
    "momentum": lambda p, **more: optim.SGD(p, lr=1e-2, momentum=0.9, **more),
    # Its padding does not start at zero.
    "Adagrad": lambda p, **more: optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.5, **more),
}
SHAPES = {"a": (60, 50), "b": (7,), "c": (1, 129), "none": (0,)}


def made(kind, device, seed=0, **options):
    rng = np.random.default_rng(seed)
    named = []
    for name, shape in SHAPES.items():
        p = netcl.asarray(rng.standard_normal(shape).astype("f4"), device=device, copy=True)
        p.requires_grad = True
        named.append((name, p))
    return dict(named), OPTIMIZERS[kind](named, **options)


def go(parameters, optimizer, begin, end):
    for step in range(begin, end):
        rng = np.random.default_rng(step)
        for p in parameters.values():
            values = rng.standard_normal(p.shape) * np.linspace(1e-3, 1, p.size).reshape(p.shape)
            p.grad = netcl.asarray(values.astype("f4"), device=p.device)
        optimizer.step()


def bits(optimizer):
    """Codes and scales of every field of every parameter, with the padding in its last block."""
    (partition,) = optimizer.partitions
    found = {}
    for name, field in partition.fields.spans.items():
        for segment in partition.arena.layout.segments:
            own = field.part(segment.offset, segment.size)
            memory = (own.codes, own.scales) if isinstance(own, BlockSpan) else (own,)
            found[name, segment.offset] = [partition.backend.download(x).tobytes() for x in memory]
    return found


def dtypes(file):
    with Reader(file) as reader:
        return {name: place.dtype.name for name, place in reader.tensors.items()}


def everything(parameters, optimizer):
    return {name: p.numpy().tobytes() for name, p in parameters.items()}, bits(optimizer)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit", "4bit"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_goes_on_bit_for_bit(kind, state_dtype, backend, tmp_path):
    straight = made(kind, backend.device, state_dtype=state_dtype)
    go(*straight, 0, 20)
    netcl.save(tmp_path / "run", model=straight[0], optimizer=straight[1])
    resumed = made(kind, backend.device, seed=9, state_dtype=state_dtype)
    netcl.load(tmp_path / "run", optimizer=resumed[1])
    for name, values in netcl.load(tmp_path / "run")["model"].items():
        resumed[0][name][...] = netcl.asarray(values, device=backend.device)
    assert everything(*resumed) == everything(*straight)
    for run in (straight, resumed):
        go(*run, 20, 40)
    assert everything(*resumed) == everything(*straight)


@pytest.mark.parametrize(("state_dtype", "most"), [("bfloat16", 4.1), ("8bit", 2.1), ("4bit", 1.1)])
def test_bytes_of_a_file_for_each_element(state_dtype, most, backend, tmp_path):
    p = netcl.ones(1 << 20, device=backend.device, requires_grad=True)
    optimizer = optim.AdamW([p], state_dtype=state_dtype)
    p.grad = netcl.ones(p.shape, device=backend.device)
    optimizer.step()
    netcl.save(tmp_path / "run", optimizer=optimizer)
    assert (tmp_path / "run").stat().st_size <= most * p.size


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit", "4bit"])
def test_a_file_alone_gives_plain_numbers(state_dtype, backend, tmp_path):
    parameters, optimizer = made("AdamW", backend.device, state_dtype=state_dtype)
    go(parameters, optimizer, 0, 5)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    state = netcl.load(tmp_path / "run")["optimizer"]["state"]
    for index, entry in optimizer.state_dict()["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            assert type(entry[name]) is type(state[index][name]) is np.ndarray
            assert state[index][name].dtype == np.float32
            assert state[index][name].flags.writeable
            np.testing.assert_allclose(state[index][name], entry[name], rtol=3e-7)
    held = dtypes(tmp_path / "run")
    expected = {"bfloat16"} if state_dtype == "bfloat16" else {"uint8", "float32"}
    assert {dtype for name, dtype in held.items() if "/exp_avg" in name} == expected


@pytest.mark.parametrize("after", [None, "bfloat16", "8bit", "4bit"])
@pytest.mark.parametrize("before", [None, "bfloat16", "8bit", "4bit"])
def test_a_file_fits_whatever_its_state_was_kept_in(before, after, backend, tmp_path):
    """As state_dict() does, of which it is the numbers."""
    parameters, optimizer = made("AdamW", backend.device, state_dtype=before)
    go(parameters, optimizer, 0, 5)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    by_file, by_dict = (made("AdamW", backend.device, state_dtype=after)[1] for _ in range(2))
    netcl.load(tmp_path / "run", optimizer=by_file)
    by_dict.load_state_dict(optimizer.state_dict())
    for index, entry in by_dict.state_dict()["state"].items():
        for name, values in entry.items():
            found = by_file.state_dict()["state"][index][name]
            np.testing.assert_allclose(found, values, rtol=3e-7 if after in (None, before) else 0.3)
    assert by_file.param_groups[0]["state_dtype"] == after


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit", "4bit"])
def test_what_state_is_kept_in_goes_from_one_backend_to_another(state_dtype, backend, tmp_path):
    parameters, optimizer = made("AdamW", backend.device, state_dtype=state_dtype)
    go(parameters, optimizer, 0, 5)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    for device in (get_backend("numpy").device, backend.device):
        other = made("AdamW", device, state_dtype=state_dtype)[1]
        netcl.load(tmp_path / "run", optimizer=other)
        assert bits(other) == bits(optimizer)


def test_several_optimizers_as_one_keep_their_blocks(tmp_path):
    first, second = (made(kind, "numpy", state_dtype="8bit") for kind in ("AdamW", "Lion"))
    for run in (first, second):
        go(*run, 0, 3)
    labels = {"first": first[1], "second": optim.MultiSteps(second[1], every_k=1)}
    netcl.save(tmp_path / "run", optimizer=labels)
    expected = bits(first[1]), bits(second[1])
    for run in (first, second):
        go(*run, 3, 5)
    netcl.load(tmp_path / "run", optimizer=labels)
    assert (bits(first[1]), bits(second[1])) == expected


def test_groups_of_several_formats_keep_theirs(tmp_path):
    def built():
        tensors = [netcl.ones(n, device="numpy", requires_grad=True) for n in (300, 400)]
        groups = [{"params": [p], "state_dtype": kind} for p, kind in zip(tensors, ("8bit", None), strict=True)]
        return dict(enumerate(tensors)), optim.AdamW(groups)

    parameters, optimizer = built()
    go(parameters, optimizer, 0, 3)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    names = [name for name in dtypes(tmp_path / "run") if name.endswith("/codes")]
    assert sorted(names) == ["optimizer/state/0/exp_avg/codes", "optimizer/state/0/exp_avg_sq/codes"]
    other = built()[1]
    netcl.load(tmp_path / "run", optimizer=other)
    assert snapshot(other)[0] == snapshot(optimizer)[0]


def test_what_a_hook_changed_is_saved_as_it_says(tmp_path):
    """An array that a hook puts in the place of another has no blocks of that."""
    parameters, optimizer = made("AdamW", "numpy", state_dtype="8bit")
    go(parameters, optimizer, 0, 3)

    def halved(optimizer, state):
        for entry in state["state"].values():
            entry["exp_avg"] = entry["exp_avg"] * 0.5
        return state

    wanted = optimizer.state_dict()["state"][0]["exp_avg"] * 0.5
    optimizer.register_state_dict_post_hook(halved)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    np.testing.assert_array_equal(netcl.load(tmp_path / "run")["optimizer"]["state"][0]["exp_avg"], wanted)


def test_what_a_blow_up_left_loads_again(backend, tmp_path):
    parameters, optimizer = made("AdamW", backend.device, state_dtype="8bit")
    for p in parameters.values():
        p.grad = netcl.full(p.shape, math.inf, device=p.device)
    optimizer.step()
    netcl.save(tmp_path / "run", optimizer=optimizer)
    assert not np.isfinite(netcl.load(tmp_path / "run")["optimizer"]["state"][0]["exp_avg"]).all()
    netcl.load(tmp_path / "run", optimizer=optimizer)


def changed(name, change):
    """A tensor of the file, changed."""

    def spoil(tensors, run):
        at = f"optimizer/state/0/exp_avg_sq/{name}"
        tensors[at] = change(tensors[at])

    return spoil


def described(**changes):
    """The entry of a field, changed."""

    def spoil(tensors, run):
        (_, first), *_ = run["parts"]["optimizer"]["state"]["$items"]
        first["exp_avg_sq"]["$blocks"] |= changes

    return spoil


def stored(values):
    def change(elements):
        made = elements.stored.copy()
        made[-1] = values
        return elements._replace(stored=made)

    return change


DAMAGES = {
    "codes of one block less": changed("codes", lambda e: e._replace(stored=e.stored[:-1])),
    "codes of another width": changed("codes", lambda e: e._replace(stored=e.stored[:, :-1].copy())),
    "codes in one row": changed("codes", lambda e: e._replace(stored=e.stored.reshape(-1))),
    "codes of int8": changed("codes", lambda e: e._replace(dtype=int8, stored=e.stored.view(np.int8))),
    "codes in full": changed("codes", lambda e: e._replace(dtype=float32, stored=e.stored.astype("f4"))),
    "scales of one block more": changed("scales", lambda e: e._replace(stored=np.append(e.stored, np.float32(1)))),
    "a scale of NaN": changed("scales", stored(math.nan)),
    "an infinite scale": changed("scales", stored(math.inf)),
    "a negative scale": changed("scales", stored(-1.0)),
    "another shape": described(shape=[3001]),
    "the shape of another model": described(shape=[50, 60]),
    "all memory": described(shape=[1 << 62]),
    "another format": described(bits=4),
    "squares with a sign": described(signed=True),
    "the codes of another": described(codes={"$tensor": "optimizer/state/1/exp_avg_sq/codes"}),
    "no codes": described(codes=None),
    "more than there is": described(zero_points=[0]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_changes_nothing(name, tmp_path):
    parameters, optimizer = made("AdamW", "numpy", state_dtype="8bit")
    go(parameters, optimizer, 0, 3)
    netcl.save(tmp_path / "run", optimizer=optimizer)
    with Reader(tmp_path / "run") as reader:
        tensors, run = read_all(reader), json.loads(reader.metadata["netcl"])
    DAMAGES[name](tensors, run)
    write(tmp_path / "run", tensors, {"netcl": json.dumps(run)})
    go(parameters, optimizer, 3, 4)
    before, held = snapshot(optimizer), bits(optimizer)
    with pytest.raises(StateError, match=r"exp_avg_sq|description"):
        netcl.load(tmp_path / "run", optimizer=optimizer)
    assert snapshot(optimizer) == before
    assert bits(optimizer) == held


def test_a_file_of_before_loads(tmp_path):
    """In full, as netcl wrote state in few bits until it kept the codes."""
    parameters, optimizer = made("AdamW", "numpy", state_dtype="8bit")
    go(parameters, optimizer, 0, 3)
    with Reader(_saved(tmp_path / "new", optimizer)) as reader:
        assert json.loads(reader.metadata["netcl"])["layout"] == 2
    _, plain = made("AdamW", "numpy")
    plain.load_state_dict(optimizer.state_dict())
    with Reader(_saved(tmp_path / "old", plain)) as reader:
        assert json.loads(reader.metadata["netcl"])["layout"] == 1
    other = made("AdamW", "numpy", seed=3, state_dtype="8bit")[1]
    netcl.load(tmp_path / "old", optimizer=other)
    assert snapshot(other)[0]["state"] == snapshot(optimizer)[0]["state"]


def _saved(file, optimizer):
    netcl.save(file, optimizer=optimizer)
    return file


def test_inspect_says_what_blocks_are(tmp_path, capsys):
    from netcl.__main__ import main

    _, optimizer = made("AdamW", "numpy", state_dtype="4bit")
    assert main(["inspect", str(_saved(tmp_path / "run", optimizer))]) == 0
    text = capsys.readouterr().out
    for part in ("optimizer/state/0/exp_avg/codes", "(24, 64)", "exp_avg: shape [60, 50] in 4 bits, signed"):
        assert part in text
