"""random_bits against the published answers and against a Philox in Python's integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netcl.dtypes import uint32
from netcl.testing.conformance.operands import zeros

MASK = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., 2011) of one 128-bit counter and one 64-bit key."""
    c = [(counter >> 32 * i) & MASK for i in range(4)]
    k = [key & MASK, (key >> 32) & MASK]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & MASK, (first >> 32) ^ c[3] ^ k[1], first & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def bits(backend, n, seed, offset):
    out = zeros(backend, n, uint32)
    backend.random_bits(out.view, seed, offset)
    return out.stored


def test_the_oracle_gives_the_published_answers():
    # kat_vectors of Random123, which the paper's authors publish.
    assert philox(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(2**128 - 1, 2**64 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_the_published_answer(backend):
    np.testing.assert_array_equal(bits(backend, 4, 0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 0x299F31D0A4093822, 2**64 - 1])
@pytest.mark.parametrize("offset", [0, 1, 6, 2**32 - 2, 4 * 2**32 - 5, 2**60])
def test_any_seed_and_offset(backend, seed, offset):
    expected = [philox((offset + j) // 4, seed)[(offset + j) % 4] for j in range(11)]
    np.testing.assert_array_equal(bits(backend, 11, seed, offset), expected)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1023, 4097])
def test_any_size(backend, n):
    whole = bits(backend, 5000, 7, 0)
    np.testing.assert_array_equal(bits(backend, n, 7, 0), whole[:n])


@given(offset=st.integers(0, 2000), n=st.integers(0, 500))
def test_a_stream_can_be_entered_anywhere(backend, offset, n):
    np.testing.assert_array_equal(bits(backend, n, 3, offset), bits(backend, 2500, 3, 0)[offset : offset + n])


def test_shapes_do_not_matter(backend):
    out = zeros(backend, (3, 5, 7), uint32)
    backend.random_bits(out.view, 5, 2)
    np.testing.assert_array_equal(out.stored.ravel(), bits(backend, 105, 5, 2))


def test_bits_are_even(backend):
    words = bits(backend, 20_000, 11, 0)
    ones = np.unpackbits(words.view(np.uint8)).reshape(-1, 32).mean(axis=0)
    np.testing.assert_allclose(ones, 0.5, atol=0.02)
