"""What goes wrong in a child process, for the tests of the fuzz's worker; it is imported often and imports little."""

from __future__ import annotations

import os
import time

from tests.fuzz.case import Disagreement


def misbehave(what: str) -> None:
    """Die, hang, disagree, raise, or do nothing."""
    if what == "die":
        os.abort()
    if what == "hang":
        time.sleep(60)
    if what == "disagree":
        raise Disagreement("number", "5 where 4 was expected")
    if what == "raise":
        raise ZeroDivisionError("somewhere")
