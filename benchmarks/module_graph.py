"""What the modules of netcl import, as figures or as a graph: ``python -m benchmarks.module_graph [--root PATH]``.

Counts the files and the longest of them, the import cycles between modules, the imports that run up the layer table of
``docs/design.md``, and the classes with many methods. Imports inside functions count; those for types alone count in a
figure of their own. What :data:`IMPOSED` names is left out of the cycles.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

METHODS = 20
"""Methods beyond which a class is named."""

IMPOSED = {("netcl/tensor.py", "netcl/__init__.py")}
"""Imports that run up: the Array API standard has ``x.__array_namespace__()`` return the module above everything."""


class Import(NamedTuple):
    """``path`` imports ``target``, a file of netcl, in line ``line``."""

    path: str
    line: int
    target: str


class Large(NamedTuple):
    """A class of many methods."""

    path: str
    name: str
    methods: int


def files(root: Path) -> list[str]:
    """Every module, as a path from ``root``."""
    return sorted(path.relative_to(root).as_posix() for path in (root / "netcl").rglob("*.py"))


def parsed(root: Path, path: str) -> ast.Module:
    return ast.parse((root / path).read_text(encoding="utf-8"), path)


def names(tree: ast.Module, *, types: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of whatever a module imports, inside functions too; with ``types``, also for types alone."""
    for_types = (
        set()
        if types
        else {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
            for statement in branch.body
            for node in ast.walk(statement)
        }
    )
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def module_file(root: Path, name: str) -> str:
    """The file behind a dotted name: the longest part of it that is a module of netcl."""
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        path = Path(*parts[:end])
        if (root / path).with_suffix(".py").is_file():
            return path.with_suffix(".py").as_posix()
        if (root / path).is_dir():
            return (path / "__init__.py").as_posix()
    return "netcl/__init__.py"


def imports(root: Path, *, types: bool = False) -> list[Import]:
    """Every import of one module of netcl by another; with ``types``, also those for types alone."""
    found = []
    for path in files(root):
        for line, name in names(parsed(root, path), types=types):
            # netcl.kernels is data, and no module.
            if name.split(".")[0] == "netcl" and not name.startswith("netcl.kernels"):
                target = module_file(root, name)
                if target != path:
                    found.append(Import(path, line, target))
    return found


def targets(found: Iterable[Import]) -> dict[str, set[str]]:
    """The modules that each module imports."""
    graph: dict[str, set[str]] = {}
    for path, _, target in found:
        graph.setdefault(path, set()).add(target)
    return graph


def cycles(found: Sequence[Import]) -> list[list[str]]:
    """The groups of modules that import each other by some way: strongly connected components, after R. Tarjan."""
    edges = targets(one for one in found if (one.path, one.target) not in IMPOSED)
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], index[other])
        if lowest[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def layers(root: Path) -> list[list[str]]:
    """The rows of the layer table, lowest first, each a list of paths: files, folders (ending in /) or globs."""
    text = (root / "docs/design.md").read_text(encoding="utf-8")
    section = text.split("\n## The layers\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")][2:]
    return [re.findall(r"`([^`]+)`", cell) for cell in rows]


def level(path: str, rows: list[list[str]]) -> int:
    """The row of ``path``: that of the longest entry that covers it; -1 if none does."""
    best = (-1, -1)
    for number, row in enumerate(rows):
        for entry in row:
            full = entry if entry.startswith("netcl/") else f"netcl/{entry}"
            pattern = re.escape(full).replace(r"\*", "[^/]*") + (".*" if full.endswith("/") else "")
            if re.fullmatch(pattern, path):
                best = max(best, (len(full), number))
    return best[1]


def upward(found: Sequence[Import], rows: list[list[str]]) -> list[Import]:
    """Imports of a module in a later row of the table."""
    return [one for one in found if level(one.target, rows) > level(one.path, rows)]


def large_classes(root: Path, most: int = METHODS) -> list[Large]:
    """Classes with more methods than ``most``, the largest first; overloads and what is inherited do not count."""
    found = []
    for path in files(root):
        for node in ast.walk(parsed(root, path)):
            if isinstance(node, ast.ClassDef):
                own = {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
                if len(own) > most:
                    found.append(Large(path, node.name, len(own)))
    return sorted(found, key=lambda one: -one.methods)


def report(root: Path) -> str:
    """The figures of a checkout."""
    paths = files(root)
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in paths}
    longest = max(paths, key=lengths.__getitem__)
    found = imports(root)
    parts = [
        (f"{len(paths)} files, the longest {longest} with {lengths[longest]} lines", []),
        (f"{len({(one.path, one.target) for one in found})} imports", []),
    ]
    for name, groups in (("", cycles(found)), (", types included", cycles(imports(root, types=True)))):
        parts.append((f"{len(groups)} import cycles{name}", [", ".join(group) for group in groups]))
    up = upward(found, layers(root))
    parts.append((f"{len(up)} upward imports", [f"{one.path}:{one.line} {one.target}" for one in up]))
    large = large_classes(root)
    named = [f"{one.name} {one.methods} ({one.path})" for one in large]
    parts.append((f"{len(large)} classes over {METHODS} methods", named))
    return "\n".join(line for title, lines in parts for line in (title, *(f"  {line}" for line in lines)))


def dot(root: Path) -> str:
    """The graph for Graphviz, a row of the layer table a rank."""
    rows = layers(root)
    lines = ["digraph netcl {", "  rankdir = BT; node [shape = box];"]
    for number in range(len(rows)):
        members = [f'"{path}"' for path in files(root) if level(path, rows) == number]
        lines.append(f"  {{ rank = same; {'; '.join(members)}; }}")
    for path, found in sorted(targets(imports(root)).items()):
        lines += [f'  "{path}" -> "{target}";' for target in sorted(found)]
    return "\n".join([*lines, "}"])


def main() -> None:
    """Print the figures, or the graph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="another checkout")
    parser.add_argument("--dot", action="store_true", help="print the graph for Graphviz instead of the figures")
    chosen = parser.parse_args()
    print(dot(chosen.root) if chosen.dot else report(chosen.root))


if __name__ == "__main__":
    main()
