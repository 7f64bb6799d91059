"""What a forked child must not do: use the OpenCL runtimes of its parent, whose threads it does not have.

PoCL then waits for them forever; Intel's runtime waits or crashes where it compiles or work was under way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import weakref
from typing import Any, NoReturn

from netcl.errors import BackendError

_used: weakref.WeakKeyDictionary[Any, tuple[str, ...]] = weakref.WeakKeyDictionary()
_loaded = False
_inherited = False


def mark_loaded() -> None:
    """Say that this process has loaded the OpenCL runtimes, so its children cannot use them."""
    global _loaded
    _loaded = True


class _Gone:
    """In a child, what stands where the parent's queue was: a method that was looked up before the fork meets it."""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse()


def forbid_in_children(user: Any, methods: tuple[str, ...]) -> None:
    """Let ``methods`` of ``user`` and of its ``queue`` raise in every forked child. Free while there is none."""
    _used[user] = methods


def refuse_inherited() -> None:
    """Refuse to open a device in a forked child whose parent has loaded the runtimes.

    Raises
    ------
    BackendError
    """
    if _inherited:
        _refuse()


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise BackendError(
        f"process {os.getpid()} was forked from one that has used OpenCL, whose runtimes do not survive that; start "
        'processes with multiprocessing.set_start_method("spawn"), fork before the first use of OpenCL, or compute on '
        'backend="numpy" in this one'
    )


def _in_child() -> None:
    global _inherited
    if _loaded:
        _inherited = True
    if _used:
        gc.freeze()
    # Neither is a user nor garbage of the parent's ever released here, for these calls may hang too.
    for user, methods in list(_used.items()):
        for kept in (user, user.queue):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        user.queue = _Gone()
        for name in methods:
            setattr(user, name, _refuse)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
