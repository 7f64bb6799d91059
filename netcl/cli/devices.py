"""``netcl devices``: what there is, whether it works, and which is the default and why."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from netcl.backends import DeviceStatus, devices
from netcl.cli.table import show

COLUMNS = ("  device", "name", "platform", "kind", "memory", "fp16", "fp64", "works")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of ``netcl``."""
    parser = subparsers.add_parser("devices", help="list platforms and devices, and say which is the default and why")
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of text")
    parser.add_argument("--probe", action="store_true", help="try every device anew, also simulators")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the devices. **Blocks** while they are tried for the first time; the exit status is 0."""
    rows = devices(probe=arguments.probe)
    if arguments.json:
        print(json.dumps(as_json(rows), indent=2))
    else:
        report(rows)
    return 0


def as_json(rows: Sequence[DeviceStatus]) -> list[dict[str, Any]]:
    """The rows as plain data, each with the ``id`` by which a device is named."""
    return [{"id": str(row.device), **dataclasses.asdict(row)} for row in rows]


def report(rows: Sequence[DeviceStatus]) -> None:
    """Print devices: a line each, then what is wrong with those that do not work, then the default.

    Examples
    --------
    >>> from netcl.backends.base import Device
    >>> from netcl.cli.devices import report
    >>> report([DeviceStatus(Device("numpy", name="NumPy"), True, "", True, "NETCL_BACKEND=numpy")])
      device  name   platform  kind  memory  fp16  fp64  works
    * numpy   NumPy  -         cpu   -       no    yes   yes
    <BLANKLINE>
    * default: numpy, because of NETCL_BACKEND=numpy
    """
    show("", COLUMNS, [_cells(row) for row in rows])
    print()
    for row in rows:
        if row.healthy is False:
            print(f"  {row.device}: {row.reason}")
    for row in rows:
        if row.default:
            print(f"* default: {row.device}, because of {row.why}")
    if not any(row.default for row in rows):
        print("no default: what NETCL_BACKEND names does not work")


def _cells(row: DeviceStatus) -> tuple[str, ...]:
    device = row.device
    return (
        f"{'*' if row.default else ' '} {device}",
        device.name or "-",
        device.platform or "-",
        device.kind,
        f"{device.memory / 2**30:.1f} GiB" if device.memory else "-",
        "yes" if device.float16 else "no",
        "yes" if device.float64 else "no",
        "-" if row.healthy is None else "yes" if row.healthy else "NO",
    )
