"""How far one elementwise function may be from the exact value, and what its dtype does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.arrays import kind
from tests.fuzz.bounds import FORMATS, compute_format


def bound(values: Any, dtype: str, units: float, scale: Any = 0.0) -> Any:
    """``units`` of roundoff of the values and of ``scale``, whichever is larger, and what a device may flush."""
    format = FORMATS["float32" if dtype == "complex64" else "float64"] if kind(dtype) == "c" else compute_format(dtype)
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(values), np.abs(scale))
        error = np.where(np.isfinite(size), units * format.unit * size, 0.0) + format.tiny
        near = np.isfinite(values) & (np.abs(values) * (1 + 2 * units * format.unit) > format.largest)
        beyond = np.abs(values) > format.largest * (1 + 2 * units * format.unit)
    return np.where(near & ~beyond, np.inf, error)


def overflown(values: Any, dtype: str) -> Any:
    """Infinite where the compute dtype has no such number."""
    if kind(dtype) == "c":
        return values
    format = compute_format(dtype)
    with np.errstate(all="ignore"):
        return np.where(np.abs(values) > format.largest, np.copysign(np.inf, values), values)
