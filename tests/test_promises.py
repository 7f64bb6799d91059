"""docs/promises.md names the tests that hold each promise: they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:tests|netcl/testing)/[\w/]+\.py(?:::\w+)?)`", PAGE)))


def missing(name: str) -> bool:
    """Whether no file holds a test of this name; a file alone is there if it holds any."""
    file, _, function = name.partition("::")
    path = ROOT / file
    if not path.is_file():
        return True
    defined = {
        node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    }
    return function not in defined if function else not any(name.startswith("test_") for name in defined)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_test_is_there(name):
    assert not missing(name)


def test_every_promise_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "|---"))]
    assert len(rows) > 30
    assert [row for row in rows if not re.search("`(tests|netcl/testing)/", row.rsplit("|", 2)[1])] == []


def test_a_test_that_is_gone_is_noticed():
    assert missing("tests/test_promises.py::test_of_nothing")
    assert missing("tests/test_of_nothing.py")
