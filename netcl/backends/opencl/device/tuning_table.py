"""Which knobs a kernel is built with on which device: two tables, checked as they are read.

``kernels/tuning.json`` is shipped; ``python -m netcl tune`` writes the user's own, which goes first. Within a table the
most particular entry counts: that of the device, of its architecture, of its vendor, or the default. CPUs and GPUs have
tables of their own. A knob is called as in the kernel file.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import pyopencl as cl

from netcl.backends.base import CHUNK
from netcl.backends.opencl.device import program
from netcl.backends.opencl.device.icd import cache_folder
from netcl.errors import TuningError
from netcl.files import parse_json, private_folder, read_regular, write_atomically
from netcl.validation import shown

logger = logging.getLogger("netcl")

VARIABLE = "NETCL_TUNING"
"""Names the user's table; ``none`` leaves it out."""

REMEDY = f"correct the file, delete it and run python -m netcl tune, or set {VARIABLE}=none to go without"

VERSION = 1
SHIPPED = "tuning.json"
KINDS = ("cpu", "gpu")
LEVELS = ("device", "architecture", "vendor")
"""Where a table is looked up, the most particular first; then its default."""

Knobs: TypeAlias = tuple[tuple[str, int], ...]
"""Name and value of each knob of one kernel, in the order of :data:`KNOBS`."""

Kernels: TypeAlias = Mapping[str, Knobs]

_POWERS = tuple(1 << i for i in range(11))

VALUES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "WIDTH": (1, 2, 4, 8),
        "RUN": _POWERS,
        "WORK_GROUP_SIZE": _POWERS,
        "LANES": _POWERS,
        "INTERLEAVED": (0, 1),
        "PIECE": tuple(CHUNK << i for i in range(7)),
    }
)
"""What each knob may be."""

LARGEST_FILE = 1 << 20
"""Bytes of a table that are read at most."""

LARGEST = 16 * CHUNK
"""Elements that one work-group takes at most, or a small array would occupy a part of the device only."""

_FLAT = ("WIDTH", "RUN", "WORK_GROUP_SIZE")
_FUSED = ("WIDTH", "RUN", "WORK_GROUP_SIZE", "INTERLEAVED")

KNOBS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fill": _FLAT,
        "scale": _FLAT,
        "axpy": _FLAT,
        "norm_reduce": ("WIDTH", "LANES", "PIECE"),
        "prepare_step": ("WORK_GROUP_SIZE",),
        "fused_adam": _FUSED,
        "fused_update": _FUSED,
    }
)
"""The kernels that can be tuned, and the knobs of each."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a device is called in a table, and the largest work-group that it takes."""

    device: str
    architecture: str
    vendor: str
    largest_group: int

    @classmethod
    def of(cls, device: cl.Device) -> Target:
        """The names of an OpenCL device; where it tells no architecture, that is empty and matches nothing."""
        name, vendor = device.name.strip(), device.vendor.strip()
        architecture = ""
        if device.type & cl.device_type.CPU:
            # The same processor's kernels come from different compilers.
            vendor = device.platform.vendor.strip()
            architecture = f"{32 * device.native_vector_width_float}-bit vectors"
        elif "cl_nv_device_attribute_query" in device.extensions:
            architecture = f"sm_{device.compute_capability_major_nv}{device.compute_capability_minor_nv}"
        elif "cl_amd_device_attribute_query" in device.extensions:
            name, architecture = device.board_name_amd.strip(), name
        return cls(name, architecture, vendor, device.max_work_group_size)


@dataclass(frozen=True, slots=True)
class Table:
    """One table: for ``"cpu"`` and ``"gpu"``, for each level and name, the knobs of some kernels."""

    file: str
    entries: Mapping[str, Mapping[str, Mapping[str, Kernels]]]
    defaults: Mapping[str, Kernels]

    def find(self, kind: str, target: Target, kernel: str) -> Knobs | None:
        """The most particular entry for a kernel, or None."""
        for level in LEVELS:
            knobs = self.entries[kind][level].get(getattr(target, level), {}).get(kernel)
            if knobs is not None:
                return knobs
        return self.defaults[kind].get(kernel)


def violated_constraint(knobs: Mapping[str, int]) -> str:
    """Which rule the knobs of a kernel break together, or nothing.

    Examples
    --------
    >>> from netcl.backends.opencl.device.tuning_table import violated_constraint
    >>> violated_constraint({"WIDTH": 8, "RUN": 256, "WORK_GROUP_SIZE": 1, "INTERLEAVED": 0})
    'WIDTH * RUN = 2048 must be at most 1024 elements'
    >>> violated_constraint({"WIDTH": 8, "RUN": 128, "WORK_GROUP_SIZE": 1, "INTERLEAVED": 0})
    ''
    """
    group = ("WIDTH", "RUN", "WORK_GROUP_SIZE")
    limits: list[tuple[tuple[str, ...], int]] = []
    if "PIECE" in knobs:
        limits.append((("WIDTH", "LANES"), CHUNK))
    if "INTERLEAVED" in knobs:
        # What shares a row of the step block is one chunk. All are powers of two, so what is less divides it.
        limits.append((group if knobs["INTERLEAVED"] else ("WIDTH", "RUN"), CHUNK))
    if "RUN" in knobs:
        limits.append((group, LARGEST))
    for names, most in limits:
        share = math.prod(knobs[name] for name in names)
        if share > most:
            return f"{' * '.join(names)} = {share} must be at most {most} elements"
    return ""


def candidates(kernel: str, target: Target) -> Iterator[Knobs]:
    """Every legal choice for a kernel on a device, each once."""
    names = KNOBS[kernel]
    for values in product(*(VALUES[name] for name in names)):
        knobs = dict(zip(names, values, strict=True))
        group = knobs.get("WORK_GROUP_SIZE", knobs.get("LANES", 1))
        alone = knobs.get("INTERLEAVED") and group == 1  # takes turns with nobody
        if group <= target.largest_group and not alone and not violated_constraint(knobs):
            yield tuple(knobs.items())


def fitted(knobs: Knobs, largest_group: int) -> Knobs:
    """The knobs with work-groups that a device takes; each work-item then does more."""
    fit = dict(knobs)
    group = "LANES" if "LANES" in fit else "WORK_GROUP_SIZE"
    while fit[group] > largest_group:
        fit[group] //= 2
        if fit.get("INTERLEAVED"):
            fit["RUN"] *= 2
    return tuple(fit.items())


def knob_text(knobs: Knobs) -> str:
    """The knobs as a compiler's options show them."""
    return " ".join(f"{name}={number}" for name, number in knobs)


def choose(target: Target, kind: str, tables: Sequence[Table]) -> dict[str, Knobs]:
    """The knobs of every kernel: of the first table that has any for it, the most particular ones."""
    chosen = {}
    for kernel in KNOBS:
        found = (table.find(kind, target, kernel) for table in tables)
        knobs = next(knobs for knobs in found if knobs is not None)
        chosen[kernel] = fitted(knobs, target.largest_group)
    return chosen


def user_file() -> Path | None:
    """Where the user's table is or would be: what ``NETCL_TUNING`` names, or a file in netcl's cache folder."""
    named = _named()
    if named.lower() == "none":
        return None
    return Path(os.path.expanduser(named)) if named else cache_folder() / SHIPPED


def _named() -> str:
    return os.environ.get(VARIABLE, "").strip()


def tables() -> tuple[Table, ...]:
    """The user's table, if there is one, and the shipped one.

    Raises
    ------
    TuningError
        If a table is broken, or ``NETCL_TUNING`` names one that does not exist; the message names file, key and rule.
    """
    file = user_file()
    own = None if file is None else read(file)
    if own is None and file is not None and _named():
        raise TuningError(
            f"{VARIABLE}={_named()} names {file}, which does not exist; correct it, let python -m netcl tune make the "
            f"file, or set {VARIABLE}=none to go without"
        )
    return (shipped(),) if own is None else (own, shipped())


@cache
def shipped() -> Table:
    """The table that netcl comes with; it has a default for every kernel."""
    table = parse(program.read_kernel(SHIPPED), f"kernels/{SHIPPED}")
    for kind, kernel in product(KINDS, KNOBS):
        if kernel not in table.defaults[kind]:
            raise TuningError(f"{table.file}: {kind}.default.{kernel} is missing; the shipped table has every kernel")
    return table


def read(file: Path) -> Table | None:
    """The table in a file; None if there is no such file.

    Raises
    ------
    TuningError
    """
    text = _text(file)
    if text is None:
        return None
    logger.info("tuning: %s", file)
    return parse(text, str(file))


def _text(file: Path) -> str | None:
    try:
        return read_regular(file, LARGEST_FILE).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) and file == cache_folder() / SHIPPED:
            return None  # a home that is closed to this process holds no table of its user
        raise TuningError(f"{file} cannot be read ({error}); {REMEDY}") from error


def parse(text: str, file: str) -> Table:
    """The table that a text holds.

    Raises
    ------
    TuningError
        If it is not a table, or has an unknown key or a knob out of its range; the message names file, key and rule.
    """
    try:
        root = parse_json(text)
    except ValueError as error:
        raise TuningError(f"{file} is not a JSON table ({error}); {REMEDY}") from error
    reader = _Reader(file)
    reader.keys(root, "the table", ("version", *KINDS), required=("version",))
    if type(root["version"]) is not int or root["version"] != VERSION:
        reader.refuse("version", f"must be {VERSION}, the form that this netcl reads, got {shown(root['version'])}")
    entries: dict[str, dict[str, dict[str, Kernels]]] = {}
    defaults: dict[str, Kernels] = {}
    for kind in KINDS:
        section = reader.keys(root.get(kind, {}), kind, ("default", *LEVELS))
        defaults[kind] = reader.kernels(section.get("default", {}), f"{kind}.default")
        entries[kind] = {
            level: {
                name: reader.kernels(kernels, f"{kind}.{level}.{shown(name)}")
                for name, kernels in reader.mapping(section.get(level, {}), f"{kind}.{level}").items()
            }
            for level in LEVELS
        }
    return Table(file, entries, defaults)


def save(file: Path, kind: str, device: str, kernels: Kernels) -> None:
    """Add a device's knobs to a table, which keeps whatever else it has. The file is replaced whole or not at all.

    Raises
    ------
    TuningError
        If the table that is there is broken, or the file cannot be written.
    """
    text = _text(file)
    root: dict[str, Any] = {"version": VERSION}
    if text is not None:
        parse(text, str(file))
        root = parse_json(text)
    entry = root.setdefault(kind, {}).setdefault("device", {}).setdefault(device, {})
    entry.update({kernel: dict(knobs) for kernel, knobs in kernels.items()})
    _write(file, root)


def begin(file: Path) -> None:
    """Write a table without an entry where there is none yet, so that it can be named before it is filled.

    Raises
    ------
    TuningError
        If the file cannot be written.
    """
    if _text(file) is None:
        _write(file, {"version": VERSION})


def _write(file: Path, root: dict[str, Any]) -> None:
    text = json.dumps(root, indent=2) + "\n"
    parse(text, str(file))
    mode = 0o666
    try:
        if file.parent == cache_folder():
            private_folder(file.parent)
            mode = 0o600
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text.encode(), mode=mode)
    except OSError as error:
        raise TuningError(f"{file} cannot be written ({error}); name another file in {VARIABLE}") from error


class _Reader:
    """Checks of one file's contents; every refusal names the file and the key."""

    def __init__(self, file: str) -> None:
        self.file = file

    def refuse(self, key: str, rule: str) -> None:
        raise TuningError(f"{self.file}: {key} {rule}; {REMEDY}")

    def mapping(self, value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(key, f"must be an object, got {shown(value)}")
        found: dict[str, Any] = value
        return found

    def keys(self, value: Any, key: str, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
        """An object with known keys only, and all of the required ones."""
        found = self.mapping(value, key)
        for name in found:
            if name not in known:
                self.refuse(f"{key} has the key {shown(name)}, which", f"must be one of {', '.join(known)}")
        for name in required:
            if name not in found:
                self.refuse(key, f"must have the key {name!r}")
        return found

    def kernels(self, value: Any, key: str) -> Kernels:
        """Kernels with all their knobs."""
        found = {}
        for kernel, given in self.keys(value, key, tuple(KNOBS)).items():
            where, names = f"{key}.{kernel}", KNOBS[kernel]
            knobs = self.keys(given, where, names, required=names)
            for name in names:
                number, legal = knobs[name], VALUES[name]
                if type(number) is not int or number not in legal:
                    self.refuse(f"{where}.{name}", f"must be one of {', '.join(map(str, legal))}, got {shown(number)}")
            if broken := violated_constraint(knobs):
                self.refuse(f"{where}:", broken)
            found[kernel] = tuple((name, int(knobs[name])) for name in names)
        return found
