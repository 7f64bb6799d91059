"""The safetensors format: eight bytes of length, a JSON header, and the elements of every tensor one after the other.

Reading trusts nothing: a header that is too long, names a key twice, overlaps, leaves a hole or does not end where the
file ends is refused before memory is taken for a tensor. Source: the format's own description, version 0.4.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netcl import dtypes
from netcl.dtypes import DType
from netcl.errors import StateError
from netcl.files import parse_json, write_atomically
from netcl.host_dtypes import STORAGE
from netcl.validation import shown

CODES: Mapping[str, DType] = {
    "F64": dtypes.float64,
    "F32": dtypes.float32,
    "F16": dtypes.float16,
    "BF16": dtypes.bfloat16,
    "I64": dtypes.int64,
    "I32": dtypes.int32,
    "I16": dtypes.int16,
    "I8": dtypes.int8,
    "U64": dtypes.uint64,
    "U32": dtypes.uint32,
    "U16": dtypes.uint16,
    "U8": dtypes.uint8,
    "BOOL": dtypes.bool_,
    "C64": dtypes.complex64,
}
"""The format's name of each dtype; complex128 has none, and is stored as :data:`PAIRS` says."""

PAIRS = "netcl.complex128"
"""The entry of the metadata that lists, in JSON, which tensors are of complex128: to the format they are of F64, with a
last axis of real and imaginary part."""

_NAMES = {dtype: code for code, dtype in CODES.items()}
_LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"


class Elements(NamedTuple):
    """A tensor on the host: its dtype, and its elements as they travel (bfloat16 as the uint16 of its bits)."""

    dtype: DType
    stored: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in a file: ``start`` and ``end`` count bytes from the end of the header."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def bytes(self) -> int:
        """What its elements take."""
        return self.end - self.start


def header(
    tensors: Mapping[str, tuple[DType, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The beginning of a file, with the length of the header, and the order in which the tensors follow.

    Wide elements come first, so that each tensor is aligned to its elements.

    Raises
    ------
    StateError
        If a tensor has the name of the metadata.
    """
    if _METADATA in tensors:
        raise StateError(f"a tensor cannot be called {_METADATA!r}, the name of a file's metadata; rename it")
    pairs = sorted(name for name, (dtype, _) in tensors.items() if dtype is dtypes.complex128)
    if pairs:
        metadata = {**metadata, PAIRS: json.dumps(pairs)}
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))
    entries: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    start = 0
    for name in order:
        dtype, shape = tensors[name]
        end = start + math.prod(shape) * dtype.itemsize
        code, stored = ("F64", [*shape, 2]) if dtype is dtypes.complex128 else (_NAMES[dtype], [*shape])
        entries[name] = {"dtype": code, "shape": stored, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, order


def write(path: Path, tensors: Mapping[str, Elements], metadata: Mapping[str, str]) -> None:
    """Write a file, whole or not at all. **Blocks** until the disk has it.

    Raises
    ------
    StateError
        As :func:`header`.
    OSError
        If the folder cannot be written to or the disk is full; an older file of that name is as it was.
    """
    begin, order = header({name: (dtype, stored.shape) for name, (dtype, stored) in tensors.items()}, metadata)

    def pieces() -> Iterator[Any]:
        yield begin
        for name in order:
            array = np.ascontiguousarray(tensors[name].stored)
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            yield little.reshape(-1).view(np.uint8).data

    write_atomically(path, pieces())


class Reader:
    """A file whose header was checked, to read tensors from. A context manager.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StateError
        If it is not a whole safetensors file; the message says where it is not.
    OSError
        If it cannot be opened, or is no regular file.

    Attributes
    ----------
    tensors : dict of str to Place
    metadata : dict of str to str
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _regular(path)
        try:
            size = os.fstat(self._file.fileno()).st_size
            text = self._header(size)
            self._begin = 8 + len(text)
            self.metadata, self.tensors = self._parsed(text, size - self._begin)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, name: str) -> Elements:
        """The elements of a tensor. **Blocks**.

        Raises
        ------
        StateError
            If the file ends too early, a bool is neither 0 nor 1, or no array has such a shape.
        """
        place = self.tensors[name]
        self._file.seek(self._begin + place.start)
        raw = np.empty(place.bytes, np.uint8)
        if self._file.readinto(raw.data) != place.bytes:
            raise self._refused(f"it ended within {name!r}; it was changed while it was read")
        if place.dtype is dtypes.bool_ and bool((raw > 1).any()):
            raise self._refused(f"{name!r} is of bools and has a byte {raw.max()}")
        storage = STORAGE[place.dtype]
        array = raw.view(storage.newbyteorder("<")).astype(storage, copy=False)
        try:
            return Elements(place.dtype, array.reshape(place.shape))
        except ValueError as error:  # NumPy's own limits
            raise self._refused(f"{name!r} has a shape that no array can have ({error})") from None

    def _header(self, size: int) -> bytes:
        if size < 8:
            raise self._refused(f"it has {size} byte(s), and the length of its header alone takes 8")
        (length,) = struct.unpack("<Q", self._file.read(8))
        if length > min(size - 8, _LONGEST_HEADER):
            raise self._refused(
                f"it announces a header of {length} bytes, and there can be {min(size - 8, _LONGEST_HEADER)} at most"
            )
        text = self._file.read(length)
        if len(text) != length or text[:1] != b"{":
            raise self._refused("its header does not begin with {")
        return text

    def _parsed(self, text: bytes, data: int) -> tuple[dict[str, str], dict[str, Place]]:
        try:
            entries = parse_json(text.decode())
        except ValueError as error:  # of JSON, and of UTF-8
            raise self._refused(f"its header is not JSON: {error}") from None
        metadata = entries.pop(_METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._refused(f"its metadata must map names to strings, got {shown(metadata)}")
        tensors = {name: self._place(name, entry) for name, entry in entries.items()}
        at = 0
        for name, place in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
            if place.start != at:
                what = (
                    "overlaps the tensor before it"
                    if place.start < at
                    else f"leaves a hole of {place.start - at} bytes"
                )
                raise self._refused(f"{name!r} begins at byte {place.start} of the data and {what}")
            at = place.end
        if at != data:
            raise self._refused(f"its tensors take {at} bytes and it has {data}; it is not whole, or has a tail")
        return metadata, tensors | self._pairs(metadata.pop(PAIRS, "[]"), tensors)

    def _pairs(self, listed: str, tensors: Mapping[str, Place]) -> dict[str, Place]:
        """The tensors whose pairs of 64-bit floats are complex numbers."""
        try:
            names = parse_json(listed)
        except ValueError as error:
            raise self._refused(f"the {PAIRS} of its metadata is not JSON: {error}") from None
        found = {}
        for name in names if isinstance(names, list) else [names]:
            place = tensors.get(name) if isinstance(name, str) else None
            if place is None or place.dtype is not dtypes.float64 or place.shape[-1:] != (2,):
                raise self._refused(
                    f"the {PAIRS} of its metadata must list tensors of F64 with a last axis of 2, got {shown(name)}"
                )
            found[name] = Place(dtypes.complex128, place.shape[:-1], place.start, place.end)
        return found

    def _place(self, name: str, entry: Any) -> Place:
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._refused(f"{name!r} must have dtype, shape and data_offsets, got {shown(entry)}")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str) or code not in CODES:
            raise self._refused(f"{name!r} has dtype {shown(code)}; the dtypes are {', '.join(CODES)}")
        if not are_counts(shape) or not are_counts(offsets) or len(offsets) != 2:
            raise self._refused(
                f"{name!r} must have a shape and two offsets of integers of at least 0, got {shown(shape)} and "
                f"{shown(offsets)}"
            )
        wanted = math.prod(shape) * CODES[code].itemsize
        if offsets[1] - offsets[0] != wanted:
            raise self._refused(
                f"{name!r} is {code} of shape {tuple(shape)}, which takes {wanted} bytes, and has the offsets "
                f"{offsets[0]} to {offsets[1]}"
            )
        return Place(CODES[code], tuple(shape), *offsets)

    def _refused(self, what: str) -> StateError:
        return StateError(
            f"{self._path} is not a sound safetensors file: {what}; restore it from a copy, or save again"
        )


def are_counts(values: Any) -> bool:
    """Whether this is a list of integers of at least 0, as a shape and offsets are."""
    # Extents of more than 64 bits would only serve to make the arithmetic slow.
    return isinstance(values, list) and len(values) <= 1024 and all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _regular(path: Path) -> io.BufferedReader:
    """The opened file; never waits, as a pipe could."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a regular file."""
    with _regular(path) as file:
        return file.read(count)


def read_all(reader: Reader, names: Iterable[str] | None = None) -> dict[str, Elements]:
    """Several tensors, by default all. **Blocks**."""
    chosen: Sequence[str] = list(reader.tensors if names is None else names)
    return {name: reader.read(name) for name in chosen}
