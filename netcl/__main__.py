"""The command line: ``python -m netcl devices`` and ``python -m netcl tune``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from netcl.backends import DeviceStatus, devices
from netcl.cli import tune
from netcl.errors import NetclError
from netcl.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    parser = argparse.ArgumentParser(prog="netcl", description="Training for every device that speaks OpenCL.")
    parser.add_argument("--version", action="version", version=f"netcl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    listing = commands.add_parser("devices", help="list platforms and devices, and say which is the default and why")
    listing.add_argument("--json", action="store_true", help="print one JSON list instead of text")
    listing.add_argument("--probe", action="store_true", help="try every device anew, also simulators")
    listing.set_defaults(run=_devices)
    tune.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except NetclError as error:
        print(f"netcl {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"netcl {options.command}: interrupted", file=sys.stderr)
        return 130
    return status


def _devices(options: argparse.Namespace) -> int:
    rows = devices(probe=options.probe)
    if options.json:
        print(json.dumps([{"id": str(row.device), **dataclasses.asdict(row)} for row in rows], indent=2))
    else:
        print(table(rows))
    return 0


def table(rows: Sequence[DeviceStatus]) -> str:
    """Devices as aligned text: a line each, then what is wrong with those that do not work, then the default.

    Examples
    --------
    >>> from netcl.backends.base import Device
    >>> from netcl.__main__ import table
    >>> print(table([DeviceStatus(Device("numpy", name="NumPy"), True, "", True, "NETCL_BACKEND=numpy")]))
      device  name   platform  kind  memory  fp16  fp64  works
    * numpy   NumPy  -         cpu   -       no    yes   yes
    <BLANKLINE>
    * default: numpy, because of NETCL_BACKEND=numpy
    """
    lines = [("", "device", "name", "platform", "kind", "memory", "fp16", "fp64", "works")]
    lines += [
        (
            "*" if row.default else "",
            str(row.device),
            row.device.name or "-",
            row.device.platform or "-",
            row.device.kind,
            f"{row.device.memory / 2**30:.1f} GiB" if row.device.memory else "-",
            "yes" if row.device.float16 else "no",
            "yes" if row.device.float64 else "no",
            "-" if row.healthy is None else "yes" if row.healthy else "NO",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text = [line.replace("*  ", "* ", 1) if line.startswith("*") else line[1:] for line in text]
    text.append("")
    text += [f"  {row.device}: {row.reason}" for row in rows if row.healthy is False]
    text += [f"* default: {row.device}, because of {row.why}" for row in rows if row.default]
    if not any(row.default for row in rows):
        text.append("no default: what NETCL_BACKEND names does not work")
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main())
