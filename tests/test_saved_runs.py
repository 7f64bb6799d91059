"""netcl.save and netcl.load: a run goes on bit for bit, and no file is half written or half believed."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netcl
import netcl.autograd as ag
from netcl import nn, optim
from netcl.amp import GradScaler
from netcl.checkpoint.safetensors import CODES, PAIRS, Elements, Reader, header, write
from netcl.child_process import run_python
from netcl.data import DataLoader
from netcl.errors import ArgumentError, StateError
from netcl.host_dtypes import STORAGE
from netcl.optim import SGD, Adam, AdamW, CosineAnnealingLR, ReduceLROnPlateau, RMSProp

OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: Adam(p, lr=1e-2, amsgrad=True),
    "AdamW": lambda p: AdamW(p, lr=1e-2),
    "RMSProp": lambda p: RMSProp(p, lr=1e-2, momentum=0.5, centered=True),
}


class Run:
    """A small training with everything that has a state."""

    def __init__(self, optimizer: str, seed: int = 0) -> None:
        netcl.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.optimizer = OPTIMIZERS[optimizer](self.model.named_parameters())
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=20)
        self.scaler = GradScaler(256.0, growth_interval=7)
        values = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
        self.loader = DataLoader((values, np.arange(40) % 2), 8, shuffle=True, seed=3)

    @property
    def parts(self):
        return {name: getattr(self, name) for name in ("model", "optimizer", "schedule", "scaler", "loader")}

    def go(self, start: int, end: int) -> None:
        step = start
        while step < end:
            for x, y in self.loader:
                with ag.Tape() as tape:
                    loss = ag.cross_entropy(self.model(x), y)
                tape.backward(self.scaler.scale(loss))
                self.scaler.step(self.optimizer, max_norm=1.0)
                self.scaler.update()
                self.optimizer.zero_grad()
                self.schedule.step()
                step += 1
                if step == end:
                    return

    def everything(self):
        weights = {name: array.tobytes() for name, array in self.model.state_dict().items()}
        others = [repr(self.parts[name].state_dict()) for name in ("optimizer", "schedule", "scaler", "loader")]
        return weights, others, netcl.random.get_state()


@pytest.mark.short(optimizer=["momentum", "AdamW"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_bit_for_bit(optimizer, backend, tmp_path):
    with netcl.use_backend(backend):
        straight = Run(optimizer)
        straight.go(0, 40)
        begun = Run(optimizer)
        begun.go(0, 18)  # within an epoch
        netcl.save(tmp_path / "run.safetensors", **begun.parts, extra={"step": 18})
        resumed = Run(optimizer, seed=99)
        assert netcl.load(tmp_path / "run.safetensors", **resumed.parts) == {"step": 18}
        resumed.go(18, 40)
        expected = straight.everything()
        assert resumed.everything()[:2] == expected[:2]


KINDS = [
    kind
    for name, kind in vars(optim).items()
    if name in optim.__all__
    and name != "RMSprop"
    and isinstance(kind, type)
    and issubclass(kind, optim.Optimizer)
    and kind not in (optim.Optimizer, optim.LBFGS)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_optimizer_goes_on(kind, tmp_path, monkeypatch):
    """With a scaler and a schedule; L-BFGS, which takes neither, has a test of its own."""

    def make(named):
        matrices = [(name, p) for name, p in named if p.ndim == 2]
        return kind(matrices if kind is optim.Muon else named, lr=1e-2)

    monkeypatch.setitem(OPTIMIZERS, "kind", lambda named: make(list(named)))
    with netcl.use_backend("numpy"):
        begun = Run("kind")
        begun.go(0, 9)
        netcl.save(tmp_path / "run", **begun.parts)
        straight = Run("kind")
        straight.go(0, 20)
        resumed = Run("kind", seed=9)
        netcl.load(tmp_path / "run", **resumed.parts)
        resumed.go(9, 20)
        assert resumed.everything()[:2] == straight.everything()[:2]


def test_lbfgs_goes_on(tmp_path):
    def start():
        w = netcl.asarray([3.0, -2.0], requires_grad=True)
        return w, optim.LBFGS([("w", w)], lr=0.1, max_iter=3, history_size=2)

    def go(w, optimizer, steps):
        def closure():
            optimizer.zero_grad()
            with ag.Tape() as tape:
                loss = netcl.sum((w - 1.0) ** 4)
            tape.backward(loss)
            return loss

        for _ in range(steps):
            optimizer.step(closure)

    with netcl.use_backend("numpy"):
        straight, begun, resumed = start(), start(), start()
        go(*straight, 8)
        go(*begun, 4)
        netcl.save(tmp_path / "f", model={"w": begun[0]}, optimizer=begun[1])
        resumed[0][...] = netcl.asarray(netcl.load(tmp_path / "f")["model"]["w"])
        netcl.load(tmp_path / "f", optimizer=resumed[1])
        go(*resumed, 4)
        assert resumed[0].tolist() == straight[0].tolist()


IN_A_NEW_PROCESS = """
import sys
sys.path.insert(0, sys.argv[2])
import netcl
from tests.test_saved_runs import Run
netcl.set_backend(sys.argv[3])
run = Run("AdamW", seed=5)
start = netcl.load(sys.argv[1], **run.parts)
run.go(start, 40)
print(hash_of := __import__("hashlib").sha256(repr(run.everything()[:2]).encode()).hexdigest())
"""


def test_a_run_goes_on_in_a_new_process(backend, tmp_path):
    from hashlib import sha256
    from pathlib import Path

    name = str(backend.device)
    if name.split(":")[0] not in ("numpy", "opencl"):
        return  # a backend of the tests alone, which no other process knows
    with netcl.use_backend(backend):
        begun = Run("AdamW")
        begun.go(0, 20)
        netcl.save(tmp_path / "run", **begun.parts, extra=20)
        straight = Run("AdamW")
        straight.go(0, 40)
    root = Path(__file__).resolve().parents[1]
    code = f"exec({IN_A_NEW_PROCESS!r})"
    outcome = run_python(code, str(tmp_path / "run"), str(root), name, timeout=120)
    assert outcome.status == 0, outcome
    assert outcome.output.split()[-1] == sha256(repr(straight.everything()[:2]).encode()).hexdigest()


def test_a_run_goes_on_from_one_backend_on_another(backend, tmp_path):
    with netcl.use_backend("numpy"):
        begun = Run("AdamW")
        begun.go(0, 20)
        netcl.save(tmp_path / "run", **begun.parts)
        begun.go(20, 40)
    with netcl.use_backend(backend):
        resumed = Run("AdamW", seed=4)
        netcl.load(tmp_path / "run", **resumed.parts)
        resumed.go(20, 40)
        for name, values in begun.model.state_dict().items():
            np.testing.assert_allclose(resumed.model.state_dict()[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


# Values


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.text(max_size=4) | st.integers() | st.booleans() | st.floats(allow_nan=False)
PLAIN = LEAVES
for _ in range(3):  # levels
    PLAIN = (
        LEAVES
        | st.lists(PLAIN, max_size=3)
        | st.lists(PLAIN, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)
        | st.dictionaries(KEYS, PLAIN, max_size=3)
    )


def test_a_header_of_any_length_is_no_file_of_torch(tmp_path):
    """640 is 0x0280, as pickles begin."""
    lengths = set()
    for size in range(0, 400, 4):
        netcl.save(tmp_path / "file", extra="x" * size)
        lengths.add(struct.unpack("<Q", (tmp_path / "file").read_bytes()[:8])[0])
        assert netcl.load(tmp_path / "file")["extra"] == "x" * size
    assert 640 in lengths


def same(a, b):
    if isinstance(a, dict):
        return (
            type(b) is dict and len(a) == len(b) and all(same(*pair) for pair in zip(a.items(), b.items(), strict=True))
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


@given(value=PLAIN)
@settings(max_examples=60, deadline=None)
def test_plain_data_comes_back_as_it_was(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("plain") / "file"
    netcl.save(file, extra=value)
    assert same(netcl.load(file)["extra"], value)


@pytest.mark.parametrize("dtype", netcl.dtypes.ALL, ids=str)
def test_arrays_keep_dtype_shape_and_bits(dtype, tmp_path):
    with netcl.use_backend("numpy"):
        tensors = [
            netcl.asarray(np.arange(size).reshape(shape) % 2, dtype=dtype)
            for size, shape in ((6, (2, 3)), (0, (0, 4)), (1, ()))
        ]
        netcl.save(tmp_path / "file", extra=tensors)
        for tensor, back in zip(tensors, netcl.load(tmp_path / "file")["extra"], strict=True):
            assert (back.shape, back.tolist()) == (tensor.shape, tensor.tolist())
            assert back.dtype.name == ("float32" if dtype is netcl.bfloat16 else dtype.name)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", np.array(["text"]), np.array([None]), netcl.complex128, print],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_data_is_refused_before_anything_is_written(value, tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(StateError, match=r"extra/deep/0"):
        netcl.save(tmp_path / "file", extra={"deep": [value]})
    assert (tmp_path / "file").read_bytes() == b"before"


def test_data_that_holds_itself_is_refused(tmp_path):
    held: list = []
    held.append(held)
    with pytest.raises(StateError, match="nested"):
        netcl.save(tmp_path / "file", extra=held)


def test_complex_numbers_of_128_bits_are_pairs_of_floats_to_others(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    file, values = tmp_path / "file", np.array([[1 + 2j, -0.0 - 0.0j], [complex("nan+infj"), 5e-324j]])
    write(file, {"c": Elements(netcl.complex128, values), "a": Elements(netcl.float64, np.arange(2.0))}, {"own": "x"})
    theirs = safetensors.load_file(file)
    assert theirs["c"].tobytes() == values.tobytes()
    assert (theirs["c"].shape, theirs["a"].tolist()) == ((2, 2, 2), [0.0, 1.0])
    with Reader(file) as reader:
        assert reader.metadata == {"own": "x"}
        back = reader.read("c")
        assert (back.dtype, back.stored.tobytes()) == (netcl.complex128, values.tobytes())
        assert reader.read("a").dtype is netcl.float64


def test_places_beyond_four_gigabytes(tmp_path):
    """Of tensors with faked sizes: what is reckoned, and one read from a file with a hole."""
    sizes = {"a": (netcl.float32, (10_000, 1_000_000)), "b": (netcl.uint8, ((1 << 32) + 3,)), "c": (netcl.uint8, (5,))}
    begin, order = header(sizes, {})
    assert order == ["a", "b", "c"]
    ends = [4 * 10**10, 4 * 10**10 + (1 << 32) + 3, 4 * 10**10 + (1 << 32) + 8]
    entries = json.loads(begin[8:])
    assert [entries[name]["data_offsets"] for name in order] == [[0, ends[0]], ends[:2], ends[1:]]
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.write(begin)
        try:
            out.truncate(len(begin) + ends[2])
        except OSError:
            pytest.skip("a file system without files of 44 GB")
        out.seek(-5, os.SEEK_END)
        out.write(b"netcl")
    with Reader(file) as reader:
        assert reader.tensors["b"].bytes == (1 << 32) + 3
        assert reader.read("c").stored.tobytes() == b"netcl"


@pytest.mark.parametrize("dtype", [netcl.float16, netcl.bfloat16, netcl.float32], ids=str)
def test_weights_keep_their_bits(dtype, backend, tmp_path):
    if not backend.supports(dtype):
        return
    with netcl.use_backend(backend):
        a, b = (nn.Linear(5, 3, dtype=dtype) for _ in range(2))
        netcl.save(tmp_path / "w", model=a)
        with Reader(tmp_path / "w") as reader:
            assert {name: place.dtype for name, place in reader.tensors.items()} == {"weight": dtype, "bias": dtype}
        netcl.load(tmp_path / "w", model=b)
        assert a.weight.numpy().tobytes() == b.weight.numpy().tobytes()
        c = nn.Linear(5, 3, dtype=netcl.float32 if dtype is not netcl.float32 else netcl.bfloat16)
        before = c.weight.numpy()
        with pytest.raises(StateError, match=rf"{dtype}.*convert"):
            netcl.load(tmp_path / "w", model=c)
        assert (c.weight.numpy() == before).all()


def test_several_models_and_optimizers_in_one_file(tmp_path):
    with netcl.use_backend("numpy"):
        made = [{"g": nn.Linear(2, 2), "d": nn.Linear(2, 1)} for _ in range(2)]
        optimizers = [{name: AdamW(model.parameters()) for name, model in models.items()} for models in made]
        netcl.save(tmp_path / "f", model=made[0], optimizer=optimizers[0])
        netcl.load(tmp_path / "f", model=made[1], optimizer=optimizers[1])
        assert (made[0]["d"].weight.numpy() == made[1]["d"].weight.numpy()).all()
        with pytest.raises(StateError, match="optimizer"):
            netcl.load(tmp_path / "f", model=made[1], optimizer=optimizers[1]["g"])


# All or nothing


@pytest.mark.parametrize("broken", ["model", "optimizer", "schedule", "scaler", "loader"])
def test_a_part_that_does_not_fit_leaves_all_as_it_was(broken, tmp_path):
    with netcl.use_backend("numpy"):
        run = Run("AdamW")
        run.go(0, 7)
        netcl.save(tmp_path / "run", **run.parts)
        other = Run("AdamW", seed=8)
        other.go(0, 3)
        parts = dict(other.parts)
        if broken == "model":
            parts["model"] = nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 2))
        elif broken == "optimizer":
            parts["optimizer"] = RMSProp(nn.Linear(4, 8).parameters())
        elif broken == "schedule":
            parts["schedule"] = ReduceLROnPlateau(other.optimizer)
        elif broken == "scaler":
            parts["scaler"] = CosineAnnealingLR(other.optimizer, T_max=3)
        else:
            parts["loader"] = DataLoader(np.arange(12), 2)
        everything = other.everything()
        with pytest.raises(StateError):
            netcl.load(tmp_path / "run", **parts)
        assert repr(other.everything()) == repr(everything)


def test_the_state_dict_of_an_optimizer_is_saved_as_the_optimizer(tmp_path):
    with netcl.use_backend("numpy"):
        run = Run("AdamW")
        run.go(0, 3)
        netcl.save(tmp_path / "one", optimizer=run.parts["optimizer"])
        netcl.save(tmp_path / "other", optimizer=run.parts["optimizer"].state_dict())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_part_that_the_file_lacks_is_named(tmp_path):
    with netcl.use_backend("numpy"):
        run = Run("SGD")
        netcl.save(tmp_path / "f", model=run.model)
        with pytest.raises(StateError, match="holds no optimizer; it holds model"):
            netcl.load(tmp_path / "f", model=run.model, optimizer=run.optimizer)


@pytest.mark.parametrize("path", [None, 3, b"bytes", "", "a\0b"], ids=repr)
def test_a_path_is_a_path(path):
    for call in (netcl.load, netcl.save):
        with pytest.raises(ArgumentError, match="path must name a file"):
            call(path)


@pytest.mark.parametrize(
    "value",
    [3, "text", object(), [1], {"a": 1}, {1: nn.ReLU()}, print, np.ones(2)],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("name", ["model", "optimizer", "schedule", "scaler", "loader", "wait", "strict"])
def test_parts_are_what_has_a_state(name, value, tmp_path):
    with netcl.use_backend("numpy"):
        run = Run("SGD")
        netcl.save(tmp_path / "f", **run.parts)
        before = (tmp_path / "f").read_bytes()
        if isinstance(value, dict) and 1 in value and name != "model":
            return  # a Module has a state
        calls = {"wait": (netcl.save,), "strict": (netcl.load,)}.get(name, (netcl.save, netcl.load))
        for call in calls:
            with pytest.raises((ArgumentError, StateError), match=name):
                call(tmp_path / "f", **{name: value})
        assert (tmp_path / "f").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 4), ("seed", 1), ("shuffle", False), ("samples", 9), ("drop_last", 1), ("epoch", -1), ("batch", 6),
     ("batch", 0.5), ("epoch", "0"), ("surplus", 1)],
)  # fmt: skip
def test_a_loader_of_other_batches_refuses_the_place(name, value):
    loader = Run("SGD").loader
    next(iter(loader))
    state = loader.state_dict()
    for bad in (state | {name: value}, {k: v for k, v in state.items() if k != "epoch"}, None, []):
        with pytest.raises(StateError):
            loader.load_state_dict(bad)
    assert loader.state_dict() == state


# Files from elsewhere, and for elsewhere


def test_the_format_is_that_of_safetensors(tmp_path):
    from safetensors.numpy import load_file, save_file

    arrays = {
        name: np.arange(6).reshape(2, 3).astype(name)
        for name in (
            "float64",
            "float32",
            "float16",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint64",
            "uint32",
            "uint8",
            "bool",
        )
    }
    save_file(arrays, tmp_path / "theirs")
    ours = netcl.load(tmp_path / "theirs")["model"]
    assert {name: (a.dtype, a.tobytes()) for name, a in ours.items()} == {
        n: (a.dtype, a.tobytes()) for n, a in arrays.items()
    }
    netcl.save(tmp_path / "ours", model=arrays, extra={"x": np.ones(2)})
    theirs = load_file(tmp_path / "ours")
    assert {name: theirs[name].tobytes() for name in arrays} == {name: a.tobytes() for name, a in arrays.items()}
    assert set(theirs) == {*arrays, "extra/x"}


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_torch_goes_on_from_a_run_and_back(name, tmp_path):
    torch = pytest.importorskip("torch")
    ours_of = {"SGD": lambda p: SGD(p, lr=0.1, momentum=0.9), "Adam": Adam, "AdamW": AdamW, "RMSprop": RMSProp}[name]
    theirs_of = {"SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}.get(name, getattr(torch.optim, name))
    with netcl.use_backend("numpy"):
        ours = nn.Linear(3, 2)
        opt = ours_of(ours.parameters())

        def step_ours(model, optimizer):
            with ag.Tape() as tape:
                loss = netcl.sum(model(netcl.ones((4, 3))) ** 2)
            tape.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

        step_ours(ours, opt)
        theirs = torch.nn.Linear(3, 2)
        theirs.load_state_dict(netcl.to_torch_state_dict(ours))
        their_opt = theirs_of(theirs.parameters())
        their_opt.load_state_dict(netcl.to_torch_state_dict(opt))
        for _ in range(2):
            step_ours(ours, opt)
            their_opt.zero_grad()
            (theirs(torch.ones(4, 3)) ** 2).sum().backward()
            their_opt.step()
        np.testing.assert_allclose(theirs.weight.detach().numpy(), ours.weight.numpy(), rtol=2e-5, atol=1e-6)
        torch.save({"model": theirs.state_dict(), "optimizer": their_opt.state_dict()}, tmp_path / "run.pt")
        back = nn.Linear(3, 2)
        back_opt = ours_of(back.parameters())
        netcl.load(tmp_path / "run.pt", model=back, optimizer=back_opt)
        assert (back.weight.numpy() == theirs.weight.detach().numpy()).all()
        torch.save(theirs.state_dict(), tmp_path / "weights.pt")
        netcl.load(tmp_path / "weights.pt", model=back)


def test_bfloat16_of_torch_comes_and_goes(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(3, 2).to(torch.bfloat16)
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    with netcl.use_backend("numpy"):
        ours = nn.Linear(3, 2, dtype=netcl.bfloat16)
        netcl.load(tmp_path / "w.pt", model=ours)
        back = netcl.to_torch_state_dict(ours)
        assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())


# Files that are not sound


def whole(tensors: dict, data: bytes, **metadata) -> bytes:
    entries = {"__metadata__": metadata, **tensors} if metadata else tensors
    return framed(json.dumps(entries).encode(), data)


def framed(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def blocks(tensors=None, data=bytes(260), **changes):
    """A file with three numbers in 8 bits, and what is to be otherwise; what is None is left out."""
    held = {"bits": 8, "signed": True, "shape": [3], "codes": {"$tensor": "c"}, "scales": {"$tensor": "s"}} | changes
    held = {name: value for name, value in held.items() if value is not None}
    run = {"layout": 2, "weights": None, "parts": {"optimizer": {"$blocks": held}}}
    stored = {"s": entry("F32", (1,), (0, 4)), "c": entry("U8", (1, 256), (4, 260))} | (tensors or {})
    stored = {name: each for name, each in stored.items() if each is not None}
    return whole(stored, data, netcl=json.dumps(run))


ALONE = {"s": None, "c": entry("U8", (1, 256), (0, 256))}
"""Codes without scales."""


def scale(value):
    return struct.pack("<f", value) + bytes(256)


HOSTILE = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": struct.pack("<Q", 0),
    "header beyond the file": struct.pack("<Q", 1 << 62) + b"{}",
    "header of all memory": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "no brace": framed(b" {}"),
    "no JSON": framed(b"{nothing"),
    "no UTF-8": framed(b'{"\xff": 1}'),
    "a list": framed(b"[]"),
    "a number": framed(b"{}1"),
    "NaN": framed(b'{"a": NaN}'),
    "deep": framed(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "a name twice": framed(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "an offset twice": framed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}}', bytes(8)),
    "overlap": whole({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "the same place": whole({"a": entry(), "b": entry()}, bytes(8)),
    "hole": whole({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "hole at the start": whole({"a": entry(offsets=(4, 12))}, bytes(12)),
    "tail": whole({"a": entry()}, bytes(9)),
    "truncated": whole({"a": entry()}, bytes(7)),
    "beyond the end": whole({"a": entry(offsets=(0, 1 << 40))}, bytes(8)),
    "backwards": whole({"a": entry(offsets=(8, 0))}, bytes(8)),
    "negative": whole({"a": entry(offsets=(-8, 0))}, bytes(8)),
    "fraction": whole({"a": entry(offsets=(0.0, 8.0))}, bytes(8)),
    "bool offset": whole({"a": entry(shape=(1,), dtype="U8", offsets=(False, True))}, bytes(1)),
    "three offsets": whole({"a": entry(offsets=(0, 8, 8))}, bytes(8)),
    "wrong size": whole({"a": entry(shape=(3,))}, bytes(8)),
    "negative extents": whole({"a": entry(shape=(-1, -2))}, bytes(8)),
    "huge extents": whole(
        {"a": entry(shape=(1 << 62, 1 << 62, 0), offsets=(0, 0))} | {"b": entry(shape=(1 << 80,))}, bytes(8)
    ),
    "a thousand extents": whole({"a": entry(shape=(1,) * 1000, offsets=(0, 4))}, bytes(4)),
    "a huge nothing": whole({"a": entry(shape=(0, 1 << 62), offsets=(0, 0))}, b""),
    "a million extents": whole({"a": entry(shape=(1,) * 1_000_000)}, bytes(8)),
    "unknown dtype": whole({"a": entry(dtype="F8_E4M3", shape=(8,))}, bytes(8)),
    "dtype is a number": whole({"a": entry(dtype=7)}, bytes(8)),
    "missing key": framed(b'{"a":{"dtype":"F32","shape":[2]}}', bytes(8)),
    "surplus key": whole({"a": entry() | {"more": 1}}, bytes(8)),
    "metadata of numbers": framed(b'{"__metadata__":{"a":1}}'),
    "metadata is a list": framed(b'{"__metadata__":[]}'),
    "a bool of 2": whole({"a": entry(dtype="BOOL", shape=(1,), offsets=(0, 1))}, b"\2"),
    "description of nothing": whole({}, b"", netcl="{}"),
    "description is no JSON": whole({}, b"", netcl="{"),
    "another layout": whole({}, b"", netcl='{"layout": 3, "parts": {}, "weights": null}'),
    "description of missing weights": whole({}, b"", netcl='{"layout": 1, "parts": {}, "weights": ["a"]}'),
    "description of a missing tensor": whole(
        {}, b"", netcl='{"layout":1,"weights":null,"parts":{"extra":{"$tensor":"a"}}}'
    ),
    "a mark of another": whole({}, b"", netcl='{"layout":1,"weights":null,"parts":{"extra":{"$pickle":"a"}}}'),
    "two marks": whole({}, b"", netcl='{"layout":1,"weights":null,"parts":{"extra":{"$tuple":[],"$float":"nan"}}}'),
    "items that are none": whole({}, b"", netcl='{"layout":1,"weights":null,"parts":{"extra":{"$items":[[[], 1]]}}}'),
    "pairs that are no JSON": whole({"a": entry("F64", (2,), (0, 16))}, bytes(16), **{PAIRS: "["}),
    "pairs that are no list": whole({"a": entry("F64", (2,), (0, 16))}, bytes(16), **{PAIRS: '{"a": 1}'}),
    "pairs of nothing": whole({}, b"", **{PAIRS: '["a"]'}),
    "pairs of F32": whole({"a": entry()}, bytes(8), **{PAIRS: '["a"]'}),
    "pairs of three": whole({"a": entry("F64", (3,), (0, 24))}, bytes(24), **{PAIRS: '["a"]'}),
    "pairs without axes": whole({"a": entry("F64", (), (0, 8))}, bytes(8), **{PAIRS: '["a"]'}),
    "pairs of lists": whole({"a": entry("F64", (2,), (0, 16))}, bytes(16), **{PAIRS: '[["a"]]'}),
    "a tensor named twice": whole(
        {"a": entry()}, bytes(8), netcl='{"layout":1,"weights":["a"],"parts":{"extra":{"$tensor":"a"}}}'
    ),
    "blocks of a tensor named twice": blocks(ALONE, bytes(256), scales={"$tensor": "c"}),
    "blocks that are no dict": whole({}, b"", netcl='{"layout":2,"weights":null,"parts":{"extra":{"$blocks":[]}}}'),
    "blocks without scales": blocks(ALONE, bytes(256)),
    "blocks that name no scales": blocks(ALONE, bytes(256), scales=None),
    "blocks with more": blocks(zero=0),
    "blocks without bits": blocks(bits=None),
    "blocks of 2 bits": blocks(bits=2),
    "blocks of True bits": blocks(bits=True),
    "blocks of 8.0 bits": blocks(bits=8.0),
    "blocks of 4 bits": blocks(bits=4),
    "blocks with a number as sign": blocks(signed=1),
    "blocks of no shape": blocks(shape=None),
    "blocks of a negative shape": blocks(shape=[-3]),
    "blocks of a shape in fractions": blocks(shape=[3.0]),
    "blocks of all memory": blocks(shape=[1 << 60, 1 << 60]),
    "blocks of a huge nothing": blocks(shape=[0, 1 << 62]),
    "blocks of a thousand axes": blocks(shape=[1] * 1000),
    "blocks of one number more": blocks(shape=[257]),
    "blocks of nothing": blocks(shape=[0]),
    "codes in a row": blocks({"c": entry("U8", (256,), (4, 260))}),
    "codes of 255": blocks({"c": entry("U8", (1, 255), (4, 259))}, bytes(259)),
    "codes of I8": blocks({"c": entry("I8", (1, 256), (4, 260))}),
    "scales of F16": blocks({"s": entry("F16", (1,), (0, 2)), "c": entry("U8", (1, 256), (2, 258))}, bytes(258)),
    "scales of two": blocks({"s": entry("F32", (2,), (0, 8)), "c": entry("U8", (1, 256), (8, 264))}, bytes(264)),
    "scales that are a number": blocks({"s": entry("F32", (), (0, 4))}),
    "a scale of NaN": blocks(data=scale(math.nan)),
    "an infinite scale": blocks(data=scale(math.inf)),
    "a negative scale": blocks(data=scale(-1.0)),
    "a deep description": whole(
        {}, b"", netcl='{"layout":1,"weights":null,"parts":{"extra":' + "[" * 900 + "]" * 900 + "}}"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_sound_is_refused(name, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(HOSTILE[name])
    with pytest.raises(StateError, match=re.escape(str(file)) + "|description"):
        netcl.load(file)


def test_blocks_of_which_nothing_was_spoiled_are_sound(tmp_path):
    (tmp_path / "file").write_bytes(blocks())
    assert netcl.load(tmp_path / "file")["optimizer"].tolist() == [0.0, 0.0, 0.0]


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing", "/dev/zero"):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory|No such file"):
            netcl.load(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_refused_or_another_sound_one(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("damaged") / "file"
    netcl.save(file, model={"a": np.arange(4.0), "b": np.ones((2, 2), bool)}, extra={"n": 3, "x": np.arange(3)})
    sound = file.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    at = data.draw(st.integers(0, len(sound) - 1))
    if kind == "cut":
        broken = sound[:at]
    elif kind == "flip":
        broken = sound[:at] + bytes([sound[at] ^ (1 << data.draw(st.integers(0, 7)))]) + sound[at + 1 :]
    else:
        broken = sound[:at] + data.draw(st.binary(min_size=1, max_size=9)) + sound[at:]
    file.write_bytes(broken)
    try:
        loaded = netcl.load(file)
    except StateError:
        return
    assert loaded
    assert kind == "flip"  # a bit of a value, a name or a number of the description


# Kills, and disks that are full

KILLS = """
import os, random, signal, sys, time
import numpy as np
import netcl
from netcl.checkpoint.safetensors import Reader
file, kills = sys.argv[1], int(sys.argv[2])
def save(number):
    values = np.full(20000, number, np.float32)
    netcl.save(file, model={"a": values, "b": values[:7]}, extra={"number": number, "c": values})
save(0)
draw, seen, last = random.Random(0), set(), 0
for kill in range(kills):
    child = os.fork()
    if not child:
        number = last
        while True:
            number += 1
            save(number)
    time.sleep(draw.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = netcl.load(file)
    number = loaded["extra"]["number"]
    arrays = [loaded["model"]["a"], loaded["model"]["b"], loaded["extra"]["c"]]
    assert all((array == number).all() for array in arrays), (kill, number)
    assert number >= last, (kill, number, last)
    seen.add(number - last)
    last = number
print(kills, "kills,", last, "saves,", len(os.listdir(os.path.dirname(file))), "files")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forks")
def test_a_killed_save_leaves_the_old_file_or_the_new_one(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    environment = {**os.environ, "NETCL_BACKEND": "numpy"}
    outcome = run_python(f"exec({KILLS!r})", str(folder / "run"), "300", timeout=300, environment=environment)
    assert outcome.status == 0, outcome
    kills, saves, files = (int(word) for word in re.findall(r"\d+", outcome.output))
    assert kills == 300
    assert saves > 10
    # What a kill leaves beside the file is hidden, and goes with a save of an hour later.
    left = [path for path in folder.iterdir() if path.name != "run"]
    assert len(left) == files - 1
    assert all(re.fullmatch(r"\.run\.[0-9a-f]{16}\.tmp", path.name) for path in left)
    if sys.platform == "linux":  # where a file has no name before it is whole
        for path in left:
            with Reader(path) as reader:
                assert reader.tensors


FULL = """
import resource, signal, sys
import numpy as np
import netcl
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = sys.argv[1]
netcl.save(file, extra=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for wait in (True, False):
    try:
        pending = netcl.save(file, extra=np.ones(100_000), wait=wait)
        pending.wait()
    except OSError as error:
        print(type(error).__name__, netcl.load(file)["extra"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
def test_a_full_disk_leaves_the_old_file_and_an_error(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    environment = {**os.environ, "NETCL_BACKEND": "numpy"}
    outcome = run_python(f"exec({FULL!r})", str(folder / "run"), timeout=60, environment=environment)
    assert outcome.status == 0, outcome
    assert outcome.output.split() == ["OSError", "1"] * 2
    assert [path.name for path in folder.iterdir()] == ["run"]


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        netcl.save(tmp_path / "missing" / "file", extra=1)


def test_writing_in_the_background(backend, tmp_path):
    with netcl.use_backend(backend):
        w = netcl.ones(1000, requires_grad=True)
        opt = SGD([w], lr=1.0)
        w.grad = netcl.ones(1000)
        pending = netcl.save(tmp_path / "f", model={"w": w}, optimizer=opt, wait=False)
        opt.step()  # after the copy
        pending.wait()
        assert pending.done
        assert (netcl.load(tmp_path / "f")["model"]["w"] == 1.0).all()


# The command


def test_inspect_tells_what_there_is_without_reading_it(tmp_path, capsys):
    from netcl.__main__ import main

    with netcl.use_backend("numpy"):
        run = Run("AdamW")
        netcl.save(tmp_path / "run", **run.parts, extra={"note": "hello"})
    assert main(["inspect", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for part in (
        "0.weight",
        "optimizer/state/0/exp_avg",
        "(8, 4)",
        "optimizer/param_groups/0/lr: 0.01",
        "extra/note: hello",
    ):
        assert part in text
    assert main(["inspect", "--json", str(tmp_path / "run")]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"]["0.bias"] == {"dtype": "float32", "shape": [8], "bytes": 32}
    write(tmp_path / "weights", {"a": Elements(CODES["F32"], np.ones(3, STORAGE[CODES["F32"]]))}, {"by": "hand"})
    assert main(["inspect", str(tmp_path / "weights")]) == 0
    assert "weights alone" in capsys.readouterr().out
    (tmp_path / "broken").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "broken")]) == 1
    assert "not a sound safetensors file" in textwrap.dedent(capsys.readouterr().err)
