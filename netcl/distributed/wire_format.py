"""How gradients are sent between ranks, and how they are added up: in float32 or wider, in the order of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from netcl.dtypes import DType, as_dtype, bfloat16, float16
from netcl.errors import DTypeError
from netcl.host_dtypes import STORAGE, values_of
from netcl.rounding import odd_float32

AnyArray: TypeAlias = NDArray[Any]

_BLOCK = 1 << 15


class WireFormat:
    """How elements of one dtype are sent as another.

    Parameters
    ----------
    stored : DType
        Of the gradients.
    sent : DType, str or None
        float16 or bfloat16 to send half as much; None to send what is stored.

    Raises
    ------
    DTypeError
        If ``sent`` is neither.
    """

    def __init__(self, stored: DType, sent: DType | str | None) -> None:
        half = None if sent is None else as_dtype(sent)
        if half is not None and half not in (float16, bfloat16):
            raise DTypeError(
                f"gradients are sent as float16 or bfloat16, got {half}; pass None to send them as they are"
            )
        self._stored = stored
        self._sent = stored if half is None or stored.itemsize == 2 else half
        self.converts = self._sent is not stored
        self.dtype = STORAGE[self._sent]

    def encode(self, values: AnyArray, out: AnyArray) -> None:
        """``values`` as stored, written to ``out`` as they are sent."""
        for block in _blocks(values.size):
            _narrow(_widen(values[block], self._stored), self._sent, out[block])

    def decode(self, sent: AnyArray, out: AnyArray) -> None:
        """What was sent, written to ``out`` as it is stored."""
        for block in _blocks(sent.size):
            _narrow(_widen(sent[block], self._sent), self._stored, out[block])

    def add(self, parts: list[AnyArray], out: AnyArray) -> None:
        """``out`` ← the sum of ``parts``, as they are sent. ``out`` is one of them, the others are written over."""
        with np.errstate(all="ignore"):
            if self._sent.itemsize > 2:
                # Sums move into ``out`` once it has been added itself.
                total = out if out is parts[0] else parts[0]
                for part in parts[1:]:
                    total = np.add(total, part, out=out if part is out else total)
                return
            for block in _blocks(out.size):
                wide = _widen(parts[0][block], self._sent)
                for part in parts[1:]:
                    wide += _widen(part[block], self._sent)
                _narrow(wide, self._sent, out[block])

    def finite(self, sums: AnyArray) -> bool:
        """Whether there is neither NaN nor infinity among them."""
        wide = _widen(sums, self._sent)
        return not wide.size or bool(np.isfinite(wide.min()) and np.isfinite(wide.max()))


def _blocks(size: int) -> Iterator[slice]:
    """Stretches whose intermediate results stay in the cache."""
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _widen(values: AnyArray, dtype: DType) -> AnyArray:
    """In float32 or wider: a new array, unless it is that already."""
    return values.astype(np.float32) if dtype is float16 else values_of(values, dtype)


def _narrow(values: AnyArray, dtype: DType, out: AnyArray) -> None:
    """Round to nearest even into ``out``; what is too large becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype is bfloat16:
            bits = (odd_float32(values) if values.dtype == np.float64 else values).view(np.uint32)
            rounded = bits >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += bits
            rounded >>= 16
            out[...] = rounded
            # Rounding up must not turn a NaN into infinity.
            if np.isnan(values.min(initial=0)):
                out[np.isnan(values)] = 0x7FC0
        else:
            out[...] = values
