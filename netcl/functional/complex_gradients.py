"""Conjugates and real parts in gradients of arrays that may be complex. Of real arrays they cost nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from netcl.dtypes import DType
from netcl.functional.dispatch import A, identity, mapped
from netcl.functional.host_compute import compute_on_host, real_of


def conjugated(x: A) -> A:
    """The complex conjugate of each element; ``x`` itself if it is real. Not recorded."""
    return x if x.dtype.kind != "c" else compute_on_host("conj", np.conj, [x], [x.dtype])[0]


def real_part(x: A) -> A:
    """The real part of each element; ``x`` itself if it is real. Not recorded."""
    return x if x.dtype.kind != "c" else compute_on_host("real", np.real, [x], [real_of(x.dtype)])[0]


def in_dtype(x: A, dtype: DType) -> A:
    """``x`` converted, its imaginary part dropped where ``dtype`` is real. Not recorded."""
    part = real_part(x) if dtype.kind != "c" else x
    return part if part.dtype is dtype else mapped(identity, part, dtype=dtype)


def gradient_of(x: A, g: Any) -> A:
    """What reaches ``x`` of a gradient of its shape: in its dtype, and of real arrays the real part."""
    found: A = in_dtype(g, x.dtype)
    return found
