"""Files on disk that are whole or absent, and that are only read where nobody can make a trap of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ABANDONED = 3600.0
"""Seconds after which an unfinished file belongs to nobody."""


def write_atomically(file: Path, content: bytes | Iterable[Any], *, mode: int = 0o666) -> None:
    """Replace ``file`` by one with this content, or leave it as it was. **Blocks** until the disk has it.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step: no
    other process, and no crash, ever sees half of them. A symbolic link is followed: what it names is replaced.

    Parameters
    ----------
    file : Path
        In a folder that exists.
    content : bytes, or iterable of bytes-like
        Pieces are written one after the other, so that they need not be in memory at once.
    mode : int, default 0o666
        Permissions of the new file, less the process's umask; 0o600 for what is the owner's alone.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full. The temporary file is gone then.
    """
    _replace(Path(os.path.realpath(file)), content, mode, flush=True)


def write_private(file: Path, content: bytes) -> None:
    """Replace ``file`` by one with this content that is its owner's alone, as caches need it.

    Other processes see all of it or nothing, but it does not wait for the disk: after a power failure the file may not
    be whole, which does for what is checked when it is read. A symbolic link is replaced, not followed.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full. The temporary file is gone then.
    """
    _replace(file, content, 0o600, flush=False)


def _replace(target: Path, content: bytes | Iterable[Any], mode: int, *, flush: bool) -> None:
    made = target.parent / f".{target.name[:100]}.{secrets.token_hex(8)}.tmp"
    descriptor, named = _opened(made, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            pieces: Iterable[Any] = (content,) if isinstance(content, bytes) else content
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            if flush:
                os.fsync(stream.fileno())
            if not named:
                _name(stream.fileno(), made)
        os.replace(made, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise
    if flush:
        _flush_folder(target.parent)
        _remove_abandoned(target)


def _remove_abandoned(target: Path) -> None:
    """Remove what processes that were killed have left of writing ``target``: nobody writes for an hour."""
    name = re.compile(rf"\.{re.escape(target.name[:100])}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            with contextlib.suppress(OSError):
                # The time of change, which naming and writing set, and no program can.
                if name.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_ctime > _ABANDONED:
                    os.unlink(entry.path)


def _opened(made: Path, mode: int) -> tuple[int, bool]:
    """A descriptor of a new file, and whether it has the name ``made`` already.

    Linux makes files that have no name until they are complete, so that a killed process leaves nothing behind.
    """
    nameless = getattr(os, "O_TMPFILE", None)
    if nameless is not None and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # some file systems have none
            return os.open(made.parent, os.O_WRONLY | nameless | os.O_CLOEXEC, mode), False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.open(made, flags, mode), True


def _name(descriptor: int, made: Path) -> None:
    """Give a file without a name the name ``made``."""
    folder = os.open(made.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Only with a folder's descriptor does Python make the call that follows the link of /proc.
        os.link(f"/proc/self/fd/{descriptor}", made.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _flush_folder(folder: Path) -> None:
    """Make a renaming survive a power failure, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_regular(file: Path, largest: int, *, private: bool = False) -> bytes:
    """The content of a regular file of at most ``largest`` bytes; never waits, as a pipe or a device could.

    Parameters
    ----------
    file : Path
    largest : int
        Bytes.
    private : bool, default False
        Take only a file of this process's own user that nobody else may write to, and no symbolic link.

    Raises
    ------
    OSError
        If it is missing, no regular file, too large, or not private where it must be; the message says which.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if private:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(file, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{file} is not a regular file")
        if status.st_size > largest:
            raise OSError(f"{file} has {status.st_size} bytes, more than the {largest} that are read")
        if private and not _is_private(status):
            raise OSError(f"{file} belongs to, or can be written by, somebody else")
        with open(descriptor, "rb", closefd=False) as stream:
            content = stream.read(largest + 1)
    finally:
        os.close(descriptor)
    if len(content) > largest:
        raise OSError(f"{file} has more than the {largest} bytes that are read")
    return content


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says, without what Python's reader adds or lets pass.

    Raises
    ------
    ValueError
        If it is not JSON, holds NaN or an infinity, names a key twice in one object, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {twice[:80]!r} twice in one object")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is not JSON")


def private_folder(folder: Path) -> Path:
    """``folder``, made if it is missing, if it is this user's alone.

    Raises
    ------
    OSError
        If it cannot be made, is a symbolic link or no folder, or belongs to or can be written by somebody else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise OSError(f"{folder} is a symbolic link or not a folder; netcl keeps its files in a real one")
    if not _is_private(status):
        raise OSError(f"{folder} belongs to, or can be written by, somebody else; make it yours with mode 0700")
    return folder


def _is_private(status: os.stat_result) -> bool:
    if os.name != "posix":
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
