"""Making a failing case smaller, greedily: the first simpler case that still fails the same way is gone on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar


class Shrinkable(Protocol):
    """A case, as plain data."""

    def simpler(self) -> Iterator[Shrinkable]:
        """Cases with less in them, the boldest first. None leads back to a case that it came from."""
        ...


C = TypeVar("C", bound=Shrinkable)


def shrink(case: C, fails: Callable[[C], bool], *, attempts: int = 400, seconds: float = 60.0) -> C:
    """The simplest case found that still ``fails``, after so many attempts or seconds at most."""
    end = time.monotonic() + seconds
    seen = {repr(case)}
    progress = True
    while progress:
        progress = False
        for candidate in case.simpler():
            key = repr(candidate)
            if key in seen:
                continue
            seen.add(key)
            if attempts <= 0 or time.monotonic() > end:
                return case
            attempts -= 1
            if fails(candidate):  # type: ignore[arg-type]
                case, progress = candidate, True  # type: ignore[assignment]
                break
    return case
