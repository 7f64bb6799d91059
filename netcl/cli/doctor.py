"""``netcl doctor``: what works, what is missing, and the remedy."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from netcl.cli.hardware import findings
from netcl.cli.table import show
from netcl.cli.trial import TOLERANCE, in_child
from netcl.files import write_private
from netcl.version import __version__

State = Literal["ok", "missing", "warning", "FAILED"]

RUNTIME = 'pip install "netcl[cpu]" for a CPU runtime, or "netcl[opencl]" with the driver of your GPU'

OPTIONAL = {
    "tqdm": ("progress", "progress bars"),
    "matplotlib": ("plot", "pictures"),
    "rich": ("cli", "tables drawn in the terminal"),
    "mpi4py": ("mpi", "training on several devices"),
    "torch": ("parity", "comparison with torch"),
}
"""Distribution: the extra that brings it, and what for."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes
    ----------
    name : str
    state : {"ok", "missing", "warning", "FAILED"}
        ``missing`` is something optional; a ``warning`` leaves netcl usable; ``FAILED`` does not.
    found : str
    remedy : str
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of ``netcl``."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what works, what is missing, and the remedy",
        description="Say what works, what is missing, and the remedy. The exit status is 0 if netcl can train on the "
        "device it would use, else 1.",
    )
    parser.add_argument("--backend", metavar="NAME", help="ask for this one, such as opencl:gpu, not for the default")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report. **Blocks** for some seconds; returns 1 if a check failed, else 0."""
    checks = examine(arguments.backend)
    failed = [check for check in checks if check.state == "FAILED"]
    if arguments.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
        return 1 if failed else 0
    show("", ("check", "state", "found"), [(check.name, check.state, check.found) for check in checks])
    remedies = [check for check in checks if check.remedy]
    if remedies:
        print("\nRemedies")
        for check in remedies:
            print(f"- {check.name}: {check.remedy}")
    print(f"\n{'netcl cannot train as asked; what failed: ' + failed[0].name if failed else 'netcl can train.'}")
    return 1 if failed else 0


def examine(backend: str | None = None) -> list[Check]:
    """Every check, in the order in which things depend on each other. Never raises.

    Parameters
    ----------
    backend : str, optional
        What must be able to train; by default what netcl would use unasked.
    """
    checks: list[Check] = []
    groups: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
        ("installation", _installation),
        ("cache", _cache),
        ("pyopencl", _pyopencl),
        ("devices", lambda: _devices(backend)),
        ("data", _data),
        ("optional packages", _optional),
    )
    for name, group in groups:
        try:
            checks += group()
        except Exception as error:  # a report with a gap says more than none
            checks.append(Check(name, "FAILED", f"could not be examined: {type(error).__name__}: {error}"))
    return checks


def _installation() -> Iterator[Check]:
    yield Check("netcl", "ok", f"{__version__}, {Path(__file__).parents[1]}")
    yield Check("Python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Check("NumPy", "ok", metadata.version("numpy"))
    try:
        folder: Traversable = resources.files("netcl.kernels")
    except ModuleNotFoundError:  # a checkout that is not installed
        folder = Path(__file__).resolve().parents[2] / "kernels"
    kernels = [file for file in folder.iterdir() if file.name.endswith(".cl")]
    if kernels and all(kernel.read_text(encoding="utf-8") for kernel in kernels):
        yield Check("kernels", "ok", f"{len(kernels)} files")
    else:
        yield Check("kernels", "FAILED", "the kernel files are missing", "pip install --force-reinstall netcl")


def _cache() -> Iterator[Check]:
    from netcl.backends.opencl.device.icd import own_folder

    if find_spec("pyopencl") is None:  # NumPy has nothing to keep
        return
    try:
        file = own_folder() / f"doctor-{os.getpid()}"
        write_private(file, b"netcl")
        file.unlink()
        yield Check("cache", "ok", str(file.parent))
    except OSError as error:
        remedy = "name a folder of your own in NETCL_CACHE_DIR; without one each process starts from nothing"
        yield Check("cache", "warning", f"it cannot be used: {error}", remedy)


def _pyopencl() -> Iterator[Check]:
    from netcl.backends.opencl.device.icd import USER_VARIABLES, is_own

    try:
        yield Check("pyopencl", "ok", metadata.version("pyopencl"))
    except metadata.PackageNotFoundError:
        yield Check("pyopencl", "missing", "not installed, so there is NumPy alone", RUNTIME)
    for name in USER_VARIABLES:
        value = os.environ.get(name)
        if not value or is_own(name):
            continue
        gone = [part for part in value.split(os.pathsep) if os.path.isabs(part) and not Path(part).exists()]
        if gone:
            yield Check(
                name, "warning", f"names {', '.join(gone)}, which does not exist", f"unset {name} or correct it"
            )
        else:
            yield Check(name, "ok", f"{value}; it decides which runtimes are listed")


def _devices(backend: str | None) -> Iterator[Check]:
    _announce("trying each device")
    listed = in_child("list")
    rows: list[dict[str, Any]] = [] if listed.failure else listed.value
    if listed.failure:
        yield Check(
            "devices",
            "FAILED",
            f"listing them {listed.failure}",
            "an OpenCL runtime breaks the process that loads it: uninstall it, or name another in OCL_ICD_VENDORS"
            if listed.broke
            else "do as the message says",
        )
    platforms = [row["device"]["platform"] for row in rows]
    usable = [row["id"] for row in rows if row["healthy"]]
    for row in rows:
        yield _device(row)
    if rows and not any(row["device"]["backend"] == "opencl" and row["healthy"] for row in rows):
        yield Check("OpenCL", "missing", "no device that works", RUNTIME)
    for finding in findings(platforms):
        yield Check("system", "warning", finding.found, finding.remedy)
    default = next((row for row in rows if row["default"]), None)
    chosen = backend or (default["id"] if default else "")
    if default:
        yield Check("default", "ok", f"{default['id']}, because of {default['why']}")
    elif rows and not backend:
        named = os.environ.get("NETCL_BACKEND", "")
        yield Check(
            "default", "FAILED", f"NETCL_BACKEND={named} does not work", f"name one that does: {', '.join(usable)}"
        )
    for name in dict.fromkeys([*usable, *([chosen] if chosen else [])]):
        yield _training(name, needed=name == chosen, usable=usable)


def _device(row: dict[str, Any]) -> Check:
    device = row["device"]
    found = ", ".join(filter(None, (device["name"], device["platform"], device["driver"])))
    if row["healthy"] is None:
        return Check(row["id"], "ok", f"{found}: {row['reason']}")
    if row["healthy"]:
        return Check(row["id"], "ok", found)
    reason = row["reason"]
    if any(word in reason.lower() for word in ("linker", "ld:", "-lgcc", "crt1", "libgcc")):
        remedy = "apt install gcc libc6-dev (this runtime links its kernels with the system's linker)"
    else:
        remedy = "update or uninstall its runtime; netcl leaves the device out until then"
    return Check(row["id"], "warning", f"{found}: {reason}", remedy)


def _training(name: str, *, needed: bool, usable: list[str]) -> Check:
    """Five steps there against five on NumPy."""
    _announce(f"training on {name}; the first time its kernels are built, which may take a minute")
    outcome = in_child("train", name)
    if outcome.failure:
        found = f"training on {name} {outcome.failure}"
    elif outcome.value["difference"] > TOLERANCE:
        found = (
            f"training on {name} gives other numbers than on NumPy: they differ by {outcome.value['difference']:.1e}"
        )
    else:
        difference, seconds = outcome.value["difference"], outcome.value["seconds"]
        return Check(
            f"train on {name}", "ok", f"agrees with NumPy to {difference:.0e}; {seconds:.1f} s with the builds"
        )
    others = [other for other in usable if other != name]
    remedy = f"use another: NETCL_BACKEND={others[0]}" if others else RUNTIME
    return Check(f"train on {name}", "FAILED" if needed else "warning", found, remedy)


def _announce(what: str) -> None:
    """Say on a terminal what takes so long; a pipe gets the report alone."""
    if sys.stderr.isatty():
        print(f"... {what}", file=sys.stderr, flush=True)


def _data() -> Iterator[Check]:
    from netcl.data import load_fashion_mnist

    try:
        train, test = load_fashion_mnist()
    except (OSError, ValueError) as error:
        yield Check("data", "warning", str(error), "correct or unset NETCL_DATA; the shipped subset needs nothing")
        return
    yield Check("data", "ok", f"Fashion-MNIST, {len(train):,} + {len(test):,} images from {train.source}")


def _optional() -> Iterator[Check]:
    for name, (extra, purpose) in OPTIONAL.items():
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "missing", f"not installed: no {purpose}", f'pip install "netcl[{extra}]"')
