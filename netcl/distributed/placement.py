"""Which device a rank takes: its own among identical ones, counted by its number on the machine."""

from __future__ import annotations

import os

from netcl.backends import Selection, devices, get_backend
from netcl.backends.base import Backend, Device
from netcl.errors import BackendError

VARIABLE = "NETCL_DEVICE"


def place(selection: Selection, local_rank: int) -> Backend:
    """The backend for the rank with this number on its machine. **Blocks** while devices are tried.

    Parameters
    ----------
    selection : str, Device, Backend or None
        None means what the environment variable names; a string may hold several with commas, one for each rank.
    local_rank : int

    Raises
    ------
    BackendError
        If there is no such device, or none for this rank.
    """
    named = os.environ.get(VARIABLE, "").strip() if selection is None else selection
    if not isinstance(named, str):
        return get_backend(named)
    listed = [part.strip() for part in named.split(",")]
    if len(listed) > 1:
        if local_rank >= len(listed):
            raise BackendError(
                f"{named!r} names {len(listed)} devices, and this is rank {local_rank} of its machine; name one for "
                "each rank, or launch fewer ranks per machine"
            )
        return get_backend(listed[local_rank])
    whole, divided, parts = named.rpartition("/")
    if divided and parts.isdecimal() and int(parts):
        return get_backend(f"{whole}/{local_rank % int(parts)}of{int(parts)}")
    first = get_backend(named or None)
    if named.rpartition(":")[2].isdecimal() or first.device.part:
        return first
    identical = [str(row.device) for row in devices() if row.healthy and _identical(row.device, first.device)]
    return get_backend(identical[local_rank % len(identical)]) if len(identical) > 1 else first


def _identical(a: Device, b: Device) -> bool:
    return (a.backend, a.platform, a.kind, a.name) == (b.backend, b.platform, b.kind, b.name)
