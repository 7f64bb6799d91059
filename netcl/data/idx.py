"""The idx format of the MNIST family: a magic number, the extents, then the bytes.

Layout: two zero bytes, a type code (8 for uint8), the number of axes, one big-endian uint32 per extent, the data in
row-major order. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

UINT8 = 8

REMEDY = "fetch the file again"

LARGEST = 1 << 28
"""Bytes of data that a file may hold, five times those of the largest of MNIST and its like (60,000 images)."""

_STEP = 1 << 20
"""Bytes that are decompressed at a time, so that memory grows with what is there and not with what a header says."""


def parse_idx(raw: bytes, name: str, ndim: int) -> NDArray[np.uint8]:
    """Turn the (gzip-compressed or plain) bytes of an idx file into an array.

    Parameters
    ----------
    raw : bytes
        The whole file.
    name : str
        What messages call the file.
    ndim : int
        How many axes the array must have: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray of uint8, read-only

    Raises
    ------
    ValueError
        If the file is truncated, damaged or not an idx file of uint8 with ``ndim`` axes, or holds more than its header
        says or than :data:`LARGEST` bytes. The message names it. Nothing is decompressed beyond that.

    Examples
    --------
    >>> from netcl.data.idx import parse_idx
    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), "labels", 1)
    array([7, 8, 9], dtype=uint8)
    """
    if raw[:2] != b"\x1f\x8b":
        return _parse(io.BytesIO(raw), name, ndim)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            return _parse(stream, name, ndim)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{name} is a truncated or damaged gzip file ({error}); {REMEDY}") from error


def _parse(stream: BinaryIO | gzip.GzipFile, name: str, ndim: int) -> NDArray[np.uint8]:
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise ValueError(
            f"{name} is not an idx file: it starts with {start.hex(' ')!r}, not with two zero bytes; {REMEDY}"
        )
    code, axes = start[2], start[3]
    if code != UINT8 or axes != ndim:
        raise ValueError(
            f"{name} must hold uint8 (code {UINT8}) with {ndim} axes, it holds code {code} with {axes} axes; "
            "check that images and labels are not exchanged"
        )
    extents = stream.read(4 * ndim)
    if len(extents) < 4 * ndim:
        raise ValueError(
            f"{name} is truncated: its header has {4 + len(extents)} bytes instead of {4 + 4 * ndim}; {REMEDY}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", extents)
    expected = math.prod(shape)
    if expected > LARGEST:
        raise ValueError(f"{name} must hold at most {LARGEST} bytes, its shape {shape} has {expected}; {REMEDY}")
    data = bytearray()
    while len(data) <= expected:  # one more than there should be
        part = stream.read(min(_STEP, expected + 1 - len(data)))
        if not part:
            break
        data += part
    if len(data) != expected:
        found = f"{len(data)}" if len(data) < expected else f"{len(data)} or more"
        raise ValueError(f"{name} must hold {expected} bytes of data for its shape {shape}, it holds {found}; {REMEDY}")
    array = np.frombuffer(data, np.uint8).reshape(shape)
    array.setflags(write=False)
    return array


def write_idx(file: BinaryIO, array: NDArray[np.uint8]) -> None:
    """Write ``array`` as a gzip-compressed idx file; the same array gives the same bytes (with one zlib version)."""
    header = bytes([0, 0, UINT8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))
