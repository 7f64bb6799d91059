"""Fashion-MNIST: 70,000 grey 28 by 28 images of ten kinds of clothing, or the real subset that ships with netcl."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from netcl.data.idx import LARGEST, REMEDY, parse_idx, write_idx
from netcl.errors import ArgumentError
from netcl.files import read_regular
from netcl.validation import flag, shown

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Split: TypeAlias = Literal["train", "test"]

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SUBSET_PER_CLASS = {"train": 600, "test": 100}
SUBSET_SEED = 20170828

_log = logging.getLogger("netcl.data")


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images and their labels on the host.

    Attributes
    ----------
    images : numpy.ndarray of uint8, shape (n, 28, 28)
        0 is background, 255 is the brightest.
    labels : numpy.ndarray of int64, shape (n,)
        Positions in ``classes``.
    source : str
        Where the images come from: a folder, or ``"the subset shipped with netcl"``.
    classes : tuple of str
        Names of the labels.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    source: str
    classes: tuple[str, ...] = CLASSES

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What a DataLoader batches: images and labels."""
        return self.images, self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images of {self.images.shape[1:]}, source={self.source!r})"


@overload
def load_fashion_mnist(
    split: Split, *, root: str | os.PathLike[str] | None = None, subset: bool = False
) -> ImageSet: ...
@overload
def load_fashion_mnist(
    split: None = None, *, root: str | os.PathLike[str] | None = None, subset: bool = False
) -> tuple[ImageSet, ImageSet]: ...
def load_fashion_mnist(
    split: Split | None = None, *, root: str | os.PathLike[str] | None = None, subset: bool = False
) -> ImageSet | tuple[ImageSet, ImageSet]:
    """Load Fashion-MNIST from this machine, or the subset that ships with netcl. Nothing is fetched.

    Parameters
    ----------
    split : {"train", "test"}, optional
        One part; by default both, as a pair.
    root : path, optional
        A folder with the four idx files (``.gz`` or plain). By default the environment variable ``NETCL_DATA`` (the
        folder itself, or one that holds ``fashion-mnist/``), then ``/usr/share/datasets/fashion-mnist`` (Debian's
        package ``dataset-fashion-mnist``), then the subset.
    subset : bool, default False
        Take the subset of 6,000 training and 1,000 test images even if the full set is there.

    Returns
    -------
    ImageSet or (ImageSet, ImageSet)
        Their ``source`` says which images these are; a line of the log ``netcl.data`` says it too.

    Raises
    ------
    FileNotFoundError
        If ``root`` or ``NETCL_DATA`` is not a folder, ``root`` lacks the files, or a folder holds only some of them.
    ValueError
        If a file is damaged, or images and labels differ in number; the message names the file.

    Examples
    --------
    >>> from netcl.data import load_fashion_mnist
    >>> test = load_fashion_mnist("test", subset=True)
    >>> test
    ImageSet(1000 images of (28, 28), source='the subset shipped with netcl')
    >>> test.classes[test.labels[0]]
    'Trouser'

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", 2017, https://arxiv.org/abs/1708.07747
    """
    if split is not None and not (isinstance(split, str) and split in ("train", "test")):
        raise ArgumentError(f"split must be 'train', 'test' or None for both, got {shown(split)}")
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ArgumentError(f"root must be a path, got {shown(root)}")
    subset = flag("subset", subset)
    if subset and root is not None:
        raise ValueError(
            f"root={os.fspath(root)!r} names the full set and subset=True the shipped one; give one of them"
        )
    folder, source = (None, "") if subset else _find(root)
    if folder is None:
        from importlib import resources

        folder, source = resources.files("netcl.data") / "fashion_mnist", "the subset shipped with netcl"
    chosen: tuple[Split, ...] = ("train", "test") if split is None else (split,)
    parts = [_read(folder, part, source) for part in chosen]
    counts = ", ".join(f"{len(images):,} {part}" for part, images in zip(chosen, parts, strict=True))
    _log.info("Fashion-MNIST: %s images from %s", counts, source)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _candidates(root: str | os.PathLike[str] | None) -> Iterator[tuple[Path, str]]:
    if root is not None:
        yield Path(root), f"root={os.fspath(root)!r}"
        return
    configured = os.environ.get("NETCL_DATA")
    if configured:
        if not Path(configured).is_dir():
            raise FileNotFoundError(f"NETCL_DATA={configured!r} is not a folder; correct it or unset it")
        yield Path(configured) / "fashion-mnist", "NETCL_DATA"
        yield Path(configured), "NETCL_DATA"
    yield SYSTEM_FOLDER, "the system's data sets"


def _find(root: str | os.PathLike[str] | None) -> tuple[Traversable | None, str]:
    names = [name for pair in FILES.values() for name in pair]
    for folder, origin in _candidates(root):
        missing = [name for name in names if _existing(folder, name) is None]
        if not missing:
            return folder, str(folder)
        if len(missing) < len(names) or root is not None:
            raise FileNotFoundError(
                f"{folder} (from {origin}) lacks {', '.join(missing)}; a Fashion-MNIST folder holds {', '.join(names)}"
            )
    return None, ""


def _existing(folder: Traversable, name: str) -> Traversable | None:
    for candidate in (folder / name, folder / name.removesuffix(".gz")):
        if candidate.is_file():
            return candidate
    return None


def _read(folder: Traversable, split: Split, source: str) -> ImageSet:
    arrays = []
    for name, ndim in zip(FILES[split], (3, 1), strict=True):
        file = _existing(folder, name)
        if file is None:
            raise FileNotFoundError(f"{folder} lacks {name}; install netcl again")
        arrays.append(parse_idx(_content(file), str(file), ndim))
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} {split} images and {len(labels)} labels; fetch the set again")
    if labels.size and labels.max() >= len(CLASSES):
        raise ValueError(
            f"{folder / FILES[split][1]} holds label {labels.max()}; labels must lie in [0, {len(CLASSES)})"
        )
    return ImageSet(images, labels.astype(np.int64), source)


def _content(file: Traversable) -> bytes:
    if not isinstance(file, Path):  # in an archive
        return file.read_bytes()
    try:
        return read_regular(file, LARGEST)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise ValueError(f"{error}; {REMEDY}") from error


def draw_subset(full: ImageSet, per_class: int, seed: int = SUBSET_SEED) -> ImageSet:
    """The same number of images of every class, drawn with a seed and kept in their order in ``full``.

    Every image gets a 64-bit key from PCG64 (whose stream NumPy guarantees); each class keeps its smallest keys.

    Raises
    ------
    ValueError
        If a class has fewer than ``per_class`` images.
    """
    keys = np.random.PCG64(seed).random_raw(len(full))
    kept = []
    for label, name in enumerate(full.classes):
        members = np.flatnonzero(full.labels == label)
        if len(members) < per_class:
            raise ValueError(f"class {name!r} has {len(members)} images, {per_class} were asked for")
        kept.append(members[np.argsort(keys[members], kind="stable")[:per_class]])
    order = np.sort(np.concatenate(kept))
    return ImageSet(full.images[order], full.labels[order], f"{per_class} per class of {full.source}", full.classes)


def write_subset(root: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Draw the shipped subset from the full set in ``root`` and write its four files to ``target``."""
    for split, full in zip(("train", "test"), load_fashion_mnist(root=root), strict=True):
        part = draw_subset(full, SUBSET_PER_CLASS[split])
        for name, array in zip(FILES[split], (part.images, part.labels.astype(np.uint8)), strict=True):
            with Path(target, name).open("wb") as file:
                write_idx(file, array)
