"""Three functions that no Array-API namespace is sure to have: the error function, a scatter and Philox random bits."""

from __future__ import annotations

from typing import Any

import numpy as np

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969): erf on |x| <= 0.46875,
# and exp(x²)·erfc(x) above. Highest power first.
_ERF_P = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
          3.20937758913846947e3)  # fmt: skip
_ERF_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERFC_P = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
           2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
           1.23033935479799725e3)  # fmt: skip
_ERFC_Q = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
           3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip


def _horner(x: Any, coefficients: tuple[float, ...]) -> Any:
    result = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        result = result * x + coefficient
    return result


def erf(xp: Any, x: Any) -> Any:
    """The error function of a float64 array in the namespace ``xp``, to about 1e-16."""
    y = xp.abs(x)
    square = xp.minimum(y, xp.zeros_like(y) + 0.46875) ** 2
    small = x * (_horner(square, _ERF_P) / _horner(square, _ERF_Q))
    # Above 4 Cody changes to a third quotient; erfc is so small there that this one serves, and from 6 on erf is 1.
    z = xp.minimum(y, xp.zeros_like(y) + 6.0)
    large = 1.0 - xp.exp(-z * z) * (_horner(z, _ERFC_P) / _horner(z, _ERFC_Q))
    return xp.where(y <= 0.46875, small, xp.where(x < 0, -large, large))


def add_at(out: Any, indices: Any, updates: Any) -> Any:
    """``out`` with updates[o, c, i] added at [o, indices[o, c, i], i], in the order of c; NumPy arrays."""
    outer, middle, inner = out.shape
    places = (np.arange(outer)[:, None, None] * middle + indices) * inner + np.arange(inner)
    flat = np.ascontiguousarray(out).reshape(-1)
    np.add.at(flat, places.reshape(-1), updates.reshape(-1))  # ten times as fast as on three axes
    return flat.reshape(out.shape)


_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Counters are NumPy uint64 arrays of 32-bit words, and so is what is returned.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        low, high = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (high >> _SHIFT) ^ c1 ^ np.uint64(k0),
            high & _MASK,
            (low >> _SHIFT) ^ c3 ^ np.uint64(k1),
            low & _MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_words(n: int, seed: int, offset: int) -> Any:
    """Words ``offset`` to ``offset + n`` of the stream of ``seed``, as a NumPy uint32 array."""
    first, last = offset // 4, (offset + n + 3) // 4
    counter = np.arange(first, last, dtype=np.uint64)
    zero = np.zeros_like(counter)
    seed &= 0xFFFFFFFFFFFFFFFF
    lanes = philox4x32((counter & _MASK, counter >> _SHIFT, zero, zero), (seed & 0xFFFFFFFF, seed >> 32))
    words = np.stack(lanes, axis=1).astype(np.uint32).reshape(-1)
    return words[offset - 4 * first :][:n]
