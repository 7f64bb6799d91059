"""What a forked child must not do: use the OpenCL runtimes of its parent, whose threads it does not have.

PoCL then waits for them forever; Intel's runtime waits or crashes where it compiles or work was under way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

from netcl.errors import BackendError

_used: weakref.WeakKeyDictionary[Any, tuple[tuple[str, ...], tuple[str, ...]]] = weakref.WeakKeyDictionary()
_loaded = False
_inherited = False


def mark_loaded() -> None:
    """Say that this process has loaded the OpenCL runtimes, so its children cannot use them."""
    global _loaded
    _loaded = True


class _Gone:
    """In a child, what stands where a resource of the parent's was: a method looked up before the fork meets it."""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse()

    def __enter__(self) -> NoReturn:
        _refuse()

    def __exit__(self, *_: object) -> NoReturn:
        _refuse()


def forbid_in_children(user: Any, methods: Sequence[str], resources: Sequence[str] = ()) -> None:
    """Let ``methods`` of ``user``, and whatever uses its ``resources``, raise in every forked child.

    Free while there is none. A method may have been looked up before the fork, so it is the resources that count.
    """
    _used[user] = (tuple(methods), tuple(resources))


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
    # Neither what is replaced nor garbage of the parent's is ever released here, for these calls may hang too.
    for user, (methods, resources) in list(_used.items()):
        held = vars(user)
        for kept in (user, *(held[name] for name in (*methods, *resources) if name in held)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        for name in methods:
            setattr(user, name, _refuse)
        for name in resources:
            setattr(user, name, _Gone())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
