"""The layer table of docs/design.md, held against every import in netcl/."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "netcl"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))

# Third-party packages, and the files that may import them. A package that is not listed may be imported by none.
THIRD_PARTY = {
    "numpy": r"(?!.*/(base|errors|dtypes|strides|expression|array|arena)\.py$).*",
    "array_api_compat": r"netcl/(backends/reference/.*|host_arrays\.py)",
    "pyopencl": r"netcl/backends/opencl/.*",
    "platformdirs": r"netcl/backends/opencl/device/icd\.py",
    "tqdm": r"netcl/data/.*",
    "mpi4py": r"netcl/distributed/.*",
    "rich": r"netcl/cli/table\.py",
    "matplotlib": r"netcl/cli/demo\.py",
    "torch": r"netcl/cli/bench\.py",
}

# The Array API standard has x.__array_namespace__() return the module that stands above everything.
UPWARD = {("netcl/tensor.py", "netcl/__init__.py")}


def layers() -> list[list[str]]:
    """The table's rows, lowest first, each a list of paths: files, folders (ending in /) or globs."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    section = text.split("\n## The layers\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")][2:]
    return [re.findall(r"`([^`]+)`", cell) for cell in rows]


def level(path: str, rows: list[list[str]]) -> int:
    """The row of ``path``: that of the longest entry that covers it."""
    best = (-1, -1)
    for number, row in enumerate(rows):
        for entry in row:
            full = entry if entry.startswith("netcl/") else f"netcl/{entry}"
            pattern = re.escape(full).replace(r"\*", "[^/]*") + (".*" if full.endswith("/") else "")
            if re.fullmatch(pattern, path):
                best = max(best, (len(full), number))
    return best[1]


def imports(path: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of whatever ``path`` imports when it runs, inside functions too."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), path)
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def module_file(name: str) -> str:
    """The file behind a dotted name: the longest part of it that is a module of netcl."""
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        path = Path(*parts[:end])
        if (ROOT / path).with_suffix(".py").is_file():
            return path.with_suffix(".py").as_posix()
        if (ROOT / path).is_dir():
            return (path / "__init__.py").as_posix()
    return "netcl/__init__.py"


def strings(path: str) -> Iterator[tuple[int, str]]:
    """Line and value of every string constant that is neither a docstring nor the name of an attribute."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"), path)
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr"):
            left_out.add(id(node.args[1]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


def test_the_table_covers_every_module_and_nothing_else():
    rows = layers()
    assert len(rows) > 10
    assert [path for path in FILES if level(path, rows) < 0] == []


@pytest.mark.parametrize("path", FILES)
def test_imports_come_from_the_layers_above(path):
    rows = layers()
    own = level(path, rows)
    for line, name in imports(path):
        if name.split(".")[0] != "netcl" or name.startswith("netcl.kernels"):  # data, no code
            continue
        target = module_file(name)
        if (path, target) in UPWARD:
            continue
        assert level(target, rows) <= own, f"{path}:{line} imports {target}, which stands in a later row of the table"


@pytest.mark.parametrize("path", FILES)
def test_third_party_packages_stay_in_their_place(path):
    import sys

    for line, name in imports(path):
        package = name.split(".")[0]
        if package == "netcl" or package in sys.stdlib_module_names:
            continue
        assert package in THIRD_PARTY, f"{path}:{line} imports {package}, which no layer may import"
        assert re.fullmatch(THIRD_PARTY[package], path), f"{path}:{line} must not import {package}"


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith(("netcl/optim/", "netcl/amp/"))])
def test_optimizers_know_no_concrete_backend(path):
    assert not [name for _, name in imports(path) if name.startswith(("netcl.backends.opencl", "netcl.backends.ref"))]
    named = [(line, text) for line, text in strings(path) if re.search(r"opencl|numpy|reference|pocl", text, re.I)]
    assert named == [], f"{path} names a backend"


@pytest.mark.parametrize("path", FILES)
def test_no_kernel_text_in_python(path):
    text = "\n".join(value for _, value in strings(path))
    assert not re.search(r"__(kernel|global|local|constant)\b|\bget_(global|local|group)_id\b|#pragma", text)


def test_the_checks_see_a_violation(tmp_path, monkeypatch):
    """The tests above can fail: a planted file breaks each rule."""
    import sys

    (tmp_path / "netcl/optim").mkdir(parents=True)
    planted = tmp_path / "netcl/optim/planted.py"
    planted.write_text(
        "def step(backend):\n    import pyopencl\n    from netcl.nn import Linear\n"
        '    if backend.device.backend == "opencl":\n        return "__kernel void f() {}"\n'
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/design.md").write_text(
        "\n## The layers\n| module | idea |\n|---|---|\n| `optim/` | x |\n| `nn/` | x |\n"
    )
    (tmp_path / "netcl/nn").mkdir()
    path = "netcl/optim/planted.py"
    for check in (
        test_imports_come_from_the_layers_above,
        test_third_party_packages_stay_in_their_place,
        test_optimizers_know_no_concrete_backend,
        test_no_kernel_text_in_python,
    ):
        with pytest.raises(AssertionError):
            check(path)
