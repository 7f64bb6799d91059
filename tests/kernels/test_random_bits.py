"""random_bits on every OpenCL device: Philox's own answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.backends.base import View
from netcl.dtypes import int64, uint32
from netcl.errors import DTypeError, ShapeError
from tests.kernels.strided import plain


def philox(counter, seed):
    """One block of Philox4x32-10 in Python integers, from the paper's definition."""
    mask = 2**32 - 1
    x = [counter & mask, counter >> 32 & mask, 0, 0]
    key = [seed & mask, seed >> 32 & mask]
    for _ in range(10):
        first, second = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [second >> 32 ^ x[1] ^ key[0], second & mask, first >> 32 ^ x[3] ^ key[1], first & mask]
        key = [key[0] + 0x9E3779B9 & mask, key[1] + 0xBB67AE85 & mask]
    return x


def test_random_bits_known_answer(opencl):
    # Random123's table of known answers: counter and key zero.
    out = plain(opencl, np.zeros(4, np.uint32))
    opencl.random_bits(out.view, 0, 0)
    assert [f"{word:08x}" for word in out.read()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@given(
    n=st.one_of(st.integers(0, 70), st.sampled_from([1023, 2048, 2051])), at=st.integers(0, 9),
    seed=st.integers(0, 2**64 - 1),
    offset=st.one_of(st.integers(0, 40), st.integers(0, 2**64), st.sampled_from([2**34 - 7, 2**66 - 9])),
)  # fmt: skip
def test_random_bits(opencl, n, at, seed, offset):
    out = plain(opencl, np.zeros(n, np.uint32), offset=at)
    opencl.random_bits(out.view, seed, offset)
    blocks = range(offset // 4, (offset + n + 3) // 4)
    words = [word for block in blocks for word in philox(block % 2**64, seed)]
    np.testing.assert_array_equal(out.read(), np.array(words[offset % 4 :][:n], np.uint32))


def test_random_bits_refuses_what_does_not_fit(opencl):
    out = plain(opencl, np.full((2, 6), 7, np.uint32))
    with pytest.raises(ShapeError, match=r"shape \(2, 3\) with strides \(6, 2\)"):
        opencl.random_bits(View(out.buffer, 0, (2, 3), (6, 2)), 0, 0)
    with pytest.raises(DTypeError, match="uint32, got an output of int64"):
        opencl.random_bits(View(opencl.alloc(6, int64), 0, (6,), (1,)), 0, 0)
    assert (out.read() == 7).all()
    assert out.dtype is uint32
