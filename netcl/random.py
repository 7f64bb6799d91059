"""Where random bits come from: a seed and a counter, so that every backend draws the same numbers.

A :class:`Generator` holds no device memory. It hands out ranges of the Philox counter; the backend turns a range into
bits (``random_bits`` of the seam).
"""

from __future__ import annotations

import os

import numpy as np


class Generator:
    """A stream of random bits, the same on every device.

    Parameters
    ----------
    seed : int, optional
        In [0, 2**64); drawn from the operating system by default.

    Raises
    ------
    ValueError
        If the seed is out of range.

    Examples
    --------
    >>> from netcl.random import Generator
    >>> Generator(7).take(5), Generator(7).state()
    (0, {'seed': 7, 'offset': 0})
    """

    __slots__ = ("seed", "offset")

    def __init__(self, seed: int | None = None) -> None:
        self.offset = 0
        self.seed = 0
        self.manual_seed(int.from_bytes(os.urandom(8)) >> 1 if seed is None else seed)

    def manual_seed(self, seed: int) -> None:
        """Start the stream of ``seed`` from its beginning."""
        if not 0 <= seed < 2**64:
            raise ValueError(f"a seed must lie in [0, 2**64), got {seed}")
        self.seed, self.offset = int(seed), 0

    def take(self, words: int) -> int:
        """The offset of the next ``words`` 32-bit words, which are from now on used up."""
        start = self.offset
        self.offset += -(-words // 4) * 4  # whole counters, so that no two draws share one
        return start

    def state(self) -> dict[str, int]:
        """What :meth:`set_state` needs to go on from here."""
        return {"seed": self.seed, "offset": self.offset}

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from a state taken with :meth:`state`."""
        self.seed, self.offset = int(state["seed"]), int(state["offset"])


default_generator = Generator()
"""The generator that dropout draws from unless it is given another."""

# Made at first use: importing numpy.random takes a tenth of the time of importing numpy.
_host: list[np.random.Generator] = []


def manual_seed(seed: int) -> None:
    """Start the generators of dropout and of initial weights from ``seed``.

    Parameters
    ----------
    seed : int
        In [0, 2**64).

    Examples
    --------
    >>> import netcl
    >>> netcl.random.manual_seed(0)
    >>> first = netcl.functional.dropout(netcl.ones(8)).tolist()
    >>> netcl.random.manual_seed(0)
    >>> netcl.functional.dropout(netcl.ones(8)).tolist() == first
    True
    """
    default_generator.manual_seed(seed)
    _host[:] = [np.random.default_rng(seed)]


def host_generator() -> np.random.Generator:
    """The NumPy generator that initial weights are drawn from; :func:`manual_seed` restarts it."""
    if not _host:
        _host.append(np.random.default_rng())
    return _host[0]
