"""Plain data with arrays, as JSON beside tensors, and its way back.

None, bools, integers, floats, strings, lists, tuples and mappings go into the JSON text, arrays into tensors of their
own, named after the way to them. What JSON lacks is written as an object with one key that begins with ``$``:
``$tensor``, ``$float`` (NaN and infinities), ``$tuple``, ``$items`` (a mapping whose keys are not all plain strings),
and ``$blocks`` (numbers in few bits: their shape and format, and the tensors of codes and scales). Nothing is ever
executed by reading it, as a pickle would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netcl import dtypes
from netcl.array import Array
from netcl.checkpoint.blocks import decode_blocks
from netcl.checkpoint.safetensors import Elements
from netcl.errors import StateError
from netcl.functional.host import host_dtype, to_host
from netcl.host_dtypes import stored_as, values_of
from netcl.narrow_arrays import blocks_of, narrow_dtype_of
from netcl.validation import shown

_DEEPEST = 100


def elements_of(where: str, value: Any) -> Elements | None:
    """The elements of an array on the host, or None if it is no array. **Blocks** for one on a device.

    Raises
    ------
    StateError
        If it is an array of something other than numbers, or of another library than NumPy.
    """
    if isinstance(value, Array):
        return Elements(value.dtype, to_host(value))
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.name not in dtypes.BY_NAME:
            raise StateError(
                f"{where} is an array of {array.dtype}, which no tensor can hold; convert it with astype()"
            )
        return Elements(host_dtype(array), np.array(array, array.dtype.newbyteorder("="), order="C"))
    return None


def encode(where: str, value: Any, tensors: dict[str, Elements], depth: int = 0) -> Any:
    """``value`` as JSON can hold it, with its arrays added to ``tensors``.

    Parameters
    ----------
    where : str
        The way to it, such as ``"optimizer/state/0"``: in messages, and what an array is called.
    value : object
    tensors : dict of str to Elements
        Gets the arrays.

    Raises
    ------
    StateError
        If something in it is no plain data, or it is nested in more than 100 levels.
    """
    if depth > _DEEPEST:
        raise StateError(f"{where} is nested in more than {_DEEPEST} levels, or holds itself; keep it flat")
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, Mapping):
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        below = {key: encode(f"{where}/{key}", each, tensors, depth + 1) for key, each in value.items()}
        if plain:
            return below
        return {"$items": [[encode(f"a key of {where}", key, {}, depth + 1), each] for key, each in below.items()]}
    if isinstance(value, list | tuple):
        items = [encode(f"{where}/{i}", each, tensors, depth + 1) for i, each in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    blocks = blocks_of(value)
    # What a blow-up left is kept in full, so that scales which are not finite say that a file is damaged.
    if blocks is not None and bool(np.isfinite(blocks.scales).all()):
        codes, scales = (
            encode(f"{where}/{name}", part, tensors, depth + 1)
            for name, part in (("codes", blocks.codes), ("scales", blocks.scales))
        )
        return {"$blocks": {**blocks.format._asdict(), "shape": [*value.shape], "codes": codes, "scales": scales}}
    narrow = narrow_dtype_of(value)
    if narrow is not None:
        elements: Elements | None = Elements(narrow, stored_as(np.asarray(value), narrow))
    else:
        elements = elements_of(where, value)
    if elements is None:
        raise StateError(
            f"{where} is {shown(value)}, a {type(value).__name__}, which a checkpoint cannot hold; it holds None, "
            "bools, numbers, strings, lists, tuples, dicts, NumPy arrays and Tensors"
        )
    if where in tensors:
        raise StateError(f"two arrays are called {where!r}, because a key has a / in it; rename one")
    tensors[where] = elements
    return {"$tensor": where}


def decode(value: Any, tensor: Callable[[str], Elements], *, in_blocks: bool = False) -> Any:
    """What :func:`encode` made its result from; ``tensor`` gives an array by its name. Bfloat16 becomes float32.

    Numbers in few bits become float32, with their blocks beside them if ``in_blocks``.

    Raises
    ------
    StateError
        If it is not what :func:`encode` makes.
    """
    if isinstance(value, list):
        return [decode(each, tensor, in_blocks=in_blocks) for each in value]
    if not isinstance(value, dict):
        return value
    marked = [key for key in value if key.startswith("$")]
    if not marked:
        return {key: decode(each, tensor, in_blocks=in_blocks) for key, each in value.items()}
    ((mark, held),) = value.items() if len(value) == 1 else ((marked[0], None),)
    if mark == "$tensor" and isinstance(held, str):
        dtype, stored = tensor(held)
        return values_of(stored, dtype)
    if mark == "$float" and held in ("nan", "inf", "-inf"):
        return float(held)
    if mark == "$tuple" and isinstance(held, list):
        return tuple(decode(each, tensor, in_blocks=in_blocks) for each in held)
    if mark == "$blocks":
        values = decode_blocks(held, tensor)
        return values if in_blocks else np.array(values)
    if mark == "$items" and isinstance(held, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in held):
        try:
            return {decode(key, tensor): decode(each, tensor, in_blocks=in_blocks) for key, each in held}
        except TypeError:  # a key that cannot be one
            pass
    raise StateError(
        f"the checkpoint's description has {shown(value)}, which netcl.save() does not write; save it again"
    )
