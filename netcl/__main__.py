"""The command line: ``python -m netcl``, or ``netcl``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from netcl.cli import bench, demo, devices, doctor, inspect, tune
from netcl.errors import NetclError
from netcl.version import __version__

COMMANDS = (devices, doctor, inspect, bench, tune, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 if something failed, 2 for a wrong usage.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    parser = argparse.ArgumentParser(prog="netcl", description="Training for every device that speaks OpenCL.")
    parser.add_argument("--version", action="version", version=f"netcl {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="command")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # What read the output, `head` for one, has enough. Nothing is left to be flushed at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (NetclError, OSError) as error:  # the latter of a full disk or a file that may not be read
        print(f"netcl {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"netcl {options.command}: interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
