"""Built programs on disk, so that a process builds only what none before it has built.

For runtimes that keep no binaries themselves. A file is named by everything that the binary depends on and begins with
a checksum of that and of the content, so that no other file can take its place; one that is damaged, foreign or refused
by the driver counts as missing and is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pyopencl as cl
from pyopencl.characterize import has_src_build_cache

from netcl.backends.opencl.device import processor
from netcl.backends.opencl.device.icd import cache_subfolder, report_cache
from netcl.files import read_regular, write_private

FOLDER = "programs"

LARGEST = 1 << 28
"""Bytes of the folder from which on its oldest files are deleted, and more than any file has that is read."""

_MAGIC = b"netcl program 2\n"
_DIGEST = hashlib.sha256().digest_size


def load(context: cl.Context, text: str, options: Sequence[str]) -> cl.Program | None:
    """The program that was built from ``text`` with these options, or None."""
    device = context.devices[0]
    if not _kept_here(device):
        return None
    key = _key(device, text, options)
    try:
        file = cache_subfolder(FOLDER) / _name(key)
        content = read_regular(file, LARGEST, private=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        report_cache(error)
        return None
    binary = content[len(_MAGIC) + _DIGEST :]
    if content != sealed(key, binary):
        return None
    try:
        program = cl.Program(context, [device], [binary])
        program.build(list(options))
    except cl.Error:
        return None
    with contextlib.suppress(OSError):
        now = time.time_ns()  # finer than the time that a file system gives to what is written
        os.utime(file, ns=(now, now))  # what is used stays
    return program


def store(program: cl.Program, context: cl.Context, text: str, options: Sequence[str]) -> None:
    """Keep a program for :func:`load`. A file that cannot be written costs time later, and nothing else."""
    device = context.devices[0]
    if not _kept_here(device):
        return
    try:
        binary = program.binaries[0]
    except cl.Error:  # a runtime without binaries
        return
    if not binary:
        return
    key = _key(device, text, options)
    try:
        folder = cache_subfolder(FOLDER)
        _shrink(folder)
        write_private(folder / _name(key), sealed(key, binary))
    except OSError as error:
        report_cache(error)


def _kept_here(device: cl.Device) -> bool:
    # Oclgrind reports source lines, which a binary does not have.
    return not has_src_build_cache(device) and "oclgrind" not in device.platform.name.lower()


def sealed(key: bytes, binary: bytes) -> bytes:
    """What a file holds: the checksum binds the binary to what it was built from."""
    return _MAGIC + hashlib.sha256(key + binary).digest() + binary


def _name(key: bytes) -> str:
    return f"{key.hex()[:40]}.bin"


def _key(device: cl.Device, text: str, options: Sequence[str]) -> bytes:
    platform = device.platform
    parts = [platform.vendor, platform.name, platform.version, device.vendor, device.name, device.version]
    parts += [device.driver_version, device.extensions, str(device.native_vector_width_float)]
    if device.type & cl.device_type.CPU:
        # Machines that share a home folder may have different devices of the same name.
        parts += sorted(processor.instruction_set())
    return hashlib.sha256("\0".join([*parts, *options, text]).encode()).digest()


def _shrink(folder: Path) -> None:
    """Delete the files that were used least recently, down to half of what may be kept."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # another process has renamed or deleted it meanwhile
                found.append((entry.stat(follow_symlinks=False), entry.path))
    total = sum(status.st_size for status, _ in found)
    if total <= LARGEST:
        return
    for status, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= status.st_size
        if total <= LARGEST // 2:
            return
