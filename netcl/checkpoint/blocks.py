"""Numbers in blocks of 8 or 4 bits, as a file has them: one tensor of codes and one of scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netcl.backends import get_backend
from netcl.backends.base import BlockFormat, BlockSpan, Span
from netcl.checkpoint.safetensors import Elements, are_counts
from netcl.dtypes import DType, float32, uint8
from netcl.errors import StateError
from netcl.narrow_arrays import HostBlocks, NarrowArray, blocks_of_shape, narrow_array
from netcl.quantization import dequantize
from netcl.validation import shown


def decode_blocks(held: Any, tensor: Callable[[str], Elements]) -> NarrowArray:
    """The numbers of an entry ``$blocks``, with the blocks beside them; ``tensor`` gives a tensor by its name.

    Raises
    ------
    StateError
        If the entry is not one that :func:`netcl.save` writes, or its tensors do not fit it or hold no scales.
    """
    if not isinstance(held, dict) or set(held) != {"bits", "signed", "shape", "codes", "scales"}:
        raise _refused(f"{shown(held)} as $blocks, which must have bits, signed, shape, codes and scales")
    bits, signed, shape = held["bits"], held["signed"], held["shape"]
    if type(bits) is not int or bits not in (8, 4) or type(signed) is not bool or not are_counts(shape):
        raise _refused(
            f"blocks of bits={shown(bits)}, signed={shown(signed)} and shape={shown(shape)}, where bits are 8 or 4, "
            "signed is true or false, and a shape is a list of integers of at least 0"
        )
    format = BlockFormat(bits, signed)
    rows, width = blocks_of_shape(tuple(shape), format)
    codes = _tensor("codes", held, tensor, uint8, (rows, width))
    scales = _tensor("scales", held, tensor, float32, (rows,))
    if not bool((np.isfinite(scales) & (scales >= 0.0)).all()):
        wrong = scales[~(np.isfinite(scales) & (scales >= 0.0))][0]
        raise _refused(f"the scale {wrong} in {held['scales']['$tensor']!r}; a scale is finite and at least 0")
    blocks = HostBlocks(codes, scales, format)
    flat = numbers(blocks).reshape(-1)[: math.prod(shape)]
    try:
        return narrow_array(flat.reshape(shape), blocks)
    except ValueError as error:  # NumPy's own limits
        raise _refused(f"blocks of a shape that no array can have ({error})") from None


def numbers(blocks: HostBlocks) -> NDArray[np.float32]:
    """What whole blocks are worth, one block in a row."""
    codes, scales, format = blocks
    shares = _shares(format)
    if format.per_byte == 1:
        found = shares[codes]
    else:
        found = np.stack([shares[codes & 15], shares[codes >> 4]], axis=-1).reshape(len(codes), format.block)
    found *= scales[:, None]
    return found


@cache
def _shares(format: BlockFormat) -> NDArray[np.float32]:
    """The share of a scale that each code is worth."""
    backend = get_backend("numpy")
    count = format.block // format.per_byte
    codes, scale, out = (
        Span(backend.alloc(n, dtype), 0, n) for n, dtype in ((count, uint8), (1, float32), (format.block, float32))
    )
    backend.upload(np.arange(count, dtype=np.uint8), codes)
    backend.fill(scale, 1.0)
    dequantize(backend, BlockSpan(codes, scale, format), out)
    # Of two codes in a byte, the low half runs through all of them.
    return np.array(backend.download(out)[:: format.per_byte][: 1 << format.bits], np.float32)


def _tensor(
    name: str, held: Any, tensor: Callable[[str], Elements], dtype: DType, shape: tuple[int, ...]
) -> NDArray[Any]:
    reference = held[name]
    if not isinstance(reference, dict) or set(reference) != {"$tensor"} or not isinstance(reference["$tensor"], str):
        raise _refused(f"{shown(reference)} as {name} of blocks, which must name a tensor")
    found = tensor(reference["$tensor"])
    if found.dtype is not dtype or found.stored.shape != shape:
        raise _refused(
            f"{reference['$tensor']!r} of {found.dtype} and shape {found.stored.shape} as {name} of blocks, where "
            f"shape {tuple(held['shape'])} in {held['bits']} bits takes {dtype} and {shape}"
        )
    return found.stored


def _refused(what: str) -> StateError:
    return StateError(f"the checkpoint's description has {what}; restore it from a copy, or save it again")
