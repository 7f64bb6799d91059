"""The operators of expressions as NumPy functions that write their result where they are told.

bfloat16 is held as the uint16 of its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from netcl.backends.reference.special import erf
from netcl.dtypes import DType, bfloat16, float16
from netcl.host_dtypes import STORAGE, values_of
from netcl.rounding import bfloat16_bits, odd_float32, stochastic

Function = Callable[..., Any]


def load(dtype: DType) -> Function | None:
    """A function (stored, out) that widens, or None where stored elements are computed with as they are."""
    if dtype is float16:
        return _cast_to(np.dtype(np.float32))
    return _from_bfloat16 if dtype is bfloat16 else None


def store(dtype: DType) -> Function:
    """A function (out, value) that rounds ``value`` to storage of ``dtype``."""
    return _to_bfloat16 if dtype is bfloat16 else _copy


def operator(xp: Any, op: str, dtype: DType, operand: DType) -> Function:
    """The function of operator ``op`` from ``operand`` to ``dtype``; its last argument is the output or None.

    ``xp`` is NumPy with the standard's names, for versions of NumPy that have others.
    """
    if op == "cast":
        if operand.kind == "c" and dtype.kind not in "bc":
            return lambda x, out: x.real.astype(STORAGE[dtype])
        return _cast_to(STORAGE[dtype])
    if op in ("maximum", "minimum"):  # these two deprecate a positional output
        extremum = getattr(np, op)
        return lambda x, y, out: extremum(x, y, out=out)
    special: dict[str, Function] = {
        "where": _where, "rsqrt": _rsqrt, "round": np.rint, "erf": _erf,
        "narrow": _narrow, "round_float16": _round_float16, "round_bfloat16": _round_bfloat16,
        "stochastic_float16": _stochastic(float16), "stochastic_bfloat16": _stochastic(bfloat16),
        "real": lambda x, out: np.positive(x.real, out), "imag": lambda x, out: np.positive(x.imag, out),
        "complex": join_parts,
    }  # fmt: skip
    function: Function = special.get(op) or getattr(np, op, None) or getattr(xp, op)
    return function


def is_elementwise(op: str) -> bool:
    """Whether the output of ``op`` may be one of its operands. A load, which has no name, widens."""
    return op not in ("", "cast", "narrow", "erf", "round_float16", "round_bfloat16") and "stochastic" not in op


def strided(array: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """A view of a flat array."""
    if 0 in shape:
        return np.empty(shape, array.dtype)
    if strides == (1,):
        return array[offset : offset + shape[0]]
    item = array.itemsize
    return np.ndarray(shape, array.dtype, array, offset * item, [stride * item for stride in strides])


REDUCTIONS: dict[str, Function] = {
    "sum": np.add.reduce,
    "prod": np.multiply.reduce,
    "max": np.maximum.reduce,
    "min": np.minimum.reduce,
    "any": np.logical_or.reduce,
    "all": np.logical_and.reduce,
}


@cache
def _cast_to(dtype: np.dtype[Any]) -> Function:
    def cast(x: Any, out: Any) -> Any:
        if out is None:
            return x.astype(dtype)
        np.copyto(out, x, casting="unsafe")
        return out

    return cast


def _copy(out: Any, value: Any) -> None:
    np.copyto(out, value, casting="unsafe")


def _from_bfloat16(x: Any, out: Any) -> Any:
    if out is None:
        return values_of(x, bfloat16)
    np.left_shift(x, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
    return out


def _to_bfloat16(out: Any, value: Any) -> None:
    np.copyto(out, bfloat16_bits(np.asarray(value)), casting="unsafe")


def _narrow(x: Any, out: Any) -> Any:
    return _cast_to(np.dtype(np.float32))(odd_float32(np.asarray(x)), out)


def _round_float16(x: Any, out: Any) -> Any:
    return _cast_to(np.dtype(np.float32))(x.astype(np.float16), out)


def _round_bfloat16(x: Any, out: Any) -> Any:
    bits = np.empty(x.shape, np.uint16)
    _to_bfloat16(bits, x)
    return _from_bfloat16(bits, out)


def _stochastic(dtype: DType) -> Function:
    def rounded(x: Any, bits: Any, out: Any) -> Any:
        return _cast_to(np.dtype(np.float32))(stochastic(np.asarray(x), bits, dtype), out)

    return rounded


_WORDS: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def _where(condition: Any, x1: Any, x2: Any, out: Any) -> Any:
    words = None if out is None else _WORDS.get(out.itemsize)
    if words is None:
        value = np.where(condition, x1, x2)
        if out is None:
            return value
        np.copyto(out, value)
        return out
    # Chosen by bits, x2 ^ ((x1 ^ x2) & mask), which takes a quarter of the time of a copy under a mask.
    mask = np.negative(condition.view(np.int8), dtype=words)
    first, second = x1.view(words), x2.view(words)
    if not second.ndim and second == 0:
        np.bitwise_and(first, mask, out=out.view(words))
    else:
        mask &= first ^ second
        np.bitwise_xor(mask, second, out=out.view(words))
    return out


def join_parts(x: Any, y: Any, out: Any) -> Any:
    """The complex numbers of these real and imaginary parts."""
    if out is None:
        out = np.empty(np.broadcast_shapes(np.shape(x), np.shape(y)), np.result_type(x, np.complex64))
    out.real, out.imag = x, y
    return out


def _rsqrt(x: Any, out: Any) -> Any:
    root = np.sqrt(x, out)
    return np.divide(root.dtype.type(1), root, out)


def _erf(x: Any, out: Any) -> Any:
    x = np.asarray(x)
    return erf(np, x.astype(np.float64)).astype(x.dtype)
