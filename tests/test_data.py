"""Loaders, the idx format and the Fashion-MNIST subset."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import logging
import math
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netcl
from netcl.data import ArrayDataset, DataLoader, fashion, idx, load_fashion_mnist

SUBSET = files("netcl.data") / "fashion_mnist"
SHA256 = {
    "t10k-images-idx3-ubyte.gz": "9188822f2fd4ed687adc6dfeb131d3d92c7cdb870ea663523cb6d372e94867e7",
    "t10k-labels-idx1-ubyte.gz": "a92bc8d61e5e5ccfcd337b96c085d6f2723956ef75f8e9d8cfbd1e33228b8a9e",
    "train-images-idx3-ubyte.gz": "6db3daacd936b4e8fde89f100c4b995616ff3d28aa8f2eb95e235ac9aa134725",
    "train-labels-idx1-ubyte.gz": "9a1490568f20be4409a7e4fb91cf242cc72c9f0d5fcf6ae95e4535ec804376f5",
}
SOURCE = "the subset shipped with netcl"


# ---- the shipped subset


@pytest.mark.parametrize("name", SHA256)
def test_subset_files_are_the_ones_that_were_drawn(name):
    assert hashlib.sha256((SUBSET / name).read_bytes()).hexdigest() == SHA256[name]


def test_subset_is_small_and_names_licence_and_origin():
    assert sum(len(file.read_bytes()) for file in SUBSET.iterdir()) < 4_000_000
    assert "Zalando" in (SUBSET / "LICENSE").read_text(encoding="utf-8")
    assert str(fashion.SUBSET_SEED) in (SUBSET / "README").read_text(encoding="utf-8")


def test_subset_is_stratified():
    train, test = load_fashion_mnist(subset=True)
    assert np.bincount(train.labels).tolist() == [600] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.images.shape == (6000, 28, 28)
    assert test.images.shape == (1000, 28, 28)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert len(np.unique(train.images.reshape(6000, -1), axis=0)) == 6000


@pytest.fixture
def folder(tmp_path):
    """A small but complete Fashion-MNIST folder: every image holds its own number, labels go round."""
    for split, n in (("train", 50), ("test", 30)):
        images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 28, 28))
        for name, array in zip(fashion.FILES[split], (images, np.arange(n, dtype=np.uint8) % 10), strict=True):
            with (tmp_path / name).open("wb") as file:
                idx.write_idx(file, np.ascontiguousarray(array))
    return tmp_path


def test_draw_subset_keeps_images_with_their_labels_in_order(folder):
    full = load_fashion_mnist("train", root=folder)
    drawn = fashion.draw_subset(full, 2)
    numbers = drawn.images[:, 0, 0]
    assert np.bincount(drawn.labels).tolist() == [2] * 10
    assert (np.diff(numbers.astype(int)) > 0).all()
    assert (numbers % 10 == drawn.labels).all()
    assert np.array_equal(fashion.draw_subset(full, 2).images, drawn.images)
    assert not np.array_equal(fashion.draw_subset(full, 2, seed=1).images, drawn.images)


def test_draw_subset_refuses_more_than_there_are(folder):
    with pytest.raises(ValueError, match="'T-shirt/top' has 5 images, 6 were asked for"):
        fashion.draw_subset(load_fashion_mnist("train", root=folder), 6)


@pytest.mark.skipif(not fashion.SYSTEM_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_subset_is_what_its_readme_says():
    for split, full in zip(("train", "test"), load_fashion_mnist(root=fashion.SYSTEM_FOLDER), strict=True):
        drawn = fashion.draw_subset(full, fashion.SUBSET_PER_CLASS[split])
        shipped = load_fashion_mnist(split, subset=True)
        assert np.array_equal(drawn.images, shipped.images)
        assert np.array_equal(drawn.labels, shipped.labels)


def test_subset_loads_from_a_zip(tmp_path, monkeypatch):
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("zipped/__init__.py", "")
        for name in SHA256:
            target.writestr(f"zipped/fashion_mnist/{name}", (SUBSET / name).read_bytes())
    monkeypatch.syspath_prepend(str(archive))
    monkeypatch.setattr("importlib.resources.files", lambda _: files("zipped"))
    assert load_fashion_mnist("test", subset=True).images.shape == (1000, 28, 28)
    del sys.modules["zipped"]


# ---- where the images come from


def test_source_is_said_in_attribute_and_log(folder, caplog):
    with caplog.at_level(logging.INFO, "netcl.data"):
        full = load_fashion_mnist("test", root=folder)
        shipped = load_fashion_mnist("test", subset=True)
    assert (full.source, shipped.source) == (str(folder), SOURCE)
    assert [record.getMessage() for record in caplog.records] == [
        f"Fashion-MNIST: 30 test images from {folder}",
        f"Fashion-MNIST: 1,000 test images from {SOURCE}",
    ]


def test_search_order(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(fashion, "SYSTEM_FOLDER", Path("/nonexistent"))
    monkeypatch.delenv("NETCL_DATA", raising=False)
    assert load_fashion_mnist("test").source == SOURCE
    monkeypatch.setattr(fashion, "SYSTEM_FOLDER", folder)
    assert load_fashion_mnist("test").source == str(folder)
    collection = tmp_path_factory.mktemp("collection")
    monkeypatch.setenv("NETCL_DATA", str(collection))
    assert load_fashion_mnist("test").source == str(folder), "a NETCL_DATA without the set is passed over"
    (collection / "fashion-mnist").symlink_to(folder)
    assert load_fashion_mnist("test").source == str(collection / "fashion-mnist")
    monkeypatch.setattr(fashion, "SYSTEM_FOLDER", Path("/nonexistent"))
    monkeypatch.setenv("NETCL_DATA", str(folder))
    assert load_fashion_mnist("test").source == str(folder)


def test_plain_idx_files_are_read_too(folder):
    before = load_fashion_mnist("test", root=folder)
    for file in list(folder.glob("*.gz")):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert np.array_equal(load_fashion_mnist("test", root=folder).images, before.images)


def test_refusals_of_the_search(folder, monkeypatch):
    with pytest.raises(ValueError, match="split must be 'train', 'test' or None for both, got 'dev'"):
        load_fashion_mnist("dev")
    with pytest.raises(ValueError, match="give one of them"):
        load_fashion_mnist(root=folder, subset=True)
    with pytest.raises(FileNotFoundError, match="lacks train-images"):
        load_fashion_mnist(root=folder / "elsewhere")
    monkeypatch.setenv("NETCL_DATA", "/nonexistent")
    with pytest.raises(FileNotFoundError, match="NETCL_DATA='/nonexistent' is not a folder; correct it or unset it"):
        load_fashion_mnist()
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    monkeypatch.setenv("NETCL_DATA", str(folder))
    with pytest.raises(FileNotFoundError, match=r"from NETCL_DATA\) lacks t10k-labels-idx1-ubyte.gz;"):
        load_fashion_mnist()


# ---- damaged files


def damage(file: Path, change) -> str:
    file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes()))))
    return str(file)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda raw: raw[:-1], r"must hold 30 bytes of data for its shape \(30,\), it holds 29"),
        (lambda raw: raw + b"x", "it holds 31"),
        (lambda raw: raw[:6], "is truncated: its header has 6 bytes instead of 8"),
        (lambda raw: b"PK" + raw[2:], "is not an idx file: it starts with '50 4b 08 01'"),
        (lambda raw: b"", "is not an idx file"),
        (lambda raw: b"\0\0\x0d" + raw[3:], "must hold uint8 .* it holds code 13 with 1 axes"),
        (lambda raw: raw[:8] + b"\x63" * 30, "holds label 99"),
        (lambda raw: b"\0\0\x08\x01\0\0\0\x02\1\2", "30 test images and 2 labels"),
    ],
)
def test_a_damaged_file_is_named(folder, change, complaint):
    name = damage(folder / "t10k-labels-idx1-ubyte.gz", change)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_fashion_mnist("test", root=folder)
    assert str(folder) in str(caught.value)
    assert name in str(caught.value) or "images and 2 labels" in str(caught.value)


@pytest.mark.parametrize("keep", [5, 15, 60])
def test_a_truncated_gzip_file_is_named(folder, keep):
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"images-idx3-ubyte.gz is a truncated or damaged gzip file \(.+\); fetch"):
        load_fashion_mnist("test", root=folder)


def test_a_flipped_bit_is_noticed(folder):
    file = folder / "t10k-images-idx3-ubyte.gz"
    raw = bytearray(file.read_bytes())
    raw[-6] ^= 1  # in the checksum
    file.write_bytes(raw)
    with pytest.raises(ValueError, match="truncated or damaged gzip"):
        load_fashion_mnist("test", root=folder)


def test_exchanged_files_are_noticed(folder):
    images, labels = (folder / name for name in fashion.FILES["test"])
    content = labels.read_bytes()
    labels.write_bytes(images.read_bytes())
    images.write_bytes(content)
    with pytest.raises(ValueError, match="check that images and labels are not exchanged"):
        load_fashion_mnist("test", root=folder)


def header(*shape: int) -> bytes:
    return bytes([0, 0, idx.UINT8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


BOMBS = {
    # What the header says, and how many zeros follow in fact.
    "more than it says": ((10,), 1 << 31, "must hold 10 bytes of data for its shape"),
    "much more than it says": ((2, 28, 28), 1 << 31, "it holds 1569 or more"),
    "as much as it says": ((1 << 31,), 1 << 31, f"must hold at most {idx.LARGEST} bytes"),
    "less than it says": ((idx.LARGEST,), 1 << 10, "it holds 1024;"),
    "absurd": (((1 << 32) - 1,) * 3, 0, f"must hold at most {idx.LARGEST} bytes"),
    "absurd and empty": (((1 << 32) - 1, (1 << 32) - 1, 1), 1 << 10, f"must hold at most {idx.LARGEST} bytes"),
}


def bomb(start: bytes, size: int) -> bytes:
    """A gzip file of these bytes and so many zeros, a thousandth of their size; a large one has no end."""
    pieces, rest = divmod(size, 1 << 24)
    if not pieces:
        return gzip.compress(start + bytes(rest))
    opening, block = zlib.compressobj(9, zlib.DEFLATED, 31), zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = block.compress(bytes(1 << 24)) + block.flush(zlib.Z_FULL_FLUSH)  # stands for itself, so it can be repeated
    return opening.compress(start) + opening.flush(zlib.Z_FULL_FLUSH) + piece * pieces


@pytest.mark.parametrize("case", BOMBS)
def test_a_file_takes_no_more_memory_than_its_header_declares(case):
    shape, size, complaint = BOMBS[case]
    raw = bomb(header(*shape), size)
    assert len(raw) < 1 << 22
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=complaint) as caught:
            idx.parse_idx(raw, "the file", len(shape))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith("the file ")
    assert "fetch the file again" in str(caught.value)
    assert peak < 1 << 23


SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@given(shape=SHAPES, packed=st.booleans())
def test_a_whole_file_gives_its_array(shape, packed):
    data = bytes(range(math.prod(shape)))
    content = header(*shape) + data
    array = idx.parse_idx(gzip.compress(content) if packed else content, "the file", len(shape))
    assert (array.shape, array.tobytes(), array.flags.writeable) == (tuple(shape), data, False)


@given(shape=SHAPES, packed=st.booleans(), changed=st.data())
def test_a_file_that_is_cut_or_has_something_behind_it_is_refused(shape, packed, changed):
    content = header(*shape) + bytes(range(math.prod(shape)))
    wrong = changed.draw(
        st.one_of(
            st.integers(0, len(content) - 1).map(lambda end: content[:end]),
            st.binary(min_size=1, max_size=40).map(lambda tail: content + tail),
        )
    )
    raw = gzip.compress(wrong) if packed else wrong
    with pytest.raises(ValueError, match=r"^the file .*(fetch the file again|not exchanged)"):
        idx.parse_idx(raw, "the file", len(shape))
    if packed:
        with pytest.raises(ValueError, match=r"^the file "):
            idx.parse_idx(gzip.compress(content) + b"x", "the file", len(shape))


@pytest.mark.parametrize("kind", ["huge", "folder"])
def test_what_is_no_file_of_a_data_set_is_refused(folder, kind):
    file = folder / "t10k-labels-idx1-ubyte.gz"
    if kind == "huge":
        os.truncate(file, 1 << 40)
        with pytest.raises(ValueError, match=r"labels-idx1-ubyte.gz has 1099511627776 bytes, more than .* fetch"):
            load_fashion_mnist("test", root=folder)
    else:
        file.unlink()
        file.mkdir()
        with pytest.raises(FileNotFoundError, match="lacks t10k-labels"):
            load_fashion_mnist("test", root=folder)


# ---- loaders


def numbers(loader) -> list[list[int]]:
    return [batch[0].numpy().tolist() for batch in loader]


def test_batches_cover_the_set_in_order(backend):
    x, y = np.arange(10, dtype=np.float32).reshape(10, 1), np.arange(10)
    loader = DataLoader((x, y), batch_size=4, device=backend)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [tuple(part.shape for part in batch) for batch in batches] == [((4, 1), (4,))] * 2 + [((2, 1), (2,))]
    assert np.array_equal(np.concatenate([part.numpy() for part, _ in batches]), x)
    assert np.array_equal(np.concatenate([part.numpy() for _, part in batches]), y)
    assert {str(part.device) for batch in batches for part in batch} == {str(batches[0][0].device)}
    assert {(batch[0].dtype, batch[1].dtype) for batch in batches} == {(netcl.float32, netcl.int64)}


@pytest.mark.parametrize(("n", "size", "drop_last", "expected"), [
    (10, 3, False, [3, 3, 3, 1]), (10, 3, True, [3, 3, 3]), (9, 3, True, [3, 3, 3]), (2, 3, False, [2]),
    (2, 3, True, []), (0, 3, False, []),
])  # fmt: skip
def test_batch_sizes(n, size, drop_last, expected):
    loader = DataLoader(np.arange(n), size, drop_last=drop_last, device="numpy")
    assert [len(batch) for batch in numbers(loader)] == expected
    assert len(loader) == len(expected)


def test_shuffling_is_new_each_epoch_and_repeatable(backend):
    def loader(seed):
        return DataLoader(np.arange(50), 8, shuffle=True, seed=seed, device=backend)

    first = loader(3)
    epochs = [numbers(first) for _ in range(3)]
    assert all(sorted(itertools.chain(*epoch)) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = loader(3)
    assert [numbers(again) for _ in range(3)] == epochs
    resumed = loader(3)
    resumed.set_epoch(2)
    assert numbers(resumed) == epochs[2]
    assert numbers(loader(4)) != epochs[0]


def test_shuffled_rows_stay_together():
    x = np.random.default_rng(0).normal(size=(40, 3))
    for a, b in DataLoader((x, x.sum(1)), 7, shuffle=True, device="numpy"):
        np.testing.assert_allclose(a.numpy().sum(1), b.numpy())


def test_a_batch_is_no_view_of_the_data():
    x = np.zeros((4, 2), np.float32)
    (batch,) = next(iter(DataLoader(x, 4, device="numpy")))
    x += 1
    assert not batch.numpy().any()


def test_default_device_is_the_one_at_iteration(backend):
    loader = DataLoader(np.arange(4), 2)
    with netcl.use_backend(backend):
        (batch,) = next(iter(loader))
        assert batch.device == netcl.zeros(1).device


class Squares:
    """A data set of samples."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full(2, index, np.float32), index * index


def test_samples_are_stacked():
    batches = list(DataLoader(Squares(), 2, device="numpy"))
    assert batches[1][0].numpy().tolist() == [[2, 2], [3, 3]]
    assert batches[1][1].numpy().tolist() == [4, 9]
    assert numbers(DataLoader(range(5), 3, device="numpy")) == [[0, 1, 2], [3, 4]]


def test_image_sets_are_batched():
    x, y = next(iter(DataLoader(load_fashion_mnist("test", subset=True), 16, device="numpy")))
    assert (x.shape, x.dtype, y.dtype) == ((16, 28, 28), netcl.uint8, netcl.int64)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: DataLoader(np.zeros(3), 0), "batch_size must be an integer of at least 1, got 0"),
        (lambda: DataLoader(np.zeros(3), seed=-1), "seed must be an integer of at least 0 .* got -1"),
        (lambda: DataLoader(np.zeros(3)).set_epoch(-1), "epoch must be an integer of at least 0 .* got -1"),
        (lambda: DataLoader((np.zeros(3), np.zeros(4))), r"same first extent, got shapes \[\(3,\), \(4,\)\]"),
        (lambda: DataLoader(()), "at least one array"),
        (lambda: ArrayDataset(np.float32(1)), "at least one array"),
    ],
)
def test_loader_refusals(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_loader_refuses_what_is_no_data():
    with pytest.raises(TypeError, match="__len__ and __getitem__, got 3"):
        DataLoader(3)


# ---- progress


def test_progress_callable_wraps_the_batches():
    seen = []

    def progress(batches, total):
        seen.append(total)
        for number, batch in enumerate(batches):
            seen.append(number)
            yield batch

    loader = DataLoader(np.arange(5), 2, device="numpy", progress=progress)
    assert numbers(loader) == [[0, 1], [2, 3], [4]]
    assert seen == [3, 0, 1, 2]


def test_progress_bar_yields_the_same():
    pytest.importorskip("tqdm")
    assert numbers(DataLoader(np.arange(3), 2, device="numpy", progress=True)) == [[0, 1], [2]]


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "netcl\[progress\]"'):
        DataLoader(np.arange(3), progress=True)


def test_a_sampler_chooses_the_samples():
    class Odd:
        def __len__(self):
            return 3

        def order(self, epoch):
            return np.array([5, 1, 3]) if epoch else np.array([1, 3, 5])

    loader = DataLoader(np.arange(6.0), batch_size=2, sampler=Odd(), device="numpy")
    assert len(loader) == 2
    assert [[x.tolist() for (x,) in loader] for _ in range(2)] == [[[1, 3], [5]], [[5, 1], [3]]]
    with pytest.raises(ValueError, match="pass shuffle=True to the sampler"):
        DataLoader(np.arange(6.0), shuffle=True, sampler=Odd())
