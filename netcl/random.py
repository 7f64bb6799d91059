"""Where random bits come from: a seed and a counter, so that every backend draws the same numbers.

A :class:`Generator` holds no device memory. It hands out ranges of the Philox counter; the backend turns a range into
bits (``random_bits`` of the backend protocol).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from netcl import validation
from netcl.errors import StateError
from netcl.validation import integer, shown


class Generator:
    """A stream of random bits, the same on every device.

    Parameters
    ----------
    seed : int, optional
        In [0, 2**64); drawn from the operating system by default.

    Raises
    ------
    ArgumentError
        If the seed is not an integer or out of range.

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
        self.seed, self.offset = validation.seed("seed", seed), 0

    def take(self, words: int) -> int:
        """The offset of the next ``words`` 32-bit words, which are from now on used up."""
        words = integer("words", words, least=0)
        start = self.offset
        self.offset += -(-words // 4) * 4  # whole counters, so that no two draws share one
        return start

    def state(self) -> dict[str, int]:
        """What :meth:`set_state` needs to go on from here."""
        return {"seed": self.seed, "offset": self.offset}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go on from a state taken with :meth:`state`.

        Raises
        ------
        StateError
            If it is none; the generator stays as it was.
        """
        self.seed, self.offset = _checked(state)


def _checked(state: Any) -> tuple[int, int]:
    """Seed and offset of a state of :class:`Generator`."""
    if not isinstance(state, Mapping) or set(state) != {"seed", "offset"}:
        raise StateError(f"a generator's state must have the entries 'seed' and 'offset', got {shown(state)}")
    seed = validation.seed("the seed in a generator's state", state["seed"], error=StateError)
    offset = integer("the offset in a generator's state", state["offset"], least=0, error=StateError)
    if offset % 4:
        raise StateError(f"the offset in a generator's state must be a multiple of 4, got {offset}")
    return seed, offset


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
    _host[:] = [np.random.default_rng(default_generator.seed)]


def host_generator() -> np.random.Generator:
    """The NumPy generator that initial weights are drawn from; :func:`manual_seed` restarts it."""
    if not _host:
        _host.append(np.random.default_rng())
    return _host[0]


def get_state() -> dict[str, Any]:
    """What :func:`set_state` needs so that dropout, and initial weights, are drawn on from here.

    Returns
    -------
    dict
        Of integers and strings, which JSON holds. Generators that were passed to a layer have
        :meth:`Generator.state`.

    Examples
    --------
    >>> import netcl
    >>> state = netcl.random.get_state()
    >>> first = netcl.functional.dropout(netcl.ones(8)).tolist()
    >>> netcl.random.set_state(state)
    >>> netcl.functional.dropout(netcl.ones(8)).tolist() == first
    True
    """
    return {"default": default_generator.state(), "host": dict(host_generator().bit_generator.state)}


def set_state(state: Mapping[str, Any]) -> None:
    """Go on from a state taken with :func:`get_state`, in this process or another one.

    Parameters
    ----------
    state : mapping
        What :func:`get_state` returned; it may have been through JSON.

    Raises
    ------
    StateError
        If it is none; nothing is changed then.
    """
    if not isinstance(state, Mapping) or set(state) != {"default", "host"}:
        raise StateError(f"a random state must have the entries 'default' and 'host', got {shown(state)}")
    seed, offset = _checked(state["default"])
    host = np.random.PCG64(0)
    try:
        host.state = state["host"]
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise StateError(
            f"'host' in a random state must be the state of NumPy's PCG64 ({type(error).__name__}: {error}), got "
            f"{shown(state['host'])}"
        ) from None
    default_generator.seed, default_generator.offset = seed, offset
    _host[:] = [np.random.Generator(host)]
