"""GPUs that Linux knows, and what keeps OpenCL from using them. Other systems list no GPU without its driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DRIVERS = {
    0x1002: ("AMD", ("amd", "rusticl", "clover"), "ROCm's OpenCL runtime (rocm-opencl-runtime), or mesa-opencl-icd"),
    0x8086: ("Intel", ("intel",), "Intel's compute runtime (intel-opencl-icd)"),
    0x10DE: ("NVIDIA", ("nvidia",), "NVIDIA's driver with its OpenCL part (Debian: nvidia-opencl-icd)"),
}
"""PCI vendor: its name, what its platforms' names contain, what brings OpenCL."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps a device from being used."""

    found: str
    remedy: str


def findings(platforms: list[str], root: Path = Path("/")) -> Iterator[Finding]:
    """What is amiss with the system's OpenCL.

    Parameters
    ----------
    platforms : list of str
        The OpenCL platforms that were found.
    root : Path, default /
        Where the system's ``/dev``, ``/sys`` and ``/etc`` stand.
    """
    yield from _render_nodes(platforms, root)
    if (root / "dev/nvidiactl").exists() and not _listed(platforms, 0x10DE):
        yield Finding(
            "an NVIDIA driver is loaded, but OpenCL does not list its GPU",
            f"install {DRIVERS[0x10DE][2]}; in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    yield from _dangling(root / "etc/OpenCL/vendors")


def _render_nodes(platforms: list[str], root: Path) -> Iterator[Finding]:
    for node in sorted((root / "dev/dri").glob("renderD*")):
        try:
            vendor = int((root / f"sys/class/drm/{node.name}/device/vendor").read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            continue
        if vendor not in DRIVERS or _listed(platforms, vendor):
            continue
        name, _, driver = DRIVERS[vendor]
        if not os.access(node, os.R_OK | os.W_OK):
            yield Finding(
                f"you may not open {node}, a GPU of {name}",
                f"sudo usermod -aG render {os.environ.get('USER', '$USER')}, then log in again",
            )
        elif vendor != 0x10DE or not (root / "dev/nvidiactl").exists():
            yield Finding(f"{node} is a GPU of {name}, but OpenCL does not list it", f"install {driver}")


def _dangling(vendors: Path) -> Iterator[Finding]:
    for icd in sorted(vendors.glob("*.icd")):
        try:
            library = icd.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if library.startswith("/") and not Path(library).exists():
            yield Finding(f"{icd} names {library}, which does not exist", "install the package again that brought it")


def _listed(platforms: list[str], vendor: int) -> bool:
    return any(part in platform.lower() for platform in platforms for part in DRIVERS[vendor][1])
