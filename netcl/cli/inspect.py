"""``netcl inspect``: what a checkpoint holds, without reading a tensor."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netcl.checkpoint.bundle import described
from netcl.checkpoint.safetensors import Place, Reader
from netcl.cli.table import show

COLUMNS = ("tensor", "dtype", "shape", "bytes")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of ``netcl``."""
    parser = subparsers.add_parser("inspect", help="say what a safetensors file holds: parts, tensors, settings")
    parser.add_argument("file", type=Path, help="what netcl.save() wrote, or any safetensors file")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the parts of a file. The exit status is 0, or 1 if it is not a whole safetensors file."""
    with Reader(arguments.file) as reader:
        description = described(arguments.file, reader)
        tensors, metadata = reader.tensors, reader.metadata
    if arguments.json:
        rows = {
            name: {"dtype": place.dtype.name, "shape": list(place.shape), "bytes": place.bytes}
            for name, place in tensors.items()
        }
        print(json.dumps({"tensors": rows, "run": description, "metadata": {} if description else metadata}, indent=2))
        return 0
    show("", COLUMNS, [_cells(name, place) for name, place in sorted(tensors.items(), key=_place)])
    elements = sum(math.prod(place.shape) for place in tensors.values())
    taken = sum(place.bytes for place in tensors.values())
    print(f"\n{len(tensors):,} tensors, {elements:,} elements, {taken:,} bytes")
    if description is None:
        print("weights alone: netcl.save() did not write this file")
        for name, value in metadata.items():
            print(f"  {name}: {value[:200]}")
        return 0
    print(f"written by netcl {description.get('netcl')}, from {description.get('device') or 'no device'}")
    for name, part in description["parts"].items():
        for where, value in _settings(name, part):
            print(f"  {where}: {value}")
    return 0


def _place(item: tuple[str, Place]) -> tuple[bool, int]:
    return "/" in item[0], item[1].start


def _cells(name: str, place: Place) -> tuple[str, ...]:
    return name, place.dtype.name, str(place.shape), f"{place.bytes:,}"


def _settings(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every plain value of a part, with the way to it; lists of plain values on one line."""
    if isinstance(value, dict) and "$items" in value:
        for key, each in value["$items"]:
            yield from _settings(f"{where}/{key}", each)
    elif isinstance(value, dict) and "$tensor" in value:
        return
    elif isinstance(value, dict) and isinstance(value.get("$blocks"), dict):
        blocks = value["$blocks"]
        sign = "signed" if blocks.get("signed") else "unsigned"
        yield where, f"shape {blocks.get('shape')} in {blocks.get('bits')} bits, {sign}"
    elif isinstance(value, dict) and not any(key.startswith("$") for key in value):
        for key, each in value.items():
            yield from _settings(f"{where}/{key}", each)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for i, each in enumerate(value):
            yield from _settings(f"{where}/{i}", each)
    else:
        plain = next(iter(value.values())) if isinstance(value, dict) else value
        yield where, str(plain)[:200]
