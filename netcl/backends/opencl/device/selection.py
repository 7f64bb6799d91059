"""The OpenCL devices that there are, in order of preference, and whether they work."""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cache
from typing import Any

import pyopencl as cl

from netcl.backends.base import Device
from netcl.backends.opencl.device import forking, icd, probe
from netcl.backends.opencl.device.defects import Defects
from netcl.backends.opencl.device.icd import INSTALL
from netcl.backends.opencl.device.probe import Health
from netcl.backends.opencl.device.queue import describe
from netcl.errors import BackendError

_health: dict[int, Health] = {}
_locks: dict[int, threading.Lock] = {}


def is_simulator(device: cl.Device) -> bool:
    """Whether this is Oclgrind, which checks kernels but is far too slow to be chosen unnamed."""
    return "oclgrind" in device.platform.name.lower()


def preference(device: cl.Device) -> int:
    """GPUs, then accelerators, Intel's CPU runtime, PoCL, other CPU runtimes, simulators."""
    platform = device.platform.name.lower()
    if is_simulator(device):
        return 5
    if device.type & cl.device_type.GPU:
        return 0
    if not device.type & cl.device_type.CPU:
        return 1
    return 2 if platform.startswith("intel") else 3 if platform.startswith("portable computing") else 4


@cache
def list_devices() -> tuple[cl.Device, ...]:
    """Every device, best first; a platform that the loader lists twice counts once."""
    forking.mark_loaded()
    devices: list[cl.Device] = []
    for platform in icd.platforms():
        try:
            devices += platform.get_devices()
        except cl.Error:  # a platform without devices
            continue
    return tuple(sorted(devices, key=preference))


@cache
def device_infos() -> tuple[Device, ...]:
    """The plain description of each device of :func:`list_devices`, at the same position."""
    return tuple(describe(device, index) for index, device in enumerate(list_devices()))


def health(index: int, *, fresh: bool = False, kinds: Collection[str] = ()) -> Health:
    """Whether the device at ``index`` works. **Blocks** while it, or a class of dtypes, is tried for the first time.

    ``kinds`` are the classes of dtypes on which every kernel family is wanted.
    """
    with _locks.setdefault(index, threading.Lock()):
        known = _health.get(index)
        if known is None or fresh or (known.healthy and not known.defects.tried.issuperset(kinds)):
            known = probe.check(list_devices()[index], index, fresh=fresh, kinds=kinds, known=known)
            _health[index] = known
        return known


def require_healthy(index: int) -> Defects:
    """What is known of what the device at ``index`` gets wrong. **Blocks** while it is tried for the first time.

    Raises
    ------
    BackendError
        If it does not work, or this is a forked child of a process that used OpenCL.
    """
    forking.refuse_inherited()
    found = health(index)
    if not found.healthy:
        device = device_infos()[index]
        raise BackendError(
            f"{device} ({device.platform}) does not work: {found.reason}. Repair it and run python -m netcl devices "
            f"--probe, or choose another; or {INSTALL}"
        )
    return found.defects


def defects_on(index: int, kinds: Collection[str]) -> Defects:
    """What the device at ``index`` gets wrong, as far as known, and on classes of dtypes in any case.

    **Blocks** while every kernel family is tried on a class for the first time.
    """
    return health(index, kinds=kinds).defects


def part_of(index: int, part: str) -> cl.Device:
    """One of several equal parts of the device at ``index``, such as ``"0of2"``.

    Raises
    ------
    BackendError
        If the device cannot be divided so, or has no such part.
    """
    number, _, parts = part.partition("of")
    whole = device_infos()[index]
    if not int(number) < int(parts):
        raise BackendError(f"{whole}/{part} does not exist: the parts are 0of{parts} to {int(parts) - 1}of{parts}")
    device = list_devices()[index]
    units = device.max_compute_units
    each = units // int(parts)
    try:
        properties: Any = [cl.device_partition_property.EQUALLY, each]
        made = device.create_sub_devices(properties) if each else []
    except cl.Error:
        made = []
    if len(made) <= int(number):
        raise BackendError(
            f"{whole} ({whole.name}, {units} compute units) cannot be divided into {parts} equal parts; take fewer "
            "parts or another device"
        )
    return made[int(number)]
