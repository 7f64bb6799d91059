"""The OpenCL devices as netcl's list of backends sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

from netcl.backends.base import (
    NAMED_ONLY,
    OPENCL_DEVICE,
    PREFER_ACCELERATOR,
    PREFER_CPU,
    PREFER_GPU,
    Backend,
    Device,
)
from netcl.backends.opencl.device import icd
from netcl.errors import BackendError


@final
class OpenCLProvider:
    """Every OpenCL device.

    Raises
    ------
    BackendError
        If pyopencl cannot be imported.
    """

    label = "OpenCL"

    part = re.compile(r"(\d+)of(\d+)")
    """How a part of a device is named, behind a slash: ``"opencl:0/1of2"`` is the second of two equal parts."""

    def __init__(self) -> None:
        icd.require()

    def devices(self) -> Sequence[Device]:
        """Every device of every platform.

        Raises
        ------
        BackendError
            If there is no platform.
        """
        from netcl.backends.opencl.device import selection

        found = selection.device_infos()
        if not found:
            raise BackendError(f"no OpenCL platform was found; {self.hint()}{icd.INSTALL}")
        return found

    def open(self, device: Device) -> Backend:
        """The backend on a device, or on a part of one. **Blocks** while the device is tried for the first time.

        Raises
        ------
        BackendError
            If it does not work, or has no such part, or this is a forked child of a process that used OpenCL.
        """
        from netcl.backends.opencl.backend import open_backend

        return open_backend(device)

    def preference(self, device: Device) -> float:
        """GPUs, then accelerators, Intel's CPU runtime, PoCL, other CPU runtimes; simulators only when named."""
        platform = device.platform.lower()
        if "oclgrind" in platform:
            return NAMED_ONLY
        if device.kind == "gpu":
            return PREFER_GPU
        if device.kind != "cpu":
            return PREFER_ACCELERATOR
        return PREFER_CPU + (2 if platform.startswith("intel") else 1 if platform.startswith("portable") else 0)

    def dlpack_device_type(self, device: Device) -> int:
        """Memory of an OpenCL device."""
        return OPENCL_DEVICE

    def health(self, device: Device, *, probe: bool) -> tuple[bool | None, str]:
        """Whether it computes. **Blocks** while it is tried for the first time, or anew."""
        from netcl.backends.opencl.device import selection

        if self.preference(device) < 0 and not probe:
            return None, "a simulator: used, and tried, only when named"
        found = selection.health(device.index, fresh=probe)
        return found.healthy, found.reason

    def hint(self) -> str:
        """Why a runtime that is installed is not listed, as the beginning of a sentence; or nothing."""
        reason = icd.unlisted()
        return f"{reason}; " if reason else ""
