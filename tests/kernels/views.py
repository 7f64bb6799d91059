"""Views of any layout for map, reduce and arg_reduce."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from netcl import expression as ex
from netcl.dtypes import bool_, float32
from tests.kernels.strided import Strided

EXTENTS = (1, 2, 3, 5, 8, 9, 17, 33)


def same(dtype):
    return ex.trace(lambda x: x, (dtype,))


@st.composite
def layouts(draw, shape, *, repeat=True):
    """Where the axes of an operand of this shape lie."""
    axes = list(range(len(shape)))
    some = st.lists(st.sampled_from(axes), unique=True) if axes else st.just([])
    return {
        "order": draw(st.permutations(axes)), "step": draw(st.sampled_from((1, 1, 2, 3))), "reverse": draw(some),
        "repeated": draw(some) if repeat else (), "offset": draw(st.integers(0, 5)),
    }  # fmt: skip


shapes = st.lists(st.sampled_from(EXTENTS), max_size=4).map(tuple)


def numbers(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype is float32:
        return rng.normal(size=shape).astype("f4")
    return rng.integers(0, 2 if dtype is bool_ else 100, shape).astype(dtype.name)


def upload(opencl, host, dtype):
    return Strided(opencl, host, dtype, range(host.ndim))


def outputs_like(opencl, shape, dtype):
    return upload(opencl, np.zeros(shape, dtype.name), dtype)
