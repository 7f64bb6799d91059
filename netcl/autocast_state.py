"""Which 16-bit format matrix products take now: set by ``netcl.amp.autocast``, read by ``netcl.functional``."""

from __future__ import annotations

import threading

from netcl.dtypes import DType


class _State(threading.local):
    dtype: DType | None = None


_state = _State()


def product_dtype() -> DType | None:
    """The dtype that matrix products and convolutions are taken in, or None outside ``autocast``."""
    return _state.dtype


def set_product_dtype(dtype: DType | None) -> DType | None:
    """Set it for this thread; returns what it was."""
    before, _state.dtype = _state.dtype, dtype
    return before
