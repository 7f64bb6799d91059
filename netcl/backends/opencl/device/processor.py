"""What is known of the processor, on which kernels of CPU runtimes depend."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


@cache
def instruction_set() -> frozenset[str]:
    """What the processor can do, as Linux calls it; empty where that is not known."""
    known = _cpuinfo()
    return frozenset(known.get("flags", known.get("Features", "")).split())


@cache
def model() -> str:
    """Vendor, family, model and name of the processor."""
    known = _cpuinfo()
    names = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")
    return " ".join(known.get(name, "") for name in names) + platform.machine()
