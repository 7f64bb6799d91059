"""Tables: drawn by rich in a terminal where it is installed, plain aligned text everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

Rows = Sequence[Sequence[str]]


def show(title: str, columns: Sequence[str], rows: Rows) -> None:
    """Print a table.

    Parameters
    ----------
    title : str
        A line above the table; empty for none.
    columns : sequence of str
        The heads.
    rows : sequence of sequences of str
        As many cells each as there are columns. Columns of numbers are set to the right.
    """
    if sys.stdout.isatty() and find_spec("rich"):
        _draw(title, columns, rows)
    else:
        print("\n".join(filter(None, (title, text(columns, rows)))))


def text(columns: Sequence[str], rows: Rows) -> str:
    """The table as plain text: columns as wide as they need be, two spaces between them.

    Examples
    --------
    >>> from netcl.cli.table import text
    >>> print(text(("work", "GB/s"), [("scale", "9.5"), ("axpy", "21.3")]))
    work   GB/s
    scale   9.5
    axpy   21.3
    """
    numbers = _numbers(columns, rows)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in (columns, *rows)
    )


def _numbers(columns: Sequence[str], rows: Rows) -> list[bool]:
    """Which columns hold numbers, blanks or dashes and at least one number."""
    found = []
    for number in range(len(columns)):
        cells = [row[number].strip() for row in rows]
        found.append(
            any(cell[:1].isdigit() for cell in cells) and all(cell in ("", "-") or _is_number(cell) for cell in cells)
        )
    return found


def _is_number(cell: str) -> bool:
    digits = cell.removesuffix("%").removesuffix("x").strip().replace(",", "")
    try:
        float(digits)
    except ValueError:
        return False
    return True


def _draw(title: str, columns: Sequence[str], rows: Rows) -> None:
    Text = import_module("rich.text").Text
    drawn = import_module("rich.table").Table(
        title=title or None, title_justify="left", box=import_module("rich.box").SIMPLE_HEAD
    )
    for name, number in zip(columns, _numbers(columns, rows), strict=True):
        drawn.add_column(name, justify="right" if number else "left")
    for row in rows:
        drawn.add_row(*map(Text, row))
    import_module("rich.console").Console().print(drawn)
