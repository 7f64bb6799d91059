"""The README and the pages in docs/ say what is so: their code runs, their links lead somewhere."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import netcl
import netcl.amp
import netcl.autograd
import netcl.data
import netcl.distributed
import netcl.fft
import netcl.functional
import netcl.linalg
import netcl.nn
import netcl.optim
import netcl.special

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
# The optimizer page's snippets lean on names the reader brings (model, loader); tests/test_specification.py runs them.
RUN_ELSEWHERE = {"docs/optim.md"}

PUBLIC = {
    f"{namespace.__name__}.{name}": getattr(namespace, name)
    for namespace in (
        netcl, netcl.amp, netcl.autograd, netcl.functional, netcl.linalg, netcl.fft, netcl.special, netcl.nn,
        netcl.data, netcl.optim, netcl.distributed, netcl.opencl,
    )
    for name in namespace.__all__
}  # fmt: skip
DOCUMENTED = sorted(name for name, value in PUBLIC.items() if inspect.isclass(value) or inspect.isroutine(value))


OPTIONAL = re.compile(r"^(?:import|from) (torch|sklearn|scipy|einops|pyopencl)\b", re.MULTILINE)
"""Libraries that a block may import: it is run where they are installed."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """The anchors a renderer makes from a page's headings."""
    prose = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: str) -> list[str]:
    prose = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in link]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_ELSEWHERE and blocks(page, "python")])
def test_python_blocks_run(page, tmp_path):
    """In their order in one process, as one reads them; in an empty folder, on NumPy."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NETCL_BACKEND": "numpy"}
    there = [block for block in blocks(page, "python") if all(map(find_spec, OPTIONAL.findall(block)))]
    program = tmp_path / "page.py"
    program.write_text("\n".join(there), encoding="utf-8")
    command = [sys.executable, "-W", "error", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert result.returncode == 0, f"{page}:\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {link}, which does not exist"
        assert path.resolve().is_relative_to(ROOT), f"{page} links to {link}, outside the project"
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), f"{page}: no heading for {link}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    """Paths in backticks, such as ``netcl/backends/base.py``."""
    named = re.findall(r"`((?:netcl|kernels|tests|docs|benchmarks|examples|\.ci)/[\w./-]*)`", read(page))
    for path in named:
        assert (ROOT / path).exists(), f"{page} names {path}, which does not exist"


@pytest.mark.parametrize("page", PAGES)
def test_extras_that_are_named_exist(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for group in re.findall(r'"(?:netcl|\.)\[([\w,]+)\]"', read(page)):
        assert set(group.split(",")) <= set(extras), f"{page} names an extra that does not exist: {group}"


def test_readme_has_the_two_commands():
    commands = [block.strip() for block in blocks("README.md", "sh") if block.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert all(len(command.splitlines()) == 1 for command in commands)
    main, tests = commands
    assert "examples/fashion_mnist_mlp.py --backend opencl" in main
    assert tests.endswith("-m pytest")


def test_readme_shows_a_picture_of_what_was_measured():
    from benchmarks.picture import CURVES, PICTURE, beside_torch

    assert f"]({PICTURE.relative_to(ROOT).as_posix()})" in read("README.md")
    curves = json.loads(CURVES.read_text(encoding="utf-8"))
    assert len(curves["opencl"]["loss"]) == len(curves["numpy"]["loss"]) >= 10
    works, ratios = beside_torch()
    assert len(works) >= 5
    assert all(len(values) == len(works) for values in ratios.values())


def test_dashboard_loads_nothing_from_the_web():
    from benchmarks.offline import LOADED, PACKAGES, local

    page = Path(pytest.importorskip("asv").__file__).parent / "www/index.html"
    text = page.read_text(encoding="utf-8")
    assert len(LOADED.findall(text)) >= sum(map(len, PACKAGES.values()))
    assert not LOADED.search(local(text, page.name))


def in_the_reference() -> set[str]:
    """The names of which docs/api has an entry. ``.. functions:: MODULE ...`` stands for all that the modules list."""
    named: set[str] = set()
    for page in sorted((ROOT / "docs/api").glob("*.rst")):
        module = ""
        for directive, argument in re.findall(r"^\.\. (\w+):: (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if directive == "currentmodule":
                module = argument
            elif directive == "functions":
                named |= {f"{module}.{name}" for each in argument.split() for name in import_module(each).__all__}
            elif directive in ("autoclass", "autofunction"):
                named.add(f"{module}.{argument}")
    return named


def test_the_reference_has_every_public_name_where_it_belongs():
    """Once: what the Array API has under ``netcl``, the rest under ``netcl.functional``. Other names are aliases."""
    named = in_the_reference()
    assert len(named) > 200
    array_api = set(netcl.__all__) | set(netcl.linalg.__all__) | set(netcl.fft.__all__)
    aliases = {f"netcl.autograd.{name}" for name in netcl.functional.__all__} | {
        "netcl.optim.AMPGradScaler",
        "netcl.optim.RMSprop",
    }
    aliases |= {f"netcl.functional.{name}" for name in array_api}
    aliases |= {f"netcl.linalg.{name}" for name in netcl.__all__}
    special = set(import_module("netcl.functional.special_functions").__all__)
    aliases |= {f"netcl.functional.{name}" for name in special}
    aliases |= {f"netcl.special.{name}" for name in {*netcl.special.__all__} - special}
    assert [name for name in DOCUMENTED if name not in named | aliases] == []
    assert [name for name in DOCUMENTED if name in named & aliases] == []


AGAIN = {"matrix_transpose", "fft"}
"""Names that stand a second time: netcl.linalg has the first too, and the second is also the module that holds it."""


def test_a_function_is_registered_once():
    """In the list of its module. Namespaces and pages collect those, so writing a function changes no other file."""
    functions = ROOT / "netcl/functional"
    listed: dict[str, str] = {}
    for path in sorted(functions.glob("*.py")):
        module = f"netcl.functional.{path.stem}"
        if path.stem in ("__init__", "array_api") or not hasattr(import_module(module), "__all__"):
            continue
        for name in import_module(module).__all__:
            assert name not in listed, f"{name} is listed by {listed[name]} and {module}"
            assert PUBLIC[f"netcl.functional.{name}"] is getattr(import_module(module), name)
            listed[name] = module
    assert set(listed) == set(netcl.functional.__all__)
    collecting = ["netcl/__init__.py", "netcl/linalg.py", "netcl/fft.py", "netcl/autograd/__init__.py"]
    collecting += ["netcl/functional/__init__.py", "netcl/functional/array_api.py"]
    collecting += [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/api").glob("*.rst")]
    for file in collecting:
        named = re.findall(r"\"(\w+)\"|^\.\. auto\w+:: (\w+)$|^from .* as (\w+)$", read(file), re.MULTILINE)
        again = set(listed) & {name for groups in named for name in groups} - AGAIN
        assert again == set(), f"{file} names a function again"


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_names_are_documented(name):
    value = PUBLIC[name]
    assert inspect.getdoc(value), f"{name} has no docstring"
    if inspect.isclass(value):
        for method, function in vars(value).items():
            if method.startswith("_") or not (inspect.isroutine(function) or isinstance(function, property)):
                continue
            assert inspect.getdoc(getattr(value, method)), f"{name}.{method} has no docstring"
