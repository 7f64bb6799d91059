"""The idx format of the MNIST family: a magic number, the extents, then the bytes.

Layout: two zero bytes, a type code (8 for uint8), the number of axes, one big-endian uint32 per extent, the data in
row-major order. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

UINT8 = 8


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
        If the file is truncated, damaged or not an idx file of uint8 with ``ndim`` axes. The message names it.

    Examples
    --------
    >>> from netcl.data.idx import parse_idx
    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), "labels", 1)
    array([7, 8, 9], dtype=uint8)
    """
    remedy = "fetch the file again"
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{name} is a truncated or damaged gzip file ({error}); {remedy}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise ValueError(
            f"{name} is not an idx file: it starts with {raw[:4].hex(' ')!r}, not with two zero bytes; {remedy}"
        )
    code, axes = raw[2], raw[3]
    if code != UINT8 or axes != ndim:
        raise ValueError(
            f"{name} must hold uint8 (code {UINT8}) with {ndim} axes, it holds code {code} with {axes} axes; "
            "check that images and labels are not exchanged"
        )
    header = 4 + 4 * ndim
    if len(raw) < header:
        raise ValueError(f"{name} is truncated: its header has {len(raw)} bytes instead of {header}; {remedy}")
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", raw[4:header])
    found, expected = len(raw) - header, math.prod(shape)
    if found != expected:
        raise ValueError(f"{name} must hold {expected} bytes of data for its shape {shape}, it holds {found}; {remedy}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def write_idx(file: BinaryIO, array: NDArray[np.uint8]) -> None:
    """Write ``array`` as a gzip-compressed idx file; the same array gives the same bytes (with one zlib version)."""
    header = bytes([0, 0, UINT8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    file.write(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))
